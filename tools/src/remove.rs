//! `ringway rm`: takes away channels that nobody has open, one by one. Whether somebody has a
//! channel open is for the transport to judge, never for this file.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

/// What `ringway rm` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Addresses such as shm://ticks
    #[arg(required_unless_present = "dead", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// What processes that died showed of their ends between hosts, as `ringway ls` lists it
    #[arg(long)]
    dead: bool,
}

/// Removes each channel; goes on past one that can't be removed and then exits with 1.
pub(crate) fn run(options: &Options) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for address in &options.addresses {
        match ringway::remove(address) {
            // A closed standard output is no reason to leave the other channels where they are.
            Ok(true) => drop(writeln!(std::io::stdout(), "removed {address}")),
            Ok(false) if address.starts_with("tcp://") => {
                eprintln!(
                    "ringway rm: {address} goes between hosts: nothing of it is kept that could be removed. \
                     `ringway rm --dead` removes what processes that died showed of such channels"
                );
                code = ExitCode::FAILURE;
            }
            Ok(false) => {
                eprintln!(
                    "ringway rm: there is no channel {address} (channels live in $RINGWAY_DIR, or \
                     /dev/shm/ringway-<uid>)"
                );
                code = ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("ringway rm: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if options.dead && !remove_dead() {
        code = ExitCode::FAILURE;
    }
    code
}

/// Whether all of it could be removed.
fn remove_dead() -> bool {
    let removed = match ringway::watch::remove_dead(None) {
        Ok(removed) => removed,
        Err(error) => {
            eprintln!("ringway rm: {error}");
            return false;
        }
    };
    let mut all = true;
    for (path, error) in removed {
        match error {
            None => drop(writeln!(std::io::stdout(), "removed {}", path.display())),
            Some(error) => {
                eprintln!("ringway rm: {error}");
                all = false;
            }
        }
    }
    all
}

//! The `ringway` program: reads the command line and hands over to one module per subcommand.
//! What a subcommand does never lives here.

mod demo;
mod list;
mod remove;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Messages between processes in nanoseconds: demonstrate, inspect, clean up.
#[derive(Parser)]
#[command(name = "ringway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stream real input from one process to another and report what it cost
    Demo(demo::Options),
    /// List channels, and the ends of channels between hosts, that are open on this host
    Ls(list::Options),
    /// Show every counter of them
    Stat(list::Options),
    /// Remove a channel that nobody has open, or what dead processes left
    Rm(remove::Options),
    /// The publishing half of `demo`
    #[command(hide = true)]
    DemoPublish(demo::publish::Options),
    /// The subscribing half of `demo`
    #[command(hide = true)]
    DemoSubscribe(demo::subscribe::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Ls(options) => list::run(&options),
        Command::Stat(options) => list::stat(&options),
        Command::Rm(options) => remove::run(&options),
        Command::DemoPublish(options) => demo::publish::run(&options),
        Command::DemoSubscribe(options) => demo::subscribe::run(&options),
    }
}

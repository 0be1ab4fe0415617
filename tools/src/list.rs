//! `ringway ls`: what is open on this host, a line each; `ringway stat`: the same, with every counter.
//! How it is found out is for the transport to know, never for this file.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ringway::Stats;
use ringway::watch::{self, COUNTERS, Endpoint, Listed, Process};

/// What `ringway ls` and `ringway stat` take.
#[derive(Args)]
pub(crate) struct Options {
    /// Names of channels, such as ticks; all of them if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What was asked for, and what of it was not found so far.
struct Search<'a> {
    all: bool,
    names: Vec<(&'a str, bool)>,
}

impl<'a> Search<'a> {
    fn of(options: &'a Options) -> Self {
        let names = options.names.iter().map(|name| (name.as_str(), false)).collect();
        Self { all: options.names.is_empty(), names }
    }

    /// Whether this is asked for, which then is found.
    fn finds(&mut self, name: &str) -> bool {
        let mut wanted = self.all;
        for (asked, found) in &mut self.names {
            // An address is as good.
            let address = asked.split('?').next().unwrap_or(asked);
            if address.rsplit('/').next() == Some(name) {
                (wanted, *found) = (true, true);
            }
        }
        wanted
    }

    fn missing(&self) -> Vec<&'a str> {
        self.names.iter().filter(|(_, found)| !found).map(|(name, _)| *name).collect()
    }
}

/// A line for each channel and each end between hosts.
pub(crate) fn run(options: &Options) -> ExitCode {
    report("ls", options, line_of_channel, line_of_endpoint)
}

/// Every counter of each of them.
pub(crate) fn stat(options: &Options) -> ExitCode {
    report("stat", options, counters_of_channel, counters_of_endpoint)
}

/// Goes on past what can't be read, says why, and then exits with 1.
fn report(
    command: &str,
    options: &Options,
    channel: fn(&str, &Listed) -> String,
    endpoint: fn(&Process, &Endpoint) -> String,
) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut complain = |what: &dyn std::fmt::Display| {
        eprintln!("ringway {command}: {what}");
        code = ExitCode::FAILURE;
    };
    let mut text = String::new();
    let mut search = Search::of(options);
    // Of processes that show nothing that was asked for: what is not found may be among these.
    let mut hidden = String::new();
    match watch::channels(None) {
        Ok(channels) => {
            for (name, listed) in channels {
                if !search.finds(&name) {
                    continue;
                }
                match listed {
                    Ok(listed) => text += &channel(&name, &listed),
                    Err(error) => complain(&format_args!("shm://{name} is left out. {error}")),
                }
            }
        }
        Err(error) => complain(&error),
    }
    match watch::processes(None) {
        Ok(processes) => {
            for found in processes {
                let process = match found {
                    Ok(process) => process,
                    Err(error) => {
                        complain(&format_args!("a process's ends are left out. {error}"));
                        continue;
                    }
                };
                let mut wanted = search.all;
                for shown in &process.endpoints {
                    match shown {
                        Ok(end) if search.finds(&end.name) => {
                            wanted = true;
                            text += &endpoint(&process, end);
                        }
                        Ok(_) => {}
                        Err(why) => {
                            let path = process.path.display();
                            complain(&format_args!("an end is left out. {path}: {why}"));
                        }
                    }
                }
                if process.hidden > 0 {
                    let _ = writeln!(
                        if wanted { &mut text } else { &mut hidden },
                        "{} has {} more ends between hosts, for which its ledger has no room",
                        who(&process),
                        process.hidden
                    );
                }
                if !process.is_alive && wanted {
                    let _ = writeln!(
                        text,
                        "{} is dead, and this is what it showed last: `ringway rm --dead` removes it",
                        who(&process)
                    );
                }
            }
        }
        Err(error) => complain(&error),
    }
    let missing = search.missing();
    if !missing.is_empty() {
        text += &hidden;
        complain(&format_args!(
            "nothing is open by the name of {}; `ringway ls` lists what is",
            missing.join(", ")
        ));
    }
    // A closed standard output is nothing to complain about.
    drop(io::stdout().write_all(text.as_bytes()));
    code
}

fn line_of_channel(name: &str, listed: &Listed) -> String {
    let ends = |sends: bool, none: &str| {
        let pids: Vec<String> = listed
            .ends
            .iter()
            .filter(|end| end.sends == sends)
            .map(|end| end.pid.to_string())
            .collect();
        if pids.is_empty() { none.to_owned() } else { format!("process {}", pids.join(", ")) }
    };
    let counted = match &listed.stats {
        Some(stats) => {
            let Stats { sent, received, depth, .. } = stats;
            format!("sent {sent} received {received} waiting {depth}")
        }
        None => "nothing sent yet".to_owned(),
    };
    format!(
        "shm://{name} {} {counted}, from {} to {}\n",
        listed.kind,
        ends(true, "nobody"),
        ends(false, "nobody")
    )
}

fn counters_of_channel(name: &str, listed: &Listed) -> String {
    let mut text = format!("shm://{name}\n");
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {key:<20} {value}");
    };
    put("kind", &listed.kind);
    put("capacity", &listed.capacity);
    put("segments", &listed.segments);
    for end in &listed.ends {
        put(if end.sends { "sender" } else { "receiver" }, &end.who);
    }
    if let Some(stats) = &listed.stats {
        for (key, value) in [
            ("sent", stats.sent),
            ("received", stats.received),
            ("waiting", stats.depth),
            ("bytes", stats.bytes),
            ("depth_max_bytes", stats.depth_max_bytes),
            ("full_waits", stats.full_waits),
            ("producer_parks", stats.producer_parks),
            ("producer_wakes", stats.producer_wakes),
            ("consumer_parks", stats.consumer_parks),
            ("consumer_wakes", stats.consumer_wakes),
            ("missed", stats.missed),
            ("evicted", stats.evicted),
            ("redelivered", stats.redelivered),
            ("returned", stats.returned),
            ("dropped", stats.dropped),
            ("given_up", stats.given_up),
        ] {
            put(key, &value);
        }
    }
    text
}

fn line_of_endpoint(process: &Process, end: &Endpoint) -> String {
    let count = |name| end.counter(name).unwrap_or(0);
    let mut line = format!(
        "{} {} {} {}/{} {} {} messages {} bytes",
        address(end),
        end.kind,
        if end.sends { "sends" } else { "receives" },
        end.backend,
        end.io,
        end.state,
        count("messages"),
        count("bytes"),
    );
    if count("behind_bytes") > 0 {
        let _ = write!(line, ", {} bytes waiting", count("behind_bytes"));
    }
    if count("lost") > 0 {
        let _ = write!(line, ", {} messages LOST", count("lost"));
    }
    let _ = write!(line, ", {}, {}", other_side(end), who(process));
    if !process.is_alive {
        line += " DEAD";
    }
    if end.is_torn {
        line += ", written while it was read: a mixture";
    }
    let _ = writeln!(line, ", as of {} ago", age(end.shown_ns));
    line
}

fn counters_of_endpoint(process: &Process, end: &Endpoint) -> String {
    let mut text = format!("{}\n", address(end));
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {key:<20} {value}");
    };
    let life = if process.is_alive { "alive" } else { "dead" };
    put("process", &format_args!("{} {life}", who(process)));
    put("role", &if end.sends { "sender" } else { "receiver" });
    put("kind", &end.kind);
    put("side", &if end.binds { "binds" } else { "connects" });
    put("backend", &end.backend);
    put("io", &end.io);
    put("state", &end.state);
    put("peer", &other_side(end));
    if let Some([a, b, c, d, ..]) = end.session {
        put("session", &format_args!("{a:02x}{b:02x}{c:02x}{d:02x}"));
    }
    if let Some(trouble) = &end.trouble {
        put("trouble", trouble);
    }
    put("opened", &format_args!("{} ago", age(end.opened_ns)));
    put("as of", &format_args!("{} ago", age(end.shown_ns)));
    if end.is_torn {
        put("torn", &"written while it was read, or the process died in it: a mixture");
    }
    for (key, value) in COUNTERS.iter().zip(end.counters) {
        put(key, &value);
    }
    text
}

/// As it could be opened; an end that was never connected has none of its own yet.
fn address(end: &Endpoint) -> String {
    let at = if end.binds { end.local } else { end.peer };
    match at {
        Some(at) => format!("tcp://{at}/{}", end.name),
        None => format!("tcp://?/{}", end.name),
    }
}

fn other_side(end: &Endpoint) -> String {
    match (end.peers, end.peer) {
        (2.., _) => format!("{} on the other side", end.peers),
        (_, Some(peer)) => format!("peer {peer}"),
        (_, None) => "nobody on the other side".to_owned(),
    }
}

fn who(process: &Process) -> String {
    format!("process {} (`{}`)", process.pid, process.command)
}

/// For how long something has been so, roughly: clocks are set now and then.
fn age(since_ns: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = now.saturating_sub(Duration::from_nanos(since_ns));
    match ago.as_secs() {
        0 => format!("{} ms", ago.as_millis()),
        seconds @ 1..600 => format!("{seconds} s"),
        seconds @ 600..172_800 => format!("{} min", seconds / 60),
        seconds => format!("{} days", seconds / 86_400),
    }
}

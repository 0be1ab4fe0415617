//! `ringway demo`: a publisher and a subscriber as two processes, real input between them, and a
//! report of what arrived and how long it took. This file has the command's options and its exit
//! status; what the processes do never lives here.
//!
//! ```text
//!   demo ── supervise ──┬─ child: publish    source (telemetry | feed) ─ pace ─▶ channel
//!    │                  └─ child: subscribe  channel ─▶ tally
//!    └─ report ◀─────────── news (JSON lines on the children's standard output)
//! ```

mod channel;
mod child;
mod clock;
mod feed;
mod leash;
mod message;
mod news;
mod pace;
mod proc_text;
mod progress;
pub(crate) mod publish;
mod report;
mod source;
pub(crate) mod subscribe;
mod supervise;
mod tally;
mod telemetry;
mod units;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::pace::{Speed, parse_seconds};
use self::report::Report;
use self::supervise::{Plan, supervise};

/// What `ringway demo` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Play a recorded feed, one `UNIX_SECONDS: JSON` a line, not this host's telemetry; it is
    /// read into memory whole
    #[arg(long, value_name = "FILE")]
    feed: Option<PathBuf>,
    /// So many times the source's own pace, or `max`: as fast as the subscriber receives
    #[arg(long, value_name = "N|max", default_value = "1", allow_negative_numbers = true)]
    speed: Speed,
    /// Stop after so many seconds, if the feed isn't over by then
    #[arg(long, value_name = "N", default_value = "10", allow_negative_numbers = true, value_parser = parse_seconds)]
    seconds: Duration,
    /// So many subscribers, each of which gets every message (kind=broadcast)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    subscribers: u8,
    /// How the subscriber waits for a message, and the publisher for room
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    wait: Wait,
    /// Size of the ring, such as 64KiB or 4MiB
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    capacity: String,
    /// Write the report to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wait {
    /// Never sleep: the lowest latency, and a core that is always busy
    Spin,
    /// Spin for a while, then sleep
    Adaptive,
    /// Sleep at once
    Park,
}

impl Wait {
    fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
            Self::Park => "park",
        }
    }
}

/// Runs the demo. Succeeds only if everything that was sent arrived, once and unaltered, and all
/// ended in order; leaves no channel behind either way.
pub(crate) fn run(options: &Options) -> ExitCode {
    let address = channel::new_address(&options.capacity, options.wait.name(), options.subscribers);
    let findings = supervise(plan(options, &address));
    let removed = channel::remove(&address);
    let mut problems = match findings {
        Ok(findings) => conclude(options, Report::new(address, findings)),
        Err(problems) => problems,
    };
    // What kept the channel from being opened may keep it from being removed.
    problems.extend(removed.err().filter(|error| !problems.iter().any(|it| it.ends_with(error))));
    for problem in &problems {
        eprintln!("ringway demo: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows the report and gives the reasons to fail.
fn conclude(options: &Options, report: Report) -> Vec<String> {
    // A standard output that is closed changes nothing about what the exit status says.
    let _ = write!(std::io::stdout(), "{report}");
    let written = options.json.as_deref().map_or(Ok(()), |path| write_json(path, &report));
    let mut problems = report.into_problems();
    problems.extend(written.err());
    problems
}

fn plan(options: &Options, address: &str) -> Plan {
    let speed = options.speed.to_string();
    let seconds = options.seconds.as_secs_f64().to_string();
    let mut publisher: Vec<OsString> =
        ["demo-publish", "--address", address, "--speed", &speed, "--seconds", &seconds]
            .map(OsString::from)
            .into();
    if let Some(feed) = &options.feed {
        publisher.extend(["--feed".into(), feed.into()]);
    }
    let subscriber = ["demo-subscribe", "--address", address].map(OsString::from).into();
    let subscribers = options.subscribers.into();
    Plan { publisher, subscriber, subscribers, length: options.seconds }
}

fn write_json(path: &Path, report: &Report) -> Result<(), String> {
    serde_json::to_string_pretty(report)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(path, text + "\n"))
        .map_err(|error| format!("cannot write the report to {}: {error}", path.display()))
}

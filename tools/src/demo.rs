//! `ringway demo`: a publisher and a subscriber as two processes, real input between them, and a
//! report of what arrived and how long it took. This file has the command's options and its exit
//! status; what the processes do never lives here.
//!
//! ```text
//!   demo ── supervise ──┬─ child: publish    source (telemetry | feed) ─ pace ─▶ channel
//!    │                  ├─ relay, if the connection is to be cut
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
mod relay;
mod report;
mod source;
pub(crate) mod subscribe;
mod supervise;
mod tally;
mod telemetry;
mod units;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{self, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::channel::{Backend, Channel, Over, Path};
use self::pace::{Speed, parse_seconds};
use self::relay::Cuts;
use self::report::{Report, SideBySide};
use self::supervise::{Plan, hear_signals, supervise};

/// What `ringway demo` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// What is between the two processes. By default both, one after the other, each with a report
    /// of its own; with several subscribers, shared memory alone
    #[arg(long, value_enum)]
    over: Option<Over>,
    /// What moves the bytes over TCP. By default io_uring, then epoll
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Reset the TCP connection so many times during the stream, by a relay between the two processes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    cuts: u32,
    /// Play a recorded feed, one `UNIX_SECONDS: JSON` a line, not this host's telemetry: a file, no
    /// pipe, which is read into memory whole
    #[arg(long, value_name = "FILE")]
    feed: Option<PathBuf>,
    /// So many times the source's own pace, or `max`: as fast as the subscriber receives
    #[arg(long, value_name = "N|max", default_value = "1", allow_negative_numbers = true)]
    speed: Speed,
    /// Stop after so many seconds on each path, if the feed isn't over by then
    #[arg(long, value_name = "N", default_value = "7", allow_negative_numbers = true, value_parser = parse_seconds)]
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

impl Options {
    fn backend(&self) -> Backend {
        self.backend.unwrap_or(Backend::Both)
    }
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
    let feed = || options.feed.as_deref().map(feed::locate).transpose();
    let problems = match paths(options).and_then(|paths| Ok((paths, feed()?))) {
        Ok((paths, feed)) => play(options, &paths, feed.as_deref()),
        Err(problem) => vec![problem],
    };
    for problem in &problems {
        eprintln!("ringway demo: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which paths to play over.
fn paths(options: &Options) -> Result<Vec<Path>, String> {
    let several = options.subscribers > 1;
    let tcp = Path::between_hosts(options.backend());
    match options.over {
        Some(Over::Tcp | Over::Both) if several => {
            Err("between hosts a channel has one subscriber: leave out `--subscribers`, or type \
                 `--over shm`"
                .into())
        }
        Some(Over::Shm) if options.backend.is_some() => {
            Err("shared memory needs nobody to move its bytes: leave out `--backend`, or type \
                 `--over tcp`"
                .into())
        }
        Some(Over::Shm) if options.cuts > 0 => {
            Err("shared memory has no connection to cut: leave out `--cuts`, or type `--over tcp`"
                .into())
        }
        None if several && options.backend.is_some() => Err(
            "between hosts a channel has one subscriber, and shared memory needs nobody to move \
                 its bytes: leave out `--subscribers` or `--backend`"
                .into(),
        ),
        None if several && options.cuts > 0 => {
            Err("between hosts a channel has one subscriber, and in shared memory there is no \
                 connection to cut: leave out `--subscribers` or `--cuts`"
                .into())
        }
        Some(Over::Shm) => Ok(vec![Path::Shm]),
        Some(Over::Tcp) => Ok(tcp.into()),
        None if several => Ok(vec![Path::Shm]),
        Some(Over::Both) | None => Ok([&[Path::Shm], tcp].concat()),
    }
}

/// Plays over one path after the other and shows the reports. The reasons to fail; the first path that
/// has one is the last.
fn play(options: &Options, paths: &[Path], feed: Option<&path::Path>) -> Vec<String> {
    let (sender, events) = mpsc::channel();
    if let Err(problem) = hear_signals(sender.clone()) {
        return vec![problem];
    }
    let mut reports = Vec::new();
    let mut written = BTreeMap::new();
    let mut problems = Vec::new();
    for &path in paths {
        // Who asks for it alone is to hear of it as a failure.
        if options.backend() == Backend::Both
            && let Some(why) = path.lack()
        {
            show(format_args!("-- {}: skipped. {why}\n", path.name()));
            continue;
        }
        let (wait, subscribers) = (options.wait.name(), options.subscribers);
        let channel = Channel::new(path, &options.capacity, wait, subscribers);
        show(format_args!("-- {}\n", path.name()));
        let findings = supervise(plan(options, feed, channel.clone()), &sender, &events);
        let removed = channel.remove();
        let mut over = false;
        match findings {
            Ok(findings) => {
                over = findings.interrupted;
                let report = Report::new(channel.sending(findings.door), findings);
                show(format_args!("{report}"));
                problems.extend_from_slice(report.problems());
                written.insert(path.key(), reports.len());
                reports.push((path.name(), report));
            }
            Err(found) => {
                over |= found.is_empty();
                problems.extend(found);
            }
        }
        // What kept the channel from being opened may keep it from being removed.
        problems
            .extend(removed.err().filter(|error| !problems.iter().any(|it| it.ends_with(error))));
        if over || !problems.is_empty() {
            break;
        }
    }
    if reports.len() > 1 {
        show(format_args!("-- side by side\n{}", SideBySide(&reports)));
    }
    if let Some(path) = &options.json
        && !reports.is_empty()
    {
        let written = written.into_iter().map(|(key, at)| (key, &reports[at].1)).collect();
        problems.extend(write_json(path, &written).err());
    }
    problems
}

/// A standard output that is closed changes nothing about what the exit status says.
fn show(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

fn plan(options: &Options, feed: Option<&path::Path>, channel: Channel) -> Plan {
    let speed = options.speed.to_string();
    let seconds = options.seconds.as_secs_f64().to_string();
    let mut publisher: Vec<OsString> =
        ["demo-publish", "--speed", &speed, "--seconds", &seconds].map(OsString::from).into();
    if let Some(feed) = feed {
        publisher.extend(["--feed".into(), feed.into()]);
    }
    // What a feed takes on the way is more than what its lines take in the file.
    let bytes = feed.and_then(|feed| fs::metadata(feed).ok()).map(|it| it.len());
    let cuts = Cuts { count: options.cuts, length: options.seconds, bytes };
    Plan {
        cuts: Some(cuts).filter(|cuts| cuts.count > 0 && channel.is_remote()),
        channel,
        publisher,
        subscriber: vec!["demo-subscribe".into()],
        subscribers: options.subscribers.into(),
        length: options.seconds,
    }
}

/// One report for each path, under its key.
fn write_json(path: &path::Path, reports: &BTreeMap<&str, &Report>) -> Result<(), String> {
    serde_json::to_string_pretty(reports)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(path, text + "\n"))
        .map_err(|error| format!("cannot write the report to {}: {error}", path.display()))
}

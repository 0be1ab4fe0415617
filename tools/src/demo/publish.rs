//! The publishing process: plays a source into the channel and never drops a message: it waits
//! while the ring is full. Reading sources never lives here, nor what the user sees.

use std::io::{Stdout, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway::{SendError, Sender};

use super::channel;
use super::clock::now_ns;
use super::feed::Feed;
use super::leash::Leash;
use super::message::{Begin, Body, Message};
use super::news::{Ending, Line, News, PROGRESS_EVERY_NS, Sent};
use super::pace::{Speed, parse_seconds};
use super::source::Source;
use super::telemetry::Telemetry;

/// What the parent passes on.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    address: String,
    #[arg(long)]
    feed: Option<PathBuf>,
    #[arg(long)]
    speed: Speed,
    #[arg(long, value_parser = parse_seconds)]
    seconds: Duration,
}

/// How long a wait may last before the parent's wish and the time are looked at again.
const SLICE: Duration = Duration::from_millis(20);

/// The same between hosts, where the connection is looked after by this process's calls alone.
const REMOTE_SLICE: Duration = Duration::from_millis(1);

/// How long the subscriber may take to receive what it has not yet when the stream is over.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A sleep is late by the timer's slack and the wake-up, some 60 µs. The last bit before a message
/// is due is spun through, so that bursts keep the shape that they have in the source.
const SPIN_NS: u64 = 100_000;

/// How long the subscriber may take to receive the first message before the rest follows anyway.
const OPENING_MAX_NS: u64 = 2_000_000_000;

/// Plays the source until it is over, or the time is, or the parent lets go.
pub(crate) fn run(options: &Options) -> ExitCode {
    let leash = Leash::hold();
    let mut line = Line::new(stdout());
    let (last, code) = match publish(options, &leash, &mut line) {
        Err(Stop::Problem(problem)) => (News::Failed { problem }, ExitCode::FAILURE),
        Err(Stop::Ending(ending)) => (News::Published { ending }, ExitCode::SUCCESS),
        Ok(()) => (News::Published { ending: Ending::SourceOver }, ExitCode::SUCCESS),
    };
    line.tell(&last);
    if line.is_lost() {
        channel::remove_orphaned(&options.address);
    }
    code
}

/// Why a stream stops before its source is over.
enum Stop {
    Ending(Ending),
    Problem(String),
}

impl From<String> for Stop {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// The stream is closed when this returns, and between hosts the subscriber has had all of it.
fn publish(options: &Options, leash: &Leash, line: &mut Line<Stdout>) -> Result<(), Stop> {
    let Opened { mut source, name, notes } = open_source(options.feed.as_deref())?;
    line.tell(&News::Playing { source: name.clone(), notes });
    let sender = ringway::sender::<Message>(&options.address).map_err(|error| error.to_string())?;
    let slice = if sender.net_stats().is_some() { REMOTE_SLICE } else { SLICE };
    let mut stream = Stream {
        sender,
        slice,
        leash,
        line,
        next: 0,
        news_ns: 0,
        end_ns: u64::MAX,
        late_max_ns: None,
    };
    let played = stream.open(name).and_then(|()| {
        let start_ns = now_ns();
        let length_ns = u64::try_from(options.seconds.as_nanos()).unwrap_or(u64::MAX);
        stream.end_ns = start_ns.saturating_add(length_ns);
        stream.play(source.as_mut(), options.speed, start_ns)
    });
    stream.tell_progress();
    let closed = stream.sender.close(CLOSE_MAX);
    // Why the stream stopped comes first, unless that was as it should be.
    match (played, closed) {
        (Err(Stop::Problem(problem)), _) => Err(Stop::Problem(problem)),
        (played, Ok(())) => played,
        (_, Err(error)) => Err(Stop::Problem(format!("cannot close the stream: {error}"))),
    }
}

/// A source, ready to play.
struct Opened {
    source: Box<dyn Source>,
    name: String,
    /// What of it is left out.
    notes: Vec<String>,
}

fn open_source(feed: Option<&Path>) -> Result<Opened, String> {
    let Some(path) = feed else {
        let telemetry = Telemetry::open(Path::new("/proc"))?;
        let notes = telemetry.skipped().iter().map(|file| format!("skipped {file}")).collect();
        let name = "telemetry of this host".into();
        return Ok(Opened { source: Box::new(telemetry), name, notes });
    };
    let feed = Feed::open(path)?;
    let notes = match feed.client_lines() {
        0 => Vec::new(),
        count => vec![format!("skipped lines of the recording client (wss://): {count}")],
    };
    Ok(Opened { source: Box::new(feed), name: path.display().to_string(), notes })
}

struct Stream<'a> {
    sender: Sender<Message>,
    slice: Duration,
    leash: &'a Leash,
    line: &'a mut Line<Stdout>,
    /// The next message's sequence.
    next: u64,
    news_ns: u64,
    end_ns: u64,
    late_max_ns: Option<u64>,
}

impl Stream<'_> {
    /// Sends the first message and waits for its arrival, so that the subscriber's opening of the
    /// ring, which happens once, is in no other message's latency.
    fn open(&mut self, source: String) -> Result<(), Stop> {
        self.send(Body::Begin(Begin { pid: std::process::id(), source }), None)?;
        let end_ns = now_ns() + OPENING_MAX_NS;
        while self.sender.stats().received == 0 && now_ns() < end_ns {
            self.tend()?;
            if self.leash.pulled_within(Duration::from_millis(1)) {
                return Err(Stop::Ending(Ending::Stopped));
            }
        }
        Ok(())
    }

    fn play(&mut self, source: &mut dyn Source, speed: Speed, start_ns: u64) -> Result<(), Stop> {
        while let Some(offset_ns) = source.due_ns() {
            let due_ns = speed.due_ns(offset_ns).map(|after_ns| start_ns.saturating_add(after_ns));
            self.wait_until(due_ns.unwrap_or(start_ns))?;
            let Some(body) = source.take()? else { break };
            self.send(body, due_ns)?;
        }
        Ok(())
    }

    fn wait_until(&mut self, due_ns: u64) -> Result<(), Stop> {
        loop {
            let now_ns = self.look_around()?;
            let left_ns = due_ns.saturating_sub(now_ns).min(self.end_ns - now_ns);
            if now_ns >= due_ns {
                return Ok(());
            } else if left_ns > SPIN_NS {
                let sleep = Duration::from_nanos(left_ns - SPIN_NS).min(self.slice);
                // Whether the parent let go is asked by the next look.
                self.leash.pulled_within(sleep);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Sends the next message; waits while the ring is full.
    fn send(&mut self, body: Body, due_ns: Option<u64>) -> Result<(), Stop> {
        let mut message = Message::new(self.next, body);
        let sent_ns = now_ns();
        message.stamp(sent_ns);
        self.note_unsent(due_ns, sent_ns);
        // With room in the ring, which is nearly always, no time-out need be computed.
        let mut sent = self.sender.try_send(&message);
        while let Err(SendError::Full { .. } | SendError::Timeout { .. }) = sent {
            self.note_unsent(due_ns, now_ns());
            self.look_around()?;
            sent = self.sender.send_timeout(&message, self.slice);
        }
        sent.map_err(|error| format!("cannot send message {}: {error}", self.next))?;
        self.next += 1;
        Ok(())
    }

    /// Remembers how late it is for a message that is not sent yet. While one waits for room, those
    /// behind it get late; their latencies begin when it is their turn, and don't show it.
    fn note_unsent(&mut self, due_ns: Option<u64>, now_ns: u64) {
        let late_ns = due_ns.map(|due_ns| now_ns.saturating_sub(due_ns));
        self.late_max_ns = self.late_max_ns.max(late_ns);
    }

    /// Tells the parent how far this is, now and then. The time; an error if it's time to stop.
    fn look_around(&mut self) -> Result<u64, Stop> {
        let now_ns = now_ns();
        self.tend()?;
        if now_ns >= self.news_ns {
            self.news_ns = now_ns + PROGRESS_EVERY_NS;
            self.tell_progress();
        }
        if self.leash.pulled() {
            return Err(Stop::Ending(Ending::Stopped));
        }
        if now_ns >= self.end_ns {
            return Err(Stop::Ending(Ending::TimeOver));
        }
        Ok(now_ns)
    }

    /// Looks after the connection, if there is one.
    fn tend(&mut self) -> Result<(), Stop> {
        let flushed = self.sender.flush();
        flushed.map_err(|error| format!("cannot go on after message {}: {error}", self.next).into())
    }

    fn tell_progress(&mut self) {
        let stats = self.sender.stats();
        let net = self.sender.net_stats().unwrap_or_default();
        self.line.tell(&News::Sent(Sent {
            sent: self.next,
            depth: stats.depth,
            depth_max_bytes: stats.depth_max_bytes,
            full_waits: stats.full_waits,
            resumes: net.resumes,
            resent_bytes: net.resent_bytes,
            late_max_ns: self.late_max_ns,
        }));
    }
}

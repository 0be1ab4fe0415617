//! A child process as its parent sees it: started from this program's own file, on a leash, its
//! news read by a thread. What the news mean for the run never lives here.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::news::News;

/// Which half of the demo a child is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    Publisher,
    /// The first, second, ... subscriber, from 0.
    Subscriber(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publisher => out.write_str("publisher"),
            Self::Subscriber(0) => out.write_str("subscriber"),
            Self::Subscriber(number) => write!(out, "subscriber {}", number + 1),
        }
    }
}

/// What the parent hears.
pub(super) enum Event {
    /// Ctrl-C, or another wish that this program end.
    Interrupted,
    /// A child tells something.
    News(Role, News),
    /// A child's standard output closed: it ends.
    Closed(Role),
}

/// A running child. Dropped, it is killed if it hasn't ended.
pub(super) struct Child {
    role: Role,
    process: std::process::Child,
    leash: Option<ChildStdin>,
}

impl Child {
    /// Starts this program again with `arguments`.
    pub(super) fn start(
        role: Role,
        arguments: &[OsString],
        events: Sender<Event>,
    ) -> Result<Self, String> {
        let explain = |error: std::io::Error| format!("cannot start the {role}: {error}");
        let program = std::env::current_exe().map_err(explain)?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: a terminal's Ctrl-C is for the parent, which then ends the
            // stream in order.
            .process_group(0)
            .spawn()
            .map_err(explain)?;
        let pid = process.id();
        let leash = process.stdin.take();
        if let Some(output) = process.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    let is_heard = line.is_ok();
                    let news = match understand(line) {
                        // With several processes about, a complaint needs a name on it.
                        Ok(News::Failed { problem }) | Err(problem) => {
                            News::Failed { problem: format!("{role} (pid {pid}): {problem}") }
                        }
                        Ok(news) => news,
                    };
                    if events.send(Event::News(role, news)).is_err() {
                        return;
                    }
                    if !is_heard {
                        break;
                    }
                }
                // Nobody listening any more is the parent's way to say that it doesn't mind.
                let _ = events.send(Event::Closed(role));
            });
        }
        Ok(Self { role, process, leash })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets go of the child, which then ends in its own way.
    pub(super) fn release(&mut self) {
        self.leash = None;
    }

    pub(super) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
    }

    /// Waits for the end of a child that is ending; kills it if that takes too long. What was
    /// wrong with its end, if anything.
    pub(super) fn end(mut self) -> Result<(), String> {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.release();
        let deadline = Instant::now() + PATIENCE;
        let (role, pid) = (self.role, self.pid());
        let told = |what| Err(format!("{role} (pid {pid}) {what}"));
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return told(describe(status)),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Ok(None) => return told("did not end and was killed".into()),
                Err(error) => return told(format!("can't be waited for: {error}")),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        let _ = self.process.wait();
    }
}

fn understand(line: std::io::Result<String>) -> Result<News, String> {
    let line = line.map_err(|error| format!("can't be heard: {error}"))?;
    serde_json::from_str(&line).map_err(|error| format!("can't be understood: {error} in {line:?}"))
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (_, Some(code)) => format!("ended with exit status {code}"),
        _ => "ended".into(),
    }
}

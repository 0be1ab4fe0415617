//! How long a death holds the others up: somebody is killed with what others wait for, and the time
//! runs from the SIGKILL until the next message is through. Who is killed is a process of its own; who
//! waits are threads of this one, blocked since long before.

use crate::clock::now_ns;
use crate::crew;
use crate::plan::{Fault, Parties, Wait};
use crate::rows;
use crate::scratch::Scratch;
use clap::{Args, ValueEnum};
use ringway::{Builder, Receiver, SendError, Sender};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What a recovery is meant to take at most, in ms.
const LIMIT_MS: f64 = 150.0;

/// Far longer than any recovery; on a machine that stands still, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everybody waits as they do after a long time.
const SETTLED: Duration = Duration::from_millis(120);

/// The time between two looks for the dead: kills come at any moment of it.
const PERIOD_MS: u64 = 100;

/// The last message.
const LAST: u64 = u64::MAX;

#[derive(Args)]
pub(crate) struct RecoveryOptions {
    /// Kills of each kind.
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// How the survivors wait, comma-separated.
    #[arg(long = "wait", value_enum, value_delimiter = ',',
          default_values_t = [Wait::Spin, Wait::Adaptive, Wait::Park])]
    waits: Vec<Wait>,
    /// Write the result to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct VictimOptions {
    #[arg(value_enum)]
    role: Victim,
    address: String,
}

/// Who is killed, with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Victim {
    /// A subscriber that never reads, for which a lossless sender waits.
    Subscriber,
    /// A sender with a slot claimed, behind which another one's message lies.
    Claimer,
    /// A receiver with a message, which another one then gets.
    Reader,
}

impl Victim {
    const ALL: [Victim; 3] = [Victim::Subscriber, Victim::Claimer, Victim::Reader];

    fn system(self) -> &'static str {
        match self {
            Victim::Subscriber => "ringway-broadcast-block",
            Victim::Claimer | Victim::Reader => "ringway-mpmc",
        }
    }

    /// The dead and the living.
    fn parties(self) -> Parties {
        match self {
            Victim::Subscriber => Parties { receivers: 2, to_all: true, ..Parties::TWO },
            Victim::Claimer => Parties { senders: 2, ..Parties::TWO },
            Victim::Reader => Parties { receivers: 2, ..Parties::TWO },
        }
    }

    fn address(self, wait: Wait, number: u32) -> String {
        let kind = match self {
            Victim::Subscriber => "kind=broadcast&overflow=block&capacity=4096",
            Victim::Claimer | Victim::Reader => "kind=mpmc&slots=64&slot=64",
        };
        format!("shm://{self}-{wait}-{number}?{kind}&wait={wait}")
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Victim::Subscriber => "subscriber",
            Victim::Claimer => "claimer",
            Victim::Reader => "reader",
        })
    }
}

/// In a process of its own: gets hold of what others will wait for, says so, and waits for its end.
pub(crate) fn victim(options: &VictimOptions) -> Result<(), Fault> {
    match options.role {
        Victim::Subscriber => {
            let receiver: Receiver<[u8]> = ringway::receiver(&options.address).map_err(fault)?;
            stay(&receiver)
        }
        Victim::Claimer => {
            let mut sender: Sender<[u8]> = ringway::sender(&options.address).map_err(fault)?;
            stay(&sender.claim(8).map_err(fault)?)
        }
        Victim::Reader => {
            let mut receiver: Receiver<[u8]> =
                ringway::receiver(&options.address).map_err(fault)?;
            stay(&receiver.recv_timeout(PATIENCE).map_err(fault)?)
        }
    }
}

fn stay<T>(_held: &T) -> Result<(), Fault> {
    println!("ready");
    loop {
        thread::park();
    }
}

/// Kills and waits as often as asked for, and prints what came of it. To be called from the main
/// thread: the victims die with the thread that started them.
pub(crate) fn measure(options: &RecoveryOptions) -> Result<(), Fault> {
    let json = options.json.as_ref().map(|path| {
        File::create(path)
            .map_err(|e| Fault::new(format!("can't write --json {}: {e}", path.display())))
    });
    let json = json.transpose()?;
    let scratch = Scratch::create()?;
    let mut rows = Vec::new();
    for victim in Victim::ALL {
        for &wait in &options.waits {
            let mut times_ms = Vec::new();
            for number in 0..options.kills {
                let after = Duration::from_millis(u64::from(number) * 37 % PERIOD_MS);
                let taken_ns = kill_one(victim, wait, number, after, scratch.path())?;
                times_ms.push(taken_ns as f64 / 1e6);
            }
            rows.push(Row::of(victim, wait, times_ms));
        }
    }
    let report = Report { schema: 1, recovery: rows };
    if let Some(mut file) = json {
        let text = serde_json::to_string(&report).map_err(|e| Fault::new(e.to_string()))?;
        writeln!(file, "{text}").map_err(|e| Fault::new(format!("can't write the result: {e}")))?;
    }
    print!("{report}");
    Ok(())
}

/// Returns how many ns went by from the kill until the message was through.
fn kill_one(
    victim: Victim,
    wait: Wait,
    number: u32,
    after: Duration,
    channels: &Path,
) -> Result<u64, Fault> {
    let address = victim.address(wait, number);
    let builder = Builder::new(&address).map_err(fault)?.directory(channels);
    let mut sender: Sender<[u8]> = builder.sender().map_err(fault)?;
    let mut receiver: Receiver<[u8]> = builder.receiver().map_err(fault)?;
    if victim == Victim::Reader {
        // There before anybody is who could take it.
        send(&mut sender, LAST)?;
    }
    let mut process = Process::start(victim, &address, channels)?;
    let waiter = thread::spawn(move || -> Result<u64, Fault> {
        loop {
            let message = receiver.recv_timeout(PATIENCE).map_err(fault)?;
            if *message == LAST.to_le_bytes() {
                return Ok(now_ns());
            }
        }
    });
    let blocked = match victim {
        Victim::Subscriber => {
            fill_up(&mut sender)?;
            // Blocked until the dead one is known to be dead.
            Some(thread::spawn(move || send(&mut sender, LAST)))
        }
        Victim::Claimer => {
            send(&mut sender, LAST)?;
            None
        }
        Victim::Reader => None,
    };
    thread::sleep(SETTLED + after);
    let from_ns = now_ns();
    process.kill()?;
    let to_ns = waiter.join().map_err(|_| Fault::new("the receiver panicked"))??;
    if let Some(blocked) = blocked {
        blocked.join().map_err(|_| Fault::new("the sender panicked"))??;
    }
    match to_ns.checked_sub(from_ns) {
        Some(taken_ns) => Ok(taken_ns),
        None => Err(Fault::new(format!("the message came before the {victim} was killed"))),
    }
}

fn send(sender: &mut Sender<[u8]>, word: u64) -> Result<(), Fault> {
    sender.send_timeout(&word.to_le_bytes()[..], PATIENCE).map_err(fault)
}

/// Until there is no room, because somebody does not read.
fn fill_up(sender: &mut Sender<[u8]>) -> Result<(), Fault> {
    for word in 0.. {
        match sender.try_send(&u64::to_le_bytes(word)[..]) {
            Ok(()) => {}
            Err(SendError::Full { .. }) => break,
            Err(error) => return Err(fault(error)),
        }
    }
    Ok(())
}

/// Killed at the latest when dropped.
struct Process(Child);

impl Process {
    /// Returns when it has what it is to be killed with.
    fn start(victim: Victim, address: &str, channels: &Path) -> Result<Process, Fault> {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["victim", &victim.to_string(), address])
            .env("RINGWAY_DIR", channels)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let parent = std::process::id();
        // SAFETY: between fork and exec only async-signal-safe calls are made: two system calls.
        unsafe { command.pre_exec(move || crew::die_with(parent)) };
        let child = command
            .spawn()
            .map_err(|e| Fault::new(format!("can't start a process to be killed: {e}")))?;
        let mut process = Process(child);
        let mut line = String::new();
        let answers = process.0.stdout.take();
        let read = answers.map(|answers| BufReader::new(answers).read_line(&mut line));
        if line != "ready\n" {
            let status = process.0.wait();
            return Err(Fault::new(format!("the {victim} ended early: {read:?}, {status:?}")));
        }
        Ok(process)
    }

    fn kill(&mut self) -> Result<(), Fault> {
        self.0.kill().map_err(|e| Fault::new(format!("can't kill: {e}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What can't be killed has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cold]
fn fault(error: impl std::error::Error) -> Fault {
    Fault::new(error.to_string())
}

#[derive(Serialize)]
struct Report {
    schema: u32,
    recovery: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    killed: Victim,
    system: &'static str,
    parties: Parties,
    wait: Wait,
    kills: usize,
    median_ms: f64,
    max_ms: f64,
    limit_ms: f64,
}

impl Row {
    /// What came of at least one kill.
    fn of(killed: Victim, wait: Wait, times_ms: Vec<f64>) -> Row {
        Row {
            killed,
            system: killed.system(),
            parties: killed.parties(),
            wait,
            kills: times_ms.len(),
            max_ms: times_ms.iter().copied().fold(0.0, f64::max),
            median_ms: rows::median(times_ms).unwrap_or(0.0),
            limit_ms: LIMIT_MS,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from SIGKILL to the next message, in ms (at most {LIMIT_MS} is meant)")?;
        writeln!(
            f,
            "{:<10}  {:<23}  {:<7}  {:<8}  {:>5}  {:>7}  {:>7}",
            "killed", "system", "parties", "wait", "kills", "median", "max"
        )?;
        for row in &self.recovery {
            let Row { killed, system, parties, wait, kills, median_ms, max_ms, .. } = row;
            writeln!(
                f,
                "{killed:<10}  {system:<23}  {parties:<7}  {:<8}  {kills:>5}  {median_ms:>7.1}  \
                 {max_ms:>7.1}",
                wait.to_string()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let row = Row::of(Victim::Reader, Wait::Spin, vec![40.0, 10.0, 30.0, 20.0]);
        assert_eq!((row.kills, row.median_ms, row.max_ms), (4, 25.0, 40.0));
    }
}

//! The parent's side of the processes: starts one for each party, hands them the arena, gives orders,
//! collects answers in bounded time, and leaves none of them behind. Knows nothing of what they
//! measure.

use crate::arena::Arena;
use crate::crowd::audit;
use crate::netns::{self, Namespaces};
use crate::plan::{
    Cpus, Fault, Hosts, Jitter, Job, Order, Outcome, Parties, Party, Reply, Role, Seat,
};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// What a side may take for anything over the length of a round. Only a hung or broken side does.
const GRACE: Duration = Duration::from_secs(60);

/// What a process gets to close its channels at the end.
const PARTING: Duration = Duration::from_secs(1);

/// What all crews stand on.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// For the most parties that any crew has.
    pub(crate) cpus: Option<&'a Cpus>,
    /// Directory for named channels.
    pub(crate) channels: &'a Path,
    /// Where the two sides are; none: both where this process is.
    pub(crate) namespaces: Option<&'a Namespaces>,
}

/// A process for each party, with every seat open at which it takes part. They end with it, and when
/// this process dies.
pub(crate) struct Crew {
    processes: Vec<Process>,
    seats: Vec<Seat>,
    replies: Receiver<(Party, Option<Reply>)>,
    /// The processes map it by the inherited descriptor.
    _arena: Arena,
}

impl Crew {
    /// Starts the processes and opens `seats`, none of which needs more than `parties`. To be called from
    /// the main thread only: the processes die with the thread that started them.
    pub(crate) fn start(
        parties: Parties,
        seats: Vec<Seat>,
        arena: Arena,
        ground: &Ground<'_>,
    ) -> Result<Crew, Fault> {
        let (sender, replies) = mpsc::channel();
        let start = |party| {
            let job = Job {
                party,
                cpus: ground.cpus.cloned(),
                arena_fd: arena.fd(),
                arena_len: arena.len(),
                hosts: ground.namespaces.map_or(Hosts::LOOPBACK, |_| Namespaces::HOSTS),
                seats: seats.clone(),
            };
            Process::start(&job, ground, sender.clone())
        };
        let everybody: Vec<Party> = parties.all().chain(parties.stopped()).collect();
        let processes = everybody.iter().copied().map(start).collect::<Result<Vec<_>, _>>()?;
        let mut crew = Crew { processes, seats, replies, _arena: arena };
        crew.ask(&everybody, &Order::Open, GRACE, "opening the channels", |reply| match reply {
            Reply::Opened => Ok(()),
            other => Err(other),
        })?;
        parties.stopped().try_for_each(|party| crew.process(party).stop())?;
        Ok(crew)
    }

    /// Watches the cores of the first sender and the first receiver for `ms`, at the same time.
    pub(crate) fn jitter(&mut self, ms: u64) -> Result<Vec<Jitter>, Fault> {
        let limit = GRACE + Duration::from_millis(ms);
        let order = Order::Jitter { ms };
        let two: Vec<Party> = Parties::TWO.all().collect();
        self.ask(&two, &order, limit, "watching the cores", |reply| match reply {
            Reply::Jitter(jitter) => Ok(jitter),
            other => Err(other),
        })
    }

    /// Plays one round on a seat; `what` is for errors. Returns the accounts of all its parties
    /// together.
    pub(crate) fn round(
        &mut self,
        seat: usize,
        length: Duration,
        what: &str,
    ) -> Result<Outcome, Fault> {
        let deadline = Instant::now() + length * 4 + GRACE;
        let order = Order::Round { seat, micros: length.as_micros() as u64 };
        let parties = self.seats[seat].parties;
        let mut done = Vec::with_capacity(parties.all().count());
        for party in parties.all() {
            self.process(party).tell(&order)?;
            loop {
                match self.next(deadline, what)? {
                    (from, Reply::Ready) if from == party => break,
                    // Others may be through before this one has said that it begins.
                    (_, Reply::Done(outcome)) => done.push(*outcome),
                    (from, other) => return Err(unexpected(from, &other)),
                }
            }
        }
        while done.len() < parties.all().count() {
            match self.next(deadline, what)? {
                (_, Reply::Done(outcome)) => done.push(*outcome),
                (from, other) => return Err(unexpected(from, &other)),
            }
        }
        Ok(audit(done.into_iter().fold(Outcome::default(), Outcome::and), parties))
    }

    /// One order to each, one answer from each.
    fn ask<T>(
        &mut self,
        parties: &[Party],
        order: &Order,
        limit: Duration,
        what: &str,
        pick: impl Fn(Reply) -> Result<T, Reply>,
    ) -> Result<Vec<T>, Fault> {
        let deadline = Instant::now() + limit;
        for &party in parties {
            self.process(party).tell(order)?;
        }
        parties
            .iter()
            .map(|_| {
                let (from, reply) = self.next(deadline, what)?;
                pick(reply).map_err(|other| unexpected(from, &other))
            })
            .collect()
    }

    fn next(&mut self, deadline: Instant, what: &str) -> Result<(Party, Reply), Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.replies.recv_timeout(left) {
            Ok((party, Some(Reply::Fault(text)))) => {
                Err(Fault::new(format!("{what}: the process of {party} says: {text}")))
            }
            Ok((party, Some(reply))) => Ok((party, reply)),
            Ok((party, None)) => {
                let how = self.process(party).ended();
                Err(Fault::new(format!("{what}: the process of {party} ended: {how}")))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(Fault::new(format!(
                    "{what}: no answer in time, so a message was lost or a party hangs; all \
                     processes were killed. Run this system alone with --systems to see it again"
                )))
            }
        }
    }

    fn process(&mut self, party: Party) -> &mut Process {
        let process = self.processes.iter_mut().find(|process| process.party == party);
        process.expect("the crew was started for all parties of its seats")
    }
}

impl Drop for Crew {
    /// All of them close their channels at the same time.
    fn drop(&mut self) {
        self.processes.iter_mut().for_each(|process| process.orders = None);
    }
}

fn unexpected(from: Party, reply: &Reply) -> Fault {
    Fault::new(format!("the process of {from} answered out of turn: {reply:?}"))
}

struct Process {
    party: Party,
    child: Child,
    /// Closed to let it go.
    orders: Option<ChildStdin>,
}

impl Process {
    fn start(
        job: &Job,
        ground: &Ground<'_>,
        replies: Sender<(Party, Option<Reply>)>,
    ) -> Result<Process, Fault> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("peer")
            .env("RINGWAY_DIR", ground.channels)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let (fd, parent) = (job.arena_fd, std::process::id());
        let namespace = ground.namespaces.map(|namespaces| namespaces.of(job.party.role));
        // SAFETY: between fork and exec only async-signal-safe calls are made: four system calls.
        unsafe {
            command.pre_exec(move || {
                namespace.map_or(Ok(()), netns::enter)?;
                tie(fd, parent)
            })
        };
        let mut child = command
            .spawn()
            .map_err(|e| Fault::new(format!("can't start a process of the crew: {e}")))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Fault::new("a process of the crew came without pipes"));
        };
        let party = job.party;
        let mut process = Process { party, child, orders: Some(orders) };
        thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                let reply = serde_json::from_str(&line)
                    .unwrap_or_else(|e| Reply::Fault(format!("{e} in its answer: {line}")));
                if replies.send((party, Some(reply))).is_err() {
                    return;
                }
            }
            // Nobody listens any more when the crew is being dropped.
            let _ = replies.send((party, None));
        });
        process.write(job)?;
        Ok(process)
    }

    fn tell(&mut self, order: &Order) -> Result<(), Fault> {
        self.write(order)
    }

    fn write(&mut self, line: &impl serde::Serialize) -> Result<(), Fault> {
        let mut line = serde_json::to_string(line).map_err(|e| Fault::new(e.to_string()))?;
        line.push('\n');
        match self.orders.as_mut().map(|orders| orders.write_all(line.as_bytes())) {
            Some(Ok(())) => Ok(()),
            _ => Err(Fault::new(format!("a process of the crew ended: {}", self.ended()))),
        }
    }

    /// For good.
    fn stop(&mut self) -> Result<(), Fault> {
        // SAFETY: takes plain numbers; the child is this process's own and was not waited for.
        if unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGSTOP) } != 0 {
            let e = std::io::Error::last_os_error();
            return Err(Fault::new(format!("can't stop the process of {}: {e}", self.party)));
        }
        Ok(())
    }

    fn ended(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        }
    }
}

impl Drop for Process {
    /// One that waits for orders ends when there are no more, and closes its channels. One that
    /// spins for a message that never comes is killed, and one that is stopped.
    fn drop(&mut self) {
        self.orders = None;
        let deadline = Instant::now() + PARTING;
        while self.party.role != Role::Stopped && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        // What can't be killed has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child, before it becomes another program: dies with its parent, keeps the arena.
fn tie(arena: RawFd, parent: u32) -> std::io::Result<()> {
    // SAFETY: takes plain numbers.
    if unsafe { libc::fcntl(arena, libc::F_SETFD, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    die_with(parent)
}

/// In a child: it is killed when the thread that started it ends.
pub(crate) fn die_with(parent: u32) -> std::io::Result<()> {
    // SAFETY: these calls take plain numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died before the first line took effect.
        if libc::getppid() != parent as libc::pid_t {
            libc::_exit(1);
        }
    }
    Ok(())
}

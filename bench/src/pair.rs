//! The parent's side of the two processes: starts them, hands them the arena, gives orders, collects
//! answers in bounded time, and leaves none of them behind. Knows nothing of what they measure.

use crate::arena::Arena;
use crate::plan::{Cpus, Fault, Jitter, Job, Order, Outcome, Reply, Role, Seat};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// What a side may take for anything over the length of a round. Only a hung or broken side does.
const GRACE: Duration = Duration::from_secs(15);

/// What a process gets to close its channels at the end.
const PARTING: Duration = Duration::from_secs(1);

/// Two processes with every seat open. They end with it, and when this process dies.
pub(crate) struct Pair {
    active: Process,
    passive: Process,
    replies: Receiver<(Role, Option<Reply>)>,
    /// The processes map it by the inherited descriptor.
    _arena: Arena,
}

impl Pair {
    /// Starts both processes and opens `seats` on both sides. `channels` is where named channels
    /// are made. To be called from the main thread only: the processes die with the thread that
    /// started them.
    pub(crate) fn start(
        seats: &[Seat],
        arena: Arena,
        cpus: Option<Cpus>,
        channels: &Path,
    ) -> Result<Pair, Fault> {
        let (sender, replies) = mpsc::channel();
        let start = |role| {
            let job = Job {
                role,
                cpus,
                arena_fd: arena.fd(),
                arena_len: arena.len(),
                seats: seats.to_vec(),
            };
            Process::start(&job, channels, sender.clone())
        };
        let (active, passive) = (start(Role::Active)?, start(Role::Passive)?);
        let mut pair = Pair { active, passive, replies, _arena: arena };
        pair.both(&Order::Open, GRACE, "opening the channels", |reply| match reply {
            Reply::Opened => Ok(()),
            other => Err(other),
        })?;
        Ok(pair)
    }

    /// Watches both cores for `ms`, at the same time.
    pub(crate) fn jitter(&mut self, ms: u64) -> Result<Vec<Jitter>, Fault> {
        let limit = GRACE + Duration::from_millis(ms);
        self.both(&Order::Jitter { ms }, limit, "watching the cores", |reply| match reply {
            Reply::Jitter(jitter) => Ok(jitter),
            other => Err(other),
        })
    }

    /// Plays one round on a seat; `what` is for errors. Returns both sides' accounts together.
    pub(crate) fn round(
        &mut self,
        seat: usize,
        length: Duration,
        what: &str,
    ) -> Result<Outcome, Fault> {
        let deadline = Instant::now() + length * 4 + GRACE;
        let order = Order::Round { seat, micros: length.as_micros() as u64 };
        let mut sum = Outcome::default();
        let mut done = 0;
        // The passive side first: it has to be there when the first message comes.
        for role in [Role::Passive, Role::Active] {
            self.process(role).tell(&order)?;
            loop {
                match self.next(deadline, what)? {
                    (from, Reply::Ready) if from == role => break,
                    // The other side may be through before this one has said that it begins.
                    (_, Reply::Done(outcome)) => {
                        sum = sum.and(outcome);
                        done += 1;
                    }
                    (from, other) => return Err(unexpected(from, &other)),
                }
            }
        }
        while done < 2 {
            match self.next(deadline, what)? {
                (_, Reply::Done(outcome)) => {
                    sum = sum.and(outcome);
                    done += 1;
                }
                (from, other) => return Err(unexpected(from, &other)),
            }
        }
        Ok(sum)
    }

    /// One order to both, one answer from each.
    fn both<T>(
        &mut self,
        order: &Order,
        limit: Duration,
        what: &str,
        pick: impl Fn(Reply) -> Result<T, Reply>,
    ) -> Result<Vec<T>, Fault> {
        let deadline = Instant::now() + limit;
        self.active.tell(order)?;
        self.passive.tell(order)?;
        let mut answers = Vec::with_capacity(2);
        while answers.len() < 2 {
            let (from, reply) = self.next(deadline, what)?;
            answers.push(pick(reply).map_err(|other| unexpected(from, &other))?);
        }
        Ok(answers)
    }

    fn next(&mut self, deadline: Instant, what: &str) -> Result<(Role, Reply), Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.replies.recv_timeout(left) {
            Ok((role, Some(Reply::Fault(text)))) => {
                Err(Fault::new(format!("{what}: the {} process says: {text}", name(role))))
            }
            Ok((role, Some(reply))) => Ok((role, reply)),
            Ok((role, None)) => {
                let how = self.process(role).ended();
                Err(Fault::new(format!("{what}: the {} process ended: {how}", name(role))))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(Fault::new(format!(
                    "{what}: no answer in time, so a message was lost or a side hangs; both \
                     processes were killed. Run this system alone with --systems to see it again"
                )))
            }
        }
    }

    fn process(&mut self, role: Role) -> &mut Process {
        match role {
            Role::Active => &mut self.active,
            Role::Passive => &mut self.passive,
        }
    }
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Passive => "passive",
    }
}

fn unexpected(from: Role, reply: &Reply) -> Fault {
    Fault::new(format!("the {} process answered out of turn: {reply:?}", name(from)))
}

struct Process {
    child: Child,
    /// Closed to let it go.
    orders: Option<ChildStdin>,
}

impl Process {
    fn start(
        job: &Job,
        channels: &Path,
        replies: Sender<(Role, Option<Reply>)>,
    ) -> Result<Process, Fault> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("peer")
            .env("RINGWAY_DIR", channels)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let (fd, parent) = (job.arena_fd, std::process::id());
        // SAFETY: between fork and exec only async-signal-safe calls are made: three system calls.
        unsafe { command.pre_exec(move || tie(fd, parent)) };
        let mut child = command
            .spawn()
            .map_err(|e| Fault::new(format!("can't start a process of the pair: {e}")))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Fault::new("a process of the pair came without pipes"));
        };
        let role = job.role;
        let mut process = Process { child, orders: Some(orders) };
        thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                let reply = serde_json::from_str(&line)
                    .unwrap_or_else(|e| Reply::Fault(format!("{e} in its answer: {line}")));
                if replies.send((role, Some(reply))).is_err() {
                    return;
                }
            }
            // Nobody listens any more when the pair is being dropped.
            let _ = replies.send((role, None));
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
            _ => Err(Fault::new(format!("a process of the pair ended: {}", self.ended()))),
        }
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
    /// spins for a message that never comes is killed.
    fn drop(&mut self) {
        self.orders = None;
        let deadline = Instant::now() + PARTING;
        while Instant::now() < deadline {
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
    // SAFETY: these calls take plain numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
            || libc::fcntl(arena, libc::F_SETFD, 0) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died before the first line took effect.
        if libc::getppid() != parent as libc::pid_t {
            libc::_exit(1);
        }
    }
    Ok(())
}

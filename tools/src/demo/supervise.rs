//! The parent's side of a run: starts both children, listens, and sees to it that both end,
//! whatever happens. What the run comes to never lives here, see `report`.
//!
//! The order of things: the subscriber opens the channel, the publisher starts, streams, closes;
//! the subscriber drains and ends. An interruption lets go of the publisher alone and so only
//! shortens that. When one child is gone, the other is let go of; when that one then stands still
//! it is killed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::channel::Channel;
use super::child::{Child, Event, Role};
use super::clock::now_ns;
use super::news::{self, News};
use super::progress::Progress;
use super::relay::{Cuts, Relay};
use super::report::{Findings, Other};

/// How long the children may go without progress once they should be ending.
const PATIENCE: Duration = Duration::from_secs(10);

/// How soon a second interruption may follow the first and still be the same one: `timeout`, for
/// one, signals a process and then its group.
const SAME_INTERRUPTION: Duration = Duration::from_secs(1);

/// How to start the two.
pub(super) struct Plan {
    pub(super) channel: Channel,
    /// To which the address is added, as to the next.
    pub(super) publisher: Vec<OsString>,
    pub(super) subscriber: Vec<OsString>,
    /// If the connection is to be cut now and then.
    pub(super) cuts: Option<Cuts>,
    /// How many of those.
    pub(super) subscribers: usize,
    /// How long the publisher streams at most.
    pub(super) length: Duration,
}

/// Runs both children to their end, and shows how far they are. Both have ended when this returns.
/// The error has the reasons why nothing was sent. `events` are what `sender` and its clones give: the
/// children's, and what [`hear_signals`] adds.
pub(super) fn supervise(
    plan: Plan,
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> Result<Findings, Vec<String>> {
    let sender = sender.clone();
    let mut subscribers = Vec::new();
    let arguments = with_address(&plan.subscriber, plan.channel.receiving());
    for number in 0..plan.subscribers {
        let child = Child::start(Role::Subscriber(number), &arguments, sender.clone());
        subscribers.push(Some(child.map_err(|problem| vec![problem])?));
    }
    let others = plan.subscribers.saturating_sub(1);
    let mut run = Run {
        plan,
        sender,
        publisher: None,
        subscribers,
        ready: 0,
        relay: None,
        ending: false,
        interrupted: None,
        killed: false,
        deadline: None,
        progress: Progress::new(now_ns()),
        findings: Findings {
            source: None,
            sent: news::Sent::default(),
            received: news::Received::default(),
            latencies: None,
            others: (0..others).map(|_| Other::default()).collect(),
            ending: None,
            door: None,
            cuts: None,
            interrupted: false,
            problems: Vec::new(),
        },
        explained: Vec::new(),
    };
    run.until_both_ended(events);
    run.progress.close();
    run.findings.cuts = run.relay.take().map(Relay::end);
    run.findings.interrupted = run.interrupted.is_some();
    if run.findings.sent.sent > 0 { Ok(run.findings) } else { Err(run.findings.problems) }
}

struct Run {
    plan: Plan,
    sender: Sender<Event>,
    publisher: Option<Child>,
    subscribers: Vec<Option<Child>>,
    /// How many of them have the channel open.
    ready: usize,
    /// Between the two, if the connection is to be cut.
    relay: Option<Relay>,
    /// One was let go of.
    ending: bool,
    interrupted: Option<Instant>,
    killed: bool,
    /// When patience is over.
    deadline: Option<Instant>,
    progress: Progress,
    findings: Findings,
    /// Children that said why they failed, whose exit status says nothing new.
    explained: Vec<Role>,
}

impl Run {
    fn until_both_ended(&mut self, events: &Receiver<Event>) {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        while self.publisher.is_some() || self.subscribers.iter().any(Option::is_some) {
            match events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Interrupted) => self.interrupted(),
                Ok(Event::News(role, news)) => self.heard(role, news),
                Ok(Event::Closed(role)) => self.closed(role),
                // `Disconnected` can't be: this holds a sender itself.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.out_of_patience();
            }
        }
    }

    /// The first time, the stream ends in order; the second time, at once.
    fn interrupted(&mut self) {
        match self.interrupted {
            None => {
                self.interrupted = Some(Instant::now());
                self.progress.say("interrupted: ending the stream (once more ends it at once)");
                self.end_stream();
            }
            Some(first) if first.elapsed() >= SAME_INTERRUPTION => self.kill("interrupted again"),
            Some(_) => {}
        }
    }

    fn heard(&mut self, role: Role, news: News) {
        let before = self.progress_made();
        match news {
            News::Ready { listens } => {
                self.ready += 1;
                if self.ready == self.subscribers.len()
                    && let Err(problem) = self.start_publisher(listens)
                {
                    self.findings.problems.push(problem);
                    self.give_up_subscribers();
                }
            }
            News::Playing { source, notes } => {
                // A publisher that doesn't see the time pass is as stuck as one that doesn't end.
                self.deadline =
                    Instant::now().checked_add(self.plan.length.saturating_add(PATIENCE));
                self.progress.say(&format!("playing {source}"));
                self.findings.source = Some(source);
                for note in notes {
                    self.progress.say(&format!("  {note}"));
                }
            }
            News::Sent(sent) => self.findings.sent = sent,
            News::Received(received) => match self.other(role) {
                Some(other) => other.received = received,
                None => {
                    self.findings.received = received;
                    self.progress.show(&self.findings.sent, &received);
                }
            },
            News::Published { ending } => self.findings.ending = Some(ending),
            News::Subscribed { latencies } => match self.other(role) {
                Some(other) => other.latencies = Some(latencies),
                None => self.findings.latencies = Some(latencies),
            },
            News::Failed { problem } => {
                self.explained.push(role);
                self.findings.problems.push(problem);
            }
        }
        if self.ending && before != self.progress_made() {
            self.be_patient();
        }
    }

    /// Anything that changes while a run goes on.
    fn progress_made(&self) -> (u64, u64) {
        let others = self.findings.others.iter().map(|other| other.received.received);
        (self.findings.sent.sent, self.findings.received.received + others.sum::<u64>())
    }

    /// What is known of a subscriber other than the first.
    fn other(&mut self, role: Role) -> Option<&mut Other> {
        match role {
            Role::Publisher | Role::Subscriber(0) => None,
            Role::Subscriber(number) => self.findings.others.get_mut(number - 1),
        }
    }

    /// `listens` is where the subscriber is to be found, between hosts.
    fn start_publisher(&mut self, listens: Option<SocketAddr>) -> Result<(), String> {
        self.findings.door = listens;
        let mut door = listens;
        if let (Some(cuts), Some(listens)) = (self.plan.cuts, listens) {
            let relay = Relay::start(listens, cuts)?;
            door = Some(relay.address());
            self.relay = Some(relay);
        }
        let arguments = with_address(&self.plan.publisher, self.plan.channel.sending(door));
        let mut publisher = Child::start(Role::Publisher, &arguments, self.sender.clone())?;
        let subscribers: Vec<String> =
            self.subscribers.iter().flatten().map(|child| child.pid().to_string()).collect();
        let pid = publisher.pid();
        let pids = subscribers.join(", ");
        self.progress.say(&format!("publisher pid {pid}, subscriber pid {pids}"));
        if self.ending {
            // Interrupted this early, it opens and closes the stream: an end in order, too.
            publisher.release();
        }
        self.publisher = Some(publisher);
        Ok(())
    }

    /// A child closed its standard output. What it had to tell is heard.
    fn closed(&mut self, role: Role) {
        let gone = match role {
            Role::Publisher => self.publisher.take(),
            Role::Subscriber(number) => self.subscribers.get_mut(number).and_then(Option::take),
        };
        if let Some(Err(problem)) = gone.map(Child::end)
            && !self.explained.contains(&role)
        {
            self.findings.problems.push(problem);
        }
        for left in self.publisher.iter_mut().chain(self.subscribers.iter_mut().flatten()) {
            left.release();
        }
        if self.publisher.is_none() && self.findings.sent.sent == 0 {
            self.give_up_subscribers();
        }
        self.ending = true;
        self.be_patient();
    }

    /// For when there is nothing to receive, nor ever will be.
    fn give_up_subscribers(&mut self) {
        for (number, subscriber) in self.subscribers.iter_mut().enumerate() {
            self.explained.push(Role::Subscriber(number));
            if let Some(subscriber) = subscriber {
                subscriber.kill();
            }
        }
    }

    fn end_stream(&mut self) {
        self.ending = true;
        if let Some(publisher) = &mut self.publisher {
            publisher.release();
        }
        self.be_patient();
    }

    fn be_patient(&mut self) {
        self.deadline = Instant::now().checked_add(PATIENCE);
    }

    fn out_of_patience(&mut self) {
        if self.ending {
            self.kill("no progress any more");
        } else {
            self.end_stream();
        }
    }

    /// Ends what is left at once; told once.
    fn kill(&mut self, why: &str) {
        if self.killed {
            return;
        }
        self.killed = true;
        let subscribers = self.subscribers.iter_mut().enumerate();
        let subscribers = subscribers.map(|(number, child)| (Role::Subscriber(number), child));
        for (role, child) in
            std::iter::once((Role::Publisher, &mut self.publisher)).chain(subscribers)
        {
            let Some(child) = child else { continue };
            child.kill();
            self.explained.push(role);
            self.findings.problems.push(format!("{role} (pid {}) was killed: {why}", child.pid()));
        }
    }
}

fn with_address(arguments: &[OsString], address: String) -> Vec<OsString> {
    [arguments, &["--address".into(), address.into()]].concat()
}

/// Turns Ctrl-C, a polite kill and a closed terminal into events.
pub(super) fn hear_signals(events: Sender<Event>) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| format!("cannot handle Ctrl-C: {error}"))?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if events.send(Event::Interrupted).is_err() {
                return;
            }
        }
    });
    Ok(())
}

//! A session, its ring and a backend, driven by the calls of whoever holds it, the endpoint's caller or
//! its thread: dials or takes in connections, moves bytes, and sleeps.
//!
//! ```text
//!   tend   what the clock and the doors ask for: dial, accept, hang up, end. Now and then
//!   push   what may be sent goes to the kernel. With every publication
//!   pull   what has come is taken in. When the caller wants something that is not there
//!   park   sleeps until one of these is worth while
//! ```
//!
//! Here is what it is made of, what it tells, and whose turn it is: `door` makes connections, `flow` moves
//! bytes, `inbox` is where they come in, `ending` says the last words.
//!
//! What the kernel will not take stays in the ring and goes with the next call of any kind. Between
//! two calls nothing is outstanding with the backend unless it could not be recalled, so an endpoint
//! may move to another thread at any time.

mod door;
mod ending;
mod flow;
mod inbox;
mod past;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Errno, Watch};
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::fork::Birth;
use crate::gauge::{Meter, Shown, Tally};
use crate::mirror::Ring;
use crate::options::{Options, Wait};
use crate::session::{Action, Config, Counters, HangUp, Name, Session, SessionId, Side};
use crate::socket::{self, Facts};
use crate::stats::Stats;
use door::{connector, open_way};

pub use door::Way;
pub(crate) use door::{HELLOS, bind};
#[cfg(test)]
pub(crate) use inbox::CONTROL_BYTES;
pub use inbox::{Control, Inbox};
pub(crate) use past::Past;

/// How long an adaptive waiter asks before it sleeps. A wake-up across cores costs as much.
pub(crate) const SPIN_FOR: Duration = Duration::from_micros(50);
/// Asks between two looks at the clock: a millisecond at the most, as each is a system call.
const ASKS_PER_LOOK: u32 = 32;
/// Longest sleep, also where no timer is known, and though somebody is at the door of a connection that
/// stands.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// How long an ended session's connection may take to be closed by the peer.
const FAREWELL_NS: u64 = 1_000_000_000;

/// A process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its address, as this host sees it.
    pub address: SocketAddr,
    /// The session with it.
    pub session: SessionId,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.session;
        write!(f, "{} (session {a:02x}{b:02x}{c:02x}{d:02x})", self.address)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Connection<H: Inbox, B: Backend> {
    pub(crate) session: Session<H>,
    pub(crate) ring: ManuallyDrop<Ring>,
    control: ManuallyDrop<Box<Control>>,
    backend: B,
    way: Way,
    birth: Birth,
    /// The kernel kept memory: it is never freed.
    leaked: bool,
    wait: Wait,
    now_ns: u64,
    /// When [`Self::tend`] was last run.
    tended_ns: u64,
    /// The connection's peer, from the dial or the arrival on.
    peer: Option<SocketAddr>,
    /// Since when the ended session's connection is being closed.
    farewell_ns: Option<u64>,
    /// When a close or a drop began to wait for the last words; 0 before.
    leaving_ns: u64,
    shut: bool,
    /// Whether the socket is still connecting.
    dialing: bool,
    /// The session's end is known to the owner: a new one may begin.
    told: bool,
    /// What the caller has given so far, of this session: see [`Inbox::take_over`].
    given: u64,
    /// After a session that was refused or lost: no dial before then.
    dial_at_ns: u64,
    trouble: Option<Trouble>,
    /// Of sessions before this one.
    before: Counters,
    /// The latest of them.
    past: Past,
    sessions: u64,
    facts: Option<Facts>,
    sends: u64,
    receives: u64,
    empty_receives: u64,
    bytes_sent: u64,
    bytes_received: u64,
    parks: u64,
    meter: Option<Box<Meter>>,
}

/// Why there is no connection: the last reason that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// Connecting failed.
    #[error("connecting to {address} failed: {errno}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        errno: Errno,
    },
    /// The connection was closed or broke.
    #[error("the connection broke: {errno}")]
    Broken {
        /// Why.
        errno: Errno,
    },
    /// The peer closed the connection in the middle of a session.
    #[error("the peer closed the connection in the middle of the session")]
    Ended,
    /// This end closed it.
    #[error("{0}")]
    HangUp(HangUp),
}

impl<H: Inbox, B: Backend> Connection<H, B> {
    /// Opens an endpoint: resolves, binds or begins to connect. Allocates.
    pub(crate) fn open(options: &Options, backend: B) -> Result<Self, Error> {
        let birth = Birth::now();
        let way = open_way(options)?;
        let mut connection = Self::with_way(options, way, backend, birth)?;
        connection.meter = options.gauge.clone().map(|gauge| Box::new(Meter::new(gauge)));
        connection.show();
        Ok(connection)
    }

    /// One of many: whoever has the door greets for it.
    pub(crate) fn member(options: &Options, backend: B) -> Result<Self, Error> {
        Self::with_way(options, Way::Given { dials: false }, backend, Birth::now())
    }

    /// Another backend, before there is a socket.
    pub(crate) fn set_backend(&mut self, backend: B) {
        debug_assert!(self.backend.socket().is_none(), "a backend with a socket");
        self.backend = backend;
    }

    /// Before its owner sleeps on many connections: says what is to be said, and leaves nothing half done
    /// with the kernel.
    pub(crate) fn before_sleep(&mut self) {
        H::before_sleep(&mut self.session);
        self.push();
        self.backend.park(Duration::ZERO);
    }

    /// When to look at it again, whatever comes or doesn't.
    pub(crate) fn deadline_ns(&mut self) -> Option<u64> {
        match self.next_action() {
            Action::Wait { until_ns } => until_ns,
            Action::Shutdown { until_ns } => Some(until_ns),
            Action::Done => None,
            // It is to be looked at now.
            Action::Dial | Action::HangUp(_) => Some(self.now_ns),
        }
    }

    fn with_way(options: &Options, way: Way, mut backend: B, birth: Birth) -> Result<Self, Error> {
        let dials = match &way {
            Way::Bind(listener) => {
                backend.watch(listener.news(), Watch::Door);
                false
            }
            Way::Connect { .. } => true,
            Way::Given { dials } => *dials,
        };
        let name = Name::new(&options.channel).ok_or_else(|| {
            Error::new(
                ErrorKind::BadName,
                format!("opening the channel {:?}", options.channel),
                "its name has more than 128 bytes",
                "Use a shorter one",
            )
        })?;
        let config = Config {
            side: if dials { connector() } else { Side::Binder },
            name,
            format: options.format,
            schema: options.schema,
            capacity: options.capacity,
            timing: options.timing.clone(),
        };
        let session = Session::new(config)?;
        let ring = ManuallyDrop::new(Ring::new(options.capacity)?);
        let mut connection = Self {
            session,
            ring,
            control: ManuallyDrop::new(Box::new(Control::blank())),
            backend,
            way,
            birth,
            leaked: false,
            wait: options.wait,
            now_ns: clock::coarse_ns(),
            tended_ns: 0,
            peer: None,
            farewell_ns: None,
            leaving_ns: 0,
            shut: false,
            dialing: false,
            told: false,
            given: 0,
            dial_at_ns: 0,
            trouble: None,
            before: Counters::default(),
            past: Past::default(),
            sessions: 1,
            facts: None,
            sends: 0,
            receives: 0,
            empty_receives: 0,
            bytes_sent: 0,
            bytes_received: 0,
            parks: 0,
            meter: None,
        };
        connection.tend();
        Ok(connection)
    }

    /// Whether this process is a fork of the one that opened the endpoint.
    #[inline(always)]
    pub(crate) fn is_foreign(&self) -> bool {
        self.birth.is_foreign()
    }

    /// Where it was made.
    #[inline(always)]
    pub(crate) fn birth(&self) -> Birth {
        self.birth
    }

    /// Which session this is, counted from 1: positions are only good within one.
    #[inline(always)]
    pub(crate) fn number(&self) -> u64 {
        self.sessions
    }

    /// As [`Inbox::take_over`], of a session that the caller still speaks of. Whether that is news.
    pub(crate) fn take_over(&mut self, position: u64) -> bool {
        let news = position != self.given && !self.told;
        if news {
            self.given = position;
            H::take_over(&mut self.session, position);
        }
        news
    }

    /// As [`Inbox::outcome`]; nothing where the caller knows of the session's end.
    pub(crate) fn outcome(&self) -> (u64, bool) {
        if self.told { (0, false) } else { H::outcome(&self.session) }
    }

    /// Has [`Self::park`] end at once when `fd` is readable.
    pub(crate) fn watch_bell(&mut self, fd: BorrowedFd<'_>) {
        self.backend.watch(fd, Watch::Bell);
    }

    /// Whom it is connected with.
    pub(crate) fn peer(&self) -> Option<Peer> {
        let session = self.session.id()?;
        let address = self.peer.filter(|_| self.session.is_established())?;
        Some(Peer { address, session })
    }

    /// Where it listens, or from where it is connected.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match &self.way {
            Way::Bind(listener) => Some(listener.address()),
            // The child's copy was closed, and its number may be another socket's.
            _ if self.is_foreign() => None,
            _ => socket::local_addr(&self.backend.socket()?).ok(),
        }
    }

    pub(crate) fn backend_name(&self) -> &'static str {
        self.backend.name()
    }

    /// Why there is no connection.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    pub(crate) fn stats(&self) -> Stats {
        let session = self.session.counters();
        let before = &self.before;
        Stats {
            sessions: self.sessions,
            connections: before.connections + session.connections,
            resumes: before.resumes + session.resumes,
            failed_attempts: before.failed_attempts + session.failed_attempts,
            violations: before.violations + session.violations,
            refusals: before.refusals + session.refusals,
            resent_bytes: before.resent_bytes + session.resent_bytes,
            control_sent: before.control_sent + session.control_sent,
            control_received: before.control_received + session.control_received,
            stalled: self.session.is_stalled(clock::coarse_ns()),
            sends: self.sends,
            receives: self.receives,
            empty_receives: self.empty_receives,
            wire_bytes_sent: self.bytes_sent,
            wire_bytes_received: self.bytes_received,
            parks: self.parks,
            trouble: self.trouble,
            door: match &self.way {
                Way::Bind(listener) => Some(listener.stats()),
                _ => None,
            },
            socket: self.facts,
            ..Stats::default()
        }
    }

    /// Whether the owner knows that the session is over.
    #[inline(always)]
    pub(crate) fn is_end_told(&self) -> bool {
        self.told
    }

    /// What the clock and the doors ask for. A few system calls at most.
    #[cold]
    pub(crate) fn tend(&mut self) {
        self.now_ns = clock::coarse_ns();
        self.tended_ns = self.now_ns;
        // What has come is looked at before its time is judged: nobody may have called meanwhile.
        if self.dialing {
            self.look_at_the_dial();
        } else if self.session.is_greeting() {
            self.pull();
        } else if !self.session.is_up() && self.session.end().is_none() {
            // The peer may be back and wait.
            self.look_at_the_door();
        }
        loop {
            match self.next_action() {
                Action::Dial => self.dial(),
                Action::HangUp(why) => {
                    self.trouble = Some(Trouble::HangUp(why));
                    self.disconnect();
                }
                Action::Shutdown { .. } => {
                    if !self.see_out() {
                        break;
                    }
                }
                Action::Wait { .. } => {
                    if !self.told {
                        break;
                    }
                    // The owner has had the end of a session whose connection nobody will close. If it
                    // broke, the peer may come back to hear the last words: else it must take for lost
                    // what was had here.
                    let since_ns = *self.farewell_ns.get_or_insert(self.now_ns);
                    let patience_ns = match self.session.is_up() {
                        true => FAREWELL_NS,
                        false => self.session.config().timing.takeover_ns,
                    };
                    if self.now_ns < since_ns.saturating_add(patience_ns) {
                        break;
                    }
                    self.renew();
                }
                Action::Done => {
                    if !self.told {
                        break;
                    }
                    self.renew();
                }
            }
        }
        self.look_at_the_door();
        if self.meter.as_mut().is_some_and(|meter| meter.is_due(self.now_ns, 1)) {
            self.show();
        }
    }

    /// Shows how it stands to whoever looks at counters.
    fn show(&mut self) {
        let Some(mut meter) = self.meter.take() else { return };
        let (unsent_bytes, behind_bytes) = H::waiting(&self.session);
        let stats = Stats { unsent_bytes, ..self.stats() };
        let local = match &self.way {
            Way::Bind(listener) => Some(listener.address()),
            _ if self.session.is_up() => meter.local_of(stats.connections, || self.local_addr()),
            _ => None,
        };
        let dials = !matches!(self.way, Way::Bind(_));
        meter.show(&Shown {
            binds: !dials,
            is_up: self.session.is_up(),
            peers: usize::from(self.session.is_up()),
            peer: self.peer.filter(|_| dials || self.session.is_established()),
            session: self.session.id().filter(|_| self.session.is_established()),
            local,
            backend: self.backend.name(),
            behind_bytes,
            stats: &stats,
        });
        self.meter = Some(meter);
    }

    /// Where the owner leaves what it counts itself, if that is shown.
    pub(crate) fn tally(&self) -> Option<Arc<Tally>> {
        self.meter.as_ref().map(|meter| meter.tally())
    }

    fn next_action(&mut self) -> Action {
        if self.now_ns < self.dial_at_ns {
            return Action::Wait { until_ns: Some(self.dial_at_ns) };
        }
        self.session.poll_action(self.now_ns)
    }

    /// Runs [`Self::tend`] when the coarse clock has moved on.
    #[inline(always)]
    pub(crate) fn tend_sometimes(&mut self) {
        self.now_ns = clock::coarse_ns();
        if self.now_ns != self.tended_ns {
            self.tend_and_pull();
        }
    }

    #[cold]
    fn tend_and_pull(&mut self) {
        self.tend();
        // Acknowledgements, and whether the peer still talks.
        self.pull();
        self.push();
    }

    /// One look at everything, for a caller that waits. Whether anything came.
    #[inline(always)]
    pub(crate) fn step(&mut self) -> bool {
        if !self.session.is_up() {
            self.tend();
        }
        self.pull()
    }

    /// Asks `done` after each step until it says yes, or until the deadline (false).
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let start = Instant::now();
        let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
        let spin_until = match self.wait {
            Wait::Spin => None,
            Wait::Adaptive => Some(start + SPIN_FOR),
            Wait::Park => Some(start),
        };
        let mut now = start;
        let mut slept = false;
        loop {
            if spin_until.is_none_or(|until| now < until) {
                for _ in 0..ASKS_PER_LOOK {
                    self.step();
                    if done(self) {
                        return true;
                    }
                }
            } else {
                // What ended the last sleep is most likely a message: looked for before all else.
                if std::mem::take(&mut slept) {
                    self.step();
                    if done(self) {
                        return true;
                    }
                }
                self.tend();
                H::before_sleep(&mut self.session);
                // Until there is no more, so that the next news is an edge; but a peer that floods keeps
                // nobody from looking at the clock.
                let mut came = true;
                for _ in 0..ASKS_PER_LOOK {
                    came = self.step();
                    if done(self) {
                        return true;
                    }
                    if !came {
                        break;
                    }
                }
                if !came {
                    let left =
                        deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(now));
                    self.park(left.min(SLICE));
                    slept = true;
                }
            }
            self.tend_sometimes();
            now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.step();
                return done(self);
            }
        }
    }

    /// Sleeps. Timers of the session may end it earlier.
    pub(crate) fn park(&mut self, limit: Duration) {
        // A look sends one batch. Nobody is woken for room in a socket that refused nothing.
        if !self.dialing {
            self.push();
        }
        let until_ns = match self.next_action() {
            Action::Wait { until_ns } => until_ns,
            Action::Done => None,
            Action::Shutdown { until_ns } => Some(until_ns),
            // Said once: to ask is to promise.
            Action::Dial => return self.dial(),
            Action::HangUp(_) => return self.tend(),
        };
        let door_ns = match &self.way {
            Way::Bind(listener) => listener.deadline_ns(),
            _ => None,
        };
        let next_ns = [until_ns, door_ns].into_iter().flatten().min();
        let timer = next_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(self.now_ns)));
        let timeout = timer.map_or(limit, |timer| timer.min(limit));
        // The coarse clock lags: a timer that seems due now is so in a moment.
        let timeout = timeout.max(Duration::from_micros(100));
        if !self.dialing {
            self.offer();
            self.want();
        }
        self.parks += 1;
        self.backend.park(timeout);
        self.now_ns = clock::coarse_ns();
    }

    /// Waits, while an attempt to connect is under way, until it has come to an end; for at most `limit`.
    pub(crate) fn see_dial(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.dialing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.park(left.min(SLICE));
            self.tend();
        }
    }

    /// Closes the connection, if there is one, and tells the session.
    fn disconnect(&mut self) {
        // From now on the peer has its time to come back, however long ago this end last looked.
        self.now_ns = clock::coarse_ns();
        match self.backend.detach() {
            Ok(socket) => drop(socket),
            Err(_) => self.leaked = true,
        }
        self.shut = false;
        self.facts = None;
        self.session.handle_disconnected(self.now_ns);
    }
}

impl<H: Inbox, B: Backend> Drop for Connection<H, B> {
    fn drop(&mut self) {
        if self.is_foreign() {
            // What is the parent's stays as it is; the child's copies go with the child.
            return;
        }
        if self.backend.detach().is_err() || self.leaked {
            return;
        }
        // SAFETY: dropped here and nowhere else. The backend holds no span any more.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.control);
        }
    }
}

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
//! What the kernel will not take stays in the ring and goes with the next call of any kind. Between
//! two calls nothing is outstanding with the backend unless it could not be recalled, so an endpoint
//! may move to another thread at any time.

use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Errno, Kind, ahead};
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::fork::{Birth, OwnSocket};
use crate::frame::CONTROL_MAX;
use crate::link::inline;
use crate::listener::{Arrival, Listener};
use crate::mirror::{Ring, Span};
use crate::options::{self, Options, Wait};
use crate::session::{
    Action, Config, Counters, End, Half, HangUp, Name, Receiving, Refusal, Sending, Session,
    SessionId, Side, Verdict,
};
use crate::socket::{self, Facts, Tuning};
use crate::stats::Stats;

/// The most that fits one packet of segments on loopback, less a reserve: one byte more than 65483
/// and throughput halves.
const BATCH_SMALL: u64 = 65_400;
/// From here on it does not matter any more.
const BATCH_LARGE: u64 = 256 << 10;
/// More at once gains nothing.
const BATCH_MOST: u64 = 1 << 20;

/// Most bytes of one receive: they are looked at twice afterwards, for their headers and by the
/// application, and should be in a near cache then.
const RECV_MOST: u64 = 256 << 10;

/// How long an adaptive waiter asks before it sleeps. A wake-up across cores costs as much.
pub(crate) const SPIN_FOR: Duration = Duration::from_micros(50);
/// Asks between two looks at the clock: a millisecond at the most, as each is a system call.
const ASKS_PER_LOOK: u32 = 32;
/// Longest sleep, also where no timer is known.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// How long an ended session's connection may take to be closed by the peer.
const FAREWELL_NS: u64 = 1_000_000_000;
/// How long a connector rests when its session was refused or lost, before it dials for a new one.
const DIAL_AFTER_NS: u64 = 100_000_000;

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

/// How connections come about.
#[derive(Debug)]
pub enum Way {
    /// They come in.
    Bind(Listener),
    /// They are made, to one of these addresses after the other.
    Connect {
        /// Where.
        addresses: Vec<SocketAddr>,
        /// Which is next.
        next: usize,
        /// How the sockets are set up.
        tuning: Tuning,
    },
    /// Somebody else makes them: a crowd, a test.
    Given {
        /// Whether this end says hello.
        dials: bool,
    },
}

/// The part of a half that touches memory: where bytes come in.
pub trait Inbox: Half {
    /// Before a connection's socket is used.
    fn prepare(socket: &OwnSocket);
    /// The owner is about to sleep.
    fn before_sleep(session: &mut Session<Self>);
    /// The caller has come so far: has committed, or released, everything below.
    fn take_over(session: &mut Session<Self>, position: u64);
    /// Up to where the caller may go, and whether that is all there will be.
    fn outcome(session: &Session<Self>) -> (u64, bool);
    /// Up to where there is something to send, in the end.
    fn goal(session: &Session<Self>) -> u64;
    /// Whether messages would be lost if there were never a connection again.
    fn has_debts(session: &Session<Self>) -> bool;
    /// Where the next bytes from the connection go. Never empty.
    fn room(session: &Session<Self>, ring: &Ring, control: &mut Control) -> Span;
    /// So many came there.
    fn take_in(
        session: &mut Session<Self>,
        ring: &Ring,
        control: &mut Control,
        bytes: usize,
        now_ns: u64,
    );
}

/// Small buffers at a fixed place: a backend may still be at them while the endpoint moves.
#[derive(Debug)]
pub struct Control {
    out: [u8; CONTROL_MAX + 64],
    inbox: [u8; 4096],
}

/// What a connection takes beside itself and its ring.
#[cfg(test)]
pub(crate) const CONTROL_BYTES: usize = size_of::<Control>();

impl Inbox for Sending {
    // What comes here is acknowledgements, which nobody waits for; and while some are unread, the end of
    // the process would be a reset, which takes with it what the receiver's host has and nobody read.
    fn prepare(_socket: &OwnSocket) {}

    fn before_sleep(_session: &mut Session<Self>) {}

    fn take_over(session: &mut Session<Self>, position: u64) {
        session.handle_committed(position);
    }

    fn outcome(session: &Session<Self>) -> (u64, bool) {
        (session.acknowledged(), inline::is_over(session))
    }

    fn goal(session: &Session<Self>) -> u64 {
        session.tail()
    }

    fn has_debts(session: &Session<Self>) -> bool {
        session.acknowledged() != session.tail()
    }

    fn room(_session: &Session<Self>, _ring: &Ring, control: &mut Control) -> Span {
        Span { start: control.inbox.as_mut_ptr(), len: control.inbox.len() }
    }

    fn take_in(
        session: &mut Session<Self>,
        ring: &Ring,
        control: &mut Control,
        bytes: usize,
        now_ns: u64,
    ) {
        let bytes = bytes.min(control.inbox.len());
        session.handle_received(&control.inbox[..bytes], ring, now_ns);
    }
}

impl Inbox for Receiving {
    fn prepare(socket: &OwnSocket) {
        ahead::allow(socket);
    }

    fn before_sleep(session: &mut Session<Self>) {
        session.acknowledge_now();
    }

    fn take_over(session: &mut Session<Self>, position: u64) {
        session.handle_released(position);
    }

    fn outcome(session: &Session<Self>) -> (u64, bool) {
        (session.received(), inline::is_complete(session))
    }

    fn goal(_session: &Session<Self>) -> u64 {
        0
    }

    fn has_debts(_session: &Session<Self>) -> bool {
        false
    }

    #[inline(always)]
    fn room(session: &Session<Self>, ring: &Ring, _control: &mut Control) -> Span {
        let free = session.free();
        ring.span(free.start, (free.end - free.start).min(RECV_MOST) as usize)
    }

    #[inline(always)]
    fn take_in(
        session: &mut Session<Self>,
        ring: &Ring,
        _control: &mut Control,
        bytes: usize,
        now_ns: u64,
    ) {
        let tail = ring.span(session.received(), session.partial() as usize + bytes);
        // SAFETY: from `received` to the end of what just came: behind everything that guards may
        // point into, and in front of nothing that is kept, because the bytes came into the free
        // tail that `room` gave. Nothing is outstanding with the backend in there any more.
        let tail = unsafe { std::slice::from_raw_parts_mut(tail.start, tail.len) };
        session.handle_received(tail, now_ns);
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
    sessions: u64,
    facts: Option<Facts>,
    sends: u64,
    receives: u64,
    empty_receives: u64,
    bytes_sent: u64,
    bytes_received: u64,
    parks: u64,
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
        Self::with_way(options, way, backend, birth)
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
                backend.watch(listener.news());
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
        let control = Control { out: [0; CONTROL_MAX + 64], inbox: [0; 4096] };
        let mut connection = Self {
            session,
            ring,
            control: ManuallyDrop::new(Box::new(control)),
            backend,
            way,
            birth,
            leaked: false,
            wait: options.wait,
            now_ns: clock::coarse_ns(),
            tended_ns: 0,
            peer: None,
            farewell_ns: None,
            shut: false,
            dialing: false,
            told: false,
            given: 0,
            dial_at_ns: 0,
            trouble: None,
            before: Counters::default(),
            sessions: 1,
            facts: None,
            sends: 0,
            receives: 0,
            empty_receives: 0,
            bytes_sent: 0,
            bytes_received: 0,
            parks: 0,
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

    /// Has [`Self::park`] end when `fd` is readable.
    pub(crate) fn watch(&mut self, fd: BorrowedFd<'_>) {
        self.backend.watch(fd);
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

    /// The session's end was told to the owner, who is through with its ring: a new session begins
    /// as soon as this one's connection is closed.
    pub(crate) fn acknowledge_end(&mut self) {
        self.told = true;
        self.session.close();
        // The last words: a newcomer at the door, of whom the next look may tell, ends the connection.
        self.push();
        self.tend();
    }

    /// As [`Self::acknowledge_end`], but the new session begins now.
    pub(crate) fn start_over(&mut self) {
        self.session.close();
        self.push();
        self.renew();
        self.tend();
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
                    // The owner has had the end of a session whose connection nobody will close.
                    let since_ns = *self.farewell_ns.get_or_insert(self.now_ns);
                    let waits = self.session.is_up() && self.now_ns < since_ns + FAREWELL_NS;
                    if waits {
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

    /// Sends what may be sent, as far as the kernel takes it.
    #[inline(always)]
    pub(crate) fn push(&mut self) {
        while self.offer() {
            self.backend.turn();
            if !self.reap() || self.backend.is_outstanding(Kind::Send) {
                break;
            }
        }
        self.backend.recall(Kind::Send);
    }

    /// Sends, and takes in what has come. Whether anything came.
    #[inline(always)]
    pub(crate) fn pull(&mut self) -> bool {
        if self.dialing {
            return false;
        }
        let before = self.bytes_received;
        self.offer();
        self.want();
        self.backend.turn();
        if !self.reap() {
            return false;
        }
        self.backend.recall(Kind::Recv);
        self.backend.recall(Kind::Send);
        let came = self.bytes_received != before;
        self.empty_receives += u64::from(!came);
        came
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
                // Until there is no more, so that the next news is an edge.
                while self.step() {
                    if done(self) {
                        return true;
                    }
                }
                if done(self) {
                    return true;
                }
                let left =
                    deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(now));
                self.park(left.min(SLICE));
                slept = true;
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

    /// Hands what may be sent to the backend. Whether it has something.
    #[inline(always)]
    fn offer(&mut self) -> bool {
        if self.backend.is_outstanding(Kind::Send) {
            return true;
        }
        let transmit = self.session.poll_transmit(&*self.ring, self.now_ns);
        let span = if transmit.control.is_empty() {
            let data = transmit.data;
            let len = match data.end - data.start {
                0 => return false,
                len if len <= BATCH_SMALL => len,
                len if len < BATCH_LARGE => BATCH_SMALL,
                len => len.min(BATCH_MOST),
            };
            self.ring.span(data.start, len as usize)
        } else {
            let bytes = transmit.control;
            let len = bytes.len().min(self.control.out.len());
            self.control.out[..len].copy_from_slice(&bytes[..len]);
            Span { start: self.control.out.as_mut_ptr(), len }
        };
        // SAFETY: either committed bytes of the send ring, which the session keeps until they are
        // acknowledged, so after they were sent; or the control buffer, which is written only here,
        // when no send is outstanding. Both are freed only after the backend let go (Drop).
        unsafe { self.backend.submit(Kind::Send, span) };
        self.backend.is_outstanding(Kind::Send)
    }

    /// Hands room to receive into to the backend.
    #[inline(always)]
    fn want(&mut self) {
        if self.backend.is_outstanding(Kind::Recv) {
            return;
        }
        let span = H::room(&self.session, &self.ring, &mut self.control);
        // SAFETY: the free tail of the receive ring, in which nobody looks before it is taken in,
        // or the small inbox, likewise. Both are freed only after the backend let go (Drop).
        unsafe { self.backend.submit(Kind::Recv, span) };
    }

    /// Takes what completed. False: the connection is gone.
    #[inline(always)]
    fn reap(&mut self) -> bool {
        while let Some(completion) = self.backend.complete() {
            match (completion.kind, completion.result) {
                (Kind::Send, Ok(bytes)) => {
                    self.sends += 1;
                    self.bytes_sent += bytes as u64;
                    self.session.handle_sent(bytes, self.now_ns);
                }
                (Kind::Recv, Ok(bytes)) if bytes > 0 => {
                    self.receives += 1;
                    self.bytes_received += bytes as u64;
                    let (session, ring) = (&mut self.session, &self.ring);
                    H::take_in(session, ring, &mut self.control, bytes, self.now_ns);
                }
                (_, Err(errno)) if errno.is_later() || errno.0 == libc::ECANCELED => {}
                (kind, result) => {
                    self.broken(kind, result);
                    return false;
                }
            }
        }
        true
    }

    #[cold]
    fn broken(&mut self, kind: Kind, result: Result<usize, Errno>) {
        self.trouble = Some(match result {
            Err(errno) => Trouble::Broken { errno },
            Ok(_) => Trouble::Ended,
        });
        // What the peer said before it went is still to be heard: a refusal, its last words.
        if kind == Kind::Send {
            self.hear_out();
        }
        self.disconnect();
    }

    /// Takes in what is left of a connection that can't be sent on any more.
    fn hear_out(&mut self) {
        for _ in 0..1024 {
            self.want();
            self.backend.turn();
            let mut came = false;
            while let Some(completion) = self.backend.complete() {
                if let (Kind::Recv, Ok(bytes)) = (completion.kind, completion.result) {
                    came = bytes > 0;
                    self.bytes_received += bytes as u64;
                    let (session, ring) = (&mut self.session, &self.ring);
                    H::take_in(session, ring, &mut self.control, bytes, self.now_ns);
                }
            }
            if !came {
                return;
            }
        }
    }

    /// Closes the connection, if there is one, and tells the session.
    fn disconnect(&mut self) {
        match self.backend.detach() {
            Ok(socket) => drop(socket),
            Err(_) => self.leaked = true,
        }
        self.shut = false;
        self.facts = None;
        self.session.handle_disconnected(self.now_ns);
    }

    fn dial(&mut self) {
        let Way::Connect { addresses, next, tuning } = &mut self.way else { return };
        let address = addresses[*next];
        *next = (*next + 1) % addresses.len();
        self.peer = Some(address);
        match socket::connect(address, tuning) {
            Ok(socket) => {
                // Attached while it connects, so that a park ends when it stands.
                H::prepare(&socket);
                self.backend.attach(socket);
                self.dialing = true;
                self.look_at_the_dial();
            }
            Err(error) => self.dial_failed(&error),
        }
    }

    fn look_at_the_dial(&mut self) {
        let Some(socket) = self.backend.socket() else { return };
        match socket::connected(&socket) {
            Ok(false) => {}
            Ok(true) => {
                self.dialing = false;
                self.facts = Some(Facts::of(&socket));
                self.session.handle_dialed(self.now_ns);
                self.push();
            }
            Err(error) => self.dial_failed(&error),
        }
    }

    fn dial_failed(&mut self, error: &io::Error) {
        let errno = Errno(error.raw_os_error().unwrap_or(libc::EIO));
        if let Some(address) = self.peer {
            self.trouble = Some(Trouble::Connect { address, errno });
        }
        self.disconnect();
    }

    fn look_at_the_door(&mut self) {
        if self.dialing {
            return self.look_at_the_dial();
        }
        while let Some(arrival) = match &mut self.way {
            Way::Bind(listener) => listener.poll(self.now_ns),
            _ => None,
        } {
            if let Some((arrival, refusal)) = self.greet(arrival)
                && let Way::Bind(listener) = &mut self.way
            {
                listener.refuse(arrival, refusal, self.now_ns);
            }
        }
    }

    /// Whoever has said hello is welcome, or comes back with why not.
    pub(crate) fn greet(&mut self, arrival: Arrival) -> Option<(Arrival, Refusal)> {
        if self.told {
            // Nobody waits for the old session any more.
            self.renew();
        }
        let hello = &arrival.hello;
        let mut verdict = self.session.handle_hello(hello, &*self.ring, self.now_ns);
        if verdict == Verdict::CloseFirst {
            // It has had what came over the old connection, or it comes again.
            self.reap();
            self.disconnect();
            verdict = self.session.handle_hello(hello, &*self.ring, self.now_ns);
        }
        match verdict {
            Verdict::Welcome => {
                self.peer = Some(arrival.from);
                self.facts = Some(Facts::of(&arrival.socket));
                self.trouble = None;
                H::prepare(&arrival.socket);
                self.backend.attach(arrival.socket);
                self.push();
            }
            // It was closed: not said twice.
            Verdict::CloseFirst => {}
            Verdict::Refuse(refusal) => return Some((arrival, refusal)),
        }
        None
    }

    /// Says the last words of an ended session and waits for the peer to close. Whether the
    /// connection is gone.
    fn see_out(&mut self) -> bool {
        let since_ns = *self.farewell_ns.get_or_insert(self.now_ns);
        self.push();
        let said = self.session.poll_transmit(&*self.ring, self.now_ns).is_empty();
        if said && !self.shut && !self.backend.is_outstanding(Kind::Send) {
            self.shut = true;
            if let Some(socket) = self.backend.socket() {
                socket::shutdown_write(&socket);
            }
        }
        while self.backend.socket().is_some() && self.pull() {}
        if self.backend.socket().is_none() {
            return true;
        }
        if self.now_ns < since_ns + FAREWELL_NS {
            return false;
        }
        self.disconnect();
        true
    }

    /// Begins a new session where the last one has ended.
    fn renew(&mut self) {
        self.disconnect();
        let dials = matches!(self.session.config().side, Side::Connector { .. });
        if dials && matches!(self.session.end(), Some(End::Died(_))) {
            self.dial_at_ns = self.now_ns + DIAL_AFTER_NS;
        }
        let mut config = self.session.config().clone();
        if let Side::Connector { .. } = config.side {
            config.side = connector();
        }
        // The same has been accepted before.
        let Ok(session) = Session::new(config) else { return };
        let counters = self.session.counters();
        let sum = &mut self.before;
        sum.connections += counters.connections;
        sum.resumes += counters.resumes;
        sum.failed_attempts += counters.failed_attempts;
        sum.violations += counters.violations;
        sum.refusals += counters.refusals;
        sum.resent_bytes += counters.resent_bytes;
        sum.dropped_bytes += counters.dropped_bytes;
        sum.control_sent += counters.control_sent;
        sum.control_received += counters.control_received;
        self.session = session;
        self.sessions += 1;
        self.told = false;
        self.farewell_ns = None;
        self.given = 0;
    }

    /// Closes the session in good order, and waits for the peer's answer. Whether it came.
    pub(crate) fn close(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        self.session.close();
        self.push();
        let ended = self.wait(Some(timeout), |it| it.session.end().is_some());
        // The last words, so that the peer knows too.
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
        self.wait(Some(left), |it| it.session.end().is_none() || it.is_alone());
        ended
    }

    /// As [`Self::close`], but is content when the peer's host has everything: for a drop.
    pub(crate) fn leave(&mut self, linger: Duration) {
        self.session.close();
        self.push();
        self.wait(Some(linger), |it| it.is_alone() || it.is_said());
    }

    /// Whether the session has ended and its connection is closed.
    pub(crate) fn is_alone(&self) -> bool {
        self.session.end().is_some() && self.backend.socket().is_none()
    }

    /// Whether all that this end has to say is with the peer's host.
    pub(crate) fn is_said(&mut self) -> bool {
        let talks = self.session.is_up() || self.session.is_early();
        if !talks && self.session.end().is_none() {
            return !H::has_debts(&self.session);
        }
        let goal = H::goal(&self.session);
        let transmit = self.session.poll_transmit(&*self.ring, self.now_ns);
        let said =
            transmit.is_empty() && (transmit.data.end >= goal || self.session.end().is_some());
        said && !self.backend.is_outstanding(Kind::Send)
            && self.backend.socket().is_none_or(|socket| socket::unacknowledged(&socket) == 0)
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

/// Binds, and listens.
pub(crate) fn bind(options: &Options) -> Result<Listener, Error> {
    match open_way(options)? {
        Way::Bind(listener) => Ok(listener),
        // Who must bind does, or is told why not.
        Way::Connect { .. } | Way::Given { .. } => {
            let tried = format!("binding {}:{}", options.host, options.port);
            let found = "no address of the host is this host's";
            Err(Error::new(ErrorKind::NoHost, tried, found, "Bind an address of this host"))
        }
    }
}

/// Decides who binds, and does it.
fn open_way(options: &Options) -> Result<Way, Error> {
    let Options { host, port, tuning, .. } = options;
    socket::check(tuning)?;
    let addresses = socket::resolve(host, *port)?;
    let connect = |addresses| Way::Connect { addresses, next: 0, tuning: tuning.clone() };
    let only_binds = *port == 0 || addresses.iter().any(|address| address.ip().is_unspecified());
    if options.side == options::Side::Connect {
        if only_binds {
            return Err(Error::new(
                ErrorKind::BadOption,
                format!("connecting to {host}:{port}"),
                "no host has that address",
                "Name the host and port of the end that binds",
            ));
        }
        return Ok(connect(addresses));
    }
    let must_bind = only_binds || options.side == options::Side::Bind;
    let mut failure = None;
    for address in &addresses {
        match socket::bind(*address, tuning) {
            Ok(socket) => {
                let patience_ns = options.timing.handshake_ns;
                let (tuning, silent_max) = (tuning.clone(), options.silent_max);
                return Ok(Way::Bind(Listener::new(socket, tuning, silent_max, patience_ns)?));
            }
            // It is here, and somebody has it: the other end, by all appearances.
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && !must_bind => {
                return Ok(connect(addresses));
            }
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && !must_bind => {}
            Err(error) => {
                failure.get_or_insert((*address, error));
            }
        }
    }
    match failure {
        None => Ok(connect(addresses)),
        Some((address, error)) => Err(Error::io(format!("binding {address}"), error)),
    }
}

fn connector() -> Side {
    let mut random = [0_u8; 24];
    // SAFETY: an array of that length. It can fail only before the kernel has ever had entropy.
    unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    let (session, seed) = random.split_at(16);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(session);
    let mut number = [0; 8];
    number.copy_from_slice(seed);
    Side::Connector { session: bytes, seed: u64::from_le_bytes(number) }
}

/// Endpoints over scripted streams, for tests: no sockets, no time, one thread.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use super::{Connection, Inbox, Way};
    use crate::backend::{Backend, Fake, fake};
    use crate::error::Error;
    use crate::fork::Birth;
    use crate::frame::Kind;
    use crate::link::Inline;
    use crate::options::Options;
    use crate::receiver::NetReceiver;
    use crate::sender::NetSender;
    use crate::session::{Greeting, Receiving, Sending, Verdict};

    /// A sender over scripted streams.
    pub type FakeSender = NetSender<Inline<Sending, Fake>>;
    /// A receiver over scripted streams.
    pub type FakeReceiver = NetReceiver<Inline<Receiving, Fake>>;

    /// Two ends without a connection. The sender is the one that dials.
    ///
    /// # Errors
    /// Those of opening an end.
    pub fn ends(options: &Options) -> Result<(FakeSender, FakeReceiver), Error> {
        let (one, other) = fake::pair(0);
        let birth = Birth::now();
        let sending = Connection::with_way(options, Way::Given { dials: true }, one, birth)?;
        let receiving = Connection::with_way(options, Way::Given { dials: false }, other, birth)?;
        let (sending, receiving) = (Inline::with(sending), Inline::with(receiving));
        Ok((NetSender::with(sending, options), NetReceiver::with(receiving, options)))
    }

    /// An end of its own, over some backend.
    ///
    /// # Errors
    /// Those of opening an end.
    pub fn end<H: Inbox, B: Backend>(options: &Options, backend: B) -> Result<Inline<H, B>, Error> {
        let way = Way::Given { dials: false };
        Ok(Inline::with(Connection::with_way(options, way, backend, Birth::now())?))
    }

    /// Joins them by a stream that holds `room` bytes each way. False: one of them is not ready.
    pub fn join(tx: &mut FakeSender, rx: &mut FakeReceiver, room: usize) -> bool {
        let (dialer, binder) = (tx.link_mut().connection_mut(), rx.link_mut().connection_mut());
        for_both(dialer, binder);
        let (one, other) = fake::pair(room);
        (dialer.backend, binder.backend) = (one, other);
        dialer.session.handle_dialed(dialer.now_ns);
        let hello = {
            let transmit = dialer.session.poll_transmit(&*dialer.ring, dialer.now_ns);
            match Greeting::read(Kind::Hello, transmit.control) {
                Ok(Some(hello)) => hello,
                _ => return false,
            }
        };
        dialer.session.handle_sent(crate::frame::CONTROL_MAX, dialer.now_ns);
        let verdict = binder.session.handle_hello(&hello, &*binder.ring, binder.now_ns);
        verdict == Verdict::Welcome
    }

    /// Whatever is due: dials, hang-ups.
    fn for_both<G: Inbox, H: Inbox>(
        one: &mut Connection<G, Fake>,
        other: &mut Connection<H, Fake>,
    ) {
        one.disconnect();
        other.disconnect();
        one.tend();
        other.tend();
    }

    /// The backend of an end, to be scripted.
    pub fn script_sender(tx: &mut FakeSender) -> &mut Fake {
        &mut tx.link_mut().connection_mut().backend
    }

    /// The backend of an end, to be scripted.
    pub fn script_receiver(rx: &mut FakeReceiver) -> &mut Fake {
        &mut rx.link_mut().connection_mut().backend
    }
}

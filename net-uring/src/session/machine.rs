//! The connection's life, the same for both halves: dialing, greeting, resuming, timers, the end.

use std::ops::Range;

use super::backoff::Backoff;
use super::greeting::{Direction, Greeting, Refusal, RefuseCode, SessionId};
use super::{
    Action, Config, Counters, Death, End, HangUp, Headers, Side, Transmit, Verdict, Violation,
};
use crate::frame::{CONTROL_MAX, HEADER_LEN, Header, Kind};

/// A session: one end of a stream of messages that outlives its connections. `H` is [`Sending`] or
/// [`Receiving`]. What it is driven by is on the module's front page.
///
/// [`Sending`]: super::Sending
/// [`Receiving`]: super::Receiving
#[derive(Debug)]
pub struct Session<H> {
    config: Config,
    pub(super) half: H,
    phase: Phase,
    /// None in a binder that nobody has dialed yet.
    id: Option<SessionId>,
    epoch: u64,
    /// A handshake has succeeded: from now on the session can be lost.
    established: bool,
    /// Something was sent or received whole on this connection.
    progress: bool,
    backoff: Backoff,
    retry_at_ns: u64,
    attempt_by_ns: u64,
    /// While an established session has no connection.
    resume_by_ns: Option<u64>,
    down_since_ns: u64,
    /// Since the session's end has been seen, while it has a connection.
    ending_by_ns: Option<u64>,
    last_sent_ns: u64,
    last_heard_ns: u64,
    closing: bool,
    bye: bool,
    hang_up: Option<HangUp>,
    end: Option<End>,
    out: Out,
    counters: Counters,
}

/// What a session's connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Dialing,
    Greeting,
    Up,
    /// The session has ended; its connection has not.
    Ending,
    Ended,
}

/// What is different between the halves. Sealed: outside of this module nobody can call it.
pub trait Half: Sized + std::fmt::Debug {
    #[doc(hidden)]
    const DIRECTION: Direction;
    #[doc(hidden)]
    fn new(capacity: u64, ack_delay_ns: u64) -> Self;
    /// What the greeting says of it, and tells with that.
    #[doc(hidden)]
    fn offer(&mut self) -> Offer;
    /// Whether it can go on with that peer. Changes nothing.
    #[doc(hidden)]
    fn check_peer(&self, peer: &Greeting, ring: &impl Headers) -> Result<(), Mismatch>;
    /// A handshake succeeded. `early`: what was sent on this connection before it did still counts.
    #[doc(hidden)]
    fn connected(&mut self, peer: &Greeting, early: bool) -> Resumed;
    /// The connection is gone, and with it what had come of a frame in part.
    #[doc(hidden)]
    fn disconnected(&mut self);
    #[doc(hidden)]
    fn handle_control(
        &mut self,
        kind: Kind,
        seq: u64,
        ring: &impl Headers,
    ) -> Result<Heard, Violation>;
    /// A control frame that is to go now, if this is a frame boundary.
    #[doc(hidden)]
    fn next_control(&mut self, closing: bool, now_ns: u64) -> Option<(Kind, u64)>;
    /// The frame that says nothing but that this end lives, if this is a frame boundary.
    #[doc(hidden)]
    fn heartbeat(&mut self) -> Option<(Kind, u64)>;
    /// Clears for sending what may be sent.
    #[doc(hidden)]
    fn clear(&mut self, ring: &impl Headers);
    #[doc(hidden)]
    fn data(&self) -> Range<u64>;
    #[doc(hidden)]
    fn sent(&mut self, bytes: u64);
    #[doc(hidden)]
    fn deadline_ns(&self) -> Option<u64>;
    #[doc(hidden)]
    fn peer_closed(&self) -> bool;
    /// Nothing would be told lost if the session ended now.
    #[doc(hidden)]
    fn nothing_to_lose(&self, closing: bool) -> bool;
}

/// A half's part of a greeting.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub position: u64,
    pub released: u64,
    pub window: u64,
    pub body_max: u32,
}

/// What a handshake told.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    /// Bytes that will be sent again.
    pub again: u64,
    /// The last connection brought the stream forward.
    pub progress: bool,
}

/// What a half has against a peer.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Mismatch {
    pub code: RefuseCode,
    pub here: u64,
    pub there: u64,
}

/// What a control frame meant for the session.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Nothing,
    /// The connection is of use.
    Progress,
    /// The answer to this end's fin.
    Finished,
    /// The answer to this end's fin-ack.
    Bye,
}

impl<H: Half> Session<H> {
    /// A session that nobody knows of yet, at position 0.
    ///
    /// # Errors
    /// [`Config::check`].
    pub fn new(config: Config) -> Result<Self, crate::Error> {
        config.check()?;
        let timing = &config.timing;
        let (id, seed) = match config.side {
            Side::Connector { session, seed } => (Some(session), seed),
            Side::Binder => (None, 0),
        };
        Ok(Self {
            half: H::new(config.capacity, timing.ack_delay_ns),
            phase: Phase::Down,
            id,
            epoch: 0,
            established: false,
            progress: false,
            backoff: Backoff::new(seed, timing.retry_min_ns, timing.retry_max_ns),
            retry_at_ns: 0,
            attempt_by_ns: 0,
            resume_by_ns: None,
            down_since_ns: 0,
            ending_by_ns: None,
            last_sent_ns: 0,
            last_heard_ns: 0,
            closing: false,
            bye: false,
            hang_up: None,
            end: None,
            out: Out::default(),
            counters: Counters::default(),
            config,
        })
    }

    /// What to do about the connection. Ask after every `handle_*` and when a wait is over.
    pub fn poll_action(&mut self, now_ns: u64) -> Action {
        if self.resume_by_ns.is_some_and(|by_ns| now_ns >= by_ns) {
            self.die(Death::ResumeDeadline);
        }
        let attempting = matches!(self.phase, Phase::Dialing | Phase::Greeting);
        if attempting && self.hang_up.is_none() && now_ns >= self.attempt_by_ns {
            self.hang_up = Some(HangUp::Handshake);
        }
        if let (Some(why), true) = (self.hang_up, self.has_connection()) {
            return Action::HangUp(why);
        }
        let dials = matches!(self.config.side, Side::Connector { .. });
        match self.phase {
            Phase::Ended => Action::Done,
            Phase::Ending => {
                let patience_ns = now_ns.saturating_add(self.config.timing.handshake_ns);
                let until_ns = *self.ending_by_ns.get_or_insert(patience_ns);
                if now_ns >= until_ns {
                    self.hang_up = Some(HangUp::Ended);
                    return Action::HangUp(HangUp::Ended);
                }
                Action::Shutdown { until_ns }
            }
            Phase::Down if dials && now_ns >= self.retry_at_ns => {
                self.phase = Phase::Dialing;
                self.attempt_by_ns = now_ns.saturating_add(self.config.timing.handshake_ns);
                Action::Dial
            }
            _ => Action::Wait { until_ns: self.deadline_ns(dials) },
        }
    }

    /// A connector's byte stream stands: the hello goes out.
    pub fn handle_dialed(&mut self, now_ns: u64) {
        if self.phase != Phase::Dialing {
            return;
        }
        self.phase = Phase::Greeting;
        // However late that was seen: the answer has its time.
        self.attempt_by_ns = now_ns.saturating_add(self.config.timing.handshake_ns);
        self.epoch += 1;
        self.progress = false;
        (self.last_sent_ns, self.last_heard_ns) = (now_ns, now_ns);
        let hello = self.greeting(!self.established);
        self.out.push(&hello.to_bytes(Kind::Hello));
    }

    /// The connection, or the attempt at one, is gone: closed by either side, reset, refused. Only
    /// when nothing is being sent or received on it any more. Part of a frame that was received is
    /// dropped; it comes again.
    pub fn handle_disconnected(&mut self, now_ns: u64) {
        match self.phase {
            Phase::Down | Phase::Ended => return,
            Phase::Dialing | Phase::Greeting => self.counters.failed_attempts += 1,
            Phase::Up | Phase::Ending => self.down_since_ns = now_ns,
        }
        self.half.disconnected();
        self.out.clear();
        self.hang_up = None;
        self.bye = false;
        self.phase = if self.end.is_some() { Phase::Ended } else { Phase::Down };
        if self.established && self.resume_by_ns.is_none() && self.end.is_none() {
            self.resume_by_ns = Some(now_ns.saturating_add(self.config.timing.resume_ns));
        }
        if self.phase == Phase::Down {
            self.close_if_unknown();
        }
        if std::mem::take(&mut self.progress) {
            self.backoff.reset();
        }
        self.retry_at_ns = now_ns.saturating_add(self.backoff.next_ns());
    }

    /// Who dialed a binder wants this. `ring` is this end's ring.
    pub fn handle_hello(&mut self, hello: &Greeting, ring: &impl Headers, now_ns: u64) -> Verdict {
        let verdict = self.judge(hello, ring, now_ns);
        match verdict {
            Verdict::Refuse(_) => self.counters.refusals += 1,
            Verdict::CloseFirst => {}
            Verdict::Welcome => {
                self.id = Some(hello.session);
                self.epoch = hello.epoch;
                self.connected(hello, now_ns);
                let welcome = self.greeting(false);
                self.out.push(&welcome.to_bytes(Kind::Welcome));
            }
        }
        verdict
    }

    /// What goes next, if there is a connection. `ring` is this end's ring. The same is given until
    /// [`Self::handle_sent`]; more may be added to its end.
    pub fn poll_transmit(&mut self, ring: &impl Headers, now_ns: u64) -> Transmit<'_> {
        if self.hang_up.is_some() {
            return Transmit { control: &[], data: 0..0 };
        }
        let early = self.is_early();
        if self.phase == Phase::Up || early {
            while self.out.has_room() {
                let Some((kind, seq)) = self.half.next_control(self.closing, now_ns) else { break };
                self.push(kind, seq);
            }
            self.half.clear(ring);
            let data = self.half.data();
            let quiet = data.is_empty() && self.out.is_empty() && !early;
            if quiet
                && now_ns >= self.heartbeat_at_ns()
                && let Some((kind, seq)) = self.half.heartbeat()
            {
                self.push(kind, seq);
            }
        }
        if self.phase == Phase::Ending && self.bye && self.out.has_room() {
            self.bye = false;
            self.push(Kind::Bye, 0);
        }
        let connected = matches!(self.phase, Phase::Up | Phase::Ending);
        let data = if connected || early { self.half.data() } else { 0..0 };
        Transmit { control: self.out.rest(), data }
    }

    /// The connection took `bytes` of what [`Self::poll_transmit`] gave, from its front.
    pub fn handle_sent(&mut self, bytes: usize, now_ns: u64) {
        let data = bytes - self.out.sent(bytes);
        self.half.sent(data as u64);
        self.last_sent_ns = now_ns;
    }

    /// Begins the orderly end. A sender's fin follows its last frame; a receiver's goes at once, and
    /// what it has not released stays unacknowledged. [`Self::end`] tells when it is over; an owner
    /// that has no more patience drops the connection and the session.
    pub fn close(&mut self) {
        self.closing = true;
        if matches!(self.phase, Phase::Down | Phase::Dialing) {
            self.close_if_unknown();
        }
    }

    /// Gives the peer up, which has no connection and whose place others want. What it then says of this
    /// session is answered with "unknown".
    pub fn give_up(&mut self) {
        if self.end.is_none() {
            self.die(Death::Replaced);
        }
    }

    /// How the session ended, if it has. Its ring stays readable.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The peer has said that it closes. From a sender: all that it sent was received. From a
    /// receiver: it will acknowledge nothing more.
    pub fn is_peer_closed(&self) -> bool {
        self.half.peer_closed()
    }

    /// Whether messages can flow.
    #[inline(always)]
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether this end may send behind its hello, without having been welcomed: on its very first
    /// connection. The peer can't have anything of this session then, so both know where it begins;
    /// and whoever welcomes it has room for its longest frame, which is as far as its credit goes.
    #[inline(always)]
    pub fn is_early(&self) -> bool {
        self.phase == Phase::Greeting && self.epoch == 1
    }

    /// Whether the hello was said and not answered yet.
    pub fn is_greeting(&self) -> bool {
        self.phase == Phase::Greeting
    }

    /// Whether a handshake has ever succeeded.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Since when there has been no connection.
    pub fn down_since_ns(&self) -> Option<u64> {
        (!self.is_up()).then_some(self.down_since_ns)
    }

    /// The peer is connected and has said nothing for long: its process is stopped, or its thread
    /// elsewhere, or its host gone without a word. That is no death.
    pub fn is_stalled(&self, now_ns: u64) -> bool {
        let quiet_ns = now_ns.saturating_sub(self.last_heard_ns);
        self.is_up() && quiet_ns >= self.config.timing.stalled_ns
    }

    /// The session's number, once it has one.
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Which attempt of the connector the last connection was.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether bytes that come are listened to.
    pub(super) fn hears(&self) -> bool {
        self.hang_up.is_none() && matches!(self.phase, Phase::Greeting | Phase::Up)
    }

    /// Notes that the peer lives.
    pub(super) fn heard(&mut self, now_ns: u64) {
        self.last_heard_ns = now_ns;
    }

    /// The connection is of use: the next attempt need not wait.
    #[inline(always)]
    pub(super) fn progress(&mut self) {
        self.progress = true;
    }

    pub(super) fn violation(&mut self, violation: Violation) {
        self.counters.violations += 1;
        self.hang_up = Some(HangUp::Violation(violation));
    }

    /// A whole control frame, whose header was checked.
    pub(super) fn handle_control(
        &mut self,
        kind: Kind,
        seq: u64,
        frame: &[u8],
        ring: &impl Headers,
        now_ns: u64,
    ) {
        self.counters.control_received += 1;
        let heard = match (self.phase, kind) {
            (Phase::Greeting, Kind::Welcome) => return self.welcomed(frame, ring, now_ns),
            (Phase::Greeting, Kind::Refuse) => return self.refused(frame),
            (Phase::Up, _) => self.half.handle_control(kind, seq, ring),
            (_, kind) => Err(Violation::Unexpected(kind)),
        };
        match heard {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Progress) => self.progress = true,
            Ok(Heard::Finished) => {
                self.bye = true;
                self.finish(End::Closed);
            }
            Ok(Heard::Bye) => self.finish(End::Closed),
            Err(violation) => self.violation(violation),
        }
    }

    fn welcomed(&mut self, frame: &[u8], ring: &impl Headers, now_ns: u64) {
        let Ok(Some(welcome)) = Greeting::read(Kind::Welcome, frame) else {
            return self.violation(Violation::Greeting);
        };
        if Some(welcome.session) != self.id || welcome.epoch != self.epoch {
            return self.violation(Violation::Greeting);
        }
        let checked = self.compatible(&welcome).and_then(|()| {
            self.half.check_peer(&welcome, ring).map_err(|Mismatch { code, here, there }| {
                // The words speak from the binder's side.
                Refusal::new(code, there, here)
            })
        });
        match checked {
            Ok(()) => self.connected(&welcome, now_ns),
            Err(refusal) => self.die(Death::Refused(refusal)),
        }
    }

    fn refused(&mut self, frame: &[u8]) {
        match Refusal::from_body(&frame[HEADER_LEN..]) {
            None => self.violation(Violation::Greeting),
            Some(refusal) if refusal.code == RefuseCode::Busy => {
                self.hang_up = Some(HangUp::Refused(refusal));
            }
            Some(refusal) => self.die(Death::Refused(refusal)),
        }
    }

    fn judge(&mut self, hello: &Greeting, ring: &impl Headers, now_ns: u64) -> Verdict {
        if let Err(refusal) = self.compatible(hello) {
            return Verdict::Refuse(refusal);
        }
        let refuse = |code, mine, yours| Verdict::Refuse(Refusal::new(code, mine, yours));
        let known = self.id == Some(hello.session);
        if !(known && self.end.is_none() || !known && hello.fresh) {
            return refuse(RefuseCode::UnknownSession, 0, 0);
        }
        if self.end.is_some() {
            // Until the owner has drained this one, and begins another.
            return refuse(RefuseCode::Busy, 0, 0);
        }
        if !known && self.id.is_some() {
            let down_ns = now_ns.saturating_sub(self.down_since_ns);
            let lasting = down_ns >= self.config.timing.takeover_ns;
            let spare = lasting || self.half.nothing_to_lose(self.closing);
            if self.phase == Phase::Down && spare {
                self.die(Death::Replaced);
            }
            return refuse(RefuseCode::Busy, 0, 0);
        }
        if hello.epoch <= self.epoch {
            return refuse(RefuseCode::Epoch, self.epoch, hello.epoch);
        }
        if self.phase != Phase::Down {
            return Verdict::CloseFirst;
        }
        match self.half.check_peer(hello, ring) {
            Ok(()) => Verdict::Welcome,
            Err(Mismatch { code, here, there }) => refuse(code, here, there),
        }
    }

    /// Whether that peer speaks of the same things. `peer` is a hello to a binder or a welcome to a
    /// connector; a refusal speaks from the binder's side.
    fn compatible(&self, peer: &Greeting) -> Result<(), Refusal> {
        let config = &self.config;
        let refuse = |code, here, there| match config.side {
            Side::Binder => Refusal::new(code, here, there),
            Side::Connector { .. } => Refusal::new(code, there, here),
        };
        if peer.name != config.name {
            return Err(refuse(RefuseCode::Name, 0, 0));
        }
        if peer.direction == H::DIRECTION {
            let direction = H::DIRECTION as u64;
            return Err(refuse(RefuseCode::Direction, direction, direction));
        }
        if peer.format != config.format {
            return Err(match config.side {
                Side::Binder => Refusal::format(config.format, peer.format),
                Side::Connector { .. } => Refusal::format(peer.format, config.format),
            });
        }
        if peer.schema != config.schema {
            return Err(refuse(RefuseCode::Schema, config.schema, peer.schema));
        }
        Ok(())
    }

    fn connected(&mut self, peer: &Greeting, now_ns: u64) {
        self.counters.connections += 1;
        self.counters.resumes += u64::from(self.established);
        let early = self.is_early();
        let resumed = self.half.connected(peer, early);
        self.counters.resent_bytes += resumed.again;
        if resumed.progress {
            self.backoff.reset();
        }
        self.phase = Phase::Up;
        self.established = true;
        self.resume_by_ns = None;
        self.progress = false;
        (self.last_sent_ns, self.last_heard_ns) = (now_ns, now_ns);
    }

    fn greeting(&mut self, fresh: bool) -> Greeting {
        let Offer { position, released, window, body_max } = self.half.offer();
        let config = &self.config;
        Greeting {
            direction: H::DIRECTION,
            format: config.format,
            session: self.id.unwrap_or_default(),
            epoch: self.epoch,
            schema: config.schema,
            position,
            released,
            window,
            body_max,
            fresh,
            name: config.name,
        }
    }

    /// The session cannot go on. What was closed, or has nothing to lose, is just closed.
    fn die(&mut self, death: Death) {
        let gone =
            !matches!(death, Death::Refused(refusal) if refusal.code != RefuseCode::UnknownSession);
        let end = match gone && self.half.nothing_to_lose(self.closing) {
            true => End::Closed,
            false => End::Died(death),
        };
        self.finish(end);
        if self.has_connection() {
            self.hang_up = Some(HangUp::Ended);
        }
    }

    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.resume_by_ns = None;
        self.phase = if self.has_connection() { Phase::Ending } else { Phase::Ended };
    }

    /// Of a session that closes, that no welcome has come for, and in which nothing would be lost: nobody may
    /// ever answer.
    fn close_if_unknown(&mut self) {
        if self.closing && !self.established && self.half.nothing_to_lose(true) {
            self.hang_up = self.has_connection().then_some(HangUp::Ended);
            self.finish(End::Closed);
        }
    }

    fn has_connection(&self) -> bool {
        !matches!(self.phase, Phase::Down | Phase::Ended)
    }

    fn push(&mut self, kind: Kind, seq: u64) {
        self.counters.control_sent += 1;
        self.out.push(&Header::control(kind, seq).to_bytes());
    }

    fn heartbeat_at_ns(&self) -> u64 {
        self.last_sent_ns.saturating_add(self.config.timing.heartbeat_ns)
    }

    fn deadline_ns(&self, dials: bool) -> Option<u64> {
        let own = match self.phase {
            Phase::Down => dials.then_some(self.retry_at_ns),
            Phase::Dialing | Phase::Greeting => Some(self.attempt_by_ns),
            // What waits for the connection to take it waits for no time.
            Phase::Up if !self.out.is_empty() || !self.half.data().is_empty() => None,
            Phase::Up => {
                let beat_ns = self.heartbeat_at_ns();
                Some(self.half.deadline_ns().map_or(beat_ns, |at_ns| at_ns.min(beat_ns)))
            }
            Phase::Ending | Phase::Ended => None,
        };
        [own, self.resume_by_ns].into_iter().flatten().min()
    }
}

/// Control bytes on their way: a greeting and a few small frames.
#[derive(Debug)]
struct Out {
    bytes: [u8; CONTROL_MAX + 4 * HEADER_LEN],
    sent: usize,
    len: usize,
}

impl Default for Out {
    fn default() -> Self {
        Self { bytes: [0; CONTROL_MAX + 4 * HEADER_LEN], sent: 0, len: 0 }
    }
}

impl Out {
    fn is_empty(&self) -> bool {
        self.sent == self.len
    }

    /// For a small frame.
    fn has_room(&self) -> bool {
        self.len + HEADER_LEN <= self.bytes.len()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..self.len]
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes[self.len..][..frame.len()].copy_from_slice(frame);
        self.len += frame.len();
    }

    /// Of `bytes` sent, how many were these.
    fn sent(&mut self, bytes: usize) -> usize {
        let taken = bytes.min(self.len - self.sent);
        self.sent += taken;
        if self.is_empty() {
            self.clear();
        }
        taken
    }

    fn clear(&mut self) {
        (self.sent, self.len) = (0, 0);
    }
}

//! One bound sender to many receivers. What is sent lies in a queue until it is handed on, each message by a
//! copy into the ring of the receiver's session, where it stays until the receiver has released it:
//!
//! ```text
//!   send ── queue ──▶ ring of a receiver ══▶      mpmc: of one that has credit for it, in turns
//!              │  └─▶ ring of a receiver ══▶      broadcast: of each
//!              ▲
//!        estates: rings of receivers that are gone, and what they had not released (mpmc)
//! ```
//!
//! A receiver of a work queue is given no more than it has granted room for, so one that takes and never
//! releases holds that much and no more. What a receiver leaves behind is handed on first, flagged. A
//! receiver whose connection broke may resume it, but when it has been without one for the time of a
//! take-over, and another is there, it is given up: what it has goes to others, or they wait for it no more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Crowd, Member, check, wait};
use crate::backend::joint::Joint;
use crate::connection::{Connection, Peer};
use crate::error::Error;
use crate::frame::{AGAIN, GAP, GAP_BODY, HEADER_LEN, Header, body_max, frame_len};
use crate::link::inline::is_over;
use crate::link::{Blank, Ending, Link, Outgoing};
use crate::mirror::{Ring, View};
use crate::options::{Kind, Options, Overflow};
use crate::session::{End, Headers, Sending, Session, Unacknowledged};

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// One who has credit.
    Queue,
    /// Everybody, when all have room.
    Block,
    /// Everybody who has room.
    Overwrite,
}

/// See the module.
#[derive(Debug)]
pub struct Spread {
    crowd: Crowd<Sending, Hand>,
    policy: Policy,
    queue: Ring,
    /// What lies in the queue: everything below `head` was handed on.
    head: u64,
    tail: u64,
    estates: VecDeque<Estate>,
    /// Whose turn it is.
    turn: usize,
    /// Who has moved: kept to allocate nothing.
    moved: Vec<usize>,
}

/// What is kept with a receiver.
#[derive(Debug, Default)]
struct Hand {
    /// Messages that were left out since the last that was not.
    missed: u64,
    /// It was given something that was not sent yet.
    given: bool,
}

/// What a receiver left behind.
#[derive(Debug)]
struct Estate {
    connection: Connection<Sending, Joint>,
    at: u64,
    end: u64,
}

/// A frame to hand on.
#[derive(Clone, Copy, Debug)]
struct Given {
    view: View,
    at: u64,
    len: u32,
    flags: u8,
}

impl Spread {
    /// Binds. Allocates.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        check(options)?;
        let policy = match (options.kind, options.overflow) {
            (Kind::Broadcast, Overflow::Block) => Policy::Block,
            (Kind::Broadcast, Overflow::Overwrite) => Policy::Overwrite,
            (Kind::Mpmc | Kind::Pair, _) => Policy::Queue,
        };
        Ok(Self {
            crowd: Crowd::open(options)?,
            policy,
            queue: Ring::new(options.capacity)?,
            head: 0,
            tail: 0,
            estates: VecDeque::new(),
            turn: 0,
            moved: Vec::new(),
        })
    }

    /// Hands on what can be, and sends it.
    fn hand_on(&mut self) {
        while let Some(frame) = self.next_frame() {
            let handed = match self.policy {
                Policy::Queue => self.give_to_one(frame),
                Policy::Block => self.give_to_all(frame, true),
                Policy::Overwrite => self.give_to_all(frame, false),
            };
            if !handed {
                break;
            }
            self.advance(frame_len(frame.len));
        }
        self.crowd.queued = self.tail - self.head;
        for (_, member) in self.crowd.members_mut() {
            if std::mem::take(&mut member.keep.given) {
                member.connection.push();
            }
        }
    }

    /// What is to be handed on next: first what was handed on before.
    fn next_frame(&self) -> Option<Given> {
        let (view, at, again) = match self.estates.front() {
            Some(estate) => (estate.connection.ring.view(), estate.at, true),
            None if self.head < self.tail => (self.queue.view(), self.head, false),
            None => return None,
        };
        let Header { len, flags, .. } = Header::from_bytes(view.header(at));
        Some(Given { view, at, len, flags: if again { AGAIN } else { flags } })
    }

    fn advance(&mut self, bytes: u64) {
        let Some(estate) = self.estates.front_mut() else {
            self.head += bytes;
            return;
        };
        estate.at += bytes;
        if estate.at >= estate.end {
            self.estates.pop_front();
        }
    }

    /// To the next in turn who has credit. False: nobody has.
    fn give_to_one(&mut self, frame: Given) -> bool {
        let turn = self.turn;
        let size = frame_len(frame.len);
        let has_credit = |member: &Member<Sending, Hand>| {
            let session = &member.connection.session;
            takes(member)
                && session.is_up()
                && session.credit() >= size
                && has_room(session, frame.len)
        };
        let mut first = None;
        let mut next = None;
        for (number, member) in self.crowd.members() {
            if !has_credit(member) {
                continue;
            }
            if number >= turn {
                next = Some(number);
                break;
            }
            first = first.or(Some(number));
        }
        let Some(number) = next.or(first) else { return false };
        self.turn = number + 1;
        if let Some(member) = self.crowd.member(number) {
            copy(frame, member);
        }
        true
    }

    /// To everybody. False: somebody has no room, and is waited for.
    fn give_to_all(&mut self, frame: Given, waits: bool) -> bool {
        let lacks = |member: &Member<Sending, Hand>| {
            takes(member) && !has_room(&member.connection.session, frame.len)
        };
        if waits && self.crowd.members().any(|(_, member)| lacks(member)) {
            return false;
        }
        for (_, member) in self.crowd.members_mut() {
            if takes(member) {
                tell_missed(member);
                if member.keep.missed == 0 && has_room(&member.connection.session, frame.len) {
                    copy(frame, member);
                } else {
                    member.keep.missed += 1;
                }
            }
        }
        true
    }

    /// One look at everybody, and what it brought is made use of.
    fn look_around(&mut self) {
        self.crowd.look(&mut self.moved);
        let mut moved = std::mem::take(&mut self.moved);
        for number in moved.drain(..) {
            self.settle(number);
        }
        self.moved = moved;
        self.give_up();
        self.hand_on();
    }

    /// Who has moved may have ended, or have room for what it was not told.
    fn settle(&mut self, number: usize) {
        let Some(member) = self.crowd.member(number) else { return };
        tell_missed(member);
        let session = &mut member.connection.session;
        if is_over(session) {
            // Without a connection its last words were not heard, and never will be.
            if session.end().is_none() {
                session.give_up();
            }
            member.connection.push();
            member.connection.tend();
            self.crowd.tell_end(number);
        }
        if self.crowd.is_gone(number) {
            self.inherit(number);
        }
    }

    fn inherit(&mut self, number: usize) {
        let Some(Member { connection, .. }) = self.crowd.remove(number) else { return };
        let (at, end) = (connection.session.acknowledged(), connection.session.tail());
        if self.policy == Policy::Queue && at < end {
            self.estates.push_back(Estate { connection, at, end });
        }
    }

    /// Receivers without a connection for too long, if others wait for them or for what they have.
    fn give_up(&mut self) {
        let (now_ns, lasting_ns) = (self.crowd.now_ns(), self.crowd.options().timing.takeover_ns);
        let is_up = |member: &Member<Sending, Hand>| member.connection.session.is_up();
        if !self.crowd.members().any(|(_, member)| takes(member) && is_up(member)) {
            return;
        }
        let queue = self.policy == Policy::Queue;
        let stuck = self.next_frame().filter(|_| self.policy == Policy::Block);
        let mut given_up = None;
        for (number, member) in self.crowd.members_mut() {
            let lost = member.is_down_for(lasting_ns, now_ns);
            let session = &mut member.connection.session;
            let debts = session.acknowledged() < session.tail();
            let is_waited_for = stuck.is_some_and(|frame| !has_room(session, frame.len));
            if !member.told && lost && (queue && debts || is_waited_for) {
                session.give_up();
                given_up = Some(number);
            }
        }
        if let Some(number) = given_up {
            self.settle(number);
        }
    }

    /// Everything is with the receivers.
    fn is_handed_on(&self) -> bool {
        self.head == self.tail && self.estates.is_empty()
    }

    fn wait_until(
        &mut self,
        timeout: Option<Duration>,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let mode = self.crowd.options().wait;
        let look = |spread: &mut Self| {
            spread.look_around();
            done(spread)
        };
        wait(self, mode, timeout, look, |spread, limit| spread.crowd.sleep(limit))
    }

    /// Closes when `is_ready`, by `close`, in `timeout` in all.
    fn finish<T>(
        &mut self,
        timeout: Duration,
        is_ready: impl FnMut(&mut Self) -> bool,
        close: impl FnOnce(&mut Crowd<Sending, Hand>, Duration) -> T,
    ) -> T {
        let deadline = Instant::now().checked_add(timeout);
        self.wait_until(Some(timeout), is_ready);
        for (_, member) in self.crowd.members_mut() {
            tell_last_missed(member);
        }
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
        close(&mut self.crowd, left)
    }
}

/// Whether a receiver may be given anything.
fn takes(member: &Member<Sending, Hand>) -> bool {
    let session = &member.connection.session;
    !member.told && session.end().is_none() && !session.is_peer_closed()
}

/// Whether the ring has room for a message of that length, and for a gap behind it.
fn has_room(session: &Session<Sending>, len: u32) -> bool {
    session.room() >= frame_len(len) + frame_len(GAP_BODY)
}

/// The gap is told as soon as there is room for it.
fn tell_missed(member: &mut Member<Sending, Hand>) {
    if has_room(&member.connection.session, GAP_BODY) {
        write_missed(member);
    }
}

/// The gap is told though there may be no room for another behind it, which there will never be. For this one
/// there is: see [`has_room`].
fn tell_last_missed(member: &mut Member<Sending, Hand>) {
    if takes(member) && member.connection.session.check_room(GAP_BODY as usize).is_ok() {
        write_missed(member);
    }
}

fn write_missed(member: &mut Member<Sending, Hand>) {
    let missed = std::mem::take(&mut member.keep.missed);
    if missed > 0 {
        write(member, GAP_BODY, GAP, missed.to_le_bytes().as_ptr());
    }
}

/// Hands a frame on.
fn copy(frame: Given, member: &mut Member<Sending, Hand>) {
    let Given { view, at, len, flags } = frame;
    let body = view.span(at + HEADER_LEN as u64, len as usize).start;
    write(member, len, flags, body);
}

/// Commits a frame with a body of `len` bytes from `body`, for which the session has room.
fn write(member: &mut Member<Sending, Hand>, len: u32, flags: u8, body: *const u8) {
    let connection = &mut member.connection;
    let at = connection.session.tail();
    // Panics where there is no room: before anything is written.
    let header = Header::from_bytes(connection.session.commit(len as usize));
    let header = Header { flags, ..header };
    let size = frame_len(len) as usize;
    let to = connection.ring.span(at, size).start;
    // SAFETY: `size` bytes behind the tail of the member's ring, in room that `commit` has checked, so
    // nobody's but ours; and `len` bytes of a body, of a gap or of a frame in another ring that is not
    // given back before it was handed on.
    unsafe {
        to.cast::<[u8; HEADER_LEN]>().write(header.to_bytes());
        to.add(HEADER_LEN).copy_from_nonoverlapping(body, len as usize);
        let padding = size - HEADER_LEN - len as usize;
        to.add(HEADER_LEN + len as usize).write_bytes(0, padding);
    }
    member.keep.given = true;
}

impl Link for Spread {
    asks_the_crowd!();

    /// The slowest: who has most that it has not released.
    fn peer(&self) -> Option<Peer> {
        let behind = |member: &Member<Sending, Hand>| {
            let session = &member.connection.session;
            session.tail() - session.acknowledged()
        };
        let present = self.crowd.members().filter(|(_, member)| takes(member));
        let slowest = present.max_by_key(|(_, member)| behind(member));
        slowest.map(|(_, member)| member.peer)
    }

    fn close(&mut self, timeout: Duration) -> Option<Ending> {
        let queue = self.policy == Policy::Queue;
        // What a receiver leaves behind while all are closing could be handed to nobody.
        let is_ready = move |spread: &mut Self| {
            let mut members = spread.crowd.members();
            spread.is_handed_on()
                && !(queue
                    && members.any(|(_, Member { connection: Connection { session, .. }, .. })| {
                        session.acknowledged() < session.tail()
                    }))
        };
        let ended = self.finish(timeout, is_ready, Crowd::close);
        // Who was lost tells more of what was not released than who left.
        let lost = self.crowd.members().find_map(|(_, member)| {
            let end = member.connection.session.end();
            let peer = Some(member.peer);
            let is_lost = matches!(end, Some(End::Died(_)));
            is_lost.then_some(Ending { end, established: true, peer })
        });
        // Nobody may have come for what is still here.
        (ended && self.is_handed_on()).then(|| lost.unwrap_or(Ending::ALL_LEFT))
    }

    fn leave(&mut self, linger: Duration) {
        self.crowd.begin_to_leave();
        // What nobody but the dead could still be given is not waited for.
        let is_ready = |spread: &mut Self| {
            let mut there = spread.crowd.members().filter(|(_, member)| !member.told).peekable();
            spread.is_handed_on()
                || there.peek().is_some()
                    && there.all(|(_, member)| member.connection.is_forsaken())
        };
        self.finish(linger, is_ready, Crowd::leave);
    }
}

impl Outgoing for Spread {
    fn blank(&self) -> Blank {
        let view = self.queue.view();
        Blank { view, body_max: body_max(view.capacity() as u64 / 2) as usize }
    }

    fn publish(&mut self, tail: u64) -> u64 {
        self.tail = tail;
        self.hand_on();
        self.look()
    }

    fn free(&mut self) -> u64 {
        self.head
    }

    fn look(&mut self) -> u64 {
        self.look_around();
        self.head
    }

    fn wait(&mut self, until: u64, timeout: Option<Duration>) -> u64 {
        self.wait_until(timeout, |spread| spread.head >= until);
        self.head
    }

    /// Receivers come and go.
    fn is_over(&self) -> bool {
        false
    }

    fn start_over(&mut self, _tail: u64) -> Ending {
        Ending::ALL_LEFT
    }

    /// Of a queue, what nobody has released; of a broadcast, what the slowest has not.
    fn unacknowledged(&self, tail: u64) -> Unacknowledged {
        let queued = below(&self.queue.view(), self.head, tail);
        let left = self.estates.iter();
        let left = left.map(|estate| below(&estate.connection.ring.view(), estate.at, estate.end));
        let members = self.crowd.members().filter(|(_, member)| !member.told);
        let with = members.map(|(_, Member { connection, .. })| {
            connection.session.unacknowledged(&*connection.ring)
        });
        let behind = match self.policy {
            Policy::Queue => with.chain(left).fold(Unacknowledged::default(), add),
            _ => with.max_by_key(|sum| sum.messages).unwrap_or_default(),
        };
        add(queued, behind)
    }

    fn unsent(&self, tail: u64) -> u64 {
        let members = self.crowd.members().map(|(_, member)| {
            let session = &member.connection.session;
            session.unsent_below(session.tail())
        });
        (tail - self.head) + members.sum::<u64>()
    }
}

fn add(one: Unacknowledged, other: Unacknowledged) -> Unacknowledged {
    let (messages, bytes) = (one.messages + other.messages, one.bytes + other.bytes);
    Unacknowledged { messages, bytes }
}

/// Messages from a frame on, up to another.
fn below(view: &View, mut at: u64, end: u64) -> Unacknowledged {
    let mut sum = Unacknowledged::default();
    while at < end {
        let Header { len, flags, .. } = Header::from_bytes(view.header(at));
        at += frame_len(len);
        if flags != GAP {
            sum = add(sum, Unacknowledged { messages: 1, bytes: u64::from(len) });
        }
    }
    sum
}

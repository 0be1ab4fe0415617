//! Many senders to one bound receiver: the messages of each in order, the senders in turns.
//!
//! A turn is what a sender has there, up to 64 KiB; then it is the next one's who has something.
//! Before each turn everybody's socket is looked at that has news, once. So a sender that floods fills its
//! own ring and waits for its next turn, which comes when each of the others has had one.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Crowd, check, wait};
use crate::connection::Peer;
use crate::error::Error;
use crate::frame::{Header, frame_len};
use crate::link::inline::is_complete;
use crate::link::{Desk, Ending, Incoming, Link};
use crate::mirror::Ring;
use crate::options::Options;
use crate::session::{Headers, MIN_CAPACITY, Receiving};

/// Bytes of a turn: a sender that is alone loses nothing by such turns, and of a thousand that flood each
/// waits for some 60 MB, which is 10 ms.
const TURN: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Fan {
    crowd: Crowd<Receiving, Read>,
    /// Whose turn it is.
    current: Option<usize>,
    /// Who has something to read.
    waiting: VecDeque<usize>,
    /// Whose bytes came: kept to allocate nothing.
    moved: Vec<usize>,
    until_last: bool,
    /// How many had come when the last end was told.
    joins_told: u64,
    /// What is read when there is nobody.
    empty: Ring,
}

/// How far one sender was read.
#[derive(Debug, Default)]
struct Read {
    taken: u64,
    messages: u64,
    /// At whose release enough has come together for an acknowledgement.
    mark: u64,
    /// It is among those who wait.
    waits: bool,
}

impl Fan {
    /// Binds. Allocates.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        check(options)?;
        Ok(Self {
            crowd: Crowd::open(options)?,
            current: None,
            waiting: VecDeque::new(),
            moved: Vec::new(),
            until_last: options.until_last,
            joins_told: 0,
            empty: Ring::new(MIN_CAPACITY)?,
        })
    }

    /// The turn ends: what was read is noted, and who has more waits for the next.
    fn put_back(&mut self, desk: &Desk) {
        let Some(number) = self.current.take() else { return };
        let Some(member) = self.crowd.member(number) else { return };
        (member.keep.taken, member.keep.messages) = (desk.taken, desk.messages);
        self.queue(number);
    }

    /// Has a member wait for its turn, if it has something to read; one that has ended and was read is
    /// told as gone, and forgotten when its connection is closed.
    fn queue(&mut self, number: usize) {
        let Some(member) = self.crowd.member(number) else { return };
        let session = &member.connection.session;
        if member.keep.taken < session.received() {
            if !std::mem::replace(&mut member.keep.waits, true) {
                self.waiting.push_back(number);
            }
            return;
        }
        if is_complete(session) {
            self.crowd.tell_end(number);
            // The answer to its last word, and the rest.
            if let Some(member) = self.crowd.member(number) {
                member.connection.push();
                member.connection.tend();
            }
        }
        if self.crowd.is_gone(number) {
            self.crowd.remove(number);
        }
    }

    /// The next turn, if somebody has something to read.
    fn take_next(&mut self, desk: &mut Desk) {
        let Some(number) = self.waiting.pop_front() else {
            *desk = Desk::new(self.empty.view());
            return;
        };
        let Some(member) = self.crowd.member(number) else { return };
        member.keep.waits = false;
        self.current = Some(number);
        let view = member.connection.ring.view();
        let (taken, messages) = (member.keep.taken, member.keep.messages);
        let end = member.connection.session.received();
        // Whole frames, the first of them in any case.
        let mut received = taken;
        while received < end && received < taken + TURN {
            received += frame_len(Header::from_bytes(view.header(received)).len);
        }
        *desk = Desk { view, taken, released: taken, received, messages };
    }

    /// One look at everybody, without ending a turn.
    fn look_around(&mut self) {
        self.crowd.look(&mut self.moved);
        let mut moved = std::mem::take(&mut self.moved);
        for number in moved.drain(..) {
            if self.current != Some(number) {
                self.queue(number);
            }
        }
        self.moved = moved;
    }

    fn is_deserted(&self) -> bool {
        self.until_last && self.crowd.joins() > self.joins_told && self.crowd.present() == 0
    }
}

impl Link for Fan {
    asks_the_crowd!();

    /// Whose messages are being read.
    fn peer(&self) -> Option<Peer> {
        let (_, member) = self.crowd.members().find(|(number, _)| Some(*number) == self.current)?;
        Some(member.peer)
    }

    fn close(&mut self, timeout: Duration) -> Option<Ending> {
        self.crowd.close(timeout).then_some(Ending::ALL_LEFT)
    }

    fn leave(&mut self, linger: Duration) {
        self.crowd.leave(linger);
    }
}

impl Incoming for Fan {
    fn desk(&self) -> Desk {
        Desk::new(self.empty.view())
    }

    #[inline(always)]
    fn release(&mut self, desk: &Desk) {
        let Some(number) = self.current else { return };
        let Some(member) = self.crowd.member(number) else { return };
        let connection = &mut member.connection;
        connection.session.handle_released(desk.taken);
        if desk.taken >= member.keep.mark {
            member.keep.mark = desk.taken + connection.ring.capacity() as u64 / 8;
            connection.push();
        }
    }

    fn look(&mut self, desk: &mut Desk) {
        self.put_back(desk);
        self.look_around();
        self.take_next(desk);
    }

    fn wait(&mut self, desk: &mut Desk, timeout: Option<Duration>) {
        let mode = self.crowd.options().wait;
        let done = |fan: &mut Self| {
            fan.look_around();
            !fan.waiting.is_empty() || fan.is_deserted()
        };
        wait(self, mode, timeout, done, |fan, limit| fan.crowd.sleep(limit));
        self.take_next(desk);
    }

    fn is_over(&mut self, desk: &mut Desk) -> bool {
        desk.is_empty() && self.is_deserted()
    }

    fn acknowledge_end(&mut self, desk: &mut Desk) -> Ending {
        self.joins_told = self.crowd.joins();
        *desk = Desk::new(self.empty.view());
        Ending::ALL_LEFT
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Fan;
    use crate::clock;
    use crate::connection::testing;
    use crate::link::{Inline, Link};
    use crate::options::{Kind, Options, Side};
    use crate::receiver::{NetReceiver, RecvError};
    use crate::sender::NetSender;
    use crate::session::{Format, Sending};

    #[test]
    fn who_is_back_and_waits_is_not_given_up() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        (options.kind, options.side) = (Kind::Mpmc, Side::Bind);
        // There is nobody to whom a drop could say goodbye.
        options.linger = Duration::ZERO;
        let connect = Options { side: Side::Connect, ..options.clone() };
        // Less than the receiver's program is elsewhere.
        options.timing.resume_ns = 100_000_000;
        let mut fan = Fan::open(&options).unwrap();
        let port = fan.local_addr().unwrap().port();
        let connect = Options { port, ..connect };
        let mut tx = NetSender::with(Inline::<Sending, _>::open(&connect).unwrap(), &connect);
        let start = Instant::now();
        let until = |done: &mut dyn FnMut() -> bool| {
            while !done() {
                assert!(start.elapsed() < Duration::from_secs(30));
            }
        };
        until(&mut || {
            tx.flush().unwrap();
            fan.look_around();
            tx.peer().is_some()
        });
        let dialer = tx.link_mut().connection_mut();
        testing::part(dialer);
        let is_up =
            |fan: &Fan| fan.crowd.members().all(|(_, member)| member.connection.session.is_up());
        until(&mut || {
            fan.crowd.look(&mut Vec::new());
            !is_up(&fan)
        });
        let broken_ns = clock::coarse_ns();
        until(&mut || {
            dialer.tend();
            dialer.session.is_greeting()
        });
        until(&mut || clock::coarse_ns() > broken_ns + options.timing.resume_ns);
        fan.look_around();
        assert!(is_up(&fan));
        assert_eq!((fan.crowd.joins(), fan.crowd.stats().resumes), (1, 1));
    }

    #[test]
    fn who_has_closed_and_does_not_come_back_is_not_kept() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        (options.kind, options.side) = (Kind::Mpmc, Side::Bind);
        // As one may come back who has not closed.
        options.timing.resume_ns = 3_600_000_000_000;
        options.timing.takeover_ns = 1_000_000;
        let mut rx = NetReceiver::with(Fan::open(&options).unwrap(), &options);
        let port = rx.local_addr().unwrap().port();
        let mut tx = NetSender::open(&Options { side: Side::Connect, port, ..options }).unwrap();
        let start = Instant::now();
        let mut until = |done: &mut dyn FnMut(&mut NetReceiver<Fan>) -> bool| {
            while !done(&mut rx) {
                assert!(start.elapsed() < Duration::from_secs(30));
                assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
            }
        };
        until(&mut |rx| {
            tx.flush().unwrap();
            rx.link_mut().crowd.present() == 1
        });
        // Its last words are with this host, and no answer reaches it.
        drop(tx);
        until(&mut |rx| rx.link_mut().crowd.present() == 0);
        until(&mut |rx| rx.link_mut().crowd.members().count() == 0);
    }
}

//! Bytes between the ring and the backend: what may be sent is offered, what has come is taken in, and what
//! broke is told. Who is connected with whom is not decided here.

use super::{Connection, Trouble};
use crate::backend::{Backend, Errno, Kind};
use crate::connection::Inbox;
use crate::mirror::Span;

/// The most that fits one packet of segments on loopback, less a reserve: one byte more than 65483
/// and throughput halves.
const BATCH_SMALL: u64 = 65_400;
/// A rest that is sent along: a call of its own costs more than what it does to the packets. A message of
/// 64 KiB with its frame is one.
const CRUMB: u64 = 1 << 10;
/// From here on it does not matter any more.
const BATCH_LARGE: u64 = 256 << 10;
/// More at once gains nothing.
const BATCH_MOST: u64 = 1 << 20;

impl<H: Inbox, B: Backend> Connection<H, B> {
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

    /// Has the ring begin at its front with `position`, if nothing is in it and nothing is on its way into it
    /// or out of it. Whether it does.
    pub(crate) fn begin_at(&mut self, position: u64) -> bool {
        let idle = [Kind::Send, Kind::Recv].iter().all(|kind| !self.backend.is_outstanding(*kind));
        let begins = idle && H::is_empty(&self.session, position);
        if begins {
            self.ring.begin_at(position);
        }
        begins
    }

    /// Hands what may be sent to the backend. Whether it has something.
    #[inline(always)]
    pub(super) fn offer(&mut self) -> bool {
        if self.backend.is_outstanding(Kind::Send) {
            return true;
        }
        let transmit = self.session.poll_transmit(&*self.ring, self.now_ns);
        let span = if transmit.control.is_empty() {
            let data = transmit.data;
            let len = match data.end - data.start {
                0 => return false,
                len if len <= BATCH_SMALL + CRUMB => len,
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
    pub(super) fn want(&mut self) {
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
    pub(super) fn reap(&mut self) -> bool {
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
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::time::{Duration, Instant};

    use crate::backend::{Backend, Completion, Kind, Leak, Watch};
    use crate::connection::testing;
    use crate::fork::OwnSocket;
    use crate::frame::{self, Header};
    use crate::link::Inline;
    use crate::mirror::Span;
    use crate::options::{Options, Wait};
    use crate::receiver::RecvError;
    use crate::session::{Direction, End, Format, Greeting, Name, Receiving, Verdict};

    /// Far beyond what the slowest machine needs; so long does a flood last.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Takes whatever is sent, and whenever something is received it is the same frame.
    struct Flood {
        socket: OwnSocket,
        frame: Header,
        until: Instant,
        sent: Option<usize>,
        room: Option<Span>,
        came: bool,
    }

    impl Flood {
        fn new() -> Self {
            let door = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(door.local_addr().unwrap()).unwrap();
            let socket = OwnSocket::open(|| Ok::<_, Infallible>(OwnedFd::from(stream))).unwrap();
            let frame = Header::control(frame::Kind::Heartbeat, 0);
            let until = Instant::now() + PATIENCE;
            Self { socket, frame, until, sent: None, room: None, came: false }
        }
    }

    impl Backend for Flood {
        fn name(&self) -> &'static str {
            "flood"
        }
        fn attach(&mut self, _socket: OwnSocket) {}
        fn socket(&self) -> Option<BorrowedFd<'_>> {
            Some(self.socket.as_fd())
        }
        fn detach(&mut self) -> Result<Option<OwnSocket>, Leak> {
            Ok(None)
        }
        unsafe fn submit(&mut self, kind: Kind, span: Span) {
            match kind {
                Kind::Send => self.sent = Some(span.len),
                Kind::Recv => self.room = Some(span),
            }
        }
        fn is_outstanding(&self, kind: Kind) -> bool {
            match kind {
                Kind::Send => self.sent.is_some(),
                Kind::Recv => self.room.is_some(),
            }
        }
        fn recall(&mut self, kind: Kind) -> bool {
            match kind {
                Kind::Send => self.sent = None,
                Kind::Recv => self.room = None,
            }
            true
        }
        fn turn(&mut self) {
            self.came = Instant::now() < self.until;
        }
        fn complete(&mut self) -> Option<Completion> {
            if let Some(len) = self.sent.take() {
                return Some(Completion { kind: Kind::Send, result: Ok(len) });
            }
            let span = self.room.filter(|_| std::mem::take(&mut self.came))?;
            self.room = None;
            let bytes = self.frame.to_bytes();
            assert!(bytes.len() <= span.len);
            // SAFETY: submitted to be received into, and long enough.
            unsafe { span.start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            Some(Completion { kind: Kind::Recv, result: Ok(bytes.len()) })
        }
        fn park(&mut self, _timeout: Duration) {}
        fn watch(&mut self, _fd: BorrowedFd<'_>, _what: Watch) {}
    }

    /// A receiver whose peer sends heartbeats without end.
    fn flooded(wait: Wait) -> Inline<Receiving, Flood> {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let options = Options { wait, ..Options::new("127.0.0.1", 0, "ticks", 7, format) };
        let mut link = testing::end::<Receiving, _>(&options, Flood::new()).unwrap();
        let hello = Greeting {
            direction: Direction::Sends,
            format,
            session: [1; 16],
            epoch: 1,
            schema: 7,
            position: 0,
            released: 0,
            window: 0,
            body_max: 1000,
            fresh: true,
            name: Name::new("ticks").unwrap(),
        };
        let it = link.connection_mut();
        let verdict = it.session.handle_hello(&hello, &*it.ring, it.now_ns);
        assert_eq!(verdict, Verdict::Welcome);
        it.push();
        link
    }

    #[test]
    fn a_sleep_leaves_nothing_unsent_that_the_kernel_would_take() {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        // There is no socket that a drop could see closed.
        options.linger = Duration::ZERO;
        // A stream that takes all of it, and one that refuses what is beyond.
        for room in [1 << 20, 100_000] {
            let (mut tx, mut rx) = testing::ends(&options).unwrap();
            assert!(testing::join(&mut tx, &mut rx, room));
            while !tx.link_mut().connection_mut().session.is_up() {
                tx.flush().unwrap();
                assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
            }
            tx.try_claim(220_000).unwrap().queue().unwrap();
            let it = tx.link_mut().connection_mut();
            it.session.handle_committed(frame::frame_len(220_000));
            it.park(PATIENCE);
            let sent = room.min(it.session.tail() as usize);
            assert_eq!((it.backend.parks(), it.backend.in_flight()), (1, sent));
        }
    }

    #[test]
    fn a_flood_does_not_keep_a_wait_beyond_its_time() {
        for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
            let mut link = flooded(wait);
            let it = link.connection_mut();
            let start = Instant::now();
            assert!(!it.wait(Some(Duration::from_millis(1)), |it| it.session.received() > 0));
            assert!(start.elapsed() < PATIENCE, "{wait:?}");
            assert!(it.bytes_received > 0 && it.session.is_up());
        }
    }

    #[test]
    fn a_flood_does_not_keep_a_close_beyond_its_time() {
        for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
            let mut link = flooded(wait);
            let it = link.connection_mut();
            it.session.close();
            it.push();
            it.backend.frame = Header::control(frame::Kind::FinAck, 0);
            assert!(it.pull());
            assert_eq!(it.session.end(), Some(End::Closed));
            // What comes now is read and dropped, until the peer has closed.
            let start = Instant::now();
            assert!(it.close(Duration::from_millis(1)));
            assert!(start.elapsed() < PATIENCE, "{wait:?}");
        }
    }
}

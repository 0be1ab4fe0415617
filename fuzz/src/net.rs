//! An end of a session with its ring on the heap, for the targets that play the peer.

use std::cell::RefCell;

use ringway_net::frame::{HEADER_LEN, Header, Kind, frame_len};
use ringway_net::session::{
    CONTROL_ROOM, Config, Direction, Format, Greeting, Half, Headers, Name, Receiving, Sending,
    Session, Side, Timing,
};

/// Bytes of a ring.
pub const CAPACITY: u64 = 4096;
const SESSION: [u8; 16] = [5; 16];

/// What a well-behaved peer says.
pub fn greeting(direction: Direction, epoch: u64, position: u64) -> Greeting {
    let receives = direction == Direction::Receives;
    Greeting {
        direction,
        format: Format { endian: 1, pointer: 4, align: 8 },
        session: SESSION,
        epoch,
        schema: 7,
        position,
        released: if receives { position } else { 0 },
        window: if receives { CAPACITY - CONTROL_ROOM } else { 0 },
        body_max: if receives { 0 } else { 2032 },
        fresh: epoch == 1,
        name: Name::new("fuzz").expect("it is short"),
    }
}

/// Bytes at `position mod CAPACITY`, and what the session must not ask for.
pub struct Ring {
    bytes: Vec<u8>,
    /// Headers may be read from here up to there.
    kept: RefCell<std::ops::Range<u64>>,
}

impl Ring {
    fn write(&mut self, position: u64, bytes: &[u8]) {
        for (at, byte) in (position..).zip(bytes) {
            self.bytes[(at % CAPACITY) as usize] = *byte;
        }
    }

    fn read(&self, from: u64, to: u64) -> Vec<u8> {
        assert!(from <= to && to - from <= CAPACITY);
        (from..to).map(|at| self.bytes[(at % CAPACITY) as usize]).collect()
    }
}

impl Headers for Ring {
    fn header(&self, position: u64) -> [u8; HEADER_LEN] {
        assert!(position.is_multiple_of(16), "a header at {position}");
        assert!(
            self.kept.borrow().contains(&position),
            "a header at {position} of {:?}",
            self.kept
        );
        let bytes = self.read(position, position + HEADER_LEN as u64);
        bytes.try_into().expect("as many")
    }
}

/// One end.
pub struct End<H> {
    /// The session.
    pub session: Session<H>,
    /// Its ring.
    pub ring: Ring,
    /// What was checked last: never to go back.
    low: u64,
    high: u64,
}

/// The sending end.
pub type Sender = End<Sending>;
/// The receiving end.
pub type Receiver = End<Receiving>;

/// What the halves do differently.
pub trait Feed {
    /// Bytes come.
    fn feed(&mut self, bytes: &[u8]);
    /// What must hold.
    fn check(&mut self);
    /// What an honest peer would say of itself in a greeting: its position, what it released.
    fn peer_position(&self) -> (u64, u64);
}

impl<H: Half> End<H> {
    /// One that waits.
    pub fn binder() -> Self {
        Self::new(Side::Binder)
    }

    /// One that dials.
    pub fn connector() -> Self {
        Self::new(Side::Connector { session: SESSION, seed: 1 })
    }

    fn new(side: Side) -> Self {
        let session = Session::new(Config {
            side,
            name: Name::new("fuzz").expect("it is short"),
            format: Format { endian: 1, pointer: 4, align: 8 },
            schema: 7,
            capacity: CAPACITY,
            timing: Timing::default(),
        });
        let session = session.expect("the options are good");
        let ring = Ring { bytes: vec![0; CAPACITY as usize], kept: RefCell::new(0..0) };
        Self { session, ring, low: 0, high: 0 }
    }

    /// Takes up to `most` bytes that are to be sent.
    pub fn take(&mut self, most: usize) -> usize {
        let transmit = self.session.poll_transmit(&self.ring, 0);
        assert!(transmit.control.len() <= 512 && transmit.data.start <= transmit.data.end);
        assert!(transmit.data.end - transmit.data.start <= CAPACITY);
        let len = transmit.len().min(most);
        self.session.handle_sent(len, 0);
        len
    }
}

impl End<Sending> {
    /// Commits a message of that length, for which there is room.
    pub fn put(&mut self, len: usize) {
        let at = self.session.tail();
        let header = self.session.commit(len);
        let mut frame = header.to_vec();
        // Headers of nobody, where an inattentive sender would look for one.
        let forged = Header::data(0, at + 16).to_bytes();
        frame.extend(forged.iter().cycle().take(len));
        frame.resize(frame_len(len as u32) as usize, 0);
        self.ring.write(at, &frame);
        *self.ring.kept.borrow_mut() = self.session.acknowledged()..self.session.tail();
    }
}

impl Feed for End<Sending> {
    fn feed(&mut self, bytes: &[u8]) {
        self.session.handle_received(bytes, &self.ring, 0);
        *self.ring.kept.borrow_mut() = self.session.acknowledged()..self.session.tail();
    }

    fn check(&mut self) {
        let (acknowledged, tail) = (self.session.acknowledged(), self.session.tail());
        assert!(
            self.low <= acknowledged && acknowledged <= tail && tail - acknowledged <= CAPACITY
        );
        self.low = acknowledged;
        *self.ring.kept.borrow_mut() = acknowledged..tail;
        let left = self.session.unacknowledged(&self.ring);
        assert!(left.messages * 16 + left.bytes <= CAPACITY);
    }

    fn peer_position(&self) -> (u64, u64) {
        let acknowledged = self.session.acknowledged();
        (acknowledged, acknowledged)
    }
}

impl End<Receiving> {
    /// The header of the frame at `at`, which was received whole.
    pub fn sound(&self, at: u64) -> Header {
        let bytes = self.ring.read(at, at + HEADER_LEN as u64);
        let header = Header::from_bytes(bytes.try_into().expect("as many"));
        assert_eq!((header.kind, header.seq), (Kind::Data as u8, at));
        assert!(at + frame_len(header.len) <= self.session.received());
        header
    }
}

impl Feed for End<Receiving> {
    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (start, free) = (self.session.received(), self.session.free());
            let (front, back) = rest.split_at(rest.len().min((free.end - free.start) as usize));
            assert!(!front.is_empty(), "no room for a control frame");
            self.ring.write(free.start, front);
            let mut tail = self.ring.read(start, free.start + front.len() as u64);
            self.session.handle_received(&mut tail, 0);
            self.ring.write(start, &tail);
            rest = back;
        }
    }

    fn check(&mut self) {
        let (released, received) = (self.session.released(), self.session.received());
        assert!(self.low <= released && released <= received && self.high <= received);
        assert!(received - released <= CAPACITY - CONTROL_ROOM);
        (self.low, self.high) = (released, received);
        let mut at = released;
        while at < received {
            at += frame_len(self.sound(at).len);
        }
        assert_eq!(at, received);
    }

    fn peer_position(&self) -> (u64, u64) {
        (self.session.released(), 0)
    }
}

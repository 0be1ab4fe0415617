//! One end of a session with its ring and its application. The ring is as small as it says, and
//! what is overwritten too early is gone, so the checks of the messages find it.

use ringway_net::frame::{HEADER_LEN, Header, Kind, frame_len};
use ringway_net::session::{
    Config, End, Format, Half, Headers, Name, NoRoom, Receiving, Sending, Session, Side, Timing,
};

use super::rng::Rng;
use super::scripts::{Script, body};

pub const MS: u64 = 1_000_000;

pub fn config(side: Side, capacity: u64) -> Config {
    Config {
        side,
        name: Name::new("ticks").expect("it is short"),
        format: Format { endian: 1, pointer: 4, align: 8 },
        schema: 0x0123_4567_89ab_cdef,
        capacity,
        timing: Timing::default(),
    }
}

/// Bytes at `position mod capacity`.
pub struct Ring {
    bytes: Vec<u8>,
}

impl Ring {
    pub fn new(capacity: u64) -> Self {
        Self { bytes: vec![0; capacity as usize] }
    }

    pub fn write(&mut self, position: u64, bytes: &[u8]) {
        assert!(bytes.len() <= self.bytes.len());
        let at = (position % self.bytes.len() as u64) as usize;
        let front = bytes.len().min(self.bytes.len() - at);
        self.bytes[at..][..front].copy_from_slice(&bytes[..front]);
        self.bytes[..bytes.len() - front].copy_from_slice(&bytes[front..]);
    }

    pub fn read(&self, from: u64, to: u64) -> Vec<u8> {
        let len = (to - from) as usize;
        assert!(len <= self.bytes.len());
        let at = (from % self.bytes.len() as u64) as usize;
        let front = len.min(self.bytes.len() - at);
        [&self.bytes[at..][..front], &self.bytes[..len - front]].concat()
    }
}

impl Headers for Ring {
    fn header(&self, position: u64) -> [u8; HEADER_LEN] {
        assert!(position.is_multiple_of(16));
        self.read(position, position + HEADER_LEN as u64).try_into().expect("as many")
    }
}

/// What an end does for itself.
pub trait App {
    /// The other end.
    type Other;
    /// Takes in bytes from the connection.
    fn feed(&mut self, bytes: &[u8], now: u64);
    /// Bytes that may come at once.
    fn room(&self) -> usize;
    /// Sends or receives something, if it can. False: there is nothing to do, now.
    fn work(&mut self, rng: &mut Rng, script: &Script) -> bool;
    /// What must hold at any time.
    fn check(&self);
    /// What must hold when this end's session is over because the other was killed.
    fn survived(&mut self, dead: &Self::Other, script: &Script);
}

pub struct Node<H> {
    pub session: Session<H>,
    pub memory: Ring,
    pub capacity: u64,
    /// Messages sent, or received.
    pub count: u64,
    /// Messages of which the application was done.
    pub released: u64,
    /// Where the receiver reads.
    cursor: u64,
    pub closed: bool,
}

impl<H: Half> Node<H> {
    pub fn new(config: Config) -> Self {
        let capacity = config.capacity;
        let session = Session::new(config).expect("the options are good");
        let memory = Ring::new(capacity);
        Self { session, memory, capacity, count: 0, released: 0, cursor: 0, closed: false }
    }

    pub fn end(&self) -> Option<End> {
        self.session.end()
    }
}

impl App for Node<Sending> {
    type Other = Node<Receiving>;

    fn feed(&mut self, bytes: &[u8], now: u64) {
        self.session.handle_received(bytes, &self.memory, now);
    }

    fn room(&self) -> usize {
        512
    }

    fn work(&mut self, _rng: &mut Rng, script: &Script) -> bool {
        if self.closed || self.session.is_peer_closed() {
            return false;
        }
        if self.count == script.messages {
            self.closed = script.receiver_closes_after == u64::MAX || script.both_close;
            if self.closed {
                self.session.close();
            }
            return self.closed;
        }
        let len = (script.len)(self.count);
        match self.session.check_room(len) {
            Err(NoRoom::Full) => return false,
            Err(NoRoom::TooLarge { max }) => panic!("a script with {len} of {max} bytes"),
            Ok(()) => {}
        }
        let at = self.session.tail();
        let mut frame = body(self.count, len);
        let header = self.session.commit(len);
        frame.splice(..0, header);
        frame.resize(frame_len(len as u32) as usize, 0);
        self.memory.write(at, &frame);
        self.count += 1;
        true
    }

    fn check(&self) {
        let session = &self.session;
        assert!(session.acknowledged() <= session.tail());
        assert!(session.tail() - session.acknowledged() <= self.capacity, "more than the ring");
    }

    /// Acknowledged is what the application had, and the rest is counted.
    fn survived(&mut self, dead: &Node<Receiving>, _script: &Script) {
        let lost = self.session.unacknowledged(&self.memory).messages;
        assert!(self.count - lost <= dead.released, "acknowledged and never released");
        if self.end() == Some(End::Closed) {
            assert!(lost == 0 || self.session.is_peer_closed(), "{lost} lost without a word");
        }
    }
}

impl App for Node<Receiving> {
    type Other = Node<Sending>;

    fn feed(&mut self, bytes: &[u8], now: u64) {
        let (start, free) = (self.session.received(), self.session.free());
        assert!(bytes.len() as u64 <= free.end - free.start);
        self.memory.write(free.start, bytes);
        let mut tail = self.memory.read(start, free.start + bytes.len() as u64);
        self.session.handle_received(&mut tail, now);
        self.memory.write(start, &tail);
    }

    fn room(&self) -> usize {
        let free = self.session.free();
        (free.end - free.start) as usize
    }

    fn work(&mut self, rng: &mut Rng, script: &Script) -> bool {
        if self.closed {
            return false;
        }
        if self.count >= script.receiver_closes_after {
            self.session.handle_released(self.cursor);
            self.released = self.count;
            self.closed = true;
            self.session.close();
            return true;
        }
        if self.cursor == self.session.received() {
            let news = self.session.released() < self.cursor;
            self.session.handle_released(self.cursor);
            self.released = self.count;
            if news && rng.one_in(4) {
                self.session.acknowledge_now();
            }
            return news;
        }
        let header = Header::from_bytes(self.memory.header(self.cursor));
        let len = (script.len)(self.count);
        assert_eq!(header, Header::data(len as u32, self.cursor), "message {}", self.count);
        assert_eq!(header.kind, Kind::Data as u8);
        let from = self.cursor + HEADER_LEN as u64;
        assert_eq!(from % 16, 0);
        let found = self.memory.read(from, from + len as u64);
        assert_eq!(found, body(self.count, len), "message {}", self.count);
        self.cursor += frame_len(len as u32);
        self.count += 1;
        if self.count.is_multiple_of(script.hold) {
            self.session.handle_released(self.cursor);
            self.released = self.count;
        }
        true
    }

    fn check(&self) {
        let session = &self.session;
        let held = session.received() - session.released();
        assert!(held <= self.capacity - ringway_net::session::CONTROL_ROOM, "beyond the window");
        assert!(!session.free().is_empty(), "no room for a control frame");
    }

    /// What was received is still there to be read, and is what was sent.
    fn survived(&mut self, dead: &Node<Sending>, script: &Script) {
        while self.cursor < self.session.received() && self.work(&mut Rng::new(0), script) {}
        assert!(self.count <= dead.count);
    }
}

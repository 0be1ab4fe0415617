//! The two greetings and the refusal: what each side must know of the other before the first
//! message, and the words for what does not fit.
//!
//! ```text
//! hello and welcome: 224 bytes of body           refuse: 32 bytes of body
//!   0    8  magic      "RWAYNET\0"                 0   2  code
//!   8    2  major      1                           2   2  major      the binder's
//!  10    2  minor      0                           4   2  minor
//!  12    1  endian     1 little, 2 big             6   2  reserved   0
//!  13    1  pointer    bytes of an archived usize  8   8  mine       what the binder has
//!  14    1  align      of an archived u64         16   8  yours      what the hello said
//!  15    1  direction  1 sends, 2 receives        24   8  reserved   0
//!  16   16  session
//!  32    8  epoch
//!  40    8  schema
//!  48    8  position
//!  56    8  released
//!  64    8  window
//!  72    4  body_max
//!  76    1  fresh
//!  77    1  name_len
//!  78   18  reserved   0
//!  96  128  name       zero behind name_len
//! ```
//!
//! The header, magic, major and minor, and the refusal as a whole, keep their places in every
//! version to come: they are how two versions tell each other what is wrong.

use std::fmt;

use crate::frame::{CONTROL_MAX, GREETING_BODY, HEADER_LEN, Header, Kind, REFUSE_BODY};

/// First bytes of a greeting's body.
pub const MAGIC: [u8; 8] = *b"RWAYNET\0";
/// Versions with another major cannot talk to each other.
pub const MAJOR: u16 = 1;
/// Versions with another minor can.
pub const MINOR: u16 = 0;
/// Longest name of a channel, in bytes.
pub const NAME_MAX: usize = 128;
/// No position is as large: sums of positions and lengths stay far from 2^64.
pub const POSITION_MAX: u64 = 1 << 62;
/// No ring is larger.
pub const WINDOW_MAX: u64 = 1 << 32;

/// Which way the messages go, seen from one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// This end sends messages.
    Sends = 1,
    /// This end receives messages.
    Receives = 2,
}

/// How rkyv's archives look here. Messages are read where they lie, so both ends must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// 1 little, 2 big.
    pub endian: u8,
    /// Bytes of an archived `usize`.
    pub pointer: u8,
    /// `align_of` of an archived `u64`.
    pub align: u8,
}

impl Format {
    /// One number, for a refusal.
    fn code(self) -> u64 {
        u64::from_le_bytes([self.endian, self.pointer, self.align, 0, 0, 0, 0, 0])
    }
}

/// The name of a channel: up to [`NAME_MAX`] bytes, whatever they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    len: u8,
    bytes: [u8; NAME_MAX],
}

impl Name {
    /// `None` when it is too long.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; NAME_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { len: name.len() as u8, bytes })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A session's number, drawn by its connector. Who knows it may resume the session.
pub type SessionId = [u8; 16];

/// What a hello or a welcome says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Which way the messages go, seen from the writer of the greeting.
    pub direction: Direction,
    /// How its archives look.
    pub format: Format,
    /// Its session.
    pub session: SessionId,
    /// Counts the connector's attempts, from 1; the welcome repeats it.
    pub epoch: u64,
    /// Fingerprint of the messages' type.
    pub schema: u64,
    /// From a receiver: everything below was received whole. From a sender: everything below was
    /// acknowledged, and is gone.
    pub position: u64,
    /// From a receiver: everything below was released by its application. From a sender: 0.
    pub released: u64,
    /// From a receiver: how far beyond `released` it has room. From a sender: 0.
    pub window: u64,
    /// From a sender: the longest body that it may send. From a receiver: 0.
    pub body_max: u32,
    /// In a hello: no welcome of this session ever came, so a binder that does not know it may
    /// begin it. In a welcome: false.
    pub fresh: bool,
    /// The channel.
    pub name: Name,
}

/// Why a greeting was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingError {
    /// It is none. The connection is to be closed without a word.
    Garbage,
    /// It is one, and the answer is this.
    Refuse(Refusal),
}

impl Greeting {
    /// The whole frame.
    pub fn to_bytes(&self, kind: Kind) -> [u8; CONTROL_MAX] {
        let mut frame = [0; CONTROL_MAX];
        let (header, body) = frame.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&Header::control(kind, 0).to_bytes());
        body[0..8].copy_from_slice(&MAGIC);
        body[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        body[10..12].copy_from_slice(&MINOR.to_le_bytes());
        let Format { endian, pointer, align } = self.format;
        body[12..16].copy_from_slice(&[endian, pointer, align, self.direction as u8]);
        body[16..32].copy_from_slice(&self.session);
        body[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        body[40..48].copy_from_slice(&self.schema.to_le_bytes());
        body[48..56].copy_from_slice(&self.position.to_le_bytes());
        body[56..64].copy_from_slice(&self.released.to_le_bytes());
        body[64..72].copy_from_slice(&self.window.to_le_bytes());
        body[72..76].copy_from_slice(&self.body_max.to_le_bytes());
        body[76] = self.fresh.into();
        body[77] = self.name.len;
        body[96..].copy_from_slice(&self.name.bytes);
        frame
    }

    /// Reads a greeting of that kind from the front of what has come so far; `None`: not all of it
    /// has. Garbage and other versions are told apart as early as the bytes allow. A greeting is
    /// [`CONTROL_MAX`] bytes, and what follows them is not looked at.
    ///
    /// # Errors
    /// [`GreetingError`]. What it says is only checked in itself here; whether it fits is for the
    /// session to judge.
    pub fn read(kind: Kind, bytes: &[u8]) -> Result<Option<Self>, GreetingError> {
        // So a stranger who sends a line of text and waits is known for one at once.
        let expected = [kind as u8, 0, 0, 0];
        let seen = bytes.len().clamp(4, 8);
        if bytes.len() > 4 && bytes[4..seen] != expected[..seen - 4] {
            return Err(GreetingError::Garbage);
        }
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let seen = body.len().min(MAGIC.len());
        if body[..seen] != MAGIC[..seen] {
            return Err(GreetingError::Garbage);
        }
        if body.len() < 12 {
            return Ok(None);
        }
        let short = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
        if short(8) != MAJOR {
            let version = |major: u16, minor: u16| u64::from(major) << 16 | u64::from(minor);
            let (mine, yours) = (version(MAJOR, MINOR), version(short(8), short(10)));
            return Err(GreetingError::Refuse(Refusal::new(RefuseCode::Version, mine, yours)));
        }
        if Header::from_bytes(*header) != Header::control(kind, 0) {
            return Err(GreetingError::Garbage);
        }
        let Some(body) = body.first_chunk::<{ GREETING_BODY as usize }>() else { return Ok(None) };
        Self::from_body(body).map(Some).ok_or(GreetingError::Garbage)
    }

    fn from_body(body: &[u8; GREETING_BODY as usize]) -> Option<Self> {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&body[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut session = [0; 16];
        session.copy_from_slice(&body[16..32]);
        let mut bytes = [0; NAME_MAX];
        bytes.copy_from_slice(&body[96..]);
        let name = Name { len: body[77], bytes };
        let rest = bytes.get(usize::from(name.len)..)?;
        let greeting = Self {
            direction: match body[15] {
                1 => Direction::Sends,
                2 => Direction::Receives,
                _ => return None,
            },
            format: Format { endian: body[12], pointer: body[13], align: body[14] },
            session,
            epoch: word(32),
            schema: word(40),
            position: word(48),
            released: word(56),
            window: word(64),
            body_max: word(72) as u32,
            fresh: match body[76] {
                0 => false,
                1 => true,
                _ => return None,
            },
            name,
        };
        let bounded = greeting.position < POSITION_MAX
            && greeting.released <= greeting.position
            && greeting.window <= WINDOW_MAX
            && greeting.epoch != 0
            && rest.iter().all(|byte| *byte == 0);
        bounded.then_some(greeting)
    }
}

/// Why a binder will not talk, and the two values that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Which.
    pub code: RefuseCode,
    /// What the binder has.
    pub mine: u64,
    /// What the connector said.
    pub yours: u64,
}

/// The reasons, with their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum RefuseCode {
    /// Another major version of the protocol; the values are `major << 16 | minor`.
    Version = 1,
    /// Archives look different; the values are endianness, pointer width and alignment, one byte
    /// each, the first lowest.
    Format = 2,
    /// Another type of message; the values are the fingerprints.
    Schema = 3,
    /// Both ends send, or both receive; the values are directions.
    Direction = 4,
    /// No such channel here.
    Name = 5,
    /// The session is not known (any more).
    UnknownSession = 6,
    /// The epoch is not above the last one; the values are epochs.
    Epoch = 7,
    /// Another session is using the channel. The only one that may be different soon.
    Busy = 8,
    /// The sender's longest frame does not fit into the receiver's ring; the values are bytes.
    Window = 9,
    /// The positions contradict what this end knows.
    Position = 10,
}

impl RefuseCode {
    const ALL: [Self; 10] = [
        Self::Version,
        Self::Format,
        Self::Schema,
        Self::Direction,
        Self::Name,
        Self::UnknownSession,
        Self::Epoch,
        Self::Busy,
        Self::Window,
        Self::Position,
    ];
}

impl Refusal {
    /// Bytes of the frame.
    pub const LEN: usize = HEADER_LEN + REFUSE_BODY as usize;

    pub(crate) const fn new(code: RefuseCode, mine: u64, yours: u64) -> Self {
        Self { code, mine, yours }
    }

    pub(crate) fn format(mine: Format, yours: Format) -> Self {
        Self::new(RefuseCode::Format, mine.code(), yours.code())
    }

    /// The whole frame, to be written to the connection that is refused, before it is closed.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut frame = [0; Self::LEN];
        let (header, body) = frame.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&Header::control(Kind::Refuse, 0).to_bytes());
        body[0..2].copy_from_slice(&(self.code as u16).to_le_bytes());
        body[2..4].copy_from_slice(&MAJOR.to_le_bytes());
        body[4..6].copy_from_slice(&MINOR.to_le_bytes());
        body[8..16].copy_from_slice(&self.mine.to_le_bytes());
        body[16..24].copy_from_slice(&self.yours.to_le_bytes());
        frame
    }

    /// From the body of a frame of that kind; `None`: a reason that this version does not know.
    pub(crate) fn from_body(body: &[u8]) -> Option<Self> {
        let body = body.first_chunk::<{ REFUSE_BODY as usize }>()?;
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&body[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let number = u16::from_le_bytes([body[0], body[1]]);
        let code = RefuseCode::ALL.into_iter().find(|code| *code as u16 == number)?;
        Some(Self::new(code, word(8), word(16)))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mine, yours, .. } = self;
        match self.code {
            RefuseCode::Version => write!(
                f,
                "the binding side speaks version {}.{} of the protocol, the connecting side {}.{}",
                mine >> 16,
                mine & 0xffff,
                yours >> 16,
                yours & 0xffff
            ),
            RefuseCode::Format => write!(
                f,
                "archives differ: {} on the binding side, {} on the connecting side",
                ShownFormat(*mine),
                ShownFormat(*yours)
            ),
            RefuseCode::Schema => write!(
                f,
                "messages differ: fingerprint {mine:016x} on the binding side, {yours:016x} on the \
                 connecting side"
            ),
            RefuseCode::Direction => f.write_str(match yours {
                1 => "both sides send",
                _ => "both sides receive",
            }),
            RefuseCode::Name => f.write_str("the binding side has no channel of that name"),
            RefuseCode::UnknownSession => f.write_str(
                "the binding side does not know the session; it was restarted, or gave up",
            ),
            RefuseCode::Epoch => write!(
                f,
                "the session has another connection (epoch {mine}, and this one is {yours}); was \
                 the process cloned?"
            ),
            RefuseCode::Busy => f.write_str("another peer is using the channel"),
            RefuseCode::Window => write!(
                f,
                "the sender's longest frame does not fit into the receiver's ring (the binding \
                 side has {mine} bytes, the connecting side {yours}); give both the same `capacity`"
            ),
            RefuseCode::Position => write!(
                f,
                "the sides contradict each other on how far the session got (position {mine} on \
                 the binding side, {yours} on the connecting side)"
            ),
        }
    }
}

struct ShownFormat(u64);

impl fmt::Display for ShownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [endian, pointer, align, ..] = self.0.to_le_bytes();
        let endian = if endian == 1 { "little-endian" } else { "big-endian" };
        write!(f, "{endian}, {}-bit pointers, u64 aligned to {align}", u32::from(pointer) * 8)
    }
}

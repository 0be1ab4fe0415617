//! Frames: a 16-byte header, a body, and padding to a multiple of 16 that `len` does not count.
//!
//! ```text
//! offset  bytes  field, little-endian
//!      0      4  len      bytes of the body
//!      4      1  kind     see `Kind`
//!      5      1  flags    data: 0, `AGAIN` or `GAP`; else 0
//!      6      2  stream   0 in version 1
//!      8      8  seq      data: the frame's position; control: a position too, `Kind` says of what
//!     16    len  body
//!            to a multiple of 16, zero
//! ```
//!
//! Everything is a multiple of 16, so in a page-aligned ring that is mapped twice every body is
//! contiguous and aligned. Nothing here touches memory that it was not handed; what a header says is
//! checked against bounds before anybody believes it.

use std::fmt;

/// Bytes of a header.
pub const HEADER_LEN: usize = 16;
/// What every frame begins at a multiple of, and is a multiple of.
pub const ALIGN: usize = 16;
/// Body bytes of the two greetings.
pub const GREETING_BODY: u32 = 224;
/// Body bytes of a refusal.
pub const REFUSE_BODY: u32 = 32;
/// Bytes of the longest control frame, header included.
pub const CONTROL_MAX: usize = HEADER_LEN + GREETING_BODY as usize;

/// Flag of a data frame: another receiver had this message and did not release it, so it may have been
/// acted upon.
pub const AGAIN: u8 = 1;
/// Flag of a data frame: its body is no message but the number (u64) of messages that were left out here,
/// because the receiver had no room for them.
pub const GAP: u8 = 2;
/// Body bytes of a gap.
pub const GAP_BODY: u32 = 8;

/// What a frame is. 0 is no kind, so that zeros are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A message. `seq` is the position of its first header byte in the session's stream.
    Data = 1,
    /// The connector's greeting, first on every connection. `seq` is 0.
    Hello = 2,
    /// The binder's answer, first on its way back. `seq` is 0.
    Welcome = 3,
    /// The binder's answer when it will not. Nothing follows. `seq` is 0.
    Refuse = 4,
    /// Receiver to sender: everything below `seq` was released by the application.
    Ack = 5,
    /// Sender to receiver, when there is nothing else to say: everything below `seq` is on its way
    /// before this.
    Heartbeat = 6,
    /// From a sender: the stream ends at `seq`, where it is now. From a receiver: it will release
    /// nothing beyond `seq`.
    Fin = 7,
    /// The answer: everything below `seq` was released (from a receiver), or nothing beyond `seq`
    /// will be sent (from a sender).
    FinAck = 8,
    /// The answer to that, and the last frame of a session: nothing is open any more.
    Bye = 9,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Data,
        Self::Hello,
        Self::Welcome,
        Self::Refuse,
        Self::Ack,
        Self::Heartbeat,
        Self::Fin,
        Self::FinAck,
        Self::Bye,
    ];

    /// The kind of that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).wrapping_sub(1)).copied()
    }

    /// Bytes of the body, of a kind that has always as many; `None` for data.
    pub const fn body_len(self) -> Option<u32> {
        match self {
            Self::Data => None,
            Self::Hello | Self::Welcome => Some(GREETING_BODY),
            Self::Refuse => Some(REFUSE_BODY),
            Self::Ack | Self::Heartbeat | Self::Fin | Self::FinAck | Self::Bye => Some(0),
        }
    }
}

/// A header as it lies in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub len: u32,
    /// The number of a [`Kind`], or of none.
    pub kind: u8,
    /// Of data: 0, [`AGAIN`] or [`GAP`]. Else 0.
    pub flags: u8,
    /// 0.
    pub stream: u16,
    /// A position.
    pub seq: u64,
}

impl Header {
    /// Of a message of `len` bytes at `position`.
    #[inline(always)]
    pub const fn data(len: u32, position: u64) -> Self {
        Self { len, kind: Kind::Data as u8, flags: 0, stream: 0, seq: position }
    }

    /// Of a control frame.
    pub const fn control(kind: Kind, seq: u64) -> Self {
        let len = match kind.body_len() {
            Some(len) => len,
            None => 0,
        };
        Self { len, kind: kind as u8, flags: 0, stream: 0, seq }
    }

    /// As bytes of the stream.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let word = self.len as u128
            | (self.kind as u128) << 32
            | (self.flags as u128) << 40
            | (self.stream as u128) << 48
            | (self.seq as u128) << 64;
        word.to_le_bytes()
    }

    /// Whatever these bytes say, unchecked.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        let word = u128::from_le_bytes(bytes);
        Self {
            len: word as u32,
            kind: (word >> 32) as u8,
            flags: (word >> 40) as u8,
            stream: (word >> 48) as u16,
            seq: (word >> 64) as u64,
        }
    }

    /// The same bytes as two words: all but the position, and the position.
    #[inline(always)]
    pub const fn words(bytes: [u8; HEADER_LEN]) -> (u64, u64) {
        let word = u128::from_le_bytes(bytes);
        (word as u64, (word >> 64) as u64)
    }

    /// The size of the whole frame, if it is a message, which a gap is not, and passes [`Self::check`].
    #[inline(always)]
    pub fn message_len(self, body_max: u32) -> Option<u64> {
        match self.check(body_max) {
            Ok((Kind::Data, len)) if self.flags != GAP => Some(len),
            _ => None,
        }
    }

    /// The kind and the size of the whole frame, if a peer of this version may have written this
    /// and its body is at most `body_max`.
    ///
    /// # Errors
    /// Which bound it breaks. The size of the frame is then unknown: what follows cannot be read.
    #[inline]
    pub fn check(self, body_max: u32) -> Result<(Kind, u64), FrameError> {
        let kind = Kind::from_byte(self.kind).ok_or(FrameError::Kind { kind: self.kind })?;
        let (len, max) = (self.len, kind.body_len().unwrap_or(body_max));
        if len > max || (kind != Kind::Data && len != max) {
            return Err(FrameError::Length { kind, len, max });
        }
        let is_legal = match self.flags {
            0 => true,
            AGAIN => kind == Kind::Data,
            GAP => kind == Kind::Data && len == GAP_BODY,
            _ => false,
        };
        if !is_legal || self.stream != 0 {
            return Err(FrameError::Reserved { flags: self.flags, stream: self.stream });
        }
        Ok((kind, frame_len(len)))
    }
}

/// Bytes that a frame with a body of `len` takes in the stream.
#[inline(always)]
pub const fn frame_len(len: u32) -> u64 {
    HEADER_LEN as u64 + (len as u64).next_multiple_of(ALIGN as u64)
}

/// The longest body whose frame has at most `bytes`.
pub const fn body_max(bytes: u64) -> u32 {
    let body = (bytes / ALIGN as u64 * ALIGN as u64).saturating_sub(HEADER_LEN as u64);
    let most = u32::MAX as u64 / ALIGN as u64 * ALIGN as u64;
    if body < most { body as u32 } else { most as u32 }
}

/// Why a header is no frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No such kind.
    #[error("a frame of the unknown kind {kind}")]
    Kind {
        /// Its number.
        kind: u8,
    },
    /// Longer than the session allows, or not as long as its kind is.
    #[error("a {kind} frame with a body of {len} bytes where {max} are allowed")]
    Length {
        /// What kind.
        kind: Kind,
        /// What it claims.
        len: u32,
        /// What is allowed.
        max: u32,
    },
    /// Flags that such a frame has not, or a stream, which is zero in this version.
    #[error("a frame with flags {flags:#04x} and stream {stream}, which mean nothing there")]
    Reserved {
        /// The flags.
        flags: u8,
        /// The stream.
        stream: u16,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Hello => "hello",
            Self::Welcome => "welcome",
            Self::Refuse => "refuse",
            Self::Ack => "ack",
            Self::Heartbeat => "heartbeat",
            Self::Fin => "fin",
            Self::FinAck => "fin-ack",
            Self::Bye => "bye",
        })
    }
}

//! The protocol: every message once and in order, over byte streams that break.
//!
//! A session does no I/O and reads no clock. Its owner opens and closes byte streams, moves bytes
//! between them and its rings, and passes the time in. Nothing here allocates.
//!
//! ```text
//!   poll_action    what to do about the connection: dial, hang up, shut down, wait until then
//!   handle_dialed  a connector's byte stream stands        handle_disconnected  it is gone
//!   handle_hello   a binder's byte stream said who it is
//!   poll_transmit  which bytes go next: control bytes, then a range of the send ring
//!   handle_sent    so many of them went
//!   handle_received  these bytes came
//! ```
//!
//! **Time** is in nanoseconds, from any start, and never goes back.
//!
//! **Positions** count the bytes of data frames since the session began, from 0. A frame's `seq` is
//! its position. Both rings have a byte at the offset `position mod capacity`, so a message lies
//! at the same place in each, if their capacities are equal.
//!
//! ```text
//!   send ring      acknowledged ≤ sent ≤ cleared ≤ tail ≤ acknowledged + capacity
//!                  └ kept for a resume ┘└ on its way ┘
//!                  cleared ≤ the receiver's released + its window: the credit
//!
//!   receive ring   released ≤ received ≤ released + window,  window = capacity - CONTROL_ROOM
//!                  └ whole frames ┘└ part of a frame, and room for more bytes
//! ```
//!
//! **Control frames have no position.** They come in the same byte stream as data and land in the
//! receive ring behind the whole frames; [`Session::handle_received`] takes them out and moves what
//! is behind them down. So data frames alone lie in the ring, where their positions say. A sender
//! says nothing but data while it has data, so in practice nothing is moved. Each byte is moved at
//! most once, however many control frames a hostile peer sends.
//!
//! **Credit guarantees room.** Data never goes beyond `window`, which is [`CONTROL_ROOM`] less than
//! the ring. So when every byte of credit is used, a control frame still fits behind, is taken out
//! and makes way for the next. Acknowledgements flow the other way and never wait for data: a
//! session with a full ring can still be told everything.
//!
//! **Control goes out at a frame boundary, ahead of data.** It is made when it leaves, out of the
//! state then, so the newest wins and nothing piles up. The sender's `cleared` is such a boundary:
//! data is offered up to there, and control is put between that and what is cleared next.
//!
//! **Behind the very first hello** a connector need not wait for the welcome: both sides know that the
//! stream begins at 0, and whoever welcomes it has room for one longest frame. So a first `send`
//! hands its message to the kernel. Later hellos are waited out: the welcome tells the position.
//!
//! ```text
//!          connector                                      binder
//!   ┌─▶ Down ── retry time ──▶ Dialing          ┌─▶ Down ◀────────────────┐
//!   │    ▲                        │ dialed      │    │ hello, welcomed     │
//!   │    │ gone                   ▼             │    ▼                     │
//!   │    ├──────────────────── Greeting         │   Up ── gone ────────────┘
//!   │    │ gone                   │ welcome     │
//!   │    └─────── Up ◀────────────┘             │   from everywhere: Ended
//!   └ from everywhere: Ended                    └
//! ```

mod backoff;
pub mod greeting;
mod machine;
mod receiving;
mod sending;

use std::fmt;
use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::frame::{CONTROL_MAX, FrameError, HEADER_LEN, Kind};

pub use greeting::{
    Direction, Format, Greeting, GreetingError, Name, Refusal, RefuseCode, SessionId,
};
pub use machine::{Half, Session};
pub use receiving::Receiving;
pub use sending::{NoRoom, Sending, Unacknowledged};

/// Bytes of a receive ring beyond the window: the longest control frame always fits.
pub const CONTROL_ROOM: u64 = CONTROL_MAX.next_power_of_two() as u64;
/// Least capacity of a ring: one page.
pub const MIN_CAPACITY: u64 = 4096;
/// Most capacity of a ring.
pub const MAX_CAPACITY: u64 = greeting::WINDOW_MAX;

/// Least of the times after which something is done again, `heartbeat_ns` and `retry_min_ns`: a millisecond. The
/// clock that ends look at moves no faster, and without any pause one look would never end.
pub const MIN_PAUSE_NS: u64 = 1_000_000;

const _: () = assert!(CONTROL_ROOM == 256 && CONTROL_ROOM as usize >= CONTROL_MAX + HEADER_LEN);

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This end dials, and dials again when the connection breaks. It draws the session's number.
    Connector {
        /// 128 random bits.
        session: SessionId,
        /// For the jitter of its back-off.
        seed: u64,
    },
    /// This end waits to be dialed.
    Binder,
}

/// What a session needs to know from the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who dials.
    pub side: Side,
    /// The channel.
    pub name: Name,
    /// How archives look here.
    pub format: Format,
    /// Fingerprint of the messages' type.
    pub schema: u64,
    /// Bytes of this end's ring: a power of two, from [`MIN_CAPACITY`] to [`MAX_CAPACITY`].
    pub capacity: u64,
    /// Timers.
    pub timing: Timing,
}

/// How long a session waits for what, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the start of a dial to its connection, and from the hello to the welcome; then the connector
    /// hangs up and tries again.
    pub handshake_ns: u64,
    /// From the break of a connection to the end of the session, unless it is resumed.
    pub resume_ns: u64,
    /// From the break of a connection to the moment when another peer may have the channel. A peer
    /// that lives is back in milliseconds; one that was restarted is somebody else.
    pub takeover_ns: u64,
    /// Least delay between two attempts, but the first. At least [`MIN_PAUSE_NS`].
    pub retry_min_ns: u64,
    /// Most. At least `retry_min_ns`.
    pub retry_max_ns: u64,
    /// This end says something at least so often, if its owner lets it. At least [`MIN_PAUSE_NS`].
    pub heartbeat_ns: u64,
    /// A peer that said nothing for so long is called stalled, which has no consequence.
    pub stalled_ns: u64,
    /// What was released is acknowledged after so long, if not enough comes together before.
    pub ack_delay_ns: u64,
}

impl Default for Timing {
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            handshake_ns: 5_000 * MS,
            resume_ns: 30_000 * MS,
            takeover_ns: 1_000 * MS,
            retry_min_ns: MS,
            retry_max_ns: 1_000 * MS,
            heartbeat_ns: 1_000 * MS,
            stalled_ns: 5_000 * MS,
            // An acknowledgement costs a packet, some 5 us on each side. Nobody waits for it but a
            // sender whose ring is full, and then an eighth of the ring brings it sooner.
            ack_delay_ns: MS,
        }
    }
}

impl Config {
    /// Checks what the caller can get wrong.
    ///
    /// # Errors
    /// [`ErrorKind::BadOption`] and [`ErrorKind::BadName`].
    pub fn check(&self) -> Result<(), Error> {
        let tried = || format!("open the channel {:?}", self.name);
        if self.name.as_bytes().is_empty() {
            let found = "the name is empty";
            return Err(Error::new(ErrorKind::BadName, tried(), found, "Give it one"));
        }
        let capacity = self.capacity;
        if !capacity.is_power_of_two() || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
            let found = format!("a ring cannot have {capacity} bytes");
            let remedy = "Use a power of two from 4KiB to 4GiB as `capacity`";
            return Err(Error::new(ErrorKind::BadOption, tried(), found, remedy));
        }
        let Timing { retry_min_ns, retry_max_ns, heartbeat_ns, .. } = self.timing;
        for (name, ns) in [("retry_min_ns", retry_min_ns), ("heartbeat_ns", heartbeat_ns)] {
            if ns < MIN_PAUSE_NS {
                let found = format!("{name}={ns} is less than a millisecond");
                let remedy = format!("Use {MIN_PAUSE_NS} or more as `timing.{name}`");
                return Err(Error::new(ErrorKind::BadOption, tried(), found, remedy));
            }
        }
        if retry_min_ns > retry_max_ns {
            let found = format!(
                "the least time between two attempts to connect, retry_min_ns={retry_min_ns}, is more than \
                 the most, retry_max_ns={retry_max_ns}"
            );
            let remedy = "Lower the one or raise the other; equal is fine";
            return Err(Error::new(ErrorKind::BadOption, tried(), found, remedy));
        }
        Ok(())
    }
}

/// Headers in the ring whose positions the session knows.
///
/// The session asks for positions that are multiples of 16, from the oldest byte kept up to one
/// header below the tail, and nothing else.
pub trait Headers {
    /// The 16 bytes at `position`.
    fn header(&self, position: u64) -> [u8; HEADER_LEN];
}

/// What the owner of a session is to do about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a byte stream to the peer, then [`Session::handle_dialed`], or
    /// [`Session::handle_disconnected`] when that failed. Said once per attempt.
    Dial,
    /// Close the connection, or give up the attempt, at once: stop sending and receiving, and then
    /// [`Session::handle_disconnected`]. Said until then.
    HangUp(HangUp),
    /// Everything is said. When [`Session::poll_transmit`] has nothing left: shut down the sending
    /// direction, read to the end and throw it away, close, [`Session::handle_disconnected`]. (To
    /// close with unread bytes would reset the connection, and the reset overtakes the last frame.)
    Shutdown {
        /// When to ask again at the latest: a peer that does not close gets no more time.
        until_ns: u64,
    },
    /// Nothing, until bytes come, or something is to be sent, or that time has come. `None`: no
    /// time is known.
    Wait {
        /// When to ask again at the latest.
        until_ns: Option<u64>,
    },
    /// Nothing, ever: the session has ended and has no connection. [`Session::end`] tells how.
    Done,
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HangUp {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(Violation),
    /// No welcome came in time.
    #[error("the peer did not answer the greeting in time")]
    Handshake,
    /// The binder will not, for the time being.
    #[error("{0}")]
    Refused(Refusal),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// What a peer did that the protocol does not allow. It costs the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header that is no frame's.
    #[error("{0}")]
    Frame(FrameError),
    /// A frame that has no place here.
    #[error("a {0} frame that has no place here")]
    Unexpected(Kind),
    /// A greeting that is none.
    #[error("a malformed greeting")]
    Greeting,
    /// A position that is not the one where the stream is.
    #[error("a {kind} frame at position {found} where the stream is at {expected}")]
    Position {
        /// What frame.
        kind: Kind,
        /// Where the stream is.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// Data beyond the room that was granted.
    #[error("data up to position {end} where room was granted up to {limit}")]
    Credit {
        /// The end of the frame.
        end: u64,
        /// The end of the room.
        limit: u64,
    },
    /// More messages left out than a session can have.
    #[error(
        "a gap of {missed} messages behind others of {before}, which is more than there can be"
    )]
    Gap {
        /// What it says.
        missed: u64,
        /// What those before it said in all.
        before: u64,
    },
    /// An acknowledgement that goes back, of what was never sent, or of half a frame.
    #[error("an acknowledgement of position {found}, outside of {low} to {high} or inside a frame")]
    Ack {
        /// What was acknowledged before.
        low: u64,
        /// What was sent.
        high: u64,
        /// What it says.
        found: u64,
    },
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// One side closed, and both know.
    Closed,
    /// The peer is gone for good. A sender's unacknowledged messages are lost: see
    /// [`Session::unacknowledged`].
    Died(Death),
}

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Death {
    /// The binder refused for good.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The connection broke and was not resumed in time.
    #[error("the connection broke and was not resumed in time")]
    ResumeDeadline,
    /// The connection broke, and another peer came for the channel.
    #[error("the connection broke, and another peer took the channel over")]
    Replaced,
}

/// What goes out next: first `control`, then the bytes of the send ring in `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The rest of the control bytes.
    pub control: &'a [u8],
    /// Positions in the send ring. Contiguous there: the ring is mapped twice.
    pub data: Range<u64>,
}

impl Transmit<'_> {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.control.len() + (self.data.end - self.data.start) as usize
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a binder is to do with a connection that said hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the session's now; the welcome is the first thing that [`Session::poll_transmit`]
    /// gives.
    Welcome,
    /// It replaces the session's connection. Close that first: stop sending and receiving, take in
    /// what it had received, [`Session::handle_disconnected`]; then ask again with the same hello.
    CloseFirst,
    /// Write this to it, and close it. The session and its connection are untouched.
    Refuse(Refusal),
}

/// What a session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Handshakes that succeeded.
    pub connections: u64,
    /// Of these, the ones that resumed the session.
    pub resumes: u64,
    /// Attempts that did not come to a handshake.
    pub failed_attempts: u64,
    /// Connections closed because the peer broke the protocol.
    pub violations: u64,
    /// Hellos refused.
    pub refusals: u64,
    /// Bytes of data sent again after a resume.
    pub resent_bytes: u64,
    /// Control frames sent.
    pub control_sent: u64,
    /// Control frames received.
    pub control_received: u64,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Died(death) => death.fmt(f),
        }
    }
}

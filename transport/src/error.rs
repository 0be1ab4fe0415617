//! The errors of the one API: what a medium reports, in words that fit them all.
//!
//! The enums of the verbs are small and never allocate; [`Error`] is for opening a channel.

use std::fmt;

use crate::address::AddressError;
use crate::cpu_latency::CpuLatencyError;

pub use ringway_shm::{ErrorKind, Lag};

/// Why a channel could not be opened. The text tells what was tried, what was found, and what to
/// type next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address makes no sense.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The channel in shared memory is not to be had.
    #[error(transparent)]
    Shm(#[from] ringway_shm::Error),
    /// `hold_cpu_latency` was asked for and is not to be had.
    #[error(transparent)]
    CpuLatency(#[from] CpuLatencyError),
}

impl Error {
    /// What sort of error it is, for programs; an address that makes no sense is a
    /// [`ErrorKind::BadOption`].
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) => ErrorKind::BadOption,
            Self::Shm(error) => error.kind(),
            Self::CpuLatency(_) => ErrorKind::Permission,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A process of this host.
    Process {
        /// Its process id, in its own pid namespace.
        pid: u32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid } => write!(f, "process {pid}"),
        }
    }
}

impl From<ringway_shm::Peer> for Peer {
    fn from(peer: ringway_shm::Peer) -> Self {
        Self::Process { pid: peer.pid }
    }
}

/// Why a message was not sent. The message is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No room, and the call does not wait.
    #[error("the ring is full; {}", Room(.peer, .lag))]
    Full {
        /// The receiver, if there is one; of several, the slowest.
        peer: Option<Peer>,
        /// If there are several: how far that one is behind.
        lag: Option<Lag>,
    },
    /// No room came within the time allowed.
    #[error("timed out: the ring stayed full; {}", Room(.peer, .lag))]
    Timeout {
        /// The receiver, if there is one; of several, the slowest.
        peer: Option<Peer>,
        /// If there are several: how far that one is behind.
        lag: Option<Lag>,
    },
    /// The message can never fit.
    #[error(
        "a message of {len} bytes is too large, this channel takes {max}; open it with a larger `capacity`"
    )]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// Most bytes that a message on this channel may have.
        max: usize,
    },
    /// The message's own `Serialize` failed, or needs more scratch memory than is reasonable.
    #[error(
        "the message could not be serialised: its `Serialize` refuses, or asks for more than 256 MiB \
         of scratch memory; look at what the message holds"
    )]
    Encode,
    /// The receiver closed while the ring was full. Told once; the next call waits for another.
    #[error(
        "the receiver has closed and the ring is full; the next call waits for another receiver"
    )]
    Disconnected,
    /// The receiver died. Told once; the next call waits for its successor.
    #[error("the receiver ({peer}) died; its successor gets what it left, the next call goes on")]
    PeerDied {
        /// Who died.
        peer: Peer,
    },
    /// The channel's memory makes no sense.
    #[error("the channel is corrupt: {what}; drop this handle and open the channel again")]
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(); open the channel again in the child")]
    Forked,
    /// Something that a later version of the medium reports.
    #[error("the medium refused")]
    Other,
}

struct Room<'a>(&'a Option<Peer>, &'a Option<Lag>);

impl fmt::Display for Room<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(peer), None) => write!(f, "the receiver ({peer}) has not made room"),
            (Some(peer), Some(lag)) => {
                write!(f, "the slowest receiver ({peer}) is {lag}; the others wait for it")
            }
            (None, _) => f.write_str("there is no receiver"),
        }
    }
}

impl From<ringway_shm::SendError> for SendError {
    #[cold]
    fn from(error: ringway_shm::SendError) -> Self {
        use ringway_shm::SendError as Shm;
        match error {
            Shm::Full { peer, lag } => Self::Full { peer: peer.map(Into::into), lag },
            Shm::Timeout { peer, lag } => Self::Timeout { peer: peer.map(Into::into), lag },
            Shm::TooLarge { len, max } => Self::TooLarge { len, max },
            Shm::Disconnected => Self::Disconnected,
            Shm::PeerDied { peer } => Self::PeerDied { peer: peer.into() },
            Shm::Corrupt(fault) => Self::Corrupt { what: fault.as_str() },
            Shm::Forked => Self::Forked,
            _ => Self::Other,
        }
    }
}

/// A batch that was not sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sent} messages of the batch were sent, then: {error}")]
pub struct BatchError {
    /// Messages from the front of the batch that were sent.
    pub sent: usize,
    /// Why the next one was not.
    pub error: SendError,
}

/// Why no message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing there, and the call does not wait.
    #[error("no message is waiting")]
    Empty,
    /// Nothing came within the time allowed.
    #[error("timed out: no message came")]
    Timeout,
    /// The sender closed, and everything it sent has been received. Told once; the next call waits
    /// for another sender.
    #[error("the sender has closed; everything it sent was received")]
    Disconnected,
    /// The sender died, and everything it committed has been received. Told once; the next call
    /// waits for its successor.
    #[error("the sender ({peer}) died; everything it committed was received")]
    PeerDied {
        /// Who died.
        peer: Peer,
    },
    /// A message's bytes are no valid value of its type. It is passed over.
    #[error(
        "message {sequence} is no valid value of its type; it was passed over. Look for a sender \
         that writes what its schema does not say, or that writes after sending"
    )]
    Invalid {
        /// Its number, from 0, since the sender opened the channel.
        sequence: u64,
    },
    /// The channel's memory makes no sense. It is given up; the next call waits for another sender.
    #[error("the channel is corrupt: {what}; what was left in it is given up, restart the sender")]
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// A sender is there, but its memory could not be opened.
    #[error("the sender's memory could not be opened ({0:?}); opening a new receiver tells more")]
    Open(ErrorKind),
    /// The sender of a broadcast that overwrites was faster by more than a ring: so many messages are
    /// gone. The next call goes on behind them.
    #[error(
        "{missed} messages were overwritten before they were read; the next call goes on behind them"
    )]
    Lagged {
        /// How many, exactly.
        missed: u64,
    },
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(); open the channel again in the child")]
    Forked,
    /// Something that a later version of the medium reports.
    #[error("the medium refused")]
    Other,
}

impl From<ringway_shm::RecvError> for RecvError {
    #[cold]
    fn from(error: ringway_shm::RecvError) -> Self {
        use ringway_shm::RecvError as Shm;
        match error {
            Shm::Empty => Self::Empty,
            Shm::Timeout => Self::Timeout,
            Shm::Disconnected => Self::Disconnected,
            Shm::PeerDied { peer } => Self::PeerDied { peer: peer.into() },
            Shm::Corrupt(fault) => Self::Corrupt { what: fault.as_str() },
            Shm::Lagged { missed } => Self::Lagged { missed },
            Shm::Open(kind) => Self::Open(kind),
            Shm::Forked => Self::Forked,
            _ => Self::Other,
        }
    }
}

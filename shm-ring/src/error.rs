//! What can go wrong, in words that tell what was tried, what was found and what to type next.
//!
//! [`Error`] is for set-up and may allocate; [`SendError`] and [`RecvError`] are for the hot path
//! and never do.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::home::Foreign;

/// Why a channel could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{tried}: {found}. {remedy}")]
pub struct Error {
    kind: ErrorKind,
    tried: String,
    found: String,
    remedy: String,
    source: Option<io::Error>,
}

/// What sort of [`Error`] it is, for programs; people read its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The channel's name breaks the rules.
    BadName,
    /// An option has a value that is never valid.
    BadOption,
    /// The channel exists with other options than those asked for.
    OptionMismatch,
    /// The channel carries messages of another type.
    SchemaMismatch,
    /// Another process or handle holds the role.
    RoleTaken,
    /// The file system has too little room.
    NoSpace,
    /// A directory is missing, or is not one.
    NoDirectory,
    /// The file system refused access.
    Permission,
    /// A file is not what its name says: truncated, foreign, half-written, bit-flipped.
    Damaged,
    /// A file was made by a version with another memory layout.
    AbiMismatch,
    /// A file was made before the last reboot.
    Stale,
    /// Another process kept the channel's lock for too long.
    Busy,
    /// Too many dead producers' messages wait for a consumer.
    Undrained,
    /// The system, or its file system, lacks something that was asked for.
    Unsupported,
    /// Something else that the system reported.
    Io,
}

impl Error {
    /// An error from its three sentences, without full stops: what was tried, what was found, and
    /// what to type next.
    pub fn new(
        kind: ErrorKind,
        tried: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (tried, found, remedy) = (tried.into(), found.into(), remedy.into());
        Self { kind, tried, found, remedy, source: None }
    }

    /// What the system said no to, with the remedy for the usual reasons.
    pub(crate) fn io(tried: impl Into<String>, error: io::Error) -> Self {
        let (kind, remedy) = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
                ErrorKind::Permission,
                "Run as the user that owns the directory, or point RINGWAY_DIR at a writable one",
            ),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (
                ErrorKind::NoDirectory,
                "Create the directory, or point RINGWAY_DIR at one that exists",
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::NoSpace, "Free some memory there, or use a smaller `capacity`")
            }
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    (ErrorKind::Io, "Raise the limit of open files (`ulimit -n`)")
                }
                Some(libc::ENOMEM) => {
                    (ErrorKind::Io, "Free some memory, or raise `vm.max_map_count`")
                }
                _ => (ErrorKind::Io, "Look the error up in `man errno`"),
            },
        };
        let found = error.to_string();
        Self { source: Some(error), ..Self::new(kind, tried, found, remedy) }
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// A process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

/// Why a message was not sent. The message is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No room, and the call does not wait.
    #[error("the ring is full; {}", Waiting(.peer, .lag))]
    Full {
        /// Who is to make room, if anybody is there: the consumer; of a broadcast's, the slowest; of an MPMC
        /// channel whoever has claimed the place that is needed next, which may be another sender.
        peer: Option<Peer>,
        /// Of a broadcast's: how far it is behind.
        lag: Option<Lag>,
    },
    /// No room came within the time allowed.
    #[error("timed out: the ring stayed full; {}", Waiting(.peer, .lag))]
    Timeout {
        /// As in [`Self::Full`].
        peer: Option<Peer>,
        /// As in [`Self::Full`].
        lag: Option<Lag>,
    },
    /// The message can never fit.
    #[error(
        "a message of {len} bytes is larger than the channel takes ({max} bytes: half its capacity, or \
         its slot, less a header); open the channel with a larger `capacity`, or, if it has slots, a \
         larger `slot`"
    )]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// Most bytes that a message on this channel may have.
        max: usize,
    },
    /// The consumer closed while the ring was full. Told once; the next call waits for another.
    #[error(
        "the consumer has closed its end and the ring is full; the next call waits for another consumer"
    )]
    Disconnected,
    /// The consumer died. Told once; the next call waits for its successor.
    #[error("the consumer ({peer}) died; its successor gets what it left, the next call goes on")]
    PeerDied {
        /// Who died.
        peer: Peer,
    },
    /// The consumer's memory makes no sense, or the consumer says so of this side's. Of an MPMC channel: one
    /// place makes no sense, and the next call goes on.
    #[error(
        "the segment is corrupt: {}; {}",
        .0,
        After(*.0, "drop this handle and open the channel again")
    )]
    Corrupt(Fault),
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(); open the channel again in the child")]
    Forked,
}

struct Waiting<'a>(&'a Option<Peer>, &'a Option<Lag>);

impl From<Foreign> for SendError {
    fn from(_: Foreign) -> Self {
        Self::Forked
    }
}

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            // Not which end it is: of an MPMC channel it may be either.
            (Some(peer), None) => write!(f, "{peer} has not made room"),
            (Some(peer), Some(lag)) => {
                write!(f, "the slowest subscriber ({peer}) is {lag}; the others wait for it")
            }
            (None, _) => f.write_str("no consumer is attached"),
        }
    }
}

/// How far one of several subscribers is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lag {
    /// Messages that were sent and that it has not received.
    pub messages: u64,
    /// For how long the producer has seen it in the way, without any progress.
    pub since: Duration,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages behind, and has not moved for {:?}", self.messages, self.since)
    }
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
    /// The producer closed, and everything it sent has been received. Told once; the next call
    /// waits for another producer.
    #[error("the producer has closed; everything it sent was received")]
    Disconnected,
    /// The producer died, and everything it committed has been received. Told once; the next call
    /// waits for its successor.
    #[error("the producer ({peer}) died; everything it committed was received")]
    PeerDied {
        /// Who died.
        peer: Peer,
    },
    /// The segment makes no sense. It is given up, with what was left in it and what its producer
    /// adds before it notices; the next call waits for another producer. Of an MPMC channel: one place
    /// makes no sense, a message that it had is lost, and the next call goes on.
    #[error("the segment is corrupt: {}; {}", .0, After(*.0, "it is given up, restart the producer"))]
    Corrupt(Fault),
    /// A producer is there, but its segment could not be opened. Of [`ErrorKind::Damaged`] and
    /// other defects of the file it is told once, and the segment is passed over; a lack of
    /// descriptors or memory is tried again by the next call.
    #[error(
        "the producer's segment could not be opened ({0:?}); opening the channel again tells more"
    )]
    Open(ErrorKind),
    /// The producer has overwritten messages that were not read yet, so many. The next call goes on
    /// behind them.
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
}

/// What was wrong in memory that the other side wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u64)]
pub enum Fault {
    /// A record of an unknown kind.
    Kind = 1,
    /// A record longer than the ring has room for.
    Length = 2,
    /// A record whose sequence number is not the next.
    Sequence = 3,
    /// An array record whose elements do not fill it.
    Array = 4,
    /// Padding that does not reach the end of the ring, or has nothing behind it.
    Padding = 5,
    /// A head that the producer has not reached yet, or that went back.
    Gate = 6,
    /// A consumer position off every record boundary, or beyond what was sent.
    Position = 7,
    /// The other side found this side's memory corrupt.
    Poisoned = 8,
    /// A slot word that no participant writes in such a place.
    Slot = 16,
    /// A hint of how far a queue has come that its slots contradict.
    Hint = 17,
}

/// What comes after that fault, where that is not what mostly does.
struct After(Fault, &'static str);

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(fault, mostly) = self;
        f.write_str(if fault.is_passed_over() { PASSED_OVER } else { mostly })
    }
}

const PASSED_OVER: &str =
    "that place is passed over, with any message that it had, and the next call goes on";

impl Fault {
    /// Whether it costs one place of an MPMC channel, and leaves the rest of use to everybody.
    pub const fn is_passed_over(self) -> bool {
        matches!(self, Self::Slot | Self::Hint)
    }

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "a record of an unknown kind",
            Self::Length => "a record longer than the ring has room for",
            Self::Sequence => "a record out of sequence",
            Self::Array => "an array record whose elements do not fill it",
            Self::Padding => "padding that does not end where the ring ends",
            Self::Gate => "a consumer's head outside of what was sent",
            Self::Position => "a consumer's position off every record boundary",
            Self::Poisoned => "the other side found it corrupt",
            Self::Slot => "a slot word that nobody writes there",
            Self::Hint => "a hint of the queue's place that its slots contradict",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_is_to_be_done_about_each_kind_of_channel() {
        let errors =
            |fault| [SendError::Corrupt(fault).to_string(), RecvError::Corrupt(fault).to_string()];
        for text in [errors(Fault::Slot), errors(Fault::Hint)].as_flattened() {
            assert!(text.ends_with("the next call goes on"), "{text}");
        }
        let [send, recv] = errors(Fault::Sequence);
        assert!(send.ends_with("open the channel again"), "{send}");
        assert!(recv.ends_with("restart the producer"), "{recv}");
        let text = SendError::TooLarge { len: 9, max: 8 }.to_string();
        assert!(text.contains("larger `capacity`") && text.contains("larger `slot`"), "{text}");
    }
}

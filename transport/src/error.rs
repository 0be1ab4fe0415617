//! The errors of the one API: what a medium reports, in words that fit them all.
//!
//! The enums of the verbs are small and never allocate; [`Error`] is for opening a channel.

use std::fmt;
use std::net::SocketAddr;

use ringway_net::session::Death;

use crate::address::AddressError;
use crate::cpu_latency::CpuLatencyError;

pub use ringway_net::{CloseError, NotClosed};
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
    /// The channel between hosts is not to be had.
    #[error(transparent)]
    Net(#[from] ringway_net::Error),
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
            Self::Net(error) => net_kind(error.kind()),
            Self::CpuLatency(error) => error.kind(),
        }
    }
}

/// The same kinds in the words of this crate.
fn net_kind(kind: ringway_net::ErrorKind) -> ErrorKind {
    use ringway_net::ErrorKind as Net;
    match kind {
        Net::BadName => ErrorKind::BadName,
        Net::BadOption | Net::NoHost => ErrorKind::BadOption,
        Net::InUse => ErrorKind::RoleTaken,
        Net::Mismatch => ErrorKind::OptionMismatch,
        Net::SchemaMismatch => ErrorKind::SchemaMismatch,
        Net::Permission => ErrorKind::Permission,
        Net::NoSpace => ErrorKind::NoSpace,
        Net::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
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
    /// A process of some host.
    Remote {
        /// Its address, as this host sees it.
        address: SocketAddr,
        /// The number of the session with it.
        session: [u8; 16],
    },
}

impl From<ringway_net::Peer> for Peer {
    fn from(peer: ringway_net::Peer) -> Self {
        Self::Remote { address: peer.address, session: peer.session }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Remote { address, session } => ringway_net::Peer { address, session }.fmt(f),
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
        /// Who is to make room, if anybody is there: the receiver; of several, the slowest; with `kind=mpmc` on
        /// one host whoever has claimed the place that is needed next, which may be another sender.
        peer: Option<Peer>,
        /// If there are several: how far that one is behind.
        lag: Option<Lag>,
    },
    /// No room came within the time allowed.
    #[error("timed out: the ring stayed full; {}", Room(.peer, .lag))]
    Timeout {
        /// As in [`Self::Full`].
        peer: Option<Peer>,
        /// As in [`Self::Full`].
        lag: Option<Lag>,
    },
    /// The message can never fit.
    #[error(
        "a message of {len} bytes is too large, this channel takes {max}; open it with a larger `capacity`, \
         or, if it has slots, a larger `slot`"
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
    /// The receiver closed, and nothing is lost. In shared memory a call that finds the ring full tells it,
    /// between hosts any send or flush. Told once; the next call goes on, and waits for another receiver where
    /// there is no room.
    #[error(
        "the receiver has closed; the next call goes on, and waits for another receiver where there is no room"
    )]
    Disconnected,
    /// The receiver died, or, between hosts, is taken for gone, and had released everything. Told once; the
    /// next call waits for its successor.
    #[error("the receiver ({peer}) {}", Heir(.death))]
    PeerDied {
        /// Who died.
        peer: Peer,
        /// Between hosts: why it is taken for gone. `None`, on one host: its process has ended.
        death: Option<Death>,
    },
    /// The receiver is gone, and messages that it had not released are gone with it: between hosts,
    /// they are kept only for the session that they were sent in. Told once; the next call waits for
    /// another receiver.
    #[error(
        "the receiver {}; {lost} messages that it had not released are lost, the next call waits for \
         another receiver", Gone(.death)
    )]
    Lost {
        /// How many.
        lost: u64,
        /// Why it is taken for gone. `None`: it closed.
        death: Option<Death>,
    },
    /// A receiver is there, and the two ends do not fit together. Told once per attempt.
    #[error("no session came about, {death}; {lost} messages that waited for it are lost")]
    Refused {
        /// Why.
        death: Death,
        /// Messages that were waiting to be sent.
        lost: u64,
    },
    /// The channel's memory makes no sense.
    #[error("the channel is corrupt: {what}; drop this handle and open the channel again")]
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// One place of an MPMC channel makes no sense. It is passed over, and the channel stays of use to
    /// everybody.
    #[error("a place of the channel is corrupt: {what}; it is passed over, the next call goes on")]
    PassedOver {
        /// What was found.
        what: &'static str,
    },
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(); open the channel again in the child")]
    Forked,
    /// The thread of `io=thread` has panicked, which is a defect of this library.
    #[error(
        "the thread that moves this end's bytes has panicked, as standard error tells; drop the handle, \
         open the channel again, and report it"
    )]
    Broken,
    /// Something that a later version of the medium reports.
    #[error("the medium refused")]
    Other,
}

struct Room<'a>(&'a Option<Peer>, &'a Option<Lag>);

impl fmt::Display for Room<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            // Not which end it is: with `kind=mpmc` it may be either.
            (Some(peer), None) => write!(f, "{peer} has not made room"),
            (Some(peer), Some(lag)) => {
                write!(f, "the slowest receiver ({peer}) is {lag}; the others wait for it")
            }
            (None, _) => f.write_str("there is no receiver"),
        }
    }
}

struct Gone<'a>(&'a Option<Death>);

impl fmt::Display for Gone<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(death) => write!(f, "is gone, {death}"),
            None => f.write_str("has closed"),
        }
    }
}

struct Heir<'a>(&'a Option<Death>);

impl fmt::Display for Heir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(death) => {
                write!(
                    f,
                    "is gone, {death}; nothing is lost, the next call waits for another receiver"
                )
            }
            None => f.write_str("died; its successor gets what it left, the next call goes on"),
        }
    }
}

impl From<ringway_net::SendError> for SendError {
    #[cold]
    #[inline(never)]
    fn from(error: ringway_net::SendError) -> Self {
        use ringway_net::SendError as Net;
        match error {
            Net::Full { peer } => Self::Full { peer: peer.map(Into::into), lag: None },
            Net::Timeout { peer } => Self::Timeout { peer: peer.map(Into::into), lag: None },
            Net::TooLarge { len, max } => Self::TooLarge { len, max },
            Net::Disconnected { lost: 0 } => Self::Disconnected,
            Net::Disconnected { lost } => Self::Lost { lost, death: None },
            Net::PeerDied { peer, death, lost: 0 } => {
                Self::PeerDied { peer: peer.into(), death: Some(death) }
            }
            Net::PeerDied { death, lost, .. } => Self::Lost { lost, death: Some(death) },
            Net::Refused { death, lost } => Self::Refused { death, lost },
            Net::Forked => Self::Forked,
            Net::Broken => Self::Broken,
            _ => Self::Other,
        }
    }
}

impl From<ringway_shm::SendError> for SendError {
    #[cold]
    #[inline(never)]
    fn from(error: ringway_shm::SendError) -> Self {
        use ringway_shm::SendError as Shm;
        match error {
            Shm::Full { peer, lag } => Self::Full { peer: peer.map(Into::into), lag },
            Shm::Timeout { peer, lag } => Self::Timeout { peer: peer.map(Into::into), lag },
            Shm::TooLarge { len, max } => Self::TooLarge { len, max },
            Shm::Disconnected => Self::Disconnected,
            Shm::PeerDied { peer } => Self::PeerDied { peer: peer.into(), death: None },
            Shm::Corrupt(fault) if fault.is_passed_over() => {
                Self::PassedOver { what: fault.as_str() }
            }
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
    /// Messages from the front of the batch that were sent. Of a session that has ended since, they are counted in
    /// [`SendError::Lost`] like those before them, as far as they were not released.
    pub sent: usize,
    /// Why the next one was not, or how a session ended meanwhile: that is told once, and the other again by
    /// the next call.
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
    /// The sender died, and everything it committed has been received. Between hosts it is taken for gone,
    /// dead or not, and what had come of its messages has been received: what it committed beyond that is
    /// lost. Told once; the next call waits for its successor.
    #[error("the sender ({peer}) {}", Left(.death))]
    PeerDied {
        /// Who died.
        peer: Peer,
        /// Between hosts: why it is taken for gone. `None`, on one host: its process has ended.
        death: Option<Death>,
    },
    /// A message's bytes are no valid value of its type. It is passed over.
    #[error(
        "message {sequence} is no valid value of its type; it was passed over. Look for a sender \
         that writes what its schema does not say, or that writes after sending"
    )]
    Invalid {
        /// Its number: see [`crate::Received::sequence`].
        sequence: u64,
    },
    /// The channel's memory makes no sense. It is given up; the next call waits for another sender.
    #[error("the channel is corrupt: {what}; what was left in it is given up, restart the sender")]
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// One place of an MPMC channel makes no sense. It is passed over, with any message that it had, and the
    /// channel stays of use to everybody.
    #[error(
        "a place of the channel is corrupt: {what}; it is passed over, with any message that it had, the \
         next call goes on"
    )]
    PassedOver {
        /// What was found.
        what: &'static str,
    },
    /// A sender is there, and the two ends do not fit together. Told once per attempt.
    #[error("no session came about, {death}; make both ends fit")]
    Refused {
        /// Why.
        death: Death,
    },
    /// A sender is there, but its memory could not be opened.
    #[error(
        "the sender's memory could not be opened ({0:?}); drop this handle and open the channel again, which \
         tells more"
    )]
    Open(ErrorKind),
    /// The sender of a broadcast that overwrites was faster by more than a ring: so many messages are
    /// gone. The next call goes on behind them. In shared memory they are the oldest that were not read;
    /// between hosts those that came while this end had no room.
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
    /// The thread of `io=thread` has panicked, which is a defect of this library.
    #[error(
        "the thread that moves this end's bytes has panicked, as standard error tells; drop the handle, \
         open the channel again, and report it"
    )]
    Broken,
    /// Something that a later version of the medium reports.
    #[error("the medium refused")]
    Other,
}

struct Left<'a>(&'a Option<Death>);

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(death) => write!(
                f,
                "is gone, {death}; what had come of its messages was received, and others may be lost"
            ),
            None => f.write_str("died; everything it committed was received"),
        }
    }
}

impl From<ringway_net::RecvError> for RecvError {
    #[cold]
    #[inline(never)]
    fn from(error: ringway_net::RecvError) -> Self {
        use ringway_net::RecvError as Net;
        match error {
            Net::Empty => Self::Empty,
            Net::Timeout => Self::Timeout,
            Net::Disconnected => Self::Disconnected,
            Net::PeerDied { peer, death } => {
                Self::PeerDied { peer: peer.into(), death: Some(death) }
            }
            Net::Refused { death } => Self::Refused { death },
            Net::Lagged { missed } => Self::Lagged { missed },
            Net::Forked => Self::Forked,
            Net::Broken => Self::Broken,
            _ => Self::Other,
        }
    }
}

impl From<ringway_shm::RecvError> for RecvError {
    #[cold]
    #[inline(never)]
    fn from(error: ringway_shm::RecvError) -> Self {
        use ringway_shm::RecvError as Shm;
        match error {
            Shm::Empty => Self::Empty,
            Shm::Timeout => Self::Timeout,
            Shm::Disconnected => Self::Disconnected,
            Shm::PeerDied { peer } => Self::PeerDied { peer: peer.into(), death: None },
            Shm::Corrupt(fault) if fault.is_passed_over() => {
                Self::PassedOver { what: fault.as_str() }
            }
            Shm::Corrupt(fault) => Self::Corrupt { what: fault.as_str() },
            Shm::Lagged { missed } => Self::Lagged { missed },
            Shm::Open(kind) => Self::Open(kind),
            Shm::Forked => Self::Forked,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ringway_shm::Fault;

    use super::*;

    #[test]
    fn who_is_taken_for_gone_is_not_called_dead_nor_its_messages_received() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7000));
        let peer = ringway_net::Peer { address, session: [1; 16] };
        for death in [Death::ResumeDeadline, Death::Replaced] {
            let recv = RecvError::from(ringway_net::RecvError::PeerDied { peer, death });
            let gone = RecvError::PeerDied { peer: peer.into(), death: Some(death) };
            assert_eq!(recv, gone);
            let send = SendError::from(ringway_net::SendError::PeerDied { peer, death, lost: 0 });
            let gone = SendError::PeerDied { peer: peer.into(), death: Some(death) };
            assert_eq!(send, gone);
            for text in [recv.to_string(), send.to_string()] {
                assert!(text.contains(&death.to_string()) && !text.contains("died"), "{text}");
            }
            assert!(recv.to_string().contains("may be lost"), "{recv}");
        }
    }

    #[test]
    fn texts_say_what_is_to_be_done_about_each_kind_of_channel() {
        let errors = |fault| {
            let send = SendError::from(ringway_shm::SendError::Corrupt(fault));
            let recv = RecvError::from(ringway_shm::RecvError::Corrupt(fault));
            [send.to_string(), recv.to_string()]
        };
        for text in [errors(Fault::Slot), errors(Fault::Hint)].as_flattened() {
            assert!(text.ends_with("the next call goes on"), "{text}");
        }
        let [send, recv] = errors(Fault::Sequence);
        assert!(send.ends_with("open the channel again"), "{send}");
        assert!(recv.ends_with("restart the sender"), "{recv}");
        let text = SendError::TooLarge { len: 9, max: 8 }.to_string();
        assert!(text.contains("larger `capacity`") && text.contains("larger `slot`"), "{text}");
    }
}

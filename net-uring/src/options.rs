//! What an endpoint is opened with: where, which channel, who binds, and how it waits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::session::{Format, Timing};
use crate::socket::Tuning;

/// Bytes of ring where nothing else is asked for.
pub const DEFAULT_CAPACITY: u64 = 1 << 20;

/// How both ends of a channel are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// A name, or an address in digits (IPv6 with or without brackets). It is resolved once.
    pub host: String,
    /// The port. 0, for the end that binds: any that is free; `local_addr` tells which.
    pub port: u16,
    /// The channel: 1 to 128 bytes. Both ends must name the same.
    pub channel: String,
    /// Who binds.
    pub side: Side,
    /// Bytes of this end's ring: a power of two, 4 KiB to 4 GiB. A message takes at most half of it,
    /// less 16. Both ends should have the same.
    pub capacity: u64,
    /// How calls wait.
    pub wait: Wait,
    /// What moves the bytes.
    pub backend: Backend,
    /// Fingerprint of the messages' type. Both ends must have the same.
    pub schema: u64,
    /// How serialised messages look in memory. Both ends must have the same.
    pub format: Format,
    /// Kernel buffers, congestion control.
    pub tuning: Tuning,
    /// The session's timers.
    pub timing: Timing,
    /// How long a drop waits for the peer's host to have taken what was sent. 2 s.
    pub linger: Duration,
    /// Connections that have not said hello and are kept nevertheless. Beyond that the oldest goes.
    pub silent_max: usize,
}

impl Options {
    /// Of a channel at a host's port, everything else as it is by default.
    pub fn new(host: &str, port: u16, channel: &str, schema: u64, format: Format) -> Self {
        Self {
            host: host.to_owned(),
            port,
            channel: channel.to_owned(),
            side: Side::ByAddress,
            capacity: DEFAULT_CAPACITY,
            wait: Wait::Adaptive,
            backend: Backend::Auto,
            schema,
            format,
            tuning: Tuning::default(),
            timing: Timing::default(),
            linger: Duration::from_secs(2),
            silent_max: 64,
        }
    }
}

/// Which end binds and which connects. Only the one that connects connects again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end on whose host the address is binds, and the other one connects: so both ends use one
    /// address, on whichever host they are. If both are on that host, the first to come binds, and
    /// the second, who finds the port taken, connects. `0.0.0.0`, `[::]` and port 0 always bind.
    #[default]
    ByAddress,
    /// This end binds; that the port is taken is an error.
    Bind,
    /// This end connects.
    Connect,
}

/// How a call waits for a message or for room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Asks the kernel again and again: lowest latency, one core at 100 %.
    Spin,
    /// Asks for 50 us, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Park,
}

/// What moves the bytes of an endpoint. The two ends of a channel may differ: nobody sees it on the
/// wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// io_uring where the system has it and allows it; else epoll, which is said once per process
    /// on standard error. `backend()` of the endpoint tells which one it is.
    #[default]
    Auto,
    /// io_uring: calls that sleep make one system call where epoll needs two. Linux 6.1 or newer.
    /// That it is not to be had is an error, which says why and what to type.
    Uring,
    /// Plain calls, and epoll to sleep. Runs everywhere.
    Epoll,
}

impl Backend {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Uring, Self::Epoll];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of auto, uring, epoll")]
pub struct UnknownBackend;

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        Self::ALL.into_iter().find(|backend| backend.name() == text).ok_or(UnknownBackend)
    }
}

#[cfg(test)]
mod tests {
    use super::{Backend, UnknownBackend};

    #[test]
    fn backends_are_read_as_they_are_written() {
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse(), Ok(backend));
            assert!(UnknownBackend.to_string().contains(backend.name()));
        }
        for text in ["", "Uring", "io_uring", "auto "] {
            assert_eq!(text.parse::<Backend>(), Err(UnknownBackend));
        }
    }
}

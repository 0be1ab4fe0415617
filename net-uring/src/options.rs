//! What an endpoint is opened with: where, which channel, who binds, and how it waits.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::gauge::Gauge;
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
    /// Who moves them.
    pub io: Io,
    /// Of `io=thread`: what the thread is started with.
    pub thread: Reins,
    /// Fingerprint of the messages' type. Both ends must have the same.
    pub schema: u64,
    /// How serialised messages look in memory. Both ends must have the same.
    pub format: Format,
    /// Kernel buffers, congestion control.
    pub tuning: Tuning,
    /// The session's timers.
    pub timing: Timing,
    /// How long a drop waits for the peer's host to have taken what was sent. 2 s. It does not wait for a peer
    /// that has been without a connection for `timing.takeover_ns` (1 s): one that was killed, say. Zero: it hands
    /// what is left and its last words to the kernel, as far as that takes them at once.
    pub linger: Duration,
    /// Who gets the messages. The end that binds decides; what those who connect say is not compared.
    pub kind: Kind,
    /// Of `kind=broadcast`, a sender: what becomes of a receiver that has no room.
    pub overflow: Overflow,
    /// Of `kind=mpmc`, a receiver that binds: whether it is told `Disconnected` when the last sender has
    /// left. Else it never is, as there may always come another.
    pub until_last: bool,
    /// Of an end with many on the other side: most of them. More are told to come again; then one that has had
    /// no connection for `timing.takeover_ns` (1 s) loses its place to them. Each takes the ring's capacity and
    /// some 8 KiB.
    pub peers_max: usize,
    /// Connections that have not said hello and are kept nevertheless. Beyond that the oldest goes.
    pub silent_max: usize,
    /// Where the end shows its counters while it works. `None`: nowhere.
    pub gauge: Option<Arc<dyn Gauge>>,
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
            io: Io::Inline,
            thread: Reins::default(),
            schema,
            format,
            tuning: Tuning::default(),
            timing: Timing::default(),
            linger: Duration::from_secs(2),
            kind: Kind::Pair,
            overflow: Overflow::Block,
            until_last: false,
            peers_max: 4096,
            silent_max: 64,
            gauge: None,
        }
    }
}

/// How many ends a channel has, and who gets a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One sender, one receiver.
    #[default]
    Pair,
    /// The end that binds has any number of others on the other side, and each message goes to one
    /// receiver: a bound receiver gets those of all senders, each sender's in order, the senders in
    /// turns; a bound sender hands out to whichever receiver has room, and again, flagged, what a
    /// receiver had not released when it closed or was lost.
    Mpmc,
    /// One sender, which binds, any number of receivers, and each gets every message that is sent while
    /// it is there.
    Broadcast,
}

/// What becomes of a broadcast's receiver that has no room for a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The sender waits for it. One that has no connection is given up after `takeover_ns`, when others
    /// wait for it.
    #[default]
    Block,
    /// The sender goes on, and the receiver is told how many messages it missed.
    Overwrite,
}

impl Kind {
    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pair => "spsc",
            Self::Mpmc => "mpmc",
            Self::Broadcast => "broadcast",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// Who moves the bytes of an endpoint. The two ends of a channel may differ.
///
/// | while the caller is elsewhere | inline | thread |
/// |---|---|---|
/// | messages that the kernel did not take at once | stay in the ring until the next call | leave |
/// | messages that come | stay in the kernel's buffers, and then with the sender | come into the ring |
/// | acknowledgements, and so the sender's room | wait for the next call | flow |
/// | a broken connection | is mended by the next call | is mended |
/// | the peer sees this end as | stalled, after 5 s | alive |
///
/// | | inline | thread |
/// |---|---|---|
/// | a `send` costs its caller | a system call, some 4 us | a write into the ring, some 10 ns |
/// | many `send`s in a row | a packet each; `queue` and `flush` make one of many | whatever piles up while one is sent goes as the next |
/// | `wait=spin` | the caller asks the kernel while it waits | so does the thread, all the time: a core of its own |
/// | `wait=adaptive` | asks for 50 us, then sleeps | the same, of both: what is sent after a pause wakes the thread |
/// | `wait=park` | sleeps at once | the same, of both |
///
/// Whoever spins beside others, the thread and the callers of `io=thread`, yields its core at each look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Io {
    /// The caller's own calls: lowest latency, no thread.
    #[default]
    Inline,
    /// A thread of the endpoint's own, which ends with it.
    Thread,
}

impl Io {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 2] = [Self::Inline, Self::Thread];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Thread => "thread",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a thread is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reins {
    /// Its name, of which the system shows 15 bytes. `None`: `rw-` and the channel's.
    pub name: Option<String>,
    /// The core that it stays on. `None`: any.
    pub core: Option<usize>,
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

//! What an endpoint is opened with: where, which channel, who binds, and how it waits.

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

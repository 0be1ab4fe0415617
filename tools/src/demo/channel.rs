//! The channel of one run of the demo: its addresses, and its removal at the end. Sending and
//! receiving never live here.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

/// What is between the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    /// Rings in shared memory
    Shm,
    /// A TCP connection, on the loopback device
    Tcp,
    /// The one, then the other
    Both,
}

/// One of the two paths, and the channel on it.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    is_remote: bool,
    name: String,
    options: String,
}

impl Channel {
    /// A channel that no other run has: the pid tells runs apart that are going on, the time those
    /// that are over.
    pub(super) fn new(is_remote: bool, capacity: &str, wait: &str, subscribers: u8) -> Self {
        let pid = std::process::id();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let kind = if subscribers > 1 { "&kind=broadcast" } else { "" };
        let name = format!("ringway-demo-{pid}-{time}");
        Self { is_remote, name, options: format!("capacity={capacity}&wait={wait}{kind}") }
    }

    /// As in `--over`.
    pub(super) fn key(&self) -> &'static str {
        if self.is_remote { "tcp" } else { "shm" }
    }

    /// In words.
    pub(super) fn path(&self) -> &'static str {
        if self.is_remote { "tcp over loopback" } else { "shared memory" }
    }

    pub(super) fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// For the subscriber, which comes first: between hosts it binds, to a port that is free.
    pub(super) fn receiving(&self) -> String {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.address(nowhere, "bind")
    }

    /// For the publisher, and for the report. `door` is where to connect to.
    pub(super) fn sending(&self, door: Option<SocketAddr>) -> String {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.address(door.unwrap_or(nowhere), "connect")
    }

    fn address(&self, door: SocketAddr, side: &str) -> String {
        let Self { is_remote, name, options } = self;
        match is_remote {
            true => format!("tcp://{door}/{name}?{options}&side={side}"),
            false => format!("shm://{name}?{options}"),
        }
    }

    /// Removes the channel once both children have ended. After a run in order there is none any
    /// more.
    pub(super) fn remove(&self) -> Result<(), String> {
        if self.is_remote {
            return Ok(());
        }
        // The options are of no matter here, nor whether they are valid.
        let address = format!("shm://{}", self.name);
        ringway::remove(&address).map(drop).map_err(|error| error.to_string())
    }
}

/// Removes a channel from a child whose parent is gone. The other child may have it open still,
/// and then tries itself a little later; whoever comes last succeeds.
pub(super) fn remove_orphaned(address: &str) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let end = Instant::now() + PATIENCE;
    while ringway::remove(address).is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
}

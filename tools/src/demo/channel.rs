//! The channel of one run of the demo: its addresses, and its removal at the end. Sending and
//! receiving never live here.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use ringway::{Builder, ErrorKind};

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

/// What moves the bytes between hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// io_uring, or epoll where the system denies it
    Auto,
    /// io_uring
    Uring,
    /// Plain calls, and epoll to sleep
    Epoll,
    /// io_uring, then epoll
    Both,
}

/// What messages take from one process to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Shm,
    /// By the ends' own choice of what moves the bytes.
    Tcp,
    TcpUring,
    TcpEpoll,
}

impl Path {
    /// Between hosts, by what moves the bytes.
    pub(super) fn between_hosts(backend: Backend) -> &'static [Self] {
        match backend {
            Backend::Auto => &[Self::Tcp],
            Backend::Uring => &[Self::TcpUring],
            Backend::Epoll => &[Self::TcpEpoll],
            Backend::Both => &[Self::TcpUring, Self::TcpEpoll],
        }
    }

    pub(super) fn is_remote(self) -> bool {
        self != Self::Shm
    }

    /// In JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::TcpUring => "tcp-uring",
            Self::TcpEpoll => "tcp-epoll",
        }
    }

    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shm => "shared memory",
            Self::Tcp => "tcp",
            Self::TcpUring => "tcp by io_uring",
            Self::TcpEpoll => "tcp by epoll",
        }
    }

    /// Why there is no such path on this system, whatever one types here: io_uring may be denied.
    pub(super) fn lack(self) -> Option<String> {
        if self != Self::TcpUring {
            return None;
        }
        let address = "tcp://127.0.0.1:0/ringway-demo?side=bind&capacity=4KiB&backend=uring";
        let error = Builder::new(address).and_then(|it| it.receiver::<[u8]>()).err()?;
        let is_denied = matches!(error.kind(), ErrorKind::Permission | ErrorKind::Unsupported);
        is_denied.then(|| error.to_string())
    }
}

/// The channel on one of the paths.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    path: Path,
    name: String,
    options: String,
}

impl Channel {
    /// A channel that no other run has: the pid tells runs apart that are going on, the time those
    /// that are over.
    pub(super) fn new(path: Path, capacity: &str, wait: &str, subscribers: u8) -> Self {
        let pid = std::process::id();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let kind = if subscribers > 1 { "&kind=broadcast" } else { "" };
        let backend = match path {
            Path::Shm | Path::Tcp => "",
            Path::TcpUring => "&backend=uring",
            Path::TcpEpoll => "&backend=epoll",
        };
        let name = format!("ringway-demo-{pid}-{time}");
        Self { path, name, options: format!("capacity={capacity}&wait={wait}{kind}{backend}") }
    }

    pub(super) fn is_remote(&self) -> bool {
        self.path.is_remote()
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
        let Self { path, name, options } = self;
        match path.is_remote() {
            true => format!("tcp://{door}/{name}?{options}&side={side}"),
            false => format!("shm://{name}?{options}"),
        }
    }

    /// Removes the channel once both children have ended. After a run in order there is none any
    /// more.
    pub(super) fn remove(&self) -> Result<(), String> {
        if self.is_remote() {
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

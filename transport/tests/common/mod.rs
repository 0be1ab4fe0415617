//! What the tests of the API share: a directory of its own for each test, and message types.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use ringway::{Builder, Describe, Error, ErrorKind, Side, Wait, rkyv};

/// A fixed-size message.
#[derive(rkyv::Archive, rkyv::Serialize, Describe, Clone, Debug, PartialEq)]
#[rkyv(crate = ringway::rkyv)]
pub struct Tick {
    pub price: i64,
    pub quantity: u32,
    pub side: bool,
}

/// A message with parts out of line, and lists in lists.
#[derive(rkyv::Archive, rkyv::Serialize, Describe, Clone, Debug, PartialEq)]
#[rkyv(crate = ringway::rkyv)]
pub struct Book {
    pub product: String,
    pub levels: Vec<(f64, f64)>,
    pub notes: Vec<String>,
    pub last: Option<Tick>,
}

impl Tick {
    pub fn number(n: u32) -> Self {
        Self { price: i64::from(n) * 3, quantity: n, side: n.is_multiple_of(2) }
    }
}

impl Book {
    pub fn number(n: usize) -> Self {
        Self {
            product: format!("product-{n}"),
            levels: (0..n % 40).map(|i| (i as f64, n as f64)).collect(),
            notes: (0..n % 5).map(|i| "x".repeat(i * 7)).collect(),
            last: n.is_multiple_of(3).then(|| Tick::number(n as u32)),
        }
    }

    pub fn check(view: &ArchivedBook, n: usize) {
        let expected = Self::number(n);
        assert_eq!(view.product, *expected.product);
        let levels: Vec<(f64, f64)> =
            view.levels.iter().map(|level| (level.0.to_native(), level.1.to_native())).collect();
        assert_eq!(levels, expected.levels);
        let notes: Vec<&str> = view.notes.iter().map(|note| note.as_str()).collect();
        assert_eq!(notes, expected.notes);
        assert_eq!(view.last.is_some(), expected.last.is_some());
    }
}

/// A directory for channels that goes away with the test, however it ends.
pub struct Home(PathBuf);

impl Home {
    pub fn new() -> Self {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap();
        *count += 1;
        let root =
            if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
        let path = root.join(format!("ringway-api-{}-{}", std::process::id(), *count));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A channel in it; one between hosts is at a port of its own.
    pub fn channel(&self, address: &str) -> Builder {
        let channel = Builder::new(address).unwrap().directory(&self.0);
        // Its last messages get as long as everything else here.
        let linger = Duration::from_secs(30);
        let is_remote = address.starts_with("tcp:");
        if is_remote { channel.port(free_port()).linger(linger) } else { channel }
    }

    pub fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

/// Why this system can't open a channel between hosts as this one is: it has no io_uring, or denies it.
pub fn lack(channel: &Builder) -> Option<Error> {
    let error = channel.clone().port(0).side(Side::Bind).receiver::<Tick>().err()?;
    assert!(matches!(error.kind(), ErrorKind::Permission | ErrorKind::Unsupported), "{error}");
    Some(error)
}

/// A port that nobody has, and that the kernel gives to nobody who does not ask for it by number. It
/// stays this process's: whoever runs these tests at the same time finds its datagram twin taken.
fn free_port() -> u16 {
    static TWINS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let mut twins = TWINS.lock().unwrap();
    for port in 10_000..30_000 {
        if let Ok(twin) = UdpSocket::bind(("127.0.0.1", port)) {
            twins.push(twin);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    }
    panic!("no port is free");
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const WAITS: [Wait; 3] = [Wait::Spin, Wait::Adaptive, Wait::Park];

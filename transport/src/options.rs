//! The builder behind [`crate::sender`] and [`crate::receiver`]: every option of an address as a
//! method, with its default.

use std::path::PathBuf;

use ringway_net::Side;
use ringway_net::session::Format;
use ringway_shm::Wait;
use rkyv::rancor::Failure;

use crate::address::{Address, Host};
use crate::channel::{Receiver, Sender};
use crate::cpu_latency::CpuLatency;
use crate::describe::Schema;
use crate::end::Options;
use crate::error::Error;
use crate::message::Message;

/// Opens a channel with options that are not in the address. Whoever opens a channel first decides
/// its options; asking for others later is an error that prints both sides.
///
/// ```
/// use ringway::{Builder, Wait};
///
/// # let address = format!("shm://builder-{}", std::process::id());
/// let mut tx = Builder::new(&address)?.capacity(4 << 20).wait(Wait::Park).sender::<[u8]>()?;
/// tx.send(b"hello")?;
/// # drop(tx);
/// # ringway::remove(&address)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    host: Option<Host>,
    side: Side,
    name: String,
    directory: Option<PathBuf>,
    capacity: Option<u64>,
    align: Option<u32>,
    wait: Option<Wait>,
    hold_cpu_latency: bool,
}

impl Builder {
    /// A channel at `address`, with the options that the address names.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &str) -> Result<Self, Error> {
        let address: Address = address.parse()?;
        let options = address.options();
        Ok(Self {
            host: address.host().cloned(),
            side: options.side.unwrap_or_default(),
            name: address.name().to_owned(),
            directory: None,
            capacity: options.capacity,
            align: options.align,
            wait: options.wait,
            hold_cpu_latency: options.hold_cpu_latency.unwrap_or(false),
        })
    }

    /// Bytes of ring: a power of two from 4 KiB to 4 GiB. A message may take half of it, less 16
    /// bytes. Default: 1 MiB.
    #[must_use]
    pub fn capacity(self, bytes: u64) -> Self {
        Self { capacity: Some(bytes), ..self }
    }

    /// Bytes that records are aligned to in the ring: 16 packs small messages, 64 gives each a cache
    /// line of its own. Default: 16.
    #[must_use]
    pub fn align(self, bytes: u32) -> Self {
        Self { align: Some(bytes), ..self }
    }

    /// How this side waits; in shared memory both do it in the same way. Default: adaptive.
    #[must_use]
    pub fn wait(self, wait: Wait) -> Self {
        Self { wait: Some(wait), ..self }
    }

    /// Between hosts: which end binds. Default: the end on whose host the address is; if both are, the
    /// first to come.
    #[must_use]
    pub fn side(self, side: Side) -> Self {
        Self { side, ..self }
    }

    /// Between hosts: the port, if it shall be another than the address names.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { host: self.host.map(|host| Host { port, ..host }), ..self }
    }

    /// Keeps idle cores from deep sleep while this handle lives, which makes waking a sleeper about
    /// five times faster. Needs permission to write `/dev/cpu_dma_latency`. Default: off.
    #[must_use]
    pub fn hold_cpu_latency(self, hold: bool) -> Self {
        Self { hold_cpu_latency: hold, ..self }
    }

    /// Where channels live: a directory on a tmpfs. Both sides must name the same. Default:
    /// `$RINGWAY_DIR`, or `/dev/shm/ringway-<uid>`.
    #[must_use]
    pub fn directory(self, path: impl Into<PathBuf>) -> Self {
        Self { directory: Some(path.into()), ..self }
    }

    /// Opens the sending end.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn sender<T: Message + ?Sized>(&self) -> Result<Sender<T>, Error> {
        Sender::open(&self.options::<T>(), self.cpu_latency()?)
    }

    /// Opens the receiving end.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn receiver<T: Message + ?Sized>(&self) -> Result<Receiver<T>, Error> {
        Receiver::open(&self.options::<T>(), self.cpu_latency()?)
    }

    /// Removes the channel, with every message in it, if nobody has it open. False: there is none;
    /// between hosts there never is, for nothing is kept.
    ///
    /// # Errors
    /// [`crate::ErrorKind::RoleTaken`] when a process has it open; those of the file system.
    pub fn remove(&self) -> Result<bool, Error> {
        if self.host.is_some() {
            return Ok(false);
        }
        Ok(ringway_shm::remove(&self.shm::<[u8]>())?)
    }

    fn cpu_latency(&self) -> Result<Option<CpuLatency>, Error> {
        Ok(self.hold_cpu_latency.then(CpuLatency::hold).transpose()?)
    }

    fn options<T: Message + ?Sized>(&self) -> Options {
        match &self.host {
            None => Options::Shm(self.shm::<T>()),
            Some(host) => Options::Net(Box::new(self.net::<T>(host))),
        }
    }

    fn net<T: Message + ?Sized>(&self, host: &Host) -> ringway_net::Options {
        let schema = Schema::of::<T>().fingerprint();
        let mut options =
            ringway_net::Options::new(&host.host, host.port, &self.name, schema, format());
        options.side = self.side;
        options.capacity = self.capacity.unwrap_or(options.capacity);
        options.wait = match self.wait {
            Some(Wait::Spin) => ringway_net::Wait::Spin,
            Some(Wait::Park) => ringway_net::Wait::Park,
            Some(Wait::Adaptive) | None => ringway_net::Wait::Adaptive,
        };
        options
    }

    fn shm<T: Message + ?Sized>(&self) -> ringway_shm::Options {
        let schema = Schema::of::<T>();
        let schema = ringway_shm::Schema {
            fingerprint: schema.fingerprint(),
            text: schema.text().to_owned(),
            payload_align: schema.align(),
        };
        ringway_shm::Options {
            directory: self.directory.clone(),
            capacity: self.capacity,
            record_align: self.align,
            wait: self.wait,
            ..ringway_shm::Options::new(&self.name, schema)
        }
    }
}

/// How archives look in this build: rkyv's features decide.
fn format() -> Format {
    let little = rkyv::to_bytes::<Failure>(&1_u16).is_ok_and(|bytes| bytes.first() == Some(&1));
    Format {
        endian: if little { 1 } else { 2 },
        pointer: size_of::<rkyv::primitive::ArchivedUsize>() as u8,
        align: align_of::<rkyv::primitive::ArchivedU64>() as u8,
    }
}

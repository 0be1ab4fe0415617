//! The builder behind [`crate::sender`] and [`crate::receiver`]: every option of an address as a
//! method, with its default.

use std::path::PathBuf;
use std::time::Duration;

use ringway_net::session::Format;
use ringway_net::{Backend, Congestion, Io, Reins, Side, Tuning};
use ringway_shm::{Kind, Overflow, Read, Redeliver, Until, Wait};
use rkyv::rancor::Failure;

use crate::address::{Address, Host};
use crate::channel::{Receiver, Sender};
use crate::cpu_latency::CpuLatency;
use crate::describe::Schema;
use crate::error::Error;
use crate::message::Message;
use crate::remote::{Medium, only_here, only_threads};

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
    backend: Backend,
    tuning: Tuning,
    name: String,
    directory: Option<PathBuf>,
    capacity: Option<u64>,
    align: Option<u32>,
    wait: Option<Wait>,
    kind: Option<Kind>,
    overflow: Option<Overflow>,
    history: Option<u64>,
    read: Read,
    slots: Option<u64>,
    slot: Option<u32>,
    redeliver: Option<Redeliver>,
    until: Option<Until>,
    linger: Option<Duration>,
    io: Io,
    io_core: Option<usize>,
    io_name: Option<String>,
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
            backend: options.backend.unwrap_or_default(),
            tuning: Tuning {
                congestion: options.congestion,
                // What no buffer can have is refused where the channel is opened.
                send_buffer: options
                    .send_buffer
                    .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
                recv_buffer: options
                    .recv_buffer
                    .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            },
            name: address.name().to_owned(),
            directory: None,
            capacity: options.capacity,
            align: options.align,
            wait: options.wait,
            kind: options.kind,
            overflow: options.overflow,
            history: options.history,
            read: options.read.unwrap_or_default(),
            slots: options.slots,
            // What no slot can have is refused where the channel is opened, too large or much too large.
            slot: options.slot.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
            redeliver: options.redeliver,
            until: options.until,
            linger: None,
            io: options.io.unwrap_or_default(),
            // What no core can be is refused where the channel is opened, too large or much too large.
            io_core: options.io_core.map(|core| usize::try_from(core).unwrap_or(usize::MAX)),
            io_name: None,
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

    /// Between hosts: what moves the bytes. The other end may have another. Default: io_uring, and
    /// where the system has none or denies it, epoll, which standard error is told once. Which one it
    /// became, [`Sender::backend`] and [`Receiver::backend`] tell.
    #[must_use]
    pub fn backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// Between hosts: the sockets' congestion control. A name that the system does not have, or does not
    /// allow, is an error when the channel is opened, with those that it does. Default: cubic, or reno.
    #[must_use]
    pub fn congestion(self, congestion: Congestion) -> Self {
        Self { tuning: Tuning { congestion: Some(congestion), ..self.tuning }, ..self }
    }

    /// Between hosts: bytes of the kernel's send buffer, which the kernel bounds (`net.core.wmem_max`) and
    /// doubles; [`Sender::net_stats`] tells what it became. Default: the kernel adapts it.
    #[must_use]
    pub fn send_buffer(self, bytes: usize) -> Self {
        Self { tuning: Tuning { send_buffer: Some(bytes), ..self.tuning }, ..self }
    }

    /// Between hosts: bytes of the kernel's receive buffer, likewise (`net.core.rmem_max`).
    #[must_use]
    pub fn recv_buffer(self, bytes: usize) -> Self {
        Self { tuning: Tuning { recv_buffer: Some(bytes), ..self.tuning }, ..self }
    }

    /// Between hosts: the port, if it shall be another than the address names.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { host: self.host.map(|host| Host { port, ..host }), ..self }
    }

    /// Between hosts: how long the drop of a handle waits until the other end's host has all that this
    /// end had to say. What it does not have by then is lost, as the handle can't tell it any more. A peer
    /// whose connection has been gone for a second, because it was killed, say, is not waited for.
    /// Default: 2 s.
    #[must_use]
    pub fn linger(self, linger: Duration) -> Self {
        Self { linger: Some(linger), ..self }
    }

    /// Between hosts: who moves this end's bytes, the caller's own calls or a thread. [`Io`] tells what
    /// each costs, and what becomes of messages and connections while the caller is elsewhere. Default:
    /// the caller's calls.
    #[must_use]
    pub fn io(self, io: Io) -> Self {
        Self { io, ..self }
    }

    /// Of `io=thread`: the core that the thread stays on. Opening fails if this process may not use it.
    /// Default: any.
    #[must_use]
    pub fn io_core(self, core: usize) -> Self {
        Self { io_core: Some(core), ..self }
    }

    /// Of `io=thread`: the thread's name, of which the system shows 15 bytes. Default: `rw-` and the
    /// channel's name.
    #[must_use]
    pub fn io_name(self, name: impl Into<String>) -> Self {
        Self { io_name: Some(name.into()), ..self }
    }

    /// Who gets the messages. Default: one receiver.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Of a broadcast: what becomes of a receiver that is behind by a whole ring. Default: the sender
    /// waits for it.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        Self { overflow: Some(overflow), ..self }
    }

    /// Of a broadcast: so many of the latest messages are for receivers that come late, as far as the
    /// ring holds them. Default: 0, they get what is sent from then on.
    #[must_use]
    pub fn history(self, messages: u64) -> Self {
        Self { history: Some(messages), ..self }
    }

    /// What a receiver of a broadcast wants: every message, or, whenever it looks, the newest only.
    /// Each receiver may want something else; a sender need not say. Default: every one.
    #[must_use]
    pub fn read(self, read: Read) -> Self {
        Self { read, ..self }
    }

    /// Of an MPMC channel: how many messages it holds, a power of two from 2 to 2^24. Default: 4096.
    #[must_use]
    pub fn slots(self, slots: u64) -> Self {
        Self { slots: Some(slots), ..self }
    }

    /// Of an MPMC channel: bytes of a slot, a multiple of 8 from 16 to below 1 MiB. A message takes one,
    /// less 8 bytes; where it has parts that need that alignment, both are 16. Slots adjoin: the
    /// smaller they are, the more messages go in one cache line. Default: 256.
    #[must_use]
    pub fn slot(self, bytes: u32) -> Self {
        Self { slot: Some(bytes), ..self }
    }

    /// Of an MPMC channel: what becomes of a message whose receiver dies with it. Default: another
    /// receiver gets it, flagged.
    #[must_use]
    pub fn redeliver(self, redeliver: Redeliver) -> Self {
        Self { redeliver: Some(redeliver), ..self }
    }

    /// Of an MPMC channel: when receivers are told that it has ended, once all messages were released.
    /// Default: never, as there may always come another sender.
    #[must_use]
    pub fn until(self, until: Until) -> Self {
        Self { until: Some(until), ..self }
    }

    /// Keeps idle cores from deep sleep while this handle or a clone of it lives, in this process and not in
    /// children that it forks, which makes waking a sleeper about five times faster. Needs permission to write
    /// `/dev/cpu_dma_latency`. Default: off.
    #[must_use]
    pub fn hold_cpu_latency(self, hold: bool) -> Self {
        Self { hold_cpu_latency: hold, ..self }
    }

    /// Where channels live: a directory on a tmpfs. Both sides must name the same. Between hosts: where
    /// this process shows its counters to tools ([`crate::watch`]). Default: `$RINGWAY_DIR`, or
    /// `/dev/shm/ringway-<uid>`.
    #[must_use]
    pub fn directory(self, path: impl Into<PathBuf>) -> Self {
        Self { directory: Some(path.into()), ..self }
    }

    /// Opens the sending end.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn sender<T: Message + ?Sized>(&self) -> Result<Sender<T>, Error> {
        Sender::open(&self.medium::<T>()?, self.cpu_latency()?)
    }

    /// Opens the receiving end.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn receiver<T: Message + ?Sized>(&self) -> Result<Receiver<T>, Error> {
        Receiver::open(&self.medium::<T>()?, self.cpu_latency()?)
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

    fn medium<T: Message + ?Sized>(&self) -> Result<Medium, Error> {
        let Some(host) = &self.host else { return Ok(Medium::Shm(self.shm::<T>(), self.read)) };
        if let Some(option) = self.not_of_tcp() {
            return Err(only_here(&self.name, option));
        }
        if let Some(option) = self.not_of_inline() {
            return Err(only_threads(&self.name, option));
        }
        Ok(Medium::Net(Box::new(self.net::<T>(host)), self.directory.clone()))
    }

    /// The first option that was set and that a channel between hosts does not have. `align` makes no
    /// difference there.
    fn not_of_tcp(&self) -> Option<&'static str> {
        let shared = self.kind == Some(Kind::Mpmc);
        let broadcast = self.kind == Some(Kind::Broadcast);
        [
            ("overflow", self.overflow.is_some() && !broadcast),
            ("history", self.history.is_some()),
            ("read", self.read != Read::default()),
            ("slots", self.slots.is_some()),
            ("slot", self.slot.is_some()),
            ("redeliver", self.redeliver.is_some()),
            ("until", self.until.is_some() && !shared),
        ]
        .into_iter()
        .find_map(|(option, is_set)| is_set.then_some(option))
    }

    /// The first option that was set and that only `io=thread` has.
    fn not_of_inline(&self) -> Option<&'static str> {
        match (self.io, self.io_core, &self.io_name) {
            (Io::Inline, Some(_), _) => Some("io_core"),
            (Io::Inline, _, Some(_)) => Some("io_name"),
            _ => None,
        }
    }

    fn net<T: Message + ?Sized>(&self, host: &Host) -> ringway_net::Options {
        let schema = Schema::of::<T>().fingerprint();
        let mut options =
            ringway_net::Options::new(&host.host, host.port, &self.name, schema, format());
        options.side = self.side;
        options.kind = match self.kind {
            Some(Kind::Mpmc) => ringway_net::Kind::Mpmc,
            Some(Kind::Broadcast) => ringway_net::Kind::Broadcast,
            _ => ringway_net::Kind::Pair,
        };
        options.overflow = match self.overflow {
            Some(Overflow::Overwrite) => ringway_net::Overflow::Overwrite,
            _ => ringway_net::Overflow::Block,
        };
        options.until_last = self.until == Some(Until::Last);
        options.backend = self.backend;
        options.tuning = self.tuning.clone();
        options.capacity = self.capacity.unwrap_or(options.capacity);
        options.linger = self.linger.unwrap_or(options.linger);
        options.io = self.io;
        options.thread = Reins { name: self.io_name.clone(), core: self.io_core };
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
            kind: self.kind,
            overflow: self.overflow,
            history: self.history,
            slots: self.slots,
            slot: self.slot,
            redeliver: self.redeliver,
            until: self.until,
            ..ringway_shm::Options::new(&self.name, schema)
        }
    }
}

/// How archives look in this build: rkyv's features decide.
pub(crate) fn format() -> Format {
    let little = rkyv::to_bytes::<Failure>(&1_u16).is_ok_and(|bytes| bytes.first() == Some(&1));
    Format {
        endian: if little { 1 } else { 2 },
        pointer: size_of::<rkyv::primitive::ArchivedUsize>() as u8,
        align: align_of::<rkyv::primitive::ArchivedU64>() as u8,
    }
}

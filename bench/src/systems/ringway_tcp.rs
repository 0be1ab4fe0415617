//! Ringway over TCP by either of its backends: one call per message, many queued under one flush, and one
//! call per message to a thread that sends. Messages of a type where there is one of the size, else plain bytes written in place. A channel, and
//! so a connection, for each way; the receivers bind.

use super::floor_tcp::{hear_port, tell_port};
use super::ringway_channel::fault;
use super::ringway_typed::{Beat, Order, Payload, Tick};
use crate::payload::{Seen, check, fill};
use crate::plan::Fault;
use crate::side::{Lane, Link, Look, Place, Rx, Side, Tx, open as open_link, sized};
use ringway::{Backend, Builder, Io, Receiver, Sender};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// `send`, or `claim` and `commit`, for each message.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open_as::<Each>(place)
}

/// `queue` for each message and `flush` for some hundred KiB, of which the kernel's price for a call is a
/// small part; and as much at a time with `recv_batch`.
pub(crate) fn open_batch(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open_as::<Batch>(place)
}

/// `send` for each message, to a thread that moves the bytes (`io=thread`); `recv_batch` without one.
pub(crate) fn open_thread(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    open_as::<Thread>(place)
}

fn open_as<M: Manner>(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    match place.seat.size {
        8 => open_link::<Tcp<Beat, M>>(place),
        48 => open_link::<Tcp<Tick, M>>(place),
        64 => open_link::<Tcp<Order, M>>(place),
        _ => sized!(place, N => Tcp<Bytes<N>, M>; 16 256 1024 4096 65536),
    }
}

/// How messages are handed over.
trait Manner: 'static {
    /// Many under one flush.
    const QUEUES: bool;
    /// To a thread of the sender's.
    const THREAD: bool;
}

struct Each;
struct Batch;
struct Thread;

impl Manner for Each {
    const QUEUES: bool = false;
    const THREAD: bool = false;
}

impl Manner for Batch {
    const QUEUES: bool = true;
    const THREAD: bool = false;
}

impl Manner for Thread {
    const QUEUES: bool = false;
    const THREAD: bool = true;
}

/// Why this system can't be opened here: io_uring may be denied.
pub(crate) fn lack(system: &str) -> Option<String> {
    if !system.starts_with("ringway-tcp-uring") {
        return None;
    }
    let channel = Builder::new("tcp://127.0.0.1:0/bench?side=bind&capacity=4KiB").ok()?;
    let error = channel.backend(Backend::Uring).receiver::<[u8]>().err()?;
    Some(error.to_string())
}

fn backend(system: &str) -> Backend {
    if system.contains("uring") { Backend::Uring } else { Backend::Epoll }
}

/// What a system sends: how a message is written, and how it is judged.
trait Content: 'static {
    type Message: ringway::Message + ?Sized;
    /// Bytes of one.
    const LEN: usize;

    fn send(tx: &mut Sender<Self::Message>, word: u64) -> Result<(), Fault>;
    fn queue(tx: &mut Sender<Self::Message>, word: u64) -> Result<(), Fault>;
    fn seen(view: &<Self::Message as ringway::Message>::View) -> Seen;
}

impl<T: Payload> Content for T {
    type Message = T;
    const LEN: usize = size_of::<T>();

    #[inline(always)]
    fn send(tx: &mut Sender<T>, word: u64) -> Result<(), Fault> {
        tx.send(&T::new(word)).map_err(fault)
    }

    #[inline(always)]
    fn queue(tx: &mut Sender<T>, word: u64) -> Result<(), Fault> {
        tx.queue(&T::new(word)).map_err(fault)
    }

    #[inline(always)]
    fn seen(view: &T::View) -> Seen {
        T::seen(view)
    }
}

/// `N` bytes, written in place.
struct Bytes<const N: usize>;

impl<const N: usize> Content for Bytes<N> {
    type Message = [u8];
    const LEN: usize = N;

    #[inline(always)]
    fn send(tx: &mut Sender<[u8]>, word: u64) -> Result<(), Fault> {
        let mut claim = tx.claim(N).map_err(fault)?;
        fill(&mut claim[..N], word);
        claim.commit().map_err(fault)
    }

    #[inline(always)]
    fn queue(tx: &mut Sender<[u8]>, word: u64) -> Result<(), Fault> {
        let mut claim = tx.claim(N).map_err(fault)?;
        fill(&mut claim[..N], word);
        claim.queue().map_err(fault)
    }

    #[inline(always)]
    fn seen(view: &[u8]) -> Seen {
        check::<N>(view)
    }
}

struct Tcp<C, M>(PhantomData<(C, M)>);

impl<C: Content, M: Manner> Link for Tcp<C, M> {
    type Tx = Sending<C, M>;
    type Rx = Receiving<C, M>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        let port = hear_port(place, lane)?;
        let mut builder = channel(place, lane, port, "connect")?;
        if M::THREAD {
            builder = builder.io(Io::Thread);
            if let Some(core) = place.seat.io_cpu {
                builder = builder.io_core(core);
            }
        }
        let tx = builder.sender().map_err(fault)?;
        Ok(Sending { tx, queued: 0, flush: place.seat.flush, manner: PhantomData })
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        let rx: Receiver<C::Message> =
            channel(place, lane, 0, "bind")?.receiver().map_err(fault)?;
        let bound = rx.local_addr().as_ref().map(SocketAddr::port);
        tell_port(place, lane, bound.ok_or_else(|| Fault::new("it is bound nowhere"))?);
        let batch = (place.seat.flush / C::LEN).max(1);
        Ok(Receiving { rx, batch, manner: PhantomData })
    }
}

fn channel(place: &Place<'_>, lane: Lane, port: u16, side: &str) -> Result<Builder, Fault> {
    let seat = place.seat;
    let more = match seat.channel_options.as_str() {
        "" => String::new(),
        options => format!("&{options}"),
    };
    let address = format!(
        "tcp://{}/{}?capacity={}&wait={}&side={side}&backend={}{more}",
        SocketAddr::new(place.host(lane), port),
        seat.channel,
        seat.capacity,
        seat.wait,
        backend(&seat.system)
    );
    Builder::new(&address).map_err(fault)
}

struct Sending<C: Content, M> {
    tx: Sender<C::Message>,
    queued: usize,
    /// Bytes of messages to a flush.
    flush: usize,
    manner: PhantomData<M>,
}

impl<C: Content, M: Manner> Tx for Sending<C, M> {
    #[inline(always)]
    fn send(&mut self, first: u64, mark: u64) -> Result<(), Fault> {
        if !M::QUEUES {
            return C::send(&mut self.tx, first | mark);
        }
        C::queue(&mut self.tx, first | mark)?;
        self.queued += C::LEN;
        if self.queued >= self.flush || mark != 0 {
            self.queued = 0;
            self.tx.flush().map_err(fault)?;
        }
        Ok(())
    }

    /// Without a thread, what the kernel did not take leaves with calls of this end only.
    fn finish(&mut self) -> Result<(), Fault> {
        let start = Instant::now();
        while self.tx.net_stats().is_some_and(|stats| stats.unsent_bytes > 0) {
            self.tx.flush().map_err(fault)?;
            if M::THREAD {
                // It may need this core.
                std::thread::yield_now();
            }
            if start.elapsed() > Duration::from_secs(30) {
                return Err(Fault::new("the other side takes nothing for 30 s"));
            }
        }
        Ok(())
    }
}

struct Receiving<C: Content, M> {
    rx: Receiver<C::Message>,
    /// Most messages at once.
    batch: usize,
    manner: PhantomData<M>,
}

impl<C: Content, M: Manner> Rx for Receiving<C, M> {
    #[inline(always)]
    fn recv(&mut self) -> Result<Seen, Fault> {
        Ok(C::seen(&*self.rx.recv().map_err(fault)?))
    }

    #[inline(always)]
    fn recv_some(&mut self, mut look: impl Look) -> Result<(), Fault> {
        if !M::QUEUES && !M::THREAD {
            look.at(self.recv()?);
            return Ok(());
        }
        let mut batch = self.rx.recv_batch(self.batch).map_err(fault)?;
        while let Some(message) = batch.next().map_err(fault)? {
            look.at(C::seen(&*message));
        }
        Ok(())
    }
}

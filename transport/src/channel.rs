//! [`Sender`] and [`Receiver`]: the verbs, the same for every medium.
//!
//! Whatever depends on where the bytes go is behind the ends of `ringway_shm` and `ringway_net`, of
//! which there are several flavors: `each!` is the one place that tells them apart. Whatever depends on
//! what the bytes mean is behind [`Message`].

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway_shm::{ErrorKind, HeldUp, Stats};
use rkyv::util::AlignedVec;

use crate::cpu_latency::CpuLatency;
use crate::elsewhere;
use crate::error::{BatchError, CloseError, Error, Peer, RecvError, SendError};
use crate::flavor::{AnyBatch, AnyClaim, BatchOutlet, Receiving, Sending};
use crate::guard::Guard;
use crate::message::{Batch, Borrowed, Claim, Message, Received, Scratch};
use crate::options::Builder;
use crate::peers::Peers;
use crate::put::{put, put_batch};
use crate::remote::{self, Medium};

/// Opens the sending end of the channel at `address`, such as `shm://ticks?capacity=4MiB&wait=spin`,
/// or `tcp://10.0.0.2:7000/ticks` between hosts. Either end may be opened first. Allocates and touches
/// the file system or the network; the verbs of the result do not allocate, and call the kernel only to
/// sleep, to wake, to ask after the peer and leave the core to others while they wait, and to reach another host.
///
/// # Errors
/// [`Error`], whose text names the remedy.
pub fn sender<T: Message + ?Sized>(address: &str) -> Result<Sender<T>, Error> {
    Builder::new(address)?.sender()
}

/// Opens the receiving end of the channel at `address`. Either end may be opened first.
///
/// # Errors
/// [`Error`], whose text names the remedy.
pub fn receiver<T: Message + ?Sized>(address: &str) -> Result<Receiver<T>, Error> {
    Builder::new(address)?.receiver()
}

/// Removes the channel at `address`, with every message in it, if nobody has it open. False: there
/// is none. Channels whose messages were all received go away by themselves when both ends close.
///
/// # Errors
/// [`crate::ErrorKind::RoleTaken`] when a process has it open; those of the file system.
pub fn remove(address: &str) -> Result<bool, Error> {
    Builder::new(address)?.remove()
}

/// The `match` on what flavor an end has, for verbs that are not in a hurry. The bodies are the same,
/// unless several are given.
macro_rules! each {
    ($kind:ident, $end:expr, $name:ident => $body:expr) => {
        each!($kind, $end, $name => $body, $body)
    };
    ($kind:ident, $end:expr, $name:ident => $body:expr, $remote:expr) => {
        each!($kind, $end, $name => $body, $body, $body, $remote)
    };
    ($kind:ident, $end:expr, $name:ident => $in_place:expr, $copied:expr, $shared:expr, $remote:expr) => {
        match $end {
            $kind::InPlace($name) => $in_place,
            $kind::Elsewhere(elsewhere::$kind::Copied($name)) => $copied,
            $kind::Elsewhere(elsewhere::$kind::Shared($name)) => $shared,
            $kind::Elsewhere(elsewhere::$kind::Remote($name)) => $remote,
        }
    };
}

/// The sending end. One per channel: opening a second is refused with who has the first. With `kind=mpmc` any
/// number, each of them opened or cloned ([`Sender::try_clone`]).
///
/// Every verb takes `&mut self`, so one thread at a time; the handle may move between threads.
/// Dropping it publishes what was queued and closes: the receiver gets everything, then
/// [`RecvError::Disconnected`]. A drop touches the file system, and may wait up to two seconds for
/// others who are just opening or closing the channel.
///
/// Between hosts a drop waits until the other host has everything, for at most
/// [`crate::Builder::linger`]; [`Sender::close`] waits for the receiver itself and tells. And the
/// calls of an end are what moves its bytes: what the kernel does not take at once leaves, broken
/// connections are mended and acknowledgements are read with the next call of any kind, of which
/// [`Sender::flush`] is the one that does nothing else. So whoever sends a request and then waits for its answer at
/// another end, after a connection broke, waits for ever if the request has not left: flush until
/// [`Sender::net_stats`] tells of no unsent bytes. An open waits for its first connection, for 1.5 s at most. With
/// `io=thread` a thread does all that, whether anybody calls or not: see [`crate::Io`].
#[derive(Debug)]
pub struct Sender<T: Message + ?Sized> {
    end: Sending,
    scratch: Scratch,
    cpu_latency: Option<CpuLatency>,
    _type: PhantomData<fn(&T)>,
}

/// How long a verb may wait.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    None,
    Forever,
    /// For one wait: the clock is read only when there is something to wait for.
    Within(Duration),
    /// For several.
    Until(Instant),
}

impl Patience {
    /// How long it is until then.
    pub(crate) fn left(deadline: Instant) -> Duration {
        deadline.saturating_duration_since(Instant::now())
    }

    /// Time-outs beyond what the clock can count are for ever.
    fn until(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Forever, Self::Until)
    }
}

/// A [`Patience`] in one register, for calls out of line: what goes there by way of memory is written
/// where it is made, which is on everybody's way.
#[derive(Clone, Copy)]
pub(crate) struct Limit(u64);

impl Limit {
    /// In nanoseconds from now; longer ones than it can tell, some 500 years, count as that.
    #[inline(always)]
    pub(crate) fn of(patience: Patience) -> Self {
        let within = |timeout: Duration| timeout.as_nanos().min(u128::from(Self::FOREVER - 2));
        Self(match patience {
            Patience::None => Self::NONE,
            Patience::Forever => Self::FOREVER,
            Patience::Within(timeout) => within(timeout) as u64,
            Patience::Until(deadline) => within(Patience::left(deadline)) as u64,
        })
    }

    /// Whether there is no end of it.
    pub(crate) fn is_forever(self) -> bool {
        self.0 == Self::FOREVER
    }

    pub(crate) fn patience(self) -> Patience {
        match self.0 {
            Self::NONE => Patience::None,
            Self::FOREVER => Patience::Forever,
            nanos => Patience::Within(Duration::from_nanos(nanos)),
        }
    }

    const FOREVER: u64 = u64::MAX;
    const NONE: u64 = u64::MAX - 1;
}

/// How many queued messages are expected before a flush, if nobody says.
const QUEUED: usize = 32;

/// When a message becomes visible.
#[derive(Clone, Copy)]
pub(crate) enum Publish {
    Now,
    Later,
}

/// A batch that was sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Messages.
    pub messages: usize,
    /// In how many publications. One means that the receiver, and a crash, see all of the batch or
    /// nothing; more means that the ring had no room for it at once.
    pub publications: u64,
}

impl<T: Message + ?Sized> Sender<T> {
    pub(crate) fn open(medium: &Medium, hold: Option<CpuLatency>) -> Result<Self, Error> {
        Ok(Self {
            end: remote::sending(medium)?,
            scratch: Scratch::default(),
            cpu_latency: hold,
            _type: PhantomData,
        })
    }

    /// Sends a message if there is room. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Full`], which names who is to make room; the others of [`SendError`].
    #[inline(always)]
    pub fn try_send(&mut self, message: &T) -> Result<(), SendError> {
        self.put(message, Patience::None, Publish::Now)
    }

    /// Sends a message. Blocks while the ring is full, and for as long as there is no receiver to
    /// make room.
    ///
    /// # Errors
    /// [`SendError::PeerDied`] within 100 ms of the death of a receiver that it waits for, on one host. Between
    /// hosts a receiver may come back when its connection broke: [`SendError::Lost`], or
    /// [`SendError::PeerDied`] where nothing was, after 30 s, or after 1 s when another one is there.
    #[inline(always)]
    pub fn send(&mut self, message: &T) -> Result<(), SendError> {
        self.put(message, Patience::Forever, Publish::Now)
    }

    /// As [`Self::send`], for at most `timeout`.
    ///
    /// # Errors
    /// [`SendError::Timeout`], which names who is to make room.
    pub fn send_timeout(&mut self, message: &T, timeout: Duration) -> Result<(), SendError> {
        self.put(message, Patience::Within(timeout), Publish::Now)
    }

    /// Writes a message into the ring and keeps it back until [`Self::flush`] or the next send. If
    /// the ring is full, what was queued before is published, so that the receiver can make room.
    ///
    /// With `kind=mpmc` on one host, the first of them claims places for 32, as far as they are free; the next
    /// message behind the last place publishes what is in them. Until then, messages of other senders
    /// that come after wait behind them: flush soon.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    #[inline(always)]
    pub fn try_queue(&mut self, message: &T) -> Result<(), SendError> {
        self.put(message, Patience::None, Publish::Later)
    }

    /// As [`Self::try_queue`], but waits for room.
    ///
    /// # Errors
    /// As [`Self::send`].
    #[inline(always)]
    pub fn queue(&mut self, message: &T) -> Result<(), SendError> {
        self.put(message, Patience::Forever, Publish::Later)
    }

    /// As [`Self::queue`], for at most `timeout`.
    ///
    /// # Errors
    /// As [`Self::send_timeout`].
    pub fn queue_timeout(&mut self, message: &T, timeout: Duration) -> Result<(), SendError> {
        self.put(message, Patience::Within(timeout), Publish::Later)
    }

    /// Publishes what was queued, all at once. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Forked`], [`SendError::Corrupt`]; between hosts also how a session ended, as a send tells it,
    /// and nobody else then: with [`SendError::Lost`] goes the number of messages lost.
    #[inline(always)]
    pub fn flush(&mut self) -> Result<(), SendError> {
        each!(Sending, &mut self.end, end => Ok(end.flush()?), Ok(BatchOutlet::flush(end.as_mut())?))
    }

    /// Sends many messages with one publication, if there is room for them all; as many as there
    /// is room for otherwise. Messages of one size share a record, which is several times cheaper
    /// than sending each. Never blocks.
    ///
    /// # Errors
    /// [`BatchError`] tells how many were sent.
    pub fn try_send_batch<M: Borrow<T>>(&mut self, messages: &[M]) -> Result<Sent, BatchError> {
        self.put_batch(messages, Patience::None)
    }

    /// As [`Self::try_send_batch`], but waits for room. A batch that the ring can't hold goes out in
    /// several publications, which the result tells.
    ///
    /// # Errors
    /// [`BatchError`] tells how many were sent.
    pub fn send_batch<M: Borrow<T>>(&mut self, messages: &[M]) -> Result<Sent, BatchError> {
        self.put_batch(messages, Patience::Forever)
    }

    /// As [`Self::send_batch`], for at most `timeout`.
    ///
    /// # Errors
    /// [`BatchError`] tells how many were sent.
    pub fn send_batch_timeout<M: Borrow<T>>(
        &mut self,
        messages: &[M],
        timeout: Duration,
    ) -> Result<Sent, BatchError> {
        self.put_batch(messages, Patience::until(timeout))
    }

    /// Closes the channel and tells what became of the messages. Between hosts: sends everything and
    /// waits, for at most `timeout`, until the receiving application has released it all; a drop is
    /// content when the other host has it. In shared memory everything that was sent is there for the
    /// receiver already, whether this process lives or not, and nothing is waited for.
    ///
    /// # Errors
    /// [`CloseError`] tells how much was not released by then, and why.
    pub fn close(self, timeout: Duration) -> Result<(), CloseError> {
        match self.end {
            Sending::Elsewhere(elsewhere::Sending::Remote(end)) => end.close(timeout),
            // Dropping it publishes what was queued.
            _ => Ok(()),
        }
    }

    /// Longest message, in bytes as serialised.
    pub fn max_len(&self) -> usize {
        each!(Sending, &self.end, end => end.max_len())
    }

    /// The receiver, if there is one. Of several the slowest, once one had to be waited for.
    pub fn peer(&self) -> Option<Peer> {
        each!(
            Sending,
            &self.end,
            end => end.peer().map(Peer::from),
            { let _ = end; None },
            end.peer().map(Peer::from),
            end.peer().map(Peer::from)
        )
    }

    /// Another sender on the same channel, wherever that was found when this handle was opened; for another thread
    /// or a later one: a participant of its own.
    ///
    /// # Errors
    /// As for opening; [`crate::ErrorKind::RoleTaken`] where a channel has one sender only,
    /// [`crate::ErrorKind::NoDirectory`] where it was removed meanwhile, [`crate::ErrorKind::Unsupported`] in a
    /// forked child.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let Sending::Elsewhere(elsewhere::Sending::Shared(end)) = &self.end else {
            return Err(one_only("sender"));
        };
        Ok(Self {
            end: Sending::Elsewhere(elsewhere::Sending::Shared(end.try_clone()?)),
            scratch: Scratch::default(),
            cpu_latency: self.cpu_latency.clone(),
            _type: PhantomData,
        })
    }

    /// Of an MPMC channel: who kept the last call that found no room, or waited for it, from going on,
    /// if that still does. It may be slow or stopped; if it dies, the channel goes on within 150 ms.
    pub fn held_up(&self) -> Option<HeldUp> {
        let Sending::Elsewhere(elsewhere::Sending::Shared(end)) = &self.end else { return None };
        end.held_up()
    }

    /// What the channel has done since this end was opened, or, with `kind=mpmc` on one host, since it was made.
    /// A dozen loads, or there some hundred; between hosts, a walk through what is not acknowledged, and with
    /// `io=thread` the thread stands still for it.
    pub fn stats(&self) -> Stats {
        each!(Sending, &self.end, end => end.stats(), remote::sent(&end.stats()))
    }

    /// Of a channel between hosts: who is at the other side, and, if there may be many, who has come and
    /// gone since it was last asked. Allocates.
    pub fn peers(&mut self) -> Option<Peers> {
        let Sending::Elsewhere(elsewhere::Sending::Remote(end)) = &mut self.end else {
            return None;
        };
        Some(end.peers().into())
    }

    /// Of a channel between hosts: what the connection has done.
    pub fn net_stats(&self) -> Option<ringway_net::Stats> {
        let Sending::Elsewhere(elsewhere::Sending::Remote(end)) = &self.end else { return None };
        Some(end.stats())
    }

    /// Of a channel between hosts: what moves the bytes of this end, `uring` or `epoll`.
    pub fn backend(&self) -> Option<&'static str> {
        let Sending::Elsewhere(elsewhere::Sending::Remote(end)) = &self.end else { return None };
        Some(end.backend())
    }

    /// Of a channel between hosts: where this end listens, or from where it is connected. Tells what
    /// became of port 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let Sending::Elsewhere(elsewhere::Sending::Remote(end)) = &self.end else { return None };
        end.local_addr()
    }

    /// A line of its own for each flavor that is in a hurry: where two come together, a claim that could be
    /// of either goes through memory.
    #[inline(always)]
    fn put(&mut self, message: &T, patience: Patience, publish: Publish) -> Result<(), SendError> {
        let scratch = &mut self.scratch;
        match &mut self.end {
            Sending::InPlace(end) => put(end, scratch, message, patience, publish, QUEUED),
            Sending::Elsewhere(elsewhere::Sending::Remote(end)) => {
                put(end.as_mut(), scratch, message, patience, publish, QUEUED)
            }
            Sending::Elsewhere(end) => put(end, scratch, message, patience, publish, QUEUED),
        }
    }

    fn put_batch<M: Borrow<T>>(
        &mut self,
        messages: &[M],
        patience: Patience,
    ) -> Result<Sent, BatchError> {
        let scratch = &mut self.scratch;
        each!(
            Sending,
            &mut self.end,
            end => put_batch(end, scratch, messages, patience),
            put_batch(end.as_mut(), scratch, messages, patience)
        )
    }
}

impl Sender<[u8]> {
    /// Room for a message of `len` bytes, to be written in place and committed. Never blocks.
    ///
    /// ```
    /// # let address = format!("shm://claim-{}", std::process::id());
    /// let mut tx = ringway::sender::<[u8]>(&address)?;
    /// let mut claim = tx.claim(5)?;
    /// claim.copy_from_slice(b"hello");
    /// claim.commit()?;
    /// assert_eq!(&*ringway::receiver::<[u8]>(&address)?.recv()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::try_send`].
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        self.room(len, Patience::None)
    }

    /// As [`Self::try_claim`], but waits for room.
    ///
    /// # Errors
    /// As [`Self::send`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        self.room(len, Patience::Forever)
    }

    /// As [`Self::claim`], for at most `timeout`.
    ///
    /// # Errors
    /// As [`Self::send_timeout`].
    pub fn claim_timeout(&mut self, len: usize, timeout: Duration) -> Result<Claim<'_>, SendError> {
        self.room(len, Patience::Within(timeout))
    }

    #[inline(always)]
    fn room(&mut self, len: usize, patience: Patience) -> Result<Claim<'_>, SendError> {
        AnyClaim::of(&mut self.end, len, patience).map(Claim)
    }
}

/// The receiving end. One per channel, unless its kind says otherwise: opening a second is refused
/// with who has the first.
///
/// Every verb takes `&mut self` and what it returns borrows the handle, so using two messages, or
/// two receivers of one channel, at once does not compile:
///
/// ```compile_fail
/// let mut rx = ringway::receiver::<[u8]>("shm://ticks").unwrap();
/// let first = rx.recv().unwrap();
/// let second = rx.recv().unwrap(); // `rx` is still borrowed by `first`
/// println!("{:?} {:?}", &*first, &*second);
/// ```
///
/// ```compile_fail
/// let rx = ringway::receiver::<[u8]>("shm://ticks").unwrap();
/// let twin = rx.clone(); // there is no second consumer
/// ```
///
/// Dropping it closes. In shared memory what was not received waits for the next receiver, or is for the
/// others with `kind=mpmc`; a broadcast's receiver leaves nothing. Between hosts it is lost, which the sender
/// is told ([`SendError::Lost`]), unless a bound sender of `kind=mpmc` hands it on. As with a sender, a drop
/// touches the file system, and between hosts waits, for at most [`crate::Builder::linger`], until the other
/// host knows.
#[derive(Debug)]
pub struct Receiver<T: Message + ?Sized> {
    end: Receiving,
    copy: AlignedVec,
    cpu_latency: Option<CpuLatency>,
    _type: PhantomData<fn() -> T>,
}

impl<T: Message + ?Sized> Receiver<T> {
    pub(crate) fn open(medium: &Medium, hold: Option<CpuLatency>) -> Result<Self, Error> {
        Ok(Self {
            end: remote::receiving(medium)?,
            copy: AlignedVec::new(),
            cpu_latency: hold,
            _type: PhantomData,
        })
    }

    /// The next message, validated and read in place, if there is one. Never blocks.
    ///
    /// # Errors
    /// [`RecvError::Empty`]; the others of [`RecvError`].
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Received<'_, T>, RecvError> {
        Received::new(self.receive(Patience::None)?)
    }

    /// As [`Self::try_recv`], but waits for a message, and for a sender to come.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] and [`RecvError::PeerDied`] tell once how a sender ended, after
    /// its last message; on one host a death within 100 ms. Between hosts after the last message that came: a
    /// sender may come back for 30 s after its connection broke, or for 1 s when another one is there.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Received<'_, T>, RecvError> {
        Received::new(self.receive(Patience::Forever)?)
    }

    /// As [`Self::recv`], for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::Timeout`].
    #[inline(always)]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Received<'_, T>, RecvError> {
        Received::new(self.receive(Patience::Within(timeout))?)
    }

    /// Up to `limit` messages that are there, given back together. Never blocks. With a
    /// `limit` of 0 the batch is empty, whatever there is to receive or to tell.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    #[inline(always)]
    pub fn try_recv_batch(&mut self, limit: usize) -> Result<Batch<'_, T>, RecvError> {
        self.receive_batch(limit, Patience::None)
    }

    /// As [`Self::try_recv_batch`], but waits for the first message, if `limit` is not 0.
    ///
    /// # Errors
    /// As [`Self::recv`].
    #[inline(always)]
    pub fn recv_batch(&mut self, limit: usize) -> Result<Batch<'_, T>, RecvError> {
        self.receive_batch(limit, Patience::Forever)
    }

    /// As [`Self::recv_batch`], waiting for the first message for at most `timeout`.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`].
    pub fn recv_batch_timeout(
        &mut self,
        limit: usize,
        timeout: Duration,
    ) -> Result<Batch<'_, T>, RecvError> {
        self.receive_batch(limit, Patience::Within(timeout))
    }

    /// As [`Self::try_recv`], for senders that are not trusted: the message is copied out first, and
    /// the copy validated. Allocates only while longer messages come than ever before.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    pub fn try_recv_copy(&mut self) -> Result<Borrowed<'_, T>, RecvError> {
        copy_out(Guard::receive(&mut self.end, Patience::None)?, &mut self.copy)
    }

    /// As [`Self::try_recv_copy`], but waits.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_copy(&mut self) -> Result<Borrowed<'_, T>, RecvError> {
        copy_out(Guard::receive(&mut self.end, Patience::Forever)?, &mut self.copy)
    }

    /// As [`Self::recv_copy`], for at most `timeout`.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`].
    pub fn recv_copy_timeout(&mut self, timeout: Duration) -> Result<Borrowed<'_, T>, RecvError> {
        copy_out(Guard::receive(&mut self.end, Patience::Within(timeout))?, &mut self.copy)
    }

    /// The sender whose messages are being read, if there is one.
    pub fn peer(&self) -> Option<Peer> {
        each!(Receiving, &self.end, end => end.peer().map(Peer::from))
    }

    /// Another receiver on the same channel, for another thread or a later one: a participant of its own.
    ///
    /// # Errors
    /// As [`Sender::try_clone`]; [`crate::ErrorKind::RoleTaken`] where this is no MPMC channel: open another
    /// receiver of a broadcast as the first.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let Receiving::Elsewhere(elsewhere::Receiving::Shared(end)) = &self.end else {
            return Err(one_only("receiver"));
        };
        Ok(Self {
            end: Receiving::Elsewhere(elsewhere::Receiving::Shared(end.try_clone()?)),
            copy: AlignedVec::new(),
            cpu_latency: self.cpu_latency.clone(),
            _type: PhantomData,
        })
    }

    /// Of an MPMC channel: who has claimed the next message and not published it, or, with `until=last` and
    /// no sender left, who has taken one and not released it; as of the last call that found or waited for
    /// nothing, if that is still so.
    pub fn held_up(&self) -> Option<HeldUp> {
        let Receiving::Elsewhere(elsewhere::Receiving::Shared(end)) = &self.end else {
            return None;
        };
        end.held_up()
    }

    /// What the channel has done since its sender opened it, or, with `kind=mpmc` on one host, since it was made;
    /// between hosts, since this end was opened. A dozen loads, or, with `kind=mpmc`, some hundred; with
    /// `io=thread` the thread stands still for it.
    pub fn stats(&self) -> Stats {
        each!(Receiving, &self.end, end => end.stats(), remote::received(&end.stats()))
    }

    /// Of a channel between hosts: who is at the other side, and, if there may be many, who has come and
    /// gone since it was last asked. Allocates.
    pub fn peers(&mut self) -> Option<Peers> {
        let Receiving::Elsewhere(elsewhere::Receiving::Remote(end)) = &mut self.end else {
            return None;
        };
        Some(end.peers().into())
    }

    /// Of a channel between hosts: what the connection has done.
    pub fn net_stats(&self) -> Option<ringway_net::Stats> {
        let Receiving::Elsewhere(elsewhere::Receiving::Remote(end)) = &self.end else {
            return None;
        };
        Some(end.stats())
    }

    /// Of a channel between hosts: what moves the bytes of this end, `uring` or `epoll`.
    pub fn backend(&self) -> Option<&'static str> {
        let Receiving::Elsewhere(elsewhere::Receiving::Remote(end)) = &self.end else {
            return None;
        };
        Some(end.backend())
    }

    /// Of a channel between hosts: where this end listens, or from where it is connected. Tells what
    /// became of port 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let Receiving::Elsewhere(elsewhere::Receiving::Remote(end)) = &self.end else {
            return None;
        };
        end.local_addr()
    }

    #[inline(always)]
    fn receive(&mut self, patience: Patience) -> Result<Guard<'_>, RecvError> {
        Guard::receive(&mut self.end, patience)
    }

    #[inline(always)]
    fn receive_batch(
        &mut self,
        limit: usize,
        patience: Patience,
    ) -> Result<Batch<'_, T>, RecvError> {
        let batch = AnyBatch::receive(&mut self.end, limit, patience)?;
        Ok(Batch { batch, _type: PhantomData })
    }
}

fn one_only(end: &str) -> Error {
    Error::Shm(ringway_shm::Error::new(
        ErrorKind::RoleTaken,
        format!("making another {end} of a channel"),
        "handles of this kind of channel can't be cloned",
        "Open the channel with `kind=mpmc`, or share the handle",
    ))
}

fn copy_out<'a, T: Message + ?Sized>(
    guard: Guard<'_>,
    copy: &'a mut AlignedVec,
) -> Result<Borrowed<'a, T>, RecvError> {
    let (sequence, redelivered) = (guard.sequence(), guard.redelivered());
    copy.resize(guard.len(), 0);
    guard.copy_to(copy);
    drop(guard);
    match T::view(copy) {
        Some(view) => Ok(Borrowed { view, sequence, redelivered }),
        None => Err(RecvError::Invalid { sequence }),
    }
}

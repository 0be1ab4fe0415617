//! The ends of a channel between hosts as a flavor beside those in shared memory, and which of them all
//! an address asks for. Everything of it is out of line: in the verbs it stands beside rings that have
//! no time to jump over it.
//!
//! Nothing here knows what the bytes mean.

use std::time::Instant;

use ringway_net::{NetReceiver, NetSender};
use ringway_shm::{
    BatchMessage, BatchRun, Consumer, MpmcReceiver, MpmcSender, Producer, Publisher, Read, Stats,
    Subscriber,
};

use crate::channel::{Patience, Publish};
use crate::error::{Error, RecvError};
use crate::flavor::{AnyBatch, ArrayRoom, Guard, Inlet, Outlet, Room};

/// What an end is opened with.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "lives for as long as an end is being opened")]
pub(crate) enum Medium {
    Shm(ringway_shm::Options, Read),
    Net(Box<ringway_net::Options>),
}

/// A sending end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the ends in shared memory are behind no pointer")]
pub(crate) enum Sending {
    InPlace(Producer),
    Copied(Publisher),
    Shared(MpmcSender),
    Remote(Box<NetSender>),
}

/// A receiving end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the ends in shared memory are behind no pointer")]
pub(crate) enum Receiving {
    InPlace(Consumer),
    Copied(Subscriber),
    Shared(MpmcReceiver),
    Remote(Box<NetReceiver>),
}

pub(crate) fn sending(medium: &Medium) -> Result<Sending, Error> {
    Ok(match medium {
        Medium::Shm(options, _) => match ringway_shm::sending(options)? {
            ringway_shm::Sending::InPlace(end) => Sending::InPlace(end),
            ringway_shm::Sending::Copied(end) => Sending::Copied(end),
            ringway_shm::Sending::Shared(end) => Sending::Shared(end),
        },
        Medium::Net(options) => Sending::Remote(Box::new(NetSender::open(options)?)),
    })
}

pub(crate) fn receiving(medium: &Medium) -> Result<Receiving, Error> {
    Ok(match medium {
        Medium::Shm(options, read) => match ringway_shm::receiving(options, *read)? {
            ringway_shm::Receiving::InPlace(end) => Receiving::InPlace(end),
            ringway_shm::Receiving::Copied(end) => Receiving::Copied(end),
            ringway_shm::Receiving::Shared(end) => Receiving::Shared(end),
        },
        Medium::Net(options) => Receiving::Remote(Box::new(NetReceiver::open(options)?)),
    })
}

/// The error for an option that was set for a channel between hosts, and that is not for these.
pub(crate) fn only_here(name: &str, option: &str) -> Error {
    Error::Net(ringway_net::Error::new(
        ringway_net::ErrorKind::BadOption,
        format!("opening channel {name:?} between hosts"),
        format!("`{option}` is set, which only channels in shared memory have"),
        "Leave it out: between hosts a channel has one sender and one receiver; or use `shm://`",
    ))
}

/// What both media count, as the sender knows it.
pub(crate) fn sent(net: &ringway_net::Stats) -> Stats {
    let mut stats = counted(net);
    stats.producer_parks = net.parks;
    stats
}

/// What both media count, as the receiver knows it.
pub(crate) fn received(net: &ringway_net::Stats) -> Stats {
    let mut stats = counted(net);
    stats.consumer_parks = net.parks;
    stats
}

fn counted(net: &ringway_net::Stats) -> Stats {
    let mut stats = Stats::default();
    stats.sent = net.messages;
    stats.received = net.released;
    stats.bytes = net.bytes;
    stats.depth = net.messages.saturating_sub(net.released + net.lost);
    stats.full_waits = net.full_waits;
    stats
}

impl Outlet for NetSender {
    type Error = ringway_net::SendError;
    type Claim<'a> = ringway_net::Claim<'a>;
    type ArrayClaim<'a> = NoArray;

    /// Each message has a header of its own.
    const HAS_ARRAYS: bool = false;

    #[inline(always)]
    fn claim_run(&mut self) -> Result<Option<Self::Claim<'_>>, Self::Error> {
        self.claim_run()
    }

    #[cold]
    #[inline(never)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Self::Claim<'_>, Self::Error> {
        match patience {
            Patience::None => self.try_claim(len),
            Patience::Forever => self.claim(len),
            Patience::Within(timeout) => self.claim_timeout(len, timeout),
            Patience::Until(deadline) => {
                self.claim_timeout(len, deadline.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn claim_array(
        &mut self,
        len: usize,
        _count: usize,
        _patience: Patience,
    ) -> Result<NoArray, Self::Error> {
        // `HAS_ARRAYS` says that there is none.
        Err(ringway_net::SendError::TooLarge { len, max: self.max_len() })
    }

    #[cold]
    #[inline(never)]
    fn flush(&mut self) -> Result<(), Self::Error> {
        self.flush()
    }

    fn max_len(&self) -> usize {
        self.max_len()
    }

    fn publications(&self) -> u64 {
        self.publications()
    }
}

impl Room for ringway_net::Claim<'_> {
    type Error = ringway_net::SendError;

    #[cold]
    #[inline(never)]
    fn finish(self, len: usize, publish: Publish) -> Result<(), Self::Error> {
        match publish {
            Publish::Now => self.commit_len(len),
            Publish::Later => self.queue_len(len),
        }
    }

    fn finish_whole(self, publish: Publish) -> Result<(), Self::Error> {
        let len = self.len();
        self.finish(len, publish)
    }
}

/// Nothing: every message goes by itself.
pub(crate) enum NoArray {}

impl ArrayRoom for NoArray {
    type Error = ringway_net::SendError;

    fn bytes(&mut self) -> &mut [u8] {
        match *self {}
    }

    fn queue(self, _count: usize) -> Result<(), Self::Error> {
        match self {}
    }
}

impl Inlet for Box<NetReceiver> {
    #[cold]
    #[inline(never)]
    fn receive(&mut self, patience: Patience) -> Result<Guard<'_>, RecvError> {
        Ok(Guard::Remote(match patience {
            Patience::None => self.try_recv()?,
            Patience::Forever => self.recv()?,
            Patience::Within(timeout) => self.recv_timeout(timeout)?,
            Patience::Until(deadline) => {
                self.recv_timeout(deadline.saturating_duration_since(Instant::now()))?
            }
        }))
    }

    #[cold]
    #[inline(never)]
    fn receive_batch(
        &mut self,
        limit: usize,
        patience: Patience,
    ) -> Result<AnyBatch<'_>, RecvError> {
        Ok(AnyBatch::Remote(match patience {
            Patience::None => self.try_recv_batch(limit)?,
            Patience::Forever => self.recv_batch(limit, None)?,
            Patience::Within(timeout) => self.recv_batch(limit, Some(timeout))?,
            Patience::Until(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.recv_batch(limit, Some(left))?
            }
        }))
    }
}

#[cold]
#[inline(never)]
pub(crate) fn next<'b>(
    batch: &'b mut ringway_net::Batch<'_>,
) -> Result<Option<BatchMessage<'b>>, RecvError> {
    Ok(batch.next()?.map(|message| BatchMessage {
        payload: message.payload,
        sequence: message.sequence,
        redelivered: false,
    }))
}

/// A message is a run of one.
#[cold]
#[inline(never)]
pub(crate) fn next_run<'b>(
    batch: &'b mut ringway_net::Batch<'_>,
) -> Result<Option<BatchRun<'b>>, RecvError> {
    Ok(batch.next()?.map(|message| BatchRun {
        payload: message.payload,
        len: message.payload.len(),
        count: 1,
        sequence: message.sequence,
        redelivered: false,
    }))
}

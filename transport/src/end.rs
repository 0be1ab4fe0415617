//! The two ends of a channel, whatever medium it is on: the one place that tells media apart. The
//! verbs are those of the crates below, and their errors come out as this crate's own.
//!
//! Nothing here knows what the bytes mean.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ringway_net::{NetReceiver, NetSender};
use ringway_shm::{Consumer, Producer, Stats};

use crate::error::{Error, Peer, RecvError, SendError};

/// What an end is opened with.
#[derive(Clone, Debug)]
pub(crate) enum Options {
    Shm(ringway_shm::Options),
    Net(Box<ringway_net::Options>),
}

/// A sending end.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the end in shared memory has no time for a pointer more"
)]
pub(crate) enum Sending {
    Shm(Producer),
    Net(Box<NetSender>),
}

impl Sending {
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        Ok(match options {
            Options::Shm(options) => Self::Shm(Producer::open(options)?),
            Options::Net(options) => Self::Net(Box::new(NetSender::open(options)?)),
        })
    }

    #[inline(always)]
    pub(crate) fn claim_run(&mut self) -> Result<Option<Claim<'_>>, SendError> {
        Ok(match self {
            Self::Shm(end) => end.claim_run()?.map(Claim::Shm),
            Self::Net(end) => end.claim_run()?.map(Claim::Net),
        })
    }

    #[inline(always)]
    pub(crate) fn try_claim(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        Ok(match self {
            Self::Shm(end) => Claim::Shm(end.try_claim(len)?),
            Self::Net(end) => Claim::Net(end.try_claim(len)?),
        })
    }

    #[inline(always)]
    pub(crate) fn claim(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        Ok(match self {
            Self::Shm(end) => Claim::Shm(end.claim(len)?),
            Self::Net(end) => Claim::Net(end.claim(len)?),
        })
    }

    #[inline(always)]
    pub(crate) fn claim_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<Claim<'_>, SendError> {
        Ok(match self {
            Self::Shm(end) => Claim::Shm(end.claim_timeout(len, timeout)?),
            Self::Net(end) => Claim::Net(end.claim_timeout(len, timeout)?),
        })
    }

    /// Where many equal messages can share a header; between hosts each has its own.
    #[inline(always)]
    pub(crate) fn arrays(&mut self) -> Option<&mut Producer> {
        match self {
            Self::Shm(end) => Some(end),
            Self::Net(_) => None,
        }
    }

    #[inline(always)]
    pub(crate) fn flush(&mut self) -> Result<(), SendError> {
        match self {
            Self::Shm(end) => end.flush()?,
            Self::Net(end) => end.flush()?,
        }
        Ok(())
    }

    pub(crate) fn publications(&self) -> u64 {
        match self {
            Self::Shm(end) => end.publications(),
            Self::Net(end) => end.publications(),
        }
    }

    #[inline(always)]
    pub(crate) fn max_len(&self) -> usize {
        match self {
            Self::Shm(end) => end.max_len(),
            Self::Net(end) => end.max_len(),
        }
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        match self {
            Self::Shm(end) => end.peer().map(Into::into),
            Self::Net(end) => end.peer().map(Into::into),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::Shm(end) => end.stats(),
            Self::Net(end) => {
                let mut stats = net_stats(&end.stats());
                stats.producer_parks = end.stats().parks;
                stats
            }
        }
    }

    pub(crate) fn net_stats(&self) -> Option<ringway_net::Stats> {
        match self {
            Self::Shm(_) => None,
            Self::Net(end) => Some(end.stats()),
        }
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Shm(_) => None,
            Self::Net(end) => end.local_addr(),
        }
    }
}

/// A receiving end.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the end in shared memory has no time for a pointer more"
)]
pub(crate) enum Receiving {
    Shm(Consumer),
    Net(Box<NetReceiver>),
}

impl Receiving {
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        Ok(match options {
            Options::Shm(options) => Self::Shm(Consumer::open(options)?),
            Options::Net(options) => Self::Net(Box::new(NetReceiver::open(options)?)),
        })
    }

    #[inline(always)]
    pub(crate) fn try_recv(&mut self) -> Result<Guard<'_>, RecvError> {
        Ok(match self {
            Self::Shm(end) => Guard::Shm(end.try_recv()?),
            Self::Net(end) => Guard::Net(end.try_recv()?),
        })
    }

    #[inline(always)]
    pub(crate) fn recv(&mut self) -> Result<Guard<'_>, RecvError> {
        Ok(match self {
            Self::Shm(end) => Guard::Shm(end.recv()?),
            Self::Net(end) => Guard::Net(end.recv()?),
        })
    }

    #[inline(always)]
    pub(crate) fn recv_timeout(&mut self, timeout: Duration) -> Result<Guard<'_>, RecvError> {
        Ok(match self {
            Self::Shm(end) => Guard::Shm(end.recv_timeout(timeout)?),
            Self::Net(end) => Guard::Net(end.recv_timeout(timeout)?),
        })
    }

    #[inline(always)]
    pub(crate) fn try_recv_batch(&mut self, limit: usize) -> Result<Batch<'_>, RecvError> {
        Ok(match self {
            Self::Shm(end) => Batch::Shm(end.try_recv_batch(limit)?),
            Self::Net(end) => Batch::Net(end.try_recv_batch(limit)?),
        })
    }

    #[inline(always)]
    pub(crate) fn recv_batch(
        &mut self,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<Batch<'_>, RecvError> {
        Ok(match self {
            Self::Shm(end) => Batch::Shm(end.recv_batch(limit, timeout)?),
            Self::Net(end) => Batch::Net(end.recv_batch(limit, timeout)?),
        })
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        match self {
            Self::Shm(end) => end.peer().map(Into::into),
            Self::Net(end) => end.peer().map(Into::into),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::Shm(end) => end.stats(),
            Self::Net(end) => {
                let mut stats = net_stats(&end.stats());
                stats.consumer_parks = end.stats().parks;
                stats
            }
        }
    }

    pub(crate) fn net_stats(&self) -> Option<ringway_net::Stats> {
        match self {
            Self::Shm(_) => None,
            Self::Net(end) => Some(end.stats()),
        }
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Shm(_) => None,
            Self::Net(end) => end.local_addr(),
        }
    }
}

/// What both media count.
fn net_stats(net: &ringway_net::Stats) -> Stats {
    let mut stats = Stats::default();
    stats.sent = net.messages;
    stats.received = net.released;
    stats.bytes = net.bytes;
    stats.depth = net.messages.saturating_sub(net.released + net.lost);
    stats.full_waits = net.full_waits;
    stats
}

/// Room for one message.
#[derive(Debug)]
pub(crate) enum Claim<'a> {
    Shm(ringway_shm::Claim<'a>),
    Net(ringway_net::Claim<'a>),
}

impl Claim<'_> {
    #[inline(always)]
    pub(crate) fn commit_len(self, len: usize) -> Result<(), SendError> {
        match self {
            Self::Shm(claim) => claim.commit_len(len)?,
            Self::Net(claim) => claim.commit_len(len)?,
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn queue_len(self, len: usize) -> Result<(), SendError> {
        match self {
            Self::Shm(claim) => claim.queue_len(len)?,
            Self::Net(claim) => claim.queue_len(len)?,
        }
        Ok(())
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Shm(claim) => claim,
            Self::Net(claim) => claim,
        }
    }
}

impl DerefMut for Claim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Shm(claim) => claim,
            Self::Net(claim) => claim,
        }
    }
}

/// A received message.
#[derive(Debug)]
pub(crate) enum Guard<'a> {
    Shm(ringway_shm::Received<'a>),
    Net(ringway_net::Received<'a>),
}

impl Guard<'_> {
    /// Between hosts a receiver that died takes its session with it: nothing comes again.
    pub(crate) fn redelivered(&self) -> bool {
        match self {
            Self::Shm(guard) => guard.redelivered(),
            Self::Net(_) => false,
        }
    }

    #[inline(always)]
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Self::Shm(guard) => guard.sequence(),
            Self::Net(guard) => guard.sequence(),
        }
    }

    pub(crate) fn copy_to(&self, to: &mut [u8]) {
        match self {
            Self::Shm(guard) => guard.copy_to(to),
            Self::Net(guard) => guard.copy_to(to),
        }
    }
}

impl Deref for Guard<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Shm(guard) => guard,
            Self::Net(guard) => guard,
        }
    }
}

/// Several received messages.
#[derive(Debug)]
pub(crate) enum Batch<'a> {
    Shm(ringway_shm::Batch<'a>),
    Net(ringway_net::Batch<'a>),
}

/// One of them.
pub(crate) struct BatchMessage<'b> {
    pub payload: &'b [u8],
    pub sequence: u64,
    pub redelivered: bool,
}

impl Batch<'_> {
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        Ok(match self {
            Self::Shm(batch) => batch.next()?.map(|message| BatchMessage {
                payload: message.payload,
                sequence: message.sequence,
                redelivered: message.redelivered,
            }),
            Self::Net(batch) => batch.next()?.map(|message| BatchMessage {
                payload: message.payload,
                sequence: message.sequence,
                redelivered: false,
            }),
        })
    }
}

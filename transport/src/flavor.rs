//! What the ends of a channel have in common, whatever the ring under them does: the verbs that
//! [`crate::Sender`] and [`crate::Receiver`] are made of. Which flavor a channel has is matched in
//! `channel`, and nowhere else.
//!
//! Nothing here knows what the bytes mean.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use ringway_shm::{
    ArrayClaim, BatchMessage, BatchRun, Claim, Consumer, Copied, CopiedArray, MpmcClaim,
    MpmcReceived, MpmcReceiver, MpmcSender, Producer, Publisher, Received, ReceivedCopy,
    SendError as ShmSendError, Subscriber,
};

use crate::channel::{Patience, Publish};
use crate::error::{RecvError, SendError};
use crate::remote;

/// A sending end.
pub(crate) trait Outlet {
    /// Why not, in the medium's words: an error is translated where it is handed out.
    type Error: Into<SendError>;
    /// Room for one message.
    type Claim<'a>: Room<Error = Self::Error>
    where
        Self: 'a;
    /// Room for many.
    type ArrayClaim<'a>: ArrayRoom<Error = Self::Error>
    where
        Self: 'a;

    /// Whether it has room for many messages in one piece.
    const HAS_ARRAYS: bool = true;

    /// Told before a message is queued: how many may come before the flush, this one included.
    #[inline(always)]
    fn expect(&mut self, _messages: usize) -> Result<(), Self::Error> {
        Ok(())
    }

    /// What is free in one piece; `None`: ask [`Self::claim`].
    fn claim_run(&mut self) -> Result<Option<Self::Claim<'_>>, Self::Error>;
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Self::Claim<'_>, Self::Error>;
    fn claim_array(
        &mut self,
        len: usize,
        count: usize,
        patience: Patience,
    ) -> Result<Self::ArrayClaim<'_>, Self::Error>;
    fn flush(&mut self) -> Result<(), Self::Error>;
    fn max_len(&self) -> usize;
    fn publications(&self) -> u64;
}

/// Room for one message.
pub(crate) trait Room: DerefMut<Target = [u8]> {
    type Error: Into<SendError>;

    /// The first `len` bytes of it.
    fn finish(self, len: usize, publish: Publish) -> Result<(), Self::Error>;
    /// All of it, whose size in the ring is known already.
    fn finish_whole(self, publish: Publish) -> Result<(), Self::Error>;
}

macro_rules! room {
    ($($claim:ident)*) => {$(
        impl Room for $claim<'_> {
            type Error = ShmSendError;

            #[inline(always)]
            fn finish(self, len: usize, publish: Publish) -> Result<(), ShmSendError> {
                match publish {
                    Publish::Now => self.commit_len(len),
                    Publish::Later => self.queue_len(len),
                }
            }

            #[inline(always)]
            fn finish_whole(self, publish: Publish) -> Result<(), ShmSendError> {
                match publish {
                    Publish::Now => self.commit(),
                    Publish::Later => self.queue(),
                }
            }
        }
    )*};
}
room!(Claim Copied MpmcClaim);

/// Room for many messages.
pub(crate) trait ArrayRoom {
    type Error: Into<SendError>;

    fn bytes(&mut self) -> &mut [u8];
    fn queue(self, count: usize) -> Result<(), Self::Error>;
}

impl Outlet for Producer {
    type Error = ShmSendError;
    type Claim<'a> = Claim<'a>;
    type ArrayClaim<'a> = ArrayClaim<'a>;

    #[inline(always)]
    fn claim_run(&mut self) -> Result<Option<Claim<'_>>, ShmSendError> {
        self.claim_run()
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Claim<'_>, ShmSendError> {
        match patience {
            Patience::None => self.try_claim(len),
            Patience::Forever => self.claim(len),
            Patience::Within(timeout) => self.claim_timeout(len, timeout),
            Patience::Until(deadline) => {
                self.claim_timeout(len, deadline.saturating_duration_since(Instant::now()))
            }
        }
    }

    #[inline(always)]
    fn claim_array(
        &mut self,
        len: usize,
        count: usize,
        patience: Patience,
    ) -> Result<ArrayClaim<'_>, ShmSendError> {
        match patience {
            Patience::None => self.try_claim_array(len, count),
            Patience::Forever => self.claim_array(len, count),
            Patience::Within(timeout) => self.claim_array_timeout(len, count, timeout),
            Patience::Until(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.claim_array_timeout(len, count, left)
            }
        }
    }

    #[inline(always)]
    fn flush(&mut self) -> Result<(), ShmSendError> {
        self.flush()
    }

    #[inline(always)]
    fn max_len(&self) -> usize {
        self.max_len()
    }

    fn publications(&self) -> u64 {
        self.publications()
    }
}

impl ArrayRoom for ArrayClaim<'_> {
    type Error = ShmSendError;

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.bytes()
    }

    #[inline(always)]
    fn queue(self, count: usize) -> Result<(), ShmSendError> {
        self.queue(count)
    }
}

/// Never waits, so it needs no patience.
impl Outlet for Publisher {
    type Error = ShmSendError;
    type Claim<'a> = Copied<'a>;
    type ArrayClaim<'a> = CopiedArray<'a>;

    #[inline(always)]
    fn claim_run(&mut self) -> Result<Option<Copied<'_>>, ShmSendError> {
        self.claim_run().map(Some)
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, _patience: Patience) -> Result<Copied<'_>, ShmSendError> {
        self.claim(len)
    }

    #[inline(always)]
    fn claim_array(
        &mut self,
        len: usize,
        count: usize,
        _patience: Patience,
    ) -> Result<CopiedArray<'_>, ShmSendError> {
        self.claim_array(len, count)
    }

    #[inline(always)]
    fn flush(&mut self) -> Result<(), ShmSendError> {
        self.flush()
    }

    #[inline(always)]
    fn max_len(&self) -> usize {
        self.max_len()
    }

    fn publications(&self) -> u64 {
        self.publications()
    }
}

impl ArrayRoom for CopiedArray<'_> {
    type Error = ShmSendError;

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self.bytes()
    }

    #[inline(always)]
    fn queue(self, count: usize) -> Result<(), ShmSendError> {
        self.queue(count)
    }
}

/// Slots are claimed for all that is expected, so that it becomes visible at once.
impl Outlet for MpmcSender {
    type Error = ShmSendError;
    type Claim<'a> = MpmcClaim<'a>;
    type ArrayClaim<'a> = NoArray;

    const HAS_ARRAYS: bool = false;

    #[inline(always)]
    fn expect(&mut self, messages: usize) -> Result<(), ShmSendError> {
        self.reserve(messages)
    }

    #[inline(always)]
    fn claim_run(&mut self) -> Result<Option<MpmcClaim<'_>>, ShmSendError> {
        match self.try_claim(self.max_len()) {
            Ok(claim) => Ok(Some(claim)),
            Err(ShmSendError::Full { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<MpmcClaim<'_>, ShmSendError> {
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
    ) -> Result<NoArray, ShmSendError> {
        // `HAS_ARRAYS` says that there is none.
        Err(ShmSendError::TooLarge { len, max: self.max_len() })
    }

    #[inline(always)]
    fn flush(&mut self) -> Result<(), ShmSendError> {
        self.flush()
    }

    #[inline(always)]
    fn max_len(&self) -> usize {
        self.max_len()
    }

    fn publications(&self) -> u64 {
        self.publications()
    }
}

/// Nothing: slots are apart.
pub(crate) enum NoArray {}

impl ArrayRoom for NoArray {
    type Error = ShmSendError;

    fn bytes(&mut self) -> &mut [u8] {
        match *self {}
    }

    fn queue(self, _count: usize) -> Result<(), ShmSendError> {
        match self {}
    }
}

/// Room in a ring, or beside one.
#[derive(Debug)]
pub(crate) enum AnyClaim<'a> {
    InPlace(Claim<'a>),
    Copied(Copied<'a>),
    Shared(MpmcClaim<'a>),
    Remote(ringway_net::Claim<'a>),
}

impl Room for AnyClaim<'_> {
    type Error = SendError;

    #[inline(always)]
    fn finish(self, len: usize, publish: Publish) -> Result<(), SendError> {
        match self {
            Self::InPlace(claim) => Ok(claim.finish(len, publish)?),
            Self::Copied(claim) => Ok(claim.finish(len, publish)?),
            Self::Shared(claim) => Ok(claim.finish(len, publish)?),
            Self::Remote(claim) => Ok(claim.finish(len, publish)?),
        }
    }

    #[inline(always)]
    fn finish_whole(self, publish: Publish) -> Result<(), SendError> {
        match self {
            Self::InPlace(claim) => Ok(claim.finish_whole(publish)?),
            Self::Copied(claim) => Ok(claim.finish_whole(publish)?),
            Self::Shared(claim) => Ok(claim.finish_whole(publish)?),
            Self::Remote(claim) => Ok(claim.finish_whole(publish)?),
        }
    }
}

impl Deref for AnyClaim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(claim) => claim,
            Self::Copied(claim) => claim,
            Self::Shared(claim) => claim,
            Self::Remote(claim) => claim,
        }
    }
}

impl DerefMut for AnyClaim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(claim) => claim,
            Self::Copied(claim) => claim,
            Self::Shared(claim) => claim,
            Self::Remote(claim) => claim,
        }
    }
}

/// A received message, in a ring or copied out of one.
#[derive(Debug)]
pub(crate) enum Guard<'a> {
    InPlace(Received<'a>),
    Copied(ReceivedCopy<'a>),
    Shared(MpmcReceived<'a>),
    Remote(ringway_net::Received<'a>),
}

impl Guard<'_> {
    pub(crate) fn redelivered(&self) -> bool {
        match self {
            Self::InPlace(guard) => guard.redelivered(),
            Self::Copied(_) => false,
            // A receiver that died took its session with it: nothing comes again.
            Self::Remote(_) => false,
            Self::Shared(guard) => guard.redelivered(),
        }
    }

    #[inline(always)]
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Self::InPlace(guard) => guard.sequence(),
            Self::Copied(guard) => guard.sequence(),
            Self::Shared(guard) => guard.sequence(),
            Self::Remote(guard) => guard.sequence(),
        }
    }

    /// See [`Received::copy_to`]; what is a copy already is copied as it is.
    pub(crate) fn copy_to(&self, to: &mut [u8]) {
        match self {
            Self::InPlace(guard) => guard.copy_to(to),
            Self::Shared(guard) => guard.copy_to(to),
            Self::Remote(guard) => guard.copy_to(to),
            Self::Copied(guard) => {
                let len = to.len().min(guard.len());
                to[..len].copy_from_slice(&guard[..len]);
            }
        }
    }
}

impl Deref for Guard<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(guard) => guard,
            Self::Copied(guard) => guard,
            Self::Shared(guard) => guard,
            Self::Remote(guard) => guard,
        }
    }
}

/// Several received messages.
#[derive(Debug)]
pub(crate) enum AnyBatch<'a> {
    InPlace(ringway_shm::Batch<'a>),
    Copied(ringway_shm::CopiedBatch<'a>),
    Shared(ringway_shm::MpmcBatch<'a>),
    Remote(ringway_net::Batch<'a>),
}

impl AnyBatch<'_> {
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        match self {
            Self::InPlace(batch) => Ok(batch.next()?),
            Self::Shared(batch) => Ok(batch.next()?),
            Self::Remote(batch) => remote::next(batch),
            Self::Copied(batch) => Ok(batch.next()?.map(|message| BatchMessage {
                payload: message.payload,
                sequence: message.sequence,
                redelivered: false,
            })),
        }
    }

    /// A copy is a run of one, and so is a slot.
    #[inline(always)]
    pub(crate) fn next_run(&mut self) -> Result<Option<BatchRun<'_>>, RecvError> {
        match self {
            Self::InPlace(batch) => Ok(batch.next_run()?),
            Self::Remote(batch) => remote::next_run(batch),
            Self::Shared(batch) => Ok(batch.next()?.map(|message| BatchRun {
                payload: message.payload,
                len: message.payload.len(),
                count: 1,
                sequence: message.sequence,
                redelivered: message.redelivered,
            })),
            Self::Copied(batch) => Ok(batch.next()?.map(|message| BatchRun {
                payload: message.payload,
                len: message.payload.len(),
                count: 1,
                sequence: message.sequence,
                redelivered: false,
            })),
        }
    }
}

/// A receiving end.
pub(crate) trait Inlet {
    fn receive(&mut self, patience: Patience) -> Result<Guard<'_>, RecvError>;
    fn receive_batch(
        &mut self,
        limit: usize,
        patience: Patience,
    ) -> Result<AnyBatch<'_>, RecvError>;
}

macro_rules! inlet {
    ($end:ident, $flavor:ident) => {
        impl Inlet for $end {
            #[inline(always)]
            fn receive(&mut self, patience: Patience) -> Result<Guard<'_>, RecvError> {
                Ok(Guard::$flavor(match patience {
                    Patience::None => self.try_recv()?,
                    Patience::Forever => self.recv()?,
                    Patience::Within(timeout) => self.recv_timeout(timeout)?,
                    Patience::Until(deadline) => {
                        self.recv_timeout(deadline.saturating_duration_since(Instant::now()))?
                    }
                }))
            }

            #[inline(always)]
            fn receive_batch(
                &mut self,
                limit: usize,
                patience: Patience,
            ) -> Result<AnyBatch<'_>, RecvError> {
                Ok(AnyBatch::$flavor(match patience {
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
    };
}

inlet!(Consumer, InPlace);
inlet!(Subscriber, Copied);
inlet!(MpmcReceiver, Shared);

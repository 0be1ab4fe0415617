//! What the ends of a channel have in common, whatever the ring under them does: the verbs that
//! [`crate::Sender`] and [`crate::Receiver`] are made of. The ring of one writer is beside everything
//! else, which is `elsewhere`, so that its verbs are as short as if there were nothing else.
//!
//! Nothing here knows what the bytes mean.

use ringway_shm::layout::RUN_MAX;
use ringway_shm::{
    ArrayClaim, BatchMessage, BatchRun, Claim, Consumer, Copied, CopiedArray, MpmcArrayClaim,
    MpmcClaim, MpmcSender, Producer, Publisher, SendError as ShmSendError,
};
use std::ops::{Deref, DerefMut};

use crate::channel::{Limit, Patience, Publish};
use crate::elsewhere;
use crate::error::{RecvError, SendError};

/// A sending end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each channel, and behind no pointer")]
pub(crate) enum Sending {
    InPlace(Producer),
    Elsewhere(elsewhere::Sending),
}

/// A receiving end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each channel, and behind no pointer")]
pub(crate) enum Receiving {
    InPlace(Consumer),
    Elsewhere(elsewhere::Receiving),
}

/// The verbs for single messages.
pub(crate) trait Outlet {
    /// Why not, in the medium's words: an error is translated where it is handed out.
    type Error: Into<SendError>;
    /// Room for one message.
    type Claim<'a>: Room<Error = Self::Error>
    where
        Self: 'a;

    /// Told before a message is queued: how many may come before the flush, this one included.
    #[inline(always)]
    fn expect(&mut self, _messages: usize) -> Result<(), Self::Error> {
        Ok(())
    }

    /// What is free in one piece, for a message of a length that is known by writing it, and `likely`
    /// this; `None`: ask [`Self::claim`].
    fn claim_run(&mut self, likely: usize) -> Result<Option<Self::Claim<'_>>, Self::Error>;
    /// The same for a message that is probably of this length, and no longer.
    #[inline(always)]
    fn claim_at_once(&mut self, len: usize) -> Result<Option<Self::Claim<'_>>, Self::Error> {
        self.claim_run(len)
    }
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Self::Claim<'_>, Self::Error>;
}

/// The verbs for many.
pub(crate) trait BatchOutlet: Outlet {
    /// Room for many.
    type ArrayClaim<'a>: ArrayRoom<Error = Self::Error>
    where
        Self: 'a;

    /// Whether room for many messages of one length is cheaper than for each.
    const HAS_ARRAYS: bool = true;

    /// Most messages of `len` bytes that one claim may have. In a ring that is an eighth of it, and no more than
    /// a record can have: what is larger waits for room in pieces, while the receiver reads the piece before.
    #[inline(always)]
    fn array_max(&self, len: usize) -> usize {
        (self.max_len() / 4 / len).min(RUN_MAX as usize)
    }

    /// Room for `count` messages of `len` bytes; may be for fewer.
    fn claim_array(
        &mut self,
        len: usize,
        count: usize,
        patience: Patience,
    ) -> Result<Self::ArrayClaim<'_>, Self::Error>;
    /// As [`Self::claim_array`], where nobody has to be waited for. `None`: ask that.
    #[inline(always)]
    fn claim_array_at_once(
        &mut self,
        _len: usize,
        _count: usize,
    ) -> Result<Option<Self::ArrayClaim<'_>>, Self::Error> {
        Ok(None)
    }

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

    /// That of each, `len` bytes, one after the other.
    fn rooms(&mut self, len: usize) -> impl Iterator<Item = &mut [u8]>;
    /// The first `count` of them.
    fn finish(self, count: usize, publish: Publish) -> Result<(), Self::Error>;
}

macro_rules! array_room {
    ($($claim:ident: $this:ident, $len:ident => $rooms:expr;)*) => {$(
        impl ArrayRoom for $claim<'_> {
            type Error = ShmSendError;

            #[inline(always)]
            fn rooms(&mut self, $len: usize) -> impl Iterator<Item = &mut [u8]> {
                let $this = self;
                $rooms
            }

            #[inline(always)]
            fn finish(self, count: usize, publish: Publish) -> Result<(), ShmSendError> {
                match publish {
                    Publish::Now => self.commit(count),
                    Publish::Later => self.queue(count),
                }
            }
        }
    )*};
}
array_room! {
    ArrayClaim: claim, len => claim.bytes().chunks_exact_mut(len);
    CopiedArray: claim, len => claim.bytes().chunks_exact_mut(len);
    MpmcArrayClaim: claim, _len => claim.rooms();
}

impl Outlet for Producer {
    type Error = ShmSendError;
    type Claim<'a> = Claim<'a>;

    #[inline(always)]
    fn claim_run(&mut self, likely: usize) -> Result<Option<Claim<'_>>, ShmSendError> {
        Ok(self.claim_run(likely))
    }

    #[inline(always)]
    fn claim_at_once(&mut self, len: usize) -> Result<Option<Claim<'_>>, ShmSendError> {
        Ok(self.claim_at_once(len))
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<Claim<'_>, ShmSendError> {
        match patience {
            Patience::None => self.try_claim(len),
            Patience::Forever => self.claim(len),
            Patience::Within(timeout) => self.claim_timeout(len, timeout),
            Patience::Until(deadline) => self.claim_timeout(len, Patience::left(deadline)),
        }
    }
}

impl BatchOutlet for Producer {
    type ArrayClaim<'a> = ArrayClaim<'a>;

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
                let left = Patience::left(deadline);
                self.claim_array_timeout(len, count, left)
            }
        }
    }

    #[inline(always)]
    fn claim_array_at_once(
        &mut self,
        len: usize,
        count: usize,
    ) -> Result<Option<ArrayClaim<'_>>, ShmSendError> {
        Ok(self.claim_array_at_once(len, count))
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

/// Never waits, so it needs no patience.
impl Outlet for Publisher {
    type Error = ShmSendError;
    type Claim<'a> = Copied<'a>;

    #[inline(always)]
    fn claim_run(&mut self, _likely: usize) -> Result<Option<Copied<'_>>, ShmSendError> {
        self.claim_run().map(Some)
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, _patience: Patience) -> Result<Copied<'_>, ShmSendError> {
        self.claim(len)
    }
}

impl BatchOutlet for Publisher {
    type ArrayClaim<'a> = CopiedArray<'a>;

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
    fn claim_array_at_once(
        &mut self,
        len: usize,
        count: usize,
    ) -> Result<Option<CopiedArray<'_>>, ShmSendError> {
        self.claim_array(len, count).map(Some)
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

/// Slots are claimed for all that is expected, so that it becomes visible at once.
impl Outlet for MpmcSender {
    type Error = ShmSendError;
    type Claim<'a> = MpmcClaim<'a>;

    #[inline(always)]
    fn expect(&mut self, messages: usize) -> Result<(), ShmSendError> {
        self.reserve(messages)
    }

    #[inline(always)]
    fn claim_run(&mut self, _likely: usize) -> Result<Option<MpmcClaim<'_>>, ShmSendError> {
        self.claim_run()
    }

    #[inline(always)]
    fn claim(&mut self, len: usize, patience: Patience) -> Result<MpmcClaim<'_>, ShmSendError> {
        match patience {
            Patience::None => self.try_claim(len),
            Patience::Forever => self.claim(len),
            Patience::Within(timeout) => self.claim_timeout(len, timeout),
            Patience::Until(deadline) => self.claim_timeout(len, Patience::left(deadline)),
        }
    }
}

impl BatchOutlet for MpmcSender {
    type ArrayClaim<'a> = MpmcArrayClaim<'a>;

    #[inline(always)]
    fn array_max(&self, _len: usize) -> usize {
        self.batch_max()
    }

    #[inline(always)]
    fn claim_array(
        &mut self,
        len: usize,
        count: usize,
        patience: Patience,
    ) -> Result<MpmcArrayClaim<'_>, ShmSendError> {
        match patience {
            Patience::None => self.try_claim_array(len, count),
            Patience::Forever => self.claim_array(len, count, None),
            Patience::Within(timeout) => self.claim_array(len, count, Some(timeout)),
            Patience::Until(deadline) => {
                self.claim_array(len, count, Some(Patience::left(deadline)))
            }
        }
    }

    #[inline(always)]
    fn claim_array_at_once(
        &mut self,
        len: usize,
        count: usize,
    ) -> Result<Option<MpmcArrayClaim<'_>>, ShmSendError> {
        self.claim_array_at_once(len, count)
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

/// Room for one message, in the ring or elsewhere: where it is stands outside of whose it is, so that
/// writing need not ask.
#[derive(Debug)]
pub(crate) struct AnyClaim<'a> {
    room: *mut u8,
    len: usize,
    whose: Whose<'a>,
}

#[derive(Debug)]
enum Whose<'a> {
    InPlace(Claim<'a>),
    Elsewhere(elsewhere::Claim<'a>),
}

// SAFETY: the pointer goes where the claim's does, which is Send.
unsafe impl Send for AnyClaim<'_> {}

impl<'a> AnyClaim<'a> {
    #[inline(always)]
    pub(crate) fn of(
        end: &'a mut Sending,
        len: usize,
        patience: Patience,
    ) -> Result<Self, SendError> {
        let (room, whose) = match end {
            Sending::InPlace(end) => {
                let mut claim = Outlet::claim(end, len, patience)?;
                (claim.as_mut_ptr(), Whose::InPlace(claim))
            }
            Sending::Elsewhere(end) => {
                let mut claim = elsewhere::Claim::open(end, len, Limit::of(patience))?;
                (claim.as_mut_ptr(), Whose::Elsewhere(claim))
            }
        };
        Ok(Self { room, len, whose })
    }

    #[inline(always)]
    pub(crate) fn finish(self, len: usize, publish: Publish) -> Result<(), SendError> {
        match self.whose {
            Whose::InPlace(claim) => Ok(claim.finish(len, publish)?),
            Whose::Elsewhere(claim) => claim.finish(len, publish),
        }
    }

    #[inline(always)]
    pub(crate) fn finish_whole(self, publish: Publish) -> Result<(), SendError> {
        match self.whose {
            Whose::InPlace(claim) => Ok(claim.finish_whole(publish)?),
            Whose::Elsewhere(claim) => claim.finish_whole(publish),
        }
    }
}

impl Deref for AnyClaim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: whose it is granted `len` bytes there, to this claim alone, which keeps them.
        unsafe { std::slice::from_raw_parts(self.room, self.len) }
    }
}

impl DerefMut for AnyClaim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; what is claimed is to be written.
        unsafe { std::slice::from_raw_parts_mut(self.room, self.len) }
    }
}

/// Several received messages.
#[derive(Debug)]
pub(crate) enum AnyBatch<'a> {
    InPlace(ringway_shm::Batch<'a>),
    Elsewhere(elsewhere::Batch<'a>),
}

impl<'a> AnyBatch<'a> {
    #[inline(always)]
    pub(crate) fn receive(
        end: &'a mut Receiving,
        limit: usize,
        patience: Patience,
    ) -> Result<Self, RecvError> {
        Ok(match end {
            Receiving::InPlace(end) => Self::InPlace(match patience {
                Patience::None => end.try_recv_batch(limit)?,
                Patience::Forever => end.recv_batch(limit, None)?,
                Patience::Within(timeout) => end.recv_batch(limit, Some(timeout))?,
                Patience::Until(deadline) => {
                    end.recv_batch(limit, Some(Patience::left(deadline)))?
                }
            }),
            Receiving::Elsewhere(end) => {
                Self::Elsewhere(elsewhere::Batch::take(end, limit, Limit::of(patience))?)
            }
        })
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        match self {
            Self::InPlace(batch) => Ok(batch.next()?),
            Self::Elsewhere(batch) => batch.next(),
        }
    }

    #[inline(always)]
    pub(crate) fn next_run(&mut self) -> Result<Option<BatchRun<'_>>, RecvError> {
        match self {
            Self::InPlace(batch) => Ok(batch.next_run()?),
            Self::Elsewhere(batch) => batch.next_run(),
        }
    }
}

//! Room that a producer has claimed: for one message, or for many of one length.
//!
//! Where it comes from is `producer`'s business, and what becomes of it that of `spsc`.

use std::ops::{Deref, DerefMut};

use super::Producer;
use crate::error::SendError;
use crate::spsc::{self, Publish};

/// Room for one message. Write it through `DerefMut`, then commit or queue; dropping it aborts, and
/// nobody sees that it was. The bytes hold whatever was there before.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct Claim<'a> {
    producer: &'a mut Producer,
    claim: spsc::Claim,
    payload: *mut u8,
}

impl<'a> Claim<'a> {
    #[inline(always)]
    pub(super) fn new(producer: &'a mut Producer, claim: spsc::Claim) -> Self {
        let payload = producer.writer.payload(&claim);
        Self { producer, claim, payload }
    }

    /// Publishes the message, with everything queued before it.
    ///
    /// # Errors
    /// [`SendError::Forked`]: the room is the parent's.
    #[inline(always)]
    pub fn commit(self) -> Result<(), SendError> {
        self.finish(None, Publish::Now)
    }

    /// Publishes the first `len` bytes; more than claimed counts as all.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn commit_len(self, len: usize) -> Result<(), SendError> {
        let len = len.min(self.claim.room());
        self.finish(Some(len), Publish::Now)
    }

    /// Keeps the message back until [`Producer::flush`] or the next commit.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue(self) -> Result<(), SendError> {
        self.finish(None, Publish::Later)
    }

    /// As [`Self::queue`], with the first `len` bytes only.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue_len(self, len: usize) -> Result<(), SendError> {
        let len = len.min(self.claim.room());
        self.finish(Some(len), Publish::Later)
    }

    #[inline(always)]
    fn finish(self, len: Option<usize>, publish: Publish) -> Result<(), SendError> {
        match len {
            None => self.producer.writer.commit(self.claim, publish)?,
            Some(len) => self.producer.writer.commit_len(self.claim, len, publish)?,
        }
        if publish == Publish::Now {
            self.producer.ring();
        }
        Ok(())
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the writer granted these bytes to this claim; the consumer does not look at them
        // before the commit, and `producer` is borrowed mutably, so nobody here does either.
        unsafe { std::slice::from_raw_parts(self.payload, self.claim.room()) }
    }
}

impl DerefMut for Claim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the producer's side maps the ring for writing.
        unsafe { std::slice::from_raw_parts_mut(self.payload, self.claim.room()) }
    }
}

/// Room for several messages of one length, side by side. Dropping it aborts them all.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct ArrayClaim<'a> {
    pub(super) producer: &'a mut Producer,
    pub(super) claim: spsc::Claim,
    pub(super) len: usize,
    pub(super) count: usize,
}

impl ArrayClaim<'_> {
    /// All elements' bytes, without gaps; the first starts on 8 bytes, or on 16 where messages need that.
    #[inline(always)]
    pub fn bytes(&mut self) -> &mut [u8] {
        let payload = self.producer.writer.array_payload(&self.claim);
        // SAFETY: the claim is `len * count` bytes behind an array header, granted to it alone; as
        // in Claim::deref_mut.
        unsafe { std::slice::from_raw_parts_mut(payload, self.len * self.count) }
    }

    /// Publishes the first `count` messages (at least 1), with everything queued before them.
    ///
    /// # Errors
    /// As [`Claim::commit`].
    #[inline(always)]
    pub fn commit(self, count: usize) -> Result<(), SendError> {
        let count = count.clamp(1, self.count);
        self.producer.writer.commit_array(self.claim, self.len, count, Publish::Now)?;
        self.producer.ring();
        Ok(())
    }

    /// Keeps the first `count` messages (at least 1) back until the next publication.
    ///
    /// # Errors
    /// As [`Claim::commit`].
    #[inline(always)]
    pub fn queue(self, count: usize) -> Result<(), SendError> {
        let count = count.clamp(1, self.count);
        self.producer.writer.commit_array(self.claim, self.len, count, Publish::Later)?;
        Ok(())
    }
}

// SAFETY: everything but the raw `payload` pointer is Send, and that points into the mapping which
// the borrowed producer, itself Send, keeps.
unsafe impl Send for Claim<'_> {}

const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_sync<T: Sync>() {}
    is_send::<Claim<'_>>();
    is_send::<ArrayClaim<'_>>();
    is_sync::<ArrayClaim<'_>>();
};

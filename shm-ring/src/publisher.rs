//! The sending end of a broadcast that overwrites: writes a message beside the ring, copies it in, and
//! never waits for anybody.
//!
//! The ring is `spsc` on a memory that gives way (`overwrite`); which process may be here is the
//! business of `control` and `recover`. The end that waits for its subscribers is `producer`.

use std::ops::{Deref, DerefMut};

use crate::broadcast::Crier;
use crate::control::{Control, Role};
use crate::counters::Stats;
use crate::error::{Error, Fault, SendError};
use crate::layout::CLOSED;
use crate::liveness::Identity;
use crate::memory::RingMemory;
use crate::options::{Options, Overflow, Wait};
use crate::overwrite::write_words;
use crate::producer;
use crate::recover::{self, End};
use crate::registry::LockedDirectory;
use crate::segment::{Audience, Segment, SegmentMemory};
use crate::spsc::{self, ClaimError, Publish, Writer};
use crate::subscription;
use crate::wait;

/// What a message starts on, beside the ring as in it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct Chunk([u8; 16]);

/// The sending end. One per channel; every method needs `&mut self`, so one thread at a time. No verb
/// ever waits for a subscriber.
#[derive(Debug)]
pub struct Publisher {
    writer: Writer<SegmentMemory>,
    /// Messages are written here first: in the ring they may be read while they are written.
    scratch: Vec<Chunk>,
    sleepy: bool,
    crier: Crier,
    /// Sticky: what this end finds wrong in its own memory stays wrong.
    broken: Option<Fault>,
    segment: Segment,
    control: Control,
}

impl Publisher {
    /// Opens the channel for sending, creating it if need be. Allocates as much as the longest message
    /// takes, touches the file system, and may wait up to ten seconds for others who are just opening
    /// or closing the channel.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy; [`crate::ErrorKind::OptionMismatch`] if the channel is
    /// of another kind.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let who = Identity::of_this_process();
        let (directory, control) = Control::join(options, Role::Producer, &who)?;
        if !control.is_overwritten() {
            let error = subscription::copied_on_another_kind(&control);
            producer::leave(&control, directory);
            return Err(error);
        }
        Self::begin(directory, control, &who)
    }

    /// As [`Self::open`], of a channel whose role was taken, under its directory's lock.
    pub(crate) fn begin(
        directory: LockedDirectory,
        control: Control,
        who: &Identity,
    ) -> Result<Self, Error> {
        let segment = match producer::new_segment(&directory, &control, who) {
            Ok(segment) => segment,
            Err(error) => {
                producer::leave(&control, directory);
                return Err(error);
            }
        };
        drop(directory);
        let sleepy = control.wait() != Wait::Spin;
        if sleepy {
            wait::attach(&segment.memory().producer().bell);
        }
        let writer = Writer::new(segment.memory(), segment.geometry());
        // Untouched pages of it cost nothing.
        let scratch = vec![Chunk([0; 16]); writer.max_len().div_ceil(16)];
        Ok(Self {
            writer,
            scratch,
            sleepy,
            crier: Crier::new(sleepy),
            broken: None,
            segment,
            control,
        })
    }

    /// Longest message, in bytes: half the capacity less a record header.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        self.writer.max_len()
    }

    /// Room for a message of `len` bytes. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::Forked`], [`SendError::Corrupt`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<Copied<'_>, SendError> {
        self.usable()?;
        if len > self.max_len() {
            return Err(SendError::TooLarge { len, max: self.max_len() });
        }
        Ok(Copied { len, publisher: self })
    }

    /// Room for the longest message, for writers that learn the length of a message by writing it.
    /// Commit with [`Copied::commit_len`].
    ///
    /// # Errors
    /// As for [`Self::claim`].
    #[inline(always)]
    pub fn claim_run(&mut self) -> Result<Copied<'_>, SendError> {
        self.claim(self.max_len())
    }

    /// Room for `count` messages of `len` bytes each under one record header.
    ///
    /// # Errors
    /// As for [`Self::claim`]; [`SendError::TooLarge`] also if either is 0, or `count` above 2^20.
    #[inline]
    pub fn claim_array(&mut self, len: usize, count: usize) -> Result<CopiedArray<'_>, SendError> {
        self.usable()?;
        let total = len.saturating_mul(count);
        let max = self.writer.max_array_len();
        if total == 0 || total > max || count as u64 > crate::layout::RUN_MAX {
            return Err(SendError::TooLarge { len: total, max });
        }
        Ok(CopiedArray { len, count, publisher: self })
    }

    /// Publishes what was queued. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Forked`], [`SendError::Corrupt`].
    #[inline(always)]
    pub fn flush(&mut self) -> Result<(), SendError> {
        self.usable()?;
        if self.writer.flush() {
            self.ring();
        }
        Ok(())
    }

    /// Publications of batches so far.
    pub fn publications(&self) -> u64 {
        self.writer.flushes()
    }

    /// What this end's segment has seen. A dozen loads. Nobody is waited for, so nothing is known of
    /// how far the subscribers are: `received` is `sent`.
    pub fn stats(&self) -> Stats {
        Stats::of_broadcast(self.writer.memory(), None)
    }

    #[inline(always)]
    fn usable(&self) -> Result<(), SendError> {
        if self.writer.is_foreign() {
            return Err(SendError::Forked);
        }
        match self.broken {
            None => Ok(()),
            Some(fault) => Err(SendError::Corrupt(fault)),
        }
    }

    /// Room in the ring, which is there as soon as it is announced.
    #[inline(always)]
    fn room(
        &mut self,
        claim: impl Fn(&mut Writer<SegmentMemory>) -> Result<spsc::Claim, ClaimError>,
    ) -> Result<spsc::Claim, SendError> {
        loop {
            match claim(&mut self.writer) {
                Ok(claim) => return Ok(claim),
                Err(error) => self.announce_more(error)?,
            }
        }
    }

    #[cold]
    fn announce_more(&mut self, error: ClaimError) -> Result<(), SendError> {
        let fault = match error {
            ClaimError::Full => {
                let published = self.writer.published();
                let audience = self.writer.memory().audience();
                if matches!(audience, Some(Audience::Overwritten { leash, .. })
                    if leash.is_longer(published))
                {
                    return Ok(());
                }
                // What fills the ring is a batch of its own.
                if self.writer.flush() {
                    self.ring();
                    return Ok(());
                }
                Fault::Gate
            }
            ClaimError::TooLarge => {
                return Err(SendError::TooLarge { len: self.max_len() + 1, max: self.max_len() });
            }
            ClaimError::Corrupt(fault) => fault,
            ClaimError::Foreign => return Err(SendError::Forked),
        };
        self.broken = Some(fault);
        self.writer.memory().producer().end.poisoned.store_release(fault as u64);
        Err(SendError::Corrupt(fault))
    }

    #[inline(always)]
    fn put(&mut self, len: usize, publish: Publish) -> Result<(), SendError> {
        let claim = self.room(|writer| writer.try_claim(len))?;
        let at = self.writer.payload_at(&claim);
        write_words(self.writer.memory(), at, &self.scratch.as_flattened_bytes()[..len]);
        self.writer.commit(claim, publish)?;
        if publish == Publish::Now {
            self.ring();
        }
        Ok(())
    }

    fn put_array(&mut self, len: usize, count: usize, publish: Publish) -> Result<(), SendError> {
        let claim = self.room(|writer| writer.try_claim_array(len, count))?;
        let at = self.writer.array_payload_at(&claim);
        write_words(self.writer.memory(), at, &self.scratch.as_flattened_bytes()[..len * count]);
        self.writer.commit_array(claim, len, count, publish)?;
        Ok(())
    }

    /// After every publication.
    #[inline(always)]
    fn ring(&mut self) {
        if self.sleepy && self.crier.ring(self.writer.memory()) {
            self.writer.memory().producer().counters.wakes.bump(1);
        }
    }
}

impl Drop for Publisher {
    /// Publishes what was queued and leaves; subscribers get everything that they still can, then
    /// `Disconnected`. May wait up to two seconds for others who are just opening or closing the
    /// channel. In a forked child: does nothing.
    fn drop(&mut self) {
        if self.writer.is_foreign() {
            return;
        }
        if self.broken.is_none() {
            self.writer.flush();
        }
        // R9, pairs with A9 in the readers' glance: who sees it closed sees the last message.
        self.writer.memory().producer().end.state.store_release(CLOSED);
        self.ring();
        self.control.leave(Role::Producer);
        self.segment.unlock();
        recover::clear_if_last(&self.control, &End::Role(Role::Producer));
    }
}

/// Scratch memory as bytes.
trait AsBytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

impl AsBytes for [Chunk] {
    #[inline(always)]
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: a Chunk is 16 bytes without padding.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val(self)) }
    }

    #[inline(always)]
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; any bytes are a Chunk.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), size_of_val(self)) }
    }
}

/// Room for one message. Write it through `DerefMut`, then commit or queue; dropping it aborts. The
/// bytes hold whatever was there before.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct Copied<'a> {
    publisher: &'a mut Publisher,
    len: usize,
}

impl Copied<'_> {
    /// Publishes the message, with everything queued before it.
    ///
    /// # Errors
    /// [`SendError::Forked`]: the room is the parent's; [`SendError::Corrupt`].
    #[inline(always)]
    pub fn commit(self) -> Result<(), SendError> {
        self.publisher.put(self.len, Publish::Now)
    }

    /// Publishes the first `len` bytes; more than claimed counts as all.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn commit_len(self, len: usize) -> Result<(), SendError> {
        self.publisher.put(len.min(self.len), Publish::Now)
    }

    /// Keeps the message back until [`Publisher::flush`] or the next commit.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue(self) -> Result<(), SendError> {
        self.publisher.put(self.len, Publish::Later)
    }

    /// As [`Self::queue`], with the first `len` bytes only.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue_len(self, len: usize) -> Result<(), SendError> {
        self.publisher.put(len.min(self.len), Publish::Later)
    }
}

impl Deref for Copied<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        &self.publisher.scratch.as_flattened_bytes()[..self.len]
    }
}

impl DerefMut for Copied<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.publisher.scratch.as_flattened_bytes_mut()[..self.len]
    }
}

/// Room for several messages of one length, side by side. Dropping it aborts them all.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct CopiedArray<'a> {
    publisher: &'a mut Publisher,
    len: usize,
    count: usize,
}

impl CopiedArray<'_> {
    /// All elements' bytes, without gaps; the first starts on 8 bytes, or on 16 where messages need that.
    #[inline(always)]
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.publisher.scratch.as_flattened_bytes_mut()[..self.len * self.count]
    }

    /// Publishes the first `count` messages (at least 1), with everything queued before them.
    ///
    /// # Errors
    /// As [`Copied::commit`].
    #[inline(always)]
    pub fn commit(self, count: usize) -> Result<(), SendError> {
        self.publisher.put_array(self.len, count.clamp(1, self.count), Publish::Now)?;
        self.publisher.ring();
        Ok(())
    }

    /// Keeps the first `count` messages (at least 1) back until the next publication.
    ///
    /// # Errors
    /// As [`Copied::commit`].
    #[inline(always)]
    pub fn queue(self, count: usize) -> Result<(), SendError> {
        self.publisher.put_array(self.len, count.clamp(1, self.count), Publish::Later)
    }
}

/// Whether a channel's messages are copied in and out.
impl Control {
    pub(crate) fn is_overwritten(&self) -> bool {
        self.participants().is_some() && self.overflow() == Overflow::Overwrite
    }
}

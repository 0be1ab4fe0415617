//! The sending end of an MPMC channel: claims slots, publishes, waits for room.
//!
//! The queue itself is `mpmc`, who takes part `party`. Nothing here knows what the bytes mean.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use crate::counters::Stats;
use crate::error::{Error, Peer, SendError};
use crate::mpmc::{ClaimError, Sender, SlotMemory};
use crate::options::Options;
use crate::party::{HeldUp, Party, Side};
use crate::queue::QueueMemory;
use crate::wait::{self, Nap, ProbeClock, Waiter};

/// The sending end. Any number per channel, up to 64 senders and receivers together; every method needs
/// `&mut self`, so one thread at a time each.
#[derive(Debug)]
pub struct MpmcSender {
    sender: Sender<QueueMemory>,
    max_len: usize,
    /// Publications so far.
    publications: u64,
    party: Party,
}

impl MpmcSender {
    /// Opens the channel for sending, creating it if need be. Allocates, touches the file system, and
    /// may wait up to ten seconds for others who are just opening or closing the channel.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Party::join(options, Side::Sends).map(Self::new)
    }

    /// Another sender on the same channel, for another thread: a participant of its own, which may fail
    /// as [`Self::open`] may.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.party.another().map(Self::new)
    }

    fn new(party: Party) -> Self {
        let sender = Sender::new(party.memory.clone(), party.owner());
        let max_len = party.memory.room() as usize;
        Self { sender, max_len, publications: 0, party }
    }

    /// Longest message, in bytes: a slot less its header.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Room for a message of `len` bytes, written in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::TooLarge`], [`SendError::Corrupt`].
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<MpmcClaim<'_>, SendError> {
        self.usable(len)?;
        if !self.has_room() && !self.take_room(1)? {
            return Err(self.no_room_now());
        }
        Ok(MpmcClaim::new(self, len))
    }

    /// As [`Self::try_claim`], but waits for room.
    ///
    /// # Errors
    /// Never [`SendError::Full`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<MpmcClaim<'_>, SendError> {
        self.usable(len)?;
        if !self.has_room() && !self.take_room(1)? {
            self.wait_for_room(None)?;
        }
        Ok(MpmcClaim::new(self, len))
    }

    /// As [`Self::claim`], for at most `timeout`.
    ///
    /// # Errors
    /// [`SendError::Timeout`], which names who made no room.
    #[inline(always)]
    pub fn claim_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<MpmcClaim<'_>, SendError> {
        self.usable(len)?;
        if !self.has_room() && !self.take_room(1)? {
            self.wait_for_room(Some(timeout))?;
        }
        Ok(MpmcClaim::new(self, len))
    }

    /// Claims up to `count` slots with one swap, as many as are free, for messages that are queued and
    /// flushed together: to receivers, and under a crash, they are there all or none. What is not
    /// queued by then is given up. Until the flush, the slots keep everybody's later messages waiting.
    /// Never blocks; does nothing if slots are claimed already.
    ///
    /// # Errors
    /// [`SendError::Corrupt`], [`SendError::Forked`]; a full queue is none.
    #[inline(always)]
    pub fn reserve(&mut self, count: usize) -> Result<(), SendError> {
        self.usable(0)?;
        if count > 0 && !self.has_room() {
            self.take_room(count as u64)?;
        }
        Ok(())
    }

    /// Publishes what was queued. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Forked`].
    #[inline(always)]
    pub fn flush(&mut self) -> Result<(), SendError> {
        self.usable(0)?;
        if self.sender.claimed() > 0 {
            self.publish();
        }
        Ok(())
    }

    /// Publishes the first `len` bytes of the room that was claimed last and whose guard was forgotten, at
    /// once or with the flush: what the guard would have done. Nothing, if there is no such room.
    ///
    /// # Errors
    /// [`SendError::Forked`]: the room is the parent's.
    #[inline(always)]
    pub fn finish(&mut self, len: usize, now: bool) -> Result<(), SendError> {
        if self.party.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        if self.has_room() {
            self.fill(len.min(self.max_len) as u64);
            if now {
                self.publish();
            }
        }
        Ok(())
    }

    /// Publications so far: how often something was made visible.
    pub fn publications(&self) -> u64 {
        self.publications
    }

    /// Most messages of one publication.
    pub fn batch_max(&self) -> usize {
        self.sender.run_max() as usize
    }

    /// A receiver, if one is there.
    pub fn peer(&self) -> Option<Peer> {
        self.party.any_peer()
    }

    /// Who kept the last call that found no room, or waited for it, from going on, if that still does.
    pub fn held_up(&self) -> Option<HeldUp> {
        self.party.held_up()
    }

    /// What the channel has seen. Some hundred loads.
    pub fn stats(&self) -> Stats {
        self.party.stats()
    }

    #[inline(always)]
    fn usable(&self, len: usize) -> Result<(), SendError> {
        if self.party.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        if len > self.max_len {
            return Err(SendError::TooLarge { len, max: self.max_len });
        }
        Ok(())
    }

    /// Whether a slot is claimed and not filled.
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.sender.filled() < self.sender.claimed()
    }

    /// Claims, if there is room. What was queued goes out first: with no slot left for the next message,
    /// waiting for room would keep everybody else waiting, too.
    #[inline(always)]
    fn take_room(&mut self, count: u64) -> Result<bool, SendError> {
        if self.sender.claimed() > 0 {
            self.publish();
        }
        match self.sender.try_claim(count) {
            Ok(()) => {
                if self.party.sleeps_any(Side::Sends) && self.sender.knows_more_room() {
                    self.party.wake(Side::Sends, 1);
                }
                Ok(true)
            }
            Err(ClaimError::Full(holder)) => {
                self.party.note_holder(holder);
                Ok(false)
            }
            Err(ClaimError::Corrupt(fault)) => Err(SendError::Corrupt(fault)),
        }
    }

    #[cold]
    fn no_room_now(&mut self) -> SendError {
        self.party.counters().full_waits.bump(1);
        if self.party.probe_clock.is_due_after_poll() {
            self.party.look_for_the_dead();
        }
        SendError::Full { peer: self.in_the_way(), lag: None }
    }

    /// Returns with a slot claimed.
    #[cold]
    fn wait_for_room(&mut self, timeout: Option<Duration>) -> Result<(), SendError> {
        self.party.counters().full_waits.bump(1);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let wait = self.party.wait;
        if wait::block(self, wait, deadline, 1)? {
            Ok(())
        } else {
            Err(SendError::Timeout { peer: self.in_the_way(), lag: None })
        }
    }

    /// Who has the slot, or else anybody who might take what is in it.
    fn in_the_way(&self) -> Option<Peer> {
        self.party.held_up().and_then(|held| held.peer).or_else(|| self.party.any_peer())
    }

    #[inline(always)]
    fn fill(&mut self, len: u64) {
        self.sender.fill(len);
        self.party.counters().bytes.bump(len);
    }

    #[inline(always)]
    fn publish(&mut self) {
        let messages = self.sender.publish();
        if messages > 0 {
            self.publications += 1;
            self.party.counters().sent.bump(messages);
        }
        self.party.wake(Side::Receives, messages.max(1));
    }
}

impl Drop for MpmcSender {
    /// Publishes what was queued and leaves. May wait up to two seconds for others who are just opening
    /// or closing the channel. In a forked child: does nothing.
    fn drop(&mut self) {
        if self.party.birth.is_foreign() {
            return;
        }
        if self.sender.claimed() > 0 {
            self.publish();
        }
        self.party.leave();
    }
}

impl Waiter for MpmcSender {
    type Error = SendError;

    #[inline(always)]
    fn poll(&mut self) -> Result<bool, SendError> {
        if self.has_room() { Ok(true) } else { self.take_room(1) }
    }

    fn glance(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn probe(&mut self) -> Result<(), SendError> {
        self.party.look_for_the_dead();
        Ok(())
    }

    fn announce(&mut self) -> Nap {
        self.party.announce();
        Nap::unannounced(0)
    }

    fn sleep(&mut self, _nap: &Nap, timeout: Duration) {
        self.party.sleep(timeout);
    }

    fn awake(&mut self, _nap: &Nap) {
        self.party.awake();
    }

    fn probe_clock(&mut self) -> &mut ProbeClock {
        &mut self.party.probe_clock
    }
}

/// Room for one message. Write it through `DerefMut`, then commit or queue; dropping it aborts, and
/// nobody sees that it was. The bytes hold whatever was there before.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct MpmcClaim<'a> {
    sender: &'a mut MpmcSender,
    payload: *mut u8,
    len: usize,
}

impl<'a> MpmcClaim<'a> {
    #[inline(always)]
    fn new(sender: &'a mut MpmcSender, len: usize) -> Self {
        let payload = sender.sender.payload();
        Self { sender, payload, len }
    }

    /// Publishes the message, with everything queued before it.
    ///
    /// # Errors
    /// [`SendError::Forked`]: the room is the parent's.
    #[inline(always)]
    pub fn commit(self) -> Result<(), SendError> {
        let len = self.len;
        self.commit_len(len)
    }

    /// Publishes the first `len` bytes; more than claimed counts as all.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn commit_len(self, len: usize) -> Result<(), SendError> {
        self.fill(len)?.publish();
        Ok(())
    }

    /// Keeps the message back until [`MpmcSender::flush`] or the next commit, if it is in a slot that
    /// was reserved; the next claim for which no reserved slot is left publishes those before it.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue(self) -> Result<(), SendError> {
        let len = self.len;
        self.queue_len(len)
    }

    /// As [`Self::queue`], with the first `len` bytes only.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue_len(self, len: usize) -> Result<(), SendError> {
        self.fill(len).map(|_| ())
    }

    #[inline(always)]
    fn fill(self, len: usize) -> Result<&'a mut MpmcSender, SendError> {
        let len = len.min(self.len) as u64;
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped.
        let sender: &'a mut MpmcSender = unsafe { &mut *std::ptr::from_mut(this.sender) };
        if sender.party.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        sender.fill(len);
        Ok(sender)
    }
}

impl Drop for MpmcClaim<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.sender.party.birth.is_foreign() && self.sender.sender.filled() == 0 {
            self.sender.sender.abort();
            // Those behind the slot need not wait for it any more.
            self.sender.party.wake(Side::Receives, 1);
        }
    }
}

impl Deref for MpmcClaim<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the slot is this sender's until publication: its word names it, and nobody else touches
        // it; `len` was checked against the slot's room; `sender` is borrowed mutably.
        unsafe { std::slice::from_raw_parts(self.payload, self.len) }
    }
}

impl DerefMut for MpmcClaim<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the mapping is writable.
        unsafe { std::slice::from_raw_parts_mut(self.payload, self.len) }
    }
}

// SAFETY: everything but the raw pointer is Send, and that points into the mapping which the borrowed
// sender, itself Send, keeps.
unsafe impl Send for MpmcClaim<'_> {}

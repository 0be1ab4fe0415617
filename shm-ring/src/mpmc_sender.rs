//! The sending end of an MPMC channel: claims slots, publishes, waits for room.
//!
//! The queue itself is `mpmc`, who takes part `party`. Nothing here knows what the bytes mean.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::counters::Stats;
use crate::courtesy::Courtesy;
use crate::error::{Error, Peer, SendError};
use crate::home::Homed;
use crate::mpmc::{ClaimError, Sender, SlotMemory};
use crate::options::Options;
use crate::party::{HeldUp, Party, Side};
use crate::queue::{LenBound, QueueMemory};
use crate::wait::{self, Nap, ProbeClock, Waiter};

/// The sending end. Any number per channel, up to 64 senders and receivers together; every method needs
/// `&mut self`, so one thread at a time each.
#[derive(Debug)]
pub struct MpmcSender {
    sender: Sender<QueueMemory>,
    /// Of batches, so far.
    publications: u64,
    /// When a slot is waited for.
    pauses: u32,
    bound: Homed<LenBound>,
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
    /// As [`Self::open`]; and where the channel was removed meanwhile, or this process is a fork of the one that
    /// opened the handle.
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.party.another().map(Self::new)
    }

    fn new(party: Party) -> Self {
        let sender = Sender::new(party.memory.clone(), party.owner());
        let pauses = wait::pauses_without_slots(party.memory.slots());
        let bound = LenBound::homed(&party.memory);
        Self { sender, publications: 0, pauses, bound, party }
    }

    /// Longest message, in bytes: a slot less its header.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        self.sender.memory().room() as usize
    }

    /// Room for a message of `len` bytes, written in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::TooLarge`], [`SendError::Corrupt`].
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<MpmcClaim<'_>, SendError> {
        let payload = match self.room_at_once(len) {
            Some(payload) => payload,
            None => self.room_or_refusal(len)?,
        };
        Ok(MpmcClaim { sender: self, payload, len })
    }

    /// As [`Self::try_claim`], but waits for room.
    ///
    /// # Errors
    /// Never [`SendError::Full`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<MpmcClaim<'_>, SendError> {
        let payload = match self.room_at_once(len) {
            Some(payload) => payload,
            None => self.room_or_wait(len, None)?,
        };
        Ok(MpmcClaim { sender: self, payload, len })
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
        let payload = match self.room_at_once(len) {
            Some(payload) => payload,
            None => self.room_or_wait(len, Some(timeout))?,
        };
        Ok(MpmcClaim { sender: self, payload, len })
    }

    /// As [`Self::try_claim`] of all that a slot has room for, for writers that learn the length of a message
    /// by writing it. `None`: there is no room, and nothing was counted; another verb, which then follows,
    /// does that and tells who is in the way.
    ///
    /// # Errors
    /// [`SendError::Corrupt`], [`SendError::Forked`].
    #[inline(always)]
    pub fn claim_run(&mut self) -> Result<Option<MpmcClaim<'_>>, SendError> {
        let len = self.max_len();
        let payload = match self.room_at_once(len) {
            Some(payload) => payload,
            None => match self.room_if_any(len)? {
                Some(payload) => payload,
                None => return Ok(None),
            },
        };
        Ok(Some(MpmcClaim { sender: self, payload, len }))
    }

    /// As [`Self::try_claim`], if there is room and nobody is in the way. `None` says nothing: another verb
    /// does.
    #[inline(always)]
    pub fn claim_at_once(&mut self, len: usize) -> Option<MpmcClaim<'_>> {
        let payload = self.room_at_once(len)?;
        Some(MpmcClaim { sender: self, payload, len })
    }

    /// Room for up to `count` (at least 1) messages of `len` bytes each, as many as are free, claimed with one
    /// swap. Of what is claimed already, what is left of that. Never blocks.
    ///
    /// # Errors
    /// As [`Self::try_claim`].
    #[inline(always)]
    pub fn try_claim_array(
        &mut self,
        len: usize,
        count: usize,
    ) -> Result<MpmcArrayClaim<'_>, SendError> {
        if !self.has_rooms(len, count)? {
            return Err(self.no_room_now());
        }
        Ok(MpmcArrayClaim::new(self, len, count))
    }

    /// As [`Self::try_claim_array`], but waits for room for one, for at most `timeout` if there is one.
    ///
    /// # Errors
    /// As [`Self::claim_timeout`].
    #[inline(always)]
    pub fn claim_array(
        &mut self,
        len: usize,
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<MpmcArrayClaim<'_>, SendError> {
        if !self.has_rooms(len, count)? {
            self.wait_for_room(timeout)?;
        }
        Ok(MpmcArrayClaim::new(self, len, count))
    }

    /// As [`Self::try_claim_array`], if there is room, nothing is claimed and nobody is in the way. `None` says
    /// nothing: another verb does.
    ///
    /// # Errors
    /// [`SendError::Corrupt`].
    #[inline(always)]
    pub fn claim_array_at_once(
        &mut self,
        len: usize,
        count: usize,
    ) -> Result<Option<MpmcArrayClaim<'_>>, SendError> {
        if len as u64 >= self.bound.below || count == 0 || self.sender.claimed() > 0 {
            return Ok(None);
        }
        if self.party.sleeps_any(Side::Sends) {
            return Ok(None);
        }
        match self.sender.try_claim(count as u64) {
            Ok(()) => Ok(Some(MpmcArrayClaim::new(self, len, count))),
            Err(ClaimError::Full(_)) => Ok(None),
            Err(ClaimError::Corrupt(fault)) => Err(SendError::Corrupt(fault)),
        }
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

    /// Publishes the first `len` bytes of the room that was claimed last and whose guard was forgotten, if
    /// nothing else is claimed: what the guard's commit would have done. `len` is no more than was claimed.
    /// False: nothing was done, perhaps because the room is the parent's, or not as large, and another verb tells.
    #[inline(always)]
    #[must_use]
    pub fn commit_at_once(&mut self, len: usize) -> bool {
        if len as u64 >= self.bound.below {
            return not_now();
        }
        if !self.sender.holds_one() {
            return not_now();
        }
        self.settle_one(len);
        true
    }

    /// Publications of batches so far: how often something queued, or an array, was made visible.
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
        if len > self.max_len() {
            return Err(SendError::TooLarge { len, max: self.max_len() });
        }
        Ok(())
    }

    /// Whether a slot is claimed and not filled.
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.sender.filled() < self.sender.claimed()
    }

    /// The room of one message, as nearly always: this process's own, with nobody to meet, and nobody asleep who
    /// may want the next. All else is out of the caller's line, so that this keeps to a few registers.
    #[inline(always)]
    fn room_at_once(&mut self, len: usize) -> Option<*mut u8> {
        if len as u64 >= self.bound.below {
            return None;
        }
        if !self.party.sleeps_any(Side::Sends)
            && let Some(payload) = self.sender.claim_one_at_once()
        {
            return Some(payload);
        }
        self.has_room().then(|| self.sender.payload())
    }

    /// Whether there is room for some messages, if possible for `count`.
    #[inline(always)]
    fn has_rooms(&mut self, len: usize, count: usize) -> Result<bool, SendError> {
        self.usable(len)?;
        Ok(self.has_room() || self.take_room(count.max(1) as u64)?)
    }

    /// The room of one message, or why there is none.
    #[cold]
    #[inline(never)]
    fn room_or_refusal(&mut self, len: usize) -> Result<*mut u8, SendError> {
        if !self.has_rooms(len, 1)? {
            return Err(self.no_room_now());
        }
        Ok(self.sender.payload())
    }

    /// The room of one message, if there is any.
    #[cold]
    #[inline(never)]
    fn room_if_any(&mut self, len: usize) -> Result<Option<*mut u8>, SendError> {
        Ok(if self.has_rooms(len, 1)? { Some(self.sender.payload()) } else { None })
    }

    /// As [`Self::room_or_refusal`], but waits.
    #[cold]
    #[inline(never)]
    fn room_or_wait(
        &mut self,
        len: usize,
        timeout: Option<Duration>,
    ) -> Result<*mut u8, SendError> {
        if !self.has_rooms(len, 1)? {
            self.wait_for_room(timeout)?;
        }
        Ok(self.sender.payload())
    }

    /// Others who sleep for room may find some behind what this one has claimed.
    #[cold]
    #[inline(never)]
    fn pass_on(&mut self) {
        if self.sender.knows_more_room() {
            self.party.wake(Side::Sends, 1);
        }
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
                if self.party.sleeps_any(Side::Sends) {
                    self.pass_on();
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
        self.party.counters.full_waits.bump(1);
        if self.party.probe_clock.is_due_after_poll() {
            self.party.look_for_the_dead();
        }
        SendError::Full { peer: self.in_the_way(), lag: None }
    }

    /// Returns with a slot claimed.
    #[cold]
    fn wait_for_room(&mut self, timeout: Option<Duration>) -> Result<(), SendError> {
        self.party.counters.full_waits.bump(1);
        let deadline = timeout.and_then(wait::deadline);
        let wait = self.party.wait;
        if wait::block(self, wait, deadline, self.pauses)? {
            Ok(())
        } else {
            Err(SendError::Timeout { peer: self.in_the_way(), lag: None })
        }
    }

    /// Who has the slot, or else anybody who might take what is in it.
    fn in_the_way(&self) -> Option<Peer> {
        self.party.held_up().and_then(|held| held.peer).or_else(|| self.party.any_peer())
    }

    /// Gives up the claim, if nothing is in it.
    #[inline(always)]
    fn abort(&mut self) {
        if !self.party.birth.is_foreign() && self.sender.filled() == 0 {
            self.sender.abort();
            // Those behind the slots need not wait for them any more.
            self.party.wake(Side::Receives, 1);
        }
    }

    /// Fills the next slot of the claim with so many bytes, and publishes the claim, if so.
    #[inline(always)]
    fn settle(&mut self, len: usize, now: bool) {
        if now && self.sender.holds_one() {
            self.settle_one(len);
        } else {
            self.settle_many(len, now);
        }
    }

    /// The only one.
    #[inline(always)]
    fn settle_one(&mut self, len: usize) {
        self.party.counters.bytes.bump(len as u64);
        self.sender.publish_one(len as u64);
        self.tell(1);
    }

    #[inline(never)]
    fn settle_many(&mut self, len: usize, now: bool) {
        self.party.counters.bytes.bump(len as u64);
        self.sender.fill(len as u64);
        if now {
            self.publish();
        }
    }

    #[inline(always)]
    fn publish(&mut self) {
        let messages = self.sender.publish();
        self.published(messages);
    }

    #[inline(always)]
    fn published(&mut self, messages: u64) {
        self.publications += u64::from(messages > 0);
        self.tell(messages);
    }

    /// Counts and wakes, after messages were published, or slots given up.
    #[inline(always)]
    fn tell(&self, messages: u64) {
        if messages > 0 {
            self.party.counters.sent.bump(messages);
        }
        self.party.wake(Side::Receives, messages.max(1));
    }
}

/// A way out of its own: else the compiler works out both reasons for it before it asks for either.
#[cold]
#[inline(never)]
fn not_now() -> bool {
    false
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
        self.party.awake(self.has_room());
    }

    fn probe_clock(&mut self) -> &mut ProbeClock {
        &mut self.party.probe_clock
    }

    fn courtesy(&mut self) -> &mut Courtesy {
        &mut self.party.courtesy
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
        self.settle(len, true)
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
        self.settle(len, false)
    }

    #[inline(always)]
    fn settle(self, len: usize, now: bool) -> Result<(), SendError> {
        let len = len.min(self.len);
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped.
        let sender: &'a mut MpmcSender = unsafe { &mut *std::ptr::from_mut(this.sender) };
        if sender.party.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        sender.settle(len, now);
        Ok(())
    }
}

impl Drop for MpmcClaim<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.sender.abort();
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

/// Room for several messages of one length, each in a slot of its own. Dropping it aborts them all.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct MpmcArrayClaim<'a> {
    sender: &'a mut MpmcSender,
    len: usize,
    count: usize,
}

impl<'a> MpmcArrayClaim<'a> {
    #[inline(always)]
    fn new(sender: &'a mut MpmcSender, len: usize, count: usize) -> Self {
        let free = sender.sender.claimed() - sender.sender.filled();
        if sender.sender.filled() == 0 {
            sender.sender.ask_for_run(len as u64);
        }
        Self { sender, len, count: count.clamp(1, free as usize) }
    }

    /// How many messages there is room for: at least 1.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The room of each, one after the other. The bytes hold whatever was there before.
    #[inline(always)]
    pub fn rooms(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.len;
        self.sender.sender.payloads(self.count as u64).map(move |payload| {
            // SAFETY: as in MpmcClaim::deref_mut; the slots are apart, and each is lent once, while `self` is
            // borrowed.
            unsafe { std::slice::from_raw_parts_mut(payload, len) }
        })
    }

    /// Publishes the first `count` messages (at least 1), with everything queued before them.
    ///
    /// # Errors
    /// As [`MpmcClaim::commit`].
    #[inline(always)]
    pub fn commit(self, count: usize) -> Result<(), SendError> {
        self.fill(count)?.publish();
        Ok(())
    }

    /// Keeps the first `count` messages (at least 1) back until the flush or the next commit.
    ///
    /// # Errors
    /// As [`MpmcClaim::commit`].
    #[inline(always)]
    pub fn queue(self, count: usize) -> Result<(), SendError> {
        self.fill(count)?;
        Ok(())
    }

    #[inline(always)]
    fn fill(self, count: usize) -> Result<&'a mut MpmcSender, SendError> {
        let count = count.clamp(1, self.count) as u64;
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: read once out of what is not dropped.
        let sender: &'a mut MpmcSender = unsafe { std::ptr::read(&raw const this.sender) };
        if sender.party.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        sender.sender.fill_many(count, this.len as u64);
        sender.party.counters.bytes.bump(count * this.len as u64);
        Ok(sender)
    }
}

impl Drop for MpmcArrayClaim<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.sender.abort();
    }
}

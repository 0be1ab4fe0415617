//! The receiving end of an MPMC channel: takes messages, each of which no other receiver gets, and waits
//! for more.
//!
//! The queue itself is `mpmc`, who takes part `party`. Nothing here knows what the bytes mean.

use std::ops::Deref;
use std::ptr::null;
use std::time::{Duration, Instant};

use crate::consumer::BatchMessage;
use crate::copy::copy_out;
use crate::counters::Stats;
use crate::courtesy::Courtesy;
use crate::error::{Error, Fault, Peer, RecvError};
use crate::home::Homed;
use crate::mpmc::{Message, Receiver, TakeError};
use crate::options::{Options, Until, Wait};
use crate::party::{Departed, HeldUp, Party, Side};
use crate::queue::{LenBound, QueueMemory};
use crate::wait::{self, Burst, Nap, ProbeClock, Waiter};

/// The receiving end. Any number per channel, up to 64 senders and receivers together; every method
/// needs `&mut self`, so one thread at a time each.
#[derive(Debug)]
pub struct MpmcReceiver {
    receiver: Receiver<QueueMemory>,
    bound: Homed<LenBound>,
    burst: Burst,
    /// Senders that came and left, when last looked at.
    seen: (u64, u64),
    /// Senders that had come when their end was told.
    told: u64,
    party: Party,
}

impl MpmcReceiver {
    /// Opens the channel for receiving, creating it if need be. Allocates, touches the file system, and
    /// may wait up to ten seconds for others who are just opening or closing the channel.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Party::join(options, Side::Receives).map(Self::new)
    }

    /// Another receiver on the same channel, for another thread: a participant of its own, which may
    /// fail as [`Self::open`] may.
    ///
    /// # Errors
    /// As [`Self::open`]; and where the channel was removed meanwhile, or this process is a fork of the one that
    /// opened the handle.
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.party.another().map(Self::new)
    }

    fn new(party: Party) -> Self {
        let receiver = Receiver::new(party.memory.clone(), party.owner());
        let bound = LenBound::homed(&party.memory);
        Self { receiver, bound, burst: Burst::in_queue(), seen: (0, 0), told: 0, party }
    }

    /// The next message, in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`RecvError::Empty`]; with `until=last`, how the last sender ended.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<MpmcReceived<'_>, RecvError> {
        let message = match self.at_once() {
            Some(message) => message,
            None => self.message_or_nothing()?,
        };
        Ok(MpmcReceived { receiver: self, message })
    }

    /// As [`Self::try_recv`], but waits for a message, or for a sender to come.
    ///
    /// # Errors
    /// Never [`RecvError::Empty`].
    #[inline(always)]
    pub fn recv(&mut self) -> Result<MpmcReceived<'_>, RecvError> {
        let message = match self.at_once() {
            Some(message) => message,
            None => self.soon_or_later(None)?,
        };
        Ok(MpmcReceived { receiver: self, message })
    }

    /// As [`Self::recv`], for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::Timeout`]; [`Self::held_up`] then tells whether somebody is in the way.
    #[inline(always)]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<MpmcReceived<'_>, RecvError> {
        let message = match self.at_once() {
            Some(message) => message,
            None => self.soon_or_later(Some(timeout))?,
        };
        Ok(MpmcReceived { receiver: self, message })
    }

    /// As [`Self::try_recv`], if a message is there and nobody is in the way. `None` says nothing: another
    /// verb does.
    #[inline(always)]
    pub fn recv_at_once(&mut self) -> Option<MpmcReceived<'_>> {
        let message = self.at_once()?;
        Some(MpmcReceived { receiver: self, message })
    }

    /// As [`Self::recv`], for callers to whom [`Self::comes_soon`] just said no: without its first polls.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_later(&mut self) -> Result<MpmcReceived<'_>, RecvError> {
        let message = self.message_or_wait(None)?;
        Ok(MpmcReceived { receiver: self, message })
    }

    /// Polls as a [`Self::recv`] does at first, for some 10 us. True: [`Self::recv_at_once`] may well find a message
    /// now. False says nothing but that another verb does.
    #[cold]
    #[inline(never)]
    pub fn comes_soon(&mut self) -> bool {
        let sees_nothing = self.receiver.sees_nothing();
        if self.party.birth.is_foreign() || self.receiver.held() > 0 || !sees_nothing {
            return false;
        }
        if self.party.wait == Wait::Park {
            return false;
        }
        let pauses = self.pauses();
        let receiver = &self.receiver;
        wait::poll_first(pauses, &self.party.courtesy, || receiver.still_sees_nothing())
    }

    /// Up to `limit` messages (and no more than 255, or half the queue) that are there, claimed with one
    /// swap and released together when the batch is dropped. Those that were not looked at stay this
    /// receiver's, for its next call. Does not wait; a batch is empty only if `limit` is 0, and then at once.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    #[inline(always)]
    pub fn try_recv_batch(&mut self, limit: usize) -> Result<MpmcBatch<'_>, RecvError> {
        // A claim for nothing would keep a message from the others.
        if limit == 0 {
            self.begin()?
        } else {
            self.try_take(limit)?
        }
        Ok(MpmcBatch::new(self, limit))
    }

    /// As [`Self::try_recv_batch`], but waits for the first message, for at most `timeout` if there is
    /// one.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`].
    #[inline(always)]
    pub fn recv_batch(
        &mut self,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<MpmcBatch<'_>, RecvError> {
        if limit == 0 {
            self.begin()?
        } else {
            self.take(limit, timeout)?
        }
        Ok(MpmcBatch::new(self, limit))
    }

    /// Gives back the message that was received last and whose guard was forgotten: what dropping the
    /// guard would have done.
    #[inline(always)]
    pub fn give_back(&mut self) {
        if self.party.birth.is_foreign() {
            return;
        }
        if self.receiver.release_one() {
            self.released(1);
        } else {
            self.give_back_of_many();
        }
    }

    /// As [`Self::give_back`], whatever is claimed.
    #[cold]
    #[inline(never)]
    fn give_back_of_many(&mut self) {
        if self.receiver.used() < self.receiver.held() {
            if self.receiver.is_redelivered() {
                self.party.counters.redelivered.bump(1);
            }
            self.receiver.advance();
        }
        self.release();
    }

    /// Gives back what a batch has looked at. Once for many messages, so out of the caller's line.
    #[inline(never)]
    fn give_back_batch(&mut self) {
        if !self.party.birth.is_foreign() {
            self.release();
        }
    }

    /// A batch that was forgotten, to go on with, for `limit` more messages.
    #[inline(always)]
    pub fn batch_again(&mut self, limit: usize) -> MpmcBatch<'_> {
        MpmcBatch::new(self, limit)
    }

    /// A sender, if one is there.
    pub fn peer(&self) -> Option<Peer> {
        self.party.any_peer()
    }

    /// Who has claimed the next message and not published it, or, with `until=last` and no sender left, who
    /// has taken one and not released it; as of the last call that found or waited for nothing, if that is
    /// still so.
    pub fn held_up(&self) -> Option<HeldUp> {
        // Polls do not look who it is.
        let now = || self.receiver.held_up_by().map(|holder| self.party.held_up_since_now(holder));
        self.party.held_up().or_else(now)
    }

    /// What the channel has seen. Some hundred loads.
    pub fn stats(&self) -> Stats {
        self.party.stats()
    }

    /// As nearly always: nothing is claimed, a message is there that nobody else takes, and nobody sleeps who may want
    /// the next. All else is out of the caller's line, so that this keeps to a few registers.
    #[inline(always)]
    fn at_once(&mut self) -> Option<Message> {
        if self.party.sleeps_any(Side::Receives) {
            return None;
        }
        self.receiver.take_one_at_once(self.bound.below)
    }

    #[inline(always)]
    fn soon_or_later(&mut self, timeout: Option<Duration>) -> Result<Message, RecvError> {
        // First: the polls are a part of it.
        let deadline = timeout.and_then(wait::deadline);
        if self.comes_soon()
            && let Some(message) = self.at_once()
        {
            return Ok(message);
        }
        self.message_or_wait(deadline)
    }

    /// For how long an end that found nothing looks away.
    fn pauses(&mut self) -> u32 {
        let pauses = self.burst.pauses(self.receiver.seen());
        if self.receiver.ends_streak() { pauses } else { 1 }
    }

    #[cold]
    #[inline(never)]
    fn message_or_nothing(&mut self) -> Result<Message, RecvError> {
        self.try_take(1)?;
        self.message()
    }

    #[cold]
    #[inline(never)]
    fn message_or_wait(&mut self, deadline: Option<Instant>) -> Result<Message, RecvError> {
        self.begin()?;
        if !self.look(1)? {
            self.wait_further(deadline)?;
        }
        self.message()
    }

    fn message(&mut self) -> Result<Message, RecvError> {
        match self.receiver.message() {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(RecvError::Empty),
            Err(fault) => Err(self.corrupt(fault)),
        }
    }

    /// Others who sleep may find a message behind what this one has claimed.
    #[cold]
    #[inline(never)]
    fn pass_on(&mut self) {
        if self.receiver.sees_more() {
            self.party.wake(Side::Receives, 1);
        }
    }

    #[inline(always)]
    fn try_take(&mut self, most: usize) -> Result<(), RecvError> {
        self.begin()?;
        if self.look(most)? { Ok(()) } else { self.nothing_now(most) }
    }

    #[inline(always)]
    fn take(&mut self, most: usize, timeout: Option<Duration>) -> Result<(), RecvError> {
        self.begin()?;
        if self.look(most)? { Ok(()) } else { self.wait_for_message(most, timeout) }
    }

    #[inline(always)]
    fn begin(&mut self) -> Result<(), RecvError> {
        if self.party.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        // What a forgotten guard looked at.
        if self.receiver.used() > 0 {
            self.release();
        }
        Ok(())
    }

    /// Whether this receiver has a message, or has one now.
    #[inline(always)]
    fn look(&mut self, most: usize) -> Result<bool, RecvError> {
        if self.receiver.held() > 0 {
            return Ok(true);
        }
        let before = self.receiver.seen();
        let mut taken = self.receiver.try_take(most.max(1) as u64);
        if let Err(TakeError::Empty(_)) = taken {
            let pauses = self.burst.pauses(self.receiver.seen());
            if self.receiver.ends_streak() {
                for _ in 0..pauses {
                    std::hint::spin_loop();
                }
                taken = self.receiver.try_take(most.max(1) as u64);
            }
        }
        // Slots that were given up are free as soon as they are passed over, and nobody releases them.
        if self.receiver.seen() - before > self.receiver.held() {
            self.party.wake(Side::Sends, self.receiver.over_since(before));
        }
        match taken {
            Ok(()) => {
                if self.party.sleeps_any(Side::Receives) {
                    self.pass_on();
                }
                Ok(true)
            }
            Err(TakeError::Empty(holder)) => {
                if holder.is_some() {
                    self.party.note_holder(holder);
                }
                Ok(false)
            }
            Err(TakeError::Corrupt(fault)) => Err(RecvError::Corrupt(fault)),
        }
    }

    /// Returns if there is something after all.
    #[cold]
    fn nothing_now(&mut self, most: usize) -> Result<(), RecvError> {
        let mut waiting = Waiting { receiver: self, most };
        waiting.look_round()?;
        if waiting.receiver.party.probe_clock.is_due_after_poll() {
            waiting.probe()?;
        }
        // Or what the question for the end has found.
        let may_have = self.receiver.notice_returns() || self.receiver.held() > 0;
        if may_have && self.look(most)? { Ok(()) } else { Err(RecvError::Empty) }
    }

    /// Returns when there is a message.
    #[cold]
    fn wait_for_message(
        &mut self,
        most: usize,
        timeout: Option<Duration>,
    ) -> Result<(), RecvError> {
        let deadline = timeout.and_then(wait::deadline);
        let wait = self.party.wait;
        if wait::block(&mut Waiting { receiver: self, most }, wait, deadline, 1)? {
            Ok(())
        } else {
            Err(RecvError::Timeout)
        }
    }

    /// The same for one, for who has polled for a while.
    #[cold]
    fn wait_further(&mut self, deadline: Option<Instant>) -> Result<(), RecvError> {
        let wait = self.party.wait;
        if wait::block_further(&mut Waiting { receiver: self, most: 1 }, wait, deadline)? {
            Ok(())
        } else {
            Err(RecvError::Timeout)
        }
    }

    #[inline(always)]
    fn release(&mut self) {
        let freed = self.receiver.release();
        if freed > 0 {
            self.released(freed);
        }
    }

    #[inline(always)]
    fn released(&mut self, messages: u64) {
        self.party.counters.received.bump(messages);
        self.party.wake(Side::Sends, messages);
    }

    #[cold]
    fn corrupt(&mut self, fault: Fault) -> RecvError {
        // Not to be met again by every call: what can't be shown is passed over.
        self.receiver.advance();
        self.release();
        RecvError::Corrupt(fault)
    }
}

impl Drop for MpmcReceiver {
    /// Leaves. What it claimed and did not show goes to another receiver, flagged. May wait up to two
    /// seconds for others who are just opening or closing the channel. In a forked child: does nothing.
    fn drop(&mut self) {
        if self.party.birth.is_foreign() {
            return;
        }
        self.release();
        let returned = self.receiver.give_back();
        if returned > 0 {
            self.party.gave_back(returned);
        }
        self.party.leave();
    }
}

struct Waiting<'a> {
    receiver: &'a mut MpmcReceiver,
    most: usize,
}

impl Waiting<'_> {
    /// Whether messages came back, and, for `until=last`, whether senders came or left.
    fn look_round(&mut self) -> Result<(), RecvError> {
        self.receiver.receiver.notice_returns();
        if self.receiver.party.until == Until::Last {
            let seen = self.receiver.party.senders_so_far();
            if seen != self.receiver.seen {
                self.tell_end()?;
                self.receiver.seen = seen;
            }
        }
        Ok(())
    }

    /// Tells, once, that no sender is there any more, after the last message was released: until then it may
    /// come back, and whoever was told need not be here any more.
    fn tell_end(&mut self) -> Result<(), RecvError> {
        let (came, _) = self.receiver.party.senders_so_far();
        if came == self.receiver.told {
            return Ok(());
        }
        let Some(departed) = self.receiver.party.last_sender() else { return Ok(()) };
        // The last message may be behind a claim that a sender left when it died, or back from a receiver.
        self.receiver.receiver.doubt();
        if self.poll()? {
            return Ok(());
        }
        if let Some(holder) = self.receiver.receiver.held_elsewhere()
            // Nobody comes for what is held by nobody: a word that was written over.
            && holder.owner.is_none_or(|owner| self.receiver.party.peer(owner).is_some())
        {
            // Nobody wakes for this: probes look again.
            self.receiver.party.note_holder(Some(holder));
            return Ok(());
        }
        self.receiver.told = came;
        self.receiver.party.last_death = None;
        Err(match departed {
            Departed::Left => RecvError::Disconnected,
            Departed::Died(peer) => RecvError::PeerDied { peer },
        })
    }
}

impl Waiter for Waiting<'_> {
    type Error = RecvError;

    #[inline(always)]
    fn poll(&mut self) -> Result<bool, RecvError> {
        self.receiver.look(self.most)
    }

    #[inline(always)]
    fn sees_nothing(&self) -> bool {
        self.receiver.receiver.still_sees_nothing()
    }

    fn glance(&mut self) -> Result<(), RecvError> {
        self.look_round()?;
        if let Some(holder) = self.receiver.receiver.held_up_by() {
            self.receiver.party.note_holder(Some(holder));
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), RecvError> {
        if let Some(holder) = self.receiver.receiver.held_up_by() {
            self.receiver.party.note_holder(Some(holder));
        }
        self.receiver.party.look_for_the_dead();
        self.receiver.receiver.doubt();
        if self.receiver.party.until == Until::Last {
            self.tell_end()?;
        }
        Ok(())
    }

    fn announce(&mut self) -> Nap {
        self.receiver.party.announce();
        self.receiver.receiver.notice_returns();
        Nap::unannounced(0)
    }

    fn sleep(&mut self, _nap: &Nap, timeout: Duration) {
        // The question for the end looks for messages, too.
        if self.receiver.receiver.held() == 0 {
            self.receiver.party.sleep(timeout);
        }
    }

    fn awake(&mut self, _nap: &Nap) {
        self.receiver.party.awake(self.receiver.receiver.held() > 0);
    }

    fn probe_clock(&mut self) -> &mut ProbeClock {
        &mut self.receiver.party.probe_clock
    }

    fn courtesy(&mut self) -> &mut Courtesy {
        &mut self.receiver.party.courtesy
    }
}

/// A message, read in place; dropping it gives its slot back.
#[derive(Debug)]
pub struct MpmcReceived<'a> {
    receiver: &'a mut MpmcReceiver,
    message: Message,
}

impl MpmcReceived<'_> {
    /// Whether another receiver, which died, may have seen this message before. It is then out of its
    /// sender's order.
    pub fn redelivered(&self) -> bool {
        self.message.redelivered
    }

    /// The message's place in the queue, from 0. Grows at each receiver, redeliveries apart; not every
    /// place is taken.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.message.ticket
    }

    /// Bytes of the message.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.message.len
    }

    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.message.len == 0
    }

    /// Copies the front of the message out, as far as `to` has room, for receivers that do not trust the
    /// senders: other than through `Deref`, the bytes may change meanwhile. Whatever the copy holds
    /// then, it keeps.
    pub fn copy_to(&self, to: &mut [u8]) {
        let len = to.len().min(self.message.len);
        // SAFETY: the message's bytes stay mapped while `self` lives, and `len` of them are its own.
        unsafe { copy_out(self.message.payload, &mut to[..len]) };
    }
}

impl Deref for MpmcReceived<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the slot is this receiver's until release, which is when this guard is dropped; its
        // length was checked against the slot's room. A peer of the same user that breaks the protocol
        // is outside the trust model; `recv_copy` is for those.
        unsafe { std::slice::from_raw_parts(self.message.payload, self.message.len) }
    }
}

impl Drop for MpmcReceived<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.receiver.give_back();
    }
}

// SAFETY: everything but the raw pointer in `message` is Send, and that points into the mapping which
// the borrowed receiver, itself Send, keeps.
unsafe impl Send for MpmcReceived<'_> {}

/// Several messages, released together when it is dropped.
#[derive(Debug)]
pub struct MpmcBatch<'a> {
    receiver: &'a mut MpmcReceiver,
    /// How many may be shown beside those of the run.
    left: usize,
    alike: Alike,
}

/// The next messages of a batch, if they are known to be alike: their bytes lie a slot apart, and nothing but
/// whose they are has to be asked for each.
#[derive(Clone, Copy, Debug)]
struct Alike {
    at: *const u8,
    /// Where the one behind them would be.
    end: *const u8,
}

// SAFETY: both pointers go into the mapping that the receiver beside them keeps, and which belongs to no thread.
unsafe impl Send for Alike {}
// SAFETY: as above; with a `&Alike` nothing of that is read.
unsafe impl Sync for Alike {}

impl Alike {
    const NONE: Self = Self { at: null(), end: null() };
}

impl<'a> MpmcBatch<'a> {
    #[inline(always)]
    fn new(receiver: &'a mut MpmcReceiver, left: usize) -> Self {
        Self { receiver, left, alike: Alike::NONE }
    }

    /// The next message of the batch, if there is one.
    ///
    /// # Errors
    /// [`RecvError::Corrupt`].
    #[inline(always)]
    #[allow(clippy::should_implement_trait, reason = "lends, which Iterator can't")]
    pub fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        if self.alike.at == self.alike.end || self.receiver.party.birth.is_foreign() {
            return self.next_in_doubt();
        }
        Ok(Some(self.next_of_run()))
    }

    /// As [`Self::next`]. Call only while the run has one.
    #[inline(always)]
    fn next_of_run(&mut self) -> BatchMessage<'_> {
        let payload = self.alike.at;
        self.alike.at = payload.wrapping_add(self.receiver.receiver.memory().step());
        let (sequence, len) = self.receiver.receiver.advance_alike();
        // SAFETY: as in MpmcReceived::deref; released when `self` is dropped, which the result borrows. So many
        // messages as are in the run were not looked at, from the one there on, and have that length.
        let payload = unsafe { std::slice::from_raw_parts(payload, len) };
        BatchMessage { payload, sequence, redelivered: false }
    }

    /// As [`Self::next`], with no run, or in a fork.
    #[inline(never)]
    fn next_in_doubt(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        if self.alike.at == self.alike.end && self.left == 0 {
            return Ok(None);
        }
        if self.receiver.party.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        if self.begin_run() {
            return Ok(Some(self.next_of_run()));
        }
        match self.receiver.receiver.message() {
            Ok(Some(Message { payload, len, ticket, redelivered })) => {
                self.left -= 1;
                self.receiver.receiver.advance();
                if redelivered {
                    self.receiver.party.counters.redelivered.bump(1);
                }
                // SAFETY: as in MpmcReceived::deref; released when `self` is dropped, which the result
                // borrows.
                let payload = unsafe { std::slice::from_raw_parts(payload, len) };
                Ok(Some(BatchMessage { payload, sequence: ticket, redelivered }))
            }
            Ok(None) => Ok(None),
            Err(fault) => Err(self.receiver.corrupt(fault)),
        }
    }

    /// Makes a run of what is alike, up to the queue's end. False: the next message is unlike those before it.
    fn begin_run(&mut self) -> bool {
        let receiver = &self.receiver.receiver;
        let Some(Message { payload, .. }) = receiver.message_at_once() else { return false };
        let count = self.left.min(receiver.alike_in_line() as usize);
        let end = payload.wrapping_add(count * receiver.memory().step());
        self.alike = Alike { at: payload, end };
        self.left -= count;
        true
    }
}

impl Drop for MpmcBatch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.receiver.give_back_batch();
    }
}

//! The sending end of an SPSC channel: claims room in the ring, publishes, waits for the consumer.
//!
//! The ring itself is `spsc`; which process may be here, and what remains of it, is the business of
//! `control` and `recover`. Nothing here knows what the bytes mean.

mod claims;
mod room;

use std::time::Duration;

pub use claims::{ArrayClaim, Claim};
use room::{WaitForRoom, Wanted};

use crate::broadcast::{Crier, Laggard};
use crate::control::{Control, Role};
use crate::counters::Stats;
use crate::courtesy::Courtesy;
use crate::error::{Error, Fault, Lag, Peer, SendError};
use crate::futex;
use crate::layout::CLOSED;
use crate::liveness::{self, Identity};
use crate::memory::RingMemory;
use crate::options::{Kind, Options, Overflow, Wait};
use crate::recover::{self, End};
use crate::registry::LockedDirectory;
use crate::segment::{Segment, SegmentMemory, Watch};
use crate::spsc::{self, ClaimError, Writer};
use crate::subscription;
use crate::wait::{self, ProbeClock, Ringer, Waiter};

/// The sending end. One per channel; every method needs `&mut self`, so one thread at a time.
#[derive(Debug)]
pub struct Producer {
    writer: Writer<SegmentMemory>,
    wait: Wait,
    ringer: Ringer,
    /// In its place, where there are several consumers.
    crier: Option<Box<Crier>>,
    probe_clock: ProbeClock,
    courtesy: Courtesy,
    /// Epoch of the last consumer whose end was told to the caller.
    told: u64,
    segment: Segment,
    control: Control,
}

impl Producer {
    /// Opens the channel for sending, creating it if need be. Allocates, touches the file system,
    /// and may wait up to ten seconds for others who are just opening or closing the channel.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let who = Identity::of_this_process();
        let (directory, control) = Control::join(options, Role::Producer, &who)?;
        if control.kind() == Kind::Broadcast && control.overflow() == Overflow::Overwrite {
            let error = subscription::in_place_on_overwrite(&control);
            leave(&control, directory);
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
        let segment = new_segment(&directory, &control, who);
        let segment = match segment {
            Ok(segment) => segment,
            Err(error) => {
                leave(&control, directory);
                return Err(error);
            }
        };
        // Only what happens to a consumer from now on is news. Under the directory's lock, so that
        // none joins between the two looks.
        let consumer = control.holder(Role::Consumer);
        let told = if consumer.attached && control.is_held(Role::Consumer) {
            consumer.epoch.saturating_sub(1)
        } else {
            consumer.epoch
        };
        drop(directory);
        let wait = control.wait();
        let sleepy = wait != Wait::Spin;
        if sleepy {
            wait::attach(&segment.memory().producer().bell);
        }
        let ringer = Ringer::new(sleepy);
        let crier = segment.memory().gate().map(|_| Box::new(Crier::new(sleepy)));
        let mut memory = segment.memory();
        memory.watch(match crier {
            _ if !sleepy => Watch::Nobody,
            None if ringer.trusts_barriers() => Watch::Consumer,
            _ => Watch::Everybody,
        });
        Ok(Self {
            writer: Writer::new(memory, segment.geometry()),
            wait,
            ringer,
            crier,
            probe_clock: ProbeClock::start(),
            courtesy: Courtesy::default(),
            told,
            segment,
            control,
        })
    }

    /// Longest message, in bytes: half the capacity less a record header.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        self.writer.max_len()
    }

    /// Room for a message of `len` bytes, written in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::TooLarge`], and what the consumer's end may tell.
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        let claim = self.try_room(Wanted::message(len))?;
        Ok(Claim::new(self, claim))
    }

    /// As [`Self::try_claim`], but waits for room. What was queued is published first, if the ring
    /// is full: else the consumer could not make any.
    ///
    /// # Errors
    /// Never [`SendError::Full`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        let claim = self.room(Wanted::message(len), None)?;
        Ok(Claim::new(self, claim))
    }

    /// As [`Self::claim`], for at most `timeout`.
    ///
    /// # Errors
    /// [`SendError::Timeout`], which names the consumer that made no room.
    #[inline(always)]
    pub fn claim_timeout(&mut self, len: usize, timeout: Duration) -> Result<Claim<'_>, SendError> {
        let claim = self.room(Wanted::message(len), Some(timeout))?;
        Ok(Claim::new(self, claim))
    }

    /// Whatever room is free in one piece, as known without a look at the consumer: for writers
    /// that learn the length of a message by writing it. Commit with [`Claim::commit_len`]. `None`
    /// says nothing but that [`Self::try_claim`] has to look further. `likely` is the length it will
    /// probably have: nothing depends on it but speed.
    #[inline(always)]
    pub fn claim_run(&mut self, likely: usize) -> Option<Claim<'_>> {
        let claim = self.writer.claim_run(likely);
        claim.map(|claim| Claim::new(self, claim))
    }

    /// Room for a message of `len` bytes, where it is known of without a look at the consumer. `None`
    /// says nothing but that [`Self::try_claim`] has to look further.
    #[inline(always)]
    pub fn claim_at_once(&mut self, len: usize) -> Option<Claim<'_>> {
        let claim = self.writer.claim_at_once(len);
        claim.map(|claim| Claim::new(self, claim))
    }

    /// Room for up to `count` messages of `len` bytes each under one record header: the cheapest
    /// way to send many equal messages. Never blocks.
    ///
    /// # Errors
    /// As for [`Self::try_claim`]; [`SendError::TooLarge`] also if either is 0, or `count` above
    /// 2^20.
    #[inline(always)]
    pub fn try_claim_array(
        &mut self,
        len: usize,
        count: usize,
    ) -> Result<ArrayClaim<'_>, SendError> {
        let claim = self.try_room(Wanted::array(len, count))?;
        Ok(ArrayClaim { len, count, claim, producer: self })
    }

    /// As [`Self::try_claim_array`], but waits for room.
    ///
    /// # Errors
    /// As for [`Self::claim`] and [`Self::try_claim_array`].
    #[inline(always)]
    pub fn claim_array(&mut self, len: usize, count: usize) -> Result<ArrayClaim<'_>, SendError> {
        let claim = self.room(Wanted::array(len, count), None)?;
        Ok(ArrayClaim { len, count, claim, producer: self })
    }

    /// As [`Self::claim_array`], for at most `timeout`.
    ///
    /// # Errors
    /// As for [`Self::claim_timeout`] and [`Self::try_claim_array`].
    pub fn claim_array_timeout(
        &mut self,
        len: usize,
        count: usize,
        timeout: Duration,
    ) -> Result<ArrayClaim<'_>, SendError> {
        let claim = self.room(Wanted::array(len, count), Some(timeout))?;
        Ok(ArrayClaim { len, count, claim, producer: self })
    }

    /// As [`Self::try_claim_array`], of room that is known of without a look at the consumer. `None` says nothing
    /// but that [`Self::try_claim_array`] has to look further.
    #[inline(always)]
    pub fn claim_array_at_once(&mut self, len: usize, count: usize) -> Option<ArrayClaim<'_>> {
        let claim = self.writer.claim_array_at_once(len, count)?;
        Some(ArrayClaim { len, count, claim, producer: self })
    }

    /// Publishes what was queued. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Forked`], [`SendError::Corrupt`].
    #[inline(always)]
    pub fn flush(&mut self) -> Result<(), SendError> {
        if self.writer.is_foreign() {
            return Err(SendError::Forked);
        }
        if let Some(fault) = self.writer.broken() {
            return Err(SendError::Corrupt(fault));
        }
        if self.writer.flush() {
            self.ring();
        }
        Ok(())
    }

    /// Publications of batches so far: how often something queued, or an array, was made visible.
    pub fn publications(&self) -> u64 {
        self.writer.flushes()
    }

    /// The consumer, if one is attached. Of a broadcast's, the one that is in the way, if one is.
    pub fn peer(&self) -> Option<Peer> {
        if self.crier.is_some() {
            return Some(self.laggard()?.peer);
        }
        let (epoch, pid) = liveness::attached(&self.control.consumer().record)?;
        // One whose death was told is not there any more, whatever its record says.
        (epoch > self.told).then_some(Peer { pid })
    }

    /// What this channel's newest segment has seen. A dozen loads.
    pub fn stats(&self) -> Stats {
        let memory = self.writer.memory();
        match memory.gate() {
            None => Stats::read(memory),
            Some(gate) => Stats::of_broadcast(memory, gate.received(memory)),
        }
    }

    /// Of a broadcast: the subscriber that the producer waits for, or did last, how far it is behind,
    /// and for how long it has been in the way.
    pub fn laggard(&self) -> Option<Laggard> {
        let memory = self.writer.memory();
        memory.gate()?.laggard(memory, self.writer.published())
    }

    #[inline(always)]
    fn try_room(&mut self, wanted: Wanted) -> Result<spsc::Claim, SendError> {
        loop {
            match wanted.claim(&mut self.writer) {
                Ok(claim) => return Ok(claim),
                Err(error) => self.no_room_now(wanted, error)?,
            }
        }
    }

    #[inline(always)]
    fn room(
        &mut self,
        wanted: Wanted,
        timeout: Option<Duration>,
    ) -> Result<spsc::Claim, SendError> {
        loop {
            match wanted.claim(&mut self.writer) {
                Ok(claim) => return Ok(claim),
                Err(error) => self.wait_for_room(wanted, timeout, error)?,
            }
        }
    }

    /// Returns if there is room after all.
    #[cold]
    fn no_room_now(&mut self, wanted: Wanted, error: ClaimError) -> Result<(), SendError> {
        if self.after_failed_claim(wanted, error)? {
            return Ok(());
        }
        self.writer.memory().producer().counters.full_waits.bump(1);
        WaitForRoom::new(self, wanted).glance()?;
        if self.probe_clock.is_due_after_poll() {
            WaitForRoom::new(self, wanted).probe()?;
        }
        Err(self.told_full(|peer, lag| SendError::Full { peer, lag }))
    }

    /// Returns when there is room.
    #[cold]
    fn wait_for_room(
        &mut self,
        wanted: Wanted,
        timeout: Option<Duration>,
        error: ClaimError,
    ) -> Result<(), SendError> {
        if self.after_failed_claim(wanted, error)? {
            return Ok(());
        }
        self.writer.memory().producer().counters.full_waits.bump(1);
        let wait = self.wait;
        let deadline = timeout.and_then(wait::deadline);
        let pauses = wait::PAUSES_WITHOUT_ROOM;
        if wait::block(&mut WaitForRoom::new(self, wanted), wait, deadline, pauses)? {
            Ok(())
        } else {
            Err(self.told_full(|peer, lag| SendError::Timeout { peer, lag }))
        }
    }

    /// Sorts out why a claim failed. A batch that fills the ring is published: room that its own
    /// messages take can only come from a consumer who sees them. Returns whether that helped.
    fn after_failed_claim(&mut self, wanted: Wanted, error: ClaimError) -> Result<bool, SendError> {
        match error {
            ClaimError::TooLarge => {
                let max = wanted.max_len(&self.writer);
                Err(SendError::TooLarge { len: wanted.bytes(), max })
            }
            ClaimError::Corrupt(fault) => Err(self.poison(fault)),
            ClaimError::Foreign => Err(SendError::Forked),
            ClaimError::Full => {
                if self.writer.flush() {
                    self.ring();
                    match wanted.claim(&mut self.writer) {
                        Ok(_) => return Ok(true),
                        Err(ClaimError::Corrupt(fault)) => return Err(self.poison(fault)),
                        Err(_) => {}
                    }
                }
                self.make_way(wanted)
            }
        }
    }

    /// With who is in the way.
    fn told_full(&self, error: impl FnOnce(Option<Peer>, Option<Lag>) -> SendError) -> SendError {
        match self.laggard() {
            Some(Laggard { peer, lag }) => error(Some(peer), Some(lag)),
            None => error(self.peer(), None),
        }
    }

    /// Of a broadcast: gives up history that is in the way. Returns whether that helped.
    fn make_way(&mut self, wanted: Wanted) -> Result<bool, SendError> {
        loop {
            let memory = self.writer.memory();
            let Some(gate) = memory.gate() else { return Ok(false) };
            match gate.make_way(memory, self.writer.published()) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(fault) => return Err(self.poison(fault)),
            }
            match wanted.claim(&mut self.writer) {
                Ok(_) => return Ok(true),
                Err(ClaimError::Corrupt(fault)) => return Err(self.poison(fault)),
                Err(_) => {}
            }
        }
    }

    fn poison(&mut self, fault: Fault) -> SendError {
        self.writer.give_up(fault);
        self.writer.memory().producer().end.poisoned.store_release(fault as u64);
        SendError::Corrupt(fault)
    }

    /// After every publication.
    #[inline(always)]
    fn ring(&mut self) {
        if !wait::is_quiet(self.writer.memory().watched()) {
            self.ring_bell();
        }
    }

    #[inline(always)]
    fn ring_bell(&mut self) {
        let memory = self.writer.memory();
        let has_rung = match &mut self.crier {
            None => self.ringer.ring(&memory.producer().bell, &memory.consumer().bell),
            Some(crier) => crier.ring(memory),
        };
        if has_rung {
            memory.producer().counters.wakes.bump(1);
        }
    }
}

impl Drop for Producer {
    /// Publishes what was queued and leaves. The consumer gets everything, then `Disconnected`. May
    /// wait up to two seconds for others who are just opening or closing the channel. In a forked
    /// child: does nothing.
    fn drop(&mut self) {
        if self.writer.is_foreign() {
            return;
        }
        if self.writer.broken().is_none() {
            self.writer.flush();
        }
        // R9, pairs with A9 in the consumer's glance: who sees it closed sees the last message.
        self.writer.memory().producer().end.state.store_release(CLOSED);
        self.ring_bell();
        self.control.leave(Role::Producer);
        self.segment.unlock();
        recover::clear_if_last(&self.control, &End::Role(Role::Producer));
    }
}

/// Makes the segment of a new producer, and tells its number. The role is taken, the directory
/// locked.
pub(crate) fn new_segment(
    directory: &LockedDirectory,
    control: &Control,
    who: &Identity,
) -> Result<Segment, Error> {
    let number = recover::clear_predecessors(directory, control)?;
    let segment = Segment::create(control, number, who)?;
    let latest = &control.producer().latest.number;
    // R8, pairs with A8 in Listener::open_next.
    latest.store_release(number);
    futex::wake_all(latest);
    Ok(segment)
}

/// Gives the role back that a failed opening took.
pub(crate) fn leave(control: &Control, directory: LockedDirectory) {
    control.leave(Role::Producer);
    drop(directory);
    recover::clear_if_last(control, &End::Role(Role::Producer));
}

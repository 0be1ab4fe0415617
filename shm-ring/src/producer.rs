//! The sending end of an SPSC channel: claims room in the ring, publishes, waits for the consumer.
//!
//! The ring itself is `spsc`; which process may be here, and what remains of it, is the business of
//! `control` and `recover`. Nothing here knows what the bytes mean.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::broadcast::{Crier, Laggard};
use crate::control::{Control, Role};
use crate::counters::Stats;
use crate::courtesy::Courtesy;
use crate::error::{Error, Fault, Lag, Peer, SendError};
use crate::futex;
use crate::layout::{CLOSED, ConsumerPage, DETACHED};
use crate::liveness::{self, Identity};
use crate::memory::RingMemory;
use crate::options::{Kind, Options, Overflow, Wait};
use crate::recover::{self, End};
use crate::registry::LockedDirectory;
use crate::segment::{Segment, SegmentMemory, Watch};
use crate::spsc::{self, ClaimError, Publish, Writer};
use crate::subscription;
use crate::wait::{self, Nap, ProbeClock, Ringer, Waiter};

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
    fn new(producer: &'a mut Producer, claim: spsc::Claim) -> Self {
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
    producer: &'a mut Producer,
    claim: spsc::Claim,
    len: usize,
    count: usize,
}

impl ArrayClaim<'_> {
    /// All elements' bytes, without gaps; the first starts on 16 bytes.
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

/// What room is wanted for. Two words, so that it goes to the slow paths in registers: a store per
/// message less.
#[derive(Clone, Copy)]
struct Wanted {
    len: usize,
    /// Elements of an array; 0 for a message by itself.
    count: usize,
}

impl Wanted {
    #[inline(always)]
    fn message(len: usize) -> Self {
        Self { len, count: 0 }
    }

    #[inline(always)]
    fn array(len: usize, count: usize) -> Self {
        // The writer refuses an array without bytes.
        if count == 0 { Self { len: 0, count: 1 } } else { Self { len, count } }
    }

    #[inline(always)]
    fn claim(self, writer: &mut Writer<SegmentMemory>) -> Result<spsc::Claim, ClaimError> {
        match self.count {
            0 => writer.try_claim(self.len),
            count => writer.try_claim_array(self.len, count),
        }
    }

    fn bytes(self) -> usize {
        self.len.saturating_mul(self.count.max(1))
    }

    fn max_len(self, writer: &Writer<SegmentMemory>) -> usize {
        if self.count == 0 { writer.max_len() } else { writer.max_array_len() }
    }
}

struct WaitForRoom<'a> {
    producer: &'a mut Producer,
    wanted: Wanted,
    /// Page of the consumer whose bell the announced sleep is on: its address.
    sleeps_on: usize,
}

impl<'a> WaitForRoom<'a> {
    fn new(producer: &'a mut Producer, wanted: Wanted) -> Self {
        Self { producer, wanted, sleeps_on: 0 }
    }

    /// Who has to make room: the consumer, or the slowest of many.
    fn debtor(&self) -> &ConsumerPage {
        let memory = self.producer.writer.memory();
        let slowest = memory.gate().and_then(|gate| gate.slowest(memory));
        slowest.unwrap_or_else(|| memory.consumer())
    }
}

impl Waiter for WaitForRoom<'_> {
    type Error = SendError;

    fn poll(&mut self) -> Result<bool, SendError> {
        match self.wanted.claim(&mut self.producer.writer) {
            Ok(_) => Ok(true),
            // What a reader took since is history, and nobody else would end a wait for that.
            Err(ClaimError::Full) => self.producer.make_way(self.wanted),
            Err(error) => self.producer.after_failed_claim(self.wanted, error),
        }
    }

    fn glance(&mut self) -> Result<(), SendError> {
        let producer = &mut *self.producer;
        if producer.crier.is_some() {
            // One of many that comes or goes is no news.
            return Ok(());
        }
        let role = producer.control.consumer();
        // A6, pairs with R6 in Control::note_dead_consumer.
        let dead = role.dead.epoch.load_acquire();
        if dead > producer.told {
            producer.told = dead;
            let pid = u32::try_from(role.dead.pid.load_relaxed()).unwrap_or(0);
            return Err(SendError::PeerDied { peer: Peer { pid } });
        }
        let epoch = role.record.epoch.load_acquire();
        if epoch > producer.told && role.record.state.load_acquire() == DETACHED {
            producer.told = epoch;
            return Err(SendError::Disconnected);
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), SendError> {
        let producer = &mut *self.producer;
        let memory = producer.writer.memory();
        if let Some((gate, participants)) = memory.gate().zip(producer.control.participants()) {
            gate.evict(memory, |id| participants.dead(id).map(|(epoch, _)| epoch));
            return Ok(());
        }
        let record = &producer.control.consumer().record;
        let Some((epoch, pid)) = liveness::attached(record) else { return Ok(()) };
        if epoch <= producer.told || producer.control.is_held(Role::Consumer) {
            return Ok(());
        }
        // The lock is free, but the record may be from before a clean leave just now.
        if liveness::attached(record) == Some((epoch, pid)) {
            producer.told = epoch;
            return Err(SendError::PeerDied { peer: Peer { pid } });
        }
        Ok(())
    }

    fn announce(&mut self) -> Nap {
        let memory = self.producer.writer.memory();
        memory.producer().counters.parks.bump(1);
        let debtor = self.debtor();
        let nap = wait::announce(&memory.producer().bell, &debtor.bell);
        self.sleeps_on = std::ptr::from_ref(debtor).addr();
        nap
    }

    fn sleep(&mut self, nap: &Nap, timeout: Duration) {
        let debtor = self.debtor();
        // Another is the slowest since the announcement: whoever was would not ring.
        if std::ptr::from_ref(debtor).addr() == self.sleeps_on {
            wait::sleep(nap, &debtor.bell, timeout);
        }
    }

    fn awake(&mut self, nap: &Nap) {
        wait::awake(nap, &self.producer.writer.memory().producer().bell);
    }

    fn probe_clock(&mut self) -> &mut ProbeClock {
        &mut self.producer.probe_clock
    }

    fn courtesy(&mut self) -> &mut Courtesy {
        &mut self.producer.courtesy
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

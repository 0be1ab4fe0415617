//! The receiving end of an SPSC channel: takes messages out of the producer's segments, one
//! incarnation after the other, and waits for more.
//!
//! The ring itself is `spsc`. Nothing here knows what the bytes mean.

use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::broadcast;
use crate::control::{Control, Role};
use crate::copy::copy_out;
use crate::counters::Stats;
use crate::error::{Error, Peer, RecvError};
use crate::layout::{FINISHED, RUN_MAX};
use crate::listener::{Attendance, Listener};
use crate::liveness::Identity;
use crate::memory::RingMemory;
use crate::options::{Kind, Options, Overflow};
use crate::recover::{self, End};
use crate::registry::LockedDirectory;
use crate::segment::{self, Segment, SegmentMemory};
use crate::spsc::{Found, Reader, Run, Step};
use crate::subscription::{self, Entrance, Subscription};
use crate::wait::{self, Ringer};

/// The receiving end. One per channel; every method needs `&mut self`, so one thread at a time.
#[derive(Debug)]
pub struct Consumer {
    /// Reads the current segment; between incarnations of the producer, an empty ring that nobody
    /// writes, so that receiving need not ask which it is.
    reader: Reader<SegmentMemory>,
    /// The segment that is being read; `None` between incarnations of the producer.
    current: Option<Current>,
    attendance: Attendance,
}

#[derive(Debug)]
struct Current {
    /// Messages below this number may have been seen by a consumer that died.
    redelivered_below: u64,
    number: u32,
    segment: Segment,
}

impl Consumer {
    /// Opens the channel for receiving, creating it if need be. Allocates, touches the file
    /// system, and may wait up to ten seconds for others who are just opening or closing the
    /// channel.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let who = Identity::of_this_process();
        let (directory, control) = Control::join(options, Role::Consumer, &who)?;
        if control.kind() == Kind::Broadcast && control.overflow() == Overflow::Overwrite {
            let error = subscription::in_place_on_overwrite(&control);
            recover::abandon(&control, directory);
            return Err(error);
        }
        Self::begin(directory, control, &who)
    }

    /// As [`Self::open`], of a channel that was opened, under its directory's lock.
    pub(crate) fn begin(
        directory: LockedDirectory,
        control: Control,
        who: &Identity,
    ) -> Result<Self, Error> {
        let (end, entrance) = if control.kind().has_participants() {
            let (place, entrance) = Subscription::begin(&directory, &control, who)?;
            (End::Place(place), entrance)
        } else {
            (End::Role(Role::Consumer), None)
        };
        drop(directory);
        let attendance = Attendance::new(control, end);
        let mut consumer = Self { reader: idle(), current: None, attendance };
        match entrance {
            Some(entrance) => consumer.enter(entrance)?,
            None => consumer.open_next()?,
        }
        Ok(consumer)
    }

    /// The next message, in place. Never blocks, never allocates while one producer lives.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and how the producer ended.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Received<'_>, RecvError> {
        let found = self.try_message()?;
        Ok(Received { consumer: self, found })
    }

    /// As [`Self::try_recv`], but waits for a message, or for a producer to come.
    ///
    /// # Errors
    /// Never [`RecvError::Empty`].
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Received<'_>, RecvError> {
        let found = self.message(None)?;
        Ok(Received { consumer: self, found })
    }

    /// As [`Self::recv`], for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::Timeout`].
    #[inline(always)]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Received<'_>, RecvError> {
        let found = self.message(Some(timeout))?;
        Ok(Received { consumer: self, found })
    }

    /// Up to `limit` messages (and no more than 2^20) that are there, released together when the
    /// batch is dropped. Does not wait; a batch is empty only if `limit` is 0, and then at once.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    #[inline(always)]
    pub fn try_recv_batch(&mut self, limit: usize) -> Result<Batch<'_>, RecvError> {
        if limit > 0 && !self.reader.enters_alike() {
            self.try_message()?;
        }
        Ok(Batch::new(self, limit))
    }

    /// As [`Self::try_recv_batch`], but waits for the first message, for at most `timeout` if
    /// there is one.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`].
    #[inline(always)]
    pub fn recv_batch(
        &mut self,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<Batch<'_>, RecvError> {
        if limit > 0 && !self.reader.enters_alike() {
            self.message(timeout)?;
        }
        Ok(Batch::new(self, limit))
    }

    /// Gives back the message that was [left open](Received::leave_open).
    ///
    /// # Safety
    /// It is the last one that this consumer received, and was not given back.
    #[inline(always)]
    pub unsafe fn give_back(&mut self, step: Step) {
        if self.reader.consume(step) {
            self.ring();
        }
    }

    /// The same, if that [is short](Step::is_short).
    ///
    /// # Safety
    /// As for [`Self::give_back`], and it is short.
    #[inline(always)]
    pub unsafe fn step(&mut self, step: Step) {
        // SAFETY: the caller's promise.
        unsafe { self.reader.step(step) };
    }

    /// The number of the message that is left open, or of the next one, from 0 in each segment.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.reader.next_sequence()
    }

    /// Whether a consumer that died may have seen that message before.
    pub fn redelivered(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| self.sequence() < current.redelivered_below)
    }

    /// The producer of the segment that is being read, if there is one.
    pub fn peer(&self) -> Option<Peer> {
        self.current.as_ref().map(|current| Peer { pid: current.segment.header().creator_pid })
    }

    /// What the segment that is being read has seen; zeros between two producers.
    pub fn stats(&self) -> Stats {
        match &self.current {
            Some(_) => Stats::read(self.reader.memory()),
            None => Stats::default(),
        }
    }

    #[inline(always)]
    fn try_message(&mut self) -> Result<Found, RecvError> {
        if let Some(found) = self.reader.ready() {
            return Ok(found);
        }
        self.try_message_slowly()?;
        Ok(self.reader.found())
    }

    #[inline(always)]
    fn message(&mut self, timeout: Option<Duration>) -> Result<Found, RecvError> {
        if let Some(found) = self.reader.ready() {
            return Ok(found);
        }
        // First: the polls are a part of it.
        let deadline = timeout.and_then(wait::deadline);
        if !self.comes_soon() {
            self.message_slowly(deadline)?;
        }
        Ok(self.reader.found())
    }

    /// Whether a message as the last one is there soon. False says nothing: [`Self::message_slowly`] does.
    #[cold]
    #[inline(never)]
    fn comes_soon(&mut self) -> bool {
        // A fork, or one who has no ring, or something to look at closely.
        if self.current.is_none() || self.reader.is_foreign() || !self.reader.is_empty() {
            return false;
        }
        self.tell_head();
        let Some((pauses, courtesy)) = self.attendance.patience(self.reader.next_sequence()) else {
            return false;
        };
        let reader = &self.reader;
        wait::poll_first(pauses, courtesy, || reader.is_still_empty()) && reader.is_ready()
    }

    #[cold]
    #[inline(never)]
    fn try_message_slowly(&mut self) -> Result<(), RecvError> {
        if self.reader.is_foreign() {
            return Err(RecvError::Forked);
        }
        while !self.look()? {
            self.nothing_now()?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn message_slowly(&mut self, deadline: Option<Instant>) -> Result<(), RecvError> {
        if self.reader.is_foreign() {
            return Err(RecvError::Forked);
        }
        if self.look()? { Ok(()) } else { self.wait_further(deadline) }
    }

    /// Returns whether there is another ring to look at now.
    fn found_empty(&mut self) -> Result<bool, RecvError> {
        if self.current.is_none() {
            return self.look_for_producer();
        }
        self.tell_head();
        Ok(false)
    }

    /// Before a wait: a producer may be out of room.
    fn tell_head(&mut self) {
        // A batch that was forgotten keeps the room of what it stepped over.
        let told = self.reader.holds_any() && self.reader.release();
        if self.reader.publish_head() || told {
            self.ring();
        }
    }

    /// Starts reading the segment that was being written when this reader came.
    fn enter(&mut self, entrance: Entrance) -> Result<(), Error> {
        let Entrance { number, segment, start } = entrance;
        let control = &self.attendance.control;
        let history = control.header().history;
        broadcast::walk(&segment.memory(), segment.geometry(), start, history)
            .map_err(|fault| segment::corrupt(control.directory(), number, fault))?;
        self.attach(number, segment)?;
        Ok(())
    }
}

/// What there is to read between two producers: nothing.
fn idle() -> Reader<SegmentMemory> {
    Reader::idle(SegmentMemory::idle())
}

impl Drop for Consumer {
    /// Leaves. What was not received waits for the next consumer. May wait up to two seconds for
    /// others who are just opening or closing the channel. In a forked child: does nothing.
    fn drop(&mut self) {
        if self.reader.is_foreign() {
            return;
        }
        if let Some(current) = &self.current {
            // What a batch stepped over that was forgotten was received, and does not come again.
            if self.reader.holds_any() {
                self.reader.release();
            }
            self.reader.publish_head();
            let progress = &self.reader.memory().consumer().progress;
            // Nothing is held any more; what an earlier consumer saw that died stays seen.
            progress.lent.store_release(current.redelivered_below);
            progress.attached.store_release(0);
        }
        self.attendance.leave();
        self.ring();
        self.attendance.close();
    }
}

impl Listener for Consumer {
    fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    #[inline]
    fn parts(&mut self) -> (&mut Attendance, Option<&SegmentMemory>) {
        let memory = self.current.as_ref().map(|_| self.reader.memory());
        (&mut self.attendance, memory)
    }

    fn current(&self) -> Option<(u32, &Segment)> {
        self.current.as_ref().map(|current| (current.number, &current.segment))
    }

    /// Finding the ring empty publishes the head.
    #[inline]
    fn look(&mut self) -> Result<bool, RecvError> {
        loop {
            if self.reader.is_empty() {
                if !self.found_empty()? {
                    return Ok(false);
                }
            } else if self.reader.is_ready() {
                return Ok(true);
            } else {
                return self.reader.look_closely().map_err(|fault| self.poison(fault));
            }
        }
    }

    #[inline(always)]
    fn sees_nothing(&self) -> bool {
        self.reader.is_still_empty()
    }

    fn seen(&self) -> u64 {
        self.reader.next_sequence()
    }

    fn attach(&mut self, number: u32, segment: Segment) -> Result<bool, Error> {
        let memory = segment.memory();
        let page = memory.consumer();
        if page.end.state.load_relaxed() == FINISHED {
            return Ok(false);
        }
        let mut reader = match Reader::attach(memory.clone(), segment.geometry()) {
            Ok(reader) => reader,
            Err(fault) => {
                page.end.poisoned.store_release(fault as u64);
                page.end.state.store_release(FINISHED);
                self.attendance.finished = number;
                let directory = self.attendance.control.directory();
                return Err(segment::corrupt(directory, number, fault));
            }
        };
        let progress = &page.progress;
        let lent = progress.lent.load_relaxed();
        let redelivered_below = if progress.attached.load_relaxed() == 0 {
            lent
        } else {
            lent.max(reader.next_sequence().saturating_add(1))
        };
        if self.attendance.sleepy {
            wait::attach(&page.bell);
        }
        progress.attached.store_release(1);
        // A producer may be asleep, out of room that the last consumer had released but not told.
        reader.publish_head();
        self.reader = reader;
        self.attendance.ringer = Ringer::new(self.attendance.sleepy);
        self.current = Some(Current { redelivered_below, number, segment });
        self.ring();
        Ok(true)
    }

    fn detach(&mut self) {
        self.current = None;
        self.reader = idle();
    }
}

/// A message, read in place; dropping it gives its room back.
#[derive(Debug)]
pub struct Received<'a> {
    consumer: &'a mut Consumer,
    found: Found,
}

// SAFETY: the pointer in what was found goes where the consumer does, which is Send, and is only read.
unsafe impl Send for Received<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Received<'_> {}

impl Received<'_> {
    /// Whether a consumer that died may have seen this message before.
    pub fn redelivered(&self) -> bool {
        self.consumer.redelivered()
    }

    /// Number of the message in its segment, from 0.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.consumer.sequence()
    }

    /// Leaves it to the caller to give the message back, by [`Consumer::give_back`], before anything else is asked
    /// of the consumer.
    #[inline(always)]
    pub fn leave_open(self) -> Found {
        let found = self.found;
        std::mem::forget(self);
        found
    }

    /// Bytes of the message.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.found.len
    }

    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.found.len == 0
    }

    /// Copies the front of the message out, as far as `to` has room, for readers that do not trust
    /// the producer: other than through `Deref`, the bytes may change meanwhile. Whatever the copy
    /// holds then, it keeps.
    pub fn copy_to(&self, to: &mut [u8]) {
        let len = to.len().min(self.found.len);
        // SAFETY: the message's bytes stay mapped while `self` lives, and `len` of them are its own.
        unsafe { copy_out(self.found.payload, &mut to[..len]) };
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the reader checked that these bytes lie in the ring; the writer leaves them alone
        // until they are released, which is when this guard is dropped. A peer of the same user
        // that breaks the protocol is outside the trust model; `recv_copy` is for those.
        unsafe { std::slice::from_raw_parts(self.found.payload, self.found.len) }
    }
}

impl Drop for Received<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: nothing can be received while this borrows the consumer.
        unsafe { self.consumer.give_back(self.found.step) };
    }
}

/// Several messages, released together when it is dropped.
#[derive(Debug)]
pub struct Batch<'a> {
    consumer: &'a mut Consumer,
    /// Messages from this number on are not for it.
    end: u64,
    /// Messages below this number may have been seen by a consumer that died.
    redelivered_below: u64,
}

/// A message of a [`Batch`], in place.
#[derive(Clone, Copy, Debug)]
pub struct BatchMessage<'b> {
    /// Its bytes.
    pub payload: &'b [u8],
    /// Its number in its segment, from 0.
    pub sequence: u64,
    /// Whether a consumer that died may have seen it before.
    pub redelivered: bool,
}

/// Messages of a [`Batch`] that were sent together, side by side in place.
#[derive(Clone, Copy, Debug)]
pub struct BatchRun<'b> {
    /// The bytes of all of them.
    pub payload: &'b [u8],
    /// Bytes of each.
    pub len: usize,
    /// How many.
    pub count: usize,
    /// The first one's number in its segment, from 0.
    pub sequence: u64,
    /// Whether a consumer that died may have seen the first, and maybe others.
    pub redelivered: bool,
}

impl<'a> Batch<'a> {
    #[inline(always)]
    fn new(consumer: &'a mut Consumer, limit: usize) -> Self {
        let redelivered_below =
            consumer.current.as_ref().map_or(0, |current| current.redelivered_below);
        let end = consumer.sequence().saturating_add(RUN_MAX.min(limit as u64));
        Self { consumer, end, redelivered_below }
    }

    /// The next message of the batch, if there is one.
    ///
    /// # Errors
    /// [`RecvError::Corrupt`]; the end of a producer is left to the next call on the consumer.
    #[inline(always)]
    #[allow(clippy::should_implement_trait, reason = "lends, which Iterator can't")]
    pub fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        if self.is_full() {
            return Ok(None);
        }
        let run = match self.consumer.reader.ready_one() {
            Some(run) => run,
            None if self.has_more()? => self.consumer.reader.one(),
            None => return Ok(None),
        };
        let redelivered = self.take(&run);
        // SAFETY: the run is of the reader, who checked that its bytes lie in the ring;
        // they are released when `self` is dropped, which the result borrows, and only by `self`.
        let payload = unsafe { std::slice::from_raw_parts(run.payload, run.len) };
        Ok(Some(BatchMessage { payload, sequence: run.sequence, redelivered }))
    }

    /// The next message with all that follow it in its record: those that were sent together, and
    /// are of one length.
    ///
    /// # Errors
    /// As [`Self::next`].
    #[inline(always)]
    pub fn next_run(&mut self) -> Result<Option<BatchRun<'_>>, RecvError> {
        if self.is_full() || !self.has_more()? {
            return Ok(None);
        }
        let run = self.consumer.reader.run();
        let left = self.end - run.sequence;
        let run = Run { count: run.count.min(left as usize), ..run };
        let redelivered = self.take(&run);
        // SAFETY: as in `next`; a run's messages lie side by side.
        let payload = unsafe { std::slice::from_raw_parts(run.payload, run.len * run.count) };
        let (len, count, sequence) = (run.len, run.count, run.sequence);
        Ok(Some(BatchRun { payload, len, count, sequence, redelivered }))
    }

    /// Whether it has as many messages as it may.
    #[inline(always)]
    fn is_full(&self) -> bool {
        self.consumer.sequence() >= self.end
    }

    /// Whether there is another message.
    #[inline(always)]
    fn has_more(&mut self) -> Result<bool, RecvError> {
        let reader = &mut self.consumer.reader;
        Ok(reader.is_ready() || reader.enters_alike() || self.look_closely()?)
    }

    /// Takes what was found out of the ring. Returns whether the first of it was seen before.
    #[inline(always)]
    fn take(&mut self, run: &Run) -> bool {
        let redelivered = run.sequence < self.redelivered_below;
        let behind = run.sequence.wrapping_add(run.count as u64);
        let reader = &mut self.consumer.reader;
        // First: behind the store to shared memory all that it looks at would be read again.
        reader.advance(run.count);
        // Before they are shown: a successor must know which may have been seen. Of those below `redelivered_below` it does.
        if !redelivered || behind > self.redelivered_below {
            reader.memory().consumer().progress.lent.store_release(behind);
        }
        redelivered
    }

    #[cold]
    #[inline(never)]
    fn look_closely(&mut self) -> Result<bool, RecvError> {
        if self.consumer.reader.is_foreign() {
            return Err(RecvError::Forked);
        }
        self.consumer.reader.look_closely().map_err(|fault| self.consumer.poison(fault))
    }
}

impl Drop for Batch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Corruption in the middle of it ends the segment: then there is nothing to give back.
        if self.consumer.reader.is_foreign() || !self.consumer.reader.holds_any() {
            return;
        }
        if self.consumer.reader.release() {
            self.consumer.ring();
        }
        let progress = &self.consumer.reader.memory().consumer().progress;
        progress.lent.store_release(self.redelivered_below);
    }
}

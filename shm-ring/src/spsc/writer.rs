//! The writer's half of the SPSC ring: where the next record goes, whether there is room, and how it is
//! published.

use super::ahead::{self, Ahead};
use super::sizes::{self, RECORD_MIN, RUN_MIN, Sizes};
use super::{Geometry, max_record};
use crate::error::Fault;
use crate::home::{Foreign, Homed, Homing};
use crate::layout::{
    ARRAY_OFFSET, ARRAY_SHAPE, ArrayShape, LINE, RECORD_ARRAY, RECORD_HEADER, RECORD_MESSAGE,
    RECORD_PADDING, RUN_MAX, RecordHeader, SEQUENCE_MASK,
};
use crate::memory::{Access, Boundary, RingMemory};
use crate::sync::Word;

/// Why a claim was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// Not enough was released yet.
    Full,
    /// Longer than [`Writer::max_len`].
    TooLarge,
    /// The reader's page makes no sense.
    Corrupt(Fault),
    /// The writer is of the process that this one is a fork of.
    Foreign,
}

/// Room for one record at the tail, not published yet. Forgetting it is aborting it: nothing was
/// written that a reader could see. It is for the writer that granted it, and for nothing once that granted
/// another one or is gone.
#[derive(Debug)]
pub struct Claim {
    /// Payload bytes claimed.
    len: u64,
    /// The ring's first byte.
    ring: *mut u8,
    /// Ring offset of the record.
    at: u64,
    /// Where the next one begins.
    end: u64,
    /// Payload bytes that are probably committed, and the end of their record: what makes sizes of lengths
    /// would be looked up again behind the message's stores, and both lengths are mostly constants.
    likely: (u64, u64),
}

// SAFETY: the pointer is only followed by the writer that it came from.
unsafe impl Send for Claim {}
// SAFETY: as for Send.
unsafe impl Sync for Claim {}

impl Claim {
    /// Payload bytes that may be written.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.len as usize
    }
}

/// Whether a commit becomes visible at once or with the batch it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Now, with everything queued before it.
    Now,
    /// At the next [`Writer::flush`] or commit with [`Publish::Now`].
    Later,
}

/// The producer's half of the algorithm.
#[derive(Debug)]
pub struct Writer<M> {
    memory: M,
    tail: Homed<Tail>,
    sizes: Sizes,
    /// capacity - 1.
    mask: u64,
    /// Position of the ring's first byte in this lap.
    lap: u64,
    /// What may be written is below this position: the last head seen, plus the capacity.
    limit: u64,
    /// [`Tail::bound`], had it nothing to do with [`ENDED`].
    free_to: u64,
    /// Whether messages of one size may be [`ENDED`]: the reader had [caught up](CAUGHT_UP), and no other size came
    /// since.
    may_end: bool,
    /// Bytes before the front that the next record's publication turns into padding.
    padding: u64,
    /// Header of the first record of a batch, kept back until the flush; 0 when there is none.
    withheld: u64,
    /// Where in the ring it belongs.
    withheld_at: u64,
    /// Number of the first message behind it.
    withheld_sequence: u64,
    flushes: u64,
    /// All messages, as the producer's page tells them: fewer than 2^24 messages ago.
    counted: u64,
    ahead: Ahead,
    /// Sticky: a ring that made no sense once is not written any more.
    broken: Option<Fault>,
}

/// What every message changes or is compared with. The reader finds records by their headers, so nobody
/// else needs to know where the tail is; and in a forked child nothing fits, and nothing is quick.
#[derive(Debug)]
struct Tail {
    /// Ring offset of the next record.
    front: u64,
    /// Ring offset at which a record may end at most: before the lap does, so that its terminator is
    /// behind it; where that terminator is below `limit`; and where the longest record would end if it
    /// began where this was set, or so far from there that it is time to count. One compare stands for all.
    /// With [`ENDED`] less: where the zero is, so that no claim reaches over it.
    bound: u64,
    /// What can be committed with nothing but its own header.
    quick: u64,
}

impl Homing for Tail {
    const GONE: Self = Self { front: 0, bound: 0, quick: NOTHING };
}

/// [`Tail::quick`]: look closer, at every commit.
const NOTHING: u64 = 0;
/// Nothing is withheld and no padding waits: what is to be published at once.
const ALONE: u64 = 1;
/// A batch has begun: what is to be published with it.
const IN_BATCH: u64 = 2;
/// As [`ALONE`], and there is a zero at `bound` already: what ends there, is within a line, and is to be published at once,
/// needs no terminator any more.
///
/// A terminator is often in a line that the writer does not have, and the header has to wait for it. So to a reader
/// that waits for single messages of one size, that of the next one is written behind the header of this one, where nobody
/// waits for it. Round trips of 48 bytes then take 0.6 to 0.93 of what they took before; of those of 8 bytes, each
/// fourth of which is the last of its line, one in a thousand took 0.65 to 0.85 of it, in a loop that is not in the
/// tree; `ringway-bench pingpong --size 8,48 --systems floor-ring,ringway-shm-raw` measures the same.
/// In a stream it would cost more than it brings: 8 bytes went at 0.87 of the rate. A message longer than a line
/// writes to its last line anyway.
const ENDED: u64 = 3;

/// A reader that has no more than this left to take, in bytes, when the writer looks, takes each message as it comes.
const CAUGHT_UP: u64 = 2 * LINE;

/// Most bytes that are written between two counts: single messages, which take [`RECORD_MIN`], and no more than
/// one array, after which it is counted. Together they are fewer than the numbers in headers tell apart.
const COUNTED_WITHIN: u64 = 128 << 20;
const _: () = assert!(COUNTED_WITHIN / RECORD_MIN + RUN_MAX < SEQUENCE_MASK);

/// No length that is asked for is above it; sums with it do not overflow.
const LEN_LIMIT: u64 = 1 << 40;

impl<M: RingMemory> Writer<M> {
    /// A writer on fresh, zeroed memory. Allocates.
    pub fn new(memory: M, geometry: Geometry) -> Self {
        let capacity = memory.capacity();
        let mut writer = Self {
            tail: Homed::new(Tail { front: 0, bound: 0, quick: NOTHING }),
            sizes: Sizes::of(geometry),
            mask: capacity - 1,
            lap: 0,
            limit: capacity,
            free_to: 0,
            may_end: true,
            padding: 0,
            withheld: 0,
            withheld_at: 0,
            withheld_sequence: 0,
            flushes: 0,
            counted: 0,
            ahead: Ahead::new(capacity),
            broken: None,
            memory,
        };
        writer.memory.producer().counters.next.store_relaxed(RecordHeader::upcoming(0).0);
        writer.settle_bound();
        writer
    }

    /// The memory under it.
    #[inline(always)]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Whether it is of the process that this one is a fork of. Such a writer writes nothing.
    #[inline(always)]
    pub fn is_foreign(&self) -> bool {
        self.tail.is_foreign()
    }

    /// Longest message.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        (max_record(self.mask + 1) - self.sizes.start()) as usize
    }

    /// The most bytes that messages sent as one array may have together.
    pub fn max_array_len(&self) -> usize {
        (max_record(self.mask + 1) - ARRAY_OFFSET) as usize
    }

    /// Messages committed so far, queued ones included, which is also the number of the next.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.upcoming().count_from(self.counted)
    }

    #[inline(always)]
    fn upcoming(&self) -> RecordHeader {
        RecordHeader(self.memory.producer().counters.next.load_relaxed())
    }

    /// Bytes between a head and the tail; 0 for a head that makes no sense.
    pub fn depth_beyond(&self, head: u64) -> u64 {
        self.position().saturating_sub(head)
    }

    /// Batches published so far.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Why the ring was given up, if it was.
    #[inline(always)]
    pub fn broken(&self) -> Option<Fault> {
        self.broken
    }

    /// From now on nothing fits, for this reason.
    pub fn give_up(&mut self, fault: Fault) {
        self.broken = Some(fault);
        self.settle_bound();
    }

    /// Room for a record of `len` bytes. Looks at the reader's gate only when the room known of
    /// does not do.
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim, ClaimError> {
        let len = len as u64;
        self.claim_record(len, self.sizes.message(len))
    }

    /// Room for a record of `count` messages of `len` bytes each, both at least 1, together no
    /// longer than the longest message and no more than [`RUN_MAX`].
    #[inline(always)]
    pub fn try_claim_array(&mut self, len: usize, count: usize) -> Result<Claim, ClaimError> {
        match (len as u64).checked_mul(count as u64) {
            Some(total) if total > 0 && count as u64 <= RUN_MAX => {
                self.claim_record(total, self.sizes.array(total))
            }
            _ => Err(ClaimError::TooLarge),
        }
    }

    /// As [`Self::try_claim`], of room that is known of. `None` says nothing but that it has to be asked.
    #[inline(always)]
    pub fn claim_at_once(&mut self, len: usize) -> Option<Claim> {
        let len = len as u64;
        let size = self.sizes.message(len);
        self.fits_at_once(len, size).then(|| self.grant(len, size))
    }

    /// As [`Self::try_claim_array`], of room that is known of. `None` says nothing but that it has to be asked.
    #[inline(always)]
    pub fn claim_array_at_once(&mut self, len: usize, count: usize) -> Option<Claim> {
        let total = (len as u64).checked_mul(count as u64)?;
        if total == 0 || count as u64 > RUN_MAX {
            return None;
        }
        let size = self.sizes.array(total);
        if !self.fits_at_once(total, size) {
            return None;
        }
        Some(self.grant(total, size))
    }

    /// The slow path returns nothing but whether to go on, and the claim is made here in any case:
    /// made there, it would come back through memory, and a load that has to wait for stores to be
    /// assembled waits behind those to contested lines (a stream of 8-byte messages ran at a quarter
    /// of its rate).
    #[inline(always)]
    fn claim_record(&mut self, len: u64, size: u64) -> Result<Claim, ClaimError> {
        if !self.fits_at_once(len, size) {
            self.make_room(len, size)?;
        }
        Ok(self.grant(len, size))
    }

    #[inline(always)]
    fn fits_at_once(&self, len: u64, size: u64) -> bool {
        len < LEN_LIMIT && self.tail.front + size <= self.tail.bound
    }

    #[inline(always)]
    fn grant(&mut self, len: u64, size: u64) -> Claim {
        let at = self.tail.front;
        self.ask_ahead(at, len, size);
        self.claimed(len, at, at + size)
    }

    #[inline(always)]
    fn claimed(&self, len: u64, at: u64, end: u64) -> Claim {
        Claim { len, ring: self.memory.payload(0), at, end, likely: (len, end) }
    }

    /// The longest run of free bytes in one piece at the tail, as known: for a serialiser that
    /// learns the length by writing. `None`: too few bytes for what any length of them would take; a claim of a length
    /// finds what there is. `likely` is what the message will
    /// take if all goes as usual: nothing depends on it but which lines are asked for.
    #[inline(always)]
    pub fn claim_run(&mut self, likely: usize) -> Option<Claim> {
        let at = self.tail.front;
        let end = self.tail.bound;
        let len = end.checked_sub(at + RUN_MIN)? + (RUN_MIN - self.sizes.start());
        let likely = likely as u64;
        let likely_size = self.sizes.message(likely);
        self.ask_ahead(at, likely, likely_size);
        Some(Claim {
            len,
            ring: self.memory.payload(0),
            at,
            end,
            likely: (likely, at + likely_size),
        })
    }

    #[inline(always)]
    fn ask_ahead(&mut self, at: u64, len: u64, size: u64) {
        Ahead::claimed(&self.memory, at, size, len);
        if !ahead::is_short(len) {
            self.ask_for_more(at, len, size);
        }
    }

    #[cold]
    #[inline(never)]
    fn ask_for_more(&mut self, at: u64, len: u64, size: u64) {
        if self.ahead.claimed_more(&self.memory, at, size, len) {
            // A look at its size in every quick commit would cost streams of short messages 4 %.
            self.tail.quick = NOTHING;
        }
    }

    /// Where the payload of `claim` goes: `claim.room()` bytes, nobody else's until the commit.
    #[inline(always)]
    pub fn payload(&self, claim: &Claim) -> *mut u8 {
        self.touch_written(claim, self.sizes.start());
        self.memory.payload(self.payload_at(claim))
    }

    /// Where in the ring that is.
    #[inline(always)]
    pub fn payload_at(&self, claim: &Claim) -> u64 {
        claim.at + self.sizes.start()
    }

    /// Where element 0 of an array claim goes; the others follow without gaps.
    #[inline(always)]
    pub fn array_payload(&self, claim: &Claim) -> *mut u8 {
        self.touch_written(claim, ARRAY_OFFSET);
        self.memory.payload(self.array_payload_at(claim))
    }

    /// Where in the ring that is.
    #[inline(always)]
    pub fn array_payload_at(&self, claim: &Claim) -> u64 {
        claim.at + ARRAY_OFFSET
    }

    #[inline(always)]
    fn touch_written(&self, claim: &Claim, offset: u64) {
        self.memory.touch(claim.at + offset, claim.len, Access::Write);
    }

    /// Makes the whole claim a message.
    ///
    /// # Errors
    /// [`Foreign`]: it was claimed before the fork, and is the parent's.
    #[inline(always)]
    pub fn commit(&mut self, claim: Claim, publish: Publish) -> Result<(), Foreign> {
        self.touch_written(&claim, self.sizes.start());
        self.commit_record(claim, RECORD_MESSAGE, 1, publish)
    }

    /// Makes the first `len` bytes of the claim a message. `len` must not exceed the claim.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn commit_len(
        &mut self,
        claim: Claim,
        len: usize,
        publish: Publish,
    ) -> Result<(), Foreign> {
        let len = len as u64;
        debug_assert!(len <= claim.len);
        let end = match claim.likely {
            (likely, end) if likely == len => end,
            _ => claim.at + self.sizes.message(len),
        };
        self.commit(Claim { len, end, ..claim }, publish)
    }

    /// Makes an array claim `count` messages of `len` bytes; `count` may be less than was claimed. Published at once
    /// it is a batch, as [`Self::flushes`] counts them.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline]
    pub fn commit_array(
        &mut self,
        claim: Claim,
        len: usize,
        count: usize,
        publish: Publish,
    ) -> Result<(), Foreign> {
        if self.is_foreign() {
            return Err(Foreign);
        }
        let (each, count) = (len as u64, count as u64);
        debug_assert!(each >= 1 && count >= 1 && each * count <= claim.len);
        let shape = ArrayShape::new(each, count);
        self.memory.word(claim.at + ARRAY_SHAPE).store_relaxed(shape.0);
        if publish == Publish::Now && self.withheld == 0 {
            self.flushes += 1;
        }
        let len = each * count;
        let size = self.sizes.array(len);
        let claim = Claim { len, end: claim.at + size, ..claim };
        self.touch_written(&claim, ARRAY_OFFSET);
        self.commit_record(claim, RECORD_ARRAY, count, publish)?;
        self.count();
        Ok(())
    }

    /// Publishes what was queued: one Release of the first header, so a reader, and a crash, see
    /// all of it or nothing. Returns whether there was anything.
    #[inline(always)]
    pub fn flush(&mut self) -> bool {
        if self.withheld == 0 {
            return false;
        }
        // R1, pairs with A1 in Reader::is_ready, Reader::enters_alike and Reader::look.
        self.memory.word(self.withheld_at).store_release(self.withheld);
        self.withheld = 0;
        self.flushes += 1;
        if self.tail.quick == IN_BATCH {
            // Otherwise a claim is out that is to be looked at: it may end with the lap.
            self.tail.quick = ALONE;
        }
        self.ahead.published(&self.memory, self.tail.front);
        true
    }

    /// Looks at how far the reader has released, and checks it.
    #[cold]
    pub fn refresh(&mut self) -> Result<(), Fault> {
        let capacity = self.mask + 1;
        let seen = self.limit - capacity;
        let published = self.published();
        let head = self.memory.released(published)?;
        if head < seen || head > published.position || !self.sizes.is_position(head) {
            return Err(Fault::Gate);
        }
        self.limit = head + capacity;
        self.settle_bound();
        let counters = &self.memory.producer().counters;
        counters.position.store_relaxed(self.position());
        let depth = self.depth_beyond(head);
        self.may_end = depth <= CAUGHT_UP;
        if depth > counters.depth_max.load_relaxed() {
            counters.depth_max.store_relaxed(depth);
        }
        Ok(())
    }

    /// Everything below it was published, and nothing behind it, so nothing there can be released.
    pub fn published(&self) -> Boundary {
        if self.withheld == 0 {
            return Boundary {
                position: self.position() - self.padding,
                sequence: self.sequence(),
            };
        }
        Boundary { position: self.oldest_withheld(), sequence: self.withheld_sequence }
    }

    /// Position of the next record.
    fn position(&self) -> u64 {
        self.lap + self.tail.front
    }

    fn oldest_withheld(&self) -> u64 {
        // The withheld header lies less than a capacity below the tail.
        self.position() - (self.tail.front.wrapping_sub(self.withheld_at) & self.mask)
    }

    /// Room for `bytes` at the tail, and for the terminator behind them. Without the latter a
    /// terminator in a full ring would zero the oldest unread header.
    fn fits(&self, bytes: u64) -> bool {
        self.position() + bytes + RECORD_HEADER <= self.limit
    }

    /// Sets what is quick, from everything else.
    fn settle_pace(&mut self) {
        self.tail.quick = match (self.padding, self.withheld) {
            (0, 0) => ALONE,
            (0, _) => IN_BATCH,
            _ => NOTHING,
        };
    }

    /// Sets the bound, from everything else.
    fn settle_bound(&mut self) {
        // A unit below the lap's end: a record that ends with the lap has its terminator at the
        // ring's start.
        let lap_end = self.mask & self.sizes.mask();
        // Never below the tail: that is a multiple of the unit, and a terminator fits there.
        let free_end = ((self.limit - RECORD_HEADER) & self.sizes.mask()) - self.lap;
        let longest = self.tail.front + max_record(self.mask + 1).min(COUNTED_WITHIN);
        let bound = lap_end.min(free_end).min(longest);
        self.free_to = if self.broken.is_some() { 0 } else { bound };
        self.unend();
        self.count();
    }

    /// What was [`ENDED`] is not any more.
    fn unend(&mut self) {
        self.tail.bound = self.free_to;
        if self.tail.quick == ENDED {
            self.tail.quick = ALONE;
        }
    }

    /// Writes the terminator of the next record, if that has this `size`, or returns false: there may be no room for it.
    #[inline(always)]
    fn end_next(&mut self, size: u64) -> bool {
        let end = self.tail.front + size;
        if end > self.free_to {
            return false;
        }
        // Nobody looks there before the header of that record leads there, which is stored later, with Release.
        self.memory.word(end).store_relaxed(0);
        self.tail.bound = end;
        true
    }

    /// Tells the number of all messages, of which the next header has but the low bits.
    #[inline(always)]
    fn count(&mut self) {
        let sequence = self.sequence();
        if sequence != self.counted {
            self.counted = sequence;
            // R13, pairs with A13 in sent_by.
            self.memory.producer().counters.sent_before.store_release(sequence);
        }
    }

    /// Looks at the gate, and goes on to the start of the ring, if that is what it takes for a
    /// record of `size` bytes, with `len` in it, to fit at the tail.
    #[cold]
    fn make_room(&mut self, len: u64, size: u64) -> Result<(), ClaimError> {
        if self.is_foreign() {
            return Err(ClaimError::Foreign);
        }
        if let Some(fault) = self.broken {
            return Err(ClaimError::Corrupt(fault));
        }
        if len >= LEN_LIMIT || size > max_record(self.mask + 1) {
            return Err(ClaimError::TooLarge);
        }
        if self.tail.quick == ENDED {
            self.may_end = false;
            self.unend();
            if self.tail.front + size <= self.tail.bound {
                return Ok(());
            }
        }
        let to_end = self.mask + 1 - self.tail.front;
        let padding = if size <= to_end { 0 } else { to_end };
        if !self.fits(padding + size) {
            self.refresh().map_err(ClaimError::Corrupt)?;
            if !self.fits(padding + size) {
                return Err(ClaimError::Full);
            }
        }
        // Nobody sees the padding before the next commit. If the claim is aborted, what comes
        // instead starts there as well.
        if padding > 0 {
            self.padding += padding;
            self.next_lap();
        }
        self.settle_pace();
        self.settle_bound();
        if self.may_end || self.tail.front + size > self.tail.bound {
            // It may be ended from then on, or ends with the lap, so its terminator is elsewhere.
            self.tail.quick = NOTHING;
        }
        Ok(())
    }

    fn next_lap(&mut self) {
        self.tail.front = 0;
        self.lap += self.mask + 1;
    }

    #[inline(always)]
    fn commit_record(
        &mut self,
        claim: Claim,
        kind: u8,
        count: u64,
        publish: Publish,
    ) -> Result<(), Foreign> {
        let usual = match publish {
            Publish::Now => ALONE,
            Publish::Later => IN_BATCH,
        };
        if self.tail.quick != usual {
            if publish == Publish::Now
                && kind == RECORD_MESSAGE
                && sizes::is_within_line(claim.len)
                && self.tail.quick == ENDED
                && claim.end == self.tail.bound
            {
                self.commit_ended(&claim);
                return Ok(());
            }
            // In pieces: the claim itself would go by way of memory, and not only when it goes there.
            let Claim { len, at, end, .. } = claim;
            return match publish {
                Publish::Now => self.commit_last(len, at, end, kind, count),
                Publish::Later => self.commit_first(len, at, end, kind, count),
            };
        }
        self.commit_quickly(&claim, kind, count, true, |header, value| match publish {
            // R1, pairs with A1 in Reader::is_ready, Reader::enters_alike and Reader::look.
            Publish::Now => header.store_release(value),
            Publish::Later => {
                header.store_relaxed(value);
                crate::fault::point(crate::fault::Point::MidBatch);
            }
        });
        Ok(())
    }

    /// What is [`ENDED`].
    #[inline(always)]
    fn commit_ended(&mut self, claim: &Claim) {
        // R1, pairs with A1 in Reader::is_ready, Reader::enters_alike and Reader::look.
        self.commit_quickly(claim, RECORD_MESSAGE, 1, false, Word::store_release);
        if !self.end_next(claim.end - claim.at) {
            self.unend();
        }
    }

    /// The first record of a batch, unless there is more to do. This and [`Self::commit_last`] are calls of their own,
    /// because in the caller's line they would make that of each other message longer; but not as long as
    /// [`Self::commit_slowly`], which took 15 ns of a batch of 32 messages of 8 bytes.
    #[inline(never)]
    fn commit_first(
        &mut self,
        len: u64,
        at: u64,
        end: u64,
        kind: u8,
        count: u64,
    ) -> Result<(), Foreign> {
        if self.tail.quick != ALONE {
            return self.commit_slowly(len, at, end, kind, count, Publish::Later);
        }
        let sequence = self.sequence();
        let claim = self.claimed(len, at, end);
        let header = self.commit_quickly(&claim, kind, count, true, |_, _| {});
        self.withhold(header, at, sequence);
        self.settle_pace();
        Ok(())
    }

    /// The last record of a batch, which publishes it, unless there is more to do.
    #[inline(never)]
    fn commit_last(
        &mut self,
        len: u64,
        at: u64,
        end: u64,
        kind: u8,
        count: u64,
    ) -> Result<(), Foreign> {
        if self.tail.quick != IN_BATCH {
            return self.commit_slowly(len, at, end, kind, count, Publish::Now);
        }
        let claim = self.claimed(len, at, end);
        self.commit_quickly(&claim, kind, count, true, |header, value| {
            header.store_relaxed(value);
            crate::fault::point(crate::fault::Point::MidBatch);
        });
        self.flush();
        Ok(())
    }

    /// A record with nothing else to do but its own header, which `put` writes, if it is not withheld. Returns
    /// that.
    #[inline(always)]
    fn commit_quickly(
        &mut self,
        claim: &Claim,
        kind: u8,
        count: u64,
        ends: bool,
        put: impl FnOnce(&Word, u64),
    ) -> u64 {
        debug_assert!(claim.at == self.tail.front, "a claim of another time, or another ring");
        // Where they are is known before the first store, after which it would be looked up again.
        // SAFETY: where this memory's ring begins, as it was asked for the claim.
        let word = |offset| unsafe { self.memory.word_from(claim.ring, offset) };
        let (header, terminator) = (word(claim.at), word(claim.end));
        // SAFETY: likewise.
        let next = unsafe { &self.memory.producer_from(claim.ring).counters.next };
        let upcoming = RecordHeader(next.load_relaxed());
        let value = upcoming.of(claim.len as u32, kind).0;
        self.tail.front = claim.end;
        if ends {
            // The terminator goes before the header that leads to it: whoever sees the record finds a
            // zero behind it.
            terminator.store_relaxed(0);
        }
        put(header, value);
        next.store_relaxed(upcoming.later(count).0);
        value
    }

    /// Begins a batch: this header, of the record with this number, is what its flush publishes.
    #[inline(always)]
    fn withhold(&mut self, header: u64, at: u64, sequence: u64) {
        self.withheld = header;
        self.withheld_at = at;
        self.withheld_sequence = sequence;
    }

    /// What comes behind padding, what ends with the lap, and what is long.
    #[cold]
    #[inline(never)]
    fn commit_slowly(
        &mut self,
        len: u64,
        at: u64,
        end: u64,
        kind: u8,
        count: u64,
        publish: Publish,
    ) -> Result<(), Foreign> {
        if self.is_foreign() {
            return Err(Foreign);
        }
        debug_assert!(at == self.tail.front, "a claim of another time, or another ring");
        let (upcoming, sequence) = (self.upcoming(), self.sequence());
        let header = upcoming.of(len as u32, kind).0;
        if self.tail.quick == ENDED {
            self.may_end = false;
            self.unend();
        }
        self.tail.front = end;
        if self.tail.front > self.mask {
            self.next_lap();
            self.settle_bound();
        }
        self.ahead.committed(at, end - at);
        // As in `commit_quickly`.
        self.memory.word(self.tail.front).store_relaxed(0);
        let (first_at, first) = if self.padding == 0 { (at, header) } else { self.pad(at, header) };
        if self.withheld != 0 {
            self.memory.word(first_at).store_relaxed(first);
            crate::fault::point(crate::fault::Point::MidBatch);
            if publish == Publish::Now {
                self.flush();
            }
        } else if publish == Publish::Now {
            // R1, pairs with A1 in Reader::is_ready, Reader::enters_alike and Reader::look.
            self.memory.word(first_at).store_release(first);
        } else {
            self.withhold(first, first_at, sequence);
        }
        self.settle_pace();
        self.memory.producer().counters.next.store_relaxed(upcoming.later(count).0);
        if publish == Publish::Now {
            self.ahead.published(&self.memory, self.tail.front);
            let may_end = self.may_end && kind == RECORD_MESSAGE && sizes::is_within_line(len);
            if may_end && self.end_next(end - at) {
                self.tail.quick = ENDED;
            }
        }
        Ok(())
    }

    /// Padding belongs to the publication of the record behind it: the record's header goes in unseen,
    /// and the padding's header takes its place as the one to publish.
    fn pad(&mut self, at: u64, header: u64) -> (u64, u64) {
        self.memory.word(at).store_relaxed(header);
        crate::fault::point(crate::fault::Point::MidWrap);
        let padding = std::mem::take(&mut self.padding);
        let len = (padding - RECORD_HEADER) as u32;
        let sequence = RecordHeader(header).sequence();
        let header = RecordHeader::new(len, RECORD_PADDING, sequence).0;
        (at.wrapping_sub(padding) & self.mask, header)
    }
}

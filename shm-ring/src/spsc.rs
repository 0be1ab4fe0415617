//! The SPSC ring: variable-length records in one contiguous byte ring, one writer, one reader.
//!
//! A record's own first word says whether it is there, so a small message costs the reader one
//! cache-line transfer and no look at a shared tail. The writer keeps a zero word (the terminator)
//! behind its newest record at all times; that is what the reader polls.
//!
//! Everything here works on a [`RingMemory`], and is total: whatever bytes the other side wrote,
//! the result is a message, nothing, or a [`Fault`]. No waiting, no system calls, no files.
//!
//! Orderings, by label:
//! - `R1` publication: the writer's Release of a header; `A1` the reader's look at it.
//! - `R2` release: the reader's Release of its head; `A2` the look at it in `RingMemory::released`.
//! - `R3` progress: the reader's Release of `received`; `A3` a successor's look.

use crate::error::Fault;
use crate::layout::{
    ARRAY_OFFSET, RECORD_ARRAY, RECORD_HEADER, RECORD_MESSAGE, RECORD_PADDING, RUN_MAX,
    RecordHeader, SEQUENCE_MASK,
};
use crate::memory::{Access, Boundary, RingMemory};

/// Positions are multiples of it.
const POSITION_UNIT: u64 = 16;

/// How far ahead of the tail the writer asks for lines, in bytes. From 128 to 512 a stream of 64-byte
/// typed messages goes at 1.3 times the rate without; at 1024 a 4 MiB ring loses it again
/// (`ringway-bench stream --size 64 --systems ringway-shm-raw,ringway-shm-typed`). It does not do for
/// the terminator: who polls the record before it draws that line away again, and a round trip of 48
/// bytes takes twice as long (`ringway-bench pingpong --size 48`).
const PREFETCH_AHEAD: u64 = 512;

/// Most bytes that are released before the head is published. It also bounds the walk of a successor
/// from the head to the first message that was not received, and its messages, the smallest being
/// one byte of an array, to fewer than sequence numbers of 24 bits tell apart.
const PUBLISH_MAX: u64 = 4 << 20;

/// How the records of a ring are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Records start at multiples of it: 16 or 64, at most a quarter of the capacity.
    pub record_align: u64,
    /// Where a message starts in its record: 8, or 16 for messages that need that alignment.
    pub payload_offset: u64,
}

/// Why a claim was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// Not enough was released yet.
    Full,
    /// Longer than [`Writer::max_len`].
    TooLarge,
    /// The reader's page makes no sense.
    Corrupt(Fault),
}

/// Room for one record at the tail, not published yet. Forgetting it is aborting it: nothing was
/// written that a reader could see. Where it is and what it takes is found out again at the commit: the
/// stores that carry a larger claim there cost more.
#[derive(Debug)]
pub struct Claim {
    /// Payload bytes claimed.
    len: u64,
}

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
    /// capacity - 1.
    mask: u64,
    /// Minus the record alignment, which as a mask rounds down to it.
    align: u64,
    /// Where a message starts in its record.
    payload_offset: u64,
    /// What is added to a message's length before it is rounded down to its record's size.
    round: u64,
    /// Position of the next record; private, the reader finds records by their headers.
    tail: u64,
    /// A record may end here at most: where the lap ends, where the terminator behind the record still
    /// is below `limit`, or where the longest record would end if it began where `bound` was set. One
    /// compare stands for all three.
    bound: u64,
    /// What may be written is below this: the last head seen, plus the capacity.
    limit: u64,
    /// Bytes before the tail that the next record's publication turns into padding.
    padding: u64,
    /// Header of the first record of a batch, kept back until the flush; 0 when there is none.
    withheld: u64,
    withheld_at: u64,
    /// Nothing is withheld, and no padding waits: a record can be published by its own header.
    plain: bool,
    flushes: u64,
    /// Sticky: a ring that made no sense once is not written any more.
    broken: Option<Fault>,
}

/// Longest record in a ring of `capacity` bytes: half of it, so that a record and the padding before it
/// always fit together once the ring has drained.
pub const fn max_record(capacity: u64) -> u64 {
    capacity / 2
}

/// No length that is asked for is above it; sums with it do not overflow.
const LEN_LIMIT: u64 = 1 << 40;

impl<M: RingMemory> Writer<M> {
    /// A writer on fresh, zeroed memory.
    pub fn new(memory: M, geometry: Geometry) -> Self {
        let capacity = memory.capacity();
        let mut writer = Self {
            mask: capacity - 1,
            align: geometry.record_align.wrapping_neg(),
            payload_offset: geometry.payload_offset,
            round: geometry.payload_offset + geometry.record_align - 1,
            tail: 0,
            bound: 0,
            limit: capacity,
            padding: 0,
            withheld: 0,
            withheld_at: 0,
            plain: true,
            flushes: 0,
            broken: None,
            memory,
        };
        writer.set_bound();
        writer
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Longest message.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        (max_record(self.mask + 1) - self.payload_offset) as usize
    }

    /// The most bytes that messages sent as one array may have together.
    pub fn max_array_len(&self) -> usize {
        (max_record(self.mask + 1) - ARRAY_OFFSET) as usize
    }

    /// Messages committed so far, queued ones included, which is also the number of the next. It has
    /// no private copy: a store is what costs most here, and the number only says which message this
    /// is. Somebody who scribbles over the counter confuses the reader, who checks it.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.memory.producer().counters.sent.load_relaxed()
    }

    /// Bytes between a head and the tail; 0 for a head that makes no sense.
    pub fn depth_beyond(&self, head: u64) -> u64 {
        self.tail.saturating_sub(head)
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
        self.bound = self.tail;
    }

    /// Room for a record of `len` bytes. Looks at the reader's gate only when the room known of
    /// does not do.
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim, ClaimError> {
        self.claim_record(len as u64, self.round)
    }

    /// Room for a record of `count` messages of `len` bytes each, both at least 1, together no
    /// longer than the longest message and no more than [`RUN_MAX`].
    #[inline(always)]
    pub fn try_claim_array(&mut self, len: usize, count: usize) -> Result<Claim, ClaimError> {
        match (len as u64).checked_mul(count as u64) {
            Some(total) if total > 0 && count as u64 <= RUN_MAX => {
                self.claim_record(total, self.round_behind(ARRAY_OFFSET))
            }
            _ => Err(ClaimError::TooLarge),
        }
    }

    /// The slow path returns nothing but whether to go on, and the claim is made here in any case:
    /// made there, it would come back through memory, and a load that has to wait for stores to be
    /// assembled waits behind those to contested lines (a stream of 8-byte messages ran at a quarter
    /// of its rate).
    #[inline(always)]
    fn claim_record(&mut self, len: u64, round: u64) -> Result<Claim, ClaimError> {
        let size = (len.wrapping_add(round)) & self.align;
        if len >= LEN_LIMIT || self.tail + size > self.bound {
            self.make_room(len, size)?;
        }
        self.prefetch(self.tail + size);
        Ok(Claim { len })
    }

    /// The longest run of free bytes in one piece at the tail, as known: for a serialiser that
    /// learns the length by writing. `None`: not even an empty message. `likely` is what the message will
    /// take if all goes as usual: nothing depends on it but which lines are asked for.
    #[inline(always)]
    pub fn claim_run(&mut self, likely: usize) -> Option<Claim> {
        let len = (self.bound - self.tail).checked_sub(self.payload_offset)?;
        let size = (likely as u64).wrapping_add(self.round) & self.align;
        self.prefetch(self.tail.wrapping_add(size));
        Some(Claim { len })
    }

    /// Asks for two lines: the terminator's, so that it comes from the reader's cache at the same time
    /// as the payload's and not after it, and one that a stream will write [`PREFETCH_AHEAD`] bytes
    /// from now.
    #[inline(always)]
    fn prefetch(&self, terminator: u64) {
        self.memory.prefetch_write(terminator & self.mask);
        self.memory.prefetch_write((self.tail + PREFETCH_AHEAD) & self.mask);
    }

    /// Where the payload of `claim` goes: `claim.room()` bytes, nobody else's until the commit.
    #[inline(always)]
    pub fn payload(&self, claim: &Claim) -> *mut u8 {
        self.bytes_behind(claim, self.payload_offset)
    }

    /// Where in the ring that is.
    #[inline(always)]
    pub fn payload_at(&self, _claim: &Claim) -> u64 {
        self.behind_tail(self.payload_offset)
    }

    /// Where in the ring element 0 of an array claim goes.
    #[inline(always)]
    pub fn array_payload_at(&self, _claim: &Claim) -> u64 {
        self.behind_tail(ARRAY_OFFSET)
    }

    #[inline(always)]
    fn bytes_behind(&self, claim: &Claim, offset: u64) -> *mut u8 {
        self.touch_written(offset, claim.len);
        self.memory.payload(self.behind_tail(offset))
    }

    /// Makes the whole claim a message.
    #[inline(always)]
    pub fn commit(&mut self, claim: Claim, publish: Publish) {
        self.touch_written(self.payload_offset, claim.len);
        self.commit_record(claim.len, self.round, RECORD_MESSAGE, 1, publish);
    }

    /// Makes the first `len` bytes of the claim a message. `len` must not exceed the claim.
    #[inline(always)]
    pub fn commit_len(&mut self, claim: Claim, len: usize, publish: Publish) {
        debug_assert!(len as u64 <= claim.len);
        self.commit(Claim { len: len as u64 }, publish);
    }

    /// Where element 0 of an array claim goes; the others follow without gaps.
    #[inline(always)]
    pub fn array_payload(&self, claim: &Claim) -> *mut u8 {
        self.bytes_behind(claim, ARRAY_OFFSET)
    }

    /// Makes an array claim `count` messages of `len` bytes; `count` may be less than was claimed.
    #[inline]
    pub fn commit_array(&mut self, claim: Claim, len: usize, count: usize, publish: Publish) {
        let (len, count) = (len as u64, count as u64);
        debug_assert!(len >= 1 && count >= 1 && len * count <= claim.len);
        self.memory.word(self.behind_tail(ARRAY_OFFSET - 8)).store_relaxed(len | count << 32);
        let len = len * count;
        self.touch_written(ARRAY_OFFSET, len);
        self.commit_record(len, self.round_behind(ARRAY_OFFSET), RECORD_ARRAY, count, publish);
    }

    /// Publishes what was queued: one Release of the first header, so a reader, and a crash, see
    /// all of it or nothing. Returns whether there was anything.
    #[inline(always)]
    pub fn flush(&mut self) -> bool {
        if self.withheld == 0 {
            return false;
        }
        // R1, pairs with A1 in Reader::is_ready and Reader::look.
        self.memory.word(self.withheld_at).store_release(self.withheld);
        self.withheld = 0;
        self.plain = self.padding == 0;
        self.flushes += 1;
        true
    }

    /// Looks at how far the reader has released, and checks it.
    #[cold]
    pub fn refresh(&mut self) -> Result<(), Fault> {
        let capacity = self.mask + 1;
        let seen = self.limit - capacity;
        let published = self.published();
        let head = self.memory.released(published)?;
        if head < seen || head > published.position || head & (POSITION_UNIT - 1) != 0 {
            return Err(Fault::Gate);
        }
        self.limit = head + capacity;
        self.set_bound();
        let counters = &self.memory.producer().counters;
        counters.position.store_relaxed(self.tail);
        let depth = self.depth_beyond(head);
        if depth > counters.depth_max.load_relaxed() {
            counters.depth_max.store_relaxed(depth);
        }
        Ok(())
    }

    /// Everything below it was published, and nothing behind it, so nothing there can be released.
    pub fn published(&self) -> Boundary {
        if self.withheld == 0 {
            return Boundary { position: self.tail - self.padding, sequence: self.sequence() };
        }
        let withheld = RecordHeader(self.withheld).sequence();
        let queued = self.sequence().wrapping_sub(withheld) & SEQUENCE_MASK;
        Boundary {
            position: self.oldest_withheld(),
            sequence: self.sequence().wrapping_sub(queued),
        }
    }

    fn oldest_withheld(&self) -> u64 {
        // The withheld header lies less than a capacity below the tail.
        self.tail - (self.tail.wrapping_sub(self.withheld_at) & self.mask)
    }

    #[inline(always)]
    fn touch_written(&self, offset: u64, len: u64) {
        self.memory.touch(self.behind_tail(offset), len, Access::Write);
    }

    #[inline(always)]
    fn behind_tail(&self, offset: u64) -> u64 {
        (self.tail & self.mask) + offset
    }

    /// What makes a record's size of a length, if the bytes begin at `offset`.
    #[inline(always)]
    fn round_behind(&self, offset: u64) -> u64 {
        offset + !self.align
    }

    /// Room for `bytes` at the tail, and for the terminator behind them. Without the latter a
    /// terminator in a full ring would zero the oldest unread header.
    fn fits(&self, bytes: u64) -> bool {
        self.tail + bytes + RECORD_HEADER <= self.limit
    }

    fn set_bound(&mut self) {
        let lap_end = (self.tail | self.mask) + 1;
        // Never below the tail: that is a multiple of the alignment, and a terminator fits there.
        let free_end = (self.limit - RECORD_HEADER) & self.align;
        self.bound = lap_end.min(free_end).min(self.tail + max_record(self.mask + 1));
    }

    /// Looks at the gate, and goes on to the start of the ring, if that is what it takes for a
    /// record of `size` bytes, with `len` in it, to fit at the tail.
    #[cold]
    fn make_room(&mut self, len: u64, size: u64) -> Result<(), ClaimError> {
        if let Some(fault) = self.broken {
            return Err(ClaimError::Corrupt(fault));
        }
        if len >= LEN_LIMIT || size > max_record(self.mask + 1) {
            return Err(ClaimError::TooLarge);
        }
        let to_end = self.mask + 1 - (self.tail & self.mask);
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
            self.plain = false;
            self.tail += padding;
        }
        self.set_bound();
        Ok(())
    }

    #[inline(always)]
    fn commit_record(&mut self, len: u64, round: u64, kind: u8, count: u64, publish: Publish) {
        let at = self.tail & self.mask;
        let end = self.tail + ((len + round) & self.align);
        let sequence = self.sequence();
        let header = RecordHeader::new(len as u32, kind, sequence).0;
        self.tail = end;
        // The terminator goes before the header that leads to it: whoever sees the record finds a
        // zero behind it.
        self.memory.word(end & self.mask).store_relaxed(0);
        if self.plain && publish == Publish::Now {
            // R1, pairs with A1 in Reader::is_ready and Reader::look.
            self.memory.word(at).store_release(header);
        } else if self.withheld != 0 && self.padding == 0 && publish == Publish::Later {
            self.memory.word(at).store_relaxed(header);
            crate::fault::point(crate::fault::Point::MidBatch);
        } else {
            self.commit_in_batch(at, header, publish);
        }
        self.memory.producer().counters.sent.store_relaxed(sequence.wrapping_add(count));
    }

    /// The first and the last record of a batch, and whatever comes behind padding.
    #[inline(never)]
    fn commit_in_batch(&mut self, at: u64, header: u64, publish: Publish) {
        let (first_at, first) = if self.padding == 0 { (at, header) } else { self.pad(at, header) };
        if self.withheld != 0 {
            self.memory.word(first_at).store_relaxed(first);
            crate::fault::point(crate::fault::Point::MidBatch);
            if publish == Publish::Now {
                self.flush();
            }
        } else if publish == Publish::Now {
            // R1, pairs with A1 in Reader::is_ready and Reader::look.
            self.memory.word(first_at).store_release(first);
        } else {
            self.withheld = first;
            self.withheld_at = first_at;
        }
        self.plain = self.withheld == 0;
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

/// A message in the ring, to be read before [`Reader::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its bytes.
    pub payload: *const u8,
    /// How many.
    pub len: usize,
    /// Its number, from 0, in this segment.
    pub sequence: u64,
}

/// The consumer's half of the algorithm.
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    mask: u64,
    align_mask: u64,
    payload_offset: u64,
    /// Ring offset of the next record; within an array, of the next element less `payload_offset`, so
    /// that the bytes are `payload_offset` behind it in either case.
    front: u64,
    /// From one message to the next: bytes of the expected record, or of an element; 0 when nothing is
    /// expected.
    step: u64,
    /// Bytes of one message; 0 when nothing is expected.
    len: u64,
    /// The header that the next record has if it is as long as the last one. One compare then stands
    /// for all checks, and the record's size is known without waiting for the load: a predicted branch
    /// instead of a dependent address. [`UNEXPECTED`], but for its number: nothing is expected, or an
    /// array is being read.
    ///
    /// Not beside `front`, where the two would be stepped on as one vector: what one message stores of them
    /// the next one loads, and a vector takes longer through memory.
    expected: u64,
    /// From this `front` on there is more to do than to go on to the next message: the ring ends, or
    /// what is expected would run past its end, or the head is to be published, or the array ends. One
    /// compare stands for all four.
    stop: u64,
    /// Bytes of the array that is being read, its header included; 0 outside of one.
    array_size: u64,
    /// Ring offset of that array's record.
    array: u64,
    /// Position of the ring's first byte in this lap.
    lap: u64,
    /// The head that the writer knows of.
    published: u64,
    /// Bytes released before the head is published.
    publish_every: u64,
    /// Number of the next message. The counter that others see follows it.
    next: u64,
    /// Messages stepped over and not released, those apart that a release behind them took along.
    held: u64,
}

/// A header that no record has. Memory that holds it all the same, with the right number, shows one empty
/// message, because `len` and `step` are 0 then; what is written over by accident does not look like it.
const UNEXPECTED: u64 = RecordHeader::new(0x6e6f_6e65, u8::MAX, 0).0;

/// What a header changes by from one message to the next that is as long.
const NEXT: u64 = RecordHeader::new(0, 0, 1).0;

/// A checked record.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Position of the record itself, padding before it skipped.
    at: u64,
    size: u64,
    /// Number of its first message, modulo 2^24.
    sequence: u64,
    /// All of it.
    header: u64,
    is_array: bool,
    /// Messages in it.
    count: u64,
    /// Bytes of each.
    len: u64,
}

/// A record's worth of messages, or a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The first message's bytes; the others follow without gaps.
    pub payload: *const u8,
    /// Bytes of each.
    pub len: usize,
    /// How many.
    pub count: usize,
    /// Number of the first, from 0, in this segment.
    pub sequence: u64,
}

impl<M: RingMemory> Reader<M> {
    /// A reader that goes on where the last reader of this memory stopped.
    pub fn attach(memory: M, geometry: Geometry) -> Result<Self, Fault> {
        // A3, pairs with R3 in Reader::consume and Reader::release.
        let received = memory.consumer().progress.received.load_acquire();
        let head = memory.consumer().gate.head.load_acquire();
        // No ring lives to see the limit; with it, no sum below can overflow.
        const LIMIT: u64 = 1 << 63;
        if head & (geometry.record_align - 1) != 0 || head >= LIMIT || received >= LIMIT {
            return Err(Fault::Position);
        }
        let mut reader = Self::starting_at(memory, geometry, head);
        reader.next = received;
        reader.resume(received)?;
        Ok(reader)
    }

    /// A reader of memory in which there is nothing, and never will be.
    pub fn idle(memory: M) -> Self {
        Self::starting_at(memory, Geometry { record_align: 16, payload_offset: 8 }, 0)
    }

    fn starting_at(memory: M, geometry: Geometry, head: u64) -> Self {
        let capacity = memory.capacity();
        let mask = capacity - 1;
        let mut reader = Self {
            mask,
            align_mask: geometry.record_align - 1,
            payload_offset: geometry.payload_offset,
            front: head & mask,
            expected: UNEXPECTED,
            step: 0,
            len: 0,
            stop: 0,
            array_size: 0,
            array: 0,
            lap: head & !mask,
            published: head,
            publish_every: (capacity / 8).min(PUBLISH_MAX),
            next: 0,
            held: 0,
            memory,
        };
        reader.set_stop();
        reader
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Messages stepped over so far, which is also the number of the next one.
    #[inline(always)]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Whether messages were stepped over and not released yet.
    #[inline(always)]
    pub fn holds_any(&self) -> bool {
        self.held != 0
    }

    /// The next message, if one is there. Looking twice without stepping on shows the same.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Option<Message>, Fault> {
        if self.is_ready() || self.look_closely()? { Ok(Some(self.message())) } else { Ok(None) }
    }

    /// Whether there is nothing: one load, for those who look again and again.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.array_size == 0 && self.memory.word(self.front).load_published() == 0
    }

    /// Whether there certainly is a message: one as long as the last. If not, ask
    /// [`Self::look_closely`]. The two don't return the message: what comes out of either of two
    /// places goes through memory, or is taken apart and put together again.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        // A1, pairs with R1 in Writer::commit_record and Writer::flush. No header begins within an array.
        self.array_size != 0 || self.memory.word(self.front).load_acquire() == self.expected
    }

    /// Whether there is a message, by all its header says.
    #[cold]
    #[inline(never)]
    pub fn look_closely(&mut self) -> Result<bool, Fault> {
        if self.array_size != 0 {
            return Ok(true);
        }
        let Some(record) = self.look(self.position())? else { return Ok(false) };
        if record.sequence != self.next_sequence() & SEQUENCE_MASK {
            return Err(Fault::Sequence);
        }
        self.enter(&record);
        Ok(true)
    }

    /// The message that was found.
    #[inline(always)]
    pub fn message(&self) -> Message {
        let offset = self.front + self.payload_offset;
        self.memory.touch(offset, self.len, Access::Read);
        Message {
            payload: self.memory.payload(offset).cast_const(),
            len: self.len as usize,
            sequence: self.next_sequence(),
        }
    }

    /// The message that was found, and those that follow it in the same record.
    #[inline(always)]
    pub fn run(&self) -> Run {
        let count = if self.array_size == 0 { 1 } else { self.elements_left() };
        let Message { payload, len, sequence } = self.message();
        self.memory.touch(self.front + self.payload_offset, self.len * count, Access::Read);
        Run { payload, len, count: count as usize, sequence }
    }

    /// Within an array.
    #[inline(always)]
    fn elements_left(&self) -> u64 {
        // Both fit into 32 bits, where a division takes half as long.
        u64::from((self.stop - self.front) as u32 / self.step as u32)
    }

    /// Steps over the message that was found and gives its room back. Returns true when the head was
    /// published for the writer, who may be asleep waiting for it.
    #[inline(always)]
    pub fn consume(&mut self) -> bool {
        // Read once, and before the store to shared memory, which might, for all the compiler knows,
        // change them: a tenth of the time of a message of 8 bytes.
        let (front, next, stop) = (self.front + self.step, self.next.wrapping_add(1), self.stop);
        self.front = front;
        self.expected = self.expected.wrapping_add(NEXT);
        self.next = next;
        // R3, pairs with A3 in Reader::attach: the bytes were read before.
        self.memory.consumer().progress.received.store_release(next);
        crate::fault::point(crate::fault::Point::MidRelease);
        front >= stop && self.turn_and_publish()
    }

    /// Steps over `count` messages, at most those of the run that was found, without giving their
    /// room back yet.
    #[inline(always)]
    pub fn advance(&mut self, count: usize) {
        let count = count as u64;
        debug_assert!(count > 0);
        self.held += count;
        self.next = self.next.wrapping_add(count);
        self.front += self.step * count;
        self.expected = self.expected.wrapping_add(NEXT.wrapping_mul(count));
        if self.front >= self.stop {
            self.turn();
        }
    }

    /// Gives back everything stepped over. Returns true when the head was published for the
    /// writer, who may be asleep waiting for it.
    #[inline(always)]
    pub fn release(&mut self) -> bool {
        self.held = 0;
        // R3, pairs with A3 in Reader::attach.
        self.memory.consumer().progress.received.store_release(self.next);
        crate::fault::point(crate::fault::Point::MidRelease);
        self.front >= self.stop && self.turn_and_publish()
    }

    /// Tells the writer how far it may write, if that is news. Call whenever the ring is found
    /// empty and before sleeping: else a writer with a large record may wait for ever.
    #[inline]
    pub fn publish_head(&mut self) -> bool {
        let head = self.position();
        if self.published == head || self.held != 0 {
            return false;
        }
        // R2, pairs with A2 in RingMemory::released.
        self.memory.consumer().gate.head.store_release(head);
        self.published = head;
        if self.array_size == 0 {
            self.set_stop();
        }
        true
    }

    /// Whether nothing is left: a look, without any effect.
    pub fn is_drained(&self) -> Result<bool, Fault> {
        Ok(self.array_size == 0 && self.look(self.position())?.is_none())
    }

    /// Position of the oldest record that was not wholly stepped over.
    pub fn position(&self) -> u64 {
        self.lap + if self.array_size == 0 { self.front } else { self.array }
    }

    /// What `stop` stands for, but for the publication.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) {
        let was_array = self.array_size != 0;
        if was_array {
            self.front = self.array + self.array_size;
            self.array_size = 0;
        }
        if self.front > self.mask {
            self.front = 0;
            self.lap += self.mask + 1;
        }
        // As long a record again is not to be expected where it would run past the end.
        if was_array || self.front + self.step > self.mask + 1 {
            (self.expected, self.step, self.len) = (UNEXPECTED, 0, 0);
        }
        self.set_stop();
    }

    #[cold]
    #[inline(never)]
    fn turn_and_publish(&mut self) -> bool {
        self.turn();
        // A batch that was forgotten went along.
        self.held = 0;
        // Rarely enough that the writer's line moves seldom, often enough that a writer of large
        // records does not run dry.
        self.position() - self.published >= self.publish_every && self.publish_head()
    }

    /// Not within an array, where its end is all there is to stop at.
    fn set_stop(&mut self) {
        let capacity = self.mask + 1;
        let fits = if self.step == 0 { capacity } else { capacity - self.step + 1 };
        let due = (self.published + self.publish_every).saturating_sub(self.lap);
        self.stop = fits.min(due);
    }

    /// After a crash or a clean end: `received` is exact, the head lags behind it. The records in
    /// between are still there, because the writer takes no room beyond the head it was told.
    fn resume(&mut self, received: u64) -> Result<(), Fault> {
        let mut position = self.position();
        let mut next = None;
        while let Some(record) = self.look(position)? {
            if next.is_some_and(|next| next != record.sequence) {
                return Err(Fault::Sequence);
            }
            let behind = received.wrapping_sub(record.sequence) & SEQUENCE_MASK;
            if behind < record.count {
                self.enter(&record);
                self.front += behind * self.step;
                return Ok(());
            }
            position = record.at + record.size;
            if position - self.published > self.mask + 1 {
                return Err(Fault::Position);
            }
            next = Some((record.sequence + record.count) & SEQUENCE_MASK);
        }
        if next.is_some_and(|next| next != received & SEQUENCE_MASK) {
            return Err(Fault::Sequence);
        }
        self.lap = position & !self.mask;
        self.front = position & self.mask;
        self.set_stop();
        Ok(())
    }

    fn enter(&mut self, record: &Record) {
        let offset = record.at & self.mask;
        self.lap = record.at - offset;
        self.len = record.len;
        if record.is_array {
            // Its header does not tell its element count, so there is nothing to compare with.
            self.expected = UNEXPECTED;
            self.array = offset;
            self.array_size = record.size;
            self.step = record.len;
            self.front = offset + ARRAY_OFFSET - self.payload_offset;
            self.stop = self.front + record.len * record.count;
        } else {
            self.expected = record.header;
            self.step = record.size;
            self.front = offset;
            self.set_stop();
        }
    }

    /// Reads and checks the record at `position`, skipping padding. Every number from the ring is
    /// read once, into a local, before it is used.
    fn look(&self, mut position: u64) -> Result<Option<Record>, Fault> {
        let mut padded = false;
        loop {
            let offset = position & self.mask;
            // A1, pairs with R1 in Writer::commit_record and Writer::flush.
            let header = RecordHeader(self.memory.word(offset).load_published());
            if header.0 == 0 {
                return if padded { Err(Fault::Padding) } else { Ok(None) };
            }
            let to_end = self.mask + 1 - offset;
            match header.kind() {
                RECORD_PADDING => {
                    if padded || header.body_len() + RECORD_HEADER != to_end {
                        return Err(Fault::Padding);
                    }
                    padded = true;
                    position += to_end;
                }
                kind @ (RECORD_MESSAGE | RECORD_ARRAY) => {
                    let len = header.body_len();
                    let is_array = kind == RECORD_ARRAY;
                    let start = if is_array { ARRAY_OFFSET } else { self.payload_offset };
                    let size = (start + len + self.align_mask) & !self.align_mask;
                    if size > max_record(self.mask + 1) || size > to_end {
                        return Err(Fault::Length);
                    }
                    let (len, count) =
                        if is_array { self.look_array(offset + start, len)? } else { (len, 1) };
                    let (header, sequence) = (header.0, header.sequence());
                    let at = position;
                    return Ok(Some(Record { at, size, sequence, header, is_array, count, len }));
                }
                _ => return Err(Fault::Kind),
            }
        }
    }

    /// Bytes of an element, and how many there are.
    fn look_array(&self, offset: u64, len: u64) -> Result<(u64, u64), Fault> {
        let shape = self.memory.word(offset - 8).load_relaxed();
        let (element, count) = (shape & 0xffff_ffff, shape >> 32);
        if element == 0 || count == 0 || count > RUN_MAX || element * count != len {
            return Err(Fault::Array);
        }
        Ok((element, count))
    }
}

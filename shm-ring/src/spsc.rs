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
//! - `R3` progress: the reader's Release of `received` and `position`; `A3` a successor's look.

use crate::error::Fault;
use crate::layout::{
    ARRAY_OFFSET, RECORD_ARRAY, RECORD_HEADER, RECORD_MESSAGE, RECORD_PADDING, RUN_MAX,
    RecordHeader, SEQUENCE_MASK,
};
use crate::memory::{Access, Boundary, RingMemory};

/// Positions are multiples of it.
const POSITION_UNIT: u64 = 16;

/// Bytes of a cache line, for hints only.
const LINE: u64 = 64;

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
/// written that a reader could see.
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
    /// Record alignment - 1.
    align_mask: u64,
    /// Where a message starts in its record.
    payload_offset: u64,
    /// Longest payload.
    max_len: u64,
    /// Position of the next record; private, the reader finds records by their headers.
    tail: u64,
    /// Bytes before the tail that the next record's publication turns into padding.
    padding: u64,
    /// What may be written is below this: the last head seen, plus the capacity.
    limit: u64,
    /// Sequence number of the next message.
    sequence: u64,
    bytes: u64,
    /// Header of the first record of a batch, kept back until the flush; 0 when there is none.
    withheld: u64,
    withheld_at: u64,
    flushes: u64,
}

/// Longest payload in a ring of `capacity` bytes: a record takes at most half of it, so that a
/// record and the padding before it always fit together once the ring has drained.
pub fn max_len(capacity: u64) -> u64 {
    capacity / 2 - ARRAY_OFFSET
}

impl<M: RingMemory> Writer<M> {
    /// A writer on fresh, zeroed memory.
    pub fn new(memory: M, geometry: Geometry) -> Self {
        let capacity = memory.capacity();
        Self {
            mask: capacity - 1,
            align_mask: geometry.record_align - 1,
            payload_offset: geometry.payload_offset,
            max_len: max_len(capacity),
            tail: 0,
            padding: 0,
            limit: capacity,
            sequence: 0,
            bytes: 0,
            withheld: 0,
            withheld_at: 0,
            flushes: 0,
            memory,
        }
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Longest payload of a record.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        self.max_len as usize
    }

    /// Messages committed so far, queued ones included.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes between a head and the tail; 0 for a head that makes no sense.
    pub fn depth_beyond(&self, head: u64) -> u64 {
        self.tail.saturating_sub(head)
    }

    /// Batches published so far.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Room for a record of `len` bytes. Looks at the reader's gate only when the room known of
    /// does not do.
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim, ClaimError> {
        self.claim_behind(self.payload_offset, len as u64)
    }

    /// Room for a record of `count` messages of `len` bytes each, both at least 1, together no
    /// longer than the longest message and no more than [`RUN_MAX`].
    #[inline(always)]
    pub fn try_claim_array(&mut self, len: usize, count: usize) -> Result<Claim, ClaimError> {
        match (len as u64).checked_mul(count as u64) {
            Some(total) if total > 0 && count as u64 <= RUN_MAX => {
                self.claim_behind(ARRAY_OFFSET, total)
            }
            _ => Err(ClaimError::TooLarge),
        }
    }

    /// The slow path returns nothing but whether to go on, and the claim is made here in any case:
    /// made there, it would come back through memory, and a load that has to wait for stores to be
    /// assembled waits behind those to contested lines (a stream of 8-byte messages ran at a quarter
    /// of its rate).
    #[inline(always)]
    fn claim_behind(&mut self, offset: u64, len: u64) -> Result<Claim, ClaimError> {
        let size = self.record_size(offset, len);
        let to_end = self.mask + 1 - (self.tail & self.mask);
        if len > self.max_len || size > to_end || !self.fits(size) {
            self.make_room(offset, len)?;
        }
        // The terminator's line, now, so that it comes from the reader's cache at the same time as
        // the payload's, and not after it: a round trip of 48 bytes took 1.7 times as long without
        // (`ringway-bench pingpong --size 48`).
        self.memory.prefetch_write((self.tail + size) & self.mask);
        Ok(Claim { len })
    }

    /// The longest run of free bytes in one piece at the tail, as known: for a serialiser that
    /// learns the length by writing. `None`: not even an empty message.
    #[inline(always)]
    pub fn claim_run(&mut self) -> Option<Claim> {
        let to_end = self.mask + 1 - (self.tail & self.mask);
        let free = (self.limit - self.tail).saturating_sub(RECORD_HEADER) & !self.align_mask;
        let len = to_end.min(free).checked_sub(self.payload_offset)?.min(self.max_len);
        self.memory.prefetch_write((self.tail + LINE) & self.mask);
        Some(Claim { len })
    }

    /// Where the payload of `claim` goes: `claim.room()` bytes, nobody else's until the commit.
    #[inline(always)]
    pub fn payload(&self, claim: &Claim) -> *mut u8 {
        self.bytes_behind(claim, self.payload_offset)
    }

    /// Where in the ring that is.
    #[inline(always)]
    pub fn payload_at(&self, _claim: &Claim) -> u64 {
        (self.tail & self.mask) + self.payload_offset
    }

    /// Where in the ring element 0 of an array claim goes.
    #[inline(always)]
    pub fn array_payload_at(&self, _claim: &Claim) -> u64 {
        (self.tail & self.mask) + ARRAY_OFFSET
    }

    #[inline(always)]
    fn bytes_behind(&self, claim: &Claim, offset: u64) -> *mut u8 {
        let offset = (self.tail & self.mask) + offset;
        self.memory.touch(offset, claim.len, Access::Write);
        self.memory.payload(offset)
    }

    /// Makes the first `len` bytes of the claim a message. `len` must not exceed the claim.
    #[inline(always)]
    pub fn commit(&mut self, claim: Claim, len: usize, publish: Publish) {
        debug_assert!(len as u64 <= claim.len);
        let len = len as u64;
        self.bytes += len;
        self.commit_record(claim, self.payload_offset, len, RECORD_MESSAGE, 1, publish);
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
        let shape = (self.tail & self.mask) + ARRAY_OFFSET - 8;
        self.memory.word(shape).store_relaxed(len | count << 32);
        self.bytes += len * count;
        self.commit_record(claim, ARRAY_OFFSET, len * count, RECORD_ARRAY, count, publish);
    }

    /// Publishes what was queued: one Release of the first header, so a reader, and a crash, see
    /// all of it or nothing. Returns whether there was anything.
    #[inline(always)]
    pub fn flush(&mut self) -> bool {
        if self.withheld == 0 {
            return false;
        }
        // R1, pairs with A1 in Reader::peek.
        self.memory.word(self.withheld_at).store_release(self.withheld);
        self.withheld = 0;
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
        let counters = &self.memory.producer().counters;
        let depth = self.depth_beyond(head);
        if depth > counters.depth_max.load_relaxed() {
            counters.depth_max.store_relaxed(depth);
        }
        Ok(())
    }

    /// Everything below it was published, and nothing behind it, so nothing there can be released.
    pub fn published(&self) -> Boundary {
        if self.withheld == 0 {
            return Boundary { position: self.tail - self.padding, sequence: self.sequence };
        }
        let withheld = RecordHeader(self.withheld).sequence();
        let queued = self.sequence.wrapping_sub(withheld) & SEQUENCE_MASK;
        Boundary { position: self.oldest_withheld(), sequence: self.sequence - queued }
    }

    fn oldest_withheld(&self) -> u64 {
        // The withheld header lies less than a capacity below the tail.
        self.tail - (self.tail.wrapping_sub(self.withheld_at) & self.mask)
    }

    #[inline(always)]
    fn record_size(&self, offset: u64, len: u64) -> u64 {
        // Wraps for lengths that `max_len` refuses beside it.
        len.wrapping_add(offset + self.align_mask) & !self.align_mask
    }

    /// Room for `bytes` at the tail, and for the terminator behind them. Without the latter a
    /// terminator in a full ring would zero the oldest unread header.
    #[inline(always)]
    fn fits(&self, bytes: u64) -> bool {
        self.tail + bytes + RECORD_HEADER <= self.limit
    }

    /// Looks at the gate, and goes on to the start of the ring, if that is what it takes for a
    /// record of `len` bytes to fit at the tail.
    #[cold]
    fn make_room(&mut self, offset: u64, len: u64) -> Result<(), ClaimError> {
        if len > self.max_len {
            return Err(ClaimError::TooLarge);
        }
        let size = self.record_size(offset, len);
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
        self.padding += padding;
        self.tail += padding;
        Ok(())
    }

    #[inline(always)]
    fn commit_record(
        &mut self,
        claim: Claim,
        payload_offset: u64,
        len: u64,
        kind: u8,
        count: u64,
        publish: Publish,
    ) {
        debug_assert!(len <= claim.len);
        let offset = self.tail & self.mask;
        self.memory.touch(offset + payload_offset, len, Access::Write);
        let next = self.tail + self.record_size(payload_offset, len);
        // The terminator goes before the header that leads to it: whoever sees the record finds a
        // zero behind it.
        self.memory.word(next & self.mask).store_relaxed(0);
        let header = RecordHeader::new(len as u32, kind, self.sequence).0;
        let (first_at, first) =
            if self.padding == 0 { (offset, header) } else { self.pad(offset, header) };
        self.tail = next;
        self.sequence += count;
        if self.withheld != 0 {
            self.memory.word(first_at).store_relaxed(first);
            crate::fault::point(crate::fault::Point::MidBatch);
            if publish == Publish::Now {
                self.flush();
            }
        } else if publish == Publish::Now {
            // R1, pairs with A1 in Reader::peek.
            self.memory.word(first_at).store_release(first);
        } else {
            self.withheld = first;
            self.withheld_at = first_at;
        }
        let counters = &self.memory.producer().counters;
        counters.sent.store_relaxed(self.sequence);
        counters.bytes.store_relaxed(self.bytes);
    }

    /// Padding belongs to the publication of the record behind it: the record's header goes in
    /// unseen, and the padding's header takes its place as the one to publish.
    #[cold]
    fn pad(&mut self, offset: u64, header: u64) -> (u64, u64) {
        self.memory.word(offset).store_relaxed(header);
        crate::fault::point(crate::fault::Point::MidWrap);
        let padding = std::mem::take(&mut self.padding);
        let len = (padding - RECORD_HEADER) as u32;
        let header = RecordHeader::new(len, RECORD_PADDING, self.sequence).0;
        ((self.tail - padding) & self.mask, header)
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
    max_len: u64,
    /// Position of the oldest record not wholly released.
    head: u64,
    /// The head that the writer knows of.
    published: u64,
    /// Messages released.
    received: u64,
    /// Messages looked at: `received` and those of a batch that is still held.
    peeked: u64,
    /// The header that the next record has if it is as long as the last one. One compare then stands
    /// for all checks, and the record's size is known without waiting for the load: a predicted
    /// branch instead of a dependent address.
    expected: u64,
    expected_size: u64,
    /// Bytes that there must be before the end of the ring for `expected` to hold: its size, or,
    /// where nothing is to be expected, more than there ever are.
    expected_room: u64,
    /// The rest of the record at `cursor` (0 messages: look at the next header).
    current: Current,
    /// Position of the record to look at next; `head` follows at release.
    cursor: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Current {
    /// Messages of it that were not looked at yet.
    left: u32,
    /// Bytes of each.
    len: u32,
    /// Ring offset of the next one's bytes.
    offset: u64,
}

/// A checked record header.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Where the record itself starts, padding before it skipped.
    at: u64,
    size: u64,
    /// Number of its first message, modulo 2^24.
    sequence: u64,
    /// What [`Reader::expected`] becomes: the header of a message. 0 for an array, because its
    /// header does not tell its element count.
    expected: u64,
    current: Current,
}

impl<M: RingMemory> Reader<M> {
    /// A reader that goes on where the last reader of this memory stopped.
    pub fn attach(memory: M, geometry: Geometry) -> Result<Self, Fault> {
        let capacity = memory.capacity();
        // A3, pairs with R3 in Reader::release.
        let received = memory.consumer().progress.received.load_acquire();
        let position = memory.consumer().progress.position.load_acquire();
        let published = memory.consumer().gate.head.load_acquire();
        // No ring lives to see the limit; with it, no sum below can overflow.
        const LIMIT: u64 = 1 << 63;
        if position < published
            || position - published > capacity
            || position & (geometry.record_align - 1) != 0
            || published & (geometry.record_align - 1) != 0
            || position >= LIMIT
            || received >= LIMIT
        {
            return Err(Fault::Position);
        }
        let mut reader = Self {
            mask: capacity - 1,
            align_mask: geometry.record_align - 1,
            payload_offset: geometry.payload_offset,
            max_len: max_len(capacity),
            head: position,
            published,
            received,
            peeked: received,
            expected: 0,
            expected_size: 0,
            expected_room: 0,
            current: Current::default(),
            cursor: position,
            memory,
        };
        reader.resume()?;
        Ok(reader)
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Messages released.
    #[inline(always)]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether messages were stepped over and not released yet.
    #[inline(always)]
    pub fn holds_any(&self) -> bool {
        self.peeked != self.received
    }

    /// The next message, if one is there. Looking twice without [`Self::advance`] shows the same.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Option<Message>, Fault> {
        if self.current.left == 0 {
            let offset = self.cursor & self.mask;
            // A1, pairs with R1 in Writer::commit_record and Writer::flush.
            let header = self.memory.word(offset).load_published();
            if header == 0 {
                return Ok(None);
            }
            if header == self.expected {
                self.current.left = 1;
                self.current.offset = offset + self.payload_offset;
            } else {
                self.enter_record()?;
            }
        }
        let Current { len, offset, .. } = self.current;
        self.memory.touch(offset, u64::from(len), Access::Read);
        let payload = self.memory.payload(offset).cast_const();
        Ok(Some(Message { payload, len: len as usize, sequence: self.peeked }))
    }

    /// Steps over the message that `peek` showed, without giving its room back yet. Call only after
    /// a `peek` that returned one.
    #[inline(always)]
    pub fn advance(&mut self) {
        debug_assert!(self.current.left > 0);
        self.peeked += 1;
        self.current.left -= 1;
        if self.current.left == 0 {
            self.cursor += self.expected_size;
            self.expected = self.expected.wrapping_add(RecordHeader::NEXT);
            // As long a record again is not to be expected where it would run past the end.
            if (self.cursor & self.mask) + self.expected_room > self.mask + 1 {
                self.expected = 0;
            }
        } else {
            self.current.offset += u64::from(self.current.len);
        }
    }

    /// Gives back everything stepped over. Returns true when the head was published for the
    /// writer, who may be asleep waiting for it.
    #[inline(always)]
    pub fn release(&mut self) -> bool {
        let progress = &self.memory.consumer().progress;
        // R3, pairs with A3 in Reader::attach. `received` first: it alone decides what a successor
        // gets, and a crash between the two stores leaves it ahead by this release, never behind.
        progress.received.store_release(self.peeked);
        self.received = self.peeked;
        if self.head != self.cursor {
            self.head = self.cursor;
            crate::fault::point(crate::fault::Point::MidRelease);
            progress.position.store_release(self.head);
            // An eighth: rarely enough that the writer's line moves seldom, often enough that a
            // writer of large records does not run dry.
            if self.head - self.published >= (self.mask + 1) / 8 {
                self.publish_head();
                return true;
            }
        }
        false
    }

    /// Tells the writer how far it may write, if that is news. Call whenever the ring is found
    /// empty and before sleeping: else a writer with a large record may wait for ever.
    #[inline(always)]
    pub fn publish_head(&mut self) -> bool {
        if self.published == self.head {
            return false;
        }
        // The position may still be from before a crash that `resume` made good. It must not fall
        // behind the gate, which would make no sense to the next successor.
        self.memory.consumer().progress.position.store_release(self.head);
        // R2, pairs with A2 in Writer::refresh.
        self.memory.consumer().gate.head.store_release(self.head);
        self.published = self.head;
        true
    }

    /// Whether nothing is left: a look, without any effect.
    pub fn is_drained(&self) -> Result<bool, Fault> {
        Ok(self.current.left == 0 && self.look(self.cursor)?.is_none())
    }

    /// After a crash: `received` may be ahead of `position` by what one release gave back, which is
    /// many records if it was that of a batch, and may be in the middle of an array record.
    fn resume(&mut self) -> Result<(), Fault> {
        let mut next = None;
        while let Some(record) = self.look(self.head)? {
            let behind = self.received.wrapping_sub(record.sequence) & SEQUENCE_MASK;
            let count = u64::from(record.current.left);
            if next.is_some_and(|next| next != record.sequence) {
                return Err(Fault::Sequence);
            }
            if behind < count {
                self.enter(record);
                self.current.left -= behind as u32;
                self.current.offset += behind * u64::from(self.current.len);
                return Ok(());
            }
            self.cursor = record.at + record.size;
            self.head = self.cursor;
            if self.head - self.published > self.mask + 1 {
                return Err(Fault::Position);
            }
            next = Some((record.sequence + count) & SEQUENCE_MASK);
        }
        if next.is_some_and(|next| next != self.received & SEQUENCE_MASK) {
            return Err(Fault::Sequence);
        }
        Ok(())
    }

    #[cold]
    fn enter_record(&mut self) -> Result<(), Fault> {
        let Some(record) = self.look(self.cursor)? else {
            return Err(Fault::Padding);
        };
        if record.sequence != self.peeked & SEQUENCE_MASK {
            return Err(Fault::Sequence);
        }
        self.enter(record);
        Ok(())
    }

    fn enter(&mut self, record: Record) {
        self.cursor = record.at;
        self.expected_size = record.size;
        self.expected = record.expected;
        self.expected_room = if record.expected == 0 { self.mask + 2 } else { record.size };
        self.current = record.current;
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
                    if len > self.max_len || size > to_end {
                        return Err(Fault::Length);
                    }
                    let (expected, current) = if is_array {
                        (0, self.look_array(offset + start, len)?)
                    } else {
                        (header.0, Current { left: 1, len: len as u32, offset: offset + start })
                    };
                    let sequence = header.sequence();
                    return Ok(Some(Record { at: position, size, sequence, expected, current }));
                }
                _ => return Err(Fault::Kind),
            }
        }
    }

    fn look_array(&self, offset: u64, len: u64) -> Result<Current, Fault> {
        let shape = self.memory.word(offset - 8).load_relaxed();
        let (element, count) = (shape & 0xffff_ffff, shape >> 32);
        if element == 0 || count == 0 || count > RUN_MAX || element * count != len {
            return Err(Fault::Array);
        }
        Ok(Current { left: count as u32, len: element as u32, offset })
    }
}

//! The reader's half of the SPSC ring: is there a record, what is in it, and what the writer is told of
//! how far it was read.

use std::ptr::NonNull;

use super::sizes::Sizes;
use super::{Geometry, ahead, max_record};
use crate::error::Fault;
use crate::home::{Homed, Homing};
use crate::layout::{
    ARRAY_OFFSET, ARRAY_SHAPE, ArrayShape, RECORD_ARRAY, RECORD_HEADER, RECORD_MESSAGE,
    RECORD_PADDING, RUN_MAX, RecordHeader, SEQUENCE_MASK,
};
use crate::memory::{Access, RingMemory};

/// Most bytes that are released before the head is published. It also bounds the walk of a successor
/// from the head to the first message that was not received, and its messages, the smallest being
/// one byte of an array, to fewer than sequence numbers of 24 bits tell apart.
const PUBLISH_MAX: u64 = 4 << 20;

/// The next message in the ring, to be read before it is consumed or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub payload: *const u8,
    /// How many.
    pub len: usize,
    /// What leads over it.
    pub step: Step,
}

/// What leads over a message that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where the reader is then.
    next: u64,
    /// Whose `stop` decides whether there is more to do.
    head: NonNull<Head>,
}

impl Step {
    /// Of a message that is in no ring, for those who have both kinds: never [`Self::is_short`].
    #[inline(always)]
    pub fn nowhere() -> Self {
        Self { next: 0, head: NonNull::from(const { &Head::GONE }) }
    }

    /// Whether [`Reader::step`] is all there is to do: a load and a compare, wherever the message is.
    ///
    /// # Safety
    /// The reader that found it lives.
    #[inline(always)]
    pub unsafe fn is_short(self) -> bool {
        // SAFETY: what a living reader keeps at the same place all the time, or a static.
        self.next < unsafe { self.head.as_ref() }.stop
    }
}

/// The consumer's half of the algorithm.
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    head: Homed<Head>,
    mask: u64,
    sizes: Sizes,
    /// The array that is being read, or was last.
    array: Array,
    /// Position of the ring's first byte in this lap.
    lap: u64,
    /// The head that the writer knows of.
    published: u64,
    /// Bytes released before the head is published.
    publish_every: u64,
}

/// What every message changes or is compared with. In a forked child nothing is there that is expected,
/// and every step stops.
#[derive(Debug)]
struct Head {
    /// Ring offset of the next record; within an array, of the next element less [`Sizes::start`], so
    /// that the bytes are so many behind it in either case.
    front: u64,
    /// Bytes of one message; 0 when nothing is expected.
    len: u64,
    /// The header that the next record has if it is as long as the last one, but for its number, which is
    /// `next`. One compare then stands for all checks, and the record's size is known without waiting for
    /// the load: a predicted branch instead of a dependent address. [`UNEXPECTED`]: nothing is expected,
    /// or an array is being read.
    expected: u64,
    /// From this `front` on there is more to do than to go on to the next message: the ring ends, or
    /// what is expected would run past its end, or the head is to be published, or the array ends. One
    /// compare stands for all four.
    stop: u64,
    /// Number of the next message. The counter that others see follows it.
    next: u64,
    /// From one message to the next: bytes of the expected record, or of an element; 0 when nothing is
    /// expected.
    step: u64,
    /// How far beyond `front` a line is asked for with each message that is received by itself, and in a stream, as
    /// [`ahead::for_reader`] says; else 0.
    ahead: u64,
    /// Whether an array is being read.
    in_array: bool,
}

impl Homing for Head {
    const GONE: Self = Self {
        front: 0,
        len: 0,
        expected: u64::MAX,
        stop: 0,
        next: 0,
        step: 0,
        ahead: 0,
        in_array: false,
    };
}

/// A header that no record has. Memory that holds it all the same, with the right number, shows one empty
/// message, because `len` and `step` are 0 then; what is written over by accident does not look like it.
const UNEXPECTED: u64 = RecordHeader::new(0x6e6f_6e65, u8::MAX, 0).0;

/// What a header changes by from one message to the next that is as long.
const NEXT: u64 = RecordHeader::new(0, 0, 1).0;

/// An array that was checked.
#[derive(Clone, Copy, Debug)]
struct Array {
    /// Ring offset of its record.
    at: u64,
    /// Bytes of it.
    size: u64,
    /// Its header, if its first message were number 0.
    header: u64,
    shape: ArrayShape,
}

impl Array {
    /// Nothing is as long.
    const NONE: Self = Self { at: 0, size: 1 << 63, header: 0, shape: ArrayShape::new(0, 0) };
}

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
        if !Sizes::of(geometry).is_position(head) || head >= LIMIT || received >= LIMIT {
            return Err(Fault::Position);
        }
        let mut reader = Self::starting_at(memory, geometry, head);
        reader.head.next = received;
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
            head: Homed::new(Head {
                front: head & mask,
                len: 0,
                expected: UNEXPECTED,
                stop: 0,
                next: 0,
                step: 0,
                ahead: 0,
                in_array: false,
            }),
            mask,
            sizes: Sizes::of(geometry),
            array: Array::NONE,
            lap: head & !mask,
            published: head,
            publish_every: (capacity / 8).min(PUBLISH_MAX),
            memory,
        };
        reader.set_stop();
        reader
    }

    /// The memory under it.
    #[inline(always)]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Whether it is of the process that this one is a fork of. Such a reader has nothing ready, and is to
    /// be asked for nothing else.
    #[inline(always)]
    pub fn is_foreign(&self) -> bool {
        self.head.is_foreign()
    }

    /// Messages stepped over so far, which is also the number of the next one.
    #[inline(always)]
    pub fn next_sequence(&self) -> u64 {
        self.head.next
    }

    /// Whether messages were stepped over and not released yet.
    #[inline(always)]
    pub fn holds_any(&self) -> bool {
        // This reader's own store.
        self.memory.consumer().progress.received.load_relaxed() != self.head.next
    }

    /// The next message, if one is there. Looking twice without stepping on shows the same.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Option<Found>, Fault> {
        if self.is_ready() || self.enters_alike() || self.look_closely()? {
            self.touch(1);
            return Ok(Some(self.found()));
        }
        Ok(None)
    }

    /// The next message, if there certainly is one: as long as the last. If not, ask
    /// [`Self::look_closely`].
    #[inline(always)]
    pub fn ready(&self) -> Option<Found> {
        // All but the header is read before it, since behind its fence all would be read again.
        let found = self.found();
        self.memory.prefetch_read(self.head.front.wrapping_add(self.head.ahead));
        self.is_ready().then_some(found)
    }

    /// The same for those who take many, one by one: within an array as well.
    #[inline(always)]
    pub fn ready_one(&self) -> Option<Run> {
        if self.head.in_array {
            return Some(self.one());
        }
        let Found { payload, len, .. } = self.ready()?;
        self.touch(1);
        Some(Run { payload, len, count: 1, sequence: self.next_sequence() })
    }

    /// Whether there is nothing: one load.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        !self.head.in_array && self.memory.word(self.head.front).load_published() == 0
    }

    /// The same for those who have found it empty and look again. A message as long as the last is asked for while
    /// its header is on its way. Orders nothing.
    #[inline(always)]
    pub fn is_still_empty(&self) -> bool {
        let Head { front, len, in_array, .. } = *self.head;
        let last = front + self.sizes.start() + len - 1;
        !in_array && self.memory.look_again(front, last) == 0
    }

    /// Whether there certainly is a message: one as long as the last.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        let Head { front, expected, in_array, next, .. } = *self.head;
        // A1, pairs with R1 in Writer::commit_record and Writer::flush. No header begins within an array.
        in_array || self.memory.word(front).load_acquire() == expected + NEXT.wrapping_mul(next)
    }

    /// Whether there is a message, by all its header says.
    #[cold]
    #[inline(never)]
    pub fn look_closely(&mut self) -> Result<bool, Fault> {
        if self.head.in_array {
            return Ok(true);
        }
        let Some(record) = self.look(self.position())? else { return Ok(false) };
        if record.sequence != self.next_sequence() & SEQUENCE_MASK {
            return Err(Fault::Sequence);
        }
        self.enter(&record);
        Ok(true)
    }

    /// Whether there is an array as the last one was: of as many messages, as long. All that [`Self::look_closely`] asks of
    /// one was true of that, so two compares stand for it. For those who take batches; who takes single
    /// messages finds an array by looking closely, once for all that is in it.
    #[inline(always)]
    pub fn enters_alike(&mut self) -> bool {
        let Head { front, next, in_array, .. } = *self.head;
        let Array { size, header, shape, .. } = self.array;
        // Within another one, `front` is nobody's header.
        if in_array || self.is_foreign() || front + size > self.mask + 1 {
            return false;
        }
        // A1, pairs with R1 in Writer::commit_record and Writer::flush: the shape lies behind the header.
        if self.memory.word(front).load_acquire() != header + NEXT.wrapping_mul(next)
            || self.memory.word(front + ARRAY_SHAPE).load_relaxed() != shape.0
        {
            return false;
        }
        self.array.at = front;
        self.enter_array();
        true
    }

    /// The message that was found.
    #[inline(always)]
    pub fn found(&self) -> Found {
        let Head { front, len, step, .. } = *self.head;
        Found {
            payload: self.memory.payload(front + self.sizes.start()).cast_const(),
            len: len as usize,
            step: Step { next: front + step, head: self.head.place() },
        }
    }

    /// Tells a model that the message that was found is read.
    #[inline(always)]
    fn touch(&self, messages: u64) {
        let Head { front, len, .. } = *self.head;
        self.memory.touch(front + self.sizes.start(), len * messages, Access::Read);
    }

    /// The message that was found, by itself.
    #[inline(always)]
    pub fn one(&self) -> Run {
        self.run_of(1)
    }

    /// The message that was found, and those that follow it in the same record.
    #[inline(always)]
    pub fn run(&self) -> Run {
        self.run_of(if !self.head.in_array { 1 } else { self.elements_left() })
    }

    #[inline(always)]
    fn run_of(&self, count: u64) -> Run {
        self.touch(count);
        let Found { payload, len, .. } = self.found();
        Run { payload, len, count: count as usize, sequence: self.next_sequence() }
    }

    /// Within an array.
    #[inline(always)]
    fn elements_left(&self) -> u64 {
        if self.head.front == self.first_element(self.array.at) {
            return self.array.shape.count();
        }
        // Both fit into 32 bits, where a division takes half as long.
        u64::from((self.head.stop - self.head.front) as u32 / self.head.step as u32)
    }

    /// Steps over the message that was found last and gives its room back. Returns true when the head was
    /// published for the writer, who may be asleep waiting for it. In a forked child: does nothing.
    #[inline(always)]
    pub fn consume(&mut self, step: Step) -> bool {
        if step.next >= self.head.stop {
            return self.consume_and_turn();
        }
        self.step_to(step.next);
        false
    }

    /// The same, if that [is short](Step::is_short).
    ///
    /// # Safety
    /// It is, and of what was found last.
    #[inline(always)]
    pub unsafe fn step(&mut self, step: Step) {
        debug_assert!(step.next < self.head.stop);
        self.step_to(step.next);
    }

    #[cold]
    #[inline(never)]
    fn consume_and_turn(&mut self) -> bool {
        if self.is_foreign() {
            return false;
        }
        self.step_to(self.head.front + self.head.step);
        self.turn_and_publish()
    }

    #[inline(always)]
    fn step_to(&mut self, front: u64) {
        // Read before the store to shared memory, which might, for all the compiler knows, change it: a
        // tenth of the time of a message of 8 bytes.
        let head = &mut *self.head;
        let next = head.next.wrapping_add(1);
        head.front = front;
        head.next = next;
        // R3, pairs with A3 in Reader::attach: the bytes were read before.
        self.memory.consumer().progress.received.store_release(next);
        crate::fault::point(crate::fault::Point::MidRelease);
    }

    /// Steps over `count` messages, at most those of the run that was found, without giving their
    /// room back yet.
    #[inline(always)]
    pub fn advance(&mut self, count: usize) {
        let count = count as u64;
        debug_assert!(count > 0);
        self.head.next = self.head.next.wrapping_add(count);
        self.head.front += self.head.step * count;
        if self.head.front >= self.head.stop {
            self.turn();
        }
    }

    /// Gives back everything stepped over. Returns true when the head was published for the
    /// writer, who may be asleep waiting for it.
    #[inline(always)]
    pub fn release(&mut self) -> bool {
        // R3, pairs with A3 in Reader::attach.
        self.memory.consumer().progress.received.store_release(self.head.next);
        crate::fault::point(crate::fault::Point::MidRelease);
        self.head.front >= self.head.stop && self.turn_and_publish()
    }

    /// Tells the writer how far it may write, if that is news. Call whenever the ring is found
    /// empty and before sleeping: else a writer with a large record may wait for ever.
    #[inline]
    pub fn publish_head(&mut self) -> bool {
        self.head.ahead = 0;
        let head = self.position();
        if self.published == head || self.holds_any() {
            return false;
        }
        // R2, pairs with A2 in RingMemory::released.
        self.memory.consumer().gate.head.store_release(head);
        self.published = head;
        if !self.head.in_array {
            self.set_stop();
        }
        true
    }

    /// Whether nothing is left: a look, without any effect.
    pub fn is_drained(&self) -> Result<bool, Fault> {
        Ok(!self.head.in_array && self.look(self.position())?.is_none())
    }

    /// Position of the oldest record that was not wholly stepped over.
    pub fn position(&self) -> u64 {
        self.lap + if !self.head.in_array { self.head.front } else { self.array.at }
    }

    /// What `stop` stands for, but for the publication.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) {
        let was_array = self.head.in_array;
        if was_array {
            self.head.front = self.array.at + self.array.size;
            self.head.in_array = false;
        }
        if self.head.front > self.mask {
            self.head.front = 0;
            self.lap += self.mask + 1;
        }
        // As long a record again is not to be expected where it would run past the end.
        if was_array || self.head.front + self.head.step > self.mask + 1 {
            (self.head.expected, self.head.step, self.head.len) = (UNEXPECTED, 0, 0);
        }
        self.set_stop();
    }

    #[cold]
    #[inline(never)]
    fn turn_and_publish(&mut self) -> bool {
        // Behind an array nothing is expected, whoever has turned there already.
        let len = if self.head.len == 0 { self.array.shape.each() } else { self.head.len };
        self.turn();
        // Rarely enough that the writer's line moves seldom, often enough that a writer of large
        // records does not run dry.
        let is_due = self.position() - self.published >= self.publish_every;
        let told = is_due && self.publish_head();
        if is_due {
            // No call found the ring empty since the last time, or this would not be due yet.
            self.head.ahead = ahead::for_reader(len, self.mask + 1);
        }
        told
    }

    /// Not within an array, where its end is all there is to stop at.
    fn set_stop(&mut self) {
        let capacity = self.mask + 1;
        let fits = if self.head.step == 0 { capacity } else { capacity - self.head.step + 1 };
        let due = (self.published + self.publish_every).saturating_sub(self.lap);
        self.head.stop = fits.min(due);
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
                self.head.front += behind * self.head.step;
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
        self.head.front = position & self.mask;
        self.set_stop();
        Ok(())
    }

    fn enter(&mut self, record: &Record) {
        let offset = record.at & self.mask;
        self.lap = record.at - offset;
        if record.is_array {
            let shape = ArrayShape::new(record.len, record.count);
            let header = RecordHeader::new((record.len * record.count) as u32, RECORD_ARRAY, 0).0;
            self.array = Array { at: offset, size: record.size, header, shape };
            self.enter_array();
        } else {
            self.head.expected = record.header - NEXT.wrapping_mul(record.sequence);
            self.head.len = record.len;
            self.head.step = record.size;
            self.head.front = offset;
            self.set_stop();
        }
    }

    /// Within the array that was checked last. A header does not tell how many elements it has, so none is to be
    /// expected.
    #[inline(always)]
    fn enter_array(&mut self) {
        let front = self.first_element(self.array.at);
        let len = self.array.shape.each();
        self.head.expected = UNEXPECTED;
        (self.head.step, self.head.len) = (len, len);
        self.head.front = front;
        self.head.stop = front + len * self.array.shape.count();
        self.head.in_array = true;
        if self.head.ahead != 0 {
            ahead::entered_array(&self.memory, self.array.at + self.array.size, self.array.size);
        }
    }

    /// What `front` is at the first message of an array.
    #[inline(always)]
    fn first_element(&self, array: u64) -> u64 {
        array + ARRAY_OFFSET - self.sizes.start()
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
                    let size =
                        if is_array { self.sizes.array(len) } else { self.sizes.message(len) };
                    if size > max_record(self.mask + 1) || size > to_end {
                        return Err(Fault::Length);
                    }
                    let (len, count) =
                        if is_array { self.look_array(offset, len)? } else { (len, 1) };
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
        let shape = ArrayShape(self.memory.word(offset + ARRAY_SHAPE).load_relaxed());
        let (element, count) = (shape.each(), shape.count());
        if element == 0 || count == 0 || count > RUN_MAX || element * count != len {
            return Err(Fault::Array);
        }
        Ok((element, count))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::BoxedMemory;
    use crate::spsc::{Publish, Writer};

    /// How far ahead a reader asks after it received messages of `len` bytes, one by one or as arrays of `count`, for
    /// a quarter of a lap.
    fn ahead_after(capacity: u64, len: usize, count: usize) -> (Reader<BoxedMemory>, u64) {
        let memory = BoxedMemory::new(capacity);
        let geometry = Geometry { record_align: 16, payload_offset: 8 };
        let mut writer = Writer::new(memory.clone(), geometry);
        let mut reader = Reader::attach(memory, geometry).expect("it is new");
        let mut messages = 0;
        while writer.depth_beyond(0) < capacity / 4 {
            if count == 1 {
                let claim = writer.try_claim(len).expect("there is room");
                writer.commit(claim, Publish::Now).expect("no fork");
            } else {
                let claim = writer.try_claim_array(len, count).expect("there is room");
                writer.commit_array(claim, len, count, Publish::Now).expect("no fork");
            }
            messages += count;
        }
        while messages > 0 {
            assert!(reader.peek().expect("it makes sense").is_some());
            let run = reader.run();
            reader.advance(run.count);
            reader.release();
            messages -= run.count;
        }
        let ahead = reader.head.ahead;
        (reader, ahead)
    }

    #[test]
    fn it_asks_ahead_in_a_stream_until_it_finds_nothing() {
        for (len, count) in [(8, 1), (8, 32), (64, 1), (64, 8)] {
            let (mut reader, ahead) = ahead_after(64 << 10, len, count);
            assert!(ahead > 0, "{count} messages of {len} bytes");
            assert_eq!(reader.peek(), Ok(None));
            reader.publish_head();
            assert_eq!(reader.head.ahead, 0);
        }
    }

    #[test]
    fn it_does_not_for_long_messages_or_in_a_small_ring() {
        for (capacity, len, count) in [(64 << 10, 1024, 1), (64 << 10, 256, 4), (8 << 10, 8, 1)] {
            let (_, ahead) = ahead_after(capacity, len, count);
            assert_eq!(ahead, 0, "{count} messages of {len} bytes in {capacity}");
        }
    }
}

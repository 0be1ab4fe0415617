//! The ring against a queue that is obviously right, at capacities small enough that everything
//! happens near the wrap; and the reader against arbitrary memory.

#![cfg(not(loom))]

use std::collections::VecDeque;

use proptest::prelude::*;
use ringway_shm::broadcast;
use ringway_shm::error::Fault;
use ringway_shm::layout::{ARRAY_SHAPE, ArrayShape, RECORD_ARRAY, RUN_MAX, RecordHeader};
use ringway_shm::memory::{Boundary, BoxedMemory, RingMemory, sent_by};
use ringway_shm::spsc::{ClaimError, Geometry, Publish, Reader, Writer};

/// What a claim is full of that is given up, or behind what is committed of it: what no record begins with.
const SCRIBBLE: u8 = 0xee;

/// As most channels are.
const PACKED: Geometry = Geometry { record_align: 16, payload_offset: 8 };

/// Both ends, and what they ought to do.
struct Pair {
    memory: BoxedMemory,
    geometry: Geometry,
    writer: Writer<BoxedMemory>,
    reader: Reader<BoxedMemory>,
    visible: VecDeque<Vec<u8>>,
    queued: VecDeque<Vec<u8>>,
    next: u8,
}

impl Pair {
    fn new(capacity: u64, geometry: Geometry) -> Self {
        let memory = BoxedMemory::new(capacity);
        Self {
            writer: Writer::new(memory.clone(), geometry),
            reader: Reader::attach(memory.clone(), geometry).unwrap(),
            memory,
            geometry,
            visible: VecDeque::new(),
            queued: VecDeque::new(),
            next: 0,
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.next = self.next.wrapping_add(1);
        (0..len).map(|i| self.next.wrapping_add(i as u8)).collect()
    }

    fn committed(&mut self, messages: impl IntoIterator<Item = Vec<u8>>, publish: Publish) {
        self.queued.extend(messages);
        if publish == Publish::Now {
            self.visible.append(&mut self.queued);
        }
    }

    /// Returns whether there was room.
    fn send(&mut self, len: usize, shorter: usize, publish: Publish) -> bool {
        self.send_behind(len, shorter, publish, false)
    }

    /// With a flush, if so, of what was queued before, between claim and commit.
    fn send_behind(&mut self, len: usize, shorter: usize, publish: Publish, flush: bool) -> bool {
        let claim = match self.writer.try_claim(len) {
            Ok(claim) => claim,
            Err(ClaimError::Full) => return false,
            Err(ClaimError::TooLarge) => {
                assert!(len > self.writer.max_len());
                return false;
            }
            Err(error) => panic!("{error:?}"),
        };
        assert!(claim.room() == len && len <= self.writer.max_len());
        let bytes = self.bytes(len.saturating_sub(shorter));
        // SAFETY: `bytes` is no longer than the claim.
        unsafe {
            self.writer.payload(&claim).write_bytes(SCRIBBLE, len);
            self.writer.payload(&claim).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        if flush {
            self.flush();
        }
        self.writer.commit_len(claim, bytes.len(), publish).unwrap();
        self.committed([bytes], publish);
        true
    }

    fn send_run(&mut self, len: usize) {
        let Some(claim) = self.writer.claim_run(len) else { return };
        if claim.room() >= len {
            let bytes = self.bytes(len);
            // SAFETY: as above.
            unsafe {
                self.writer.payload(&claim).write_bytes(SCRIBBLE, claim.room());
                self.writer.payload(&claim).copy_from_nonoverlapping(bytes.as_ptr(), len);
            }
            self.writer.commit_len(claim, len, Publish::Now).unwrap();
            self.committed([bytes], Publish::Now);
        }
    }

    fn send_array(&mut self, len: usize, count: usize, publish: Publish) {
        let Ok(claim) = self.writer.try_claim_array(len, count) else { return };
        let messages: Vec<Vec<u8>> = (0..count).map(|_| self.bytes(len)).collect();
        for (index, bytes) in messages.iter().enumerate() {
            // SAFETY: element `index` of `count` within the claim.
            unsafe {
                let to = self.writer.array_payload(&claim).add(index * len);
                to.copy_from_nonoverlapping(bytes.as_ptr(), len);
            }
        }
        self.writer.commit_array(claim, len, count, publish).unwrap();
        self.committed(messages, publish);
    }

    /// Claims, writes all that was claimed, and gives it up.
    fn abort(&mut self, len: usize, how: Verb) {
        let claim = match how {
            Verb::Message => self.writer.try_claim(len).ok(),
            Verb::Run => self.writer.claim_run(len),
            Verb::Array => self.writer.try_claim_array(len, 1).ok(),
        };
        let Some(claim) = claim else { return };
        let to = match how {
            Verb::Array => self.writer.array_payload(&claim),
            _ => self.writer.payload(&claim),
        };
        // SAFETY: within the claim.
        unsafe { to.write_bytes(SCRIBBLE, claim.room()) };
    }

    fn flush(&mut self) {
        assert_eq!(self.writer.flush(), !self.queued.is_empty());
        self.visible.append(&mut self.queued);
    }

    /// Takes up to `count` messages and releases them together, or, if the count is odd, one by one.
    fn receive(&mut self, count: usize) {
        for _ in 0..count {
            match self.reader.peek().unwrap() {
                Some(message) => {
                    // SAFETY: peeked and not released.
                    let bytes = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
                    assert_eq!(bytes, self.visible.pop_front().expect("a message too many"));
                    if count.is_multiple_of(2) {
                        self.reader.advance(1);
                    } else {
                        self.reader.consume(message.step);
                    }
                }
                None => {
                    assert!(self.visible.is_empty(), "a message is missing");
                    self.reader.release();
                    self.reader.publish_head();
                    break;
                }
            }
        }
        self.reader.release();
        assert_eq!(self.reader.next_sequence() + self.remaining(), self.writer.sequence());
    }

    /// Behind all that is published, a batch that is not apart, and padding.
    fn expect_terminator(&self) {
        let end = self.writer.published().position;
        assert_eq!(self.memory.word(end & (self.memory.capacity() - 1)).load_relaxed(), 0);
    }

    fn remaining(&self) -> u64 {
        (self.visible.len() + self.queued.len()) as u64
    }

    /// A successor of the reader, as after a crash.
    fn restart_reader(&mut self) {
        self.reader = Reader::attach(self.memory.clone(), self.geometry).unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Message,
    Run,
    Array,
}

#[derive(Clone, Debug)]
enum Step {
    Send { len: usize, shorter: usize, later: bool, flush: bool },
    SendRun(usize),
    Array { len: usize, count: usize, later: bool },
    Abort(usize, Verb),
    Flush,
    Receive(usize),
    RestartReader,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..600_usize, 0..20_usize, any::<bool>(), any::<bool>())
            .prop_map(|(len, shorter, later, flush)| Step::Send { len, shorter, later, flush }),
        2 => (0..300_usize).prop_map(Step::SendRun),
        // Often enough as the one before.
        3 => (prop_oneof![Just(16_usize), 1..40_usize], prop_oneof![Just(3_usize), 1..9_usize], any::<bool>())
            .prop_map(|(len, count, later)| Step::Array { len, count, later }),
        // Many of one length, some of them one by one.
        6 => prop_oneof![Just(8_usize), Just(48), Just(56)]
            .prop_map(|len| Step::Send { len, shorter: 0, later: false, flush: false }),
        2 => (0..300_usize, prop_oneof![Just(Verb::Message), Just(Verb::Run), Just(Verb::Array)])
            .prop_map(|(len, how)| Step::Abort(len, how)),
        2 => Just(Step::Flush),
        6 => (1..6_usize).prop_map(Step::Receive),
        1 => Just(Step::RestartReader),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn behaves_as_a_queue(
        (shift, wide, far) in (6..13_u32, any::<bool>(), any::<bool>()),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let capacity = 1 << shift;
        let record_align = if wide && capacity >= 256 { 64 } else { 16 };
        let payload_offset = if far { 16 } else { 8 };
        let mut pair = Pair::new(capacity, Geometry { record_align, payload_offset });
        let publish = |later| if later { Publish::Later } else { Publish::Now };
        for step in steps {
            match step {
                Step::Send { len, shorter, later, flush } => {
                    let len = len % (capacity as usize / 2 + 2);
                    pair.send_behind(len, shorter, publish(later), flush);
                }
                Step::SendRun(len) => pair.send_run(len),
                Step::Array { len, count, later } => pair.send_array(len, count, publish(later)),
                Step::Abort(len, how) => pair.abort(len, how),
                Step::Flush => pair.flush(),
                Step::Receive(count) => pair.receive(count),
                Step::RestartReader => pair.restart_reader(),
            }
            pair.expect_terminator();
        }
        pair.flush_all();
    }

    /// Whatever lies in the ring and in the consumer's page, the reader finds messages inside the
    /// ring, nothing, or a fault; the memory itself asserts that nobody looks beyond it.
    #[test]
    fn arbitrary_memory_is_no_danger(
        words in proptest::collection::vec(record_word(), 32),
        page in proptest::collection::vec(prop_oneof![0..400_u64, any::<u64>()], 2),
    ) {
        let memory = BoxedMemory::new(256);
        for (index, word) in words.into_iter().enumerate() {
            memory.word(index as u64 * 8).store_relaxed(word);
        }
        memory.consumer().progress.received.store_relaxed(page[0] % 3);
        memory.consumer().gate.head.store_relaxed(page[1]);
        if let Ok(mut reader) = Reader::attach(memory, PACKED) {
            for _ in 0..100 {
                let Ok(Some(_)) = reader.peek() else { break };
                reader.advance(1);
                reader.release();
            }
        }
    }

    /// Whatever the consumer's page says, the writer never gets room that was not released.
    #[test]
    fn an_arbitrary_gate_is_no_danger(
        head in prop_oneof![0..100_u64, any::<u64>()],
        sent in 0..3_usize,
    ) {
        let mut pair = Pair::new(256, PACKED);
        for _ in 0..sent {
            prop_assert!(pair.send(24, 0, Publish::Now));
        }
        let tail = sent as u64 * 32;
        pair.memory.consumer().gate.head.store_relaxed(head);
        let outcome = pair.writer.refresh();
        let sound = head <= tail && head % 8 == 0;
        prop_assert_eq!(outcome, if sound { Ok(()) } else { Err(Fault::Gate) });
    }
}

/// A record that would reach beyond the ring is not looked into, not even for how many elements it has.
#[test]
fn an_array_at_the_rings_last_word() {
    let memory = BoxedMemory::new(256);
    memory.word(248).store_relaxed(RecordHeader::new(0, RECORD_ARRAY, 0).0);
    let start = Boundary { position: 248, sequence: 0 };
    assert_eq!(broadcast::walk(&memory, PACKED, start, 0), Err(Fault::Length));
}

/// Words that get past the first checks often enough to reach the later ones.
fn record_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..300_u32, 0..5_u8, 0..6_u64)
            .prop_map(|(len, kind, sequence)| RecordHeader::new(len, kind, sequence).0),
        // What a reader expects when it expects nothing.
        1 => (0..6_u64).prop_map(|sequence| RecordHeader::new(0x6e6f_6e65, u8::MAX, sequence).0),
        2 => 0..4_u64,
        2 => (0..40_u64, 0..10_u64).prop_map(|(len, count)| len | count << 32),
        1 => any::<u64>(),
        2 => Just(0),
    ]
}

impl Pair {
    fn flush_all(&mut self) {
        if !self.queued.is_empty() {
            self.flush();
        }
        while !self.visible.is_empty() {
            self.receive(3);
        }
        assert!(self.reader.is_drained().unwrap());
    }
}

/// Every length of message from every position in the ring, with the ring empty before.
#[test]
fn every_size_at_every_offset() {
    for (capacity, align, payload_offset) in
        [(64, 16, 8), (128, 16, 8), (256, 16, 8), (256, 64, 8), (256, 16, 16), (512, 64, 16)]
    {
        let geometry = Geometry { record_align: align, payload_offset };
        // Half of the ring is the longest record.
        let offsets = (0..capacity).step_by(align as usize);
        let odd = (72..capacity)
            .step_by(align as usize)
            .filter(|_| geometry == PACKED && capacity >= 144);
        for offset in offsets.chain(odd) {
            for len in 0..=Pair::new(capacity, geometry).writer.max_len() {
                let mut pair = Pair::new(capacity, geometry);
                // Smallest records up to the offset, behind one of 72 bytes where a record begins at odd ones.
                let mut at = 0;
                if offset % align != 0 {
                    assert!(pair.send(64, 0, Publish::Now));
                    pair.receive(2);
                    at = 72;
                }
                while at < offset {
                    assert!(pair.send(0, 0, Publish::Now));
                    pair.receive(2);
                    at += align;
                }
                assert!(pair.send(len, 0, Publish::Now), "{len} bytes at {offset} of {capacity}");
                assert!(pair.send(0, 0, Publish::Now) || pair.remaining() > 0);
                pair.flush_all();
            }
        }
    }
}

/// A full ring holds what it promised: nothing overwrites the oldest unread record.
#[test]
fn a_full_ring_keeps_everything() {
    for len in 0..=Pair::new(256, PACKED).writer.max_len() {
        let mut pair = Pair::new(256, PACKED);
        for _ in 0..40 {
            while pair.send(len, 0, Publish::Later) {}
            if !pair.queued.is_empty() {
                pair.flush();
            }
            assert!(!pair.visible.is_empty(), "an empty ring had no room for {len} bytes");
            pair.receive(1 + pair.visible.len() / 2);
        }
        pair.flush_all();
    }
}

#[test]
fn too_large_is_one_byte_more_than_promised() {
    let mut pair = Pair::new(4096, Geometry { record_align: 64, payload_offset: 8 });
    assert_eq!(pair.writer.max_len(), 4096 / 2 - 8);
    assert!(pair.send(pair.writer.max_len(), 0, Publish::Now));
    let len = pair.writer.max_len() + 1;
    assert_eq!(pair.writer.try_claim(len).unwrap_err(), ClaimError::TooLarge);
    let mut too_large = |len, count| {
        assert_eq!(pair.writer.try_claim_array(len, count).unwrap_err(), ClaimError::TooLarge)
    };
    for (len, count) in [(usize::MAX, 2), (0, 2), (2, 0), (1, RUN_MAX as usize + 1), (1017, 2)] {
        too_large(len, count);
    }
}

/// Headers number messages modulo 2^24; who counts all of them sees it as often as it takes, whatever they are.
#[test]
fn more_messages_than_headers_tell_apart() {
    const COUNT: usize = 1 << 20;
    // Large enough that a writer need not look for room in between.
    let memory = BoxedMemory::new(64 << 20);
    let mut writer = Writer::new(memory.clone(), PACKED);
    let mut reader = Reader::attach(memory.clone(), PACKED).unwrap();
    let mut sent = 0;
    let mut send = |count: usize, publish| {
        let claim = if count == 1 {
            writer.try_claim(0).unwrap()
        } else {
            writer.try_claim_array(1, count).unwrap()
        };
        match count {
            1 => writer.commit(claim, publish).unwrap(),
            _ => writer.commit_array(claim, 1, count, publish).unwrap(),
        }
        let published = writer.published().sequence;
        assert_eq!(published, if publish == Publish::Now { sent + count as u64 } else { sent });
        writer.flush();
        sent += count as u64;
        assert_eq!((writer.sequence(), sent_by(memory.producer())), (sent, sent));
        while reader.look_closely().unwrap() {
            reader.advance(reader.run().count);
        }
        reader.release();
        reader.publish_head();
        assert_eq!(reader.next_sequence(), sent);
    };
    for round in 0..40 {
        send(COUNT, if round % 2 == 0 { Publish::Now } else { Publish::Later });
        send(1, Publish::Now);
        send(COUNT - 1, Publish::Later);
    }
    assert!(sent > 4 << 24);
}

/// An array as the one before is known by its first two words, and by no less.
#[test]
fn an_array_that_is_alike_is_entered_at_once() {
    let mut pair = Pair::new(1024, PACKED);
    for (len, count, is_alike) in
        [(8, 4, false), (8, 4, true), (16, 2, false), (16, 2, true), (8, 4, false)]
    {
        pair.send_array(len, count, Publish::Now);
        assert_eq!(pair.reader.enters_alike(), is_alike, "{count} of {len}");
        pair.receive(count);
    }
    // Within one, there is no other.
    pair.send_array(8, 4, Publish::Now);
    pair.receive(1);
    assert!(!pair.reader.enters_alike());
    pair.receive(3);
    // As many bytes, of other messages; and then of none.
    for (shape, fault) in
        [(ArrayShape::new(4, 8), None), (ArrayShape::new(4, 4), Some(Fault::Array))]
    {
        let at = pair.reader.position();
        pair.send_array(8, 4, Publish::Now);
        pair.memory.word(at + ARRAY_SHAPE).store_relaxed(shape.0);
        assert!(!pair.reader.enters_alike());
        assert_eq!(pair.reader.look_closely().err(), fault);
        if fault.is_none() {
            assert_eq!(pair.reader.run().count, 8);
            pair.reader.advance(8);
            pair.visible.clear();
        }
    }
}

/// The head lags behind `received`: by single records, part of an array, or a batch of many.
#[test]
fn a_successor_starts_where_received_says() {
    for received in 0..=6 {
        let mut pair = Pair::new(512, PACKED);
        pair.send(8, 0, Publish::Now);
        pair.send_array(8, 4, Publish::Now);
        pair.send(8, 0, Publish::Now);
        // What a reader with that many messages released may have published.
        for (head, first) in [(0, 0), (16, 1), (64, 5), (80, 6)] {
            // With nothing at the head there is nothing to compare with until it comes.
            let may_lag = received >= first || head == 80;
            pair.memory.consumer().progress.received.store_relaxed(received);
            pair.memory.consumer().gate.head.store_relaxed(head);
            let attached = Reader::attach(pair.memory.clone(), PACKED);
            if !may_lag {
                assert!(attached.is_err(), "{received} received, head at {head}");
                continue;
            }
            let mut reader = attached.unwrap();
            let next = reader.peek().unwrap().map(|_| reader.next_sequence());
            assert_eq!(next, (head < 80 && received < 6).then_some(received));
        }
    }
}

//! The ring on heap memory that changes under both its ends: whatever lies there, the reader finds a
//! message inside the ring, nothing, or a fault, and the writer gets room inside the ring, or none.
//! The memory itself panics when anybody reaches beyond it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::input::Input;
use ringway_fuzz::seeds;
use ringway_shm::layout::{ARRAY_SHAPE, ArrayShape, RECORD_ARRAY, RecordHeader};
use ringway_shm::memory::{BoxedMemory, RingMemory};
use ringway_shm::spsc::{Geometry, Publish, Reader, Writer};

const CAPACITY: u64 = 512;

struct Ring {
    memory: BoxedMemory,
    geometry: Geometry,
    writer: Option<Writer<BoxedMemory>>,
    reader: Option<Reader<BoxedMemory>>,
}

impl Ring {
    fn new(shape: u8) -> Self {
        let memory = BoxedMemory::new(CAPACITY);
        let geometry = Geometry {
            record_align: if shape & 1 == 0 { 16 } else { 64 },
            payload_offset: if shape & 2 == 0 { 8 } else { 16 },
        };
        let writer = Some(Writer::new(memory.clone(), geometry));
        let reader = Reader::attach(memory.clone(), geometry).ok();
        Self { memory, geometry, writer, reader }
    }

    /// One step, chosen by the input.
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 11 {
            0 => self.memory.word(u64::from(input.byte()) % 64 * 8).store_relaxed(input.word()),
            1 => {
                let (at, len, kind) = (input.byte(), input.short() % 600, input.byte() % 5);
                let header = RecordHeader::new(len.into(), kind, input.byte().into());
                self.memory.word(u64::from(at) % 64 * 8).store_relaxed(header.0);
            }
            2 => {
                self.memory.consumer().progress.received.store_relaxed(input.word());
                let counters = &self.memory.producer().counters;
                counters.next.store_relaxed(input.word());
                counters.sent_before.store_relaxed(input.word());
            }
            3 => self.memory.consumer().gate.head.store_relaxed(input.word()),
            4 => self.reader = Reader::attach(self.memory.clone(), self.geometry).ok(),
            5 | 6 => self.receive(input.byte()),
            7 => self.send(input.short().into(), input.byte()),
            8 => self.send_array(input.byte().into(), input.byte().into()),
            9 => self.put_next(input.byte(), input.byte()),
            _ => {
                if let Some(writer) = &mut self.writer {
                    writer.flush();
                    if writer.refresh().is_err() {
                        self.writer = None;
                    }
                }
            }
        }
    }

    /// A record where the reader looks next, with the number that it looks for: what gets furthest.
    fn put_next(&self, len: u8, kind: u8) {
        let Some(reader) = &self.reader else { return };
        let (position, received) = (reader.position(), reader.next_sequence());
        let kind = if kind < 200 { 1 } else { kind % 5 };
        let header = RecordHeader::new(u32::from(len) * 2, kind, received);
        self.memory.word(position & (CAPACITY - 8)).store_relaxed(header.0);
        if kind == RECORD_ARRAY {
            let shape = ArrayShape::new(2, len.into());
            self.memory.word((position + ARRAY_SHAPE) & (CAPACITY - 8)).store_relaxed(shape.0);
        }
    }

    fn receive(&mut self, count: u8) {
        let Some(reader) = &mut self.reader else { return };
        for _ in 0..count % 16 {
            match reader.peek() {
                Ok(Some(message)) => {
                    // SAFETY: `touch` in `message` has checked that the bytes lie in the ring, and
                    // nobody else has the memory.
                    let bytes = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
                    std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum ^ byte));
                    reader.advance(if count < 128 { 1 } else { reader.run().count });
                }
                Ok(None) => {
                    reader.publish_head();
                    break;
                }
                Err(_) => {
                    self.reader = None;
                    return;
                }
            }
        }
        reader.release();
    }

    fn send(&mut self, len: usize, how: u8) {
        let Some(writer) = &mut self.writer else { return };
        let before = writer.depth_beyond(0);
        let claim = match how % 4 {
            0 => writer.claim_run(len),
            _ => writer.try_claim(len % 300).ok(),
        };
        let Some(claim) = claim else { return };
        let room = claim.room();
        assert!(room <= writer.max_len());
        // SAFETY: the claim is that long; `touch` has checked that it lies in the ring.
        unsafe { writer.payload(&claim).write_bytes(how, room) };
        if how & 4 == 0 {
            let publish = if how & 8 == 0 { Publish::Now } else { Publish::Later };
            let len = room - room.min(usize::from(how >> 4));
            writer.commit_len(claim, len, publish).expect("nobody has forked");
        }
        assert!(writer.depth_beyond(0) - before <= CAPACITY);
    }

    fn send_array(&mut self, len: usize, count: usize) {
        let Some(writer) = &mut self.writer else { return };
        let before = writer.depth_beyond(0);
        let Ok(claim) = writer.try_claim_array(len, count) else { return };
        // SAFETY: the claim holds so many elements of that length.
        unsafe { writer.array_payload(&claim).write_bytes(7, len * count) };
        let count = count.div_ceil(2);
        writer.commit_array(claim, len, count, Publish::Now).expect("nobody has forked");
        assert!(writer.depth_beyond(0) - before <= CAPACITY);
    }
}

/// Steps that send, receive and wrap, with nothing wrong.
fn sound() -> Vec<u8> {
    let round = [7, 40, 0, 1, 8, 8, 5, 7, 100, 0, 9, 9, 5, 15, 6, 15];
    [&[0][..], &round.repeat(12)].concat()
}

fuzz_target!(
    init: {
        // Records that nobody sent, all as long as the one before.
        let forged = [&[0][..], &[9, 50, 0, 5, 1].repeat(12)].concat();
        let forged_arrays = [&[0][..], &[9, 6, 203, 5, 255].repeat(24)].concat();
        let others = (1..4).map(|shape| [&[shape][..], &sound()[1..]].concat());
        seeds::write(others.chain([sound(), forged, forged_arrays, vec![], vec![0, 1, 0, 30, 0, 1, 0, 5, 1, 4, 5, 2]]));
    },
    |data: &[u8]| {
        let mut input = Input(data);
        let mut ring = Ring::new(input.byte());
        while !input.is_empty() {
            ring.step(&mut input);
        }
    }
);

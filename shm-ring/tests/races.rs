//! Two threads on one ring, as they run in earnest: for tools that watch every access and know the
//! memory model, Miri and ThreadSanitizer (`.ci/races`). The models in `loom.rs` go through every
//! order of a few steps; here, one order each of very many, with payloads as plain memory. Alone it
//! is an ordinary test.

#![cfg(not(loom))]

use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use ringway_shm::memory::BoxedMemory;
use ringway_shm::spsc::{ClaimError, Geometry, Publish, Reader, Writer};

/// Small beside what is sent: positions, padding and the gate go round it many times.
const CAPACITY: u64 = 512;

/// Some dozen laps at least; Miri takes some 10,000 times as long.
const MESSAGES: u64 = if cfg!(miri) { 100 } else { 200_000 };

/// Every geometry that a channel can have in so small a ring.
const GEOMETRIES: [Geometry; 3] = [
    Geometry { record_align: 16, payload_offset: 8 },
    Geometry { record_align: 16, payload_offset: 16 },
    Geometry { record_align: 64, payload_offset: 8 },
];

/// Messages of every length, published one by one.
#[test]
fn one_by_one() {
    bounded_stream(|writer, sequence| {
        let len = len_of(sequence);
        let Some(claim) = with_room(writer.try_claim(len)) else { return 0 };
        // SAFETY: `len` bytes were claimed and nothing else refers to them until they are committed.
        fill(unsafe { slice::from_raw_parts_mut(writer.payload(&claim), len) }, sequence);
        writer.commit(claim, Publish::Now).unwrap();
        1
    });
}

/// Batches of several: only the first header is withheld, the others lie open until it comes.
#[test]
fn in_batches() {
    bounded_stream(|writer, sequence| {
        let len = len_of(sequence);
        let claim = match writer.try_claim(len) {
            Err(ClaimError::Full) => {
                // Else the reader has nothing to make room with.
                writer.flush();
                return 0;
            }
            claim => with_room(claim).expect("not full"),
        };
        // SAFETY: as above.
        fill(unsafe { slice::from_raw_parts_mut(writer.payload(&claim), len) }, sequence);
        let last = sequence % 5 == 4 || sequence + 1 == MESSAGES;
        writer.commit(claim, if last { Publish::Now } else { Publish::Later }).unwrap();
        1
    });
}

/// Records of several messages of one length, each unlike the one before.
#[test]
fn in_arrays() {
    bounded_arrays(|sequence| (8 + 8 * (sequence as usize % 3), 1 + sequence % 4));
}

/// The same, mostly alike.
#[test]
fn in_arrays_that_are_alike() {
    bounded_arrays(|sequence| (if sequence % 64 == 0 { 8 } else { 16 }, 4));
}

/// `shape` tells how long messages are from a number on, and how many follow each other.
fn bounded_arrays(shape: impl Fn(u64) -> (usize, u64) + Copy + Send + 'static) {
    bounded_stream(move |writer, sequence| {
        let (len, count) = shape(sequence);
        let count = count.min(MESSAGES - sequence);
        let Some(claim) = with_room(writer.try_claim_array(len, count as usize)) else { return 0 };
        for index in 0..count {
            // SAFETY: element `index` of the `count` that were claimed, as above.
            let element = unsafe {
                let first = writer.array_payload(&claim).add(index as usize * len);
                slice::from_raw_parts_mut(first, len)
            };
            fill(element, sequence + index);
        }
        writer.commit_array(claim, len, count as usize, Publish::Now).unwrap();
        count
    });
}

/// Runs `send`, which returns how many messages it sent, and a reader on a thread each, through every
/// geometry; every message has to arrive, whole and in order.
fn bounded_stream(send: impl Fn(&mut Writer<BoxedMemory>, u64) -> u64 + Copy + Send + 'static) {
    // One test at a time: each wants two cores.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for geometry in GEOMETRIES {
        // Kept until both threads are through, so that neither of them frees it.
        let memory = BoxedMemory::new(CAPACITY);
        let mut writer = Writer::new(memory.clone(), geometry);
        let sending = thread::spawn(move || {
            let mut sequence = 0;
            while sequence < MESSAGES {
                match send(&mut writer, sequence) {
                    0 => thread::yield_now(),
                    sent => sequence += sent,
                }
            }
        });
        let reader = Reader::attach(memory.clone(), geometry).unwrap();
        let receiving = thread::spawn(move || receive(reader));
        sending.join().unwrap();
        receiving.join().unwrap();
        drop(memory);
    }
}

fn receive(mut reader: Reader<BoxedMemory>) {
    let mut next = 0;
    while next < MESSAGES {
        match reader.peek().unwrap() {
            Some(message) => {
                assert_eq!(reader.next_sequence(), next);
                // SAFETY: peeked and not released.
                check(unsafe { slice::from_raw_parts(message.payload, message.len) }, next);
                // Three one by one, then three at once.
                if next % 6 < 3 {
                    reader.consume(message.step);
                } else {
                    reader.advance(1);
                    if next % 6 == 5 {
                        reader.release();
                    }
                }
                next += 1;
            }
            None => {
                reader.release();
                reader.publish_head();
                thread::yield_now();
            }
        }
    }
    reader.release();
    assert!(reader.is_drained().unwrap());
}

/// From 0 to 99: padding before the end of the ring, records of one unit and of several.
fn len_of(sequence: u64) -> usize {
    (sequence * 7 % 100) as usize
}

fn with_room<C>(claim: Result<C, ClaimError>) -> Option<C> {
    match claim {
        Ok(claim) => Some(claim),
        Err(ClaimError::Full) => None,
        Err(error) => panic!("{error:?}"),
    }
}

fn fill(bytes: &mut [u8], sequence: u64) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (sequence as u8).wrapping_add(index as u8);
    }
}

fn check(bytes: &[u8], sequence: u64) {
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, (sequence as u8).wrapping_add(index as u8), "message {sequence}");
    }
}

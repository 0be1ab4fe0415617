//! Models: every interleaving of a writer and a reader, and every order in which their stores may
//! become visible, for small rings. Run by
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ringway-shm --test loom`.
//!
//! Payload accesses are reported to loom by `BoxedMemory`, so an access that the orderings do not
//! allow is found as a data race, also where the bytes happen to be right.

#![cfg(loom)]

#[path = "loom/broadcast.rs"]
mod broadcast;

use std::time::Duration;

use ringway_shm::memory::{BoxedMemory, RingMemory};
use ringway_shm::spsc::{Claim, ClaimError, Geometry, Publish, Reader, Writer};
use ringway_shm::sync::{Dekker, mutation};
use ringway_shm::wait::{self, Ringer};

/// Explores with at most three preemptions, which finds all that is known to be found in models of
/// this size, and ends.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn pair(capacity: u64) -> (Writer<BoxedMemory>, Reader<BoxedMemory>) {
    let memory = BoxedMemory::new(capacity);
    let geometry = Geometry { record_align: 16, payload_offset: 8 };
    (Writer::new(memory.clone(), geometry), Reader::attach(memory, geometry).unwrap())
}

/// Claims, waiting for the reader as long as it takes.
fn claim(writer: &mut Writer<BoxedMemory>, len: usize) -> Claim {
    loop {
        match writer.try_claim(len) {
            Ok(claim) => return claim,
            Err(ClaimError::Full) => {
                writer.flush();
                loom::thread::yield_now();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn put(writer: &mut Writer<BoxedMemory>, len: usize, fill: u8, publish: Publish) {
    let claim = claim(writer, len);
    // SAFETY: the claim is `len` bytes that only this thread may touch.
    unsafe { writer.payload(&claim).write_bytes(fill, len) };
    writer.commit_len(claim, len, publish).unwrap();
}

/// Takes the next message, waiting for it, and checks every byte.
fn take(reader: &mut Reader<BoxedMemory>, len: usize, fill: u8) {
    loop {
        if let Some(message) = reader.peek().unwrap() {
            // SAFETY: peeked and not released.
            let bytes = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
            assert_eq!(bytes, vec![fill; len]);
            reader.consume(message.step);
            return;
        }
        reader.publish_head();
        loom::thread::yield_now();
    }
}

#[test]
fn commit_and_recv() {
    explore(|| {
        let (mut writer, mut reader) = pair(128);
        let sender = loom::thread::spawn(move || {
            put(&mut writer, 8, 1, Publish::Now);
            put(&mut writer, 16, 2, Publish::Now);
        });
        take(&mut reader, 8, 1);
        take(&mut reader, 16, 2);
        assert!(reader.is_drained().unwrap());
        sender.join().unwrap();
    });
}

/// The terminator of the next message is written behind the header of the one before, until one of another size
/// comes. Memory holds what no record begins with, so a reader that gets there before the zero finds a fault.
#[test]
fn terminators_are_ahead() {
    explore(|| {
        let (mut writer, mut reader) = pair(128);
        let memory = writer.memory().clone();
        for offset in (8..128).step_by(8) {
            memory.word(offset).store_relaxed(u64::MAX);
        }
        let sender = loom::thread::spawn(move || {
            for fill in 1..=3 {
                put(&mut writer, 8, fill, Publish::Now);
            }
            put(&mut writer, 16, 4, Publish::Now);
        });
        for (len, fill) in [(8, 1), (8, 2), (8, 3), (16, 4)] {
            take(&mut reader, len, fill);
        }
        assert!(reader.is_drained().unwrap());
        sender.join().unwrap();
    });
}

/// The ring is too small for the messages at once: the writer needs the gate, pads at the end and
/// reuses what the reader has released.
#[test]
fn wrap_and_gate() {
    explore(|| {
        let (mut writer, mut reader) = pair(64);
        let sender = loom::thread::spawn(move || {
            put(&mut writer, 4, 1, Publish::Now);
            put(&mut writer, 16, 2, Publish::Now);
            put(&mut writer, 4, 3, Publish::Now);
        });
        take(&mut reader, 4, 1);
        take(&mut reader, 16, 2);
        take(&mut reader, 4, 3);
        sender.join().unwrap();
    });
}

/// Of a batch the reader sees nothing or all.
#[test]
fn batch_is_all_or_nothing() {
    explore(|| {
        let (mut writer, mut reader) = pair(128);
        let sender = loom::thread::spawn(move || {
            put(&mut writer, 4, 1, Publish::Later);
            put(&mut writer, 4, 2, Publish::Later);
            assert!(writer.flush());
        });
        if reader.peek().unwrap().is_some() {
            reader.advance(1);
            assert!(reader.peek().unwrap().is_some(), "half a batch");
        }
        sender.join().unwrap();
    });
}

#[test]
fn array_records() {
    explore(|| {
        let (mut writer, mut reader) = pair(128);
        let sender = loom::thread::spawn(move || {
            // The second is as the first one was, and so a reader need not look closely.
            for first in [1, 3] {
                let claim = writer.try_claim_array(4, 2).unwrap();
                // SAFETY: the claim holds two elements of four bytes behind the array header.
                unsafe {
                    writer.array_payload(&claim).write_bytes(first, 4);
                    writer.array_payload(&claim).add(4).write_bytes(first + 1, 4);
                }
                writer.commit_array(claim, 4, 2, Publish::Now).unwrap();
            }
        });
        for message in 1..=4 {
            take(&mut reader, 4, message);
        }
        sender.join().unwrap();
    });
}

/// One message, and a reader that goes to sleep whenever it finds nothing. Sleeps have no time-out
/// in a model: a lost wake-up is a deadlock, which loom reports.
fn sleep_until_message() {
    let (mut writer, mut reader) = pair(64);
    let sender = loom::thread::spawn(move || {
        put(&mut writer, 4, 1, Publish::Now);
        let memory = writer.memory();
        Ringer::new(true).ring(&memory.producer().bell, &memory.consumer().bell);
    });
    let memory = reader.memory().clone();
    let (own, peer) = (&memory.consumer().bell, &memory.producer().bell);
    while reader.peek().unwrap().is_none() {
        let nap = wait::announce(own, peer);
        if reader.peek().unwrap().is_none() {
            wait::sleep(&nap, peer, Duration::MAX);
        }
        wait::awake(&nap, own);
    }
    sender.join().unwrap();
}

/// The other way round: a writer without room sleeps until the reader publishes its head.
fn sleep_until_room() {
    let (mut writer, mut reader) = pair(64);
    put(&mut writer, 16, 1, Publish::Now);
    let receiver = loom::thread::spawn(move || {
        take(&mut reader, 16, 1);
        reader.publish_head();
        let memory = reader.memory();
        Ringer::new(true).ring(&memory.consumer().bell, &memory.producer().bell);
    });
    let memory = writer.memory().clone();
    let (own, peer) = (&memory.producer().bell, &memory.consumer().bell);
    while writer.try_claim(16).is_err() {
        let nap = wait::announce(own, peer);
        if writer.try_claim(16).is_err() {
            wait::sleep(&nap, peer, Duration::MAX);
        }
        wait::awake(&nap, own);
    }
    receiver.join().unwrap();
}

#[test]
fn no_wake_up_is_lost() {
    explore(sleep_until_message);
    explore(sleep_until_room);
}

/// Each fence is needed: without it the same models deadlock.
#[test]
fn without_a_fence_a_wake_up_is_lost() {
    for place in [Dekker::Waker, Dekker::Sleeper] {
        for model in [sleep_until_message, sleep_until_room] {
            let outcome = std::panic::catch_unwind(|| mutation::without(place, || explore(model)));
            assert!(outcome.is_err(), "the model does not notice that the {place:?} fence is gone");
        }
    }
}

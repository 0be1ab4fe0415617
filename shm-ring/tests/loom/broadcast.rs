//! Models of the broadcast: who joins while the writer looks, the gate of several readers, readers
//! that are overwritten.

use ringway_shm::broadcast::{self, Crier, Hall, Posted};
use ringway_shm::layout::DETACHED;
use ringway_shm::memory::{BoxedMemory, RingMemory};
use ringway_shm::overwrite::{Follower, Trouble, write_words};
use ringway_shm::spsc::{Geometry, Publish, Reader, Writer};
use ringway_shm::sync::mutation::{self, Fence};
use ringway_shm::sync::{Dekker, mutation::without};
use ringway_shm::wait;

use super::{Duration, explore, put};

const GEOMETRY: Geometry = Geometry { record_align: 16, payload_offset: 8 };

fn writer(hall: &BoxedMemory, history: u64) -> Writer<BoxedMemory> {
    Writer::new(hall.blocking(GEOMETRY, history), GEOMETRY)
}

/// A reader that is there before the first message.
fn member(hall: &BoxedMemory, seat: usize) -> Reader<BoxedMemory> {
    hall.enter(seat);
    Reader::attach(hall.seat_of(seat), GEOMETRY).unwrap()
}

/// Comes while messages flow.
fn join(hall: &BoxedMemory, seat: usize) -> Reader<BoxedMemory> {
    broadcast::sweep(hall.seat(seat), hall.board()).unwrap();
    hall.enter(seat);
    broadcast::settle(hall.seat(seat), hall.board()).unwrap();
    let reader = Reader::attach(hall.seat_of(seat), GEOMETRY).unwrap();
    reader.memory().consumer().progress.attached.store_release(1);
    reader
}

/// Takes messages up to `until`, which tell their numbers, from whichever is the first.
fn take_until(reader: &mut Reader<BoxedMemory>, until: u64) {
    let mut next = reader.next_sequence();
    while next < until {
        if let Some(message) = reader.peek().unwrap() {
            assert_eq!(reader.next_sequence(), next);
            // SAFETY: peeked and not released.
            let bytes = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
            assert_eq!(bytes, [next as u8; 4]);
            reader.advance(1);
            reader.release();
            next += 1;
        } else {
            reader.publish_head();
            loom::thread::yield_now();
        }
    }
}

fn put_all(writer: &mut Writer<BoxedMemory>, count: u64) {
    for number in 0..count {
        put(writer, 4, number as u8, Publish::Now);
    }
}

/// A ring of four records. With nobody there the writer goes round it; whoever comes must find
/// nothing overwritten from where it starts.
fn join_while_the_writer_looks() {
    const COUNT: u64 = 5;
    let hall = BoxedMemory::hall(64, 1);
    let mut writer = writer(&hall, 0);
    let sender = loom::thread::spawn(move || put_all(&mut writer, COUNT));
    let mut reader = join(&hall, 0);
    take_until(&mut reader, COUNT);
    sender.join().unwrap();
}

#[test]
fn a_newcomer_is_seen_or_sees_the_mark() {
    explore(join_while_the_writer_looks);
}

#[test]
fn without_a_fence_a_newcomer_is_run_over() {
    for place in [Dekker::Scan, Dekker::Join] {
        let outcome = std::panic::catch_unwind(|| {
            without(place, || explore(join_while_the_writer_looks));
        });
        assert!(outcome.is_err(), "the model does not notice that the {place:?} fence is gone");
    }
}

/// The same with a message of history: the mark is held back, and the gate with it.
#[test]
fn a_newcomer_finds_the_history() {
    explore(|| {
        const COUNT: u64 = 4;
        let hall = BoxedMemory::hall(64, 1);
        let mut writer = writer(&hall, 1);
        let sender = loom::thread::spawn(move || put_all(&mut writer, COUNT));
        let mut reader = join(&hall, 0);
        take_until(&mut reader, COUNT);
        sender.join().unwrap();
    });
}

#[test]
fn every_reader_gets_every_message() {
    explore(|| {
        const COUNT: u64 = 4;
        let hall = BoxedMemory::hall(64, 2);
        let mut readers = [member(&hall, 0), member(&hall, 1)];
        let mut writer = writer(&hall, 0);
        let sender = loom::thread::spawn(move || put_all(&mut writer, COUNT));
        for until in 1..=COUNT {
            for reader in &mut readers {
                take_until(reader, until);
            }
        }
        sender.join().unwrap();
    });
}

/// One leaves in the middle, and is waited for no more; the other gets everything.
#[test]
fn who_leaves_is_not_waited_for() {
    explore(|| {
        const COUNT: u64 = 4;
        let hall = BoxedMemory::hall(64, 2);
        let mut stays = member(&hall, 0);
        let mut leaves = member(&hall, 1);
        let mut writer = writer(&hall, 0);
        let sender = loom::thread::spawn(move || put_all(&mut writer, COUNT));
        take_until(&mut leaves, 1);
        hall.roster().records[1].state.store_release(DETACHED);
        take_until(&mut stays, COUNT);
        sender.join().unwrap();
    });
}

/// Two sleep on one bell, and both are woken.
#[test]
fn one_wake_is_for_all() {
    fn sleep_until_message(hall: &BoxedMemory, mut reader: Reader<BoxedMemory>) {
        let memory = reader.memory().clone();
        let (own, peer) = (&memory.consumer().bell, &hall.producer().bell);
        while reader.peek().unwrap().is_none() {
            let nap = wait::announce(own, peer);
            if reader.peek().unwrap().is_none() {
                wait::sleep(&nap, peer, Duration::MAX);
            }
            wait::awake(&nap, own);
        }
    }
    explore(|| {
        let hall = BoxedMemory::hall(64, 2);
        let readers = [member(&hall, 0), member(&hall, 1)];
        let mut writer = writer(&hall, 0);
        let sender = loom::thread::spawn(move || {
            put(&mut writer, 4, 0, Publish::Now);
            Crier::new(true).ring(writer.memory());
        });
        let [first, second] = readers;
        let other = hall.clone();
        let sleeper = loom::thread::spawn(move || sleep_until_message(&other, second));
        sleep_until_message(&hall, first);
        sender.join().unwrap();
        sleeper.join().unwrap();
    });
}

/// Three messages of two words in a ring that has room for two at a time, and a reader of whom
/// nobody takes notice: what it gets is whole, and it knows what it missed.
fn read_what_may_be_overwritten() {
    const COUNT: u64 = 4;
    let hall = BoxedMemory::hall(64, 1);
    let mut writer = Writer::new(hall.overwriting(), GEOMETRY);
    let sender = loom::thread::spawn(move || {
        for number in 0..COUNT {
            let claim = loop {
                match writer.try_claim(16) {
                    Ok(claim) => break claim,
                    Err(error) => assert_eq!(error, ringway_shm::spsc::ClaimError::Full),
                }
            };
            let at = writer.payload_at(&claim);
            write_words(writer.memory(), at, &[number as u8 + 1; 16]);
            writer.commit(claim, Publish::Now).unwrap();
        }
    });
    let mut reader = Follower::new(hall.seat_of(0), GEOMETRY, Default::default());
    let mut next = 0;
    for _ in 0..3 {
        match reader.peek() {
            Ok(Some(message)) => {
                assert_eq!(message.sequence, next);
                // SAFETY: the reader's own copy, which it keeps until the next look.
                let bytes = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
                assert_eq!(bytes, [next as u8 + 1; 16]);
                reader.advance();
                reader.release();
                next += 1;
            }
            Ok(None) => loom::thread::yield_now(),
            Err(Trouble::Lagged(missed)) => next += missed,
            Err(Trouble::Fault(fault)) => panic!("{fault}"),
        }
    }
    sender.join().unwrap();
    while next < COUNT {
        match reader.peek() {
            Ok(Some(message)) => {
                assert_eq!(message.sequence, next);
                reader.advance();
                next += 1;
            }
            Ok(None) => panic!("message {next} is neither there nor missed"),
            Err(Trouble::Lagged(missed)) => next += missed,
            Err(Trouble::Fault(fault)) => panic!("{fault}"),
        }
    }
    assert_eq!(reader.peek(), Ok(None));
}

#[test]
fn what_a_lapped_reader_gets_is_whole() {
    explore(read_what_may_be_overwritten);
}

#[test]
fn without_a_fence_a_lapped_reader_is_deceived() {
    for fence in [Fence::Release, Fence::Acquire] {
        let outcome = std::panic::catch_unwind(|| {
            mutation::without_fence(fence, || explore(read_what_may_be_overwritten));
        });
        assert!(outcome.is_err(), "the model does not notice that the {fence:?} fence is gone");
    }
}

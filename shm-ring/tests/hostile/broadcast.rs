//! A broadcast whose cursors, marks and roster hold anything: the one that is wrong is given up, the
//! others are untouched.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use ringway_shm::layout::{BOARD_AT, PAGE};
use ringway_shm::{
    Consumer, Fault, Kind, Options, Overflow, Producer, Publisher, Read, RecvError, SendError,
    Subscriber,
};

use crate::scratch::{CAPACITY, CONSUMER_PAGE, PRODUCER_PAGE, Scratch};

const PATIENCE: Duration = Duration::from_secs(60);

fn options(scratch: &Scratch, overflow: Overflow) -> Options {
    Options {
        kind: Some(Kind::Broadcast),
        overflow: Some(overflow),
        capacity: Some(CAPACITY as u64),
        ..scratch.options()
    }
}

fn poke(path: &Path, at: usize, value: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_ne_bytes(), at as u64).unwrap();
}

fn send(producer: &mut Producer, byte: u8) {
    let mut claim = producer.claim_timeout(100, PATIENCE).unwrap();
    claim.fill(byte);
    claim.commit().unwrap();
}

/// Offsets in a subscriber's page.
const HEAD: usize = 0;
const POISONED: usize = 384 + 8;

fn page_of(place: usize) -> usize {
    CONSUMER_PAGE + place * PAGE as usize
}

#[test]
fn a_cursor_that_makes_no_sense() {
    // Of a hundred messages, in a ring where records are aligned to 64.
    const SENT: u64 = 100 * 128;
    // Ahead of what was sent, unaligned, behind what it gave back, off the scale, and where no record begins among those
    // that may still be there.
    for bad in [1 << 20, 8, 1, 0, u64::MAX, u64::MAX - 15, 1 << 63, SENT - 56, SENT - 48, SENT - 32]
    {
        let scratch = Scratch::new();
        let options = options(&scratch, Overflow::Block);
        let mut producer = Producer::open(&options).unwrap();
        let mut victim = Consumer::open(&options).unwrap();
        let mut other = Consumer::open(&options).unwrap();
        // Far enough that the gate has moved, and 0 lies behind it.
        for n in 0..100_u8 {
            send(&mut producer, n);
            assert_eq!(*victim.recv_timeout(PATIENCE).unwrap(), [n; 100]);
            assert_eq!(*other.recv_timeout(PATIENCE).unwrap(), [n; 100]);
        }
        assert_eq!(other.try_recv().map(drop), Err(RecvError::Empty));
        poke(&scratch.segment(1), page_of(0) + HEAD, bad);
        for n in 0..200_u8 {
            send(&mut producer, n);
            assert_eq!(*other.recv_timeout(PATIENCE).unwrap(), [n; 100]);
        }
        // It gets what was still there, nothing, or what makes no sense; then it is told.
        let told = loop {
            match victim.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(told, RecvError::Corrupt(_)), "{bad:#x}: {told}");
        // With the next producer it starts anew.
        drop(producer);
        assert_eq!(other.recv_timeout(PATIENCE).map(drop), Err(RecvError::Disconnected));
        let mut producer = Producer::open(&options).unwrap();
        send(&mut producer, 7);
        assert_eq!(*victim.recv_timeout(PATIENCE).unwrap(), [7; 100]);
        assert_eq!(*other.recv_timeout(PATIENCE).unwrap(), [7; 100]);
    }
}

#[test]
fn a_subscriber_that_gave_up_is_not_waited_for() {
    let scratch = Scratch::new();
    let options = options(&scratch, Overflow::Block);
    let mut producer = Producer::open(&options).unwrap();
    let _victim = Consumer::open(&options).unwrap();
    poke(&scratch.segment(1), page_of(0) + POISONED, 1);
    (0..200).for_each(|n| send(&mut producer, n));
    assert!(producer.laggard().is_none());
}

/// Whatever the marks say, who comes gets a message, nothing, or a specific error.
#[test]
fn marks_that_make_no_sense() {
    const NEWEST: usize = PRODUCER_PAGE + BOARD_AT as usize + 128;
    const MARKS: usize = PRODUCER_PAGE + BOARD_AT as usize + 768;
    let bad = [1, 8, 16, 4096, 1 << 20, 1 << 63, u64::MAX, u64::MAX - 15];
    for overflow in Overflow::ALL {
        for value in bad {
            for at in [NEWEST, MARKS, MARKS + 8, MARKS + 16, MARKS + 24, MARKS - 768] {
                let scratch = Scratch::new();
                let options = options(&scratch, overflow);
                let mut end = ringway_shm::sending(&options).unwrap();
                let mut send = || match &mut end {
                    ringway_shm::Sending::InPlace(end) => {
                        end.try_claim(100).unwrap().commit().unwrap();
                    }
                    ringway_shm::Sending::Copied(end) => end.claim(100).unwrap().commit().unwrap(),
                    ringway_shm::Sending::Shared(_) => panic!("not a broadcast's"),
                };
                // The first mark is in slot 1.
                (0..60).for_each(|_| send());
                poke(&scratch.segment(1), at, value);
                for read in [Read::Every, Read::Newest] {
                    let Ok(mut reader) = Subscriber::open(&options, read) else { continue };
                    for _ in 0..5 {
                        let _ = reader.try_recv().map(|message| message.len());
                    }
                }
                if let Ok(mut reader) = Consumer::open(&options) {
                    for _ in 0..5 {
                        let _ = reader.try_recv().map(|message| message.len());
                    }
                }
            }
        }
    }
}

/// An intent that was never announced laps a reader for no reason; it ends with a message, or with a
/// specific error, and never without end.
#[test]
fn an_intent_that_makes_no_sense() {
    const INTENT: usize = PRODUCER_PAGE + BOARD_AT as usize;
    for value in [1, 4096, 4097, 1 << 20, 1 << 63, u64::MAX] {
        let scratch = Scratch::new();
        let options = options(&scratch, Overflow::Overwrite);
        let mut publisher = Publisher::open(&options).unwrap();
        let mut reader = Subscriber::open(&options, Read::Every).unwrap();
        (0..10).for_each(|_| publisher.claim(100).unwrap().commit().unwrap());
        poke(&scratch.segment(1), INTENT, value);
        for _ in 0..20 {
            match reader.try_recv().map(|message| message.len()) {
                Ok(len) => assert_eq!(len, 100),
                Err(RecvError::Empty | RecvError::Corrupt(_) | RecvError::Lagged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The roster names subscribers that are not there: they hold the gate until it is known that nobody
/// has their locks.
#[test]
fn a_roster_of_ghosts() {
    const ROSTER: u64 = 16384;
    let scratch = Scratch::new();
    let options = options(&scratch, Overflow::Block);
    let mut producer = Producer::open(&options).unwrap();
    let control = scratch.control();
    for place in 0..64 {
        let record = (ROSTER + 128 + 128 * place) as usize;
        for (at, value) in [(0, 1), (8, 1), (16, 77), (64, 2)] {
            poke(&control, record + at, value);
        }
    }
    poke(&control, ROSTER as usize, 1);
    (0..100).for_each(|n| send(&mut producer, n));
    assert_eq!(producer.stats().evicted, 64);
    // Their places can be taken.
    let mut reader = Consumer::open(&options).unwrap();
    send(&mut producer, 9);
    assert_eq!(*reader.recv_timeout(PATIENCE).unwrap(), [9; 100]);
}

/// What the ring's own records hold is checked as everywhere: a subscriber gives the segment up, and
/// the producer goes on without it.
#[test]
fn records_that_make_no_sense() {
    use crate::scratch::RING;
    let scratch = Scratch::new();
    let options = options(&scratch, Overflow::Block);
    let mut producer = Producer::open(&options).unwrap();
    let mut readers = [(); 2].map(|()| Consumer::open(&options).unwrap());
    send(&mut producer, 1);
    poke(&scratch.segment(1), RING, 0xff << 32);
    let told = readers[0].recv_timeout(PATIENCE).map(drop);
    assert_eq!(told, Err(RecvError::Corrupt(Fault::Kind)));
    // The other one has not looked yet, and is waited for.
    let full = loop {
        match producer.try_claim(100) {
            Ok(claim) => claim.commit().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SendError::Full { peer: Some(_), .. }), "{full}");
    assert_eq!(readers[1].recv_timeout(PATIENCE).map(drop), Err(RecvError::Corrupt(Fault::Kind)));
    (0..100).for_each(|n| send(&mut producer, n));
}

//! An MPMC channel whose memory somebody scribbles on: each word costs an error of its kind, and never a
//! panic or a hang; a slot word that nobody writes costs that slot's message and no more.

#![cfg(not(loom))]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::channel;
use common::scratch::Scratch;
use ringway_shm::{
    ErrorKind, Fault, Kind, MpmcReceiver, MpmcSender, Options, RecvError, SendError, Wait,
};

const SLOTS: usize = 8;
const SLOT: usize = 64;
/// Where the parts of the segment lie.
const QUEUE: usize = 4096;
const SEAT: usize = QUEUE + 640;
const TAKEN: usize = 24576;
const SENT: usize = 28672;
const SLOTS_AT: usize = 32768;

fn options(scratch: &Scratch) -> Options {
    Options {
        directory: Some(scratch.channels()),
        kind: Some(Kind::Mpmc),
        slots: Some(SLOTS as u64),
        slot: Some(SLOT as u32),
        wait: Some(Wait::Adaptive),
        ..Options::new("queue", channel::schema())
    }
}

fn path(scratch: &Scratch) -> PathBuf {
    scratch.channels().join("queue/000001")
}

fn peek(scratch: &Scratch, at: usize) -> u64 {
    let mut word = [0; 8];
    fs::File::open(path(scratch)).unwrap().read_exact_at(&mut word, at as u64).unwrap();
    u64::from_le_bytes(word)
}

fn poke(scratch: &Scratch, at: usize, word: u64) {
    let file = fs::OpenOptions::new().write(true).open(path(scratch)).unwrap();
    file.write_all_at(&word.to_le_bytes(), at as u64).unwrap();
}

fn send(sender: &mut MpmcSender, number: u8) -> Result<(), SendError> {
    let mut claim = sender.try_claim(1)?;
    claim[0] = number;
    claim.commit()
}

#[test]
fn a_slot_word_that_nobody_writes_costs_one_message() {
    for garbage in [15, u64::MAX, 1] {
        for (word, slot) in [(SENT, 8), (TAKEN, 8), (SLOTS_AT, SLOT)] {
            for at in 0..SLOTS {
                let scratch = Scratch::new();
                let mut sender = MpmcSender::open(&options(&scratch)).unwrap();
                let mut receiver = MpmcReceiver::open(&options(&scratch)).unwrap();
                for number in 0..5 {
                    send(&mut sender, number).unwrap();
                }
                poke(&scratch, word + at * slot, garbage);
                let mut got = vec![];
                let mut faults = 0;
                for number in 5..60 {
                    let mut other = sender.try_clone().unwrap();
                    match send(&mut other, number) {
                        Ok(()) | Err(SendError::Full { .. }) => {}
                        Err(error) => assert_eq!(error, SendError::Corrupt(Fault::Slot)),
                    }
                    match receiver.try_recv() {
                        Ok(message) => got.push(message[0]),
                        Err(RecvError::Empty) => {}
                        Err(error) => {
                            assert_eq!(error, RecvError::Corrupt(Fault::Slot));
                            faults += 1;
                        }
                    }
                }
                assert!(faults <= 1, "told {faults} times");
                assert!(got.is_sorted(), "{got:?}");
                // Five at most are in the queue still.
                assert!(got.len() >= 45, "garbage {garbage:x} at {word}, slot {at}: {got:?}");
            }
        }
    }
}

/// Who claims many at once is told as who claims them one way or another.
#[test]
fn a_claim_of_many_tells_of_a_word_that_nobody_writes() {
    let told = |word: usize, garbage: u64, at_once: bool| {
        let scratch = Scratch::new();
        let sender = MpmcSender::open(&options(&scratch)).unwrap();
        let mut receiver = MpmcReceiver::open(&options(&scratch)).unwrap();
        poke(&scratch, word, garbage);
        let mut told = 0;
        for _ in 0..30 {
            let mut other = sender.try_clone().unwrap();
            let mut sent = Ok(false);
            if at_once {
                let claim = other.claim_array_at_once(1, 2);
                sent = claim.map(|claim| claim.map(|claim| claim.commit(2).unwrap()).is_some());
            }
            if sent == Ok(false) {
                let claim = other.try_claim_array(1, 2);
                sent = claim.map(|claim| claim.commit(2).is_ok());
            }
            match sent {
                Ok(_) | Err(SendError::Full { .. }) => {}
                Err(error) => {
                    assert_eq!(error, SendError::Corrupt(Fault::Slot));
                    told += 1;
                }
            }
            while receiver.try_recv().is_ok() {}
        }
        told
    };
    let mut often = 0;
    for garbage in [15, u64::MAX, 1] {
        for word in (0..SLOTS).flat_map(|at| [SENT + at * 8, TAKEN + at * 8]) {
            let times = told(word, garbage, true);
            assert_eq!(times, told(word, garbage, false), "{garbage:x} at {word}");
            often += times;
        }
    }
    assert!(often > 0);
}

/// What a sweep repairs counts, whatever else it comes by.
#[test]
fn a_word_that_nobody_writes_does_not_keep_what_was_repaired_from_being_counted() {
    // Of the third participant, which is not there yet, in the first lap: one message.
    const READING: u64 = 1 << 24 | 1 << 16 | 2 << 4 | 1;
    let scratch = Scratch::new();
    let mut sender = MpmcSender::open(&options(&scratch)).unwrap();
    let receiver = MpmcReceiver::open(&options(&scratch)).unwrap();
    send(&mut sender, 1).unwrap();
    poke(&scratch, TAKEN, READING);
    poke(&scratch, SENT + 7 * 8, 15);
    let mut other = MpmcReceiver::open(&options(&scratch)).unwrap();
    assert_eq!(receiver.stats().returned, 1);
    let message = other.try_recv().unwrap();
    assert_eq!((message[0], message.redelivered()), (1, true));
}

/// A length that no slot has room for, wherever in a batch.
#[test]
fn a_message_that_claims_to_be_too_long_is_not_shown() {
    const LEN_SHIFT: u32 = 4;
    for damaged in 0..3 {
        let scratch = Scratch::new();
        let mut sender = MpmcSender::open(&options(&scratch)).unwrap();
        let mut receiver = MpmcReceiver::open(&options(&scratch)).unwrap();
        for number in 0..3 {
            send(&mut sender, number).unwrap();
        }
        let flag = peek(&scratch, SLOTS_AT + damaged * SLOT);
        poke(&scratch, SLOTS_AT + damaged * SLOT, flag | 0x40 << LEN_SHIFT);
        let mut batch = receiver.try_recv_batch(3).unwrap();
        for number in 0..3 {
            match batch.next() {
                Ok(message) => assert_eq!(message.unwrap().payload, [number]),
                Err(error) => {
                    assert_eq!((error, number), (RecvError::Corrupt(Fault::Slot), damaged as u8))
                }
            }
        }
        assert!(batch.next().unwrap().is_none());
        drop(batch);
        send(&mut sender, 3).unwrap();
        assert_eq!(receiver.try_recv().unwrap()[0], 3);
    }
}

/// Every word that anybody writes, overwritten by values of every kind: whatever it leads to, it ends.
#[test]
fn any_word_may_change() {
    let values: [fn(u64) -> u64; 8] = [
        |_| 0,
        |_| u64::MAX,
        |old| old ^ 1,
        |old| old ^ 1 << 24,
        |old| old ^ 1 << 63,
        |old| old.wrapping_add(1 << 24 | 0x10),
        |_| 7 << 24 | 255 << 16 | 0xff0 | 1,
        |_| 2 << 24 | 0xf_ffff << 4 | 2,
    ];
    let words = (0..80)
        .map(|word| QUEUE + word * 8)
        .chain((0..32).map(|word| SEAT + word * 8))
        .chain((0..SLOTS).map(|slot| TAKEN + slot * 8))
        .chain((0..SLOTS).map(|slot| SENT + slot * 8))
        .chain((0..SLOTS).map(|slot| SLOTS_AT + slot * SLOT));
    for at in words {
        for value in values {
            let scratch = Scratch::new();
            let mut sender = MpmcSender::open(&options(&scratch)).unwrap();
            let mut receiver = MpmcReceiver::open(&options(&scratch)).unwrap();
            for number in 0..11 {
                send(&mut sender, number).unwrap();
                if number > 5 {
                    receiver.try_recv().unwrap();
                }
            }
            let held = receiver.try_recv().unwrap();
            poke(&scratch, at, value(peek(&scratch, at)));
            drop(held);
            let mut other = MpmcReceiver::open(&options(&scratch)).unwrap();
            for number in 0..20 {
                match send(&mut sender, number) {
                    Ok(()) | Err(SendError::Full { .. } | SendError::Corrupt(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                for receiver in [&mut receiver, &mut other] {
                    match receiver.try_recv() {
                        Ok(message) => assert!(message.len() <= SLOT - 8),
                        Err(RecvError::Empty | RecvError::Corrupt(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    if let Ok(mut batch) = receiver.try_recv_batch(3) {
                        let _ = batch.next();
                    }
                }
                if sender.reserve(3).is_ok() {
                    let _ = sender.flush();
                }
            }
            let _ = (sender.held_up(), receiver.held_up(), sender.stats(), sender.peer());
        }
    }
}

#[test]
fn a_damaged_segment_is_refused() {
    let scratch = Scratch::new();
    let keeper = MpmcSender::open(&options(&scratch)).unwrap();
    let whole = fs::read(path(&scratch)).unwrap();
    // Magic, kind, capacity, slot, sections, crc.
    for at in [0, 20, 32, 112, 120, 224, 228, 252] {
        let mut bytes = whole[at..at + 1].to_vec();
        bytes[0] ^= 0x40;
        let file = fs::OpenOptions::new().write(true).open(path(&scratch)).unwrap();
        file.write_all_at(&bytes, at as u64).unwrap();
        let error = MpmcReceiver::open(&options(&scratch)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}: {error}");
        file.write_all_at(&whole[at..at + 1], at as u64).unwrap();
    }
    MpmcReceiver::open(&options(&scratch)).unwrap();
    drop(keeper);
}

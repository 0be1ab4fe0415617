//! Memory that changes under a live pair, rings that are full, segments that are no good when their
//! turn comes.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use ringway_shm::layout::{BELL_BARRIER, RecordHeader};
use ringway_shm::{Consumer, ErrorKind, Fault, Producer, RecvError, SendError};

use crate::scratch::{
    CAPACITY, CONSUMER_PAGE, CONSUMER_ROLE, PRODUCER_PAGE, PRODUCER_ROLE, RING, SEGMENT_LEN,
    Scratch, assert_error, poke, send, with_header,
};

#[test]
fn one_byte_too_large() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    let max = producer.max_len();
    assert_eq!(max, CAPACITY / 2 - 8);
    let too_large = |len| SendError::TooLarge { len, max };
    assert_eq!(producer.try_claim(max + 1).unwrap_err(), too_large(max + 1));
    assert_eq!(producer.claim(max + 1).unwrap_err(), too_large(max + 1));
    assert_eq!(producer.try_claim(usize::MAX).unwrap_err(), too_large(usize::MAX));
    let array = |producer: &mut Producer, len, count| {
        producer.claim_array(len, count).map(drop).unwrap_err()
    };
    // An array says in eight bytes more of what it consists.
    let too_many = |len| SendError::TooLarge { len, max: max - 8 };
    assert_eq!(array(&mut producer, 1, max - 7), too_many(max - 7));
    assert_eq!(array(&mut producer, usize::MAX, 2), too_many(usize::MAX));
    let text = producer.try_claim(max + 1).unwrap_err().to_string();
    assert!(text.contains("2040") && text.contains("larger `capacity`"), "{text}");
    send(&mut producer, &vec![7; max]);
    assert_eq!(scratch.consumer().try_recv().unwrap().len(), max);
}

#[test]
fn full() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    for fill in 0..3 {
        send(&mut producer, &[fill; 1000]);
    }
    let error = producer.try_claim(1000).unwrap_err();
    assert_eq!(error, SendError::Full { peer: None, lag: None });
    assert!(error.to_string().contains("no consumer is attached"), "{error}");
    let error = producer.claim_timeout(1000, Duration::from_millis(1)).unwrap_err();
    assert_eq!(error, SendError::Timeout { peer: None, lag: None });

    let mut consumer = scratch.consumer();
    let error = producer.try_claim(1000).unwrap_err();
    assert!(
        matches!(error, SendError::Full { peer: Some(peer), .. } if peer.pid == std::process::id())
    );
    let text = format!("process {} has not made room", std::process::id());
    assert!(error.to_string().contains(&text), "{error}");
    // Nothing was lost on the way, and room comes from receiving only.
    for fill in 0..3 {
        assert_eq!(*consumer.try_recv().unwrap(), [fill; 1000]);
    }
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    send(&mut producer, &[3; 1000]);
}

/// What a word is overwritten with, by what it was.
const VALUES: [fn(u64) -> u64; 9] = [
    |_| 0,
    |_| u64::MAX,
    |old| old ^ 1,
    |_| 1,
    |_| u64::MAX - 15,
    |old| old ^ 1 << 32,
    |_| 1 << 63,
    |_| RecordHeader::new(2000, 1, 0).0,
    |old| old.wrapping_add(64),
];

/// Calls `round` for every word that anybody writes, in file order, and for all of [`VALUES`], or, in
/// the ring, where most words are much alike, for three of them in turn.
fn for_each_change(scratch: &Scratch, mut round: impl FnMut(&Change)) {
    let (segment, control) = (scratch.segment(1), scratch.control());
    let parts = [
        (&segment, PRODUCER_PAGE..PRODUCER_PAGE + 384),
        (&segment, RING..RING + CAPACITY),
        (&segment, CONSUMER_PAGE..CONSUMER_PAGE + 512),
        (&control, PRODUCER_ROLE..PRODUCER_ROLE + 256),
        (&control, CONSUMER_ROLE..CONSUMER_ROLE + 256),
    ];
    for (path, part) in parts {
        let is_ring = part.len() == CAPACITY;
        for at in part.step_by(8) {
            for (index, value) in VALUES.into_iter().enumerate() {
                if !is_ring || index / 3 == at / 8 % 3 {
                    round(&Change { path, at, index, value });
                    let _ = fs::remove_dir_all(scratch.channel());
                }
            }
        }
    }
}

/// A word to overwrite.
struct Change<'a> {
    path: &'a PathBuf,
    at: usize,
    index: usize,
    value: fn(u64) -> u64,
}

impl Change<'_> {
    fn make(&self) {
        let bytes = fs::read(self.path).unwrap();
        let old = u64::from_le_bytes(bytes[self.at..self.at + 8].try_into().unwrap());
        poke(self.path, self.at, &(self.value)(old).to_le_bytes());
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}, value {}", self.path.display(), self.at, self.index)
    }
}

/// A pair whose ring has some of everything in it: padding, single messages, an array. Also, where
/// the consumer has the ring mapped.
fn busy_pair(scratch: &Scratch) -> (Producer, Consumer, Range<usize>) {
    let (mut producer, mut consumer) = (scratch.producer(), scratch.consumer());
    send(&mut producer, &[1; 1500]);
    let start = consumer.try_recv().unwrap().as_ptr() as usize - 8;
    send(&mut producer, &[1; 1500]);
    consumer.try_recv().unwrap();
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    // Wraps, from 3072.
    send(&mut producer, &[2; 1200]);
    let mut array = producer.try_claim_array(24, 10).unwrap();
    array.bytes().fill(3);
    array.queue(10).unwrap();
    for len in [0, 1, 100, 100, 100] {
        send(&mut producer, &vec![4; len]);
    }
    (producer, consumer, start..start + CAPACITY)
}

/// Takes what there is, as often as a ring could hold, and checks where it lies.
fn take_all(consumer: &mut Consumer, ring: Option<&Range<usize>>, change: &Change) {
    for _ in 0..300 {
        match consumer.try_recv() {
            Ok(message) => {
                let bytes = message.as_ptr_range();
                let (start, end) = (bytes.start as usize, bytes.end as usize);
                if let Some(ring) = ring {
                    assert!(ring.contains(&start) && end <= ring.end, "{change}: outside");
                }
                std::hint::black_box(message.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            }
            Err(RecvError::Empty) => break,
            Err(_) => return,
        }
    }
    let _ = consumer.recv_timeout(Duration::from_micros(100)).map(|message| message.len());
}

/// Sends until it can't.
fn fill(producer: &mut Producer) {
    for _ in 0..300 {
        match producer.try_claim(40) {
            Ok(mut claim) => {
                claim.fill(5);
                claim.commit().unwrap();
            }
            Err(_) => break,
        }
    }
    let _ = producer.claim_timeout(40, Duration::from_micros(100)).map(drop);
}

/// A new producer's message arrives at a consumer that has seen nonsense before.
fn assert_works_again(scratch: &Scratch, mut consumer: Consumer, what: &dyn fmt::Display) {
    let mut producer = match Producer::open(&scratch.options()) {
        Ok(producer) => producer,
        Err(error) => {
            // Only a damaged count of producers can't be lived with.
            assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
            assert!(error.to_string().contains("rm -r"), "{what}: {error}");
            assert!(what.to_string().contains("/control at"), "{what}: {error}");
            return;
        }
    };
    send(&mut producer, b"works again");
    for _ in 0..1000 {
        if consumer.try_recv().is_ok_and(|message| *message == *b"works again") {
            return;
        }
    }
    panic!("{what}: a new producer's message does not arrive");
}

#[test]
fn every_word_changed_under_a_live_pair() {
    let scratch = Scratch::new();
    for_each_change(&scratch, |change| {
        let (mut producer, mut consumer, ring) = busy_pair(&scratch);
        change.make();
        for _ in 0..2 {
            fill(&mut producer);
            take_all(&mut consumer, Some(&ring), change);
        }
        drop(producer);
        assert_works_again(&scratch, consumer, change);
    });
}

/// As above, but another consumer comes after the change.
#[test]
fn every_word_changed_before_a_consumer_comes() {
    let scratch = Scratch::new();
    for_each_change(&scratch, |change| {
        let (mut producer, consumer, _) = busy_pair(&scratch);
        drop(consumer);
        change.make();
        let mut consumer = Consumer::open(&scratch.options()).unwrap_or_else(|error| {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{change}: {error}");
            let text = error.to_string();
            assert!(text.contains("its contents make no sense"), "{change}: {text}");
            assert!(text.contains("open the channel again"), "{change}: {text}");
            Consumer::open(&scratch.options()).unwrap_or_else(|error| panic!("{change}: {error}"))
        });
        take_all(&mut consumer, None, change);
        fill(&mut producer);
        take_all(&mut consumer, None, change);
        drop(producer);
        assert_works_again(&scratch, consumer, change);
    });
}

/// Records as long as the last one are believed by one look; the end of the ring is no exception.
#[test]
fn a_record_that_would_run_past_the_end() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = (scratch.producer(), scratch.consumer());
    // 64 bytes of record, then 31 times 128: the next one starts 64 bytes before the end.
    send(&mut producer, b"");
    consumer.try_recv().unwrap();
    for _ in 0..31 {
        send(&mut producer, &[1; 112]);
        consumer.try_recv().unwrap();
    }
    let header = RecordHeader::new(112, 1, 32).0.to_le_bytes();
    poke(&scratch.segment(1), RING + CAPACITY - 64, &header);
    assert_eq!(
        consumer.try_recv().map(|message| message.len()).unwrap_err(),
        RecvError::Corrupt(Fault::Length)
    );
}

/// Behind an array no record is expected, least of all one of no kind.
#[test]
fn a_record_of_no_kind_behind_an_array() {
    let scratch = Scratch::new();
    let (mut producer, mut consumer) = (scratch.producer(), scratch.consumer());
    let mut array = producer.try_claim_array(8, 2).unwrap();
    array.bytes().fill(1);
    array.queue(2).unwrap();
    producer.flush().unwrap();
    for _ in 0..2 {
        assert_eq!(*consumer.try_recv().unwrap(), [1; 8]);
    }
    poke(&scratch.segment(1), RING + 64, &RecordHeader::new(0, 0, 1).0.to_le_bytes());
    assert_eq!(
        consumer.try_recv().map(|message| message.len()).unwrap_err(),
        RecvError::Corrupt(Fault::Kind)
    );
}

/// The same with a consumer that starts in the middle of a record.
#[test]
fn a_position_off_the_record_alignment() {
    let scratch = Scratch::new();
    let producer = scratch.producer();
    // Each record of 48 bytes, 16 bytes off; the last would run 16 bytes past the end.
    for (sequence, offset) in (16..CAPACITY).step_by(64).enumerate() {
        let header = RecordHeader::new(48, 1, sequence as u64).0.to_le_bytes();
        poke(&scratch.segment(1), RING + offset, &header);
    }
    // The head.
    poke(&scratch.segment(1), CONSUMER_PAGE, &16_u64.to_le_bytes());
    assert_error(
        Consumer::open(&scratch.options()),
        ErrorKind::Damaged,
        &["a consumer's position off every record boundary", "open the channel again"],
    );
    drop(producer);
}

/// The producer's counter is also the header of its next message: the consumer sees what is wrong.
#[test]
fn a_count_of_messages_sent_that_somebody_scribbles_over() {
    for (value, fault) in [
        (RecordHeader::upcoming(2).0, Fault::Sequence),
        (RecordHeader::upcoming(u64::MAX).0, Fault::Sequence),
        (2, Fault::Kind),
        (u64::MAX, Fault::Kind),
    ] {
        let scratch = Scratch::new();
        let mut producer = scratch.producer();
        let mut consumer = scratch.consumer();
        send(&mut producer, b"one");
        assert_eq!(*consumer.try_recv().unwrap(), *b"one");
        poke(&scratch.segment(1), PRODUCER_PAGE + 256, &value.to_le_bytes());
        send(&mut producer, b"two");
        let error = consumer.try_recv().map(|message| message.len()).unwrap_err();
        assert_eq!(error, RecvError::Corrupt(fault));
    }
}

/// The consumer has its own, and the next message puts the counter right.
#[test]
fn a_count_of_messages_received_that_somebody_scribbles_over() {
    for value in [2_u64, u64::MAX] {
        let scratch = Scratch::new();
        let mut producer = scratch.producer();
        let mut consumer = scratch.consumer();
        send(&mut producer, b"one");
        assert_eq!(*consumer.try_recv().unwrap(), *b"one");
        poke(&scratch.segment(1), CONSUMER_PAGE + 256, &value.to_le_bytes());
        for message in [&b"two"[..], b"three"] {
            send(&mut producer, message);
            assert_eq!(*consumer.try_recv().unwrap(), *message);
        }
        drop(consumer);
        send(&mut producer, b"four");
        assert_eq!(*scratch.consumer().try_recv().unwrap(), *b"four");
    }
}

/// At the very end of what can be counted, nothing overflows.
#[test]
fn counters_at_their_limits() {
    for (position, received) in [(u64::MAX - 63, 0), (u64::MAX - 63, u64::MAX), (0, u64::MAX)] {
        let scratch = Scratch::new();
        let producer = scratch.producer();
        let segment = scratch.segment(1);
        // At the last record of the last lap there is a message with the last sequence.
        let at = RING + (position as usize & (CAPACITY - 1));
        poke(&segment, at, &RecordHeader::new(8, 1, received).0.to_le_bytes());
        // The head, the count, and that a consumer is there.
        poke(&segment, CONSUMER_PAGE, &position.to_le_bytes());
        poke(&segment, CONSUMER_PAGE + 256, &received.to_le_bytes());
        poke(&segment, CONSUMER_PAGE + 272, &1_u64.to_le_bytes());
        // The consumer's bell, which counts up for ever.
        poke(&segment, CONSUMER_PAGE + 128, &[u8::MAX; 12]);
        assert_error(Consumer::open(&scratch.options()), ErrorKind::Damaged, &["make no sense"]);
        let consumer = scratch.consumer();
        drop(producer);
        assert_works_again(&scratch, consumer, &"after a segment at its limits");
    }
}

/// A consumer died in its sleep, and the count of sleeps is about to wrap; its successor takes the flag down, and
/// sleeps and wakes as others do.
#[test]
fn a_flag_about_to_wrap() {
    let scratch = Scratch::new();
    let mut producer = scratch.producer();
    let bell = || {
        let page = fs::read(scratch.segment(1)).unwrap();
        page[CONSUMER_PAGE + 128..][..4].try_into().map(u32::from_le_bytes).unwrap()
    };
    poke(&scratch.segment(1), CONSUMER_PAGE + 128, &[u8::MAX; 12]);
    let mut consumer = scratch.consumer();
    assert_eq!(bell() & !BELL_BARRIER, 0);
    let timeout = Duration::from_millis(1);
    assert_eq!(consumer.recv_timeout(timeout).unwrap_err(), RecvError::Timeout);
    assert_eq!(bell() & !BELL_BARRIER, 0);
    send(&mut producer, b"x");
    assert_eq!(*consumer.try_recv().unwrap(), *b"x");
}

#[test]
fn a_damaged_next_segment_is_passed_over() {
    type Damage = fn(&PathBuf);
    let damages: [(Damage, ErrorKind); 4] = [
        (|path| poke(path, 40, &[0xff]), ErrorKind::Damaged),
        (|path| fs::write(path, "").unwrap(), ErrorKind::Damaged),
        (
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            ErrorKind::Damaged,
        ),
        (
            |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, with_header(&bytes, |header| header.abi_major += 1)).unwrap();
            },
            ErrorKind::AbiMismatch,
        ),
    ];
    for (damage, kind) in damages {
        let scratch = Scratch::new();
        let mut consumer = scratch.consumer();
        for text in ["one", "two", "three"] {
            send(&mut scratch.producer(), text.as_bytes());
        }
        assert_eq!(*consumer.try_recv().unwrap(), *b"one");
        assert_eq!(fs::metadata(scratch.segment(2)).unwrap().len(), SEGMENT_LEN as u64);
        damage(&scratch.segment(2));
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Disconnected);
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Open(kind));
        assert_eq!(*consumer.try_recv().unwrap(), *b"three");
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Disconnected);
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);

        // With nothing behind it, too, it is told once.
        send(&mut scratch.producer(), b"four");
        damage(&scratch.segment(4));
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Open(kind));
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
        send(&mut scratch.producer(), b"five");
        assert_eq!(*consumer.try_recv().unwrap(), *b"five");
    }
}

/// The contents of a segment may be what is damaged, too.
#[test]
fn a_next_segment_with_a_consumer_that_never_was() {
    let scratch = Scratch::new();
    let mut consumer = scratch.consumer();
    send(&mut scratch.producer(), b"one");
    send(&mut scratch.producer(), b"two");
    assert_eq!(*consumer.try_recv().unwrap(), *b"one");
    poke(&scratch.segment(2), CONSUMER_PAGE, &5_u64.to_le_bytes());
    send(&mut scratch.producer(), b"three");
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Disconnected);
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Open(ErrorKind::Damaged));
    assert_eq!(*consumer.try_recv().unwrap(), *b"three");
}

/// Whatever was damaged, a removal starts afresh.
#[test]
fn removal_of_a_damaged_channel() {
    let scratch = Scratch::new();
    send(&mut scratch.producer(), b"x");
    poke(&scratch.segment(1), 0, b"damaged");
    assert!(ringway_shm::remove(&scratch.options()).unwrap());
    assert!(scratch.is_empty());
    assert!(!ringway_shm::remove(&scratch.options()).unwrap());
}

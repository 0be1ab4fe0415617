//! One producer and several subscribers of one channel, in one process: who gets what, from when on,
//! and what is told of those who are behind.
//!
//! Deaths are in `broadcast_kill`, the API above in the contract of `transport`.

#![cfg(not(loom))]

mod common;

use std::time::{Duration, Instant};

use common::scratch::Scratch;
use common::{PATIENCE, body, channel};
use ringway_shm::{
    Consumer, ErrorKind, Kind, Options, Overflow, Producer, Publisher, Read, RecvError, SendError,
    Subscriber, Wait,
};

fn options(scratch: &Scratch) -> Options {
    channel::broadcast(scratch, "news", Wait::Adaptive, Overflow::Block)
}

fn send(producer: &mut Producer, index: u64) {
    let mut claim = producer.claim_timeout(body::length(index, 100), PATIENCE).unwrap();
    body::fill(&mut claim, 1, index);
    claim.commit().unwrap();
}

fn take(consumer: &mut Consumer, index: u64) {
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!(body::read(&message).unwrap(), (1, index));
    assert_eq!(message.sequence(), index);
    assert!(!message.redelivered());
}

#[test]
fn every_subscriber_gets_every_message() {
    const COUNT: u64 = 5000;
    for wait in Wait::ALL {
        let scratch = Scratch::new();
        let options = channel::broadcast(&scratch, "news", wait, Overflow::Block);
        let consumers: Vec<Consumer> = (0..3).map(|_| Consumer::open(&options).unwrap()).collect();
        let mut producer = Producer::open(&options).unwrap();
        std::thread::scope(|scope| {
            for mut consumer in consumers {
                scope.spawn(move || {
                    for index in 0..COUNT {
                        take(&mut consumer, index);
                    }
                    let end = consumer.recv_timeout(PATIENCE).map(drop);
                    assert_eq!(end, Err(RecvError::Disconnected));
                });
            }
            for index in 0..COUNT {
                send(&mut producer, index);
            }
            drop(producer);
        });
        scratch.assert_no_channels();
    }
}

#[test]
fn who_comes_late_gets_what_is_sent_from_then_on() {
    let scratch = Scratch::new();
    let options = options(&scratch);
    let mut producer = Producer::open(&options).unwrap();
    // Goes round the ring with nobody there.
    (0..200).for_each(|index| send(&mut producer, index));
    let mut first = Consumer::open(&options).unwrap();
    assert_eq!(first.try_recv().map(drop), Err(RecvError::Empty));
    (200..220).for_each(|index| send(&mut producer, index));
    let mut second = Consumer::open(&options).unwrap();
    assert_eq!(second.try_recv().map(drop), Err(RecvError::Empty));
    (220..230).for_each(|index| send(&mut producer, index));
    (200..230).for_each(|index| take(&mut first, index));
    (220..230).for_each(|index| take(&mut second, index));
    drop(first);
    // The place is used again, by somebody else.
    let mut third = Consumer::open(&options).unwrap();
    send(&mut producer, 230);
    take(&mut third, 230);
    take(&mut second, 230);
    drop((third, second, producer));
    scratch.assert_no_channels();
}

#[test]
fn history_is_for_those_who_come_late() {
    const KEPT: u64 = 10;
    let scratch = Scratch::new();
    let options = Options { history: Some(KEPT), ..options(&scratch) };
    let mut producer = Producer::open(&options).unwrap();
    send(&mut producer, 0);
    let mut early = Consumer::open(&options).unwrap();
    take(&mut early, 0);
    for index in 1..500 {
        send(&mut producer, index);
        take(&mut early, index);
        if index % 7 == 0 {
            let mut late = Consumer::open(&options).unwrap();
            for index in (index + 1).saturating_sub(KEPT)..=index {
                take(&mut late, index);
            }
            assert_eq!(late.try_recv().map(drop), Err(RecvError::Empty));
        }
    }
    // Inside of a record of several.
    for _ in 0..3 {
        let mut claim = producer.try_claim_array(8, 25).unwrap();
        claim.bytes().fill(7);
        claim.queue(25).unwrap();
        producer.flush().unwrap();
        let mut late = Consumer::open(&options).unwrap();
        let mut count = 0;
        while let Ok(message) = late.try_recv() {
            assert_eq!(*message, [7; 8]);
            count += 1;
        }
        assert_eq!(count, KEPT);
        while early.try_recv().is_ok() {}
    }
    // Large messages push history out; they never wait for it.
    let large = producer.max_len();
    for _ in 0..10 {
        producer.try_claim(large).unwrap().commit().unwrap();
        assert_eq!(early.try_recv().unwrap().len(), large);
        let mut late = Consumer::open(&options).unwrap();
        let mut lens = Vec::new();
        while let Ok(message) = late.try_recv() {
            lens.push(message.len());
        }
        assert_eq!(lens.last(), Some(&large), "{lens:?}");
    }
}

/// Nobody else could end that wait.
#[test]
fn a_sender_does_not_wait_for_history() {
    let scratch = Scratch::new();
    // As much as the ring holds of the least: more than it holds of those below.
    let options = Options { history: Some(100), ..options(&scratch) };
    let mut producer = Producer::open(&options).unwrap();
    // A batch that fills the ring, with nobody there.
    for _ in 0..100 {
        let Ok(claim) = producer.claim_timeout(100, PATIENCE) else { panic!("waited for history") };
        claim.queue().unwrap();
    }
    producer.flush().unwrap();
    // What a reader takes while the sender waits for it is history then, and in the way still: a large
    // message wants more of it gone than the small ones before it did.
    let mut consumer = Consumer::open(&options).unwrap();
    while consumer.try_recv().is_ok() {}
    while let Ok(claim) = producer.try_claim(100) {
        claim.commit().unwrap();
    }
    let waits = consumer.stats().full_waits;
    let large = producer.max_len();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while consumer.stats().full_waits == waits {
                std::thread::yield_now();
            }
            while consumer.try_recv().is_ok() {}
        });
        let Ok(claim) = producer.claim_timeout(large, PATIENCE) else {
            panic!("waited for history")
        };
        claim.commit().unwrap();
    });
}

#[test]
fn copies_are_given_back_once_and_arrays_fit_that_were_granted() {
    let scratch = Scratch::new();
    let options = channel::broadcast(&scratch, "news", Wait::Adaptive, Overflow::Overwrite);
    let mut subscriber = Subscriber::open(&options, Read::Every).unwrap();
    let mut publisher = Publisher::open(&options).unwrap();
    // Nothing was shown yet.
    subscriber.give_back();
    for index in 0..3_u64 {
        let mut claim = publisher.claim(8).unwrap();
        claim.copy_from_slice(&index.to_le_bytes());
        claim.commit().unwrap();
    }
    for index in 0..3_u64 {
        let message = subscriber.try_recv().unwrap();
        assert_eq!(*message, index.to_le_bytes());
        std::mem::forget(message);
        subscriber.give_back();
        subscriber.give_back();
    }
    assert_eq!(subscriber.try_recv().map(drop), Err(RecvError::Empty));
    let Err(SendError::TooLarge { len, max }) = publisher.claim_array(1, 2048).map(drop) else {
        panic!("granted too much")
    };
    assert_eq!(len, 2048);
    publisher.claim_array(1, max + 1).map(drop).unwrap_err();
    publisher.claim_array(1, max).unwrap().queue(max).unwrap();
    publisher.flush().unwrap();
    assert_eq!(subscriber.try_recv_batch(max).unwrap().next().unwrap().unwrap().payload.len(), 1);
}

#[test]
fn what_others_missed_before_is_not_a_newcomers() {
    let scratch = Scratch::new();
    let options = channel::broadcast(&scratch, "news", Wait::Adaptive, Overflow::Overwrite);
    let mut publisher = Publisher::open(&options).unwrap();
    let mut early = Subscriber::open(&options, Read::Every).unwrap();
    for _ in 0..1000 {
        publisher.claim(8).unwrap().commit().unwrap();
    }
    let Err(RecvError::Lagged { missed }) = early.try_recv().map(drop) else {
        panic!("nothing was missed")
    };
    assert_eq!(early.stats().missed, missed);
    drop(early);
    let late = Subscriber::open(&options, Read::Every).unwrap();
    assert_eq!(late.stats().missed, 0);
}

#[test]
fn the_newest_is_the_newest_after_a_batch_that_was_not_read() {
    let scratch = Scratch::new();
    let options = channel::broadcast(&scratch, "news", Wait::Adaptive, Overflow::Overwrite);
    let mut publisher = Publisher::open(&options).unwrap();
    let mut subscriber = Subscriber::open(&options, Read::Newest).unwrap();
    let mut send = |index: u64| {
        let mut claim = publisher.claim(8).unwrap();
        claim.copy_from_slice(&index.to_le_bytes());
        claim.commit().unwrap();
    };
    send(1);
    drop(subscriber.try_recv_batch(1).unwrap());
    // What was not read, and nothing newer came: the same.
    std::mem::forget(subscriber.try_recv().unwrap());
    send(2);
    send(3);
    assert_eq!(*subscriber.try_recv().unwrap(), 3_u64.to_le_bytes());
    assert_eq!(subscriber.try_recv().map(drop), Err(RecvError::Empty));
}

#[test]
fn the_slow_one_is_named() {
    let scratch = Scratch::new();
    let options = options(&scratch);
    let mut quick = Consumer::open(&options).unwrap();
    let mut slow = Consumer::open(&options).unwrap();
    let mut producer = Producer::open(&options).unwrap();
    let mut sent = 0;
    let start = Instant::now();
    let error = loop {
        match producer.try_claim(100) {
            Ok(claim) => claim.commit().unwrap(),
            Err(error) => break error,
        }
        sent += 1;
        assert_eq!(quick.recv_timeout(PATIENCE).unwrap().len(), 100);
    };
    assert!(matches!(error, SendError::Full { peer: Some(_), .. }), "{error}");
    let laggard = producer.laggard().unwrap();
    assert_eq!((laggard.peer.pid, laggard.lag.messages), (std::process::id(), sent));
    let wait = Duration::from_millis(20);
    let error = producer.claim_timeout(100, wait).map(drop).unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error}");
    let laggard = producer.laggard().unwrap();
    assert!(laggard.lag.since >= wait && laggard.lag.since <= start.elapsed(), "{laggard:?}");
    assert!(error.to_string().contains(&format!("{sent} messages behind")), "{error}");
    assert_eq!(producer.stats().received, 0);
    for _ in 0..sent {
        assert_eq!(slow.recv().unwrap().len(), 100);
    }
    // Finding it empty tells the producer.
    assert_eq!(slow.try_recv().map(drop), Err(RecvError::Empty));
    producer.try_claim(100).unwrap().commit().unwrap();
    assert_eq!(producer.stats().received, sent);
}

/// Who leaves without having read anything is not waited for.
#[test]
fn who_leaves_makes_room() {
    let scratch = Scratch::new();
    let options = options(&scratch);
    let leaves = Consumer::open(&options).unwrap();
    let mut producer = Producer::open(&options).unwrap();
    while producer.try_claim(100).map(|claim| claim.commit().unwrap()).is_ok() {}
    let waiting = std::thread::spawn(move || {
        producer.claim_timeout(100, PATIENCE).unwrap().commit().unwrap();
    });
    std::thread::sleep(Duration::from_millis(10));
    drop(leaves);
    waiting.join().unwrap();
    scratch.assert_no_channels();
}

/// Readers stay, producers come and go: each is told the end of each, once, after its last message.
#[test]
fn producers_follow_each_other() {
    let scratch = Scratch::new();
    let options = options(&scratch);
    let mut stays = Consumer::open(&options).unwrap();
    for round in 0..6 {
        let mut lazy = Consumer::open(&options).unwrap();
        let mut producer = Producer::open(&options).unwrap();
        (0..5).for_each(|index| send(&mut producer, index));
        drop(producer);
        (0..5).for_each(|index| take(&mut stays, index));
        assert_eq!(stays.recv_timeout(PATIENCE).map(drop), Err(RecvError::Disconnected));
        if round % 2 == 0 {
            (0..5).for_each(|index| take(&mut lazy, index));
        }
    }
    drop(stays);
    scratch.assert_no_channels();
}

/// A living subscriber that never reads keeps old segments, and a new producer is told who it is.
#[test]
fn who_never_reads_is_named_to_the_next_producer() {
    let scratch = Scratch::new();
    let options = options(&scratch);
    let _never = Consumer::open(&options).unwrap();
    for _ in 0..5 {
        send(&mut Producer::open(&options).unwrap(), 0);
    }
    let error = Producer::open(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undrained);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn more_subscribers_than_places() {
    let scratch = Scratch::new();
    let options = options(&scratch);
    let consumers: Vec<Consumer> = (0..64).map(|_| Consumer::open(&options).unwrap()).collect();
    let error = Consumer::open(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken);
    let text = error.to_string();
    for piece in ["all 64 places are taken", &format!("process {}", std::process::id()), "56 more"]
    {
        assert!(text.contains(piece), "{text}");
    }
    let mut producer = Producer::open(&options).unwrap();
    send(&mut producer, 0);
    let mut consumers = consumers.into_iter();
    take(&mut consumers.next().unwrap(), 0);
    let mut again = Consumer::open(&options).unwrap();
    send(&mut producer, 1);
    take(&mut again, 1);
    for mut consumer in consumers {
        (0..2).for_each(|index| take(&mut consumer, index));
    }
}

#[test]
fn options_must_agree() {
    let scratch = Scratch::new();
    let spsc = channel::options(&scratch, "news", Wait::Adaptive);
    let broadcast = options(&scratch);
    let producer = Producer::open(&broadcast).unwrap();
    for (other, pieces) in [
        (
            Options { kind: Some(Kind::Spsc), ..spsc.clone() },
            ["kind=broadcast&overflow=block&history=0", "kind=spsc"],
        ),
        (
            Options { history: Some(3), ..broadcast.clone() },
            ["overflow=block&history=0", "kind=broadcast&overflow=block&history=3"],
        ),
        (
            Options { overflow: Some(Overflow::Overwrite), ..broadcast.clone() },
            ["overflow=block&history=0", "overflow=overwrite"],
        ),
    ] {
        let error = Consumer::open(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OptionMismatch);
        let text = error.to_string();
        assert!(pieces.iter().all(|piece| text.contains(piece)), "{text}");
    }
    // What is left open is as the channel is.
    drop(Consumer::open(&spsc).unwrap());
    drop(producer);
    let producer = Producer::open(&spsc).unwrap();
    let error = Consumer::open(&broadcast).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OptionMismatch);
    assert!(error.to_string().contains("kind=broadcast"), "{error}");
    drop(producer);
    for (bad, pieces) in [
        (
            Options { history: Some(129), ..broadcast.clone() },
            ["at most 128", "`history=128` or less, or a larger `capacity`, from 8KiB on"],
        ),
        (Options { history: Some(1), ..spsc.clone() }, ["`history`", "Add `kind=broadcast`"]),
        (
            Options { overflow: Some(Overflow::Block), kind: Some(Kind::Spsc), ..spsc.clone() },
            ["`overflow`", "`kind=spsc`"],
        ),
    ] {
        let error = Producer::open(&bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOption);
        let text = error.to_string();
        assert!(pieces.iter().all(|piece| text.contains(piece)), "{text}");
    }
    scratch.assert_no_channels();
}

//! Who may open a channel, who is refused and what they are told, and how an orderly end is told.

#![cfg(not(loom))]

mod common;

use std::path::Path;
use std::time::Duration;

use common::actor::{self, PLAIN, start_producer};
use common::peer::{self, PeerProcess, hear, say};
use common::scratch::Scratch;
use common::side::Side;
use common::survivor::{Event, Survivor, receive};
use common::{PATIENCE, body, channel, wait_until};
use ringway_shm::{
    Consumer, Error, ErrorKind, Kind, Options, Overflow, Peer, Producer, Read, Receiving,
    RecvError, Schema, SendError, Wait, receiving, sending,
};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    match words[0].as_str() {
        actor::PRODUCER => actor::produce(&words[1..]),
        CONSUMER => hold_consumer(&words[1..]),
        RACER => race(&words[1..]),
        role => panic!("no role {role:?}"),
    }
}

// ------------------------------------------------------------------------------ one of each kind

#[test]
fn a_second_producer_is_refused() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "one", Wait::Park);
    let side = scratch.file("done");
    Side::create(&side, 1);
    let mut holder = start_producer(&options, 1, "plain", &side, None);
    holder.expect("ready");
    assert_names(&Producer::open(&options).unwrap_err(), &holder);
    // To be refused leaves the holder as it was.
    let survivor = Survivor::start(&options, 2);
    survivor.expect_fresh(1, 0, PLAIN);
    assert_names(&Producer::open(&options).unwrap_err(), &holder);
    holder.tell("close");
    survivor.expect_end(RecvError::Disconnected);
    holder.wait_exited();

    let mut producer = Producer::open(&options).unwrap();
    // In the same process, too, there is but one.
    let error = Producer::open(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    send(&mut producer, 2, 0);
    survivor.expect_fresh(2, 0, 1);
    drop(producer);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    scratch.assert_no_channels();
}

#[test]
fn a_second_consumer_is_refused() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "one", Wait::Park);
    let mut holder = PeerProcess::start(CONSUMER, &[&channel::encode(&options)]);
    holder.expect("ready");
    assert_names(&Consumer::open(&options).unwrap_err(), &holder);
    holder.tell("close");
    holder.wait_exited();

    let consumer = Consumer::open(&options).unwrap();
    let error = Consumer::open(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(consumer);
    drop(Consumer::open(&options).unwrap());
    scratch.assert_no_channels();
}

/// The error says who has the role, by what one needs to find it: pid and command.
fn assert_names(error: &Error, holder: &PeerProcess) {
    assert_eq!(error.kind(), ErrorKind::RoleTaken);
    let pid = holder.pid();
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let text = error.to_string();
    assert!(text.contains(&format!("process {pid} (`{}`)", command.trim_end())), "{text}");
}

const CONSUMER: &str = "consumer";

fn hold_consumer(arguments: &[String]) {
    let consumer = Consumer::open(&channel::decode(&arguments[0])).unwrap();
    say("ready");
    hear();
    drop(consumer);
}

// ------------------------------------------------------------------------------------- the race

const RACER: &str = "racer";
const RACERS: usize = 8;
const ROUNDS: u64 = 20;
/// Words of the race's file: the last round that was started, and the last in which everyone has
/// tried.
const STARTED: usize = 0;
const TRIED: usize = 1;

/// Half of the processes want to be the producer of a channel that does not exist yet, half the
/// consumer.
#[test]
fn of_many_that_create_a_channel_one_of_each_kind_wins() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "race", Wait::Park);
    let side = scratch.file("rounds");
    let rounds = Side::create(&side, 2);
    let mut racers: Vec<PeerProcess> = (0..RACERS)
        .map(|index| {
            let kind = if index % 2 == 0 { "produce" } else { "consume" };
            PeerProcess::start(RACER, &[&channel::encode(&options), kind, side.to_str().unwrap()])
        })
        .collect();
    for racer in &mut racers {
        racer.expect("ready");
    }
    for round in 1..=ROUNDS {
        rounds.word(STARTED).store_release(round);
        let told: Vec<String> = racers.iter_mut().map(PeerProcess::line).collect();
        for kind in 0..2 {
            let of_kind: Vec<&String> = told.iter().skip(kind).step_by(2).collect();
            let won = of_kind.iter().filter(|text| **text == "won").count();
            let refused = of_kind.iter().filter(|text| **text == "RoleTaken").count();
            assert_eq!((won, refused), (1, RACERS / 2 - 1), "round {round}: {told:?}");
        }
        rounds.word(TRIED).store_release(round);
        for (racer, told) in racers.iter_mut().zip(&told) {
            racer.expect(if told == "won" { "exchanged" } else { "lost" });
        }
        scratch.assert_no_channels();
    }
    for mut racer in racers {
        racer.wait_exited();
    }
}

fn race(arguments: &[String]) {
    let [options, kind, side] = arguments else { panic!("{arguments:?}") };
    let mut options = channel::decode(options);
    let rounds = Side::open(Path::new(side));
    say("ready");
    for round in 1..=ROUNDS {
        options.name = format!("race-{round}");
        let everyone_tried =
            || wait_until("the others", || rounds.word(TRIED).load_acquire() == round);
        // Without sleeping, so that all start within microseconds.
        while rounds.word(STARTED).load_acquire() < round {
            std::thread::yield_now();
        }
        let lost = if kind == "produce" {
            match Producer::open(&options) {
                Ok(mut producer) => {
                    say("won");
                    send(&mut producer, round, 0);
                    everyone_tried();
                    None
                }
                Err(error) => Some(error),
            }
        } else {
            match Consumer::open(&options) {
                Ok(mut consumer) => {
                    say("won");
                    assert_eq!(receive(&mut consumer), Event::fresh(round, 0));
                    everyone_tried();
                    assert_eq!(receive(&mut consumer), Event::End(RecvError::Disconnected));
                    None
                }
                Err(error) => Some(error),
            }
        };
        match lost {
            None => say("exchanged"),
            Some(error) => {
                say(format!("{:?}", error.kind()));
                everyone_tried();
                say("lost");
            }
        }
    }
}

// ------------------------------------------------------------------------------- orderly endings

#[test]
fn a_consumer_is_told_once_that_the_producer_closed() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "close", Wait::Adaptive);
    let mut consumer = Consumer::open(&options).unwrap();
    for incarnation in 1..=3 {
        let mut producer = Producer::open(&options).unwrap();
        send(&mut producer, incarnation, 0);
        send(&mut producer, incarnation, 1);
        // Closing publishes what was queued.
        let mut claim = producer.claim(50).unwrap();
        body::fill(&mut claim, incarnation, 2);
        claim.queue().unwrap();
        drop(producer);
        for index in 0..3 {
            assert_eq!(receive(&mut consumer), Event::fresh(incarnation, index));
        }
        assert_eq!(receive(&mut consumer), Event::End(RecvError::Disconnected));
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
        let timeout = consumer.recv_timeout(Duration::from_millis(120)).unwrap_err();
        assert_eq!(timeout, RecvError::Timeout);
    }
    drop(consumer);
    scratch.assert_no_channels();
}

#[test]
fn a_producer_is_told_once_that_the_consumer_closed() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "close", Wait::Adaptive);
    let mut producer = Producer::open(&options).unwrap();
    let mut next = fill(&mut producer, 0);
    assert_eq!(producer.try_claim(100).unwrap_err(), SendError::Full { peer: None, lag: None });
    for _ in 0..3 {
        let consumer = Consumer::open(&options).unwrap();
        let full = SendError::Full { peer: Some(Peer { pid: std::process::id() }), lag: None };
        assert_eq!(producer.try_claim(100).unwrap_err(), full);
        drop(consumer);
        assert_eq!(producer.claim(100).unwrap_err(), SendError::Disconnected);
        assert_eq!(producer.try_claim(100).unwrap_err(), SendError::Full { peer: None, lag: None });
        let timeout = producer.claim_timeout(100, Duration::from_millis(120)).unwrap_err();
        assert_eq!(timeout, SendError::Timeout { peer: None, lag: None });
    }
    // Blocked until the next consumer makes room.
    let survivor = Survivor::start(&options, 1);
    send(&mut producer, 1, next);
    next += 1;
    survivor.expect_fresh(1, 0, next);
    drop(producer);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    scratch.assert_no_channels();
}

/// A ring that is not full takes messages whether or not a consumer is there.
#[test]
fn a_closed_consumer_is_no_news_while_there_is_room() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "room", Wait::Adaptive);
    let mut producer = Producer::open(&options).unwrap();
    for index in 0..5 {
        drop(Consumer::open(&options).unwrap());
        send(&mut producer, 1, index);
    }
    drop(producer);
    let survivor = Survivor::start(&options, 1);
    survivor.expect_fresh(1, 0, 5);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    scratch.assert_no_channels();
}

// ------------------------------------------------------------------------- what nobody has taken

/// How many predecessors' messages may wait.
const MAX_UNDRAINED: u64 = 4;

#[test]
fn too_many_predecessors_that_nobody_drained() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "crash-loop", Wait::Park);
    let side = scratch.file("done");
    Side::create(&side, 1);
    let pids: Vec<u32> = (1..=MAX_UNDRAINED + 1)
        .map(|incarnation| {
            let mut producer = start_producer(&options, incarnation, "plain", &side, None);
            producer.expect("ready");
            let pid = producer.pid();
            if dies(incarnation) {
                producer.kill();
            } else {
                producer.tell("close");
                producer.wait_exited();
            }
            pid
        })
        .collect();
    for _ in 0..2 {
        let error = Producer::open(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undrained);
        let text = error.to_string();
        assert!(text.contains("5 earlier producers left segments behind"), "{text}");
        assert!(text.contains("Start a consumer"), "{text}");
    }
    let survivor = Survivor::start(&options, pids.len() + 1);
    for (incarnation, &pid) in (1..).zip(&pids) {
        survivor.expect_fresh(incarnation, 0, PLAIN);
        survivor.expect_end(if dies(incarnation) {
            RecvError::PeerDied { peer: Peer { pid } }
        } else {
            RecvError::Disconnected
        });
    }
    let mut producer = Producer::open(&options).unwrap();
    send(&mut producer, 9, 0);
    survivor.expect_fresh(9, 0, 1);
    drop(producer);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    scratch.assert_no_channels();
}

/// Some die and some close: both leave messages.
fn dies(incarnation: u64) -> bool {
    incarnation % 2 == 1
}

#[test]
fn too_many_predecessors_of_a_consumer_that_does_not_receive() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "lazy", Wait::Park);
    let mut consumer = Consumer::open(&options).unwrap();
    let mut incarnation = 0;
    let error = loop {
        match Producer::open(&options) {
            Ok(mut producer) => {
                incarnation += 1;
                send(&mut producer, incarnation, 0);
            }
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), incarnation), (ErrorKind::Undrained, MAX_UNDRAINED + 1));
    let me = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&me), "{error}");
    for incarnation in 1..=incarnation {
        assert_eq!(receive(&mut consumer), Event::fresh(incarnation, 0));
        assert_eq!(receive(&mut consumer), Event::End(RecvError::Disconnected));
    }
    drop(consumer);
    scratch.assert_no_channels();
}

// -------------------------------------------------------------------------------- other meanings

#[test]
fn a_mismatch_of_options_tells_both_sides() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "options", Wait::Park);
    let producer = Producer::open(&options).unwrap();
    for (other, asked) in [
        (Options { capacity: Some(65536), ..options.clone() }, "capacity=64KiB&align=16&wait=park"),
        (Options { record_align: Some(64), ..options.clone() }, "capacity=4KiB&align=64&wait=park"),
        (
            Options {
                capacity: None,
                record_align: None,
                wait: Some(Wait::Spin),
                ..options.clone()
            },
            "wait=spin",
        ),
    ] {
        let error = Consumer::open(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OptionMismatch);
        let text = error.to_string();
        assert!(text.contains("the channel has capacity=4KiB&align=16&wait=park,"), "{text}");
        assert!(text.contains(&format!("this program asks for {asked}.")), "{text}");
    }
    // Who leaves an option open takes what the channel has.
    let open = Options { capacity: None, record_align: None, wait: None, ..options };
    drop(Consumer::open(&open).unwrap());
    drop(producer);
    scratch.assert_no_channels();
}

#[test]
fn what_a_forgotten_batch_showed_does_not_come_again() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "forgotten", Wait::Park);
    let mut producer = Producer::open(&options).unwrap();
    (0..5).for_each(|index| send(&mut producer, 1, index));
    let mut consumer = Consumer::open(&options).unwrap();
    let mut batch = consumer.try_recv_batch(3).unwrap();
    for _ in 0..3 {
        batch.next().unwrap().unwrap();
    }
    std::mem::forget(batch);
    drop(consumer);
    let mut consumer = Consumer::open(&options).unwrap();
    for index in 3..5 {
        assert_eq!(receive(&mut consumer), Event::fresh(1, index));
    }
    drop((producer, consumer));
    scratch.assert_no_channels();
}

/// The remedy that errors name is `rm -r`: who still has what was removed must not take the new channel of that
/// name for its own.
#[test]
fn what_was_removed_by_hand_takes_no_namesake_along() {
    let scratch = Scratch::new();
    let spsc = channel::options(&scratch, "again", Wait::Park);
    let broadcast = channel::broadcast(&scratch, "again", Wait::Park, Overflow::Block);
    let mpmc = Options {
        kind: Some(Kind::Mpmc),
        capacity: None,
        record_align: None,
        slots: Some(4),
        ..spsc.clone()
    };
    for options in [spsc, broadcast, mpmc] {
        let old = sending(&options).unwrap();
        std::fs::remove_dir_all(scratch.channels().join("again")).unwrap();
        let new = sending(&options).unwrap();
        drop(old);
        // As it is, and with the new sender in it.
        let left_open = Options { kind: None, overflow: None, slots: None, ..options };
        let reader = receiving(&left_open, Read::Every).unwrap();
        assert!(match &reader {
            Receiving::InPlace(reader) => reader.peer().is_some(),
            Receiving::Shared(reader) => reader.peer().is_some(),
            Receiving::Copied(_) => false,
        });
        drop((new, reader));
        scratch.assert_no_channels();
    }
}

#[test]
fn a_mismatch_of_schemas_tells_the_fields() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "schema", Wait::Park);
    let producer = Producer::open(&options).unwrap();
    let text = "incarnation u64\nindex u32\nsum u64\nrest [u8]\nlast u8\n".into();
    let schema = Schema { fingerprint: 0xbad, text, payload_align: 8 };
    let error = Consumer::open(&Options { schema, ..options }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    let text = error.to_string();
    for line in ["    incarnation u64\n", "  - index u64\n", "  + index u32\n", "  + last u8"] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    drop(producer);
    scratch.assert_no_channels();
}

// ------------------------------------------------------------------------------------------- both

fn send(producer: &mut Producer, incarnation: u64, index: u64) {
    let mut claim = producer.claim_timeout(body::length(index, 100), PATIENCE).unwrap();
    body::fill(&mut claim, incarnation, index);
    claim.commit().unwrap();
}

/// Sends from index `next` on until the ring is full. Returns the index after the last.
fn fill(producer: &mut Producer, mut next: u64) -> u64 {
    while let Ok(mut claim) = producer.try_claim(100) {
        body::fill(&mut claim, 1, next);
        claim.commit().unwrap();
        next += 1;
    }
    next
}

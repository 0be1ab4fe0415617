//! A process that is stopped for a long time is not dead: nobody says so, and nothing is lost.

#![cfg(not(loom))]

mod common;

use std::path::Path;
use std::time::Duration;

use common::peer::{self, PeerProcess};
use common::scratch::Scratch;
use common::side::Side;
use common::survivor::{Event, Survivor, receive};
use common::{PATIENCE, body, channel, wait_until};
use ringway_shm::{Consumer, Peer, Producer, RecvError, SendError, Wait};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    match words[0].as_str() {
        PRODUCER => produce(&words[1..]),
        CONSUMER => consume(&words[1..]),
        role => panic!("no role {role:?}"),
    }
}

/// A hundred times as long as it takes to report a death.
const STOPPED: Duration = Duration::from_secs(10);
/// Messages of each case.
const MESSAGES: u64 = 1000;
/// After so many one side is stopped, somewhere in its work.
const BEFORE: u64 = 300;
/// More it does not do before the other side lets it, however slow that one is to stop it.
const AT_MOST: u64 = 600;

/// Words of the side file: how many messages the peer has done, and whether it may do them all.
const DONE: usize = 0;
const GO: usize = 1;

#[test]
fn producer_is_stopped() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "stopped", Wait::Park);
    let path = scratch.file("side");
    let side = Side::create(&path, 2);
    let survivor = Survivor::start(&options, 1);
    let arguments = [&channel::encode(&options), path.to_str().unwrap()];
    let mut peer = PeerProcess::start(PRODUCER, &arguments);
    survivor.expect_fresh(1, 0, BEFORE);
    peer.stop();
    // It may have sent one that it did not come to note: the last before the stop, or one more.
    let sent = side.word(DONE).load_acquire().max(BEFORE);
    survivor.expect_fresh(1, BEFORE, sent - BEFORE);
    let more = survivor.during(STOPPED);
    assert!(more.is_empty() || more == [Event::fresh(1, sent)], "{more:?}");
    side.word(GO).store_release(1);
    peer.go_on();
    let next = sent + more.len() as u64;
    survivor.expect_fresh(1, next, MESSAGES - next);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    peer.wait_exited();
    scratch.assert_no_channels();
}

#[test]
fn consumer_is_stopped_and_the_ring_is_full() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "stopped", Wait::Park);
    let path = scratch.file("side");
    let side = Side::create(&path, 2);
    let mut producer = Producer::open(&options).unwrap();
    let arguments = [&channel::encode(&options), path.to_str().unwrap()];
    let mut peer = PeerProcess::start(CONSUMER, &arguments);
    let mut next = 0;
    while side.word(DONE).load_acquire() < BEFORE {
        send(&mut producer, next, PATIENCE).unwrap();
        next += 1;
    }
    peer.stop();
    // As many as there is room for; the first that does not fit waits all the time.
    let error = loop {
        match send(&mut producer, next, STOPPED) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Timeout { peer: Some(Peer { pid: peer.pid() }), lag: None });
    side.word(GO).store_release(1);
    peer.go_on();
    for index in next..MESSAGES {
        send(&mut producer, index, PATIENCE).unwrap();
    }
    drop(producer);
    peer.wait_exited();
    assert_eq!(side.word(DONE).load_acquire(), MESSAGES);
    scratch.assert_no_channels();
}

fn send(producer: &mut Producer, index: u64, timeout: Duration) -> Result<(), SendError> {
    let mut claim = producer.claim_timeout(body::length(index, 100), timeout)?;
    body::fill(&mut claim, 1, index);
    claim.commit()
}

const PRODUCER: &str = "producer";
const CONSUMER: &str = "consumer";

fn produce(arguments: &[String]) {
    let [options, side] = arguments else { panic!("{arguments:?}") };
    let side = Side::open(Path::new(side));
    let mut producer = Producer::open(&channel::decode(options)).unwrap();
    for index in 0..MESSAGES {
        send(&mut producer, index, PATIENCE).unwrap();
        done(&side, index + 1);
    }
}

fn consume(arguments: &[String]) {
    let [options, side] = arguments else { panic!("{arguments:?}") };
    let side = Side::open(Path::new(side));
    let mut consumer = Consumer::open(&channel::decode(options)).unwrap();
    for index in 0..MESSAGES {
        assert_eq!(receive(&mut consumer), Event::fresh(1, index));
        done(&side, index + 1);
    }
    assert_eq!(receive(&mut consumer), Event::End(RecvError::Disconnected));
}

fn done(side: &Side, count: u64) {
    side.word(DONE).store_release(count);
    // A message in a while, so that the stop comes between two as well as in the wait for one.
    std::thread::sleep(Duration::from_millis(1));
    if count == AT_MOST {
        wait_until("leave to go on", || side.word(GO).load_acquire() == 1);
    }
}

//! Subscribers and producers of a broadcast are killed at named places, or stopped; what the others
//! see.
//!
//! Kills at random moments are in `broadcast_soak`.

#![cfg(not(loom))]

mod common;

use std::time::{Duration, Instant};

use common::peer::{self, PeerProcess, hear, say};
use common::scratch::Scratch;
use common::{PATIENCE, body, channel};
use ringway_shm::{
    Consumer, Options, Overflow, Peer, Producer, Publisher, Read, Receiving, RecvError, SendError,
    Sending, Subscriber, Wait, receiving, sending,
};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    match words[0].as_str() {
        SUBSCRIBER => subscribe(&words[1..]),
        PUBLISHER => publish(&words[1..]),
        role => panic!("no role {role:?}"),
    }
}

const SUBSCRIBER: &str = "subscriber";
const PUBLISHER: &str = "publisher";

/// Takes so many messages, says so, waits for a line, and takes the rest.
fn subscribe(arguments: &[String]) {
    let [options, first, take, then] = arguments else { panic!("{arguments:?}") };
    let mut end = receiving(&channel::decode(options), Read::Every).unwrap();
    say("open");
    let mut next: u64 = first.parse().unwrap();
    for _ in 0..take.parse::<u64>().unwrap() {
        assert_eq!(received(&mut end).unwrap(), next);
        next += 1;
    }
    say("ready");
    hear();
    for _ in 0..then.parse::<u64>().unwrap() {
        assert_eq!(received(&mut end).unwrap(), next);
        next += 1;
    }
    say("done");
}

/// Number of the next message, of whatever incarnation.
fn received(end: &mut Receiving) -> Result<u64, RecvError> {
    match end {
        Receiving::InPlace(end) => {
            let message = end.recv_timeout(PATIENCE)?;
            let (_, index) = body::read(&message).unwrap();
            assert_eq!(message.sequence(), index);
            Ok(index)
        }
        Receiving::Copied(end) => {
            let message = end.recv_timeout(PATIENCE)?;
            let (_, index) = body::read(&message).unwrap();
            assert_eq!(message.sequence(), index);
            Ok(index)
        }
        Receiving::Shared(_) => panic!("not a broadcast's"),
    }
}

/// Sends for ever, in batches of four, at the pace of a line each.
fn publish(arguments: &[String]) {
    let [options, incarnation] = arguments else { panic!("{arguments:?}") };
    let incarnation = incarnation.parse().unwrap();
    let mut end = sending(&channel::decode(options)).unwrap();
    for batch in 0.. {
        for index in batch * BATCH..(batch + 1) * BATCH {
            queue(&mut end, incarnation, index);
        }
        match &mut end {
            Sending::InPlace(end) => end.flush().unwrap(),
            Sending::Copied(end) => end.flush().unwrap(),
            Sending::Shared(_) => panic!("not a broadcast's"),
        }
        say("sent");
        hear();
    }
}

const BATCH: u64 = 4;

fn queue(end: &mut Sending, incarnation: u64, index: u64) {
    let len = body::length(index, 400);
    match end {
        Sending::InPlace(end) => {
            let mut claim = end.claim(len).unwrap();
            body::fill(&mut claim, incarnation, index);
            claim.queue().unwrap();
        }
        Sending::Copied(end) => {
            let mut claim = end.claim(len).unwrap();
            body::fill(&mut claim, incarnation, index);
            claim.queue().unwrap();
        }
        Sending::Shared(_) => panic!("not a broadcast's"),
    }
}

fn start_subscriber(
    options: &Options,
    first: u64,
    take: u64,
    then: u64,
    fault: Option<&str>,
) -> PeerProcess {
    let (options, first) = (channel::encode(options), first.to_string());
    let arguments = [&*options, &first, &take.to_string(), &then.to_string()];
    PeerProcess::start_with_fault(SUBSCRIBER, &arguments, fault)
}

fn options(scratch: &Scratch, overflow: Overflow) -> Options {
    channel::broadcast(scratch, "news", Wait::Adaptive, overflow)
}

fn send(producer: &mut Producer, index: u64, timeout: Duration) -> Result<(), SendError> {
    let mut claim = producer.claim_timeout(body::length(index, 100), timeout)?;
    body::fill(&mut claim, 1, index);
    claim.commit()
}

fn take(consumer: &mut Consumer, index: u64) {
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!(body::read(&message).unwrap(), (1, index));
}

/// At each step of coming in: the producer goes on, the others get everything, and so does the next
/// one who comes.
#[test]
fn subscriber_dies_while_it_joins() {
    for fault in ["SeatTaken", "SeatSwept", "SeatFilled", "Settled"] {
        let scratch = Scratch::new();
        let options = options(&scratch, Overflow::Block);
        let mut producer = Producer::open(&options).unwrap();
        let mut stays = Consumer::open(&options).unwrap();
        let mut next = 0;
        for _ in 0..3 {
            let mut dies = start_subscriber(&options, 0, 0, 0, Some(fault));
            dies.wait_killed();
            // More than a ring: whoever died is not waited for.
            for index in next..next + 200 {
                send(&mut producer, index, PATIENCE).unwrap();
                take(&mut stays, index);
            }
            next += 200;
            let mut comes = Consumer::open(&options).unwrap();
            send(&mut producer, next, PATIENCE).unwrap();
            take(&mut comes, next);
            take(&mut stays, next);
            next += 1;
        }
        let evicted = producer.stats().evicted;
        let was_there = matches!(fault, "SeatFilled" | "Settled");
        assert!(was_there == (evicted > 0), "{fault}: {evicted} evicted");
        drop((producer, stays));
        scratch.assert_no_channels();
    }
}

#[test]
fn producer_that_waits_for_a_dead_subscriber_goes_on_parked() {
    producer_goes_on(Wait::Park);
}

#[test]
fn producer_that_waits_for_a_dead_subscriber_goes_on_adaptive() {
    producer_goes_on(Wait::Adaptive);
}

#[test]
fn producer_that_waits_for_a_dead_subscriber_goes_on_spinning() {
    producer_goes_on(Wait::Spin);
}

fn producer_goes_on(wait: Wait) {
    let scratch = Scratch::new();
    let options = channel::broadcast(&scratch, "news", wait, Overflow::Block);
    let mut producer = Producer::open(&options).unwrap();
    let mut stays = Consumer::open(&options).unwrap();
    let mut dies = start_subscriber(&options, 0, 5, 0, None);
    dies.expect("open");
    (0..5).for_each(|index| send(&mut producer, index, PATIENCE).unwrap());
    dies.expect("ready");
    (0..5).for_each(|index| take(&mut stays, index));
    let mut next = 5;
    let error = loop {
        match send(&mut producer, next, Duration::from_millis(20)) {
            Ok(()) => take(&mut stays, next),
            Err(error) => break error,
        }
        next += 1;
    };
    let named = Peer { pid: dies.pid() };
    let SendError::Timeout { peer: Some(peer), lag: Some(lag) } = error else { panic!("{error}") };
    assert_eq!((peer, lag.messages), (named, next - 5));
    let waiting = std::thread::spawn(move || {
        send(&mut producer, next, PATIENCE).unwrap();
        (Instant::now(), producer)
    });
    std::thread::sleep(Duration::from_millis(20));
    let killed = Instant::now();
    dies.kill();
    let (through, mut producer) = waiting.join().unwrap();
    println!("{wait}: through {:?} after the kill", through - killed);
    assert_eq!(producer.stats().evicted, 1);
    take(&mut stays, next);
    for index in next + 1..next + 200 {
        send(&mut producer, index, PATIENCE).unwrap();
        take(&mut stays, index);
    }
}

/// As long as it is only stopped, nobody calls it dead, and it loses nothing.
#[test]
fn a_stopped_subscriber_is_waited_for() {
    const TAKEN: u64 = 5;
    const STOPPED: Duration = Duration::from_secs(3);
    let scratch = Scratch::new();
    let options = options(&scratch, Overflow::Block);
    let mut producer = Producer::open(&options).unwrap();
    let mut stopped = start_subscriber(&options, 0, TAKEN, 1000 - TAKEN, None);
    stopped.expect("open");
    let mut next = 0;
    while next < TAKEN {
        send(&mut producer, next, PATIENCE).unwrap();
        next += 1;
    }
    stopped.expect("ready");
    stopped.stop();
    let error = loop {
        match send(&mut producer, next, STOPPED) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    let SendError::Timeout { peer: Some(peer), lag: Some(lag) } = error else { panic!("{error}") };
    assert_eq!((peer.pid, lag.messages), (stopped.pid(), next - TAKEN));
    assert_eq!(producer.stats().evicted, 0);
    stopped.go_on();
    stopped.tell("go on");
    while next < 1000 {
        send(&mut producer, next, PATIENCE).unwrap();
        next += 1;
    }
    stopped.expect("done");
    stopped.wait_exited();
    assert_eq!(producer.stats().evicted, 0);
}

/// One that is stopped is nobody to a producer that overwrites; it is told what it missed.
#[test]
fn a_stopped_subscriber_is_overwritten() {
    let scratch = Scratch::new();
    let options = options(&scratch, Overflow::Overwrite);
    let mut publisher = Publisher::open(&options).unwrap();
    let mut runs = Subscriber::open(&options, Read::Every).unwrap();
    let mut stopped = start_subscriber(&options, 0, 1, 0, None);
    stopped.expect("open");
    let mut send = |index| {
        let mut claim = publisher.claim(body::length(index, 100)).unwrap();
        body::fill(&mut claim, 1, index);
        claim.commit().unwrap();
    };
    send(0);
    stopped.expect("ready");
    stopped.stop();
    for index in 1..2000 {
        send(index);
        assert_eq!(body::read(&runs.recv_timeout(PATIENCE).unwrap()).unwrap().1, index - 1);
    }
    stopped.kill();
}

/// The place of a dead one is for whoever comes when there is no other.
#[test]
fn places_of_the_dead_are_taken_last() {
    let scratch = Scratch::new();
    let options = options(&scratch, Overflow::Block);
    let mut producer = Producer::open(&options).unwrap();
    let mut dies = start_subscriber(&options, 0, 0, 0, None);
    dies.expect("open");
    dies.kill();
    let mut others: Vec<Consumer> = (0..63).map(|_| Consumer::open(&options).unwrap()).collect();
    let mut last = Consumer::open(&options).unwrap();
    assert!(Consumer::open(&options).is_err());
    for index in 0..300 {
        send(&mut producer, index, PATIENCE).unwrap();
        take(&mut last, index);
        others.iter_mut().for_each(|other| take(other, index));
    }
}

/// Batches come whole or not at all, to all alike.
#[test]
fn producer_dies_in_the_middle() {
    for (overflow, fault, visits) in [
        (Overflow::Block, "MidBatch", &[1, 2, 3, 20][..]),
        (Overflow::Block, "MidWrap", &[1, 2, 10]),
        (Overflow::Block, "MidMark", &[1, 2, 10]),
        (Overflow::Overwrite, "MidBatch", &[1, 2, 3, 20]),
        (Overflow::Overwrite, "MidWrap", &[1, 2, 10]),
        (Overflow::Overwrite, "MidMark", &[1, 2, 10, 100]),
        (Overflow::Overwrite, "Announced", &[1, 2, 10, 100]),
    ] {
        for visit in visits {
            let scratch = Scratch::new();
            let options = options(&scratch, overflow);
            let mut readers = [(); 2].map(|()| receiving(&options, Read::Every).unwrap());
            let arguments = [&*channel::encode(&options), "1"];
            let fault = format!("{fault}:{visit}");
            let mut dies = PeerProcess::start_with_fault(PUBLISHER, &arguments, Some(&fault));
            let mut next = 0;
            while dies.next_line().is_some() {
                for index in next..next + BATCH {
                    readers.iter_mut().for_each(|end| assert_eq!(received(end), Ok(index)));
                }
                next += BATCH;
                dies.tell("go on");
            }
            dies.wait_killed();
            let died = RecvError::PeerDied { peer: Peer { pid: dies.pid() } };
            readers.iter_mut().for_each(|end| assert_eq!(received(end), Err(died), "{fault}"));
            // And a successor is heard by those, and by who comes late.
            let mut next = PeerProcess::start(PUBLISHER, &[arguments[0], "2"]);
            next.expect("sent");
            for index in 0..BATCH {
                readers.iter_mut().for_each(|end| assert_eq!(received(end), Ok(index)));
            }
            let mut late = receiving(&options, Read::Every).unwrap();
            next.tell("go on");
            next.expect("sent");
            assert_eq!(received(&mut late), Ok(BATCH));
            next.kill();
        }
    }
}

//! One side is killed by SIGKILL at a chosen place; what the other side and the successor see.
//!
//! Kills at random moments are in `chaos`.

#![cfg(not(loom))]

mod common;

use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use common::actor::{self, BATCH, PLAIN, start_producer};
use common::peer::{self, PeerProcess, hear, say};
use common::scratch::Scratch;
use common::side::Side;
use common::survivor::{Event, Survivor, receive};
use common::{PATIENCE, body, channel};
use ringway_shm::{Consumer, Options, Peer, Producer, RecvError, SendError, Wait};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    match words[0].as_str() {
        actor::PRODUCER => actor::produce(&words[1..]),
        CONSUMER => consume(&words[1..]),
        role => panic!("no role {role:?}"),
    }
}

// ---------------------------------------------------------------------------- the producer dies

#[test]
fn producer_dies_after_commits_parked() {
    producer_is_killed(Wait::Park, "plain");
}

#[test]
fn producer_dies_after_commits_adaptive() {
    producer_is_killed(Wait::Adaptive, "plain");
}

#[test]
fn producer_dies_after_commits_spinning() {
    producer_is_killed(Wait::Spin, "plain");
}

#[test]
fn producer_dies_with_a_claim_that_is_written_but_not_committed() {
    producer_is_killed(Wait::Park, "claimed");
}

#[test]
fn producer_dies_with_messages_queued() {
    producer_is_killed(Wait::Adaptive, "queued");
}

#[test]
fn producer_dies_in_the_middle_of_a_batch() {
    // Each batch passes the point with all messages but its first.
    let visits = BATCH - 1;
    for (script, at) in [
        ("batches", 1),
        ("batches", 2),
        ("batches", visits),
        ("batches", visits + 1),
        ("batches", 10 * visits + 2),
        ("closed-batches", 1),
        ("closed-batches", visits),
        ("closed-batches", 20 * visits + 1),
        ("closed-batches", 7 * visits),
    ] {
        let committed = producer_kills_itself(Wait::Park, script, &format!("MidBatch:{at}"));
        assert_eq!(committed, (at - 1) / visits * BATCH, "{script}, visit {at}");
    }
}

#[test]
fn producer_dies_in_the_middle_of_a_wrap() {
    for (wait, at) in [(Wait::Park, 1), (Wait::Adaptive, 2), (Wait::Park, 3), (Wait::Park, 50)] {
        let committed = producer_kills_itself(wait, "wraps", &format!("MidWrap:{at}"));
        assert!(committed >= at, "{committed} messages before wrap {at}");
    }
}

/// What a producer leaves that dies while it opens the channel, before any consumer is there.
#[test]
fn producer_dies_while_it_opens_a_new_channel() {
    for fault in ["ControlBuilt", "ControlPlaced", "SegmentBuilt", "SegmentPlaced"] {
        let scratch = Scratch::new();
        let options = channel::options(&scratch, "opening", Wait::Park);
        let side = scratch.file("done");
        Side::create(&side, 1);
        let mut dead = start_producer(&options, 1, "plain", &side, Some(fault));
        dead.wait_killed();

        let survivor = Survivor::start(&options, if fault == "SegmentPlaced" { 2 } else { 1 });
        if fault == "SegmentPlaced" {
            // Only this one became a producer that a consumer can see.
            survivor.expect_end(RecvError::PeerDied { peer: Peer { pid: dead.pid() } });
        }
        let mut successor = start_producer(&options, 2, "plain", &side, None);
        survivor.expect_fresh(2, 0, PLAIN);
        close(&mut successor);
        survivor.expect_end(RecvError::Disconnected);
        survivor.finish();
        successor.wait_exited();
        scratch.assert_no_channels();
    }
}

/// The same while a consumer waits. It may learn of such a producer as late as from the next one,
/// but nothing is told twice or out of order.
#[test]
fn producer_dies_while_it_opens_and_a_consumer_waits() {
    for fault in ["SegmentBuilt", "SegmentPlaced"] {
        let scratch = Scratch::new();
        let options = channel::options(&scratch, "opening", Wait::Park);
        let side = scratch.file("done");
        Side::create(&side, 1);
        let survivor = Survivor::start(&options, if fault == "SegmentPlaced" { 2 } else { 1 });
        let mut dead = start_producer(&options, 1, "plain", &side, Some(fault));
        dead.wait_killed();
        let mut successor = start_producer(&options, 2, "plain", &side, None);
        if fault == "SegmentPlaced" {
            survivor.expect_end(RecvError::PeerDied { peer: Peer { pid: dead.pid() } });
        }
        survivor.expect_fresh(2, 0, PLAIN);
        close(&mut successor);
        survivor.expect_end(RecvError::Disconnected);
        survivor.finish();
        successor.wait_exited();
        scratch.assert_no_channels();
    }
}

/// A consumer passes over segments with numbers it is through with, so a number must not come
/// again, even if those who had it are gone without a trace.
#[test]
fn numbers_of_segments_do_not_come_again() {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "numbers", Wait::Park);
    let side = scratch.file("done");
    Side::create(&side, 1);
    let mut first = start_producer(&options, 1, "plain", &side, Some("SegmentPlaced"));
    first.wait_killed();
    let survivor = Survivor::start(&options, 2);
    survivor.expect_end(RecvError::PeerDied { peer: Peer { pid: first.pid() } });
    // Deletes the first segment and dies before it has placed its own.
    start_producer(&options, 2, "plain", &side, Some("SegmentBuilt")).wait_killed();
    let mut third = start_producer(&options, 3, "plain", &side, None);
    survivor.expect_fresh(3, 0, PLAIN);
    close(&mut third);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    third.wait_exited();
    scratch.assert_no_channels();
}

/// Kills the producer when it has run its script and the consumer has got all that was committed.
fn producer_is_killed(wait: Wait, script: &str) {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "killed", wait);
    let side = scratch.file("done");
    Side::create(&side, 1);
    let survivor = Survivor::start(&options, 2);
    let mut producer = start_producer(&options, 1, script, &side, None);
    producer.expect("ready");
    survivor.expect_fresh(1, 0, PLAIN);
    assert_eq!(survivor.during(Duration::from_millis(20)), []);
    let killed = Instant::now();
    producer.signal(libc::SIGKILL);
    let told = survivor.expect_end(RecvError::PeerDied { peer: Peer { pid: producer.pid() } });
    report(&format!("{script}, {wait}: death of the producer"), told - killed);
    producer.kill();
    succeed(&scratch, &options, survivor);
}

/// Lets the producer run until it kills itself. Returns how many messages it had committed.
fn producer_kills_itself(wait: Wait, script: &str, fault: &str) -> u64 {
    let scratch = Scratch::new();
    let options = channel::options(&scratch, "fault", wait);
    let side = scratch.file("done");
    let done = Side::create(&side, 1);
    let survivor = Survivor::start(&options, 2);
    let mut producer = start_producer(&options, 1, script, &side, Some(fault));
    producer.wait_killed();
    let committed = done.word(0).load_acquire();
    survivor.expect_fresh(1, 0, committed);
    survivor.expect_end(RecvError::PeerDied { peer: Peer { pid: producer.pid() } });
    succeed(&scratch, &options, survivor);
    committed
}

/// A successor comes under the same name, its messages arrive, and both leave nothing behind.
fn succeed(scratch: &Scratch, options: &Options, survivor: Survivor) {
    let side = scratch.file("successor");
    Side::create(&side, 1);
    let mut successor = start_producer(options, 2, "plain", &side, None);
    survivor.expect_fresh(2, 0, PLAIN);
    close(&mut successor);
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    successor.wait_exited();
    scratch.assert_no_channels();
}

fn close(producer: &mut PeerProcess) {
    producer.expect("ready");
    producer.tell("close");
}

// ---------------------------------------------------------------------------- the consumer dies

#[test]
fn consumer_dies_between_peek_and_release() {
    let mut case = ConsumerDies::new(Wait::Park);
    case.send(0, 10);
    case.kill_after("hold", 4);
    case.send(10, 2);
    case.expect_rest(4..12, 5, 5);
}

#[test]
fn consumer_dies_with_a_part_of_a_batch_taken() {
    let mut case = ConsumerDies::new(Wait::Park);
    case.send(0, 12);
    case.kill_after("batch", 4);
    case.send(12, 2);
    case.expect_rest(4..14, 4 + TAKEN, 4 + TAKEN);
}

#[test]
fn consumer_dies_in_the_middle_of_an_array_record() {
    let mut case = ConsumerDies::new(Wait::Adaptive);
    case.send(0, 2);
    case.send_array(2, 8);
    case.send(10, 2);
    case.kill_after("hold", 5);
    case.expect_rest(5..12, 6, 6);
}

#[test]
fn consumer_dies_with_a_batch_out_of_an_array_record() {
    let mut case = ConsumerDies::new(Wait::Adaptive);
    case.send(0, 2);
    case.send_array(2, 8);
    case.send(10, 2);
    case.kill_after("batch", 3);
    case.expect_rest(3..12, 3 + TAKEN, 3 + TAKEN);
}

/// The heirs of a batch hold one message of it and die as well: the rest of the batch was seen by
/// the first of the dead, so it stays flagged.
#[test]
fn what_a_dead_consumer_saw_stays_flagged_when_its_heirs_die() {
    let mut case = ConsumerDies::new(Wait::Park);
    case.send(0, 12);
    case.kill_after("batch", 4);
    case.kill_after("batch-of-one", 0);
    case.kill_after("hold", 1);
    case.expect_rest(5..12, 4 + TAKEN, 4 + TAKEN);
}

#[test]
fn what_a_dead_consumer_saw_stays_flagged_when_its_heir_leaves() {
    let mut case = ConsumerDies::new(Wait::Park);
    case.send(0, 12);
    case.kill_after("batch", 4);
    case.leave_after("idle", 1);
    case.expect_rest(5..12, 4 + TAKEN, 4 + TAKEN);
}

#[test]
fn what_nobody_saw_is_not_flagged_after_a_clean_leave() {
    let mut case = ConsumerDies::new(Wait::Park);
    case.send(0, 12);
    case.leave_after("batch", 4);
    case.expect_rest(4 + TAKEN..12, 0, 0);
}

/// A release notes how many messages are out, and now and then where the next one is. A death in between
/// costs nothing, whatever was released, and neither does a second one, of an heir who has only
/// just come.
#[test]
fn consumer_dies_in_the_middle_of_a_release() {
    for heirs in 0..=2 {
        for (script, fault, released) in [
            ("hold", "MidRelease:2", 2),
            // In the middle of the array, and behind it.
            ("hold", "MidRelease:3", 3),
            ("hold", "MidRelease:4", 4),
            ("hold", "MidRelease:5", 5),
            // Two records and a part of the third.
            ("batch", "MidRelease:1", TAKEN),
        ] {
            let mut case = ConsumerDies::new(Wait::Park);
            case.send(0, 2);
            case.send_array(2, 2);
            case.send(4, 8);
            let count = if script == "hold" { 10 } else { 0 };
            let mut dead = case.start(script, count, Some(fault));
            if script == "batch" {
                dead.expect("ready");
                dead.tell("release");
            }
            dead.wait_killed();
            for _ in 0..heirs {
                case.kill_after("idle", 0);
            }
            case.send(12, 2);
            case.expect_rest(released..14, 0, LIMIT);
        }
    }
}

#[test]
fn blocked_producer_learns_of_the_death_parked() {
    blocked_producer_learns_of_the_death(Wait::Park);
}

#[test]
fn blocked_producer_learns_of_the_death_adaptive() {
    blocked_producer_learns_of_the_death(Wait::Adaptive);
}

#[test]
fn blocked_producer_learns_of_the_death_spinning() {
    blocked_producer_learns_of_the_death(Wait::Spin);
}

fn blocked_producer_learns_of_the_death(wait: Wait) {
    const HELD: u64 = 2;
    const AFTER: u64 = 100;
    let mut case = ConsumerDies::new(wait);
    case.send(0, HELD + 1);
    let mut consumer = case.start("hold", HELD, None);
    consumer.expect("ready");
    let mut next = HELD + 1;
    let ConsumerDies { scratch, options, mut producer } = case;

    let (sender, events) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // As many as fit, and some more.
        let mut last = None;
        while last.is_none_or(|last| next < last) {
            let claim = match last {
                None => producer.try_claim(body::length(next, 100)),
                Some(_) => producer.claim(body::length(next, 100)),
            };
            match claim {
                Ok(mut claim) => {
                    body::fill(&mut claim, 1, next);
                    claim.commit().unwrap();
                    next += 1;
                }
                Err(error) => {
                    if matches!(error, SendError::Full { .. }) {
                        last = Some(next + AFTER);
                    }
                    sender.send((Instant::now(), error)).unwrap();
                }
            }
        }
        next
    });
    let peer = Peer { pid: consumer.pid() };
    assert_eq!(expect(&events).1, SendError::Full { peer: Some(peer), lag: None });
    // Some time to get into the wait; a death that comes before it is noticed as well.
    std::thread::sleep(Duration::from_millis(20));
    let killed = Instant::now();
    consumer.signal(libc::SIGKILL);
    let (told, error) = expect(&events);
    assert_eq!(error, SendError::PeerDied { peer });
    report(&format!("{wait}: death of the consumer"), told - killed);
    consumer.kill();
    // Told once; then it waits for the successor.
    let quiet = events.recv_timeout(Duration::from_millis(200));
    assert_eq!(quiet, Err(RecvTimeoutError::Timeout));

    let mut successor = Consumer::open(&options).unwrap();
    let mut index = HELD;
    loop {
        match receive(&mut successor) {
            Event::Message { incarnation, index: found, redelivered } => {
                assert_eq!((incarnation, found, redelivered), (1, index, index == HELD));
                index += 1;
            }
            Event::End(error) => {
                assert_eq!(error, RecvError::Disconnected);
                break;
            }
        }
    }
    assert_eq!(index, thread.join().unwrap());
    assert_eq!(events.recv(), Err(mpsc::RecvError));
    drop(successor);
    scratch.assert_no_channels();
}

/// Messages that the script `batch` takes out of a batch of up to [`LIMIT`].
const TAKEN: u64 = 3;
const LIMIT: u64 = 6;

/// A channel with its producer in the test, whose consumers die.
struct ConsumerDies {
    producer: Producer,
    options: Options,
    scratch: Scratch,
}

impl ConsumerDies {
    fn new(wait: Wait) -> Self {
        let scratch = Scratch::new();
        let options = channel::options(&scratch, "heritage", wait);
        Self { producer: Producer::open(&options).unwrap(), options, scratch }
    }

    fn send(&mut self, first: u64, count: u64) {
        for index in first..first + count {
            let mut claim = self.producer.try_claim(body::length(index, 100)).unwrap();
            body::fill(&mut claim, 1, index);
            claim.commit().unwrap();
        }
    }

    /// Sends the messages as one record.
    fn send_array(&mut self, first: u64, count: usize) {
        let len = 40;
        let mut claim = self.producer.try_claim_array(len, count).unwrap();
        for (index, bytes) in (first..).zip(claim.bytes().chunks_mut(len)) {
            body::fill(bytes, 1, index);
        }
        claim.queue(count).unwrap();
        self.producer.flush().unwrap();
    }

    /// Starts a consumer that receives `count` messages and then does as the script says.
    fn start(&self, script: &str, count: u64, fault: Option<&str>) -> PeerProcess {
        let arguments = [&channel::encode(&self.options), script, &count.to_string()];
        PeerProcess::start_with_fault(CONSUMER, &arguments, fault)
    }

    fn kill_after(&self, script: &str, count: u64) {
        let mut consumer = self.start(script, count, None);
        consumer.expect("ready");
        consumer.kill();
    }

    fn leave_after(&self, script: &str, count: u64) {
        let mut consumer = self.start(script, count, None);
        consumer.expect("ready");
        consumer.tell("leave");
        consumer.wait_exited();
    }

    /// A successor gets exactly the messages of `rest`, those below `flagged` flagged, those from
    /// `unflagged` on not. Then both ends close, and nothing is left.
    fn expect_rest(self, rest: Range<u64>, flagged: u64, unflagged: u64) {
        let mut consumer = Consumer::open(&self.options).unwrap();
        for expected in rest {
            match receive(&mut consumer) {
                Event::Message { incarnation, index, redelivered } => {
                    assert_eq!((incarnation, index), (1, expected));
                    assert!(redelivered || index >= flagged, "{index} is not flagged");
                    assert!(!redelivered || index < unflagged, "{index} is flagged");
                }
                Event::End(error) => panic!("{error} before message {expected}"),
            }
        }
        drop(self.producer);
        assert_eq!(receive(&mut consumer), Event::End(RecvError::Disconnected));
        drop(consumer);
        self.scratch.assert_no_channels();
    }
}

const CONSUMER: &str = "consumer";

/// The peer: receives some messages; then the scripts do, until they are told to go on or killed,
/// - `idle`: nothing.
/// - `hold`: keep a guard.
/// - `batch`: keep a batch of up to [`LIMIT`] with [`TAKEN`] taken.
/// - `batch-of-one`: keep a batch of at most one.
fn consume(arguments: &[String]) {
    let [options, script, count] = arguments else { panic!("{arguments:?}") };
    let mut consumer = Consumer::open(&channel::decode(options)).unwrap();
    for _ in 0..count.parse::<u64>().unwrap() {
        body::read(&consumer.recv().unwrap()).unwrap();
    }
    let wait = || {
        say("ready");
        hear();
    };
    match script.as_str() {
        "idle" => wait(),
        "hold" => {
            let held = consumer.recv().unwrap();
            wait();
            body::read(&held).unwrap();
        }
        "batch" | "batch-of-one" => {
            let (limit, take) = if script == "batch" { (LIMIT, TAKEN) } else { (1, 1) };
            let mut batch = consumer.recv_batch(limit as usize, None).unwrap();
            for _ in 0..take {
                batch.next().unwrap().unwrap();
            }
            wait();
        }
        _ => panic!("no script {script:?}"),
    }
}

// ------------------------------------------------------------------------------------ both cases

/// Says how long the news took. The promise is 100 ms on a machine that has the time; here only
/// that it comes.
fn report(what: &str, delay: Duration) {
    println!("{what} was told after {:.1} ms", delay.as_secs_f64() * 1e3);
    assert!(delay < PATIENCE, "{what} took {delay:?}");
}

fn expect<T>(events: &mpsc::Receiver<T>) -> T {
    events.recv_timeout(PATIENCE).unwrap()
}

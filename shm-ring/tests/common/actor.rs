//! The peer that most tests need: a producer that sends as it was told and then waits for its end.

use std::path::Path;

use ringway_shm::{Options, Producer};

use super::peer::{PeerProcess, hear, say};
use super::side::Side;
use super::{body, channel, wait_until};

/// The name of its role.
pub const PRODUCER: &str = "producer";

/// Starts it as `incarnation` on the channel. `script` is one of those of [`produce`]; `done` is
/// the file in whose word 0 it counts what it has committed.
pub fn start_producer(
    options: &Options,
    incarnation: u64,
    script: &str,
    done: &Path,
    fault: Option<&str>,
) -> PeerProcess {
    let (options, incarnation) = (channel::encode(options), incarnation.to_string());
    let arguments = [&options, &incarnation, script, done.to_str().unwrap()];
    PeerProcess::start_with_fault(PRODUCER, &arguments, fault)
}

/// The peer itself. Scripts, where `sent` stands for [`PLAIN`] messages committed one by one:
/// - `plain`: sent.
/// - `claimed`: sent; then a message is claimed and written, but not committed.
/// - `queued`: sent; then some messages are queued and not flushed.
/// - `batches`: queues and flushes, [`BATCH`] at a time, for ever.
/// - `closed-batches`: as `batches`, with a commit instead of the last queue and the flush.
/// - `wraps`: commits messages of all lengths, for ever.
///
/// Then, if not for ever, it says `ready`, waits for a line, closes and ends.
pub fn produce(arguments: &[String]) {
    let [options, incarnation, script, done] = arguments else { panic!("{arguments:?}") };
    let mut sender = Sender {
        producer: Producer::open(&channel::decode(options)).unwrap(),
        incarnation: incarnation.parse().unwrap(),
        next: 0,
        done: Side::open(Path::new(done)),
    };
    match script.as_str() {
        "batches" => loop {
            sender.wait_for_half();
            for _ in 0..BATCH {
                sender.queue();
            }
            sender.producer.flush().unwrap();
            sender.note();
        },
        "closed-batches" => loop {
            sender.wait_for_half();
            for _ in 1..BATCH {
                sender.queue();
            }
            sender.commit(SMALL);
        },
        "wraps" => loop {
            sender.commit(sender.producer.max_len());
        },
        _ => {}
    }
    for _ in 0..PLAIN {
        sender.commit(SMALL);
    }
    match script.as_str() {
        "plain" => say_and_wait(),
        "claimed" => {
            let mut claim = sender.producer.claim(100).unwrap();
            body::fill(&mut claim, sender.incarnation, sender.next);
            say_and_wait();
            claim.commit().unwrap();
        }
        "queued" => {
            for _ in 0..BATCH {
                sender.queue();
            }
            say_and_wait();
        }
        _ => panic!("no script {script:?}"),
    }
}

/// Messages of the scripts that end.
pub const PLAIN: u64 = 20;
/// Messages of a batch; a batch takes less than half a page of ring.
pub const BATCH: u64 = 4;
/// Longest message of most scripts.
const SMALL: usize = 100;

struct Sender {
    producer: Producer,
    incarnation: u64,
    next: u64,
    done: Side,
}

impl Sender {
    fn commit(&mut self, max: usize) {
        let mut claim = self.producer.claim(body::length(self.next, max)).unwrap();
        body::fill(&mut claim, self.incarnation, self.next);
        claim.commit().unwrap();
        self.next += 1;
        self.note();
    }

    fn queue(&mut self) {
        let mut claim = self.producer.claim(body::length(self.next, SMALL)).unwrap();
        body::fill(&mut claim, self.incarnation, self.next);
        claim.queue().unwrap();
        self.next += 1;
    }

    /// Waits until half of the ring is free: with less, a claim in the middle of a batch may have to
    /// publish what was queued.
    fn wait_for_half(&self) {
        wait_until("the consumer to make room", || self.producer.stats().depth <= 2048);
    }

    fn note(&self) {
        self.done.word(0).store_release(self.next);
    }
}

fn say_and_wait() {
    say("ready");
    hear();
}

//! What fork() does to handles: in the child they are dead and harmless, in the parent as before,
//! and a child that lives on does not keep its parent's roles.

#![cfg(not(loom))]

mod common;

use std::time::Duration;

use common::peer::{self, PeerProcess, hear, say};
use common::scratch::Scratch;
use common::survivor::{Event, Survivor, receive};
use common::{body, channel};
use ringway_shm::{
    Consumer, ErrorKind, Kind, MpmcReceiver, MpmcSender, Options, Peer, Producer, RecvError,
    RecvError::Forked as RecvForked, SendError, SendError::Forked as SendForked, Wait,
};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    let options = |at: usize| channel::decode(&words[at]);
    if words[0] == "forks-with-a-queue" {
        return forks_with_a_queue(&words[1]);
    }
    let producer = Producer::open(&options(1)).unwrap();
    let consumer = Consumer::open(&options(2)).unwrap();
    match words[0].as_str() {
        "forks" => forks(producer, consumer, &options(1), &options(2)),
        "forks-and-dies" => forks_and_dies(producer, consumer),
        role => panic!("no role {role:?}"),
    }
}

#[test]
fn handles_are_dead_in_the_child_and_alive_in_the_parent() {
    let mut case = Case::start("forks");
    let mut consumer = Consumer::open(&case.out).unwrap();
    let mut producer = Producer::open(&case.back).unwrap();
    // Each of the two children is made while the peer holds guards of another kind.
    for round in 0..2 {
        for index in 0..3 {
            send(&mut producer, 3 * round + index);
        }
        case.peer.expect("the child found all handles dead");
        // The child closed its copies, and with them nothing of the parent's.
        assert_eq!(Producer::open(&case.out).unwrap_err().kind(), ErrorKind::RoleTaken);
        assert_eq!(Consumer::open(&case.back).unwrap_err().kind(), ErrorKind::RoleTaken);
        case.peer.tell("go on");
        // The guards that were held over the fork do in the parent what they are for.
        for index in 0..3 {
            assert_eq!(receive(&mut consumer), Event::fresh(1, 3 * round + index));
        }
    }
    assert_eq!(receive(&mut consumer), Event::End(RecvError::Disconnected));
    case.peer.wait_exited();
    drop((consumer, producer));
    case.scratch.assert_no_channels();
}

#[test]
fn a_child_that_lives_on_does_not_keep_its_parents_roles() {
    let mut case = Case::start("forks-and-dies");
    let survivor = Survivor::start(&case.out, 2);
    let mut producer = Producer::open(&case.back).unwrap();
    let child = Child(case.peer.line().parse().unwrap());
    survivor.expect_fresh(1, 0, 1);
    let mut next = 0;
    let full = loop {
        match producer.try_claim(100) {
            Ok(mut claim) => {
                body::fill(&mut claim, 1, next);
                claim.commit().unwrap();
                next += 1;
            }
            Err(error) => break error,
        }
    };
    let dead = Peer { pid: case.peer.pid() };
    assert_eq!(full, SendError::Full { peer: Some(dead), lag: None });

    case.peer.kill();
    survivor.expect_end(RecvError::PeerDied { peer: dead });
    let error = producer.claim_timeout(100, common::PATIENCE).unwrap_err();
    assert_eq!(error, SendError::PeerDied { peer: dead });
    // Successors come while the child lives.
    let mut successor = Producer::open(&case.out).unwrap();
    send(&mut successor, 0);
    survivor.expect_fresh(1, 0, 1);
    let mut heir = Consumer::open(&case.back).unwrap();
    for index in 0..next {
        assert!(
            matches!(receive(&mut heir), Event::Message { index: found, .. } if found == index)
        );
    }
    assert!(child.is_alive());
    drop((successor, producer, heir));
    survivor.expect_end(RecvError::Disconnected);
    survivor.finish();
    case.scratch.assert_no_channels();
}

/// A clone is of the handle, which is dead in the child; another handle is not.
#[test]
fn a_child_opens_a_queue_by_its_name_and_clones_nothing() {
    let scratch = Scratch::new();
    let directory = scratch.channels();
    let mut peer = PeerProcess::start("forks-with-a-queue", &[directory.to_str().unwrap()]);
    for _ in 0..2 {
        peer.expect("the child found all handles dead");
        peer.tell("go on");
    }
    peer.wait_exited();
    scratch.assert_no_channels();
}

/// Two channels: on `out` the peer produces, on `back` it consumes.
struct Case {
    out: Options,
    back: Options,
    peer: PeerProcess,
    scratch: Scratch,
}

impl Case {
    fn start(role: &str) -> Self {
        let scratch = Scratch::new();
        let out = channel::options(&scratch, "out", Wait::Park);
        let back = channel::options(&scratch, "back", Wait::Park);
        let mut peer = PeerProcess::start(role, &[&channel::encode(&out), &channel::encode(&back)]);
        peer.expect("open");
        Self { out, back, peer, scratch }
    }
}

/// A grandchild, killed when the test is over.
struct Child(libc::pid_t);

impl Child {
    fn is_alive(&self) -> bool {
        // SAFETY: no pointers; signal 0 is sent to nobody.
        unsafe { libc::kill(self.0, 0) == 0 }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: no pointers. The child does nothing but wait for this, so the id is still its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
        }
    }
}

fn send(producer: &mut Producer, index: u64) {
    let mut claim = producer.claim(100).unwrap();
    body::fill(&mut claim, 1, index);
    claim.commit().unwrap();
}

// ------------------------------------------------------------------------------------- the peer

/// Seconds after which a child is ended by the kernel, whatever happens to everyone else.
const LIFETIME: u32 = 120;

fn forks_and_dies(mut producer: Producer, consumer: Consumer) {
    say("open");
    send(&mut producer, 0);
    let child = fork();
    if child == 0 {
        loop {
            // SAFETY: takes nothing, and returns only after a signal was handled.
            unsafe {
                libc::pause();
            }
        }
    }
    say(child);
    hear();
    drop((producer, consumer));
}

fn forks_with_a_queue(directory: &str) {
    let options = Options {
        directory: Some(directory.into()),
        kind: Some(Kind::Mpmc),
        ..Options::new("queue", channel::schema())
    };
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    for _ in 0..3 {
        sender.try_claim(8).unwrap().commit().unwrap();
    }
    let mut batch = receiver.try_recv_batch(3).unwrap();
    assert!(batch.next().unwrap().is_some());
    if fork() == 0 {
        let mut child = Checks::default();
        child.check(batch.next().is_err_and(|error| error == RecvForked));
        drop(batch);
        child.exit();
    }
    expect_good_end();
    assert!(batch.next().unwrap().is_some() && batch.next().unwrap().is_some());
    assert!(batch.next().unwrap().is_none());
    drop(batch);
    sender.try_claim(3).unwrap().commit().unwrap();
    // Open across the fork, in both processes.
    let mut open = sender.try_claim(4).unwrap();
    open.copy_from_slice(b"ours");
    std::mem::forget(open);
    if fork() == 0 {
        let mut child = Checks::default();
        child.check(!sender.commit_at_once(4));
        child.check(sender.claim_at_once(4).is_none());
        child.check(matches!(sender.try_claim(4), Err(SendError::Forked)));
        child.check(matches!(sender.flush(), Err(SendError::Forked)));
        child.check(receiver.recv_at_once().is_none());
        child.check(matches!(receiver.try_recv(), Err(RecvError::Forked)));
        child.check(matches!(receiver.try_recv_batch(2), Err(RecvError::Forked)));
        for error in [sender.try_clone().err(), receiver.try_clone().err()] {
            child.check(error.is_some_and(|error| error.to_string().contains("before fork()")));
        }
        child.check(MpmcSender::open(&options).is_ok());
        child.exit();
    }
    expect_good_end();
    assert_eq!(receiver.try_recv().unwrap().len(), 3);
    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    assert!(sender.commit_at_once(4));
    assert_eq!(&receiver.recv_at_once().unwrap()[..], b"ours");
    assert!(sender.try_clone().is_ok() && receiver.try_clone().is_ok());
}

fn forks(mut producer: Producer, mut consumer: Consumer, out: &Options, back: &Options) {
    say("open");
    let claim = producer.claim(100).unwrap();
    let received = consumer.recv().unwrap();
    if fork() == 0 {
        let mut child = Checks::default();
        child.check(claim.commit() == Err(SendForked));
        let mut copy = vec![0; received.len()];
        received.copy_to(&mut copy);
        child.check(copy == *received && body::read(&copy) == Ok((1, 0)));
        drop(received);
        child.check_handles(producer, consumer);
        // What the error tells to do; the parent is still there.
        child.check(Producer::open(out).is_err_and(|error| error.kind() == ErrorKind::RoleTaken));
        child.check(Consumer::open(back).is_err_and(|error| error.kind() == ErrorKind::RoleTaken));
        child.exit();
    }
    expect_good_end();
    commit(claim, 0);
    assert_eq!(body::read(&received), Ok((1, 0)));
    drop(received);
    for index in 1..3 {
        assert_eq!(body::read(&consumer.recv().unwrap()), Ok((1, index)));
        send(&mut producer, index);
    }

    let mut array = producer.claim_array(40, 3).unwrap();
    for (index, bytes) in (3..).zip(array.bytes().chunks_mut(40)) {
        body::fill(bytes, 1, index);
    }
    let mut batch = consumer.recv_batch(3, None).unwrap();
    if fork() == 0 {
        let mut child = Checks::default();
        child.check(array.queue(3) == Err(SendForked));
        child.check(batch.next().is_err_and(|error| error == RecvForked));
        drop(batch);
        child.check_handles(producer, consumer);
        child.exit();
    }
    expect_good_end();
    array.queue(3).unwrap();
    producer.flush().unwrap();
    for _ in 0..3 {
        // The test sends them one by one; a batch takes what is there.
        while batch.next().unwrap().is_none() {
            std::thread::yield_now();
        }
    }
    drop(batch);
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
}

/// Forks. The child ends by itself after a while.
fn fork() -> libc::pid_t {
    // SAFETY: the child goes on in this thread alone; the others of this process, those of the test
    // harness, only wait, so no lock is held that the child may want.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: no pointers.
        unsafe {
            libc::alarm(LIFETIME);
        }
    }
    child
}

/// What a child found out. It ends with 0, or with the number of the first check that failed.
#[derive(Default)]
struct Checks {
    number: i32,
    failed: i32,
}

impl Checks {
    fn check(&mut self, ok: bool) {
        self.number += 1;
        if !ok && self.failed == 0 {
            self.failed = self.number;
        }
    }

    /// Everything that can be done with handles from before the fork; in the end they are dropped.
    fn check_handles(&mut self, mut producer: Producer, mut consumer: Consumer) {
        const SHORT: Duration = Duration::from_millis(1);
        self.check(producer.try_claim(8).is_err_and(|error| error == SendForked));
        self.check(producer.claim(8).is_err_and(|error| error == SendForked));
        self.check(producer.claim_timeout(8, SHORT).is_err_and(|error| error == SendForked));
        self.check(producer.claim_run(8).is_none());
        self.check(producer.try_claim_array(8, 2).is_err_and(|error| error == SendForked));
        self.check(producer.claim_array(8, 2).is_err_and(|error| error == SendForked));
        let claim = producer.claim_array_timeout(8, 2, SHORT);
        self.check(claim.is_err_and(|error| error == SendForked));
        self.check(producer.flush() == Err(SendForked));
        self.check(consumer.try_recv().is_err_and(|error| error == RecvForked));
        self.check(consumer.recv().is_err_and(|error| error == RecvForked));
        self.check(consumer.recv_timeout(SHORT).is_err_and(|error| error == RecvForked));
        self.check(consumer.try_recv_batch(2).is_err_and(|error| error == RecvForked));
        self.check(consumer.recv_batch(2, None).is_err_and(|error| error == RecvForked));
        self.check(consumer.recv_batch(2, Some(SHORT)).is_err_and(|error| error == RecvForked));
        // These are no verbs and have no error, but must not fall over.
        let _ = (producer.stats(), producer.peer(), producer.max_len(), producer.publications());
        let _ = (consumer.stats(), consumer.peer());
        drop((producer, consumer));
    }

    fn exit(self) -> ! {
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(self.failed) }
    }
}

impl Drop for Checks {
    /// A panic on its way to the test harness, which is the parent's.
    fn drop(&mut self) {
        // SAFETY: as in `exit`.
        unsafe { libc::_exit(255) }
    }
}

fn expect_good_end() {
    let mut status = 0;
    // SAFETY: `status` may be written. There is no other child.
    let child = unsafe { libc::waitpid(-1, &raw mut status, 0) };
    assert!(child > 0);
    assert_eq!(status, 0, "wait status; its second byte is the number of the check that failed");
    say("the child found all handles dead");
    hear();
}

fn commit(mut claim: ringway_shm::Claim<'_>, index: u64) {
    body::fill(&mut claim, 1, index);
    claim.commit().unwrap();
}

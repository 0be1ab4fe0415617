//! Participants of an MPMC channel are killed by SIGKILL at chosen places; what the others see, and how
//! soon.
//!
//! Kills at random moments, and stops, are in `mpmc_soak.rs`; at every instruction, in `sweep.rs`.

#![cfg(not(loom))]

mod common;

use std::time::{Duration, Instant};

use common::peer::{self, PeerProcess, hear, say};
use common::scratch::Scratch;
use common::{PATIENCE, channel};
use ringway_shm::{
    Kind, MpmcReceiver, MpmcSender, Options, RecvError, Redeliver, SendError, Until, Wait,
};

/// Not a test: what the other process of a test does.
#[test]
fn peer() {
    let Some(words) = peer::role() else { return };
    let [role, directory, slots, wait, redeliver, until] = &words[..] else { panic!("{words:?}") };
    let options = Options {
        directory: Some(directory.into()),
        kind: Some(Kind::Mpmc),
        slots: Some(slots.parse().unwrap()),
        slot: Some(64),
        wait: Some(wait.parse().unwrap()),
        redeliver: Some(if redeliver == "drop" { Redeliver::Drop } else { Redeliver::Again }),
        until: Some(if until == "last" { Until::Last } else { Until::Never }),
        ..Options::new("queue", channel::schema())
    };
    match role.as_str() {
        // Claims a slot, writes it, and never commits.
        "claims" => {
            let mut sender = MpmcSender::open(&options).unwrap();
            let mut claim = sender.claim(1).unwrap();
            claim[0] = 66;
            say("ready");
            hear();
            claim.commit().unwrap();
        }
        // Claims slots for five, queues three, and never flushes.
        "queues" => {
            let mut sender = MpmcSender::open(&options).unwrap();
            sender.reserve(5).unwrap();
            for _ in 0..3 {
                let mut claim = sender.claim(1).unwrap();
                claim[0] = 66;
                claim.queue().unwrap();
            }
            say("ready");
            hear();
        }
        // Sends 0, 1, 2 ... by ones and threes until it dies.
        "sends" => {
            let mut sender = MpmcSender::open(&options).unwrap();
            for number in (0..250).step_by(4) {
                send(&mut sender, number);
                sender.reserve(3).unwrap();
                for number in number + 1..number + 4 {
                    let mut claim = sender.claim(1).unwrap();
                    claim[0] = number;
                    claim.queue().unwrap();
                }
                sender.flush().unwrap();
            }
            say("ready");
            hear();
        }
        // Takes one and keeps it.
        "takes" => {
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            let message = receiver.recv().unwrap();
            say("ready");
            hear();
            drop(message);
        }
        // Takes batches of three until it dies.
        "batches" => {
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            loop {
                let mut batch = receiver.recv_batch(3, None).unwrap();
                while batch.next().unwrap().is_some() {}
            }
        }
        // Comes as a receiver, and waits.
        "comes" => {
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            say("ready");
            let _ = receiver.recv();
        }
        role => panic!("no role {role:?}"),
    }
}

fn options(scratch: &Scratch, slots: u64, wait: Wait) -> Options {
    Options {
        directory: Some(scratch.channels()),
        kind: Some(Kind::Mpmc),
        slots: Some(slots),
        slot: Some(64),
        wait: Some(wait),
        redeliver: Some(Redeliver::Again),
        until: Some(Until::Never),
        ..Options::new("queue", channel::schema())
    }
}

fn start(role: &str, options: &Options, fault: Option<&str>) -> PeerProcess {
    let directory = options.directory.as_ref().unwrap().to_str().unwrap();
    let redeliver = options.redeliver.unwrap().to_string();
    let until = options.until.unwrap().to_string();
    let (slots, wait) = (options.slots.unwrap().to_string(), options.wait.unwrap().to_string());
    PeerProcess::start_with_fault(role, &[directory, &slots, &wait, &redeliver, &until], fault)
}

fn send(sender: &mut MpmcSender, number: u8) {
    let mut claim = sender.claim_timeout(1, PATIENCE).unwrap();
    claim[0] = number;
    claim.commit().unwrap();
}

#[track_caller]
fn take(receiver: &mut MpmcReceiver) -> (u8, bool) {
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    (message[0], message.redelivered())
}

const WAITS: [Wait; 3] = [Wait::Spin, Wait::Adaptive, Wait::Park];

/// How long it took from a kill to what it held up; for the eye, as machines differ.
fn report(what: &str, since: Instant) {
    println!("{what}: {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
}

#[test]
fn a_sender_dies_with_a_claim() {
    for wait in WAITS {
        for role in ["claims", "queues"] {
            let scratch = Scratch::new();
            let options = options(&scratch, 16, wait);
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            let mut sender = MpmcSender::open(&options).unwrap();
            let mut dead = start(role, &options, None);
            dead.expect("ready");
            // Behind the claim; nobody gets it as long as the claimant lives.
            send(&mut sender, 1);
            let timeout = receiver.recv_timeout(Duration::from_millis(120)).map(drop);
            assert_eq!(timeout.unwrap_err(), RecvError::Timeout);
            assert_eq!(receiver.held_up().unwrap().peer.unwrap().pid, dead.pid());
            let killed = Instant::now();
            dead.kill();
            assert_eq!(take(&mut receiver), (1, false));
            report(&format!("{role}, {wait}: a message behind the claim of a dead sender"), killed);
            assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
            assert_eq!(receiver.stats().given_up, 1);
            drop((sender, receiver));
            scratch.assert_no_channels();
        }
    }
}

#[test]
fn a_receiver_dies_with_a_message() {
    for wait in WAITS {
        for redeliver in [Redeliver::Again, Redeliver::Drop] {
            let scratch = Scratch::new();
            let options = Options { redeliver: Some(redeliver), ..options(&scratch, 16, wait) };
            let mut sender = MpmcSender::open(&options).unwrap();
            let mut dead = start("takes", &options, None);
            send(&mut sender, 1);
            dead.expect("ready");
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            let timeout = receiver.recv_timeout(Duration::from_millis(120)).map(drop);
            assert_eq!(timeout.unwrap_err(), RecvError::Timeout);
            let killed = Instant::now();
            dead.kill();
            if redeliver == Redeliver::Again {
                assert_eq!(take(&mut receiver), (1, true));
                report(&format!("{wait}: the message of a dead receiver"), killed);
            } else {
                let start = Instant::now();
                while receiver.stats().dropped == 0 {
                    assert!(start.elapsed() < PATIENCE);
                    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
                }
            }
            assert_eq!(receiver.stats().dropped, u64::from(redeliver == Redeliver::Drop));
            send(&mut sender, 2);
            assert_eq!(take(&mut receiver), (2, false));
            drop((sender, receiver));
            scratch.assert_no_channels();
        }
    }
}

/// A full queue, whose oldest message a dead receiver holds: the sender finds that out, and whoever
/// comes to receive gets it.
#[test]
fn a_sender_waits_behind_a_dead_receiver() {
    for wait in WAITS {
        let scratch = Scratch::new();
        let options = options(&scratch, 4, wait);
        let mut sender = MpmcSender::open(&options).unwrap();
        let mut dead = start("takes", &options, None);
        for number in 0..4 {
            send(&mut sender, number);
        }
        dead.expect("ready");
        assert!(matches!(sender.try_claim(1), Err(SendError::Full { .. })));
        assert_eq!(sender.held_up().unwrap().peer.unwrap().pid, dead.pid());
        let killed = Instant::now();
        dead.kill();
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        let receiving = std::thread::spawn(move || {
            let mut got: Vec<_> = (0..5).map(|_| take(&mut receiver)).collect();
            got.sort_unstable();
            got
        });
        send(&mut sender, 4);
        report(&format!("{wait}: room behind a dead receiver"), killed);
        let expected = [(0, true), (1, false), (2, false), (3, false), (4, false)];
        assert_eq!(receiving.join().unwrap(), expected);
    }
}

/// The kernel kills it between a claim and the publication, after a follower of a batch and before its
/// first, and so on: nothing of a batch comes if not all does, and what was published comes once.
#[test]
fn a_sender_dies_at_named_points() {
    for (fault, at, published) in [
        ("Claimed", 1, 0),
        ("Claimed", 2, 1),
        ("Claimed", 7, 6),
        ("Publishing", 1, 0),
        ("Publishing", 2, 1),
        ("Publishing", 20, 19),
        // Each message has a flag, the first of a batch last: then the batch is there, though the
        // senders' word still names the dead.
        ("Flagged", 1, 1),
        ("Flagged", 2, 1),
        ("Flagged", 3, 1),
        ("Flagged", 4, 2),
        ("Flagged", 13, 7),
    ] {
        let scratch = Scratch::new();
        // Room for all it sends: a claim is then never cut short.
        let options = options(&scratch, 512, Wait::Adaptive);
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        let mut dead = start("sends", &options, Some(&format!("{fault}:{at}")));
        // One message, three, one, ...
        let expected: Vec<u8> = (0..published / 2 * 4 + published % 2).collect();
        for number in expected {
            assert_eq!(take(&mut receiver), (number, false), "{fault}:{at}");
        }
        dead.wait_killed();
        let mut sender = MpmcSender::open(&options).unwrap();
        send(&mut sender, 251);
        assert_eq!(take(&mut receiver), (251, false), "{fault}:{at}");
        assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
        drop((sender, receiver));
        scratch.assert_no_channels();
    }
}

/// What it had not released comes again, flagged; nothing else does, and nothing is missing.
#[test]
fn a_receiver_dies_at_named_points() {
    for fault in ["Taken:1", "Taken:4", "Releasing:1", "Releasing:2", "Releasing:3", "Releasing:8"]
    {
        let scratch = Scratch::new();
        let options = options(&scratch, 16, Wait::Park);
        let mut sender = MpmcSender::open(&options).unwrap();
        for number in 0..16 {
            send(&mut sender, number);
        }
        start("batches", &options, Some(fault)).wait_killed();
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        let (point, at) = fault.split_once(':').unwrap();
        let at: usize = at.parse().unwrap();
        // Batches of three; the last slot of a batch is released first.
        let (released, of_batch): (Vec<u8>, Vec<u8>) = if point == "Taken" {
            let first = (at as u8 - 1) * 3;
            ((0..first).collect(), (first..first + 3).collect())
        } else {
            let first = (at as u8 - 1) / 3 * 3;
            let left = 3 - (at as u8 - first);
            let released = (0..first).chain(first + left..first + 3).collect();
            (released, (first..first + left).collect())
        };
        let mut expected: Vec<_> = (0..16)
            .filter(|number| !released.contains(number))
            .map(|number| (number, of_batch.contains(&number)))
            .collect();
        let mut got: Vec<_> = expected.iter().map(|_| take(&mut receiver)).collect();
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "{fault}");
        assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    }
}

/// Whoever repairs may die of it; the next one does it.
#[test]
fn a_sweeper_dies() {
    for fault in ["SeatTaken", "Repairing", "SeatSwept", "SeatFilled"] {
        let scratch = Scratch::new();
        let options = options(&scratch, 16, Wait::Adaptive);
        let mut sender = MpmcSender::open(&options).unwrap();
        let mut dead = start("takes", &options, None);
        send(&mut sender, 1);
        dead.expect("ready");
        let mut claimant = start("queues", &options, None);
        claimant.expect("ready");
        // All other places are taken, so that who comes next takes one of the dead's.
        let mut others: Vec<_> = (0..61).map(|_| MpmcSender::open(&options).unwrap()).collect();
        dead.kill();
        claimant.kill();
        start("comes", &options, Some(fault)).wait_killed();
        others.pop();
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        send(&mut sender, 2);
        let mut got = [take(&mut receiver), take(&mut receiver)];
        got.sort_unstable();
        assert_eq!(got, [(1, true), (2, false)], "{fault}");
        drop((others, sender, receiver));
        scratch.assert_no_channels();
    }
}

/// A table full of the dead keeps nobody out.
#[test]
fn places_of_the_dead_are_taken() {
    let scratch = Scratch::new();
    let options = options(&scratch, 128, Wait::Park);
    let mut sender = MpmcSender::open(&options).unwrap();
    for number in 0..63 {
        send(&mut sender, number);
    }
    let mut dead: Vec<_> = (0..63).map(|_| start("takes", &options, None)).collect();
    dead.iter_mut().for_each(|peer| peer.expect("ready"));
    assert!(MpmcReceiver::open(&options).is_err());
    dead.iter_mut().for_each(PeerProcess::kill);
    let mut receivers: Vec<_> = (0..3).map(|_| MpmcReceiver::open(&options).unwrap()).collect();
    let mut got: Vec<_> = (0..63).map(|number| take(&mut receivers[number % 3])).collect();
    got.sort_unstable();
    let expected: Vec<_> = (0..63).map(|number| (number, true)).collect();
    assert_eq!(got, expected);
}

/// What those repair who take the places of the dead is counted as what others do.
#[test]
fn what_newcomers_repair_is_counted() {
    let scratch = Scratch::new();
    let options = options(&scratch, 16, Wait::Adaptive);
    let mut sender = MpmcSender::open(&options).unwrap();
    send(&mut sender, 1);
    let mut dead = ["takes", "queues"].map(|role| {
        let mut peer = start(role, &options, None);
        peer.expect("ready");
        peer
    });
    // All other places are taken, so that who comes next takes those of the dead.
    let others: Vec<_> = (0..61).map(|_| sender.try_clone().unwrap()).collect();
    dead.iter_mut().for_each(PeerProcess::kill);
    let newcomers: Vec<_> = (0..2).map(|_| sender.try_clone().unwrap()).collect();
    assert!(sender.try_clone().is_err());
    let stats = sender.stats();
    assert_eq!((stats.returned, stats.given_up), (1, 1));
    drop((others, newcomers));
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    assert_eq!(take(&mut receiver), (1, true));
}

#[test]
fn the_death_of_the_last_sender_is_told_if_that_was_asked_for() {
    for wait in WAITS {
        let scratch = Scratch::new();
        let options = Options { until: Some(Until::Last), ..options(&scratch, 64, wait) };
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        let mut dead = start("queues", &options, None);
        dead.expect("ready");
        dead.kill();
        let Err(RecvError::PeerDied { peer }) = receiver.recv_timeout(PATIENCE).map(drop) else {
            panic!("not told")
        };
        assert_eq!(peer.pid, dead.pid());
        assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    }
}

/// The dead stay in the table for long; what is told is how it ended this time.
#[test]
fn a_death_is_told_once_and_not_for_those_who_come_later() {
    for wait in WAITS {
        let scratch = Scratch::new();
        let options = Options { until: Some(Until::Last), ..options(&scratch, 64, wait) };
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        let mut end = || receiver.recv_timeout(PATIENCE).map(|message| message[0]);
        for _ in 0..2 {
            let mut dead = start("queues", &options, None);
            dead.expect("ready");
            dead.kill();
            let Err(RecvError::PeerDied { peer }) = end() else { panic!("not told") };
            assert_eq!(peer.pid, dead.pid());
            for number in 0..2 {
                send(&mut MpmcSender::open(&options).unwrap(), number);
                assert_eq!(end(), Ok(number));
                assert_eq!(end(), Err(RecvError::Disconnected), "{wait}");
            }
            // Another one dies before the last one leaves.
            let mut sender = MpmcSender::open(&options).unwrap();
            let mut dead = start("queues", &options, None);
            dead.expect("ready");
            send(&mut sender, 2);
            dead.kill();
            assert_eq!(end(), Ok(2), "behind the claim of the dead");
            drop(sender);
            assert_eq!(end(), Err(RecvError::Disconnected), "{wait}");
        }
        drop(receiver);
        scratch.assert_no_channels();
    }
}

/// Who finds no room is not sent to a process that is gone.
#[test]
fn the_dead_are_not_named_in_a_refusal() {
    for wait in WAITS {
        let scratch = Scratch::new();
        let options = options(&scratch, 4, wait);
        let mut sender = MpmcSender::open(&options).unwrap();
        let mut dead = start("takes", &options, None);
        for number in 0..4 {
            send(&mut sender, number);
        }
        dead.expect("ready");
        let Err(SendError::Full { peer: Some(peer), .. }) = sender.try_claim(1) else {
            panic!("somebody is there")
        };
        assert_eq!(peer.pid, dead.pid());
        dead.kill();
        // Long enough to look for the dead.
        let error = sender.claim_timeout(1, Duration::from_millis(120)).map(drop).unwrap_err();
        assert_eq!(error, SendError::Timeout { peer: None, lag: None }, "{wait}");
        assert_eq!(sender.peer(), None);
        let receiver = MpmcReceiver::open(&options).unwrap();
        let Err(SendError::Full { peer: Some(peer), .. }) = sender.try_claim(1) else {
            panic!("somebody is there")
        };
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(sender.peer(), Some(peer));
        drop(receiver);
    }
}

/// The end is told behind the message of a dead receiver, also by the first call after the death.
#[test]
fn the_end_comes_after_what_a_dead_receiver_had() {
    for wait in WAITS {
        for sender_dies in [false, true] {
            let scratch = Scratch::new();
            let options = Options { until: Some(Until::Last), ..options(&scratch, 64, wait) };
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            let mut sender = MpmcSender::open(&options).unwrap();
            let mut dead = start("takes", &options, None);
            send(&mut sender, 1);
            dead.expect("ready");
            let mut last = sender_dies.then(|| start("queues", &options, None));
            if let Some(last) = &mut last {
                last.expect("ready");
            }
            drop(sender);
            if let Some(last) = &mut last {
                last.kill();
            }
            dead.kill();
            let message = receiver.try_recv().unwrap();
            assert_eq!((message[0], message.redelivered()), (1, true), "{wait}");
            drop(message);
            let end = receiver.recv_timeout(PATIENCE).map(drop).unwrap_err();
            match &last {
                None => assert_eq!(end, RecvError::Disconnected, "{wait}"),
                Some(last) => {
                    let RecvError::PeerDied { peer } = end else { panic!("{wait}: {end}") };
                    assert_eq!(peer.pid, last.pid());
                }
            }
            drop(receiver);
            scratch.assert_no_channels();
        }
    }
}

/// As long as a receiver has a message that may come back, the others are told no end; and who it is.
#[test]
fn the_end_comes_after_what_a_living_receiver_has() {
    for wait in WAITS {
        for dies in [false, true] {
            let scratch = Scratch::new();
            let options = Options { until: Some(Until::Last), ..options(&scratch, 16, wait) };
            let mut receiver = MpmcReceiver::open(&options).unwrap();
            let mut sender = MpmcSender::open(&options).unwrap();
            let mut holder = start("takes", &options, None);
            send(&mut sender, 1);
            holder.expect("ready");
            drop(sender);
            assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
            let timeout = receiver.recv_timeout(Duration::from_millis(120)).map(drop);
            assert_eq!(timeout.unwrap_err(), RecvError::Timeout);
            let held_up = receiver.held_up().unwrap();
            assert_eq!((held_up.peer.unwrap().pid, held_up.ticket), (holder.pid(), 0));
            if dies {
                holder.kill();
                assert_eq!(take(&mut receiver), (1, true));
            } else {
                holder.tell("release");
            }
            let end = receiver.recv_timeout(PATIENCE).map(drop).unwrap_err();
            assert_eq!(end, RecvError::Disconnected, "{wait}, {dies}");
            assert_eq!(receiver.held_up(), None);
            assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
            if !dies {
                holder.wait_exited();
            }
            drop(receiver);
            scratch.assert_no_channels();
        }
    }
}

/// A stopped process keeps all that is its own, however long; the others are told who it is.
#[test]
fn a_stopped_claimant_is_never_repaired() {
    let scratch = Scratch::new();
    let options = options(&scratch, 16, Wait::Adaptive);
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let mut stopped = start("claims", &options, None);
    stopped.expect("ready");
    stopped.stop();
    let mut sender = MpmcSender::open(&options).unwrap();
    send(&mut sender, 1);
    for _ in 0..4 {
        let timeout = receiver.recv_timeout(Duration::from_millis(60)).map(drop);
        assert_eq!(timeout.unwrap_err(), RecvError::Timeout);
    }
    let held_up = receiver.held_up().unwrap();
    assert_eq!(held_up.peer.unwrap().pid, stopped.pid());
    assert!(held_up.since >= Duration::from_millis(180), "{held_up:?}");
    stopped.go_on();
    stopped.tell("go on");
    assert_eq!(take(&mut receiver), (66, false));
    assert_eq!(take(&mut receiver), (1, false));
    stopped.wait_exited();
}

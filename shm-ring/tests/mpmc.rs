//! What an MPMC channel promises to those who use it, within one process: who joins and leaves, what comes
//! again, what is refused, what is told. Deaths are in `mpmc_kill.rs`.

#![cfg(not(loom))]

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::scratch::Scratch;
use common::{PATIENCE, channel};
use ringway_shm::mpmc::memory::BoxedMemory;
use ringway_shm::mpmc::{ClaimError, Receiver, Sender, SlotMemory, TakeError};
use ringway_shm::{
    Consumer, ErrorKind, Kind, MpmcBatch, MpmcReceiver, MpmcSender, Options, Producer, Publisher,
    Read, Receiving, RecvError, Redeliver, Schema, SendError, Subscriber, Until, Wait, receiving,
};

fn options(scratch: &Scratch, slots: u64) -> Options {
    Options {
        directory: Some(scratch.channels()),
        kind: Some(Kind::Mpmc),
        slots: Some(slots),
        slot: Some(64),
        ..Options::new("queue", channel::schema())
    }
}

fn send(sender: &mut MpmcSender, bytes: &[u8]) {
    let mut claim = sender.claim_timeout(bytes.len(), PATIENCE).unwrap();
    claim.copy_from_slice(bytes);
    claim.commit().unwrap();
}

#[track_caller]
fn take(receiver: &mut MpmcReceiver) -> Vec<u8> {
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert!(!message.redelivered());
    message.to_vec()
}

#[test]
fn messages_arrive_in_order_and_the_channel_goes_away() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    assert_eq!(sender.max_len(), 56);
    for number in 0..1000_u64 {
        send(&mut sender, &number.to_le_bytes());
        let message = receiver.recv().unwrap();
        assert_eq!((&*message, message.sequence()), (&number.to_le_bytes()[..], number));
    }
    let stats = sender.stats();
    assert_eq!((stats.sent, stats.received, stats.depth, stats.bytes), (1000, 1000, 0, 8000));
    drop((sender, receiver));
    scratch.assert_no_channels();
}

#[test]
fn what_is_not_received_stays() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    send(&mut MpmcSender::open(&options).unwrap(), b"kept");
    assert_eq!(take(&mut MpmcReceiver::open(&options).unwrap()), b"kept");
    scratch.assert_no_channels();
}

#[test]
fn a_full_queue_says_so_and_who_is_there() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    for number in 0..4 {
        send(&mut sender, &[number]);
    }
    assert_eq!(sender.try_claim(1).unwrap_err(), SendError::Full { peer: None, lag: None });
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let own = std::process::id();
    let Err(SendError::Timeout { peer: Some(peer), .. }) =
        sender.claim_timeout(1, Duration::from_millis(1)).map(drop)
    else {
        panic!("no time-out")
    };
    assert_eq!(peer.pid, own);
    let held = receiver.recv().unwrap();
    assert!(sender.try_claim(1).is_err());
    let in_the_way = sender.held_up().unwrap();
    assert_eq!((in_the_way.peer.unwrap().pid, in_the_way.ticket), (own, 0));
    drop(held);
    assert_eq!(sender.held_up(), None);
    send(&mut sender, &[4]);
    for number in 1..5 {
        assert_eq!(take(&mut receiver), [number]);
    }
}

/// The place that is needed next may be another sender's: nobody is told to look at a receiver.
#[test]
fn a_refusal_does_not_take_a_sender_for_a_receiver() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut slow = MpmcSender::open(&options).unwrap();
    let mut other = slow.try_clone().unwrap();
    slow.claim(1).unwrap().queue().unwrap();
    // Once round, to the place that is claimed.
    let error = loop {
        match other.try_claim(1) {
            Ok(claim) => claim.commit().unwrap(),
            Err(error) => break error,
        }
    };
    let own = std::process::id();
    assert!(
        matches!(error, SendError::Full { peer: Some(peer), .. } if peer.pid == own),
        "{error}"
    );
    assert_eq!(other.held_up().unwrap().ticket, 0);
    let text = error.to_string();
    assert!(text.contains(&format!("process {own} has not made room")), "{text}");
    assert!(!text.contains("consumer"), "{text}");
}

/// A claim that is held keeps what comes later waiting, and its holder is named with its age.
#[test]
fn a_slow_claimant_is_named() {
    let scratch = Scratch::new();
    let options = options(&scratch, 8);
    let mut slow = MpmcSender::open(&options).unwrap();
    let mut other = slow.try_clone().unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let claim = slow.claim(1).unwrap();
    send(&mut other, b"later");
    for _ in 0..2 {
        let timeout = receiver.recv_timeout(Duration::from_millis(2)).map(drop);
        assert_eq!(timeout.unwrap_err(), RecvError::Timeout);
    }
    let in_the_way = receiver.held_up().unwrap();
    assert_eq!(in_the_way.peer.unwrap().pid, std::process::id());
    assert!(in_the_way.since >= Duration::from_millis(2), "{in_the_way:?}");
    drop(claim);
    assert_eq!(receiver.held_up(), None);
    assert_eq!(take(&mut receiver), b"later");
}

/// A message is there with its flag; that its sender's word is settled later is nothing wrong, not even to
/// a receiver that looks at everything.
#[test]
fn a_claim_that_is_settled_late_is_sound() {
    let memory = BoxedMemory::new(2, 1);
    let mut senders = [0, 1].map(|owner| Sender::new(memory.clone(), owner));
    let mut receiver = Receiver::new(memory.clone(), 2);
    let [slow, other] = &mut senders;
    slow.try_claim(1).unwrap();
    let claim = memory.sent(0).load_acquire();
    for sender in [&mut *slow, &mut *other] {
        if sender.claimed() == 0 {
            sender.try_claim(1).unwrap();
        }
        sender.fill(0);
        sender.publish();
    }
    let settled = memory.sent(0).load_acquire();
    memory.sent(0).store_release(claim);
    for _ in 0..2 {
        receiver.try_take(1).unwrap();
        receiver.advance();
        receiver.release();
    }
    receiver.doubt();
    assert_eq!(receiver.try_take(1), Err(TakeError::Empty(None)));
    assert!(matches!(other.try_claim(1), Err(ClaimError::Full(Some(_)))), "it is in the way");
    memory.sent(0).store_release(settled);
    other.try_claim(1).unwrap();
    other.publish();
    receiver.doubt();
    assert_eq!(receiver.try_take(1), Err(TakeError::Empty(None)));
}

/// Messages as long as the first one of a batch are shown without a look at how long they are; the queue's end
/// may be between any two of them, and behind it what the lap before left.
#[test]
fn messages_of_a_batch_have_their_own_lengths() {
    let scratch = Scratch::new();
    let options = options(&scratch, 8);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let mut filling = 0_u8;
    for lens in [&[3, 3, 3][..], &[3, 3, 5], &[5], &[5, 5], &[0, 7, 7], &[7, 7, 0], &[0]] {
        // Twice round, whatever the step.
        for _ in 0..16 {
            filling = filling.wrapping_add(1);
            for &len in lens {
                send(&mut sender, &vec![filling; len]);
            }
            let mut batch = receiver.try_recv_batch(5).unwrap();
            for &len in lens {
                assert_eq!(batch.next().unwrap().unwrap().payload, vec![filling; len]);
            }
            assert!(batch.next().unwrap().is_none());
        }
    }
}

/// Slots that lie across lines, and arrays that go on at the queue's beginning.
#[test]
fn an_array_may_lie_across_the_end() {
    let scratch = Scratch::new();
    let options = Options { slot: Some(72), ..options(&scratch, 8) };
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    for round in 0..30_u8 {
        let mut claim = sender.try_claim_array(64, usize::MAX).unwrap();
        assert_eq!(claim.count(), 4, "half of the queue");
        for (number, room) in (0..3).zip(claim.rooms()) {
            room.fill(round * 3 + number);
        }
        claim.queue(3).unwrap();
        sender.flush().unwrap();
        // In part: the second batch begins within the first one's claim.
        let mut number = 0;
        for limit in [1, 4] {
            let mut batch = receiver.try_recv_batch(limit).unwrap();
            while let Some(message) = batch.next().unwrap() {
                assert_eq!(message.payload, [round * 3 + number; 64]);
                number += 1;
            }
        }
        assert_eq!(number, 3);
    }
    sender.reserve(usize::MAX).unwrap();
}

#[test]
fn batches_are_claimed_whole() {
    let scratch = Scratch::new();
    let options = options(&scratch, 16);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    for round in 0..10_u8 {
        sender.reserve(6).unwrap();
        for number in 0..5 {
            let mut claim = sender.try_claim(2).unwrap();
            claim.copy_from_slice(&[round, number]);
            claim.queue().unwrap();
        }
        assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
        sender.flush().unwrap();
        assert_eq!(sender.publications(), u64::from(round) + 1);
        // Two, then three: what a batch does not look at stays this receiver's.
        let mut number = 0;
        for limit in [2, 8] {
            let mut batch = receiver.try_recv_batch(5).unwrap();
            for _ in 0..limit {
                let Some(message) = batch.next().unwrap() else { break };
                assert_eq!(message.payload, [round, number]);
                number += 1;
            }
        }
        assert_eq!(number, 5);
        assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    }
}

/// As many as a claim may have, with one swap, as long as they are free; also across the end.
#[test]
fn a_large_batch_is_one_publication() {
    let scratch = Scratch::new();
    let options = options(&scratch, 1024);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    assert_eq!(sender.batch_max(), 255);
    for round in 1..=20 {
        let count = if round % 2 == 0 { 255 } else { 200 };
        let claim = sender.try_claim_array(8, count).unwrap();
        assert_eq!(claim.count(), count);
        claim.queue(count).unwrap();
        sender.flush().unwrap();
        assert_eq!(sender.publications(), round);
        let mut batch = receiver.try_recv_batch(count).unwrap();
        for _ in 0..count {
            assert!(batch.next().unwrap().is_some());
        }
    }
}

#[test]
fn forgetting_guards_loses_nothing() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    std::mem::forget(sender.claim(8).unwrap());
    send(&mut sender, b"one");
    std::mem::forget(receiver.recv().unwrap());
    assert_eq!(take(&mut receiver), b"one");
    send(&mut sender, b"two");
    assert_eq!(take(&mut receiver), b"two");
}

/// Whatever was shown of it, across the queue's end or not, of one length or several: what a forgotten batch showed is
/// over, and the next call goes on behind it.
#[test]
fn a_batch_that_is_forgotten_goes_on_behind_what_it_showed() {
    let scratch = Scratch::new();
    let options = options(&scratch, 8);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let mut sequence = 0;
    for lens in [[5, 5, 5], [5, 5, 6], [5, 6, 6], [0, 0, 0]] {
        for (shown, limit) in
            (0..=3).flat_map(|shown| (shown.max(1)..5).map(move |limit| (shown, limit)))
        {
            for len in lens {
                send(&mut sender, &vec![len as u8; len]);
            }
            let mut rest = lens.into_iter();
            let mut look = |batch: &mut MpmcBatch<'_>| {
                let Some(message) = batch.next().unwrap() else { return false };
                let len = rest.next().unwrap();
                assert_eq!(message.payload, vec![len as u8; len]);
                assert_eq!((message.sequence, message.redelivered), (sequence, false));
                sequence += 1;
                true
            };
            let mut batch = receiver.try_recv_batch(limit).unwrap();
            for _ in 0..shown {
                assert!(look(&mut batch));
            }
            assert!(shown < limit.min(3) || !look(&mut batch), "no more than the limit");
            std::mem::forget(batch);
            // Goes on in the same claim, as far as it is told.
            if shown < limit.min(3) {
                let mut batch = receiver.batch_again(1);
                assert!(look(&mut batch) && !look(&mut batch));
            }
            while let Ok(mut batch) = receiver.try_recv_batch(limit) {
                while look(&mut batch) {}
            }
            assert_eq!(rest.next(), None);
        }
    }
}

/// What a receiver claimed and did not look at goes to another one, flagged.
#[test]
fn a_receiver_that_leaves_gives_back_what_it_claimed() {
    let scratch = Scratch::new();
    let options = options(&scratch, 16);
    let mut sender = MpmcSender::open(&options).unwrap();
    for number in 0..6 {
        send(&mut sender, &[number]);
    }
    let mut leaving = MpmcReceiver::open(&options).unwrap();
    let mut batch = leaving.try_recv_batch(4).unwrap();
    assert_eq!(batch.next().unwrap().unwrap().payload, [0]);
    drop(batch);
    drop(leaving);
    assert_eq!(sender.stats().returned, 3);
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let mut got = vec![];
    while let Ok(message) = receiver.try_recv() {
        got.push((message[0], message.redelivered()));
    }
    got.sort_unstable();
    assert_eq!(got, [(1, true), (2, true), (3, true), (4, false), (5, false)]);
}

#[test]
fn the_end_is_told_once_if_that_was_asked_for() {
    let scratch = Scratch::new();
    let options = Options { until: Some(Until::Last), ..options(&scratch, 8) };
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    let mut other = receiver.try_clone().unwrap();
    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    for round in 0..3 {
        let mut first = MpmcSender::open(&options).unwrap();
        let mut last = first.try_clone().unwrap();
        send(&mut first, &[round]);
        drop(first);
        assert_eq!(take(&mut receiver), [round]);
        assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
        send(&mut last, &[round]);
        drop(last);
        assert_eq!(take(&mut receiver), [round]);
        for receiver in [&mut receiver, &mut other] {
            let told = receiver.recv_timeout(PATIENCE).map(drop);
            assert_eq!(told.unwrap_err(), RecvError::Disconnected);
            assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
        }
    }
    drop((receiver, other));
    scratch.assert_no_channels();
}

/// Who asks for what others have not released is told of the oldest, wherever in the ring it is.
#[test]
fn what_others_have_is_found() {
    let memory = BoxedMemory::new(8, 1);
    let mut sender = Sender::new(memory.clone(), 0);
    let [mut first, mut other, mut asking] =
        [1, 2, 3].map(|owner| Receiver::new(memory.clone(), owner));
    let mut send = |count| {
        for _ in 0..count {
            sender.try_claim(1).unwrap();
            sender.fill(1);
            sender.publish();
        }
    };
    let take = |receiver: &mut Receiver<_>, count| {
        receiver.try_take(count).unwrap();
        assert_eq!(receiver.held(), count);
    };
    let mut ask = || {
        assert!(matches!(asking.try_take(1), Err(TakeError::Empty(_))));
        asking.held_elsewhere().map(|holder| (holder.owner, holder.ticket))
    };
    assert_eq!(ask(), None);
    for _ in 0..6 {
        send(1);
        take(&mut first, 1);
        first.advance();
        first.release();
    }
    assert_eq!(ask(), None);
    // Across the end, and given back from the front.
    send(5);
    take(&mut first, 4);
    take(&mut other, 1);
    for ticket in 6..10 {
        assert_eq!(ask(), Some((Some(1), ticket)));
        first.advance();
        first.release();
    }
    assert_eq!(ask(), Some((Some(2), 10)));
    other.give_back();
    assert_eq!(
        asking.held_elsewhere().map(|holder| (holder.owner, holder.ticket)),
        Some((None, 10))
    );
}

#[test]
fn many_at_once_lose_and_double_nothing() {
    // Where all have to share one core, one of them may see the others get everything, turn after turn:
    // nobody promises a share. So this bounds a hang, and not how long one of them goes away empty.
    const VERY_LONG: Duration = Duration::from_secs(1200);
    // Who spins on a shared core gets a slot or a message for each of its turns.
    for (wait, slots, each) in [
        (Wait::Spin, 8, 1000),
        (Wait::Adaptive, 64, 3000),
        (Wait::Park, 4, 3000),
        (Wait::Adaptive, 2, 3000),
    ] {
        let scratch = Scratch::new();
        let options =
            Options { wait: Some(wait), until: Some(Until::Last), ..options(&scratch, slots) };
        let receiver = MpmcReceiver::open(&options).unwrap();
        let receivers: Vec<_> = (0..3)
            .map(|index| {
                let mut receiver = receiver.try_clone().unwrap();
                std::thread::spawn(move || {
                    let mut got: Vec<(u64, u64)> = vec![];
                    let word = |bytes: &[u8], at: usize| {
                        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
                    };
                    loop {
                        let mut batch = match receiver.recv_batch(1 + 3 * index, Some(VERY_LONG)) {
                            Ok(batch) => batch,
                            Err(RecvError::Disconnected) => return got,
                            Err(error) => panic!("{error}"),
                        };
                        while let Some(message) = batch.next().unwrap() {
                            assert!(!message.redelivered);
                            got.push((word(message.payload, 0), word(message.payload, 8)));
                        }
                    }
                })
            })
            .collect();
        let sender = MpmcSender::open(&options).unwrap();
        let senders: Vec<_> = (0..3_u64)
            .map(|from| {
                let mut sender = sender.try_clone().unwrap();
                std::thread::spawn(move || {
                    for number in 0..each {
                        if number % 7 == from {
                            sender.reserve(3).unwrap();
                        }
                        let mut claim = sender.claim_timeout(16, VERY_LONG).unwrap();
                        claim[..8].copy_from_slice(&from.to_le_bytes());
                        claim[8..].copy_from_slice(&number.to_le_bytes());
                        if number % 7 < 2 { claim.queue() } else { claim.commit() }.unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        for sender in senders {
            sender.join().unwrap();
        }
        let mut all = HashSet::new();
        for receiver in receivers {
            let mut last: HashMap<u64, u64> = HashMap::new();
            for (from, number) in receiver.join().unwrap() {
                assert!(all.insert((from, number)), "{number} of {from} came twice");
                let before = last.insert(from, number);
                assert!(before.is_none_or(|before| before < number), "{from}: out of order");
            }
        }
        assert_eq!(all.len() as u64, 3 * each, "{wait}, {slots} slots");
        drop(receiver);
        scratch.assert_no_channels();
    }
}

// --------------------------------------------------------------------------------------- bad input

#[test]
fn a_message_too_large_is_refused() {
    let scratch = Scratch::new();
    let mut sender = MpmcSender::open(&options(&scratch, 4)).unwrap();
    assert_eq!(sender.try_claim(57).unwrap_err(), SendError::TooLarge { len: 57, max: 56 });
    sender.try_claim(56).unwrap().commit().unwrap();
    assert_eq!(MpmcReceiver::open(&options(&scratch, 4)).unwrap().recv().unwrap().len(), 56);
}

#[test]
fn other_options_are_refused_with_both_sides_printed() {
    let scratch = Scratch::new();
    let given = options(&scratch, 4);
    let _sender = MpmcSender::open(&given).unwrap();
    for (other, text) in [
        (Options { slots: Some(8), ..given.clone() }, "slots=8"),
        (Options { slot: Some(128), ..given.clone() }, "slot=128"),
        (Options { redeliver: Some(Redeliver::Drop), ..given.clone() }, "redeliver=drop"),
        (Options { until: Some(Until::Last), ..given.clone() }, "until=last"),
        (Options { wait: Some(Wait::Park), ..given.clone() }, "wait=park"),
    ] {
        let error = MpmcReceiver::open(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OptionMismatch, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("slots=4"), "{error}");
    }
    // As it is.
    let left_open = Options { slots: None, slot: None, ..given.clone() };
    MpmcReceiver::open(&left_open).unwrap();
    let spsc = Options { kind: None, slots: None, slot: None, ..given };
    let error = Producer::open(&Options { kind: Some(Kind::Spsc), ..spsc }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OptionMismatch, "{error}");
}

/// Nobody releases what was given up.
#[test]
fn who_passes_over_slots_wakes_senders_that_wait_for_them() {
    let scratch = Scratch::new();
    let options = Options { wait: Some(Wait::Park), ..options(&scratch, 2) };
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    // A sender that looks again by itself, just then, needs no waking: now and then it does.
    for _ in 0..100 {
        for _ in 0..2 {
            drop(sender.claim_timeout(8, PATIENCE).unwrap());
        }
        let parks = receiver.stats().producer_parks;
        std::thread::scope(|scope| {
            scope.spawn(|| send(&mut sender, b"third"));
            while receiver.stats().producer_parks == parks {
                std::thread::yield_now();
            }
            assert_eq!(take(&mut receiver), b"third");
        });
        // One wake is of the message's release.
        if receiver.stats().consumer_wakes > 0 {
            return;
        }
    }
    panic!("nobody was woken");
}

#[test]
fn a_batch_of_none_takes_none() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receivers = [(); 2].map(|()| MpmcReceiver::open(&options).unwrap());
    send(&mut sender, b"one");
    assert!(receivers[0].try_recv_batch(0).unwrap().next().unwrap().is_none());
    assert!(receivers[0].recv_batch(0, None).unwrap().next().unwrap().is_none());
    assert_eq!(take(&mut receivers[1]), b"one");
}

/// A producer of its own would find no consumer, and clear the queue away as a predecessor's segment.
#[test]
fn handles_of_channels_with_roles_refuse_it_and_leave_it_alone() {
    let scratch = Scratch::new();
    let given = options(&scratch, 4);
    let mut sender = MpmcSender::open(&given).unwrap();
    send(&mut sender, b"first");
    let left_open = Options { kind: None, slots: None, slot: None, ..given.clone() };
    for options in [&left_open, &given] {
        for error in [
            Producer::open(options).map(drop).unwrap_err(),
            Publisher::open(options).map(drop).unwrap_err(),
            Consumer::open(options).map(drop).unwrap_err(),
            Subscriber::open(options, Read::Every).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::OptionMismatch, "{error}");
            assert!(error.to_string().contains("`MpmcSender` and `MpmcReceiver`"), "{error}");
        }
    }
    // Whoever leaves the kind open takes what is there.
    let Ok(Receiving::Shared(mut receiver)) = receiving(&left_open, Read::Every) else {
        panic!("another kind of end")
    };
    assert_eq!(take(&mut receiver), b"first");
    drop((sender, receiver));
    // They make none, either.
    Producer::open(&given).map(drop).unwrap_err();
    scratch.assert_no_channels();
}

/// Slots adjoin, and lie across cache lines: each holds as much as it says, and no more.
#[test]
fn messages_fill_slots_of_any_size() {
    for slot in [16, 24, 72, 80, 136, 264] {
        let scratch = Scratch::new();
        let options = Options { slot: Some(slot), ..options(&scratch, 8) };
        let mut sender = MpmcSender::open(&options).unwrap();
        let mut receiver = MpmcReceiver::open(&options).unwrap();
        let len = slot as usize - 8;
        assert_eq!(sender.max_len(), len);
        for round in 0..5_u8 {
            for number in 0..8 {
                send(&mut sender, &vec![round << 4 | number; len]);
            }
            for number in 0..8 {
                assert_eq!(take(&mut receiver), vec![round << 4 | number; len], "slot {slot}");
            }
        }
        let error = sender.try_claim(len + 1).unwrap_err();
        assert_eq!(error, SendError::TooLarge { len: len + 1, max: len });
    }
}

/// Where messages have parts that need it, slots keep them at multiples of 16.
#[test]
fn slots_of_aligned_messages_are_multiples_of_sixteen() {
    let scratch = Scratch::new();
    let given = options(&scratch, 4);
    let schema = Schema { payload_align: 16, ..given.schema.clone() };
    let given = Options { schema, ..given };
    let error = MpmcSender::open(&Options { slot: Some(72), ..given.clone() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOption, "{error}");
    assert!(error.to_string().contains("slot=80"), "{error}");
    let mut sender = MpmcSender::open(&Options { slot: Some(80), ..given }).unwrap();
    assert_eq!(sender.max_len(), 64);
    for _ in 0..4 {
        let claim = sender.try_claim(64).unwrap();
        assert!(claim.as_ptr().cast::<u128>().is_aligned());
        claim.commit().unwrap();
    }
}

/// A claim whose guard was forgotten is finished by its sender.
#[test]
fn what_was_left_open_is_finished() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    // Nothing is open.
    assert!(!sender.commit_at_once(5));
    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    let mut claim = sender.try_claim(5).unwrap();
    claim.copy_from_slice(b"hello");
    std::mem::forget(claim);
    // The same room is granted again.
    sender.try_claim(5).unwrap().queue().unwrap();
    // What is queued is not all there is to publish.
    assert!(!sender.commit_at_once(5));
    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    sender.flush().unwrap();
    assert_eq!(take(&mut receiver), b"hello");
    std::mem::forget(sender.try_claim(5).unwrap());
    // More than the slot has is not what was claimed.
    assert!(!sender.commit_at_once(57));
    assert_eq!(receiver.try_recv().unwrap_err(), RecvError::Empty);
    assert!(sender.commit_at_once(56));
    assert_eq!(take(&mut receiver).len(), 56);
    // A message that was forgotten is given back once.
    send(&mut sender, b"once");
    std::mem::forget(receiver.try_recv().unwrap());
    receiver.give_back();
    receiver.give_back();
    assert_eq!(receiver.stats().received, 3);
}

#[test]
fn values_that_no_queue_has_are_refused() {
    let scratch = Scratch::new();
    let given = options(&scratch, 4);
    for (bad, remedy) in [
        (Options { slots: Some(0), ..given.clone() }, "slots=2"),
        (Options { slots: Some(5), ..given.clone() }, "slots=8"),
        (Options { slot: Some(100), ..given.clone() }, "slot=104"),
        (Options { slot: Some(0), ..given.clone() }, "slot=16"),
        (Options { slot: Some(u32::MAX), ..given.clone() }, "slot=1048560"),
        (Options { slots: Some(1 << 24), slot: Some(1 << 19), ..given.clone() }, "slots=8192"),
        (Options { capacity: Some(1 << 20), ..given.clone() }, "slots=4096&slot=256"),
    ] {
        let error = MpmcSender::open(&bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOption, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
    scratch.assert_no_channels();
}

#[test]
fn a_participant_too_many_is_refused_and_the_others_go_on() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    let mut receivers: Vec<_> = (0..63).map(|_| MpmcReceiver::open(&options).unwrap()).collect();
    let error = sender.try_clone().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken, "{error}");
    assert!(error.to_string().contains("64"), "{error}");
    send(&mut sender, b"on");
    assert_eq!(take(&mut receivers[40]), b"on");
    drop(receivers.pop());
    sender.try_clone().unwrap();
}

/// Set in a child: the directory in which it goes from one working directory to another.
const MOVED: &str = "RINGWAY_MPMC_MOVED";

/// A working directory is the process's, so this is a child's affair.
#[test]
fn a_clone_is_of_the_same_channel_wherever_the_process_has_gone() {
    let Some(root) = std::env::var_os(MOVED) else {
        const NAME: &str = "a_clone_is_of_the_same_channel_wherever_the_process_has_gone";
        let scratch = Scratch::new();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture"]).env(MOVED, scratch.channels());
        let status = child.status().unwrap();
        assert!(status.success(), "{status}");
        return;
    };
    let root = Path::new(&root);
    for part in ["here/chan", "there/chan", "nowhere"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    std::env::set_current_dir(root.join("here")).unwrap();
    let options = Options {
        directory: Some("chan".into()),
        kind: Some(Kind::Mpmc),
        ..Options::new("queue", channel::schema())
    };
    let sender = MpmcSender::open(&options).unwrap();
    let mut receiver = MpmcReceiver::open(&options).unwrap();
    for (part, byte) in [("there", 1), ("nowhere", 2)] {
        std::env::set_current_dir(root.join(part)).unwrap();
        send(&mut sender.try_clone().unwrap(), &[byte]);
        assert_eq!(receiver.try_recv().unwrap()[..], [byte], "{part}");
        drop(receiver.try_clone().unwrap());
    }
}

#[test]
fn a_channel_that_was_made_anew_is_not_cloned_into() {
    let scratch = Scratch::new();
    let options = options(&scratch, 4);
    let mut sender = MpmcSender::open(&options).unwrap();
    let receiver = MpmcReceiver::open(&options).unwrap();
    let refused = || {
        for error in [sender.try_clone().unwrap_err(), receiver.try_clone().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::NoDirectory, "{error}");
            let text = error.to_string();
            assert!(text.contains("was removed") && text.contains("open the channel"), "{text}");
        }
    };
    fs::remove_dir_all(scratch.channels().join("queue")).unwrap();
    refused();
    scratch.assert_no_channels();
    let mut anew = MpmcReceiver::open(&options).unwrap();
    refused();
    // The handles that are open are as good as before.
    send(&mut sender, b"old");
    assert_eq!(anew.try_recv().unwrap_err(), RecvError::Empty);
    drop((sender, receiver, anew));
    scratch.assert_no_channels();
}

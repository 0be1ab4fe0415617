//! Models of the MPMC queue: every interleaving of two or three participants of a small one, and every
//! order in which their stores may become visible. Deaths, and more participants in sequentially
//! consistent memory, are in `mpmc_model.rs`. Run by
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ringway-shm --test loom_mpmc`.
//!
//! Payload accesses are reported to loom by `BoxedMemory`, so an access that the orderings do not allow
//! is found as a data race, also where the bytes happen to be right.

#![cfg(loom)]

use std::sync::Arc;
use std::time::Duration;

use ringway_shm::layout::Sleepers;
use ringway_shm::mpmc::memory::BoxedMemory;
use ringway_shm::mpmc::{
    ClaimError, Owner, Receiver, Redeliver, Sender, SlotMemory, TakeError, bell, sweep,
};
use ringway_shm::sync::{Dekker, Word, Word32, mutation};

/// Explores with at most so many preemptions.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Sends `values` as one claim, or as several if there is no room for all.
fn send(sender: &mut Sender<BoxedMemory>, mut values: &[u8]) {
    while !values.is_empty() {
        match sender.try_claim(values.len() as u64) {
            Ok(()) if sender.claimed() == 1 => {
                // SAFETY: claimed and not filled, one byte of room.
                unsafe { sender.payload().write(values[0]) };
                sender.publish_one(1);
                values = &values[1..];
            }
            Ok(()) => {
                let (now, later) = values.split_at(sender.claimed() as usize);
                for value in now {
                    // SAFETY: claimed and not filled, one byte of room.
                    unsafe { sender.payload().write(*value) };
                    sender.fill(1);
                }
                sender.publish();
                values = later;
            }
            Err(ClaimError::Full(_)) => loom::thread::yield_now(),
            Err(ClaimError::Corrupt(fault)) => panic!("{fault}"),
        }
    }
}

/// Takes up to `most` messages, if any are there.
fn try_take(receiver: &mut Receiver<BoxedMemory>, most: u64) -> Vec<(u8, bool)> {
    receiver.notice_returns();
    match receiver.try_take(most) {
        Ok(()) => {}
        Err(TakeError::Empty(_)) => return vec![],
        Err(TakeError::Corrupt(fault)) => panic!("{fault}"),
    }
    let mut got = vec![];
    while let Some(message) = receiver.message().unwrap() {
        assert_eq!(message.len, 1);
        // SAFETY: claimed and not released.
        got.push((unsafe { message.payload.read() }, message.redelivered));
        receiver.advance();
    }
    receiver.release();
    got
}

/// Takes `count` messages, waiting for them.
fn take(receiver: &mut Receiver<BoxedMemory>, count: usize, most: u64) -> Vec<u8> {
    let mut got = vec![];
    while got.len() < count {
        let now = try_take(receiver, most);
        if now.is_empty() {
            loom::thread::yield_now();
        }
        got.extend(now.into_iter().map(|(value, _)| value));
    }
    got
}

#[test]
fn a_slot_is_used_again() {
    explore(3, || {
        let memory = BoxedMemory::new(2, 1);
        let mut sender = Sender::new(memory.clone(), 0);
        let mut receiver = Receiver::new(memory, 1);
        let sending = loom::thread::spawn(move || {
            for value in [1, 2, 3] {
                send(&mut sender, &[value]);
            }
        });
        assert_eq!(take(&mut receiver, 3, 1), [1, 2, 3]);
        sending.join().unwrap();
    });
}

#[test]
fn two_senders_meet() {
    explore(2, || {
        let memory = BoxedMemory::new(2, 1);
        let senders: Vec<_> = (0..2)
            .map(|owner| {
                let mut sender = Sender::new(memory.clone(), owner);
                loom::thread::spawn(move || send(&mut sender, &[owner as u8 + 1]))
            })
            .collect();
        let mut got = take(&mut Receiver::new(memory, 2), 2, 1);
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn two_receivers_meet() {
    explore(2, || {
        let memory = BoxedMemory::new(2, 1);
        send(&mut Sender::new(memory.clone(), 0), &[1]);
        send(&mut Sender::new(memory.clone(), 0), &[2]);
        let mut other = Receiver::new(memory.clone(), 1);
        let receiving = loom::thread::spawn(move || try_take(&mut other, 1));
        let mut got = try_take(&mut Receiver::new(memory.clone(), 2), 1);
        got.extend(receiving.join().unwrap());
        got.extend(try_take(&mut Receiver::new(memory, 3), 2));
        got.sort_unstable();
        assert_eq!(got, [(1, false), (2, false)]);
    });
}

/// Of a claim that covers several slots a receiver sees nothing or all, and gives it back as a whole.
#[test]
fn a_run_is_all_or_nothing() {
    explore(3, || {
        let memory = BoxedMemory::new(4, 1);
        let mut sender = Sender::new(memory.clone(), 0);
        let mut receiver = Receiver::new(memory, 1);
        let sending = loom::thread::spawn(move || {
            send(&mut sender, &[1, 2]);
            send(&mut sender, &[3, 4]);
            send(&mut sender, &[5]);
        });
        let first = try_take(&mut receiver, 2);
        assert!(first.is_empty() || first == [(1, false), (2, false)], "{first:?}");
        let rest = take(&mut receiver, 5 - first.len(), 2);
        assert_eq!(rest, [1, 2, 3, 4, 5][first.len()..]);
        sending.join().unwrap();
    });
}

/// A message whose receiver is dead comes again, while the queue goes on.
#[test]
fn what_the_dead_held_comes_again() {
    explore(2, || {
        let memory = BoxedMemory::new(2, 1);
        send(&mut Sender::new(memory.clone(), 0), &[1]);
        let mut dead = Receiver::new(memory.clone(), 1);
        dead.try_take(1).unwrap();
        let sweeper = memory.clone();
        let sweeping = loom::thread::spawn(move || {
            let done = sweep(&sweeper, 1, Redeliver::Again, &|_: Owner| true);
            assert_eq!(done.fault, None);
        });
        let mut sender = Sender::new(memory.clone(), 0);
        let sending = loom::thread::spawn(move || send(&mut sender, &[2]));
        let mut receiver = Receiver::new(memory, 2);
        let mut got = vec![];
        while got.len() < 2 {
            let now = try_take(&mut receiver, 1);
            if now.is_empty() {
                loom::thread::yield_now();
            }
            got.extend(now);
        }
        got.sort_unstable();
        assert_eq!(got, [(1, true), (2, false)]);
        sweeping.join().unwrap();
        sending.join().unwrap();
    });
}

/// Two repair the same claim, and a sender uses the slot again at once.
#[test]
fn two_repair_at_once() {
    explore(2, || {
        let memory = BoxedMemory::new(2, 1);
        let mut dead = Sender::new(memory.clone(), 0);
        dead.try_claim(1).unwrap();
        let sweepers: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                loom::thread::spawn(move || {
                    let done = sweep(&memory, 0, Redeliver::Again, &|_: Owner| true);
                    assert_eq!(done.fault, None);
                })
            })
            .collect();
        let mut sender = Sender::new(memory.clone(), 1);
        let mut receiver = Receiver::new(memory, 2);
        send(&mut sender, &[7]);
        assert_eq!(take(&mut receiver, 1, 1), [7]);
        for sweeper in sweepers {
            sweeper.join().unwrap();
        }
    });
}

fn sleepers() -> Arc<(Sleepers, [Word32; 2])> {
    let sleepers = Sleepers { bits: Word::new(0), fences: Word32::new(0) };
    bell::attach(&sleepers);
    Arc::new((sleepers, [Word32::new(0), Word32::new(0)]))
}

/// One message, and a receiver that sleeps whenever it finds nothing. Sleeps have no time-out in a model:
/// a lost wake-up is a deadlock, which loom reports.
fn sleep_until_message() {
    let memory = BoxedMemory::new(2, 1);
    let bells = sleepers();
    let mut sender = Sender::new(memory.clone(), 0);
    let waker = bells.clone();
    let sending = loom::thread::spawn(move || {
        send(&mut sender, &[1]);
        bell::wake(&waker.0, 1, false, |seat| &waker.1[usize::from(seat)]);
    });
    let mut receiver = Receiver::new(memory, 1);
    let mut got = vec![];
    while got.is_empty() {
        got = try_take(&mut receiver, 1);
        if got.is_empty() {
            let seen = bell::announce(&bells.0, 1, &bells.1[1]);
            got = try_take(&mut receiver, 1);
            if got.is_empty() {
                bell::sleep(&bells.1[1], seen, Duration::MAX);
            }
            bell::awake(&bells.0, 1);
        }
    }
    sending.join().unwrap();
    assert_eq!(bells.0.bits.load_relaxed(), 0);
}

#[test]
fn no_wake_up_is_lost() {
    explore(3, sleep_until_message);
}

/// Who sleeps uses a locked instruction to raise its flag, which is a fence on x86, but not in the model.
#[test]
fn without_the_wakers_fence_a_wake_up_is_lost() {
    for place in [Dekker::Waker, Dekker::Sleeper] {
        let outcome = std::panic::catch_unwind(|| {
            mutation::without(place, || explore(3, sleep_until_message));
        });
        assert!(outcome.is_err(), "the model does not notice that the {place:?} fence is gone");
    }
}

/// Two who have announced that they sleep, with one message there and another to come. Who finds its message in the
/// last look before it sleeps may be woken for the other one. `passes_on`: it then wakes somebody in its place, as
/// `Party::awake` does.
fn wake_two_sleepers(passes_on: bool) {
    let bells = sleepers();
    let messages = Arc::new(Word::new(1));
    let receive =
        move |seat: u16, mut seen: u32, bells: &(Sleepers, [Word32; 2]), messages: &Word| {
            let rung = &bells.1[usize::from(seat)];
            loop {
                let found = loop {
                    let there = messages.load_acquire();
                    if there == 0 || messages.replace(there, there - 1).is_ok() {
                        break there > 0;
                    }
                };
                if !found {
                    bell::sleep(rung, seen, Duration::MAX);
                }
                let was_woken = !bell::awake(&bells.0, seat);
                if found {
                    if was_woken && passes_on {
                        bell::wake(&bells.0, 1, false, |seat| &bells.1[usize::from(seat)]);
                    }
                    break;
                }
                seen = bell::announce(&bells.0, seat, rung);
            }
        };
    let seen = [0, 1].map(|seat| bell::announce(&bells.0, seat, &bells.1[usize::from(seat)]));
    let (others_bells, others_messages) = (bells.clone(), messages.clone());
    let other = loom::thread::spawn(move || receive(1, seen[1], &others_bells, &others_messages));
    let (wakers_bells, wakers_messages) = (bells.clone(), messages.clone());
    let sending = loom::thread::spawn(move || {
        wakers_messages.add(1);
        bell::wake(&wakers_bells.0, 1, false, |seat| &wakers_bells.1[usize::from(seat)]);
    });
    receive(0, seen[0], &bells, &messages);
    other.join().unwrap();
    sending.join().unwrap();
}

#[test]
fn a_wake_up_for_who_is_awake_goes_to_another() {
    explore(3, || wake_two_sleepers(true));
    let outcome = std::panic::catch_unwind(|| explore(3, || wake_two_sleepers(false)));
    assert!(outcome.is_err(), "the model does not notice that nobody passes it on");
}

/// The senders' side of the bell is the same code; what differs is what they wait for.
#[test]
fn sleep_until_room() {
    explore(2, || {
        let memory = BoxedMemory::new(2, 1);
        let bells = sleepers();
        let mut sender = Sender::new(memory.clone(), 0);
        send(&mut sender, &[1]);
        send(&mut sender, &[2]);
        let waker = bells.clone();
        let mut receiver = Receiver::new(memory, 1);
        let receiving = loom::thread::spawn(move || {
            assert_eq!(take(&mut receiver, 1, 1), [1]);
            bell::wake(&waker.0, 1, false, |seat| &waker.1[usize::from(seat)]);
        });
        while sender.try_claim(1).is_err() {
            let seen = bell::announce(&bells.0, 0, &bells.1[0]);
            let claimed = sender.try_claim(1).is_ok();
            if !claimed {
                bell::sleep(&bells.1[0], seen, Duration::MAX);
            }
            bell::awake(&bells.0, 0);
            if claimed {
                break;
            }
        }
        assert_eq!(sender.memory().slots(), 2);
        receiving.join().unwrap();
    });
}

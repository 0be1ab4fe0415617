//! Messages flow: both sides binding, every way to wait, all lengths, batches, a full ring.

use std::thread;
use std::time::{Duration, Instant};

use ringway_net::{Io, NetReceiver, NetSender, Options, RecvError, SendError, Side, Wait};

use super::support::{
    PATIENCE, WAITS, bound_receiver, bound_sender, check, expect, fill, length, options, send, to,
    wait_until,
};

const MAX: usize = 3000;

#[test]
fn every_message_once_and_in_order() {
    for wait in WAITS {
        for bound in [bound_receiver, bound_sender] {
            let mut options = options(0);
            options.wait = wait;
            let (mut tx, mut rx) = bound(&options);
            let sender = thread::spawn(move || {
                for index in 0..20_000 {
                    send(&mut tx, index, MAX);
                }
                tx.close(PATIENCE).unwrap();
            });
            for index in 0..20_000 {
                expect(&mut rx, index, MAX);
            }
            assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
            // The close waits for what this end still has to say.
            while !sender.is_finished() {
                assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
            }
            sender.join().unwrap();
        }
    }
}

#[test]
fn one_thread_may_have_both_ends() {
    for bound in [bound_sender, bound_receiver] {
        let (mut tx, mut rx) = bound(&options(0));
        for index in 0..2000 {
            send(&mut tx, index, MAX);
            expect(&mut rx, index, MAX);
        }
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        assert_eq!((tx.peer().is_some(), rx.peer().is_some()), (true, true));
        assert_eq!((rx.stats().messages, rx.stats().violations), (2000, 0));
    }
}

/// Rings that run empty now and then keep to their fronts, and nothing is written over that is still needed.
#[test]
fn rings_that_run_empty_begin_again() {
    for bound in [bound_sender, bound_receiver] {
        let options = Options { capacity: 512 << 10, ..options(0) };
        let (mut tx, mut rx) = bound(&options);
        // With io=thread the ring is the thread's, which goes round in it.
        let goes_round = matches!(options.io, Io::Thread);
        let (mut first, mut last) = (usize::MAX, 0);
        let mut index = 0;
        for round in 0..400_u64 {
            // From one message at a time to as many as fit, to and fro.
            let burst = 1 + round / 50 % 4 * 12;
            for number in index..index + burst {
                let mut claim = tx.claim_timeout(4000, PATIENCE).unwrap();
                if burst == 1 {
                    first = first.min(claim.as_ptr().addr());
                    last = last.max(claim.as_ptr().addr());
                }
                fill(&mut claim, number);
                claim.commit().unwrap();
            }
            for number in index..index + burst {
                assert_eq!(check(&rx.recv_timeout(PATIENCE).unwrap()), number);
            }
            index += burst;
            wait_until("acknowledgements", || {
                assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
                tx.flush().unwrap();
                tx.unacknowledged().messages == 0
            });
        }
        assert!(goes_round || last - first <= 320 << 10, "{} bytes apart", last - first);
    }
}

#[test]
fn who_connects_need_not_wait_for_an_answer() {
    // As much as one longest frame, which whoever welcomes it has room for. The receiver binds, and
    // is looked at only when the sender has come and gone.
    let options = options(0);
    let mut rx = NetReceiver::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    for round in 0..3 {
        let mut tx = NetSender::open(&to(&options, rx.local_addr().unwrap())).unwrap();
        for index in 0..20 {
            send(&mut tx, round * 20 + index, 1000);
        }
        drop(tx);
        for index in 0..20 {
            expect(&mut rx, round * 20 + index, 1000);
        }
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    }
    // A receiver that connects and leaves is told, too.
    let mut tx = NetSender::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    drop(NetReceiver::open(&to(&options, tx.local_addr().unwrap())).unwrap());
    let mut told = None;
    wait_until("the end of the receiver", || {
        told = tx.flush().err();
        told.is_some()
    });
    assert_eq!(told, Some(SendError::Disconnected { lost: 0 }));
}

#[test]
fn batches_and_runs() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    let mut next = 0;
    for round in 0..200 {
        let mut queued = 0;
        for _ in 0..round % 20 {
            let len = length(queued + next, 500);
            // As long as nothing is known to be acknowledged, a run may be short, or none.
            let is_long = tx.claim_run().unwrap().is_some_and(|run| run.len() >= len);
            let mut run = match is_long {
                true => tx.claim_run().unwrap().unwrap(),
                false => tx.claim_timeout(len, PATIENCE).unwrap(),
            };
            fill(&mut run[..len], next + queued);
            run.queue_len(len).unwrap();
            queued += 1;
        }
        assert!(matches!(rx.try_recv().err(), Some(RecvError::Empty)));
        tx.flush().unwrap();
        let mut seen = 0;
        while seen < queued {
            let mut batch = rx.recv_batch(7, Some(PATIENCE)).unwrap();
            while let Some(message) = batch.next().unwrap() {
                assert_eq!(check(message.payload), next + seen);
                assert_eq!(message.sequence, next + seen);
                seen += 1;
            }
        }
        next += queued;
    }
    // An empty flush is no publication.
    assert_eq!(tx.publications(), 190);
    // A batch that is forgotten gives its room back with the next look.
    send(&mut tx, 0, MAX);
    let mut batch = rx.recv_batch(1, Some(PATIENCE)).unwrap();
    assert!(batch.next().unwrap().is_some());
    std::mem::forget(batch);
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    // A guard that is forgotten comes again.
    send(&mut tx, 1, MAX);
    std::mem::forget(rx.recv_timeout(PATIENCE).unwrap());
    expect(&mut rx, 1, MAX);
}

#[test]
fn a_claim_may_be_aborted_or_cut_short() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    drop(tx.try_claim(100).unwrap());
    let mut claim = tx.try_claim(100).unwrap();
    claim.fill(7);
    claim.commit_len(3).unwrap();
    tx.try_claim(0).unwrap().commit().unwrap();
    assert_eq!(*rx.recv_timeout(PATIENCE).unwrap(), [7, 7, 7]);
    assert!(rx.recv_timeout(PATIENCE).unwrap().is_empty());
    assert_eq!(tx.stats().messages, 2);
}

#[test]
fn a_full_ring_says_so_and_a_reader_makes_room() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    let max = tx.max_len();
    assert_eq!(max, 32 * 1024 - 16);
    wait_until("the two ends to meet", || {
        tx.flush().unwrap();
        rx.try_recv().is_err() && tx.peer().is_some()
    });
    let too_large = SendError::TooLarge { len: max + 1, max };
    assert_eq!(tx.try_claim(max + 1).err(), Some(too_large));
    assert_eq!(tx.claim(max + 1).err(), Some(too_large));
    let mut sent = 0;
    let full = loop {
        match tx.try_claim(1000) {
            Ok(mut claim) => {
                fill(&mut claim, sent);
                claim.commit().unwrap();
                sent += 1;
            }
            Err(error) => break error,
        }
    };
    // 64 KiB less 256 of frames of 1024 bytes: this end keeps what the other has not released.
    assert_eq!(sent, 63);
    assert!(matches!(full, SendError::Full { peer: Some(_) }), "{full}");
    let start = Instant::now();
    let late = tx.claim_timeout(1000, Duration::from_millis(20)).err();
    assert!(matches!(late, Some(SendError::Timeout { peer: Some(_) })), "{late:?}");
    assert!(start.elapsed() >= Duration::from_millis(20));
    for index in 0..sent {
        assert_eq!(check(&rx.recv_timeout(PATIENCE).unwrap()), index);
    }
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
    // The acknowledgement of the last ones comes with the next look after a moment.
    while tx.try_claim(max).is_err() {
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(tx.stats().full_waits >= 2);
}

#[test]
fn a_ring_is_filled_to_the_last_byte_and_no_further() {
    for len in [0, 1, 15, 16, 17] {
        let (mut tx, mut rx) = bound_sender(&options(0));
        let mut sent = 0;
        while let Ok(claim) = tx.try_claim(len) {
            claim.commit().unwrap();
            sent += 1;
        }
        let frame = 16 + len.next_multiple_of(16);
        assert_eq!(sent, ((64 << 10) - 256) / frame, "{len} bytes");
        let start = Instant::now();
        while sent > 0 {
            tx.flush().unwrap();
            match rx.try_recv() {
                Ok(message) => assert_eq!(message.len(), len),
                Err(error) => {
                    assert_eq!(error, RecvError::Empty);
                    assert!(start.elapsed() < PATIENCE);
                    continue;
                }
            }
            sent -= 1;
        }
    }
}

#[test]
fn receiving_times_out() {
    for wait in WAITS {
        let mut options = options(0);
        options.wait = wait;
        let (mut tx, mut rx) = bound_sender(&options);
        for _ in 0..3 {
            let start = Instant::now();
            let error = rx.recv_timeout(Duration::from_millis(20)).unwrap_err();
            assert_eq!(error, RecvError::Timeout);
            assert!(start.elapsed() >= Duration::from_millis(20));
            assert_eq!(rx.recv_timeout(Duration::ZERO).unwrap_err(), RecvError::Timeout);
            tx.flush().unwrap();
        }
        send(&mut tx, 1, MAX);
        expect(&mut rx, 1, MAX);
    }
}

#[test]
fn large_messages_in_a_large_ring() {
    let mut options = options(0);
    options.capacity = 8 << 20;
    options.wait = Wait::Adaptive;
    let (mut tx, mut rx) = bound_receiver(&options);
    let max = tx.max_len();
    let sender = thread::spawn(move || {
        for index in 0..60 {
            send(&mut tx, index, max);
        }
        tx.close(PATIENCE).unwrap();
    });
    for index in 0..60 {
        expect(&mut rx, index, max);
    }
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    while !sender.is_finished() {
        let _ = rx.try_recv().err();
    }
    sender.join().unwrap();
}

#[test]
fn ends_may_move_between_threads() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    for index in 0..20 {
        (tx, rx) = thread::spawn(move || {
            send(&mut tx, index, MAX);
            expect(&mut rx, index, MAX);
            (tx, rx)
        })
        .join()
        .unwrap();
    }
    thread::spawn(move || drop((tx, rx))).join().unwrap();
}

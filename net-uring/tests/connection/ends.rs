//! How an end is told to the other: closing, dropping, dying, being followed by another.

use std::thread;
use std::time::Duration;

use ringway_net::{NetReceiver, NetSender, NotClosed, Options, RecvError, SendError, Side};

use super::support::{
    PATIENCE, bound_receiver, bound_sender, expect, fill, length, options, send, to, wait_until,
};

const MAX: usize = 100;

#[test]
fn a_close_tells_what_was_not_acknowledged() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    for index in 0..10 {
        send(&mut tx, index, MAX);
    }
    for index in 0..4 {
        expect(&mut rx, index, MAX);
    }
    // The receiver's thread is here: nobody answers.
    let error = tx.close(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.why, NotClosed::Timeout);
    assert!((6..=10).contains(&error.messages), "{error}");
    // What was sent arrives all the same.
    for index in 4..10 {
        expect(&mut rx, index, MAX);
    }
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
}

/// Options with which nobody who is gone is given up before a test's patience ends.
fn patient() -> Options {
    let mut options = options(0);
    options.timing.resume_ns = 3_600_000_000_000;
    options
}

#[test]
fn a_close_does_not_wait_for_a_receiver_that_has_closed_and_left() {
    let mut options = patient();
    // Who was answered is waited for no longer at all.
    options.timing.takeover_ns = 3_600_000_000_000;
    for bound in [bound_sender, bound_receiver] {
        let (mut tx, mut rx) = bound(&options);
        for index in 0..4 {
            send(&mut tx, index, MAX);
            expect(&mut rx, index, MAX);
        }
        drop(rx);
        assert_eq!(tx.close(PATIENCE), Ok(()));
    }
}

#[test]
fn a_close_does_not_wait_for_a_sender_that_has_closed_and_left() {
    let mut options = patient();
    options.timing.takeover_ns = 10_000_000;
    for bound in [bound_sender, bound_receiver] {
        // With everything read, and with some of it left.
        for read in [4, 2] {
            let (mut tx, mut rx) = bound(&options);
            for index in 0..4 {
                send(&mut tx, index, MAX);
            }
            for index in 0..read {
                expect(&mut rx, index, MAX);
            }
            wait_until("the handshake", || {
                tx.flush().unwrap();
                tx.peer().is_some()
            });
            drop(tx);
            assert!(rx.close(PATIENCE), "{read} read");
        }
    }
}

#[test]
fn a_close_tells_that_the_receiver_has_closed_before() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    for index in 0..4 {
        send(&mut tx, index, MAX);
    }
    for index in 0..2 {
        expect(&mut rx, index, MAX);
    }
    drop(rx);
    let error = tx.close(PATIENCE).unwrap_err();
    assert_eq!((error.messages, error.why), (2, NotClosed::Disconnected));
    assert!(!error.to_string().contains("in time"), "{error}");
}

#[test]
fn a_dropped_sender_has_handed_everything_over() {
    let (mut tx, mut rx) = bound_sender(&options(0));
    for index in 0..50 {
        let mut claim = tx.claim(100).unwrap();
        super::support::fill(&mut claim, index);
        claim.queue().unwrap();
    }
    drop(tx);
    for index in 0..50 {
        let message = rx.recv_timeout(PATIENCE).unwrap();
        assert_eq!(super::support::check(&message), index);
    }
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
}

#[test]
fn a_drop_that_does_not_wait_says_what_it_can() {
    let options = Options { linger: Duration::ZERO, ..patient() };
    for bound in [bound_sender, bound_receiver] {
        for sender_goes in [true, false] {
            let (mut tx, mut rx) = bound(&options);
            send(&mut tx, 0, MAX);
            expect(&mut rx, 0, MAX);
            wait_until("the handshake", || {
                tx.flush().unwrap();
                tx.peer().is_some()
            });
            if sender_goes {
                for index in 1..50 {
                    let mut claim = tx.claim(length(index, MAX)).unwrap();
                    fill(&mut claim, index);
                    claim.queue().unwrap();
                }
                drop(tx);
                for index in 1..50 {
                    expect(&mut rx, index, MAX);
                }
                assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
            } else {
                drop(rx);
                wait_until("the end of the receiver", || match tx.flush() {
                    Ok(()) => false,
                    Err(SendError::Disconnected { .. }) => true,
                    Err(error) => panic!("{error}"),
                });
            }
        }
    }
}

#[test]
fn one_sender_after_the_other() {
    let options = options(0);
    let mut rx = NetReceiver::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let connects = to(&options, rx.local_addr().unwrap());
    for round in 0..5 {
        let connects = connects.clone();
        let sender = thread::spawn(move || {
            let mut tx = NetSender::open(&connects).unwrap();
            for index in 0..20 {
                send(&mut tx, index, MAX);
            }
            if round % 2 == 0 {
                tx.close(PATIENCE).unwrap();
            }
        });
        for index in 0..20 {
            expect(&mut rx, index, MAX);
        }
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
        wait_until("the sender to be gone", || {
            assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
            sender.is_finished()
        });
        sender.join().unwrap();
    }
    assert_eq!((rx.stats().sessions >= 5, rx.stats().messages), (true, 100));
}

#[test]
fn one_receiver_after_the_other() {
    let options = options(0);
    let mut tx = NetSender::open(&Options { side: Side::Bind, ..options.clone() }).unwrap();
    let connects = to(&options, tx.local_addr().unwrap());
    for round in 0..4_u64 {
        let mut rx = NetReceiver::open(&connects).unwrap();
        for index in 0..20 {
            send(&mut tx, index, MAX);
        }
        for index in 0..20 {
            expect(&mut rx, index, MAX);
        }
        // Two more that it will not read.
        send(&mut tx, 20, MAX);
        send(&mut tx, 21, MAX);
        drop(rx);
        let mut told = None;
        wait_until("the end of the receiver", || {
            told = tx.flush().err();
            told.is_some()
        });
        assert_eq!(told, Some(SendError::Disconnected { lost: 2 }));
        // Once.
        tx.flush().unwrap();
        assert_eq!(tx.stats().lost, (round + 1) * 2);
    }
    assert_eq!(tx.stats().released, 4 * 20);
}

#[test]
fn a_second_sender_waits_for_the_first() {
    let (mut one, mut rx) = bound_receiver(&options(0));
    wait_until("the handshake", || {
        let _ = rx.try_recv().err();
        one.flush().unwrap();
        one.peer().is_some()
    });
    let mut other = NetSender::open(&to(&options(0), rx.local_addr().unwrap())).unwrap();
    send(&mut other, 7, MAX);
    send(&mut one, 0, MAX);
    expect(&mut rx, 0, MAX);
    wait_until("the second to be refused", || {
        other.flush().unwrap();
        assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
        rx.stats().refusals > 0
    });
    // Nothing happened to the first, and the second comes in when it has gone.
    send(&mut one, 1, MAX);
    expect(&mut rx, 1, MAX);
    let close = thread::spawn(move || one.close(PATIENCE));
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    let close_other = thread::spawn(move || {
        other.flush().unwrap();
        other.close(PATIENCE)
    });
    expect(&mut rx, 7, MAX);
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap_err(), RecvError::Disconnected);
    wait_until("both to be gone", || {
        let _ = rx.try_recv().err();
        close.is_finished() && close_other.is_finished()
    });
    close.join().unwrap().unwrap();
    close_other.join().unwrap().unwrap();
}

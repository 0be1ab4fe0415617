//! Models: every interleaving of a caller and the thread of `io=thread` on the line between them, and
//! every order in which their stores may become visible. Run by
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ringway-net --test loom`.

#![cfg(loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use ringway_net::sync::mutation;
use ringway_net::thread::{Line, Outcome};

/// A line, and one byte of the ring whose bytes it hands over.
#[derive(Default)]
struct Between {
    line: Line,
    byte: Byte,
}

struct Byte(UnsafeCell<u8>);

impl Default for Byte {
    fn default() -> Self {
        Self(UnsafeCell::new(0))
    }
}

// SAFETY: loom reports an access to the cell that another one does not come before.
unsafe impl Sync for Byte {}
// SAFETY: as above.
unsafe impl Send for Byte {}

impl Byte {
    fn write(&self, value: u8) {
        // SAFETY: loom checks that nobody else is there.
        self.0.with_mut(|byte| unsafe { *byte = value });
    }

    fn read(&self) -> u8 {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.0.with(|byte| unsafe { *byte })
    }
}

#[test]
fn bytes_change_hands_with_positions() {
    loom::model(|| {
        let caller = Arc::new(Between::default());
        let theirs = Arc::clone(&caller);
        let thread = thread::spawn(move || {
            for lap in 1..=2 {
                while theirs.line.given() != lap {
                    thread::yield_now();
                }
                assert_eq!(u64::from(theirs.byte.read()), lap);
                theirs.line.show(lap, false);
            }
        });
        for lap in 1..=2 {
            caller.byte.write(lap as u8);
            caller.line.give(lap);
            while caller.line.shown() != lap {
                thread::yield_now();
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn what_came_is_shown_before_the_end() {
    loom::model(|| {
        let caller = Arc::new(Between::default());
        let theirs = Arc::clone(&caller);
        let thread = thread::spawn(move || {
            theirs.byte.write(7);
            theirs.line.show(16, true);
        });
        if caller.line.outcome() == Outcome::Over {
            assert_eq!((caller.line.shown(), caller.byte.read()), (16, 7));
        }
        thread.join().unwrap();
    });
}

/// Gives, and says whether the bell was rung; meanwhile the thread goes to sleep, if it saw nothing.
fn give_to_a_dozing_thread() {
    loom::model(|| {
        let caller = Arc::new(Between::default());
        let theirs = Arc::clone(&caller);
        let thread = thread::spawn(move || {
            theirs.line.doze();
            theirs.line.given() == 0
        });
        let rung = caller.line.give(16).is_some();
        let sleeps = thread.join().unwrap();
        assert!(rung || !sleeps, "it sleeps, and nobody wakes it");
    });
}

/// The same, the other way round.
fn show_to_a_caller_that_lies_down() {
    loom::model(|| {
        let caller = Arc::new(Between::default());
        let theirs = Arc::clone(&caller);
        let thread = thread::spawn(move || theirs.line.show(16, false));
        caller.line.lie_down();
        let sleeps = caller.line.shown() == 0;
        let woken = thread.join().unwrap();
        assert!(woken || !sleeps, "it sleeps, and nobody wakes it");
    });
}

#[test]
fn no_wake_up_is_lost() {
    give_to_a_dozing_thread();
    show_to_a_caller_that_lies_down();
}

#[test]
#[should_panic(expected = "nobody wakes it")]
fn a_thread_sleeps_on_without_the_fences() {
    mutation::without_fences(give_to_a_dozing_thread);
}

#[test]
#[should_panic(expected = "nobody wakes it")]
fn a_caller_sleeps_on_without_the_fences() {
    mutation::without_fences(show_to_a_caller_that_lies_down);
}

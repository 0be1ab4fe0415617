//! What the tests with real processes share: a directory of their own, peers, messages whose every
//! byte can be checked, words that outlive a process. No test and no expectation lives here.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod actor;
pub mod body;
pub mod channel;
pub mod peer;
pub mod rng;
pub mod scratch;
pub mod side;
pub mod survivor;

use std::time::{Duration, Instant};

/// How long a test waits for something that is bound to happen: far beyond what the slowest
/// machine needs, so that only a hang runs into it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `done`; `what` is for the message when it never is.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

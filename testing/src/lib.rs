//! What the tests of several crates share: their own binary as another process ([`peer`]), and waiting for what
//! is bound to happen. No test and no expectation lives here, and nothing of Ringway's: tests of what it does in
//! a crate's own way stand beside that.

pub mod peer;

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

//! What the tests with real processes share: a directory of their own, peers, messages whose every
//! byte can be checked, words that outlive a process. No test and no expectation lives here.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod actor;
pub mod body;
pub mod channel;
pub mod rng;
pub mod scratch;
pub mod side;
pub mod survivor;

pub use ringway_testing::{PATIENCE, peer, wait_until};

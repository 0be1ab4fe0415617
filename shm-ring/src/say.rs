//! What a library has to say to people: on standard error, once in a process.

use std::io::{self, Write};

use crate::sync::Word32;

/// A thing to say. Behind a flag: a `Once` is a lock, which a child that is forked while another thread has it finds
/// locked for ever, and is poisoned by a panic.
#[derive(Debug)]
pub struct Remark(Word32);

impl Remark {
    /// One that was not made yet.
    pub const fn new() -> Self {
        Self(Word32::new(0))
    }

    /// Makes it, unless this process has. Nobody may hear it: standard error can be a pipe whose reader is gone,
    /// or a file on a full disk, and that is no reason to fail what goes on without it.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.0.replace(0, 1).is_ok() {
            // In one write, as others write there, too.
            let line = format!("ringway: {}\n", text());
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

impl Default for Remark {
    fn default() -> Self {
        Self::new()
    }
}

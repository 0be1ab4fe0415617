//! A child's hold on its parent: standard input. Its closing, by the parent's will or by the
//! parent's death of whatever cause, means "end cleanly". Signals never live here: the children
//! are in process groups of their own, so that Ctrl-C is the parent's alone to handle.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread;
use std::time::Duration;

/// Tells whether the parent wants this process to end.
pub(super) struct Leash {
    /// Nothing is ever sent: the other end goes away when standard input does.
    held: Receiver<()>,
}

impl Leash {
    /// Watches standard input from a thread that sleeps in `read` until it closes.
    pub(super) fn hold() -> Self {
        Self::on(std::io::stdin())
    }

    /// True once the parent let go. Never blocks, makes no system call.
    pub(super) fn pulled(&self) -> bool {
        matches!(self.held.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Sleeps for `time`, less if the parent lets go meanwhile; true then.
    pub(super) fn pulled_within(&self, time: Duration) -> bool {
        matches!(self.held.recv_timeout(time), Err(RecvTimeoutError::Disconnected))
    }

    fn on(mut parent: impl Read + Send + 'static) -> Self {
        let (holder, held) = channel::<()>();
        thread::spawn(move || {
            let mut sink = [0; 64];
            loop {
                match parent.read(&mut sink) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            drop(holder);
        });
        Self { held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_pulled_when_the_other_end_closes_and_not_before() {
        let (read, write) = std::io::pipe().unwrap();
        let leash = Leash::on(read);
        assert!(!leash.pulled());
        assert!(!leash.pulled_within(Duration::from_millis(5)));
        drop(write);
        assert!(leash.pulled_within(Duration::from_secs(30)));
        assert!(leash.pulled());
    }
}

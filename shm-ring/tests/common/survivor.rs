//! A consumer in a thread of the test: blocks in `recv` and notes all that happens to it.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_shm::{Consumer, Options, RecvError};

use super::{PATIENCE, body};

/// What `recv` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, checked.
    Message {
        /// Of the producer.
        incarnation: u64,
        /// Of the message.
        index: u64,
        /// Whether it was flagged.
        redelivered: bool,
    },
    /// An error.
    End(RecvError),
}

impl Event {
    /// A message that comes for the first time.
    pub fn fresh(incarnation: u64, index: u64) -> Self {
        Self::Message { incarnation, index, redelivered: false }
    }
}

/// The consumer. It closes its end after as many errors as it was started for.
pub struct Survivor {
    events: Receiver<(Instant, Event)>,
    thread: JoinHandle<()>,
}

impl Survivor {
    /// Opens the channel and starts to receive until `ends` errors were told.
    pub fn start(options: &Options, ends: usize) -> Self {
        let mut consumer = Consumer::open(options).unwrap();
        let (sender, events) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut left = ends;
            while left > 0 {
                let event = receive(&mut consumer);
                left -= usize::from(matches!(event, Event::End(_)));
                // The test may have failed and gone.
                if sender.send((Instant::now(), event)).is_err() {
                    return;
                }
            }
        });
        Self { events, thread }
    }

    /// The next event, and when it was seen.
    pub fn next(&self) -> (Instant, Event) {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(error) => panic!("the consumer told nothing for {PATIENCE:?}: {error}"),
        }
    }

    /// Waits for the next `count` messages, which must be those of `incarnation` from index
    /// `first`, none of them flagged.
    pub fn expect_fresh(&self, incarnation: u64, first: u64, count: u64) {
        for index in first..first + count {
            assert_eq!(self.next().1, Event::fresh(incarnation, index));
        }
    }

    /// Waits for the next event, which must be `error`. Returns when it was seen.
    pub fn expect_end(&self, error: RecvError) -> Instant {
        let (when, event) = self.next();
        assert_eq!(event, Event::End(error));
        when
    }

    /// Everything that happens within that time.
    pub fn during(&self, time: Duration) -> Vec<Event> {
        let end = Instant::now() + time;
        let mut seen = Vec::new();
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((_, event)) => seen.push(event),
                Err(RecvTimeoutError::Timeout) => return seen,
                Err(RecvTimeoutError::Disconnected) => panic!("the consumer has closed"),
            }
        }
    }

    /// Waits until it has closed; no other event may have come.
    pub fn finish(self) {
        match self.events.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Disconnected) => {}
            event => panic!("{event:?} after the last end"),
        }
        self.thread.join().unwrap();
    }
}

/// One blocking receive.
pub fn receive(consumer: &mut Consumer) -> Event {
    match consumer.recv() {
        Ok(message) => {
            let (incarnation, index) = body::read(&message).unwrap();
            Event::Message { incarnation, index, redelivered: message.redelivered() }
        }
        Err(error) => Event::End(error),
    }
}

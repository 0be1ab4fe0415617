//! The receiving end of a broadcast that copies messages out: on a channel that overwrites, where they
//! may change under a reader, and for readers who want the newest message only.
//!
//! The ring is `overwrite`; how a reader comes in is told in `subscription`. The end that lends
//! messages where they lie is `consumer`.

use std::ops::Deref;
use std::time::Duration;

use crate::broadcast;
use crate::control::{Control, Role};
use crate::counters::Stats;
use crate::error::{Error, Peer, RecvError};
use crate::fork::Birth;
use crate::layout::RUN_MAX;
use crate::listener::{Attendance, Listener};
use crate::liveness::Identity;
use crate::memory::{Boundary, RingMemory};
use crate::options::{Kind, Options};
use crate::overwrite::{Follower, Message, Trouble};
use crate::recover::{self, End};
use crate::registry::LockedDirectory;
use crate::segment::{self, Segment, SegmentMemory};
use crate::subscription::{self, Entrance, Subscription};
use crate::wait::{self, Ringer};

/// What a reader wants of a broadcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Read {
    /// Every message, in order.
    #[default]
    Every,
    /// The newest, whenever it looks: all that came before it are passed over in silence.
    Newest,
}

/// A receiving end that copies. Every method needs `&mut self`, so one thread at a time.
#[derive(Debug)]
pub struct Subscriber {
    /// The segment that is being read; `None` between incarnations of the producer.
    current: Option<Current>,
    birth: Birth,
    read: Read,
    /// Whether the producer waits for this end.
    is_waited_for: bool,
    attendance: Attendance,
}

#[derive(Debug)]
struct Current {
    follower: Follower<SegmentMemory>,
    number: u32,
    segment: Segment,
}

impl Subscriber {
    /// Opens the channel for receiving, creating it if need be. Allocates, touches the file system,
    /// and may wait up to ten seconds for others who are just opening or closing the channel.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy; [`crate::ErrorKind::OptionMismatch`] if the channel is of
    /// another kind.
    pub fn open(options: &Options, read: Read) -> Result<Self, Error> {
        let who = Identity::of_this_process();
        let (directory, control) = Control::join(options, Role::Consumer, &who)?;
        Self::begin(directory, control, &who, read)
    }

    /// As [`Self::open`], of a channel that was opened, under its directory's lock.
    pub(crate) fn begin(
        directory: LockedDirectory,
        control: Control,
        who: &Identity,
        read: Read,
    ) -> Result<Self, Error> {
        if control.kind() != Kind::Broadcast {
            let error = subscription::copied_on_another_kind(&control);
            producer_or_consumer_leaves(&control, directory);
            return Err(error);
        }
        let (place, entrance) = Subscription::begin(&directory, &control, who)?;
        drop(directory);
        let mut subscriber = Self {
            current: None,
            birth: Birth::now(),
            read,
            is_waited_for: !control.is_overwritten(),
            attendance: Attendance::new(control, End::Place(place)),
        };
        match entrance {
            Some(entrance) => subscriber.enter(entrance)?,
            None => subscriber.open_next()?,
        }
        Ok(subscriber)
    }

    /// The next message, copied. Never blocks; allocates only when a message is longer than any
    /// before.
    ///
    /// # Errors
    /// [`RecvError::Empty`], [`RecvError::Lagged`], and how the producer ended.
    #[inline]
    pub fn try_recv(&mut self) -> Result<ReceivedCopy<'_>, RecvError> {
        let message = self.message(Patience::None)?;
        Ok(ReceivedCopy { subscriber: self, message })
    }

    /// As [`Self::try_recv`], but waits for a message, or for a producer to come.
    ///
    /// # Errors
    /// Never [`RecvError::Empty`].
    #[inline]
    pub fn recv(&mut self) -> Result<ReceivedCopy<'_>, RecvError> {
        let message = self.message(Patience::Until(None))?;
        Ok(ReceivedCopy { subscriber: self, message })
    }

    /// As [`Self::recv`], for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::Timeout`].
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<ReceivedCopy<'_>, RecvError> {
        let message = self.message(Patience::Until(Some(timeout)))?;
        Ok(ReceivedCopy { subscriber: self, message })
    }

    /// Up to `limit` messages (and no more than 2^20) that are there. Does not wait; a batch is empty
    /// only if `limit` is 0, and then at once.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    #[inline]
    pub fn try_recv_batch(&mut self, limit: usize) -> Result<CopiedBatch<'_>, RecvError> {
        if limit > 0 {
            self.message(Patience::None)?;
        }
        Ok(CopiedBatch { subscriber: self, left: limit.min(RUN_MAX as usize) })
    }

    /// As [`Self::try_recv_batch`], but waits for the first message, for at most `timeout` if there
    /// is one.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`].
    #[inline]
    pub fn recv_batch(
        &mut self,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<CopiedBatch<'_>, RecvError> {
        if limit > 0 {
            self.message(Patience::Until(timeout))?;
        }
        Ok(CopiedBatch { subscriber: self, left: limit.min(RUN_MAX as usize) })
    }

    /// Gives back the message that was received last and whose guard was forgotten: what dropping the
    /// guard would have done. Does nothing if there is none.
    #[inline]
    pub fn give_back(&mut self) {
        if self.birth.is_foreign() {
            return;
        }
        if let Some(current) = &mut self.current {
            current.follower.advance();
        }
        self.release();
    }

    /// A batch that was forgotten, to go on with, for `limit` more messages.
    #[inline]
    pub fn batch_again(&mut self, limit: usize) -> CopiedBatch<'_> {
        CopiedBatch { subscriber: self, left: limit }
    }

    /// The producer of the segment that is being read, if there is one.
    pub fn peer(&self) -> Option<Peer> {
        self.current.as_ref().map(|current| Peer { pid: current.segment.header().creator_pid })
    }

    /// What the segment that is being read has seen; zeros between two producers.
    pub fn stats(&self) -> Stats {
        match &self.current {
            Some(current) => Stats::read(current.follower.memory()),
            None => Stats::default(),
        }
    }

    #[inline]
    fn message(&mut self, patience: Patience) -> Result<Message, RecvError> {
        if self.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        loop {
            if let Some(message) = self.peek()? {
                return Ok(message);
            }
            match patience {
                Patience::None => self.nothing_now()?,
                Patience::Until(timeout) => self.wait_for_message(timeout)?,
            }
        }
    }

    /// The next message, if it is there.
    #[inline]
    fn peek(&mut self) -> Result<Option<Message>, RecvError> {
        loop {
            let Some(current) = &mut self.current else {
                if self.look_for_producer()? {
                    continue;
                }
                return Ok(None);
            };
            return match current.follower.peek() {
                Ok(None) => {
                    if current.follower.holds_any() {
                        self.release();
                    }
                    Ok(None)
                }
                Ok(message) => Ok(message),
                Err(Trouble::Lagged(missed)) => {
                    current.follower.release();
                    Err(RecvError::Lagged { missed })
                }
                Err(Trouble::Fault(fault)) => Err(self.poison(fault)),
            };
        }
    }

    /// Starts reading the segment that was being written when this reader came.
    fn enter(&mut self, entrance: Entrance) -> Result<(), Error> {
        let Entrance { number, segment, start } = entrance;
        let control = &self.attendance.control;
        let corrupt = |fault| segment::corrupt(control.directory(), number, fault);
        let history = control.header().history;
        // Who wants the newest is shown the last message there is, whatever the others get.
        let history = if self.read == Read::Newest { history.max(1) } else { history };
        if self.is_waited_for {
            let memory = segment.memory();
            let place = broadcast::walk(&memory, segment.geometry(), start, history);
            // The follower begins with records, and counts from there.
            let place = place.map_err(corrupt)?;
            self.attach_at(number, segment, place);
        } else {
            let mut follower = Follower::new(segment.memory(), segment.geometry(), start);
            follower.rewind(history).map_err(corrupt)?;
            self.follow(number, segment, follower);
        }
        Ok(())
    }

    fn attach_at(&mut self, number: u32, segment: Segment, start: Boundary) {
        let follower = Follower::new(segment.memory(), segment.geometry(), start);
        self.follow(number, segment, follower);
    }

    fn follow(&mut self, number: u32, segment: Segment, mut follower: Follower<SegmentMemory>) {
        if self.read == Read::Newest {
            follower.want_newest();
        }
        let page = follower.memory().consumer();
        if self.attendance.sleepy {
            wait::attach(&page.bell);
        }
        page.progress.attached.store_release(1);
        self.attendance.ringer = Ringer::new(self.attendance.sleepy);
        self.current = Some(Current { follower, number, segment });
    }

    #[inline]
    fn release(&mut self) {
        let Some(current) = &mut self.current else { return };
        current.follower.release();
        if self.is_waited_for && current.follower.publish_head() {
            self.ring();
        }
    }
}

/// How long a verb may wait.
#[derive(Clone, Copy)]
enum Patience {
    None,
    Until(Option<Duration>),
}

/// Gives the role back that opening a channel of another kind took.
fn producer_or_consumer_leaves(control: &Control, directory: LockedDirectory) {
    let end = End::Role(Role::Consumer);
    end.leave(control);
    drop(directory);
    recover::clear_if_last(control, &end);
}

impl Drop for Subscriber {
    /// Leaves. May wait up to two seconds for others who are just opening or closing the channel. In a
    /// forked child: does nothing.
    fn drop(&mut self) {
        if self.birth.is_foreign() {
            return;
        }
        if let Some(current) = &self.current {
            current.follower.memory().consumer().progress.attached.store_release(0);
        }
        self.attendance.leave();
        self.ring();
        self.attendance.close();
    }
}

impl Listener for Subscriber {
    fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    #[inline]
    fn parts(&mut self) -> (&mut Attendance, Option<&SegmentMemory>) {
        let memory = self.current.as_ref().map(|current| current.follower.memory());
        (&mut self.attendance, memory)
    }

    fn current(&self) -> Option<(u32, &Segment)> {
        self.current.as_ref().map(|current| (current.number, &current.segment))
    }

    #[inline]
    fn look(&mut self) -> Result<bool, RecvError> {
        Ok(self.peek()?.is_some())
    }

    fn seen(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.follower.received())
    }

    fn attach(&mut self, number: u32, segment: Segment) -> Result<bool, Error> {
        self.attach_at(number, segment, Boundary::default());
        Ok(true)
    }

    fn detach(&mut self) {
        self.current = None;
    }
}

/// A message, copied. Dropping it goes on to the next.
#[derive(Debug)]
pub struct ReceivedCopy<'a> {
    subscriber: &'a mut Subscriber,
    message: Message,
}

impl ReceivedCopy<'_> {
    /// Number of the message in its segment, from 0.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.message.sequence
    }

    /// Bytes of the message.
    #[inline]
    pub fn len(&self) -> usize {
        self.message.len
    }

    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.message.len == 0
    }
}

impl Deref for ReceivedCopy<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the follower's own copy of so many bytes, which it keeps until its next look, and
        // that needs the subscriber, which this guard borrows.
        unsafe { std::slice::from_raw_parts(self.message.payload, self.message.len) }
    }
}

impl Drop for ReceivedCopy<'_> {
    #[inline]
    fn drop(&mut self) {
        self.subscriber.give_back();
    }
}

// SAFETY: everything but the raw pointer in `message` is Send, and that points into the copy which
// the borrowed subscriber, itself Send, keeps.
unsafe impl Send for ReceivedCopy<'_> {}

/// Several messages, copied one after the other.
#[derive(Debug)]
pub struct CopiedBatch<'a> {
    subscriber: &'a mut Subscriber,
    left: usize,
}

/// A message of a [`CopiedBatch`].
#[derive(Clone, Copy, Debug)]
pub struct CopiedMessage<'b> {
    /// Its bytes.
    pub payload: &'b [u8],
    /// Its number in its segment, from 0.
    pub sequence: u64,
}

impl CopiedBatch<'_> {
    /// The next message of the batch, if there is one.
    ///
    /// # Errors
    /// [`RecvError::Lagged`], after which the batch goes on; [`RecvError::Corrupt`]; the end of a
    /// producer is left to the next call on the subscriber.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "lends, which Iterator can't")]
    pub fn next(&mut self) -> Result<Option<CopiedMessage<'_>>, RecvError> {
        if self.subscriber.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        if self.left == 0 || self.subscriber.current.is_none() {
            return Ok(None);
        }
        let Some(message) = self.subscriber.peek()? else { return Ok(None) };
        self.left -= 1;
        if let Some(current) = &mut self.subscriber.current {
            current.follower.advance();
        }
        // SAFETY: as in ReceivedCopy::deref; the copy stays until the next look, which needs `self`.
        let payload = unsafe { std::slice::from_raw_parts(message.payload, message.len) };
        Ok(Some(CopiedMessage { payload, sequence: message.sequence }))
    }
}

impl Drop for CopiedBatch<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.subscriber.birth.is_foreign() {
            self.subscriber.release();
        }
    }
}

//! A receiving end's way through the segments of its channel's producers: which to read next, how each of
//! them ended, sleeping and being woken. The same for the end that lends messages where they lie
//! (`consumer`) and the one that copies them (`subscriber`).
//!
//! What a message is, and whether one is there, is theirs.

use std::time::{Duration, Instant};

use crate::control::Control;
use crate::courtesy::Courtesy;
use crate::error::{Error, ErrorKind, Fault, Peer, RecvError};
use crate::layout::{CLOSED, FINISHED};
use crate::memory::RingMemory;
use crate::options::Wait;
use crate::recover::{self, End};
use crate::registry;
use crate::segment::{Segment, SegmentMemory, Side};
use crate::wait::{self, Burst, Nap, ProbeClock, Ringer, Waiter};

/// What every such end has, whatever it makes of messages.
#[derive(Debug)]
pub struct Attendance {
    /// Whether anybody on this channel ever sleeps.
    pub sleepy: bool,
    pub ringer: Ringer,
    /// Number of the last segment this end is through with.
    pub finished: u32,
    pub control: Control,
    wait: Wait,
    burst: Burst,
    probe_clock: ProbeClock,
    courtesy: Courtesy,
    /// The role, or one of many places.
    end: End,
}

impl Attendance {
    pub fn new(control: Control, end: End) -> Self {
        let wait = control.wait();
        let sleepy = wait != Wait::Spin;
        let finished = match &end {
            End::Role(_) => 0,
            End::Place(place) => place.before(),
        };
        let (ringer, burst, probe_clock) =
            (Ringer::new(sleepy), Burst::in_ring(), ProbeClock::start());
        Self {
            sleepy,
            ringer,
            finished,
            control,
            wait,
            burst,
            probe_clock,
            courtesy: Courtesy::default(),
            end,
        }
    }

    /// For an end that found nothing after `seen` messages in all: for how many pauses it looks away, and what
    /// it knows of its core. `None`: it is to sleep at once.
    pub fn patience(&mut self, seen: u64) -> Option<(u32, &Courtesy)> {
        if self.wait == Wait::Park {
            return None;
        }
        Some((self.burst.pauses(seen), &self.courtesy))
    }

    /// Its page in every segment.
    fn page(&self) -> usize {
        match &self.end {
            End::Role(_) => 0,
            End::Place(place) => place.page(),
        }
    }

    /// Whether the producer has given it up.
    fn is_expelled(&self, memory: &SegmentMemory) -> bool {
        match &self.end {
            End::Role(_) => false,
            End::Place(place) => place.is_expelled(memory),
        }
    }

    /// Gives the role or the place back, before anybody is told.
    pub fn leave(&self) {
        self.end.leave(&self.control);
    }

    /// Closes the channel, if nobody else has it open. May wait up to two seconds.
    pub fn close(&self) {
        recover::clear_if_last(&self.control, &self.end);
    }
}

/// A receiving end.
pub trait Listener {
    fn attendance(&self) -> &Attendance;
    /// The same, and the memory of the segment that is being read.
    fn parts(&mut self) -> (&mut Attendance, Option<&SegmentMemory>);
    /// The segment that is being read, with its number; `None`: between two producers.
    fn current(&self) -> Option<(u32, &Segment)>;
    /// Whether there is a message.
    fn look(&mut self) -> Result<bool, RecvError>;
    /// As [`Waiter::sees_nothing`].
    #[inline(always)]
    fn sees_nothing(&self) -> bool {
        false
    }
    /// Messages so far.
    fn seen(&self) -> u64;
    /// Starts reading a segment from its beginning, or where the last one who had this end's page stopped. False:
    /// that one is through with it.
    fn attach(&mut self, number: u32, segment: Segment) -> Result<bool, Error>;
    /// Forgets the segment that is being read.
    fn detach(&mut self);

    /// Opens the oldest segment that this end is not through with, if there is one.
    fn open_next(&mut self) -> Result<(), Error> {
        // A8, pairs with R8 in producer::new_segment: the segment of that number has its name.
        let latest = self.attendance().control.producer().latest.number.load_acquire();
        for number in registry::segments(self.attendance().control.directory())? {
            let attendance = self.parts().0;
            if number <= attendance.finished {
                continue;
            }
            match Segment::open(&attendance.control, number, Side::Consumer(attendance.page())) {
                // A new producer deleted it: it was drained, or all were through with it.
                Ok(None) => {}
                Ok(Some(segment)) => {
                    if self.attach(number, segment)? {
                        return Ok(());
                    }
                }
                Err(error) => {
                    // What is wrong with the file stays wrong; what this process lacks may come.
                    if !matches!(error.kind(), ErrorKind::Io | ErrorKind::Permission) {
                        attendance.finished = number;
                    }
                    return Err(error);
                }
            }
            self.parts().0.finished = number;
        }
        // All up to `latest` had their names before the listing: what is not there is gone.
        let finished = &mut self.parts().0.finished;
        *finished = latest.max(*finished);
        Ok(())
    }

    /// Whether there is a segment to read now. For when there is none.
    #[cold]
    fn look_for_producer(&mut self) -> Result<bool, RecvError> {
        let Attendance { control, finished, .. } = self.attendance();
        if control.producer().latest.number.load_relaxed() <= *finished {
            return Ok(false);
        }
        match self.open_next() {
            Ok(()) => Ok(self.current().is_some()),
            Err(error) => Err(RecvError::Open(error.kind())),
        }
    }

    /// After every publication of the head.
    #[cold]
    fn ring(&mut self) {
        let (attendance, memory) = self.parts();
        if attendance.sleepy
            && let Some(memory) = memory
            && attendance.ringer.ring(&memory.consumer().bell, &memory.producer().bell)
        {
            memory.consumer().progress.wakes.bump(1);
        }
    }

    /// Asks the kernel after the producer, and tells its end if nothing is left to receive.
    fn probe_producer(&mut self) -> Result<(), RecvError> {
        let Some((_, segment)) = self.current() else { return Ok(()) };
        if segment.producer_is_alive() {
            return Ok(());
        }
        let peer = Peer { pid: segment.header().creator_pid };
        // It is gone; it may have closed, and may have sent until a moment ago.
        let state = self.parts().1.map(|memory| memory.producer().end.state.load_acquire());
        let closed = state == Some(CLOSED);
        if !self.look()? {
            let reason =
                if closed { RecvError::Disconnected } else { RecvError::PeerDied { peer } };
            return Err(self.finish(reason));
        }
        Ok(())
    }

    /// Leaves a segment for good and tells why.
    fn finish(&mut self, reason: RecvError) -> RecvError {
        let number = self.current().map(|(number, _)| number);
        let (attendance, memory) = self.parts();
        if let Some((number, memory)) = number.zip(memory) {
            let page = memory.consumer();
            page.progress.attached.store_relaxed(0);
            // R10, pairs with A10 in recover::drained: who sees it may delete the file.
            page.end.state.store_release(FINISHED);
            attendance.finished = number;
            self.detach();
        }
        reason
    }

    #[cold]
    fn poison(&mut self, fault: Fault) -> RecvError {
        if let Some(memory) = self.parts().1 {
            memory.consumer().end.poisoned.store_release(fault as u64);
        }
        self.ring();
        self.finish(RecvError::Corrupt(fault))
    }

    /// Returns if there is something after all.
    #[cold]
    fn nothing_now(&mut self) -> Result<(), RecvError>
    where
        Self: Sized,
    {
        self.glance()?;
        if self.probe_clock().is_due_after_poll() {
            self.probe()?;
        }
        // The look at how the producer ended may have come after one more message.
        if self.look()? { Ok(()) } else { Err(RecvError::Empty) }
    }

    /// Returns when there is a message.
    #[cold]
    fn wait_for_message(&mut self, timeout: Option<Duration>) -> Result<(), RecvError>
    where
        Self: Sized,
    {
        let deadline = timeout.and_then(wait::deadline);
        let seen = self.seen();
        let attendance = self.parts().0;
        let (wait, pauses) = (attendance.wait, attendance.burst.pauses(seen));
        if wait::block(self, wait, deadline, pauses)? { Ok(()) } else { Err(RecvError::Timeout) }
    }

    /// The same for who has polled for a while, as [`Attendance::patience`] said.
    #[cold]
    fn wait_further(&mut self, deadline: Option<Instant>) -> Result<(), RecvError>
    where
        Self: Sized,
    {
        let wait = self.attendance().wait;
        if wait::block_further(self, wait, deadline)? { Ok(()) } else { Err(RecvError::Timeout) }
    }
}

impl<L: Listener> Waiter for L {
    type Error = RecvError;

    #[inline(always)]
    fn poll(&mut self) -> Result<bool, RecvError> {
        self.look()
    }

    #[inline(always)]
    fn sees_nothing(&self) -> bool {
        Listener::sees_nothing(self)
    }

    fn glance(&mut self) -> Result<(), RecvError> {
        let (attendance, Some(memory)) = self.parts() else { return Ok(()) };
        let end = &memory.producer().end;
        if end.poisoned.load_relaxed() != 0 || attendance.is_expelled(memory) {
            return Err(self.poison(Fault::Poisoned));
        }
        // A9, pairs with R9 in the producers' drop: if there is nothing now, there never will be.
        if end.state.load_acquire() == CLOSED && !self.look()? {
            return Err(self.finish(RecvError::Disconnected));
        }
        // A successor is there already: ask at once how this one ended.
        let latest = self.attendance().control.producer().latest.number.load_relaxed();
        if self.current().is_some_and(|(number, _)| number < latest) {
            return self.probe_producer();
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), RecvError> {
        self.probe_producer()
    }

    fn announce(&mut self) -> Nap {
        match self.parts() {
            (_, Some(memory)) => {
                memory.consumer().progress.parks.bump(1);
                wait::announce(&memory.consumer().bell, &memory.producer().bell)
            }
            (Attendance { control, .. }, None) => {
                Nap::unannounced(control.producer().latest.number.load_acquire())
            }
        }
    }

    fn sleep(&mut self, nap: &Nap, timeout: Duration) {
        match self.parts() {
            (_, Some(memory)) if nap.is_announced() => {
                wait::sleep(nap, &memory.producer().bell, timeout);
            }
            // A producer came between the announcement and now: look at its ring first.
            (_, Some(_)) => {}
            (Attendance { control, .. }, None) => {
                wait::sleep_unannounced(nap, &control.producer().latest.number, timeout);
            }
        }
    }

    fn awake(&mut self, nap: &Nap) {
        // The segment in which the flag went up may have come to its end meanwhile.
        if let (_, Some(memory)) = self.parts()
            && nap.is_announced()
        {
            wait::awake(nap, &memory.consumer().bell);
        }
    }

    fn probe_clock(&mut self) -> &mut ProbeClock {
        &mut self.parts().0.probe_clock
    }

    fn courtesy(&mut self) -> &mut Courtesy {
        &mut self.parts().0.courtesy
    }
}

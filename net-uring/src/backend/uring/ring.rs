//! A completion ring: requests are posted, the kernel is entered, completions are reaped. Which
//! requests, and when, is decided above; here is what makes them sound.
//!
//! What holds, and where it is established:
//! - A request that the kernel has accepted is *in flight* until its completion is reaped
//!   ([`Ring::enter`], [`Ring::reap`]). Whoever posts memory keeps it until then.
//! - Every request has a tag of its own, its job and a generation, so a completion is never taken
//!   for that of a later request, and a cancellation hits exactly the request it means.
//! - A job has one request at a time, and each request one completion: none is multishot. With one
//!   cancellation for each, in two rounds, that is fewer than either queue holds, so the completion
//!   queue cannot overflow.
//! - A ring with requests in flight is never closed: closing does not wait for them. It is forgotten
//!   instead, and what they point to must be as well.

use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use crate::backend::Errno;
use crate::fork::Own;
use crate::mirror::Span;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Sends a span, as soon as the socket takes some of it.
    Send,
    /// Receives into a span, as soon as something has come.
    Recv,
    /// Waits until a socket is connected or its connecting has failed.
    Dial,
    /// Waits for the descriptors that are watched.
    Watch,
}

impl Job {
    const ALL: [Self; 4] = [Self::Send, Self::Recv, Self::Dial, Self::Watch];
}

const JOBS: usize = Job::ALL.len();
/// Rounds of cancellations that may be on their way at once.
const ROUNDS: usize = 2;
/// Entries of the submission queue; the completion queue has twice as many.
const ENTRIES: u32 = 16;

const _: () = assert!(JOBS * (1 + ROUNDS) <= ENTRIES as usize, "a queue could overflow");

/// Most bytes of one request, whose length is a u32.
const LEN_MAX: usize = 1 << 30;

/// The low bits of a tag: the job, and whether it is the job's cancellation.
const CANCELS: u64 = 1 << 2;
const GENERATION: u64 = 1 << 3;

/// See the module.
pub struct Ring {
    /// Not closed while anything is in flight.
    uring: ManuallyDrop<Own<IoUring>>,
    /// Tags of the requests that were posted and not reaped, by job; 0 is none.
    tags: [u64; JOBS],
    /// Cancellations that were posted and not reaped.
    cancels: usize,
    /// Posted, and not yet taken by the kernel: always the newest ones.
    unsubmitted: usize,
    generation: u64,
}

impl Ring {
    /// A ring for the calling thread; no other may enter it. Half a dozen system calls.
    ///
    /// # Errors
    /// `EPERM`, `ENOSYS`, `EINVAL`: not here. Others for lack of memory or descriptors.
    pub fn new() -> Result<Self, Errno> {
        // One issuer, and completions only when it asks: a ring without flags interrupts a spinning
        // caller (four times the round trip), COOP_TASKRUN costs 7 % over these.
        let uring = Own::open(|| {
            IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_submit_all()
                .dontfork()
                .build(ENTRIES)
        })
        .map_err(errno_of)?;
        let uring = ManuallyDrop::new(uring);
        let mut ring = Self { uring, tags: [0; JOBS], cancels: 0, unsubmitted: 0, generation: 0 };
        // A profile may allow the set-up and deny the rest.
        ring.enter(0, None)?;
        Ok(ring)
    }

    /// Posts a send; the next enter submits it.
    ///
    /// # Safety
    /// Until the job is reaped or the ring is dropped with nothing in flight: the span is mapped
    /// and nobody writes to it.
    pub unsafe fn post_send(&mut self, socket: RawFd, span: Span) -> bool {
        let entry = opcode::Send::new(Fd(socket), span.start, length(span))
            .flags(libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the caller's promise.
        unsafe { self.post(Job::Send, entry) }
    }

    /// Posts a receive; the next enter submits it.
    ///
    /// # Safety
    /// Until the job is reaped or the ring is dropped with nothing in flight: the span is mapped
    /// and nobody else touches it.
    pub unsafe fn post_recv(&mut self, socket: RawFd, span: Span) -> bool {
        let entry = opcode::Recv::new(Fd(socket), span.start, length(span)).build();
        // SAFETY: the caller's promise.
        unsafe { self.post(Job::Recv, entry) }
    }

    /// Posts a wait for one of the `events` of poll(2).
    pub fn post_wait(&mut self, job: Job, fd: RawFd, events: libc::c_short) -> bool {
        let entry = opcode::PollAdd::new(Fd(fd), u32::from(events.cast_unsigned())).build();
        // SAFETY: no memory is passed.
        unsafe { self.post(job, entry) }
    }

    /// Asks for the cancellation of everything in flight.
    pub fn cancel_all(&mut self) {
        for tag in self.tags {
            if tag == 0 || self.cancels == JOBS * ROUNDS {
                continue;
            }
            let entry = opcode::AsyncCancel::new(tag).build().user_data(tag | CANCELS);
            // SAFETY: no memory is passed.
            if unsafe { self.uring.get_mut().submission().push(&entry) }.is_ok() {
                self.unsubmitted += 1;
                self.cancels += 1;
            }
        }
    }

    /// Submits what was posted and, if `wait` says so, sleeps until `want` completions are there or
    /// that time is over; or shorter.
    ///
    /// # Errors
    /// What the kernel refuses with. What it did not take is then not in flight.
    pub fn enter(&mut self, want: usize, wait: Option<Duration>) -> Result<(), Errno> {
        // Fewer are taken only when memory is short for a moment.
        for _ in 0..8 {
            let submitter = self.uring.get_mut().submitter();
            let result = match wait {
                None => submitter.submit(),
                Some(wait) => {
                    let limit = Timespec::from(wait);
                    submitter.submit_with_args(want, &SubmitArgs::new().timespec(&limit))
                }
            };
            match result.map_err(errno_of) {
                Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken),
                // Of the wait; and before it nothing was to be submitted.
                Err(errno) if errno.0 == libc::ETIME || errno.0 == libc::EINTR => {}
                Err(errno) => return Err(errno),
            }
            if self.unsubmitted == 0 {
                return Ok(());
            }
        }
        Err(Errno(libc::EAGAIN))
    }

    /// The next completion of a request, in any order. Cancellations' own are not told.
    pub fn reap(&mut self) -> Option<(Job, Result<usize, Errno>)> {
        loop {
            let entry = self.uring.get_mut().completion().next()?;
            let tag = entry.user_data();
            if tag & CANCELS != 0 {
                self.cancels = self.cancels.saturating_sub(1);
                continue;
            }
            let job = Job::ALL[(tag % JOBS as u64) as usize];
            if self.tags[job as usize] != tag {
                debug_assert!(false, "a completion of nothing that was posted: {tag:#x}");
                continue;
            }
            self.tags[job as usize] = 0;
            let result = usize::try_from(entry.result()).map_err(|_| Errno(-entry.result()));
            return Some((job, result));
        }
    }

    /// Completions to come: of requests, and of their cancellations.
    pub fn outstanding(&self) -> usize {
        self.tags.iter().filter(|tag| **tag != 0).count() + self.cancels
    }

    /// Whether the kernel has requests of this ring.
    pub fn is_in_flight(&self) -> bool {
        self.outstanding() > self.unsubmitted
    }

    /// Whether this process is a fork of the one that made the ring.
    pub fn is_foreign(&self) -> bool {
        self.uring.is_foreign()
    }

    /// Completions that found the queue full: none, ever.
    pub fn overflows(&mut self) -> u32 {
        self.uring.get_mut().completion().overflow()
    }

    /// # Safety
    /// The memory that the entry points to stays as the job needs it, until it is reaped or the ring
    /// is dropped with nothing in flight.
    unsafe fn post(&mut self, job: Job, entry: squeue::Entry) -> bool {
        debug_assert!(self.tags[job as usize] == 0, "two requests of {job:?} at once");
        self.generation += GENERATION;
        let tag = self.generation | job as u64;
        // SAFETY: the caller's promise.
        let pushed =
            unsafe { self.uring.get_mut().submission().push(&entry.user_data(tag)) }.is_ok();
        if pushed {
            self.tags[job as usize] = tag;
            self.unsubmitted += 1;
        }
        pushed
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("tags", &self.tags).finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.is_in_flight() {
            // The descriptor stays open and nobody enters the ring again: a request that waits is
            // carried on only by its issuer's enter, so it waits for ever.
            return;
        }
        // SAFETY: dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
    }
}

fn length(span: Span) -> u32 {
    span.len.min(LEN_MAX) as u32
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

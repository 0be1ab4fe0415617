//! The caller's side of a link that a thread drives.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Demand, Idle, Outcome, Shared, Threaded, slice};
use crate::backend::Backend;
use crate::connection::{Inbox, Peer, Trouble};
use crate::fork::Birth;
use crate::frame::body_max;
use crate::gauge::Tally;
use crate::link::{Blank, Desk, Ending, Incoming, Inline, Link, Outgoing};
use crate::session::{Receiving, Sending, Unacknowledged};
use crate::stats::Stats;

impl<H: Inbox, B: Backend> Threaded<H, B> {
    /// What is shared with the thread. Nothing in a fork: there is no thread there, the bell's number may be
    /// another descriptor's, and a lock was copied as it was held, by somebody who never lets go of it.
    fn own(&self) -> Option<&Shared<H, B>> {
        self.shared.as_deref().filter(|_| !self.birth.is_foreign())
    }

    /// With what the thread works on, which waits meanwhile.
    fn with<T>(&self, act: impl FnOnce(&mut Inline<H, B>) -> T) -> Option<T> {
        let shared = self.own()?;
        shared.line.demand(Demand::Hold);
        shared.bell.ring();
        let mut link = shared.link();
        shared.line.demand(Demand::Nothing);
        // The thread may be anywhere, and its last words not yet looked at.
        link.connection.take_over(shared.line.given());
        Some(act(&mut link))
    }

    /// Ends the thread, and takes over what it had.
    pub(super) fn join(&mut self) {
        let (Some(shared), Some(thread)) = (self.shared.take(), self.thread.take()) else { return };
        shared.line.demand(Demand::End);
        shared.bell.ring();
        // What a thread had that panicked is looked at, and not driven any more.
        self.failed = thread.join().is_err();
        if let Some(Shared { link, line, .. }) = Arc::into_inner(shared) {
            let mut link = link.into_inner().unwrap_or_else(PoisonError::into_inner);
            link.connection.take_over(line.given());
            self.rest = Some(link);
        }
    }

    fn line(&self) -> &super::Line {
        // Joined only by those who then have no more to do with it, and by a drop.
        match &self.shared {
            Some(shared) => &shared.line,
            None => unreachable!("the thread was joined"),
        }
    }

    /// Waits until `done`, or the session is over, or `timeout` is.
    fn wait_until(&self, timeout: Option<Duration>, done: impl Fn(&super::Line) -> bool) {
        let Some(shared) = &self.shared else { return };
        let line = &shared.line;
        let done = || done(line) || line.outcome() != Outcome::Open;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut idle = Idle::default();
        loop {
            if done() {
                return;
            }
            std::thread::yield_now();
            if idle.is_tired(self.wait) {
                let pillow = shared.pillow.lock().unwrap_or_else(PoisonError::into_inner);
                line.lie_down();
                if !done() {
                    // An unlocked pillow is the same as a time-out: it is looked again.
                    drop(shared.woken.wait_timeout(pillow, slice(deadline)));
                }
                line.rise();
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return;
            }
        }
    }

    #[inline(always)]
    fn ring(&mut self, sleep: Option<u64>) {
        if let Some(sleep) = sleep
            && sleep != self.rung
        {
            self.ring_for(sleep);
        }
    }

    #[cold]
    fn ring_for(&mut self, sleep: u64) {
        self.rung = sleep;
        if let Some(shared) = &self.shared {
            shared.bell.ring();
        }
    }

    /// The ending of a session that `next` puts an end to.
    fn end(&mut self, next: impl FnOnce(&mut Inline<H, B>)) -> Ending {
        self.mark = 0;
        let shared = self.shared.as_ref();
        self.with(|link| {
            let ending = link.ending();
            next(link);
            if let Some(shared) = shared {
                shared.line.start_over();
            }
            ending
        })
        .unwrap_or(Ending { end: None, established: false, peer: None })
    }
}

impl<H: Inbox, B: Backend> Link for Threaded<H, B> {
    #[inline(always)]
    fn birth(&self) -> Birth {
        self.birth
    }

    fn is_broken(&self) -> bool {
        let told = |shared: &Arc<Shared<H, B>>| shared.line.outcome() == Outcome::Broken;
        self.failed || self.shared.as_ref().is_some_and(told)
    }

    fn peer(&self) -> Option<Peer> {
        let shared = self.own()?;
        *shared.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.with(|link| link.local_addr())?
    }

    fn trouble(&self) -> Option<Trouble> {
        self.with(|link| link.trouble())?
    }

    fn backend(&self) -> &'static str {
        self.backend
    }

    fn stats(&self) -> Stats {
        let rest = self.rest.as_ref().map(Link::stats);
        rest.or_else(|| self.with(|link| link.stats())).unwrap_or_default()
    }

    fn tally(&self) -> Option<Arc<Tally>> {
        self.tally.clone()
    }

    fn close(&mut self, timeout: Duration) -> Option<Ending> {
        self.join();
        self.rest.as_mut().filter(|_| !self.failed)?.close(timeout)
    }

    fn leave(&mut self, linger: Duration) {
        self.join();
        if let Some(link) = &mut self.rest
            && !self.failed
        {
            link.leave(linger);
        }
    }
}

impl<B: Backend> Outgoing for Threaded<Sending, B> {
    fn blank(&self) -> Blank {
        let body_max = body_max(self.view.capacity() as u64 / 2) as usize;
        Blank { view: self.view, body_max }
    }

    #[inline(always)]
    fn publish(&mut self, tail: u64) -> u64 {
        let sleep = self.line().give(tail);
        self.ring(sleep);
        self.mark
    }

    #[inline(always)]
    fn free(&mut self) -> u64 {
        self.mark = self.line().shown();
        self.mark
    }

    fn look(&mut self) -> u64 {
        self.free()
    }

    fn wait(&mut self, until: u64, timeout: Option<Duration>) -> u64 {
        self.wait_until(timeout, |line| line.shown() >= until);
        self.free()
    }

    #[inline(always)]
    fn is_over(&self) -> bool {
        self.line().outcome() != Outcome::Open
    }

    #[inline(always)]
    fn is_over_by_itself(&self) -> bool {
        self.is_over()
    }

    fn start_over(&mut self, tail: u64) -> Ending {
        self.line().give_quietly(tail);
        self.end(|link| link.connection.start_over())
    }

    fn unacknowledged(&self, tail: u64) -> Unacknowledged {
        let walk = |link: &Inline<Sending, B>| link.unacknowledged(tail);
        let rest = self.rest.as_ref().map(walk);
        rest.or_else(|| self.with(|link| walk(link))).unwrap_or_default()
    }

    fn unsent(&self, tail: u64) -> u64 {
        let rest = self.rest.as_ref().map(|link| link.unsent(tail));
        rest.or_else(|| self.with(|link| link.unsent(tail))).unwrap_or_default()
    }
}

impl<B: Backend> Incoming for Threaded<Receiving, B> {
    fn desk(&self) -> Desk {
        Desk::new(self.view)
    }

    /// The thread is woken for an eighth of the ring, for which it sends an acknowledgement at once,
    /// and when there is no more to read: the caller may be about to go elsewhere.
    #[inline(always)]
    fn release(&mut self, desk: &Desk) {
        if desk.taken < self.mark && !desk.is_empty() {
            return self.line().give_quietly(desk.taken);
        }
        self.mark = desk.taken + self.view.capacity() as u64 / 8;
        let sleep = self.line().give(desk.taken);
        self.ring(sleep);
    }

    #[inline(always)]
    fn look(&mut self, desk: &mut Desk) {
        desk.received = self.line().shown();
    }

    fn wait(&mut self, desk: &mut Desk, timeout: Option<Duration>) {
        self.wait_until(timeout, |line| line.shown() > desk.taken);
        self.look(desk);
    }

    fn is_over(&mut self, desk: &mut Desk) -> bool {
        if self.line().outcome() == Outcome::Open {
            return false;
        }
        // All of it was shown before.
        self.look(desk);
        desk.is_empty()
    }

    fn acknowledge_end(&mut self, desk: &mut Desk) -> Ending {
        let ending = self.end(|link| link.connection.acknowledge_end());
        *desk = Desk::new(desk.view);
        ending
    }
}

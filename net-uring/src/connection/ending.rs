//! The end of a session, and the next one's beginning: last words, closes, drops.

use std::time::{Duration, Instant};

use super::{Connection, FAREWELL_NS, Inbox, connector};
use crate::backend::{Backend, Kind};
use crate::session::{End, Session, Side};
use crate::socket;

/// How long a connector rests when its session was refused or lost, before it dials for a new one.
const DIAL_AFTER_NS: u64 = 100_000_000;

impl<H: Inbox, B: Backend> Connection<H, B> {
    /// The session's end was told to the owner, who is through with its ring: a new session begins
    /// as soon as this one's connection is closed.
    pub(crate) fn acknowledge_end(&mut self) {
        self.told = true;
        self.session.close();
        // The last words: a newcomer at the door, of whom the next look may tell, ends the connection.
        self.push();
        self.tend();
    }

    /// As [`Self::acknowledge_end`], but the new session begins now.
    pub(crate) fn start_over(&mut self) {
        self.session.close();
        self.push();
        self.renew();
        self.tend();
    }

    /// Says the last words of an ended session and waits for the peer to close. Whether the
    /// connection is gone.
    pub(super) fn see_out(&mut self) -> bool {
        let since_ns = *self.farewell_ns.get_or_insert(self.now_ns);
        self.push();
        let said = self.session.poll_transmit(&*self.ring, self.now_ns).is_empty();
        if said && !self.shut && !self.backend.is_outstanding(Kind::Send) {
            self.shut = true;
            if let Some(socket) = self.backend.socket() {
                socket::shutdown_write(&socket);
            }
        }
        while self.backend.socket().is_some() && self.pull() {}
        if self.backend.socket().is_none() {
            return true;
        }
        if self.now_ns < since_ns + FAREWELL_NS {
            return false;
        }
        self.disconnect();
        true
    }

    /// Begins a new session where the last one has ended.
    pub(super) fn renew(&mut self) {
        self.disconnect();
        if let Some(id) = self.session.id().filter(|_| self.session.is_established()) {
            self.past.add(id);
        }
        let dials = matches!(self.session.config().side, Side::Connector { .. });
        if dials && matches!(self.session.end(), Some(End::Died(_))) {
            self.dial_at_ns = self.now_ns + DIAL_AFTER_NS;
        }
        let mut config = self.session.config().clone();
        if let Side::Connector { .. } = config.side {
            config.side = connector();
        }
        // The same has been accepted before.
        let Ok(session) = Session::new(config) else { return };
        let counters = self.session.counters();
        let sum = &mut self.before;
        sum.connections += counters.connections;
        sum.resumes += counters.resumes;
        sum.failed_attempts += counters.failed_attempts;
        sum.violations += counters.violations;
        sum.refusals += counters.refusals;
        sum.resent_bytes += counters.resent_bytes;
        sum.dropped_bytes += counters.dropped_bytes;
        sum.control_sent += counters.control_sent;
        sum.control_received += counters.control_received;
        self.session = session;
        self.sessions += 1;
        self.told = false;
        self.farewell_ns = None;
        self.given = 0;
    }

    /// Closes the session in good order, and waits for the peer's answer. Whether it came.
    pub(crate) fn close(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        self.session.close();
        self.push();
        let ended = self.wait(Some(timeout), |it| it.session.end().is_some());
        // The last words, so that the peer knows too.
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
        self.wait(Some(left), |it| it.session.end().is_none() || it.is_alone());
        ended
    }

    /// As [`Self::close`], but is content when the peer's host has everything: for a drop.
    pub(crate) fn leave(&mut self, linger: Duration) {
        self.session.close();
        self.push();
        self.wait(Some(linger), |it| it.is_alone() || it.is_said());
    }

    /// Whether the session has ended and its connection is closed.
    pub(crate) fn is_alone(&self) -> bool {
        self.session.end().is_some() && self.backend.socket().is_none()
    }

    /// Whether its peer has been without a connection for so long that another might have its place. One that
    /// lives is back in milliseconds: a drop does not linger for this one.
    pub(crate) fn is_forsaken(&self) -> bool {
        let lasting_ns = self.session.config().timing.takeover_ns;
        let down_ns = |since_ns| self.now_ns.saturating_sub(since_ns);
        let since_ns = self.session.down_since_ns().filter(|_| self.session.is_established());
        since_ns.is_some_and(|since_ns| down_ns(since_ns) >= lasting_ns)
    }

    /// Whether all that this end has to say is with the peer's host.
    pub(crate) fn is_said(&mut self) -> bool {
        let talks = self.session.is_up() || self.session.is_early();
        if !talks && self.session.end().is_none() {
            return !H::has_debts(&self.session) || self.is_forsaken();
        }
        let goal = H::goal(&self.session);
        let transmit = self.session.poll_transmit(&*self.ring, self.now_ns);
        let said =
            transmit.is_empty() && (transmit.data.end >= goal || self.session.end().is_some());
        said && !self.backend.is_outstanding(Kind::Send)
            && self.backend.socket().is_none_or(|socket| socket::unacknowledged(&socket) == 0)
    }
}

//! The end of a session, and the next one's beginning: last words, closes, drops.

use std::time::{Duration, Instant};

use super::{ASKS_PER_LOOK, Connection, FAREWELL_NS, Inbox, connector};
use crate::backend::{Backend, Kind};
use crate::clock;
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
        for _ in 0..ASKS_PER_LOOK {
            if self.backend.socket().is_none() || !self.pull() {
                break;
            }
        }
        if self.backend.socket().is_some() && self.now_ns < since_ns + FAREWELL_NS {
            return false;
        }
        // Where it is gone already, the session knows of it now at the latest.
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
        sum.control_sent += counters.control_sent;
        sum.control_received += counters.control_received;
        self.session = session;
        self.sessions += 1;
        self.told = false;
        self.farewell_ns = None;
        self.leaving_ns = 0;
        self.given = 0;
    }

    /// Closes the session in good order, and waits for the peer's answer. Whether it came.
    pub(crate) fn close(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let number = self.sessions;
        self.begin_to_close();
        // Of a session whose end the owner was told, the peer's fin, all that is left may happen while this
        // waits, and then the next one has begun, which nobody closes.
        let is_over = |it: &Self| it.sessions != number || it.session.end().is_some();
        let ended = self.wait(Some(timeout), |it| {
            it.let_go();
            is_over(it)
        });
        // The last words, so that the peer knows too.
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
        self.wait(Some(left), |it| !ended || it.sessions != number || it.is_alone());
        ended
    }

    /// As [`Self::close`], but is content when the peer's host has everything: for a drop.
    pub(crate) fn leave(&mut self, linger: Duration) {
        self.begin_to_close();
        self.wait(Some(linger), |it| it.is_alone() || it.is_said());
    }

    /// The first step of a close or a drop.
    pub(crate) fn begin_to_close(&mut self) {
        self.begin_to_leave();
        self.session.close();
        self.push();
    }

    /// A close or a drop begins to wait, if it has not: who is without a connection has the time to come back from
    /// now on.
    pub(crate) fn begin_to_leave(&mut self) {
        if self.leaving_ns == 0 {
            self.leaving_ns = clock::coarse_ns();
        }
    }

    /// Of a session that closes: ends it, if its peer has closed as well and is gone. A peer that is owed a last
    /// word has its time to come back for it.
    pub(crate) fn let_go(&mut self) {
        let session = &self.session;
        let left = !session.is_up() && session.is_peer_closed();
        if left && (H::is_through(session) || self.is_forsaken()) {
            self.session.give_up();
        }
    }

    /// Whether the session has ended and its connection is closed.
    pub(crate) fn is_alone(&self) -> bool {
        self.session.end().is_some() && self.backend.socket().is_none()
    }

    /// Whether its peer has been without a connection for so long that another might have its place. One that
    /// lives is back in milliseconds: neither a close nor a drop waits for this one. The time before does not
    /// count, in which nobody may have looked whether it is back.
    pub(crate) fn is_forsaken(&self) -> bool {
        let lasting_ns = self.session.config().timing.takeover_ns;
        let down_ns = |since_ns: u64| self.now_ns.saturating_sub(since_ns.max(self.leaving_ns));
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::backend::Kind;
    use crate::backend::fake::Step;
    use crate::clock;
    use crate::connection::testing::{FakeReceiver, FakeSender, ends, join, script_receiver};
    use crate::link::Inline;
    use crate::options::{Options, Side};
    use crate::receiver::{NetReceiver, RecvError};
    use crate::sender::NetSender;
    use crate::session::{Action, Format, Receiving, Sending};

    /// Far beyond what the slowest machine needs.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn options() -> Options {
        let format = Format { endian: 1, pointer: 4, align: 8 };
        let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
        // There is no socket that a drop could see closed.
        options.linger = Duration::ZERO;
        options
    }

    /// Two ends that are connected, and have had a message.
    fn connected() -> (FakeSender, FakeReceiver) {
        let (mut tx, mut rx) = ends(&options()).unwrap();
        assert!(join(&mut tx, &mut rx, 4096));
        // The greeting ends with the first looks.
        while !tx.link_mut().connection_mut().session.is_up() {
            tx.flush().unwrap();
            assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
        }
        (tx, rx)
    }

    /// Until the sender has no more to say or the receiver no more to hear, far beyond what that takes.
    fn until(mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE);
        }
    }

    #[test]
    fn a_close_does_not_wait_for_the_session_after_the_one_that_ended() {
        for says_goodbye in [true, false] {
            let mut options = options();
            options.timing.takeover_ns = 1_000_000;
            let bind = Options { side: Side::Bind, ..options.clone() };
            let mut rx = NetReceiver::with(Inline::<Receiving, _>::open(&bind).unwrap(), &bind);
            (options.side, options.port) = (Side::Connect, rx.local_addr().unwrap().port());
            let mut tx = NetSender::with(Inline::<Sending, _>::open(&options).unwrap(), &options);
            until(|| {
                tx.flush().unwrap();
                rx.try_recv().err() == Some(RecvError::Empty) && rx.peer().is_some()
            });
            // The sender closes, and the receiver's owner is told.
            let dialer = tx.link_mut().connection_mut();
            dialer.session.close();
            until(|| {
                dialer.step();
                rx.try_recv().err() == Some(RecvError::Disconnected)
            });
            let binder = rx.link_mut().connection_mut();
            if says_goodbye {
                // Its last words come, and the connection is yet to be closed.
                until(|| {
                    dialer.step();
                    dialer.session.end().is_some()
                });
                dialer.tend();
                until(|| {
                    binder.pull();
                    binder.session.end().is_some()
                });
            } else {
                dialer.disconnect();
            }
            assert!(binder.close(PATIENCE), "says_goodbye: {says_goodbye}");
        }
    }

    #[test]
    fn what_was_before_a_break_is_no_time_without_a_connection() {
        let (_tx, mut rx) = connected();
        script_receiver(&mut rx).script(Kind::Recv, [Step::Reset]);
        // Its program was elsewhere for longer than a session waits for its peer.
        let resume_ns = rx.link_mut().connection_mut().session.config().timing.resume_ns;
        let binder = rx.link_mut().connection_mut();
        binder.now_ns = binder.now_ns.saturating_sub(2 * resume_ns);
        binder.tended_ns = binder.now_ns;
        assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
        let binder = rx.link_mut().connection_mut();
        assert!(!binder.session.is_up() && binder.session.end().is_none());
        assert!(!binder.is_forsaken());
    }

    #[test]
    fn a_peer_that_is_back_and_waits_is_not_given_up() {
        let mut options = options();
        let mut bind = Options { side: Side::Bind, ..options.clone() };
        // Less than this end's program is elsewhere.
        bind.timing.resume_ns = 100_000_000;
        let mut rx = NetReceiver::with(Inline::<Receiving, _>::open(&bind).unwrap(), &bind);
        (options.side, options.port) = (Side::Connect, rx.local_addr().unwrap().port());
        let mut tx = NetSender::with(Inline::<Sending, _>::open(&options).unwrap(), &options);
        until(|| {
            tx.flush().unwrap();
            assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
            tx.peer().is_some()
        });
        let dialer = tx.link_mut().connection_mut();
        let binder = rx.link_mut().connection_mut();
        binder.disconnect();
        dialer.disconnect();
        let broken_ns = clock::coarse_ns();
        until(|| {
            dialer.tend();
            dialer.session.is_greeting()
        });
        until(|| clock::coarse_ns() > broken_ns + bind.timing.resume_ns);
        assert_eq!(rx.try_recv().err(), Some(RecvError::Empty));
        assert_eq!((rx.stats().sessions, rx.stats().resumes), (1, 1));
    }

    #[test]
    fn failing_to_connect_again_and_again_does_not_put_off_giving_up() {
        let (mut tx, _rx) = connected();
        let dialer = tx.link_mut().connection_mut();
        let (lasting_ns, start_ns) = (dialer.session.config().timing.takeover_ns, dialer.now_ns);
        dialer.session.handle_disconnected(start_ns);
        dialer.leaving_ns = start_ns;
        let mut attempts = 0;
        for part in 1..=1000 {
            assert!(!dialer.is_forsaken(), "in part {part}");
            dialer.now_ns = start_ns + part * lasting_ns / 1000;
            if dialer.session.poll_action(dialer.now_ns) == Action::Dial {
                dialer.session.handle_dialed(dialer.now_ns);
                dialer.session.handle_disconnected(dialer.now_ns);
                attempts += 1;
            }
        }
        assert!(attempts > 1);
        assert!(dialer.is_forsaken());
        // What was before the drop does not count.
        dialer.leaving_ns = start_ns + 1;
        assert!(!dialer.is_forsaken());
    }
}

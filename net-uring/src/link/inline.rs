//! The link that the caller's own calls drive: what the kernel does not take at once leaves with the
//! next call of any kind, and while nobody calls, nothing happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Blank, Desk, Ending, Front, Incoming, Link, Outgoing};
use crate::backend::{Backend, Chosen};
use crate::connection::{Connection, Inbox, Peer, Trouble};
use crate::error::Error;
use crate::fork::Birth;
use crate::gauge::Tally;
use crate::options::Options;
use crate::session::{Receiving, Sending, Session, Unacknowledged};
use crate::stats::Stats;

/// Bytes at the front of a ring that a sender keeps to while what it sends is soon acknowledged, half the
/// ring at most: so many, of a ring for each direction, with what the kernel has of them, stay in a core's
/// own cache. Round trips of 64 KiB over rings of 4 MiB, to be read and written all over, took 1.26 to 1.42
/// times as long as a bare socket's; so 1.03 to 1.12 (`ringway-bench pingpong --over tcp --size 65536`).
const NEAR: u64 = 256 << 10;
/// A receiver that has read everything waits for nothing, and begins again sooner; after a quarter of the
/// ring at most.
const NEAR_READ: usize = 64 << 10;

/// So long an open waits for the first connection, at most: as long as it takes on any network that is in order,
/// and for the first segment to be sent again, which is after a second. A host that is not there costs as much.
const FIRST_DIAL: Duration = Duration::from_millis(1_500);

/// See the module.
#[derive(Debug)]
pub struct Inline<H: Inbox, B: Backend> {
    pub(crate) connection: Connection<H, B>,
    /// Of a sender: position up to which acknowledgements need not be looked for.
    mark: u64,
    /// Which of the connection's sessions the caller's positions are of.
    session: u64,
}

impl<H: Inbox> Inline<H, Chosen> {
    /// As the options say.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let backend = Chosen::open(options.backend)?;
        Ok(Self::with(Connection::open(options, backend)?))
    }
}

impl<H: Inbox, B: Backend> Inline<H, B> {
    pub(crate) fn with(connection: Connection<H, B>) -> Self {
        let session = connection.number();
        Self { connection, mark: 0, session }
    }

    /// Waits until the first attempt to connect has succeeded or failed. Else a caller that sends and then waits for
    /// an answer on another channel would wait for ever: nothing left while the kernel was still connecting, and
    /// nobody calls this end meanwhile. What is sent once it is connected leaves at once, behind the greeting.
    pub(crate) fn see_first_dial(&mut self) {
        self.connection.see_dial(FIRST_DIAL);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn connection_mut(&mut self) -> &mut Connection<H, B> {
        &mut self.connection
    }

    /// How the session ended, as far as it has.
    pub(crate) fn ending(&self) -> Ending {
        let session = &self.connection.session;
        let (end, established) = (session.end(), session.is_established());
        Ending { end, established, peer: self.connection.peer() }
    }
}

impl<H: Inbox, B: Backend> Link for Inline<H, B> {
    #[inline(always)]
    fn birth(&self) -> Birth {
        self.connection.birth()
    }

    fn peer(&self) -> Option<Peer> {
        self.connection.peer()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.local_addr()
    }

    fn trouble(&self) -> Option<Trouble> {
        self.connection.trouble()
    }

    fn backend(&self) -> &'static str {
        self.connection.backend_name()
    }

    fn stats(&self) -> Stats {
        self.connection.stats()
    }

    fn tally(&self) -> Option<Arc<Tally>> {
        self.connection.tally()
    }

    fn close(&mut self, timeout: Duration) -> Option<Ending> {
        self.connection.close(timeout).then(|| self.ending())
    }

    fn leave(&mut self, linger: Duration) {
        self.connection.leave(linger);
    }
}

impl<B: Backend> Outgoing for Inline<Sending, B> {
    fn blank(&self) -> Blank {
        let body_max = self.connection.session.body_max() as usize;
        Blank { view: self.connection.ring.view(), body_max }
    }

    #[cold]
    fn front(&mut self, tail: u64) -> Front {
        let capacity = self.connection.ring.capacity() as u64;
        // A small ring is near anyhow: that is not worth a look.
        if capacity > NEAR {
            self.look_for_acknowledgements();
        }
        let near = NEAR.min(capacity / 2);
        let until = match tail - self.connection.session.acknowledged() {
            0 if self.connection.begin_at(tail) => near,
            // Nearly: what is missing may be acknowledged with the next message.
            waiting if waiting <= near / 2 => near / 4,
            _ => near,
        };
        Front { view: self.connection.ring.view(), until: tail + until }
    }

    #[inline(always)]
    fn publish(&mut self, tail: u64) -> u64 {
        let connection = &mut self.connection;
        connection.session.handle_committed(tail);
        connection.tend_sometimes();
        if !connection.session.is_up() {
            // Somebody may be at the door, who was not there a moment ago.
            connection.step();
        }
        connection.push();
        if tail >= self.mark {
            // When the message is on its way: it need not wait for this.
            self.look_for_acknowledgements();
        }
        self.connection.session.acknowledged()
    }

    #[inline(always)]
    fn free(&mut self) -> u64 {
        self.connection.session.acknowledged()
    }

    fn look(&mut self) -> u64 {
        let connection = &mut self.connection;
        connection.step();
        connection.tend_sometimes();
        connection.push();
        connection.session.acknowledged()
    }

    fn wait(&mut self, until: u64, timeout: Option<Duration>) -> u64 {
        self.connection.wait(timeout, |connection| {
            let session = &connection.session;
            session.acknowledged() >= until || is_over(session)
        });
        self.connection.session.acknowledged()
    }

    #[inline(always)]
    fn is_over(&self) -> bool {
        is_over(&self.connection.session)
    }

    fn start_over(&mut self, tail: u64) -> Ending {
        self.connection.session.handle_committed(tail);
        let ending = self.ending();
        self.connection.start_over();
        self.mark = 0;
        ending
    }

    fn unacknowledged(&self, tail: u64) -> Unacknowledged {
        self.connection.session.unacknowledged_below(tail, &*self.connection.ring)
    }

    fn unsent(&self, tail: u64) -> u64 {
        self.connection.session.unsent_below(tail)
    }
}

impl<B: Backend> Inline<Sending, B> {
    /// Every quarter of a ring, so that room is known before it is needed.
    #[cold]
    fn look_for_acknowledgements(&mut self) {
        self.connection.pull();
        let session = &self.connection.session;
        self.mark = session.tail() + (self.connection.ring.capacity() / 4) as u64;
    }
}

/// Whether nothing will be acknowledged any more: the session has ended, or the receiver has closed
/// and gone without waiting for the last words.
#[inline(always)]
pub(crate) fn is_over(session: &Session<Sending>) -> bool {
    session.end().is_some() || (!session.is_up() && session.is_peer_closed())
}

/// Whether nothing will come any more.
#[inline(always)]
pub(crate) fn is_complete(session: &Session<Receiving>) -> bool {
    session.is_complete() || session.end().is_some()
}

impl<B: Backend> Incoming for Inline<Receiving, B> {
    fn desk(&self) -> Desk {
        Desk::new(self.connection.ring.view())
    }

    #[inline(always)]
    fn release(&mut self, desk: &Desk) {
        let session = &mut self.connection.session;
        session.handle_released(desk.taken);
        if session.is_late_to_acknowledge() {
            self.tell();
        }
    }

    #[inline(always)]
    fn look(&mut self, desk: &mut Desk) {
        self.begin_again(desk);
        self.connection.step();
        self.connection.tend_sometimes();
        self.show(desk);
    }

    fn wait(&mut self, desk: &mut Desk, timeout: Option<Duration>) {
        self.begin_again(desk);
        let (number, taken) = (self.session, desk.taken);
        self.connection.wait(timeout, |connection| {
            let session = &connection.session;
            let taken = if connection.number() == number { taken } else { 0 };
            taken < session.received() || (!connection.is_end_told() && is_complete(session))
        });
        self.show(desk);
    }

    fn is_over(&mut self, desk: &mut Desk) -> bool {
        let connection = &self.connection;
        desk.is_empty() && !connection.is_end_told() && is_complete(&connection.session)
    }

    fn acknowledge_end(&mut self, desk: &mut Desk) -> Ending {
        let ending = self.ending();
        self.connection.acknowledge_end();
        self.show(desk);
        ending
    }
}

impl<B: Backend> Inline<Receiving, B> {
    /// What there is to read now.
    #[inline(always)]
    fn show(&mut self, desk: &mut Desk) {
        let number = self.connection.number();
        if number != self.session {
            self.session = number;
            *desk = Desk::new(desk.view);
        }
        desk.received = self.connection.session.received();
    }

    /// At the front of the ring, if everything in it was read, and that is some way behind.
    #[inline(always)]
    fn begin_again(&mut self, desk: &mut Desk) {
        let near = NEAR_READ.min(desk.view.capacity() / 4);
        let is_far = desk.view.offset(desk.released) >= near;
        if is_far && self.connection.begin_at(desk.released) {
            desk.view = self.connection.ring.view();
        }
    }

    /// The acknowledgement leaves.
    #[cold]
    fn tell(&mut self) {
        self.connection.push();
    }
}

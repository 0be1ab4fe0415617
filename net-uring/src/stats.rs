//! What an endpoint has done so far.

use crate::connection::Trouble;
use crate::listener::DoorStats;
use crate::socket::Facts;

/// A snapshot of an endpoint's own counters, since it was opened; they go on over sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages committed (queued ones included), or handed out.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Of a sender: messages that the receiving application has released. Of a receiver: that this
    /// one has.
    pub released: u64,
    /// Messages of sessions that ended before they were released: lost, and told in errors.
    pub lost: u64,
    /// Of a sender: bytes of frames that the kernel has not taken yet. They leave with later calls.
    pub unsent_bytes: u64,
    /// Times a sender found no room.
    pub full_waits: u64,
    /// Sessions, the present one included.
    pub sessions: u64,
    /// Handshakes that succeeded.
    pub connections: u64,
    /// Of these, the ones that resumed a session.
    pub resumes: u64,
    /// Attempts that did not come to a handshake.
    pub failed_attempts: u64,
    /// Connections closed because the peer broke the protocol.
    pub violations: u64,
    /// Hellos refused.
    pub refusals: u64,
    /// Bytes sent again after a connection broke.
    pub resent_bytes: u64,
    /// Control frames sent: acknowledgements, mostly.
    pub control_sent: u64,
    /// Control frames received.
    pub control_received: u64,
    /// The peer is connected and has said nothing for five seconds. That is no death.
    pub stalled: bool,
    /// Sends that the kernel took.
    pub sends: u64,
    /// Receives that brought something.
    pub receives: u64,
    /// Receives that found nothing.
    pub empty_receives: u64,
    /// Bytes that the kernel took, frames and repetitions included.
    pub wire_bytes_sent: u64,
    /// Bytes that came, likewise.
    pub wire_bytes_received: u64,
    /// Times it slept.
    pub parks: u64,
    /// Why there was no connection, when there last was none.
    pub trouble: Option<Trouble>,
    /// Of an end that binds: what became of those who came.
    pub door: Option<DoorStats>,
    /// How the present connection's socket is set up.
    pub socket: Option<Facts>,
}

impl Stats {
    /// Adds another connection's counters to these. What is not a number stays as it is.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.sessions, other.sessions),
            (&mut self.connections, other.connections),
            (&mut self.resumes, other.resumes),
            (&mut self.failed_attempts, other.failed_attempts),
            (&mut self.violations, other.violations),
            (&mut self.refusals, other.refusals),
            (&mut self.resent_bytes, other.resent_bytes),
            (&mut self.control_sent, other.control_sent),
            (&mut self.control_received, other.control_received),
            (&mut self.sends, other.sends),
            (&mut self.receives, other.receives),
            (&mut self.empty_receives, other.empty_receives),
            (&mut self.wire_bytes_sent, other.wire_bytes_sent),
            (&mut self.wire_bytes_received, other.wire_bytes_received),
            (&mut self.parks, other.parks),
        ] {
            *sum += part;
        }
        self.stalled |= other.stalled;
    }
}

//! Both ends in processes of their own, where a thread moves the bytes.

#[path = "processes/suite.rs"]
mod suite;

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Thread;

/// The test harness runs this in a peer.
#[test]
fn peer() {
    suite::play();
}

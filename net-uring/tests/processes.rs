//! Both ends in processes of their own, whose calls move the bytes.

#[path = "processes/suite.rs"]
mod suite;

/// Who moves the bytes.
const IO: ringway_net::Io = ringway_net::Io::Inline;

/// The test harness runs this in a peer.
#[test]
fn peer() {
    suite::play();
}

//! Who is at the other side of a channel between hosts that has one end here and many there.

use ringway_net::PeerChange;

use crate::error::Peer;

/// Who is there, and what has become of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peers {
    /// Connected, or about to connect again.
    pub present: Vec<Peer>,
    /// Since it was last asked, in order.
    pub events: Vec<PeerEvent>,
    /// Older events that were forgotten, because nobody asked while thousands came and went.
    pub forgotten: u64,
}

/// Something about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerEvent {
    /// Who.
    pub peer: Peer,
    /// What.
    pub change: PeerChange,
}

impl From<ringway_net::Peers> for Peers {
    fn from(peers: ringway_net::Peers) -> Self {
        let event = |event: ringway_net::PeerEvent| PeerEvent {
            peer: event.peer.into(),
            change: event.change,
        };
        Self {
            present: peers.present.into_iter().map(Into::into).collect(),
            events: peers.events.into_iter().map(event).collect(),
            forgotten: peers.forgotten,
        }
    }
}

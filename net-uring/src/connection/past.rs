//! Sessions that are over, as far as they may come back.
//!
//! A connector whose first welcome was lost knows of no session yet: it says hello again, as one that has
//! received nothing and been given nothing. Whoever has had all of its messages meanwhile, and has begun anew,
//! would take it for another and have them twice. So a binder remembers who was there, and answers that it
//! knows of no such session: what is then lost is counted over there.

use crate::session::SessionId;

/// Of one connection; the oldest is forgotten first.
const KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Past {
    ids: Vec<SessionId>,
    next: usize,
    kept: usize,
}

impl Default for Past {
    fn default() -> Self {
        Self::of(1)
    }
}

impl Past {
    /// Of an end with so many peers.
    pub(crate) fn of(peers: usize) -> Self {
        Self { ids: Vec::new(), next: 0, kept: peers.max(KEPT) }
    }

    /// This one is over.
    pub(crate) fn add(&mut self, id: SessionId) {
        if self.ids.len() < self.kept {
            self.ids.push(id);
        } else {
            self.ids[self.next] = id;
            self.next = (self.next + 1) % self.kept;
        }
    }

    /// Whether this one is.
    pub(crate) fn has(&self, id: &SessionId) -> bool {
        self.ids.contains(id)
    }
}

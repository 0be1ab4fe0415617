//! What an end shows of itself while it works: now and then whoever drives its connections hands its
//! counters to a [`Gauge`], which the crate above provides. Never for a message: with a look at the socket,
//! when some time has gone by.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::session::SessionId;
use crate::stats::Stats;
use crate::sync::Word;

/// Least time between two shows. The coarse clock is known anyway; a show takes some 200 ns.
const EVERY_NS: u64 = 10_000_000;

/// Where an end's counters are to be seen.
pub trait Gauge: fmt::Debug + Send + Sync {
    /// This is how it stands. Called by one thread at a time, at most every 10 ms (an end with more than 64
    /// others on the other side: more seldom); must not block.
    fn show(&self, shown: &Shown<'_>);
}

/// How an end stands.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shown<'a> {
    /// It binds; else it connects.
    pub binds: bool,
    /// Whether messages can flow; with many on the other side, whether anybody is there.
    pub is_up: bool,
    /// How many are on the other side, or about to connect again.
    pub peers: usize,
    /// Where the one on the other side is, or is looked for.
    pub peer: Option<SocketAddr>,
    /// The session with it, once there is one.
    pub session: Option<SessionId>,
    /// Where it listens, or from where it is connected.
    pub local: Option<SocketAddr>,
    /// What moves the bytes: `uring` or `epoll`.
    pub backend: &'static str,
    /// Bytes of frames that a sender has and that were not released yet; that a receiver has, likewise.
    pub behind_bytes: u64,
    /// The counters. `released` of a sender is 0: to know it takes a walk.
    pub stats: &'a Stats,
}

impl<'a> Shown<'a> {
    /// Of an end that nobody has come to.
    pub fn of(stats: &'a Stats) -> Self {
        Self {
            binds: false,
            is_up: false,
            peers: 0,
            peer: None,
            session: None,
            local: None,
            backend: "epoll",
            behind_bytes: 0,
            stats,
        }
    }
}

/// What an end counts itself, as it was when it last looked at the network or published something.
#[derive(Debug)]
pub struct Tally {
    messages: Word,
    bytes: Word,
    released: Word,
    lost: Word,
    full_waits: Word,
}

impl Tally {
    /// Of a sender.
    #[inline(always)]
    pub fn sent(&self, messages: u64, bytes: u64) {
        self.messages.store_relaxed(messages);
        self.bytes.store_relaxed(bytes);
    }

    /// Of a sender, what is seldom news.
    pub fn missed(&self, lost: u64, full_waits: u64) {
        self.lost.store_relaxed(lost);
        self.full_waits.store_relaxed(full_waits);
    }

    /// Of a receiver.
    #[inline(always)]
    pub fn received(&self, messages: u64, bytes: u64) {
        self.sent(messages, bytes);
        self.released.store_relaxed(messages);
    }
}

/// Whether it is time to show something, and what the end itself has counted.
#[derive(Debug)]
pub(crate) struct Meter {
    gauge: Arc<dyn Gauge>,
    tally: Arc<Tally>,
    due_ns: u64,
    /// From where the connection of that number was made.
    local: Option<(u64, SocketAddr)>,
}

impl Meter {
    pub(crate) fn new(gauge: Arc<dyn Gauge>) -> Self {
        let zero = Word::zero;
        let tally = Tally {
            messages: zero(),
            bytes: zero(),
            released: zero(),
            lost: zero(),
            full_waits: zero(),
        };
        Self { gauge, tally: Arc::new(tally), due_ns: 0, local: None }
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Whether it is time, at every so manieth time; then the next is set.
    pub(crate) fn is_due(&mut self, now_ns: u64, every: u64) -> bool {
        let due = now_ns >= self.due_ns;
        if due {
            self.due_ns = now_ns.saturating_add(EVERY_NS.saturating_mul(every));
        }
        due
    }

    /// With what the end itself has counted.
    pub(crate) fn show(&self, shown: &Shown<'_>) {
        let tally = &*self.tally;
        let stats = Stats {
            messages: tally.messages.load_relaxed(),
            bytes: tally.bytes.load_relaxed(),
            released: tally.released.load_relaxed(),
            lost: tally.lost.load_relaxed(),
            full_waits: tally.full_waits.load_relaxed(),
            ..*shown.stats
        };
        self.gauge.show(&Shown { stats: &stats, ..*shown });
    }

    /// From where a connection was made. The kernel is asked once for each.
    pub(crate) fn local_of(
        &mut self,
        connection: u64,
        ask: impl FnOnce() -> Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        if self.local.is_none_or(|(number, _)| number != connection) {
            self.local = ask().map(|local| (connection, local));
        }
        self.local.map(|(_, local)| local)
    }
}

//! What is to be measured: scenarios, waits, seats at the table, and the outcome of one round.
//! Plain data that crosses the pipes between the processes as JSON. No measuring, no I/O here.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What two parties do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// One message there and one back, the next only after it.
    Pingpong,
    /// Messages one way, as fast as they go.
    Stream,
}

/// How a party waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// Polls for ever.
    Spin,
    /// Polls a while, then sleeps.
    Adaptive,
    /// Sleeps at once.
    Park,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Over {
    /// Shared memory on one host.
    Shm,
    /// TCP, over this host's loopback.
    Tcp,
}

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Drives the ping-pong, is the source of a stream; keeps the time of round trips.
    Active,
    /// Echoes, is the sink of a stream; keeps the time of streams.
    Passive,
}

/// One system under one load: what both processes need to know to take part in its rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) system: String,
    pub(crate) scenario: Scenario,
    pub(crate) wait: Wait,
    /// Payload bytes of a message.
    pub(crate) size: usize,
    /// Bytes of a ring.
    pub(crate) capacity: usize,
    /// Where this seat's part of the arena starts.
    pub(crate) arena_offset: usize,
    /// Channel name, unique on this machine, for systems that have names.
    pub(crate) channel: String,
    /// More options for the addresses of named channels; may be empty.
    pub(crate) channel_options: String,
}

/// The first line that a process of the pair reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) role: Role,
    /// CPU to run on and the other process's CPU; `None` when they can't be told apart.
    pub(crate) cpus: Option<Cpus>,
    /// Inherited descriptor of the shared arena, and its length in bytes.
    pub(crate) arena_fd: i32,
    pub(crate) arena_len: usize,
    pub(crate) seats: Vec<Seat>,
}

/// CPUs of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cpus {
    pub(crate) active: usize,
    pub(crate) passive: usize,
}

impl Cpus {
    pub(crate) fn of(self, role: Role) -> usize {
        match role {
            Role::Active => self.active,
            Role::Passive => self.passive,
        }
    }
}

/// What the parent tells a process of the pair, one JSON line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Open every seat.
    Open,
    /// Watch the clock of an otherwise idle core.
    Jitter { ms: u64 },
    /// Play one round on a seat.
    Round { seat: usize, micros: u64 },
}

/// What a process of the pair answers, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    Opened,
    Jitter(Jitter),
    /// The round is about to start on this side.
    Ready,
    Done(Outcome),
    Fault(String),
}

/// One side's account of one round. The sum of both sides' is the round's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Messages sent that the other side has to receive (for a ping-pong: pings).
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Messages that came with other bytes, another length or out of order.
    pub(crate) altered: u64,
    /// Times that the kernel gave a party's core to somebody else.
    pub(crate) preempted: u64,
    pub(crate) trips: Option<Trips>,
    pub(crate) flow: Option<Flow>,
}

impl Outcome {
    /// Both sides' accounts together.
    pub(crate) fn and(self, other: Outcome) -> Outcome {
        Outcome {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            altered: self.altered + other.altered,
            preempted: self.preempted + other.preempted,
            trips: self.trips.or(other.trips),
            flow: self.flow.or(other.flow),
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Round trips of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trips {
    /// Median over blocks of 64 trips, per trip.
    pub(crate) block_rtt_ns: f64,
    /// From single trips, each with the cost of one clock reading in it.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) max_ns: u64,
    /// Single trips behind the four figures above.
    pub(crate) count: u64,
}

/// A stream's pace in one round, as the sink saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) messages: u64,
    pub(crate) ns: u64,
}

/// How an otherwise idle core interrupts what runs on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Jitter {
    /// The CPU watched; `None` when unpinned.
    pub(crate) cpu: Option<usize>,
    /// Gaps of more than a microsecond between two clock readings.
    pub(crate) gaps_per_s: f64,
    pub(crate) median_gap_ns: u64,
    pub(crate) max_gap_ns: u64,
    /// Share of the time that went into gaps.
    pub(crate) stolen: f64,
}

/// Why a run can't go on, in words for whoever started it.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    pub(crate) fn new(text: impl Into<String>) -> Fault {
        Fault(text.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scenario::Pingpong => "pingpong",
            Scenario::Stream => "stream",
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wait::Spin => "spin",
            Wait::Adaptive => "adaptive",
            Wait::Park => "park",
        })
    }
}

//! The systems that can be measured: one file each, one line each in [`ALL`].

mod courtesy;
mod floor_cacheline;
mod floor_futex;
mod floor_ring;
mod floor_tcp;
mod floor_tcp_stream;
mod in_process;
mod ringway_channel;
mod ringway_each;
mod ringway_many;
mod ringway_raw;
mod ringway_tcp;
mod ringway_typed;
mod rtrb;

use crate::plan::{Fault, Over, Scenario, Wait};
use crate::side::{Place, Side};

/// A reference or a subject.
pub(crate) struct System {
    /// As in `--systems` and in results.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) scenarios: &'static [Scenario],
    pub(crate) waits: &'static [Wait],
    /// Whether it can be shared by more than one sender or receiver.
    pub(crate) of_many: bool,
    /// Whether it is there: what Ringway does not know yet is not listed.
    pub(crate) exists: fn(&System) -> bool,
    /// Whether it carries messages of this many bytes.
    pub(crate) fits: fn(usize) -> bool,
    /// What it is compared with when it waits so; the first that takes part is the row's `ratio_to`.
    pub(crate) against: fn(Wait) -> &'static [Against],
    /// Bytes of the shared arena that it needs, given message size and ring capacity.
    pub(crate) arena_len: fn(usize, usize) -> usize,
    pub(crate) open: fn(&Place<'_>) -> Result<Box<dyn Side>, Fault>,
}

impl System {
    /// What carries its messages: the name says so.
    pub(crate) fn over(&self) -> Over {
        if self.name.contains("-tcp-") { Over::Tcp } else { Over::Shm }
    }

    /// Whether its sender has a thread of its own, which moves the bytes.
    pub(crate) fn has_thread(&self) -> bool {
        self.name.ends_with("-thread")
    }

    /// Whether it queues, or takes, messages up to so many bytes at once (`--flush`).
    pub(crate) fn goes_by_flush(&self) -> bool {
        self.over() == Over::Tcp && (self.name.ends_with("-batch") || self.has_thread())
    }

    /// Whether its sender goes on while a receiver does not read.
    pub(crate) fn goes_on(&self) -> bool {
        self.name.ends_with("-overwrite")
    }
}

/// One comparison.
#[derive(Clone, Copy)]
pub(crate) struct Against {
    pub(crate) system: &'static str,
    pub(crate) wait: Wait,
}

const fn spinning(system: &'static str) -> Against {
    Against { system, wait: Wait::Spin }
}

const fn parked(system: &'static str) -> Against {
    Against { system, wait: Wait::Park }
}

fn always(_: &System) -> bool {
    true
}

fn if_ringway_knows(system: &System) -> bool {
    ringway_many::knows(system.name)
}

/// Why a system that there is code for can't be opened on this host.
pub(crate) fn lack(system: &System) -> Option<String> {
    ringway_tcp::lack(system.name)
}

const PINGPONG: &[Scenario] = &[Scenario::Pingpong];
const STREAM: &[Scenario] = &[Scenario::Stream];
const BOTH: &[Scenario] = &[Scenario::Pingpong, Scenario::Stream];
const STREAMS: &[Scenario] = &[Scenario::Stream, Scenario::Fanout, Scenario::Mpmc];
const ALL_FOUR: &[Scenario] =
    &[Scenario::Pingpong, Scenario::Stream, Scenario::Fanout, Scenario::Mpmc];
const TO_ALL: &[Scenario] = &[Scenario::Pingpong, Scenario::Stream, Scenario::Fanout];
const TO_ONE: &[Scenario] = &[Scenario::Pingpong, Scenario::Stream, Scenario::Mpmc];

const SPINNING: &[Wait] = &[Wait::Spin];
const PARKED: &[Wait] = &[Wait::Park];
const ANY_WAIT: &[Wait] = &[Wait::Spin, Wait::Adaptive, Wait::Park];

/// Ringway over TCP: its systems differ by what moves the bytes and how messages are handed over. What a
/// spinning one is compared with stands in the brackets.
macro_rules! ringway_tcp {
    ($name:literal, $about:literal, $scenarios:ident, [$($spinning:literal),*], $open:path) => {
        System {
            name: $name,
            about: $about,
            scenarios: $scenarios,
            waits: ANY_WAIT,
            of_many: false,
            exists: always,
            fits: |_| true,
            against: |wait| match wait {
                Wait::Spin => const { &[$(spinning($spinning)),*] },
                Wait::Adaptive => const { &[spinning($name), spinning("floor-tcp-spin")] },
                Wait::Park => const { &[parked("floor-tcp-block"), spinning($name)] },
            },
            arena_len: floor_tcp::arena_len,
            open: $open,
        }
    };
}

/// The ping-pong that brackets every round.
pub(crate) const BRACKET: &str = "floor-cacheline";

/// All there are, references first.
const ALL: &[System] = &[
    System {
        name: BRACKET,
        about: "two 64-bit atomics, polled without a pause",
        scenarios: PINGPONG,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| &[],
        arena_len: floor_cacheline::arena_len,
        open: floor_cacheline::open_tight,
    },
    System {
        name: "floor-cacheline-pause",
        about: "two 64-bit atomics, polled like the ring",
        scenarios: PINGPONG,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| const { &[spinning(BRACKET)] },
        arena_len: floor_cacheline::arena_len,
        open: floor_cacheline::open_paused,
    },
    System {
        name: "floor-ring",
        about: "minimal in-band ring, polled like Ringway's",
        scenarios: BOTH,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| const { &[spinning("floor-cacheline-pause"), spinning(BRACKET), spinning("rtrb")] },
        arena_len: floor_ring::arena_len,
        open: floor_ring::open_paused,
    },
    System {
        name: "floor-ring-tight",
        about: "the same ring, polled without a pause",
        scenarios: BOTH,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| const { &[spinning(BRACKET), spinning("floor-ring")] },
        arena_len: floor_ring::arena_len,
        open: floor_ring::open_tight,
    },
    System {
        name: "floor-futex",
        about: "one futex each way, always asleep",
        scenarios: PINGPONG,
        waits: &[Wait::Park],
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| &[],
        arena_len: floor_futex::arena_len,
        open: floor_futex::open,
    },
    System {
        name: "rtrb",
        about: "the crate, in one process with two threads",
        scenarios: BOTH,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: rtrb::fits,
        against: |_| const { &[spinning("floor-ring")] },
        arena_len: rtrb::arena_len,
        open: rtrb::open,
    },
    System {
        name: "crossbeam-array-queue",
        about: "the crate crossbeam-queue, in one process with threads",
        scenarios: TO_ONE,
        waits: SPINNING,
        of_many: true,
        exists: always,
        fits: in_process::fits,
        against: |_| &[],
        arena_len: in_process::arena_len,
        open: in_process::open_array_queue,
    },
    System {
        name: "crossbeam-channel",
        about: "the crate, bounded, in one process with threads",
        scenarios: TO_ONE,
        waits: SPINNING,
        of_many: true,
        exists: always,
        fits: in_process::fits,
        against: |_| &[],
        arena_len: in_process::arena_len,
        open: in_process::open_crossbeam_channel,
    },
    System {
        name: "kanal",
        about: "the crate, bounded, in one process with threads",
        scenarios: TO_ONE,
        waits: SPINNING,
        of_many: true,
        exists: always,
        fits: in_process::fits,
        against: |_| &[],
        arena_len: in_process::arena_len,
        open: in_process::open_kanal,
    },
    System {
        name: "ringway-shm-raw",
        about: "bytes in place, one call per message",
        scenarios: ALL_FOUR,
        waits: ANY_WAIT,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |wait| match wait {
            Wait::Spin => const { &[spinning("floor-ring"), spinning(BRACKET)] },
            Wait::Adaptive => const { &[spinning("ringway-shm-raw"), spinning("floor-ring")] },
            Wait::Park => const { &[parked("floor-futex"), spinning("ringway-shm-raw")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_raw::open,
    },
    System {
        name: "ringway-shm-typed",
        about: "rkyv messages, one call per message",
        scenarios: BOTH,
        waits: ANY_WAIT,
        of_many: false,
        exists: always,
        fits: ringway_typed::fits,
        against: |wait| match wait {
            Wait::Spin => {
                const { &[spinning("ringway-shm-raw"), spinning("floor-ring"), spinning(BRACKET)] }
            }
            Wait::Adaptive => const { &[spinning("ringway-shm-typed")] },
            Wait::Park => const { &[parked("floor-futex"), spinning("ringway-shm-typed")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_typed::open,
    },
    System {
        name: "ringway-shm-batch",
        about: "bytes in place, 32 records queued to a flush",
        scenarios: STREAMS,
        waits: ANY_WAIT,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |wait| match wait {
            Wait::Spin => const { &[spinning("floor-ring"), spinning("ringway-shm-raw")] },
            Wait::Adaptive => const { &[spinning("ringway-shm-batch")] },
            Wait::Park => const { &[spinning("ringway-shm-batch")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_raw::open_batch,
    },
    System {
        name: "ringway-shm-typed-batch",
        about: "rkyv messages, send_batch of 32",
        scenarios: STREAM,
        waits: ANY_WAIT,
        of_many: false,
        exists: always,
        fits: ringway_typed::fits,
        against: |wait| match wait {
            Wait::Spin => {
                const { &[spinning("floor-ring"), spinning("ringway-shm-typed"), spinning("rtrb")] }
            }
            Wait::Adaptive => const { &[spinning("ringway-shm-typed-batch")] },
            Wait::Park => const { &[spinning("ringway-shm-typed-batch")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_typed::open_batch,
    },
    System {
        name: "ringway-shm-each",
        about: "bytes, a channel of two for each subscriber",
        scenarios: &[Scenario::Fanout],
        waits: ANY_WAIT,
        of_many: true,
        exists: always,
        fits: ringway_many::fits,
        against: |_| const { &[spinning("ringway-shm-raw")] },
        arena_len: ringway_channel::arena_len,
        open: ringway_each::open,
    },
    System {
        name: "ringway-broadcast-block",
        about: "bytes to every subscriber, none forgotten",
        scenarios: TO_ALL,
        waits: ANY_WAIT,
        of_many: true,
        exists: if_ringway_knows,
        fits: ringway_many::fits,
        against: |wait| match wait {
            Wait::Spin => const { &[spinning("ringway-shm-raw"), spinning("ringway-shm-each")] },
            Wait::Adaptive | Wait::Park => const { &[spinning("ringway-broadcast-block")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_many::open,
    },
    System {
        name: "ringway-broadcast-overwrite",
        about: "bytes to every subscriber, who may be lapped",
        scenarios: TO_ALL,
        waits: ANY_WAIT,
        of_many: true,
        exists: if_ringway_knows,
        fits: ringway_many::fits,
        against: |wait| match wait {
            Wait::Spin => {
                const {
                    &[
                        spinning("ringway-broadcast-block"),
                        spinning("ringway-shm-raw"),
                        spinning("ringway-shm-each"),
                    ]
                }
            }
            Wait::Adaptive | Wait::Park => const { &[spinning("ringway-broadcast-overwrite")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_many::open,
    },
    System {
        name: "ringway-broadcast-typed-batch",
        about: "rkyv messages to every subscriber, send_batch of 32",
        scenarios: &[Scenario::Fanout],
        waits: ANY_WAIT,
        of_many: true,
        exists: if_ringway_knows,
        fits: ringway_typed::fits,
        against: |wait| match wait {
            Wait::Spin => const { &[spinning("ringway-broadcast-block")] },
            Wait::Adaptive | Wait::Park => const { &[spinning("ringway-broadcast-typed-batch")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_typed::open_batch,
    },
    System {
        name: "ringway-mpmc",
        about: "bytes in slots, one call per message",
        scenarios: TO_ONE,
        waits: ANY_WAIT,
        of_many: true,
        exists: if_ringway_knows,
        fits: ringway_many::fits,
        against: |wait| match wait {
            Wait::Spin => {
                const {
                    &[
                        spinning("ringway-shm-raw"),
                        spinning("crossbeam-array-queue"),
                        spinning("crossbeam-channel"),
                        spinning("kanal"),
                    ]
                }
            }
            Wait::Adaptive | Wait::Park => const { &[spinning("ringway-mpmc")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_many::open,
    },
    System {
        name: "ringway-mpmc-batch",
        about: "bytes in slots, 32 at a time on both sides",
        scenarios: &[Scenario::Mpmc],
        waits: ANY_WAIT,
        of_many: true,
        exists: if_ringway_knows,
        fits: ringway_many::fits,
        against: |wait| match wait {
            Wait::Spin => {
                const {
                    &[
                        spinning("ringway-mpmc"),
                        spinning("crossbeam-array-queue"),
                        spinning("crossbeam-channel"),
                        spinning("kanal"),
                    ]
                }
            }
            Wait::Adaptive | Wait::Park => const { &[spinning("ringway-mpmc-batch")] },
        },
        arena_len: ringway_channel::arena_len,
        open: ringway_many::open_batch,
    },
    System {
        name: "floor-tcp-spin",
        about: "one plain non-blocking socket, spun on",
        scenarios: PINGPONG,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| &[],
        arena_len: floor_tcp::arena_len,
        open: floor_tcp::open_spin,
    },
    System {
        name: "floor-tcp-block",
        about: "one plain socket, slept on",
        scenarios: PINGPONG,
        waits: PARKED,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| &[],
        arena_len: floor_tcp::arena_len,
        open: floor_tcp::open_block,
    },
    System {
        name: "floor-tcp-epoll",
        about: "one plain socket and an epoll, spun or slept on",
        scenarios: PINGPONG,
        waits: &[Wait::Spin, Wait::Park],
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |wait| match wait {
            Wait::Park => const { &[parked("floor-tcp-block")] },
            Wait::Spin | Wait::Adaptive => const { &[spinning("floor-tcp-spin")] },
        },
        arena_len: floor_tcp::arena_len,
        open: floor_tcp::open_epoll,
    },
    System {
        name: "floor-tcp-stream",
        about: "plain writes of 65400 bytes or 1 MiB, the faster",
        scenarios: STREAM,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| &[],
        arena_len: floor_tcp::arena_len,
        open: floor_tcp_stream::open,
    },
    System {
        name: "floor-tcp-send",
        about: "one plain write per message",
        scenarios: STREAM,
        waits: SPINNING,
        of_many: false,
        exists: always,
        fits: |_| true,
        against: |_| &[],
        arena_len: floor_tcp::arena_len,
        open: floor_tcp_stream::open_send,
    },
    ringway_tcp!(
        "ringway-tcp-uring",
        "one call per message, io_uring",
        BOTH,
        ["floor-tcp-spin", "floor-tcp-send", "floor-tcp-stream"],
        ringway_tcp::open
    ),
    ringway_tcp!(
        "ringway-tcp-uring-batch",
        "many queued to a flush, io_uring",
        STREAM,
        ["floor-tcp-stream", "ringway-tcp-uring"],
        ringway_tcp::open_batch
    ),
    ringway_tcp!(
        "ringway-tcp-uring-thread",
        "one call per message, a thread sends, io_uring",
        STREAM,
        ["floor-tcp-stream", "ringway-tcp-uring-batch", "ringway-tcp-uring"],
        ringway_tcp::open_thread
    ),
    ringway_tcp!(
        "ringway-tcp-epoll",
        "one call per message, plain sockets and epoll",
        BOTH,
        ["floor-tcp-spin", "floor-tcp-send", "floor-tcp-stream"],
        ringway_tcp::open
    ),
    ringway_tcp!(
        "ringway-tcp-epoll-batch",
        "many queued to a flush, plain sockets and epoll",
        STREAM,
        ["floor-tcp-stream", "ringway-tcp-epoll"],
        ringway_tcp::open_batch
    ),
    ringway_tcp!(
        "ringway-tcp-epoll-thread",
        "one call per message, a thread sends, plain sockets and epoll",
        STREAM,
        ["floor-tcp-stream", "ringway-tcp-epoll-batch", "ringway-tcp-epoll"],
        ringway_tcp::open_thread
    ),
];

/// All that can be measured.
pub(crate) fn all() -> impl Iterator<Item = &'static System> {
    ALL.iter().filter(|system| (system.exists)(system))
}

/// The system of this name.
pub(crate) fn find(name: &str) -> Option<&'static System> {
    all().find(|system| system.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_comparisons_name_systems() {
        for (i, system) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.name != system.name), "{}", system.name);
            for against in system.waits.iter().flat_map(|&wait| (system.against)(wait)) {
                let reference = ALL.iter().find(|other| other.name == against.system);
                let reference = reference.expect("it is a system");
                assert!(reference.waits.contains(&against.wait), "{}", system.name);
            }
        }
    }
}

//! The doorbell with a `membarrier` in place of the waker's fence, which loom has no notion of: every
//! interleaving of waker and sleeper on a machine with store buffers, explored state by state.
//!
//! The steps are those of `wait::announce`, `wait::sleep` and `Ringer::ring`. A state from which
//! nothing can move while messages are left is a lost wake-up.

#![cfg(not(loom))]

use std::collections::{HashSet, VecDeque};

const MESSAGES: u8 = 3;

/// In the place of a sleep's number.
const AWAKE: u8 = 0;

/// Who runs which fence.
#[derive(Clone, Copy)]
struct Fences {
    waker: bool,
    sleeper: bool,
    /// The sleeper empties the waker's store buffer, too.
    barrier: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    Published,
    Asleep,
    Rung,
}

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Memory {
    published: u8,
    /// Number of the sleep, or [`AWAKE`].
    asleep: u8,
    rung: u8,
}

impl Memory {
    fn word(&mut self, word: Word) -> &mut u8 {
        match word {
            Word::Published => &mut self.published,
            Word::Asleep => &mut self.asleep,
            Word::Rung => &mut self.rung,
        }
    }
}

/// A processor's stores that others can't see yet, oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Buffer(Vec<(Word, u8)>);

impl Buffer {
    fn drain(&mut self, memory: &mut Memory) {
        for (word, value) in self.0.drain(..) {
            *memory.word(word) = value;
        }
    }

    fn load(&self, memory: &Memory, word: Word) -> u8 {
        let own = self.0.iter().rev().find(|(stored, _)| *stored == word);
        own.map_or_else(|| *memory.clone().word(word), |(_, value)| *value)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum WakerAt {
    Publish,
    Fence,
    Look,
    CountUp,
    Wake,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SleeperAt {
    Poll,
    Note,
    Raise,
    Fence,
    LookAgain,
    Sleep,
    Sleeping,
    Lower,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    memory: Memory,
    waker: (WakerAt, Buffer),
    sent: u8,
    woken: u8,
    sleeper: (SleeperAt, Buffer),
    received: u8,
    seen: u8,
    ticket: u8,
}

/// How many states there are, and in how many of them a wake-up is lost.
fn explore(fences: Fences) -> (usize, usize) {
    let start = State {
        memory: Memory::default(),
        waker: (WakerAt::Publish, Buffer::default()),
        sent: 0,
        woken: 0,
        sleeper: (SleeperAt::Poll, Buffer::default()),
        received: 0,
        seen: 0,
        ticket: 0,
    };
    let mut known = HashSet::from([start.clone()]);
    let mut open = VecDeque::from([start]);
    let mut lost = 0;
    while let Some(state) = open.pop_front() {
        let next: Vec<State> = [
            visible(&state, true),
            visible(&state, false),
            waker(&state, fences),
            sleeper(&state, fences),
        ]
        .into_iter()
        .flatten()
        .collect();
        if next.is_empty() && state.received < MESSAGES {
            lost += 1;
        }
        for state in next {
            if known.insert(state.clone()) {
                open.push_back(state);
            }
        }
    }
    (known.len(), lost)
}

/// The oldest buffered store of one side reaches memory.
fn visible(state: &State, of_waker: bool) -> Option<State> {
    let mut next = state.clone();
    let buffer = if of_waker { &mut next.waker.1 } else { &mut next.sleeper.1 };
    if buffer.0.is_empty() {
        return None;
    }
    let (word, value) = buffer.0.remove(0);
    *next.memory.word(word) = value;
    Some(next)
}

fn waker(state: &State, fences: Fences) -> Option<State> {
    if state.sent == MESSAGES {
        return None;
    }
    let mut next = state.clone();
    let State { memory, waker: (at, buffer), sent, woken, sleeper, .. } = &mut next;
    match *at {
        WakerAt::Publish => {
            buffer.0.push((Word::Published, *sent + 1));
            *at = WakerAt::Fence;
        }
        WakerAt::Fence => {
            if fences.waker {
                buffer.drain(memory);
            }
            *at = WakerAt::Look;
        }
        WakerAt::Look => {
            let ticket = buffer.load(memory, Word::Asleep);
            if ticket != AWAKE && ticket != *woken {
                *woken = ticket;
                *at = WakerAt::CountUp;
            } else {
                *sent += 1;
                *at = WakerAt::Publish;
            }
        }
        WakerAt::CountUp => {
            let rung = buffer.load(memory, Word::Rung) + 1;
            buffer.0.push((Word::Rung, rung));
            *at = WakerAt::Wake;
        }
        WakerAt::Wake => {
            // A system call is a fence.
            buffer.drain(memory);
            if sleeper.0 == SleeperAt::Sleeping {
                sleeper.0 = SleeperAt::Lower;
            }
            *sent += 1;
            *at = WakerAt::Publish;
        }
    }
    Some(next)
}

fn sleeper(state: &State, fences: Fences) -> Option<State> {
    if state.received == MESSAGES {
        return None;
    }
    let mut next = state.clone();
    let State { memory, waker, sleeper: (at, buffer), received, seen, ticket, .. } = &mut next;
    match *at {
        SleeperAt::Poll => {
            if buffer.load(memory, Word::Published) > *received {
                *received += 1;
            } else {
                *at = SleeperAt::Note;
            }
        }
        SleeperAt::Note => {
            *seen = buffer.load(memory, Word::Rung);
            *at = SleeperAt::Raise;
        }
        SleeperAt::Raise => {
            *ticket += 1;
            buffer.0.push((Word::Asleep, *ticket));
            *at = SleeperAt::Fence;
        }
        SleeperAt::Fence => {
            if fences.sleeper {
                buffer.drain(memory);
            }
            if fences.barrier {
                buffer.drain(memory);
                waker.1.drain(memory);
            }
            *at = SleeperAt::LookAgain;
        }
        SleeperAt::LookAgain => {
            let found = buffer.load(memory, Word::Published) > *received;
            *at = if found { SleeperAt::Lower } else { SleeperAt::Sleep };
        }
        SleeperAt::Sleep => {
            buffer.drain(memory);
            // The kernel compares and sleeps in one step.
            let same = memory.rung == *seen;
            *at = if same { SleeperAt::Sleeping } else { SleeperAt::Lower };
        }
        SleeperAt::Sleeping => return None,
        SleeperAt::Lower => {
            buffer.0.push((Word::Asleep, AWAKE));
            *at = SleeperAt::Poll;
        }
    }
    Some(next)
}

#[test]
fn two_fences_or_a_barrier_lose_no_wake_up() {
    for (name, fences) in [
        ("two fences", Fences { waker: true, sleeper: true, barrier: false }),
        ("a barrier", Fences { waker: false, sleeper: true, barrier: true }),
    ] {
        let (states, lost) = explore(fences);
        println!("{name}: {states} states, {lost} lost wake-ups");
        assert!(states > 1000 && lost == 0, "{name}: {lost} of {states} states lose a wake-up");
    }
}

#[test]
fn anything_less_loses_one() {
    for fences in [
        Fences { waker: false, sleeper: true, barrier: false },
        Fences { waker: true, sleeper: false, barrier: false },
        Fences { waker: false, sleeper: false, barrier: false },
    ] {
        assert!(explore(fences).1 > 0, "the exploration does not notice a missing fence");
    }
}

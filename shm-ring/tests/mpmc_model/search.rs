//! Through all states, each once, and then backwards from the good ends.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::machine::{Scene, State};

/// What was found.
pub struct Outcome {
    pub states: usize,
    pub transitions: usize,
    pub crashes: usize,
    /// Whether all states were visited.
    pub whole: bool,
    /// States from which no way without a further crash leads to a good end. Counted only among
    /// whole searches: at the border of another all is unknown.
    pub stuck: usize,
    pub violation: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states{}, {} transitions, {} of them crashes, {} stuck, {} violations",
            self.states,
            if self.whole { "" } else { " (bounded)" },
            self.transitions,
            self.crashes,
            self.stuck,
            u8::from(self.violation.is_some()),
        )?;
        match &self.violation {
            Some(what) => write!(f, ": {what}"),
            None => Ok(()),
        }
    }
}

/// Visits up to `limit` states.
pub fn search(scene: &Scene, limit: usize) -> Outcome {
    let first = State::first(scene);
    let mut known: HashMap<u128, u32, BuildHasherDefault<Plain>> = HashMap::default();
    known.insert(fingerprint(&first), 0);
    let mut border = VecDeque::from([(0, first)]);
    // Edges without crashes, by target.
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut good: Vec<u32> = Vec::new();
    let mut outcome =
        Outcome { states: 1, transitions: 0, crashes: 0, whole: true, stuck: 0, violation: None };
    // From both ends in turn, so that a bounded search is both broad and deep.
    let mut turn = false;
    while let Some((visited, state)) = if turn { border.pop_back() } else { border.pop_front() } {
        turn = !turn;
        if state.is_good_end(scene) {
            good.push(visited);
        }
        let successors = match state.successors(scene) {
            Ok(successors) => successors,
            Err(violation) => {
                outcome.violation = Some(violation);
                break;
            }
        };
        for (is_crash, next) in successors {
            outcome.transitions += 1;
            outcome.crashes += usize::from(is_crash);
            let key = fingerprint(&next);
            let number = match known.get(&key) {
                Some(&number) => number,
                None if known.len() >= limit => {
                    outcome.whole = false;
                    continue;
                }
                None => {
                    let number = known.len() as u32;
                    known.insert(key, number);
                    border.push_back((number, next));
                    number
                }
            };
            if !is_crash {
                edges.push((number, visited));
            }
        }
    }
    outcome.states = known.len();
    if outcome.whole && outcome.violation.is_none() {
        outcome.stuck = known.len() - reaching(good, edges, known.len());
    }
    outcome
}

/// How many states lead to one of `good`.
fn reaching(good: Vec<u32>, mut edges: Vec<(u32, u32)>, states: usize) -> usize {
    edges.sort_unstable();
    let mut reaches = vec![false; states];
    let mut open = good;
    for &state in &open {
        reaches[state as usize] = true;
    }
    let mut count = open.len();
    while let Some(state) = open.pop() {
        let start = edges.partition_point(|&(to, _)| to < state);
        for &(to, from) in &edges[start..] {
            if to != state {
                break;
            }
            if !reaches[from as usize] {
                reaches[from as usize] = true;
                count += 1;
                open.push(from);
            }
        }
    }
    count
}

/// 128 bits: among 10^8 states a collision is as likely as one in 10^22.
fn fingerprint(state: &State) -> u128 {
    let mut hasher = Fingerprint { low: 0x9e37_79b9_7f4a_7c15, high: 0xc2b2_ae3d_27d4_eb4f };
    state.hash(&mut hasher);
    u128::from(hasher.high) << 64 | u128::from(hasher.low)
}

struct Fingerprint {
    low: u64,
    high: u64,
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.low = mix(self.low ^ word, 0xff51_afd7_ed55_8ccd);
        self.high = mix(self.high.wrapping_add(word), 0xc4ce_b9fe_1a85_ec53);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.low
    }
}

fn mix(word: u64, by: u64) -> u64 {
    let word = (word ^ word >> 29).wrapping_mul(by);
    word ^ word >> 32
}

/// The key is a hash already.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks_exact(8) {
            self.0 ^= u64::from_ne_bytes(chunk.try_into().unwrap());
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

//! Through all states, each once, and then backwards from the good ends.

use std::collections::VecDeque;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use crate::machine::{Reduce, Scene, State};

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

/// Visits up to `limit` states, every `shallow`-th time the one that waits for longest.
pub fn search(scene: &Scene, limit: usize, shallow: u32) -> Outcome {
    let (outcome, stuck) = search_for(scene, limit, shallow, None);
    match stuck {
        // Not one of all those states was kept: the same way again.
        Some(stuck) => {
            let (again, _) = search_for(scene, limit, shallow, Some(stuck));
            Outcome { violation: again.violation, ..outcome }
        }
        None => outcome,
    }
}

/// Returns the number of a state that is stuck, too, or shows the one that is `wanted`.
fn search_for(
    scene: &Scene,
    limit: usize,
    shallow: u32,
    wanted: Option<u32>,
) -> (Outcome, Option<u32>) {
    let first = State::first(scene);
    let mut known: HashMap<u128, u32, BuildHasherDefault<Plain>> = HashMap::default();
    known.insert(first.key(scene), 0);
    let mut border = VecDeque::from([(0, first)]);
    // Edges without crashes, by target.
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut good: Vec<u32> = Vec::new();
    let mut outcome =
        Outcome { states: 1, transitions: 0, crashes: 0, whole: true, stuck: 0, violation: None };
    // From both ends in turn, so that a bounded search is both broad and deep; from the back, where few
    // states wait, if it is to be whole.
    let mut turn = 0_u32;
    while let Some((visited, state)) =
        if turn.is_multiple_of(shallow) { border.pop_front() } else { border.pop_back() }
    {
        turn = turn.wrapping_add(1);
        if wanted == Some(visited) {
            outcome.violation = Some(format!("stuck: {state:#?}"));
            break;
        }
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
            let key = next.key(scene);
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
        let reaches = reaching(good, edges, known.len());
        outcome.stuck = reaches.iter().filter(|&&reaches| !reaches).count();
        let stuck = reaches.iter().rposition(|&reaches| !reaches);
        return (outcome, stuck.map(|stuck| stuck as u32));
    }
    (outcome, None)
}

/// Tells apart up to `limit` states, and looks whether those that [`Reduce::Merged`] holds for one can do
/// the same. Returns how many there were, and how many that made.
pub fn merges(scene: &Scene, limit: usize) -> Result<(usize, usize), String> {
    let apart = Scene { reduce: Reduce::Nothing, ..scene.clone() };
    let merged = Scene { reduce: Reduce::Merged, ..scene.clone() };
    let first = State::first(&apart);
    let mut known = HashSet::from([first.key(&apart)]);
    let mut border = VecDeque::from([first]);
    let mut classes = HashMap::new();
    while let Some(state) = border.pop_front() {
        let mut next = vec![];
        for (is_crash, successor) in state.successors(&apart)? {
            next.push((is_crash, successor.key(&merged)));
            if known.len() < limit && known.insert(successor.key(&apart)) {
                border.push_back(successor);
            }
        }
        next.sort_unstable();
        next.dedup();
        let can = (state.is_good_end(&apart), next);
        let before = classes.entry(state.key(&merged)).or_insert_with(|| can.clone());
        if *before != can {
            return Err(format!("it is merged with one that can do something else: {state:#?}"));
        }
    }
    Ok((known.len(), classes.len()))
}

/// What a scene of at most `limit` states comes to.
#[derive(PartialEq, Eq)]
pub struct Reach {
    /// What the shared memory ever holds.
    pub memories: HashSet<u128>,
    /// States in which nobody is in the middle of anything.
    pub quiet: HashSet<u128>,
}

/// Returns also how many states that took.
pub fn reach(scene: &Scene, limit: usize) -> Result<(Reach, usize), String> {
    let first = State::first(scene);
    let mut known = HashSet::from([first.key(scene)]);
    let mut border = vec![first];
    let mut reach = Reach { memories: HashSet::new(), quiet: HashSet::new() };
    while let Some(state) = border.pop() {
        reach.memories.insert(state.memory(scene));
        if state.is_quiet() {
            reach.quiet.insert(state.key(scene));
        }
        for (_, next) in state.successors(scene)? {
            if known.insert(next.key(scene)) {
                border.push(next);
            }
        }
        if known.len() > limit {
            return Err(format!("it has more than {limit} states"));
        }
    }
    Ok((reach, known.len()))
}

/// Which states lead to one of `good`.
fn reaching(good: Vec<u32>, mut edges: Vec<(u32, u32)>, states: usize) -> Vec<bool> {
    edges.sort_unstable();
    let mut reaches = vec![false; states];
    let mut open = good;
    for &state in &open {
        reaches[state as usize] = true;
    }
    while let Some(state) = open.pop() {
        let start = edges.partition_point(|&(to, _)| to < state);
        for &(to, from) in &edges[start..] {
            if to != state {
                break;
            }
            if !reaches[from as usize] {
                reaches[from as usize] = true;
                open.push(from);
            }
        }
    }
    reaches
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

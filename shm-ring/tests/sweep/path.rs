//! The way from one system call to the next, and how a victim gets far along it without a step at each
//! instruction: else a kill behind the ten thousandth costs ten thousand steps.
//!
//! Victims are forks of one process that do the same, so they come by the same addresses. Where one was
//! stepped is noted, and the next one runs to a breakpoint: on an address, for the n-th time. It is stepped
//! over what is left, which is usually nothing. So what a kill costs does not grow with how far from the
//! system call it is, except in loops, where a breakpoint stops each time round.
//!
//! Run or stepped, the same instructions are executed, and a kill comes between two of them: how a victim
//! got there is not in what it leaves. What could be wrong is only which two, when a victim goes another way
//! than those before it. Then it comes by other addresses: where it is stepped, that is seen, and the rest of
//! the path forgotten ([`Path::note`]); where it runs, the breakpoint does not come before the next system
//! call does, and the kill is tried again, with steps ([`crate::knife::Reached::Elsewhere`]). That the place
//! is the same, to the last register, is checked by `a_victim_that_runs_comes_to_where_steps_lead`.

use std::collections::HashMap;

/// The addresses that victims came by since one system call.
#[derive(Default)]
pub struct Path {
    addresses: Vec<u64>,
    /// How often that address had been come by then, this time included. `None`: a breakpoint would not
    /// count as steps do.
    times: Vec<Option<u64>>,
    last: HashMap<u64, Option<u64>>,
}

/// A place on a path that can be run to.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// Instructions before it.
    pub steps: u64,
    pub address: u64,
    /// It is where this address is come by for the so-many-th time.
    pub times: u64,
}

impl Path {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A victim is at `address` after so many steps. The places before are known.
    pub fn note(&mut self, steps: u64, address: u64) {
        let steps = steps as usize;
        if self.addresses.get(steps) == Some(&address) {
            return;
        }
        if steps < self.addresses.len() {
            let mut before = std::mem::take(self).addresses;
            before.truncate(steps);
            before.into_iter().for_each(|address| self.push(address));
        }
        assert_eq!(steps, self.addresses.len());
        self.push(address);
    }

    fn push(&mut self, address: u64) {
        // A string instruction is stepped over one element at a time, and has one breakpoint.
        let repeats = self.addresses.last() == Some(&address);
        let before = self.last.get(&address).copied().unwrap_or(Some(0));
        let times = before.map(|times| times + 1).filter(|_| !repeats);
        self.addresses.push(address);
        self.times.push(times);
        self.last.insert(address, times);
    }

    /// From where it is least to the place behind so many steps. A stop at a breakpoint counts as a step.
    pub fn anchor(&self, steps: u64) -> Option<Anchor> {
        let end = self.addresses.len().min(steps as usize + 1);
        let anchors = (0..end).filter_map(|at| {
            Some(Anchor { steps: at as u64, address: self.addresses[at], times: self.times[at]? })
        });
        anchors
            .filter(|anchor| anchor.times < anchor.steps)
            .min_by_key(|anchor| anchor.times + steps - anchor.steps)
    }
}

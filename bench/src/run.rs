//! The order of play: groups of contestants that share scenario and size, each with a crew of
//! processes of its own, a pair or as many as the largest of them needs; rounds; turns; brackets
//! around each turn.

use crate::arena::{Arena, PAGE};
use crate::crew::{Crew, Ground};
use crate::idle;
use crate::many::Common;
use crate::placement::Bracket;
use crate::plan::{CpuLatency, Fault, Jitter, Parties, Scenario, Seat, Wait};
use crate::rows::{Contestant, Sample};
use crate::systems;
use std::time::Duration;

/// Long enough for some dozens of blocks, short against a placement's life.
const BRACKET_LENGTH: Duration = Duration::from_millis(2);

/// What all groups have in common.
pub(crate) struct Table<'a> {
    pub(crate) ground: Ground<'a>,
    pub(crate) capacity: usize,
    /// Bytes of messages to a flush.
    pub(crate) flush: usize,
    /// Core of a sender's own thread.
    pub(crate) io_cpu: Option<usize>,
    pub(crate) rounds: u32,
    pub(crate) round_length: Duration,
    /// More options for their addresses.
    pub(crate) channel_options: &'a str,
}

impl Table<'_> {
    /// Plays all rounds of every group. `began` is told of each group.
    pub(crate) fn play(
        &self,
        contestants: &[Contestant],
        mut began: impl FnMut(&[Contestant]),
    ) -> Result<Vec<Sample>, Fault> {
        let mut samples = Vec::new();
        let mut start = 0;
        for group in contestants.chunk_by(Contestant::plays_with) {
            began(group);
            let held = group[0].latency == CpuLatency::Held;
            let _held = held.then(idle::stay_awake).transpose().map_err(Fault::new)?;
            self.play_group(group, start, &mut samples)?;
            start += group.len();
        }
        Ok(samples)
    }

    /// How calm the cores are when nothing but a clock reader runs on them.
    pub(crate) fn jitter(&self, ms: u64) -> Result<Vec<Jitter>, Fault> {
        let mut jitter = self.seat(&[])?.jitter(ms)?;
        jitter.sort_by_key(|jitter| jitter.cpu);
        Ok(jitter)
    }

    fn play_group(
        &self,
        group: &[Contestant],
        start: usize,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Fault> {
        let mut crew = self.seat(group)?;
        for round in 0..self.rounds {
            let mut before_ns = bracket(&mut crew)?;
            for turn in 0..group.len() {
                // Another one begins each round, so that nobody always follows the same one.
                let index = (turn + round as usize) % group.len();
                let outcome = crew.round(index + 1, self.round_length, &what(&group[index]))?;
                let after_ns = bracket(&mut crew)?;
                samples.push(Sample {
                    contestant: start + index,
                    round,
                    bracket: Bracket { before_ns, after_ns },
                    outcome,
                });
                before_ns = after_ns;
            }
        }
        Ok(())
    }

    /// A crew of processes with the bracket on seat 0 and the group on the seats behind it.
    fn seat(&self, group: &[Contestant]) -> Result<Crew, Fault> {
        let bracket = systems::find(systems::BRACKET)
            .ok_or_else(|| Fault::new("there is no system to bracket rounds with"))?;
        let bracket = Contestant {
            system: bracket,
            scenario: Scenario::Pingpong,
            parties: Parties::TWO,
            wait: Wait::Spin,
            size: 8,
            latency: CpuLatency::Plain,
        };
        let parties = group.iter().fold(Parties::TWO, |most, one| most.or(one.parties));
        let mut arena_len = 0;
        let mut seats = Vec::new();
        for contestant in std::iter::once(&bracket).chain(group) {
            seats.push(Seat {
                system: contestant.system.name.into(),
                scenario: contestant.scenario,
                parties: contestant.parties,
                wait: contestant.wait,
                size: contestant.size,
                capacity: self.capacity,
                flush: self.flush,
                io_cpu: self.io_cpu.filter(|_| contestant.system.has_thread()),
                arena_offset: arena_len + Common::LEN,
                common_offset: arena_len,
                channel: channel(contestant),
                channel_options: self.channel_options.into(),
            });
            let len = (contestant.system.arena_len)(contestant.size, self.capacity);
            arena_len += Common::LEN + len.next_multiple_of(PAGE);
        }
        Crew::start(parties, seats, Arena::create(arena_len)?, &self.ground)
    }
}

fn bracket(crew: &mut Crew) -> Result<f64, Fault> {
    let outcome = crew.round(0, BRACKET_LENGTH, "bracket")?;
    match outcome.trips {
        Some(trips) => Ok(trips.block_rtt_ns),
        None => Err(Fault::new("a bracket came back without round trips")),
    }
}

fn channel(contestant: &Contestant) -> String {
    let Contestant { system, scenario, parties, wait, size, latency } = contestant;
    // No name has a `+`.
    let parties = parties.to_string().replace('+', ".");
    format!("{}-{scenario}-{parties}-{size}-{wait}-{latency}", system.name)
}

fn what(contestant: &Contestant) -> String {
    let Contestant { system, scenario, parties, wait, size, latency } = contestant;
    let parties = if scenario.is_of_two() { String::new() } else { format!(" with {parties}") };
    format!("{}, {scenario}{parties} of {size} B, {wait}, {latency}", system.name)
}

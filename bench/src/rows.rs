//! From samples to rows: medians over rounds of one placement, ratios within a round. Arithmetic
//! only; nothing is measured or printed here.

use crate::crowd::Crowd;
use crate::placement::{Bracket, Levels, Placement};
use crate::plan::{CpuLatency, Cpus, Outcome, Parties, Role, Scenario, Wait};
use crate::systems::{Against, System};
use serde::Serialize;

/// One system under one load.
#[derive(Clone, Copy)]
pub(crate) struct Contestant {
    pub(crate) system: &'static System,
    pub(crate) scenario: Scenario,
    pub(crate) parties: Parties,
    pub(crate) wait: Wait,
    pub(crate) size: usize,
    pub(crate) latency: CpuLatency,
}

impl Contestant {
    /// Whether their turns are in the same rounds, of one crew.
    pub(crate) fn plays_with(&self, other: &Contestant) -> bool {
        let group = |one: &Contestant| (one.scenario, one.size, one.latency);
        group(self) == group(other)
    }

    fn is(&self, against: Against, parties: Parties) -> bool {
        let Against { system, wait } = against;
        (self.system.name, self.wait, self.parties) == (system, wait, parties)
    }

    /// The same without those that are stopped; one to one, where this is of more.
    fn of_fewer(&self) -> Option<Parties> {
        let fewer = match self.parties.stopped {
            0 => Parties { senders: 1, receivers: 1, ..self.parties },
            _ => Parties { stopped: 0, ..self.parties },
        };
        (fewer != self.parties).then_some(fewer)
    }
}

/// One contestant's part of one round.
pub(crate) struct Sample {
    /// Index into the run's contestants.
    pub(crate) contestant: usize,
    pub(crate) round: u32,
    pub(crate) bracket: Bracket,
    pub(crate) outcome: Outcome,
}

/// One line of the result: a contestant in the rounds of one placement. Figures are medians over
/// those rounds (`max_ns`: the largest; counts: sums); what a scenario does not have is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) system: &'static str,
    pub(crate) scenario: Scenario,
    pub(crate) size: usize,
    pub(crate) wait: Wait,
    pub(crate) rounds: usize,
    pub(crate) placement: Placement,
    /// Median round trip of the bare line around these rounds.
    pub(crate) bracket_ns: f64,
    pub(crate) block_rtt_ns: Option<f64>,
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    pub(crate) max_ns: Option<u64>,
    /// Single trips timed, or messages timed.
    pub(crate) count: u64,
    /// Of a fan-out: per receiver, the mean of all.
    pub(crate) msgs_per_s: Option<f64>,
    pub(crate) bytes_per_s: Option<f64>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// What a receiver was told that it would not get.
    pub(crate) missed: u64,
    pub(crate) lost: u64,
    pub(crate) altered: u64,
    /// Times that a party's core went to somebody else during these rounds; ideally none. Null where parties, or one
    /// and a sender's thread, share a core: the kernel counts a yield to each other as well.
    pub(crate) preempted: Option<u64>,
    /// The first of `ratios`: of `block_rtt_ns` (less is better) or `msgs_per_s` (more is better).
    pub(crate) ratio_to: Option<&'static str>,
    pub(crate) ratio: Option<f64>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) parties: Parties,
    /// Null for scenarios of two.
    pub(crate) many: Option<Many>,
    /// Null for systems whose sender has no thread of its own.
    pub(crate) io_thread: Option<IoThread>,
    pub(crate) cpu_latency: CpuLatency,
    /// Of `rounds`, those that had a `block_rtt_ns` or `msgs_per_s`. Others were too short, or all that was to
    /// be timed was overwritten.
    pub(crate) timed_rounds: usize,
}

/// The thread that moves a sender's bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct IoThread {
    /// Null: any.
    pub(crate) cpu: Option<usize>,
}

/// What a row of many parties has beside the others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Many {
    /// CPUs of the senders and of the receivers, in order; null when unpinned.
    pub(crate) cpus: Option<Cpus>,
    /// Received by all together.
    pub(crate) total_per_s: f64,
    pub(crate) receiver_least_per_s: f64,
    pub(crate) receiver_most_per_s: f64,
    pub(crate) sender_least_per_s: f64,
    pub(crate) sender_most_per_s: f64,
    /// The fastest sender's rate over the slowest's in the same round.
    pub(crate) unfairness: f64,
    /// 99.9 % of sends took at most this, with one clock reading, and waits for room, included; of
    /// the sender with the largest. Null unless it can be told of every sender in every round.
    pub(crate) op_p999_ns: Option<f64>,
}

/// This row's figure over another system's in the same round: the median over the rounds in which
/// all brackets of both agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) to: &'static str,
    pub(crate) to_wait: Wait,
    pub(crate) to_parties: Parties,
    pub(crate) of: Metric,
    pub(crate) ratio: f64,
    /// Middle half of the rounds' ratios.
    pub(crate) quarter: f64,
    pub(crate) three_quarters: f64,
    pub(crate) rounds: usize,
}

/// A figure that systems are compared by, under its name in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    BlockRttNs,
    P50Ns,
    P999Ns,
    MsgsPerS,
    /// How fast a sender goes, whoever keeps up with it.
    SenderMostPerS,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Metric::BlockRttNs => "block_rtt_ns",
            Metric::P50Ns => "p50_ns",
            Metric::P999Ns => "p999_ns",
            Metric::MsgsPerS => "msgs_per_s",
            Metric::SenderMostPerS => "sender_most_per_s",
        }
    }

    fn of(self, outcome: &Outcome, parties: Parties) -> Option<f64> {
        let trips = outcome.trips.as_ref();
        match self {
            Metric::BlockRttNs => trips.map(|t| t.block_rtt_ns),
            Metric::P50Ns => trips.map(|t| t.p50_ns as f64),
            Metric::P999Ns => trips.and_then(|t| t.p999_ns).map(|ns| ns as f64),
            Metric::MsgsPerS => match &outcome.flow {
                Some(flow) => Some(flow.messages as f64 * 1e9 / flow.ns as f64),
                None => Crowd::of(outcome, parties).map(|crowd| crowd.msgs_per_s),
            },
            Metric::SenderMostPerS => {
                Crowd::of(outcome, parties).map(|crowd| crowd.sender_most_per_s)
            }
        }
    }

    /// Of several rounds, the figures that there are.
    fn rounds(self, figures: impl Iterator<Item = Option<f64>>) -> Vec<f64> {
        match self {
            Metric::P999Ns => tails(figures),
            _ => figures.flatten().collect(),
        }
    }
}

/// Every row of a run: contestants in their order, each with its placements from near to mixed.
pub(crate) fn rows(
    contestants: &[Contestant],
    samples: &[Sample],
    levels: &Levels,
    cpus: Option<&Cpus>,
    io_cpu: Option<usize>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, contestant) in contestants.iter().enumerate() {
        let own: Vec<&Sample> = samples.iter().filter(|s| s.contestant == index).collect();
        let mut placements: Vec<Placement> = own.iter().map(|s| levels.label(s.bracket)).collect();
        placements.sort_unstable();
        placements.dedup();
        for placement in placements {
            let own: Vec<&Sample> =
                own.iter().copied().filter(|s| levels.label(s.bracket) == placement).collect();
            let mut row = row(contestant, placement, &own, cpus);
            row.io_thread = contestant.system.has_thread().then_some(IoThread { cpu: io_cpu });
            if shares_a_core(contestant, cpus, io_cpu) {
                row.preempted = None;
            }
            if placement != Placement::Mixed {
                row.ratios = ratios(contestant, contestants, &own, samples);
            }
            if let Some(first) = row.ratios.first() {
                (row.ratio_to, row.ratio) = (Some(first.to), Some(first.ratio));
            }
            rows.push(row);
        }
    }
    rows
}

/// The middle one of `values`, or the mean of the two in the middle.
pub(crate) fn median(values: Vec<f64>) -> Option<f64> {
    quantile(values, 0.5)
}

fn row(contestant: &Contestant, placement: Placement, own: &[&Sample], cpus: Option<&Cpus>) -> Row {
    let outcomes = || own.iter().map(|s| &s.outcome);
    let trips = || outcomes().filter_map(|o| o.trips.as_ref());
    let flows = || outcomes().filter_map(|o| o.flow.as_ref());
    let of = |metric: Metric| {
        median(metric.rounds(outcomes().map(|o| metric.of(o, contestant.parties))))
    };
    let sum = |count: fn(&Outcome) -> u64| outcomes().map(count).sum();
    let msgs_per_s = of(Metric::MsgsPerS);
    let is_timed = |outcome: &&Outcome| {
        let figures = [Metric::BlockRttNs, Metric::MsgsPerS];
        figures.iter().any(|figure| figure.of(outcome, contestant.parties).is_some())
    };
    Row {
        system: contestant.system.name,
        scenario: contestant.scenario,
        size: contestant.size,
        wait: contestant.wait,
        rounds: own.len(),
        placement,
        bracket_ns: median(own.iter().map(|s| s.bracket.mean_ns()).collect()).unwrap_or(0.0),
        block_rtt_ns: of(Metric::BlockRttNs),
        p50_ns: of(Metric::P50Ns),
        p99_ns: median(trips().map(|t| t.p99_ns as f64).collect()),
        p999_ns: of(Metric::P999Ns),
        max_ns: trips().map(|t| t.max_ns).max(),
        count: trips().map(|t| t.count).sum::<u64>()
            + flows().map(|f| f.messages).sum::<u64>()
            + received_by_many(own),
        msgs_per_s,
        bytes_per_s: msgs_per_s.map(|rate| rate * contestant.size as f64),
        sent: sum(|o| o.sent),
        received: sum(|o| o.received),
        missed: sum(|o| o.missed),
        lost: sum(Outcome::lost),
        altered: sum(|o| o.altered),
        preempted: Some(sum(|o| o.preempted)),
        ratio_to: None,
        ratio: None,
        ratios: Vec::new(),
        parties: contestant.parties,
        many: many(contestant, own, cpus),
        io_thread: None,
        cpu_latency: contestant.latency,
        timed_rounds: outcomes().filter(is_timed).count(),
    }
}

/// Whether somebody of this seat yields to somebody else of it.
fn shares_a_core(contestant: &Contestant, cpus: Option<&Cpus>, io_cpu: Option<usize>) -> bool {
    let Some(cpus) = cpus else { return true };
    let parties = contestant.parties;
    let is_a_partys = |cpu| parties.all().any(|party| cpus.of(party) == cpu);
    let beside_a_thread = contestant.system.has_thread() && io_cpu.is_none_or(is_a_partys);
    cpus.are_shared(parties) || beside_a_thread
}

/// Those of all rounds, or none at all if a round has none: it is the fast ones that have enough behind a tail.
fn tails(rounds: impl Iterator<Item = Option<f64>>) -> Vec<f64> {
    rounds.collect::<Option<Vec<f64>>>().unwrap_or_default()
}

/// Messages timed.
fn received_by_many(own: &[&Sample]) -> u64 {
    let shares = own.iter().flat_map(|sample| &sample.outcome.shares);
    shares.filter(|s| s.party.role == Role::Passive).map(|s| s.messages).sum()
}

fn many(contestant: &Contestant, own: &[&Sample], cpus: Option<&Cpus>) -> Option<Many> {
    let crowds: Vec<Crowd> =
        own.iter().filter_map(|s| Crowd::of(&s.outcome, contestant.parties)).collect();
    let of = |figure: fn(&Crowd) -> f64| median(crowds.iter().map(figure).collect());
    Some(Many {
        cpus: cpus.map(|cpus| cpus.only(contestant.parties)),
        total_per_s: of(|c| c.total_per_s)?,
        receiver_least_per_s: of(|c| c.receiver_least_per_s)?,
        receiver_most_per_s: of(|c| c.receiver_most_per_s)?,
        sender_least_per_s: of(|c| c.sender_least_per_s)?,
        sender_most_per_s: of(|c| c.sender_most_per_s)?,
        unfairness: of(|c| c.unfairness)?,
        op_p999_ns: median(tails(crowds.iter().map(|c| c.op_p999_ns.map(|ns| ns as f64)))),
    })
}

/// `own` are the contestant's samples of one placement.
fn ratios(
    contestant: &Contestant,
    contestants: &[Contestant],
    own: &[&Sample],
    samples: &[Sample],
) -> Vec<Ratio> {
    let metrics: &[Metric] = match contestant.scenario {
        Scenario::Pingpong => &[Metric::BlockRttNs, Metric::P50Ns, Metric::P999Ns],
        Scenario::Fanout => &[Metric::MsgsPerS, Metric::SenderMostPerS],
        Scenario::Stream | Scenario::Mpmc => &[Metric::MsgsPerS],
    };
    let mut ratios = Vec::new();
    let others = (contestant.system.against)(contestant.wait).iter();
    let others = others.map(|&against| (against, contestant.parties));
    let itself = Against { system: contestant.system.name, wait: contestant.wait };
    let alone = contestant.of_fewer().map(|fewer| (itself, fewer));
    for (against, parties) in others.chain(alone) {
        let mut rivals = contestants.iter();
        let rival = rivals.position(|c| c.plays_with(contestant) && c.is(against, parties));
        let Some(rival) = rival else { continue };
        let pairs: Vec<(&Outcome, &Outcome)> = own
            .iter()
            .filter_map(|mine| {
                let theirs = samples.iter().find(|s| {
                    s.contestant == rival
                        && s.round == mine.round
                        && s.bracket.agrees_with(mine.bracket)
                })?;
                Some((&mine.outcome, &theirs.outcome))
            })
            .collect();
        for &metric in metrics {
            let mut values = metric.rounds(pairs.iter().map(|(mine, theirs)| {
                Some(metric.of(mine, contestant.parties)? / metric.of(theirs, parties)?)
            }));
            values.retain(|ratio| ratio.is_finite());
            let rounds = values.len();
            let Some(ratio) = median(values.clone()) else { continue };
            ratios.push(Ratio {
                to: against.system,
                to_wait: against.wait,
                to_parties: parties,
                of: metric,
                ratio,
                quarter: quantile(values.clone(), 0.25).unwrap_or(ratio),
                three_quarters: quantile(values, 0.75).unwrap_or(ratio),
                rounds,
            });
        }
    }
    ratios
}

/// Linear between the two neighbours.
fn quantile(mut values: Vec<f64>, at: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = values.len().checked_sub(1)? as f64 * at;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Flow, Seating, Trips};
    use crate::systems;

    pub(super) fn contestant(name: &str, scenario: Scenario) -> Contestant {
        let system = systems::find(name).expect("it exists");
        let parties = scenario.usual_parties()[0];
        let (wait, latency) = (system.waits[0], CpuLatency::Plain);
        Contestant { system, scenario, parties, wait, size: 8, latency }
    }

    fn trip(contestant: usize, round: u32, bracket_ns: f64, rtt_ns: f64) -> Sample {
        let ns = rtt_ns as u64;
        Sample {
            contestant,
            round,
            bracket: Bracket { before_ns: bracket_ns, after_ns: bracket_ns },
            outcome: Outcome {
                sent: 10,
                received: 10,
                trips: Some(Trips {
                    block_rtt_ns: rtt_ns,
                    p50_ns: ns,
                    p99_ns: ns,
                    p999_ns: Some(ns),
                    max_ns: ns,
                    count: 5,
                }),
                ..Outcome::default()
            },
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_a_round_not_between_medians() {
        let both = [
            contestant("floor-ring", Scenario::Pingpong),
            contestant("floor-cacheline-pause", Scenario::Pingpong),
        ];
        // The host slows down over the run; within each round the ratio is 2.
        let mut samples = Vec::new();
        for (round, slow) in [(0, 1.0), (1, 1.1), (2, 1.2)] {
            samples.push(trip(0, round, 100.0 * slow, 200.0 * slow));
            samples.push(trip(1, round, 100.0 * slow, 100.0 * slow));
        }
        let levels = Levels::of(vec![100.0, 110.0, 120.0]);
        let rows = rows(&both, &samples, &levels, None, None);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].ratio_to, Some("floor-cacheline-pause"));
        assert!((rows[0].ratio.expect("a ratio") - 2.0).abs() < 1e-9);
        assert_eq!(rows[0].ratios[0].rounds, 3);
        assert_eq!((rows[0].sent, rows[0].lost, rows[0].count), (30, 0, 15));
        assert_eq!(rows[1].ratio, None);
    }

    #[test]
    fn rounds_whose_brackets_disagree_are_not_compared() {
        let both = [
            contestant("floor-ring", Scenario::Pingpong),
            contestant("floor-cacheline-pause", Scenario::Pingpong),
        ];
        let samples = [
            trip(0, 0, 50.0, 80.0),
            trip(1, 0, 300.0, 400.0),
            trip(0, 1, 300.0, 440.0),
            trip(1, 1, 300.0, 400.0),
        ];
        let rows = rows(&both, &samples, &Levels::of(vec![50.0, 300.0]), None, None);
        let of =
            |placement| rows.iter().find(|r| r.system == "floor-ring" && r.placement == placement);
        assert_eq!(of(Placement::Near).expect("a near row").ratio, None);
        let far = of(Placement::Far(1)).expect("a far row");
        assert!((far.ratio.expect("a ratio") - 1.1).abs() < 1e-9);
    }

    #[test]
    fn rounds_without_a_figure_are_counted_apart() {
        let one = [contestant("ringway-broadcast-overwrite", Scenario::Stream)];
        let sample = |round, flow| Sample {
            contestant: 0,
            round,
            bracket: Bracket { before_ns: 50.0, after_ns: 50.0 },
            outcome: Outcome { sent: 100, received: 40, missed: 60, flow, ..Outcome::default() },
        };
        let samples = [sample(0, Some(Flow { messages: 50, ns: 1_000 })), sample(1, None)];
        let rows = rows(&one, &samples, &Levels::of(vec![50.0]), None, None);
        assert_eq!((rows[0].rounds, rows[0].timed_rounds, rows[0].msgs_per_s), (2, 1, Some(5e7)));
    }

    #[test]
    fn who_yields_to_each_other_is_not_told_as_disturbed() {
        let disturbed = |system, scenario, parties: &str, cpus: &[usize], io_cpu| {
            let parties = parties.parse().expect("legal");
            let one = [Contestant { parties, ..contestant(system, scenario) }];
            let mut sample = trip(0, 0, 100.0, 100.0);
            sample.outcome.preempted = 7;
            let cpus = Cpus::seat(cpus, parties, Seating::Apart);
            let rows = rows(&one, &[sample], &Levels::of(vec![100.0]), Some(&cpus), io_cpu);
            rows[0].preempted
        };
        assert_eq!(disturbed("kanal", Scenario::Mpmc, "2P2C", &[0, 1, 2, 3], None), Some(7));
        assert_eq!(disturbed("kanal", Scenario::Mpmc, "2P2C", &[0, 1], None), None);
        assert_eq!(disturbed("kanal", Scenario::Mpmc, "1P1C", &[0, 1], None), Some(7));
        let thread = "ringway-tcp-epoll-thread";
        assert_eq!(disturbed(thread, Scenario::Stream, "1P1C", &[0, 1], Some(0)), None);
        assert_eq!(disturbed(thread, Scenario::Stream, "1P1C", &[0, 1], Some(2)), Some(7));
        let inline = "ringway-tcp-epoll";
        assert_eq!(disturbed(inline, Scenario::Stream, "1P1C", &[0, 1], Some(0)), Some(7));
    }

    #[test]
    fn a_tail_is_of_all_rounds_or_of_none() {
        let both = [
            contestant("floor-ring", Scenario::Pingpong),
            contestant("floor-cacheline-pause", Scenario::Pingpong),
        ];
        let played = |is_slow: bool| {
            let mut samples: Vec<Sample> = (0..3)
                .flat_map(|round| [trip(0, round, 100.0, 200.0), trip(1, round, 100.0, 100.0)])
                .collect();
            if is_slow {
                samples[0].outcome.trips.as_mut().expect("trips").p999_ns = None;
            }
            rows(&both, &samples, &Levels::of(vec![100.0]), None, None)
        };
        let compared = |row: &Row| row.ratios.iter().any(|ratio| ratio.of == Metric::P999Ns);
        let calm = played(false);
        assert_eq!((calm[0].p999_ns, compared(&calm[0])), (Some(200.0), true));
        let slow = played(true);
        assert_eq!((slow[0].p999_ns, compared(&slow[0])), (None, false));
        assert_eq!((slow[0].p99_ns, slow[0].ratio), (Some(200.0), Some(2.0)));
        assert_eq!(slow[1].p999_ns, Some(100.0));
    }

    #[test]
    fn a_mixed_round_is_a_row_without_ratio() {
        let one = [contestant("rtrb", Scenario::Stream)];
        let sample = Sample {
            contestant: 0,
            round: 0,
            bracket: Bracket { before_ns: 50.0, after_ns: 300.0 },
            outcome: Outcome {
                sent: 100,
                received: 99,
                altered: 1,
                flow: Some(Flow { messages: 50, ns: 1_000 }),
                ..Outcome::default()
            },
        };
        let rows = rows(&one, &[sample], &Levels::of(vec![50.0, 300.0]), None, None);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].placement, rows[0].lost, rows[0].altered), (Placement::Mixed, 1, 1));
        assert_eq!((rows[0].rounds, rows[0].timed_rounds), (1, 1));
        assert_eq!(rows[0].msgs_per_s, Some(5e7));
        assert_eq!(rows[0].bytes_per_s, Some(4e8));
        assert_eq!(rows[0].ratio, None);
    }
}

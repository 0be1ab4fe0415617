//! What is to be measured: scenarios, waits, seats at the table, and the outcome of one round.
//! Plain data that crosses the pipes between the processes as JSON. No measuring, no I/O here.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// What the parties do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// One message there and one back, the next only after it.
    Pingpong,
    /// Messages one way, as fast as they go.
    Stream,
    /// One sender, and every receiver gets every message, as fast as they go.
    Fanout,
    /// Many senders, many receivers, and each message goes to one of them, as fast as they go.
    Mpmc,
}

impl Scenario {
    /// Whether it is between one sender and one receiver by its nature.
    pub(crate) fn is_of_two(self) -> bool {
        matches!(self, Scenario::Pingpong | Scenario::Stream)
    }

    /// What it is played with unless something else is asked for.
    pub(crate) fn usual_parties(self) -> &'static [Parties] {
        match self {
            Scenario::Pingpong | Scenario::Stream => &[Parties::TWO],
            Scenario::Fanout => &[
                Parties { to_all: true, ..Parties::TWO },
                Parties { receivers: 2, to_all: true, ..Parties::TWO },
                Parties { receivers: 4, to_all: true, ..Parties::TWO },
            ],
            Scenario::Mpmc => &[
                Parties::TWO,
                Parties { senders: 2, receivers: 2, ..Parties::TWO },
                Parties { senders: 4, receivers: 4, ..Parties::TWO },
            ],
        }
    }
}

/// How many take part, written as `2P2C`, or `1P2S` where each receiver subscribes to everything, or
/// `1P2S+1` where one more has subscribed and is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Parties {
    pub(crate) senders: usize,
    pub(crate) receivers: usize,
    pub(crate) to_all: bool,
    /// Beside the receivers.
    pub(crate) stopped: usize,
}

impl Parties {
    pub(crate) const TWO: Parties = Parties { senders: 1, receivers: 1, to_all: false, stopped: 0 };

    /// On either side: as many as a message's word can name (`payload`).
    pub(crate) const MOST: usize = 32;

    pub(crate) fn are_two(self) -> bool {
        self.senders == 1 && self.receivers == 1 && self.stopped == 0
    }

    /// Who plays. The passive ones first: they have to be there when the first message comes.
    pub(crate) fn all(self) -> impl Iterator<Item = Party> {
        let of = |role, count| (0..count).map(move |index| Party { role, index });
        of(Role::Passive, self.receivers).chain(of(Role::Active, self.senders))
    }

    /// Who has a seat and does not play.
    pub(crate) fn stopped(self) -> impl Iterator<Item = Party> {
        (0..self.stopped).map(|index| Party { role: Role::Stopped, index })
    }

    pub(crate) fn include(self, party: Party) -> bool {
        party.index
            < match party.role {
                Role::Active => self.senders,
                Role::Passive => self.receivers,
                Role::Stopped => self.stopped,
            }
    }

    /// The smallest crew that can play either.
    pub(crate) fn or(self, other: Parties) -> Parties {
        Parties {
            senders: self.senders.max(other.senders),
            receivers: self.receivers.max(other.receivers),
            to_all: self.to_all || other.to_all,
            stopped: self.stopped.max(other.stopped),
        }
    }
}

impl FromStr for Parties {
    type Err = String;

    fn from_str(text: &str) -> Result<Parties, String> {
        let wrong = || {
            let most = Parties::MOST;
            format!("not of the form 2P2C, 1P2S or 1P2S+1, with numbers from 1 to {most}")
        };
        let count = |text: &str| match text.parse() {
            Ok(count) if (1..=Parties::MOST).contains(&count) => Ok(count),
            _ => Err(wrong()),
        };
        let (text, stopped) = match text.split_once('+') {
            Some((text, stopped)) => (text, count(stopped)?),
            None => (text, 0),
        };
        let (senders, rest) = text.split_once('P').ok_or_else(wrong)?;
        let (receivers, to_all) = match (rest.strip_suffix('C'), rest.strip_suffix('S')) {
            (Some(receivers), _) => (receivers, false),
            (_, Some(receivers)) => (receivers, true),
            _ => return Err(wrong()),
        };
        if stopped > 0 && !to_all {
            return Err(wrong());
        }
        Ok(Parties { senders: count(senders)?, receivers: count(receivers)?, to_all, stopped })
    }
}

impl TryFrom<String> for Parties {
    type Error = String;

    fn try_from(text: String) -> Result<Parties, String> {
        text.parse()
    }
}

impl From<Parties> for String {
    fn from(parties: Parties) -> String {
        parties.to_string()
    }
}

impl fmt::Display for Parties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receivers = if self.to_all { 'S' } else { 'C' };
        let stopped = if self.stopped > 0 { format!("+{}", self.stopped) } else { String::new() };
        f.pad(&format!("{}P{}{receivers}{stopped}", self.senders, self.receivers))
    }
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

/// What becomes of cores that have nothing to do, which is what the wake-up of a sleeper costs most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CpuLatency {
    /// They sleep as deeply as the system lets them.
    Plain,
    /// `/dev/cpu_dma_latency` is held at 0, as `hold_cpu_latency=on` does: they stay awake.
    Held,
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

/// Which side of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Drives the ping-pong, sends a stream; keeps the time of round trips.
    Active,
    /// Echoes, receives a stream; keeps the time of streams.
    Passive,
    /// Subscribes, and is stopped before the first round.
    Stopped,
}

/// One of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Party {
    pub(crate) role: Role,
    /// From 0.
    pub(crate) index: usize,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Active => "sender",
            Role::Passive => "receiver",
            Role::Stopped => "stopped receiver",
        };
        write!(f, "{role} {}", self.index + 1)
    }
}

/// One system under one load: what the processes need to know to take part in its rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) system: String,
    pub(crate) scenario: Scenario,
    pub(crate) parties: Parties,
    pub(crate) wait: Wait,
    /// Payload bytes of a message.
    pub(crate) size: usize,
    /// Bytes of a ring.
    pub(crate) capacity: usize,
    /// Bytes of messages to a flush, for systems that queue a good deal.
    pub(crate) flush: usize,
    /// Core of the sender's own thread, for systems that have one; `None`: any.
    pub(crate) io_cpu: Option<usize>,
    /// Where this seat's part of the arena starts.
    pub(crate) arena_offset: usize,
    /// Where the scenario's own page of the arena is, for those that have one.
    pub(crate) common_offset: usize,
    /// Channel name, unique on this machine, for systems that have names.
    pub(crate) channel: String,
    /// More options for the addresses of named channels; may be empty.
    pub(crate) channel_options: String,
}

/// The first line that a process of the crew reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) party: Party,
    /// Where everybody runs; `None` when they can't be told apart.
    pub(crate) cpus: Option<Cpus>,
    /// Inherited descriptor of the shared arena, and its length in bytes.
    pub(crate) arena_fd: i32,
    pub(crate) arena_len: usize,
    pub(crate) hosts: Hosts,
    pub(crate) seats: Vec<Seat>,
}

/// Where each side's receivers listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hosts {
    pub(crate) active: IpAddr,
    pub(crate) passive: IpAddr,
}

impl Hosts {
    /// Both here.
    pub(crate) const LOOPBACK: Hosts =
        Hosts { active: IpAddr::V4(Ipv4Addr::LOCALHOST), passive: IpAddr::V4(Ipv4Addr::LOCALHOST) };
}

/// CPUs of the parties, by number of the sender or receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cpus {
    pub(crate) senders: Vec<usize>,
    pub(crate) receivers: Vec<usize>,
}

/// Who sits beside whom where there are fewer CPUs than parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seating {
    /// No sender beside a receiver.
    Apart,
    /// Senders and receivers in turn: the second receiver beside the first sender.
    Mixed,
}

impl Cpus {
    /// A seat for everybody on at least two CPUs, the first sender and the first receiver on the first
    /// two. One CPU each, if there are enough.
    pub(crate) fn seat(cpus: &[usize], parties: Parties, seating: Seating) -> Cpus {
        let Parties { senders, receivers, .. } = parties;
        let nth = |n: usize| cpus[n % cpus.len()];
        let enough = senders + receivers <= cpus.len();
        match seating {
            Seating::Mixed if !enough => Cpus {
                senders: (0..senders).map(nth).collect(),
                receivers: (0..receivers).map(|index| nth(index + 1)).collect(),
            },
            _ => {
                // The second CPU is a receiver's; those behind it first make up the senders' share.
                let most = cpus.len() - 1;
                let share =
                    if enough { senders } else { cpus.len() * senders / (senders + receivers) };
                let share = share.clamp(1, most);
                let (sending, receiving) = {
                    let mut sending = vec![cpus[0]];
                    sending.extend(&cpus[2..1 + share]);
                    let mut receiving = vec![cpus[1]];
                    receiving.extend(&cpus[1 + share..]);
                    (sending, receiving)
                };
                Cpus {
                    senders: (0..senders).map(|i| sending[i % sending.len()]).collect(),
                    receivers: (0..receivers).map(|i| receiving[i % receiving.len()]).collect(),
                }
            }
        }
    }

    pub(crate) fn of(&self, party: Party) -> usize {
        match party.role {
            Role::Active => self.senders[party.index],
            Role::Passive => self.receivers[party.index],
            // For as long as it takes to subscribe.
            Role::Stopped => self.receivers[0],
        }
    }

    /// Only of those who take part.
    pub(crate) fn only(&self, parties: Parties) -> Cpus {
        Cpus {
            senders: self.senders[..parties.senders].to_vec(),
            receivers: self.receivers[..parties.receivers].to_vec(),
        }
    }

    /// Whether two of these parties have one CPU between them.
    pub(crate) fn are_shared(&self, parties: Parties) -> bool {
        let mut all: Vec<usize> = parties.all().map(|party| self.of(party)).collect();
        all.sort_unstable();
        all.windows(2).any(|two| two[0] == two[1])
    }
}

/// What the parent tells a process of the crew, one JSON line each.
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

/// What a process of the crew answers, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    Opened,
    Jitter(Jitter),
    /// The round is about to start on this side.
    Ready,
    /// Boxed, for it is far larger than every other answer.
    Done(Box<Outcome>),
    Fault(String),
}

/// One party's account of one round. The sum of all parties' is the round's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Messages sent that the other side has to receive (for a ping-pong: pings), once for each
    /// receiver that has to.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Messages that a receiver was told it did not get, and did not.
    pub(crate) missed: u64,
    /// Messages that came with other bytes, another length or out of order.
    pub(crate) altered: u64,
    /// Times that the kernel gave a party's core to somebody else.
    pub(crate) preempted: u64,
    pub(crate) trips: Option<Trips>,
    pub(crate) flow: Option<Flow>,
    /// One of each party, in scenarios of many.
    pub(crate) shares: Vec<Share>,
}

impl Outcome {
    /// Two accounts together.
    pub(crate) fn and(mut self, mut other: Outcome) -> Outcome {
        self.shares.append(&mut other.shares);
        Outcome {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            missed: self.missed + other.missed,
            altered: self.altered + other.altered,
            preempted: self.preempted + other.preempted,
            trips: self.trips.or(other.trips),
            flow: self.flow.or(other.flow),
            shares: self.shares,
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received + self.missed)
    }
}

/// What one party of many did in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) party: Party,
    /// Messages of the measured part, as far as they lie between two readings of the clock.
    pub(crate) messages: u64,
    /// Those two readings.
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    /// Wrapping sum of the words of all messages of the round.
    pub(crate) sum: u64,
    /// A sender's: 99.9 % of its sends took at most this, waits for room included. None if too few were timed.
    pub(crate) op_p999_ns: Option<u64>,
}

/// Round trips of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trips {
    /// Median over blocks of 64 trips, per trip.
    pub(crate) block_rtt_ns: f64,
    /// From single trips, each with the cost of one clock reading in it.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    /// None if there were too few to tell.
    pub(crate) p999_ns: Option<u64>,
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
            Scenario::Fanout => "fanout",
            Scenario::Mpmc => "mpmc",
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

impl fmt::Display for CpuLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CpuLatency::Plain => "plain",
            CpuLatency::Held => "held",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parties(text: &str) -> Parties {
        text.parse().expect("legal")
    }

    #[test]
    fn parties_are_read_as_they_are_written() {
        for text in ["1P1C", "2P2C", "1P4S", "32P32C", "1P2S+1"] {
            assert_eq!(parties(text).to_string(), text);
        }
        for wrong in ["", "2", "2P", "2P2", "2P2X", "0P1C", "1P33S", "2p2c", "-1P1C", "1P1C+1"] {
            assert!(wrong.parse::<Parties>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn receivers_are_told_to_begin_before_senders() {
        let order: Vec<_> = parties("2P1C").all().map(|party| party.to_string()).collect();
        assert_eq!(order, ["receiver 1", "sender 1", "sender 2"]);
        let stopped: Vec<_> = parties("1P1S+1").stopped().map(|party| party.to_string()).collect();
        assert_eq!(stopped, ["stopped receiver 1"]);
    }

    #[test]
    fn two_cpus_keep_senders_and_receivers_apart_or_mix_them() {
        let cpus = Cpus::seat(&[4, 6], parties("2P2C"), Seating::Apart);
        assert_eq!((cpus.senders, cpus.receivers), (vec![4, 4], vec![6, 6]));
        let cpus = Cpus::seat(&[4, 6], parties("1P4S"), Seating::Apart);
        assert_eq!((cpus.senders, cpus.receivers), (vec![4], vec![6, 6, 6, 6]));
        let cpus = Cpus::seat(&[4, 6], parties("2P2C"), Seating::Mixed);
        assert_eq!((cpus.senders, cpus.receivers), (vec![4, 6], vec![6, 4]));
    }

    #[test]
    fn everybody_has_a_cpu_where_there_are_enough() {
        for seating in [Seating::Apart, Seating::Mixed] {
            for text in ["1P1C", "2P2C", "1P4S", "4P1C"] {
                let cpus = Cpus::seat(&[0, 1, 2, 3, 4], parties(text), seating);
                assert!(!cpus.are_shared(parties(text)), "{text}: {cpus:?}");
                assert_eq!((cpus.senders[0], cpus.receivers[0]), (0, 1));
            }
            let some = Cpus::seat(&[0, 1, 2, 3], parties("4P4C"), seating);
            assert!(some.are_shared(parties("4P4C")) && !some.are_shared(parties("1P1C")));
        }
    }
}

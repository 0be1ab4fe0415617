//! The command line, and its translation into contestants. Whatever can't be run is refused here,
//! with what could be.

use crate::cpu;
use crate::idle;
use crate::plan::{CpuLatency, Cpus, Fault, Over, Parties, Scenario, Seating, Wait};
use crate::recovery::{RecoveryOptions, VictimOptions};
use crate::rows::Contestant;
use crate::side::SIZES;
use crate::systems::{self, System};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Measures latency and throughput of Ringway beside floors that can't be beaten by much.
///
/// Processes of their own on CPUs of their own, one for each party. All systems take turns within each round, every turn is bracketed by
/// a ping-pong over a bare cache line that shows where the host had put the cores, and ratios are
/// taken within a round. Exit status: 0 if every message arrived as sent, 1 if not, 2 if it could
/// not be measured.
#[derive(Parser)]
#[command(name = "ringway-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// One message there and one back: round-trip times.
    Pingpong(Options),
    /// Messages one way as fast as they go: rates.
    Stream(Options),
    /// Every message to every receiver, as fast as they go: rates of each, and of all.
    Fanout(Options),
    /// Many senders, many receivers, and each message to one of them: rates, fairness, tails.
    Mpmc(Options),
    /// Somebody is killed with what others wait for: times from the SIGKILL to the next message.
    Recovery(RecoveryOptions),
    /// One process of the crew.
    #[command(hide = true)]
    Peer,
    /// The one that is killed.
    #[command(hide = true)]
    Victim(VictimOptions),
}

/// The same for every scenario.
#[derive(Args)]
pub(crate) struct Options {
    /// What carries the messages.
    #[arg(long, value_enum, default_value = "shm")]
    pub(crate) over: Over,
    /// Between two network namespaces with a veth pair, instead of over loopback: for `--over tcp`. Made
    /// for the run and gone with it; needs root's rights, and the program `ip`.
    #[arg(long)]
    pub(crate) netns: bool,
    /// Bytes of a message, comma-separated: 8, 16, 48, 64, 256, 1024, 4096, 65536.
    #[arg(long = "size", value_name = "BYTES", value_delimiter = ',',
          default_values_t = [8, 64, 1024, 65536])]
    pub(crate) sizes: Vec<usize>,
    /// Systems, comma-separated [default: all that have the scenario and the wait, and what they
    /// are compared with].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) systems: Vec<String>,
    /// Rounds for each size [default: 15; 5 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: Option<u32>,
    /// Length of each system's turn in a round, in ms [default: 100; 25 with --quick].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) round_ms: Option<u32>,
    /// How the parties wait, comma-separated.
    #[arg(long = "wait", value_enum, value_delimiter = ',', default_value = "spin")]
    pub(crate) waits: Vec<Wait>,
    /// What idle cores do, comma-separated: `held` keeps them awake, which makes the wake-up of a sleeper
    /// several times faster and needs permission to write `/dev/cpu_dma_latency`.
    #[arg(long = "cpu-latency", value_enum, value_delimiter = ',', default_value = "plain")]
    latencies: Vec<CpuLatency>,
    /// Fewer and shorter rounds: under 20 s in all, for a first look.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the result to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Bytes of every ring: a power of two, at least four times a message. KiB and MiB are
    /// understood. Queues of slots have 4096 of them whatever this is.
    #[arg(long, value_name = "BYTES", default_value = "4MiB", value_parser = bytes)]
    pub(crate) capacity: usize,
    /// More options for the addresses of Ringway's channels, such as `align=16`.
    #[arg(long, value_name = "KEY=VALUE[&...]", default_value = "", hide_default_value = true)]
    pub(crate) channel_options: String,
    /// Bytes of messages to a flush, and of those that are received at once, for systems between hosts that do so
    /// (`-batch`, `-thread`): a power of two [default: 512KiB].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    flush: Option<usize>,
    /// CPU of a sender's own thread (`-thread`) [default: one that no party has, else the sender's].
    #[arg(long, value_name = "N")]
    io_cpu: Option<usize>,
    /// CPUs, two or more: the first sender's, the first receiver's, then the others' [default: the
    /// first ones that this process may use, one for each party if there are enough].
    #[arg(long, value_name = "A,B", value_parser = cpus)]
    pub(crate) cpus: Option<CpuList>,
    /// Senders and receivers, comma-separated, such as `2P2C`; where every receiver gets every
    /// message, such as `1P2S`, or `1P2S+1` with one more that is stopped [default: 1P1S,1P2S,1P4S for
    /// a fan-out, 1P1C,2P2C,4P4C for mpmc].
    #[arg(long, value_name = "PARTIES", value_delimiter = ',')]
    pub(crate) parties: Vec<Parties>,
    /// Who sits beside whom where there are fewer CPUs than parties.
    #[arg(long, value_enum, default_value = "apart")]
    pub(crate) seating: Seating,
}

/// CPUs in the order in which they are to be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CpuList(Vec<usize>);

impl Options {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 5 } else { 15 })
    }

    pub(crate) fn round_length(&self) -> Duration {
        let ms = self.round_ms.unwrap_or(if self.quick { 25 } else { 100 });
        Duration::from_millis(ms.into())
    }

    pub(crate) fn flush(&self) -> usize {
        self.flush.unwrap_or(512 << 10)
    }

    /// What was asked for and changes nothing.
    pub(crate) fn in_vain(&self, contestants: &[Contestant], cpus: Option<&Cpus>) -> Vec<String> {
        let mut remarks = Vec::new();
        let any = |is: fn(&System) -> bool| contestants.iter().any(|c| is(c.system));
        if self.io_cpu.is_some() && !(any(System::has_thread) && cpus.is_some()) {
            remarks
                .push("--io-cpu changes nothing: no sender has a pinned thread (-thread)".into());
        }
        if self.flush.is_some() && !any(System::goes_by_flush) {
            remarks.push("--flush changes nothing: for -batch and -thread with --over tcp".into());
        }
        let shared = |c: &Contestant| cpus.is_some_and(|cpus| cpus.are_shared(c.parties));
        if self.seating == Seating::Mixed && !contestants.iter().any(shared) {
            remarks.push("--seating mixed changes nothing: for more parties than CPUs, of which there are two".into());
        }
        remarks
    }

    /// Where the parties run; `None` if this process may use only one CPU.
    pub(crate) fn seat(&self, parties: Parties) -> Result<Option<Cpus>, Fault> {
        let allowed = allowed()?;
        let cpus = match &self.cpus {
            Some(CpuList(cpus)) => {
                cpus.iter().try_for_each(|&cpu| check_cpu(cpu, &allowed))?;
                cpus
            }
            None => &allowed[..allowed.len().min(parties.senders + parties.receivers)],
        };
        Ok((cpus.len() >= 2).then(|| Cpus::seat(cpus, parties, self.seating)))
    }

    /// Where a sender's own thread runs; `None` if nobody is pinned.
    pub(crate) fn io_cpu(&self, cpus: Option<&Cpus>) -> Result<Option<usize>, Fault> {
        let Some(cpus) = cpus else { return Ok(None) };
        let allowed = allowed()?;
        if let Some(cpu) = self.io_cpu {
            check_cpu(cpu, &allowed)?;
            return Ok(Some(cpu));
        }
        let free = |cpu: &&usize| !cpus.senders.contains(cpu) && !cpus.receivers.contains(cpu);
        Ok(Some(allowed.iter().find(free).copied().unwrap_or(cpus.senders[0])))
    }

    /// Who takes part, grouped by size, and remarks on what was left out.
    pub(crate) fn contestants(
        &self,
        scenario: Scenario,
    ) -> Result<(Vec<Contestant>, Vec<String>), Fault> {
        if self.netns && self.over != Over::Tcp {
            return Err(Fault::new("--netns: only messages over TCP go there; add --over tcp"));
        }
        let mut remarks = Vec::new();
        let mut chosen = self.chosen(scenario, &mut remarks)?;
        let parties = self.parties_of(scenario)?;
        let mut contestants = Vec::new();
        chosen.retain(|(system, _)| match systems::lack(system) {
            None => true,
            Some(why) => {
                remarks.push(format!("{} can't be opened here: left out. {why}", system.name));
                false
            }
        });
        let mut latencies = once_each(&self.latencies);
        if latencies.contains(&CpuLatency::Held)
            && let Err(why) = idle::stay_awake()
        {
            remarks.push(format!("--cpu-latency held is left out: {why}"));
            latencies.retain(|&latency| latency != CpuLatency::Held);
        }
        let mut games = Vec::new();
        for size in once_each(&self.sizes) {
            if !SIZES.contains(&size) {
                return Err(Fault::new(format!(
                    "--size {size}: not one of the sizes that there is code for: {SIZES:?}"
                )));
            }
            if self.capacity < 4 * size || self.capacity < 4096 {
                return Err(Fault::new(format!(
                    "--capacity {}: less than 4096 or than four messages of {size} B; pass \
                     --capacity {}",
                    self.capacity,
                    (8 * size).max(4096).next_power_of_two()
                )));
            }
            games.extend(latencies.iter().map(|&latency| (size, latency)));
        }
        for (size, latency) in games {
            for &parties in &parties {
                for &(system, wait) in &chosen {
                    if !(system.fits)(size) {
                        remarks.push(format!("{} does not carry {size} B: left out", system.name));
                    } else if !system.of_many && !parties.are_two() {
                        remarks.push(format!("{} is not for {parties}: left out", system.name));
                    } else if parties.stopped > 0 && !system.goes_on() {
                        remarks.push(format!("{} waits for the stopped: left out", system.name));
                    } else {
                        let contestant =
                            Contestant { system, scenario, parties, wait, size, latency };
                        contestants.push(contestant);
                    }
                }
            }
        }
        if contestants.is_empty() {
            return Err(nothing(&remarks));
        }
        remarks.sort();
        remarks.dedup();
        Ok((contestants, remarks))
    }

    /// As asked for, if the scenario can be played so.
    fn parties_of(&self, scenario: Scenario) -> Result<Vec<Parties>, Fault> {
        let usual = scenario.usual_parties();
        for parties in &self.parties {
            let refused = match scenario {
                Scenario::Pingpong | Scenario::Stream => !parties.are_two() || parties.to_all,
                Scenario::Fanout => parties.senders != 1 || !parties.to_all,
                Scenario::Mpmc => parties.to_all,
            };
            if refused {
                let usual: Vec<String> = usual.iter().map(Parties::to_string).collect();
                let usual = usual.join(",");
                return Err(Fault::new(format!(
                    "--parties {parties}: a {scenario} is not between so many; for example {usual}"
                )));
            }
        }
        Ok(if self.parties.is_empty() { usual.to_vec() } else { once_each(&self.parties) })
    }

    /// Systems and waits, in the order of the table of systems. Remarks on those that were asked for by name
    /// and don't go with the rest.
    fn chosen(
        &self,
        scenario: Scenario,
        remarks: &mut Vec<String>,
    ) -> Result<Vec<(&'static System, Wait)>, Fault> {
        for name in &self.systems {
            let system = check_name(name, scenario)?;
            remarks.extend(self.remark_on(system));
        }
        let named = |system: &System| self.systems.iter().any(|name| name == system.name);
        let has = |system: &System, wait| {
            system.over() == self.over
                && system.scenarios.contains(&scenario)
                && system.waits.contains(&wait)
        };
        let mut chosen: Vec<(&System, Wait)> = Vec::new();
        for system in systems::all() {
            for &wait in &self.waits {
                if has(system, wait) && (self.systems.is_empty() || named(system)) {
                    chosen.push((system, wait));
                }
            }
        }
        if chosen.is_empty() && !remarks.is_empty() {
            return Err(nothing(remarks));
        }
        if chosen.is_empty() {
            return Err(Fault::new(format!(
                "nothing to measure: no system has --over {} --wait {}; {}",
                over(self.over),
                list(&self.waits),
                listing(scenario)
            )));
        }
        if self.systems.is_empty() {
            for (system, wait) in chosen.clone() {
                for against in (system.against)(wait) {
                    if let Some(other) = systems::find(against.system)
                        && has(other, against.wait)
                    {
                        chosen.push((other, against.wait));
                    }
                }
            }
        }
        let place = |&(system, wait): &(&System, Wait)| {
            (systems::all().position(|s| s.name == system.name), wait as u8)
        };
        chosen.sort_by_key(place);
        chosen.dedup_by_key(|choice| place(choice));
        Ok(chosen)
    }

    /// What of the command line a system does not go with, and what it goes with.
    fn remark_on(&self, system: &System) -> Option<String> {
        let name = system.name;
        let missing: Vec<Wait> =
            self.waits.iter().copied().filter(|wait| !system.waits.contains(wait)).collect();
        if system.over() != self.over {
            let (asked, its) = (over(self.over), over(system.over()));
            return Some(format!("{name} has no --over {asked}: left out; pass --over {its}"));
        }
        if missing.is_empty() {
            return None;
        }
        // Otherwise it plays, with the others.
        let remedy = if missing.len() == self.waits.len() {
            format!("; pass --wait {}", list(system.waits))
        } else {
            String::new()
        };
        Some(format!("{name} has no --wait {}: left out{remedy}", list(&missing)))
    }
}

/// Without repetitions: a contestant that played twice in a round would be compared with itself of other turns.
fn once_each<T: Copy + PartialEq>(asked: &[T]) -> Vec<T> {
    let mut once = Vec::new();
    for &one in asked {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

fn allowed() -> Result<Vec<usize>, Fault> {
    cpu::allowed().map_err(|e| Fault::new(format!("can't ask which CPUs may be used: {e}")))
}

fn check_cpu(cpu: usize, allowed: &[usize]) -> Result<(), Fault> {
    if allowed.contains(&cpu) {
        return Ok(());
    }
    Err(Fault::new(format!("CPU {cpu} may not be used by this process; these may: {allowed:?}")))
}

fn check_name(name: &str, scenario: Scenario) -> Result<&'static System, Fault> {
    match systems::find(name) {
        None => Err(Fault::new(format!("no system is called \"{name}\"; {}", listing(scenario)))),
        Some(system) if !system.scenarios.contains(&scenario) => {
            Err(Fault::new(format!("{name} has no {scenario}; {}", listing(scenario))))
        }
        Some(system) => Ok(system),
    }
}

/// Everything was left out, and why.
fn nothing(remarks: &[String]) -> Fault {
    let mut text = String::from("nothing to measure");
    remarks.iter().for_each(|remark| text += &format!("; {remark}"));
    Fault::new(text)
}

/// As they are typed.
fn list(waits: &[Wait]) -> String {
    waits.iter().map(Wait::to_string).collect::<Vec<_>>().join(",")
}

/// As it is typed.
fn over(over: Over) -> &'static str {
    match over {
        Over::Shm => "shm",
        Over::Tcp => "tcp",
    }
}

fn listing(scenario: Scenario) -> String {
    let mut text = format!("systems with a {scenario}:");
    for system in systems::all().filter(|s| s.scenarios.contains(&scenario)) {
        let waits: Vec<String> = system.waits.iter().map(Wait::to_string).collect();
        text += &format!("\n  {:24} {} ({})", system.name, system.about, waits.join(", "));
    }
    text
}

fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = match text {
        t if t.ends_with("KiB") => (&t[..t.len() - 3], 1 << 10),
        t if t.ends_with("MiB") => (&t[..t.len() - 3], 1 << 20),
        t => (t, 1),
    };
    let number: usize = number.trim().parse().map_err(|e| format!("{e}; for example 4MiB"))?;
    match number.checked_mul(unit) {
        Some(bytes) if bytes.is_power_of_two() && bytes <= 1 << 30 => Ok(bytes),
        _ => Err("not a power of two of at most 1024MiB; for example 4MiB".into()),
    }
}

fn cpus(text: &str) -> Result<CpuList, String> {
    let wrong = || "not two or more different CPU numbers; for example 2,3".to_string();
    let numbers = text.split(',').map(|number| number.trim().parse());
    let numbers: Vec<usize> = numbers.collect::<Result<_, _>>().map_err(|_| wrong())?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != numbers.len() || numbers.len() < 2 {
        Err(wrong())
    } else {
        Ok(CpuList(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        let words = format!("ringway-bench pingpong {line}");
        match Cli::try_parse_from(words.split_whitespace()).expect("it parses").command {
            Command::Pingpong(options) => options,
            _ => unreachable!("a ping-pong was asked for"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_system_lists_the_known_ones() {
        let e = options("--systems floor-rung").contestants(Scenario::Pingpong).err();
        let text = e.expect("refused").0;
        assert!(text.contains("floor-rung") && text.contains("floor-ring-tight"), "{text}");
    }

    #[test]
    fn a_system_without_the_scenario_is_refused() {
        let e = options("--systems floor-futex").contestants(Scenario::Stream).err();
        let text = e.expect("refused").0;
        assert!(text.contains("no stream") && text.contains("rtrb"), "{text}");
    }

    #[test]
    fn an_unknown_size_lists_the_known_ones() {
        let e = options("--size 7").contestants(Scenario::Pingpong).err();
        assert!(e.expect("refused").0.contains("65536"));
    }

    #[test]
    fn named_systems_come_alone_and_sizes_in_order() {
        let (contestants, remarks) = options("--systems rtrb,floor-ring --size 64,65536")
            .contestants(Scenario::Pingpong)
            .expect("both exist");
        let names: Vec<_> = contestants.iter().map(|c| (c.system.name, c.size)).collect();
        assert_eq!(names, [("floor-ring", 64), ("rtrb", 64), ("floor-ring", 65536)]);
        assert_eq!(remarks, ["rtrb does not carry 65536 B: left out"]);
    }

    #[test]
    fn what_is_asked_for_twice_is_played_once() {
        let twice = "--size 64,8,64 --parties 2P2C,1P1C,2P2C --systems kanal,kanal --wait spin,spin \
                     --cpu-latency plain,plain";
        let (contestants, _) = options(twice).contestants(Scenario::Mpmc).expect("it exists");
        let played: Vec<_> = contestants.iter().map(|c| (c.size, c.parties.to_string())).collect();
        let expected = [(64, "2P2C"), (64, "1P1C"), (8, "2P2C"), (8, "1P1C")];
        assert_eq!(played, expected.map(|(size, parties)| (size, parties.to_string())));
    }

    #[test]
    fn what_changes_nothing_is_remarked_on() {
        let in_vain = |scenario, line: &str, cpus: &[usize]| {
            let options = options(line);
            let (contestants, _) = options.contestants(scenario).expect("it exists");
            let most = contestants.iter().fold(Parties::TWO, |most, one| most.or(one.parties));
            let cpus = (cpus.len() > 1).then(|| Cpus::seat(cpus, most, options.seating));
            options.in_vain(&contestants, cpus.as_ref()).join("; ")
        };
        let all = "--io-cpu 0 --flush 4KiB --seating mixed --systems";
        let told = in_vain(Scenario::Stream, &format!("{all} rtrb --size 8"), &[0, 1]);
        for flag in ["--io-cpu", "--flush", "--seating"] {
            assert!(told.contains(flag), "{told}");
        }
        let tcp = |what: &str| format!("--over tcp {what} --systems ringway-tcp-epoll-thread");
        assert_eq!(in_vain(Scenario::Stream, &tcp("--io-cpu 0 --flush 4KiB"), &[0, 1]), "");
        assert!(in_vain(Scenario::Stream, &tcp("--io-cpu 0"), &[]).contains("--io-cpu"));
        let kanal = "--seating mixed --systems kanal --size 8 --parties 1P1C,2P2C";
        assert_eq!(in_vain(Scenario::Mpmc, kanal, &[0, 1]), "");
        assert!(in_vain(Scenario::Mpmc, kanal, &[0, 1, 2, 3]).contains("--seating"));
        assert_eq!(in_vain(Scenario::Stream, "--systems rtrb --size 8", &[0, 1]), "");
    }

    #[test]
    fn a_wait_that_no_system_has_is_refused() {
        let e = options("--systems floor-ring --wait park").contestants(Scenario::Pingpong).err();
        assert!(e.expect("refused").0.contains("--wait park"));
    }

    #[test]
    fn a_named_system_that_does_not_fit_is_remarked_on() {
        let left_out = |line: &str| options(line).contestants(Scenario::Pingpong);
        let (contestants, remarks) =
            left_out("--systems floor-ring,floor-futex,floor-tcp-spin --size 8").expect("one fits");
        assert_eq!(contestants.len(), 1);
        let expected = [
            "floor-futex has no --wait spin: left out; pass --wait park",
            "floor-tcp-spin has no --over shm: left out; pass --over tcp",
        ];
        assert_eq!(remarks, expected);
        // What plays with one wait is left out with another.
        let (contestants, remarks) =
            left_out("--systems floor-ring,ringway-shm-raw --wait spin,park --size 8")
                .expect("both fit");
        assert_eq!(contestants.len(), 3);
        assert_eq!(remarks, ["floor-ring has no --wait park: left out"]);
        // And if nothing is left, that is all there is to say.
        let e = left_out("--systems floor-tcp-block --wait spin --over tcp").err();
        let expected =
            "nothing to measure; floor-tcp-block has no --wait spin: left out; pass --wait park";
        assert_eq!(e.expect("refused").0, expected);
    }

    #[test]
    fn parties_must_fit_the_scenario_and_the_system() {
        let e = options("--parties 2P2C").contestants(Scenario::Stream).err();
        assert!(e.expect("refused").0.contains("1P1C"));
        let e = options("--parties 2P2S").contestants(Scenario::Fanout).err();
        assert!(e.expect("refused").0.contains("1P1S,1P2S,1P4S"));
        let options = options("--parties 1P1C,2P2C --size 8 --systems kanal,ringway-shm-raw");
        let (contestants, remarks) = options.contestants(Scenario::Mpmc).expect("both exist");
        let names: Vec<_> =
            contestants.iter().map(|c| (c.system.name, c.parties.to_string())).collect();
        let expected = [("kanal", "1P1C"), ("ringway-shm-raw", "1P1C"), ("kanal", "2P2C")];
        assert_eq!(names, expected.map(|(name, parties)| (name, parties.to_string())));
        assert_eq!(remarks, ["ringway-shm-raw is not for 2P2C: left out"]);
    }

    #[test]
    fn capacities_are_powers_of_two() {
        assert_eq!(bytes("4MiB"), Ok(4 << 20));
        assert_eq!(bytes("64KiB"), Ok(64 << 10));
        assert_eq!(bytes("4096"), Ok(4096));
        for wrong in ["3MiB", "", "MiB", "x", "99999999999999MiB", "0"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        let e = options("--size 65536 --capacity 64KiB").contestants(Scenario::Stream).err();
        assert!(e.expect("refused").0.contains("--capacity 524288"));
    }

    #[test]
    fn cpus_are_at_least_two() {
        assert_eq!(cpus("2,3"), Ok(CpuList(vec![2, 3])));
        assert_eq!(cpus("7, 3,1"), Ok(CpuList(vec![7, 3, 1])));
        for wrong in ["2", "2,2", "a,b", ""] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }
}

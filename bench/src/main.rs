//! `ringway-bench`: latency and throughput of Ringway beside floors, in pinned processes, one a party.
//!
//! ```text
//! cli -> run: for each size, a crew of processes; for each round, every system in turn
//!         |     bracket, turn, bracket, turn, ... bracket
//!         +-> crew ==pipes==> peer: pingpong | stream | many over a system's Tx and Rx (side, systems/)
//!        rows: medians by placement, ratios within a round -> report: table, JSON
//! ```

mod arena;
mod cli;
mod clock;
mod cpu;
mod crew;
mod crowd;
mod host;
mod idle;
mod many;
mod netns;
mod payload;
mod peer;
mod pingpong;
mod placement;
mod plan;
mod poll;
mod recovery;
mod report;
mod rows;
mod run;
mod scratch;
mod side;
mod stream;
mod systems;
mod validity;

use clap::Parser;
use cli::{Cli, Command, Options};
use crew::Ground;
use host::Host;
use netns::Namespaces;
use placement::Levels;
use plan::{CpuLatency, Fault, Parties, Scenario};
use report::{Report, SCHEMA};
use rows::Contestant;
use run::Table;
use scratch::Scratch;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;
use validity::Validity;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Pingpong(options) => measure(Scenario::Pingpong, &options),
        Command::Stream(options) => measure(Scenario::Stream, &options),
        Command::Fanout(options) => measure(Scenario::Fanout, &options),
        Command::Mpmc(options) => measure(Scenario::Mpmc, &options),
        Command::Recovery(options) => recovery::measure(&options).map(|()| ExitCode::SUCCESS),
        Command::Victim(options) => recovery::victim(&options).map(|()| ExitCode::SUCCESS),
        Command::Peer => peer::serve().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|fault| {
        eprintln!("ringway-bench: {fault}");
        ExitCode::from(2)
    })
}

fn measure(scenario: Scenario, options: &Options) -> Result<ExitCode, Fault> {
    let (contestants, remarks) = options.contestants(scenario)?;
    for remark in remarks {
        eprintln!("{remark}");
    }
    let most = contestants.iter().fold(Parties::TWO, |most, one| most.or(one.parties));
    let cpus = options.seat(most)?;
    let io_cpu = options.io_cpu(cpus.as_ref())?;
    let cpus = cpus.as_ref();
    for remark in options.in_vain(&contestants, cpus) {
        eprintln!("{remark}");
    }
    if cpus.is_none() {
        eprintln!(
            "only one CPU may be used: all processes share it, unpinned, and every figure is a \
             scheduler's; allow two (taskset, cpuset, container limits) for figures that mean \
             anything"
        );
    }
    // Opened first: after minutes of measuring is no time to learn that it can't be written.
    let json = options.json.as_ref().map(|path| (path, File::create(path)));
    let json = match json {
        Some((path, Err(e))) => {
            return Err(Fault::new(format!("can't write --json {}: {e}", path.display())));
        }
        Some((_, Ok(file))) => Some(file),
        None => None,
    };

    let namespaces = options.netns.then(Namespaces::create).transpose()?;
    let load_before = host::load();
    let scratch = Scratch::create()?;
    let table = Table {
        ground: Ground { cpus, channels: scratch.path(), namespaces: namespaces.as_ref() },
        capacity: options.capacity,
        flush: options.flush(),
        io_cpu,
        rounds: options.rounds(),
        round_length: options.round_length(),
        channel_options: &options.channel_options,
    };
    let jitter = table.jitter(if options.quick { 50 } else { 500 })?;
    let used = cpus.map_or(vec![], |cpus| vec![cpus.senders[0], cpus.receivers[0]]);
    let mut host = Host::look(used, jitter, load_before);

    let samples = table.play(&contestants, |group| announce(group, &table))?;
    let floor_took_part = contestants.iter().any(|c| c.system.name == "floor-ring");
    let probes = if floor_took_part { validity::missing(&contestants) } else { vec![] };
    let probe = Table { rounds: 9, round_length: Duration::from_millis(40), ..table };
    let probe_samples = probe.play(&probes, |_| ())?;
    host.load_after = host::load();

    let brackets = samples.iter().chain(&probe_samples);
    let brackets = brackets.flat_map(|s| [s.bracket.before_ns, s.bracket.after_ns]);
    let levels = Levels::of(brackets.collect());
    let rows = rows::rows(&contestants, &samples, &levels, cpus, io_cpu);
    let floor_ring = floor_took_part.then(|| {
        let probe_rows = rows::rows(&probes, &probe_samples, &levels, cpus, io_cpu);
        Validity::of(&[rows.as_slice(), probe_rows.as_slice()].concat())
    });
    let report = Report {
        schema: SCHEMA,
        over: options.over,
        netns: options.netns,
        host,
        placements: levels,
        floor_ring,
        rows,
    };

    publish(&report, json).map_err(|e| Fault::new(format!("can't write the result: {e}")))?;
    let (lost, altered) = report.damage();
    if lost + altered == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("ringway-bench: {lost} messages lost, {altered} altered");
    Ok(ExitCode::from(1))
}

/// On standard error, so that standard output is the result alone.
fn announce(group: &[Contestant], table: &Table<'_>) {
    let Some(first) = group.first() else { return };
    let seconds = table.round_length.as_secs_f64() * f64::from(table.rounds) * group.len() as f64;
    eprintln!(
        "{} of {} B{}: {} turns, {} rounds, about {:.0} s",
        first.scenario,
        first.size,
        if first.latency == CpuLatency::Held { ", cores kept awake" } else { "" },
        group.len(),
        table.rounds,
        seconds * 1.1 + 0.5
    );
}

fn publish(report: &Report, json: Option<File>) -> io::Result<()> {
    if let Some(file) = json {
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, report)?;
        writeln!(file)?;
        file.flush()?;
    }
    let mut out = io::stdout().lock();
    write!(out, "{report}")?;
    out.flush()
}

//! The result for people and for programs: a table on standard output, and JSON. Words only.

use crate::host::Host;
use crate::placement::Levels;
use crate::plan::{CpuLatency, Cpus, Over};
use crate::rows::{IoThread, Metric, Row};
use crate::validity::Validity;
use serde::Serialize;
use std::fmt::{self, Write};

/// A whole run. Its JSON form is a promise: fields are added, none changes or goes while `schema`
/// stays what it is.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) over: Over,
    /// Between two network namespaces.
    pub(crate) netns: bool,
    pub(crate) host: Host,
    /// Levels of the brackets, closest first.
    pub(crate) placements: Levels,
    /// Null when `floor-ring` took no part.
    pub(crate) floor_ring: Option<Validity>,
    pub(crate) rows: Vec<Row>,
}

/// The only schema so far.
pub(crate) const SCHEMA: u32 = 1;

impl Report {
    /// Messages that did not arrive, or not as sent.
    pub(crate) fn damage(&self) -> (u64, u64) {
        (self.rows.iter().map(|r| r.lost).sum(), self.rows.iter().map(|r| r.altered).sum())
    }

    /// The most threads that ran in one turn: all parties, and a sender's own. Two run in a bracket.
    fn busy_at_once(&self) -> usize {
        let turns = self.rows.iter().map(|row| {
            row.parties.senders + row.parties.receivers + usize::from(row.io_thread.is_some())
        });
        turns.fold(2, usize::max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.host)?;
        if self.netns {
            writeln!(f, "way     a veth pair between two network namespaces")?;
        }
        if let (Some(before), Some(after)) = (self.host.load_before, self.host.load_after) {
            let own = self.busy_at_once();
            writeln!(
                f,
                "load    {before:.2} before, {after:.2} after (this run adds up to {own})"
            )?;
        }
        writeln!(f, "line    {}", self.placements)?;
        if let Some(validity) = &self.floor_ring {
            writeln!(f, "floor   {validity}")?;
        }
        writeln!(f, "\n{}", table(&self.rows))?;
        if self.rows.iter().any(|row| row.many.is_some()) {
            writeln!(f, "{}", table_of_many(&self.rows))?;
        }
        write!(f, "{}", comparisons(&self.rows))
    }
}

fn table(rows: &[Row]) -> String {
    let mut header = vec![
        "system",
        "parties",
        "size",
        "wait",
        "place",
        "rounds",
        "line",
        "block_rtt",
        "p50",
        "p99",
        "p99.9",
        "max",
        "msgs/s",
        "GB/s",
        "lost",
        "disturbed",
        "ratio",
        "to",
    ];
    // Only where there is something to tell.
    let threads = rows.iter().any(|row| row.io_thread.is_some());
    header.extend(threads.then_some("io on"));
    let held = held(rows);
    header.extend(held.then_some("cpu latency"));
    let lines = rows.iter().map(|row| {
        let ns = |v: Option<f64>| v.map_or(String::new(), nanoseconds);
        let mut line = vec![
            row.system.to_string(),
            row.parties.to_string(),
            row.size.to_string(),
            row.wait.to_string(),
            row.placement.to_string(),
            if row.timed_rounds == row.rounds {
                row.rounds.to_string()
            } else {
                format!("{} of {}", row.timed_rounds, row.rounds)
            },
            format!("{:.0} ns", row.bracket_ns),
            row.block_rtt_ns.map_or(String::new(), |v| format!("{v:.1} ns")),
            ns(row.p50_ns),
            ns(row.p99_ns),
            ns(row.p999_ns),
            ns(row.max_ns.map(|v| v as f64)),
            row.msgs_per_s.map_or(String::new(), |v| format!("{:.3} M", v / 1e6)),
            row.bytes_per_s.map_or(String::new(), |v| format!("{:.2}", v / 1e9)),
            (row.lost + row.altered).to_string(),
            row.preempted.map_or(String::new(), |times| times.to_string()),
            row.ratio.map_or(String::new(), |v| format!("{v:.3}")),
            row.ratio_to.unwrap_or_default().to_string(),
        ];
        let core =
            |thread: &IoThread| thread.cpu.map_or("any CPU".into(), |cpu| format!("CPU {cpu}"));
        line.extend(threads.then(|| row.io_thread.as_ref().map_or(String::new(), core)));
        line.extend(held.then(|| row.cpu_latency.to_string()));
        line
    });
    columns(&header, lines.collect())
}

/// Whether some rows are of cores that were kept awake, so that each has to say what its own did.
fn held(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.cpu_latency == CpuLatency::Held)
}

/// What only rounds of many parties have.
fn table_of_many(rows: &[Row]) -> String {
    let mut header = vec![
        "system",
        "parties",
        "size",
        "wait",
        "place",
        "all msgs/s",
        "each receiver",
        "each sender",
        "unfair",
        "send p99.9",
        "missed",
        "senders on",
        "receivers on",
    ];
    let held = held(rows);
    header.extend(held.then_some("cpu latency"));
    let mut lines = Vec::new();
    for row in rows {
        let Some(many) = &row.many else { continue };
        let span = |least: f64, most: f64| format!("{:.3}-{:.3} M", least / 1e6, most / 1e6);
        let seats = |of: fn(&Cpus) -> &Vec<usize>| match &many.cpus {
            Some(cpus) => {
                of(cpus).iter().map(|cpu| format!("CPU {cpu}")).collect::<Vec<_>>().join(" ")
            }
            None => "any CPU".to_string(),
        };
        let mut line = vec![
            row.system.to_string(),
            row.parties.to_string(),
            row.size.to_string(),
            row.wait.to_string(),
            row.placement.to_string(),
            format!("{:.3} M", many.total_per_s / 1e6),
            span(many.receiver_least_per_s, many.receiver_most_per_s),
            span(many.sender_least_per_s, many.sender_most_per_s),
            format!("{:.2}", many.unfairness),
            many.op_p999_ns.map_or(String::new(), nanoseconds),
            row.missed.to_string(),
            seats(|cpus| &cpus.senders),
            seats(|cpus| &cpus.receivers),
        ];
        line.extend(held.then(|| row.cpu_latency.to_string()));
        lines.push(line);
    }
    let title = "many parties: rates as the parties saw them; unfair is the fastest sender's over \
                 the slowest's; send p99.9 includes waits for room and for the core\n";
    title.to_string() + &columns(&header, lines)
}

/// Every ratio, one a line: what the figures are judged by.
fn comparisons(rows: &[Row]) -> String {
    let mut header = vec![
        "ratio",
        "of",
        "parties",
        "size",
        "system",
        "wait",
        "to",
        "wait",
        "place",
        "rounds",
        "middle half",
    ];
    let held = held(rows);
    header.extend(held.then_some("cpu latency"));
    let mut lines = Vec::new();
    for row in rows {
        for ratio in &row.ratios {
            let mut line = vec![
                format!("{:.3}", ratio.ratio),
                ratio.of.name().to_string(),
                row.parties.to_string(),
                row.size.to_string(),
                row.system.to_string(),
                row.wait.to_string(),
                if ratio.to_parties == row.parties {
                    ratio.to.to_string()
                } else {
                    format!("{} with {}", ratio.to, ratio.to_parties)
                },
                ratio.to_wait.to_string(),
                row.placement.to_string(),
                ratio.rounds.to_string(),
                format!("{:.3}-{:.3}", ratio.quarter, ratio.three_quarters),
            ];
            line.extend(held.then(|| row.cpu_latency.to_string()));
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return "no ratios: nothing to compare with took part, or the brackets disagreed\n".into();
    }
    let more = Metric::MsgsPerS.name();
    let title = format!(
        "ratios within a round, median over rounds whose brackets agree \
         (times: less is better; {more} and a sender's: more is better)\n"
    );
    title + &columns(&header, lines)
}

fn nanoseconds(ns: f64) -> String {
    match ns {
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns if ns < 10_000_000.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

/// Columns as wide as their widest cell; the ones that begin with a digit lean right.
fn columns(header: &[&str], lines: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column)).map(String::len);
        cells.max().unwrap_or(0).max(header[column].len())
    };
    let right = |column: usize| {
        let mut cells = lines.iter().filter_map(|line| line.get(column));
        cells.all(|cell| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit()))
    };
    let layout: Vec<(usize, bool)> = (0..header.len()).map(|c| (width(c), right(c))).collect();
    let mut text = String::new();
    let heading = header.iter().map(|cell| cell.to_string()).collect();
    for line in std::iter::once(&heading).chain(&lines) {
        let mut row = String::new();
        for (cell, &(width, right)) in line.iter().zip(&layout) {
            // Writing to a String can't fail.
            let _ = if right {
                write!(row, "{cell:>width$}  ")
            } else {
                write!(row, "{cell:<width$}  ")
            };
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Placement;
    use crate::plan::{Jitter, Parties, Scenario, Wait};
    use crate::rows::{Many, Ratio};

    fn report() -> Report {
        Report {
            schema: SCHEMA,
            over: Over::Shm,
            netns: false,
            host: Host {
                cpu: "Abacus".into(),
                kernel: "6.1".into(),
                cpus: vec![0, 1],
                clock_cost_ns: 25.0,
                clock_step_ns: 1,
                pause_ns: 12.0,
                jitter: vec![Jitter {
                    cpu: Some(0),
                    gaps_per_s: 10.0,
                    median_gap_ns: 2_000,
                    max_gap_ns: 9_000,
                    stolen: 0.5,
                }],
                load_before: Some(0.5),
                load_after: None,
            },
            placements: Levels::of(vec![100.0]),
            floor_ring: Some(Validity {
                rtt_ratio: Some(1.25),
                rtt_limit: 1.15,
                rate_ratio: None,
                rate_limit: 1.0,
                valid: None,
            }),
            rows: vec![Row {
                system: "floor-ring",
                scenario: Scenario::Pingpong,
                size: 8,
                wait: Wait::Spin,
                rounds: 5,
                placement: Placement::Near,
                bracket_ns: 100.0,
                block_rtt_ns: Some(112.5),
                p50_ns: Some(130.0),
                p99_ns: Some(150.0),
                p999_ns: Some(12_345.0),
                max_ns: Some(99_999_999),
                count: 1000,
                msgs_per_s: None,
                bytes_per_s: None,
                sent: 2000,
                received: 1999,
                missed: 0,
                lost: 1,
                altered: 0,
                preempted: Some(3),
                ratio_to: Some("floor-cacheline-pause"),
                ratio: Some(1.25),
                ratios: vec![Ratio {
                    to: "floor-cacheline-pause",
                    to_wait: Wait::Spin,
                    to_parties: Parties::TWO,
                    of: Metric::BlockRttNs,
                    ratio: 1.25,
                    quarter: 1.0,
                    three_quarters: 1.5,
                    rounds: 5,
                }],
                parties: Parties::TWO,
                many: None,
                io_thread: Some(IoThread { cpu: Some(1) }),
                cpu_latency: CpuLatency::Held,
                timed_rounds: 4,
            }],
        }
    }

    #[test]
    fn the_json_form_is_a_promise() {
        let golden = concat!(
            r#"{"schema":1,"over":"shm","netns":false,"host":{"cpu":"Abacus","kernel":"6.1","cpus":[0,1],"#,
            r#""clock_cost_ns":25.0,"clock_step_ns":1,"pause_ns":12.0,"#,
            r#""jitter":[{"cpu":0,"gaps_per_s":10.0,"median_gap_ns":2000,"max_gap_ns":9000,"#,
            r#""stolen":0.5}],"load_before":0.5,"load_after":null},"#,
            r#""placements":[{"from_ns":100.0,"to_ns":100.0,"brackets":1}],"#,
            r#""floor_ring":{"rtt_ratio":1.25,"rtt_limit":1.15,"rate_ratio":null,"#,
            r#""rate_limit":1.0,"valid":null},"#,
            r#""rows":[{"system":"floor-ring","scenario":"pingpong","size":8,"wait":"spin","#,
            r#""rounds":5,"placement":"near","bracket_ns":100.0,"block_rtt_ns":112.5,"#,
            r#""p50_ns":130.0,"p99_ns":150.0,"p999_ns":12345.0,"max_ns":99999999,"count":1000,"#,
            r#""msgs_per_s":null,"bytes_per_s":null,"sent":2000,"received":1999,"missed":0,"lost":1,"#,
            r#""altered":0,"preempted":3,"ratio_to":"floor-cacheline-pause","ratio":1.25,"#,
            r#""ratios":[{"to":"floor-cacheline-pause","to_wait":"spin","to_parties":"1P1C","#,
            r#""of":"block_rtt_ns","#,
            r#""ratio":1.25,"quarter":1.0,"three_quarters":1.5,"rounds":5}],"#,
            r#""parties":"1P1C","many":null,"#,
            r#""io_thread":{"cpu":1},"cpu_latency":"held","timed_rounds":4}]}"#,
        );
        assert_eq!(serde_json::to_string(&report()).expect("it serialises"), golden);
    }

    #[test]
    fn the_table_shows_units_and_losses() {
        let text = report().to_string();
        for part in [
            "112.5 ns",
            "12.3 us",
            "100.0 ms",
            "1.250",
            "near 100-100 ns",
            "not known",
            "CPU 1",
            "held",
            "4 of 5",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(report().damage(), (1, 0));
    }

    #[test]
    fn every_table_says_whether_cores_were_kept_awake_where_some_were() {
        let mut report = report();
        report.rows[0].many = Some(Many {
            cpus: None,
            total_per_s: 1e6,
            receiver_least_per_s: 1e6,
            receiver_most_per_s: 1e6,
            sender_least_per_s: 1e6,
            sender_most_per_s: 1e6,
            unfairness: 1.0,
            op_p999_ns: None,
        });
        report.rows.push(Row { cpu_latency: CpuLatency::Plain, ..report.rows[0].clone() });
        let text = report.to_string();
        for told in ["cpu latency", "held", "plain"] {
            assert_eq!(text.matches(told).count(), 3, "{told} in each of three tables:\n{text}");
        }
        report.rows.remove(0);
        assert!(!report.to_string().contains("cpu latency"));
    }

    #[test]
    fn the_load_that_a_run_adds_is_that_of_all_that_run_at_once() {
        let mut report = report();
        report.host.load_after = Some(2.5);
        assert!(report.to_string().contains("2.50 after (this run adds up to 3)"), "a thread, too");
        report.rows[0].io_thread = None;
        assert!(report.to_string().contains("adds up to 2)"));
        report.rows[0].parties = "1P4S+1".parse().expect("legal");
        assert!(report.to_string().contains("adds up to 5)"), "who is stopped does not run");
    }
}

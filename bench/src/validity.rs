//! Whether `floor-ring` is still a floor: a harness whose reference is slow flatters its subject.
//! Holds the two limits and the words for them.

use crate::plan::{CpuLatency, Parties, Scenario, Wait};
use crate::rows::{Contestant, Metric, Row};
use crate::systems;
use serde::Serialize;
use std::fmt;

/// Round trip at most this times the bare line's, polled the same way.
const RTT_LIMIT: f64 = 1.15;
/// Rate at least this times rtrb's.
const RATE_LIMIT: f64 = 1.0;

/// Both conditions; a ratio is null where no two rounds could be compared.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Validity {
    /// 8 B round trip over `floor-cacheline-pause`.
    pub(crate) rtt_ratio: Option<f64>,
    pub(crate) rtt_limit: f64,
    /// 64 B rate over `rtrb`.
    pub(crate) rate_ratio: Option<f64>,
    pub(crate) rate_limit: f64,
    /// Null if either can't be told.
    pub(crate) valid: Option<bool>,
}

impl Validity {
    pub(crate) fn of(rows: &[Row]) -> Validity {
        let rtt_ratio = find(rows, 8, "floor-cacheline-pause", Metric::BlockRttNs);
        let rate_ratio = find(rows, 64, "rtrb", Metric::MsgsPerS);
        let valid =
            rtt_ratio.zip(rate_ratio).map(|(rtt, rate)| rtt <= RTT_LIMIT && rate >= RATE_LIMIT);
        Validity { rtt_ratio, rtt_limit: RTT_LIMIT, rate_ratio, rate_limit: RATE_LIMIT, valid }
    }
}

/// What has to be measured for it beside what is measured anyway.
pub(crate) fn missing(contestants: &[Contestant]) -> Vec<Contestant> {
    let halves: [(Scenario, usize, [&str; 2]); 2] = [
        (Scenario::Pingpong, 8, ["floor-ring", "floor-cacheline-pause"]),
        (Scenario::Stream, 64, ["floor-ring", "rtrb"]),
    ];
    let mut missing = Vec::new();
    for (scenario, size, names) in halves {
        let present = |name: &str| {
            contestants
                .iter()
                .any(|c| c.scenario == scenario && c.size == size && c.system.name == name)
        };
        if !names.iter().all(|name| present(name)) {
            let systems = names.iter().filter_map(|name| systems::find(name));
            missing.extend(systems.map(|system| Contestant {
                system,
                scenario,
                parties: Parties::TWO,
                wait: Wait::Spin,
                size,
                latency: CpuLatency::Plain,
            }));
        }
    }
    missing
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.valid {
            Some(true) => "valid",
            Some(false) => "NOT VALID, ratios to it flatter",
            None => "not known, brackets disagreed: take more rounds",
        };
        let ratio = |r: Option<f64>| r.map_or("?".to_string(), |r| format!("{r:.2}"));
        write!(
            f,
            "floor-ring is {verdict}: 8 B round trip {}x of floor-cacheline-pause (at most \
             {RTT_LIMIT}), 64 B rate {}x of rtrb (at least {RATE_LIMIT})",
            ratio(self.rtt_ratio),
            ratio(self.rate_ratio)
        )
    }
}

/// The ratio with most rounds behind it.
fn find(rows: &[Row], size: usize, to: &str, of: Metric) -> Option<f64> {
    let rows = rows.iter().filter(|row| row.system == "floor-ring" && row.size == size);
    let ratios = rows.flat_map(|row| &row.ratios).filter(|r| r.to == to && r.of == of);
    ratios.max_by_key(|ratio| ratio.rounds).map(|ratio| ratio.ratio)
}

//! What machine this is, as far as figures depend on it. Read once, printed with every result.

use crate::clock;
use crate::plan::Jitter;
use serde::Serialize;
use std::fmt;
use std::fs;

/// Stands beside every result: figures without their machine are rumours.
#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    /// CPUs of the first sender and the first receiver; empty when unpinned.
    pub(crate) cpus: Vec<usize>,
    pub(crate) clock_cost_ns: f64,
    pub(crate) clock_step_ns: u64,
    pub(crate) pause_ns: f64,
    /// One entry per CPU used.
    pub(crate) jitter: Vec<Jitter>,
    /// The kernel's one-minute load average before the first round: about 0 on a machine of one's
    /// own.
    pub(crate) load_before: Option<f64>,
    pub(crate) load_after: Option<f64>,
}

impl Host {
    /// Measures the clock on the way: a few milliseconds.
    pub(crate) fn look(cpus: Vec<usize>, jitter: Vec<Jitter>, load_before: Option<f64>) -> Host {
        Host {
            cpu: cpu_model().unwrap_or_else(|| "unknown CPU".into()),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown kernel".into()),
            cpus,
            clock_cost_ns: clock::cost_ns(),
            clock_step_ns: clock::step_ns(),
            pause_ns: clock::pause_ns(),
            jitter,
            load_before,
            load_after: None,
        }
    }
}

/// One-minute load average.
pub(crate) fn load() -> Option<f64> {
    read("/proc/loadavg")?.split(' ').next()?.parse().ok()
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        let pinned = match cpus.as_slice() {
            [] => "unpinned".to_string(),
            some => format!("CPUs {}", some.join(" and ")),
        };
        writeln!(f, "host    {}, Linux {}, {pinned}", self.cpu, self.kernel)?;
        write!(
            f,
            "clock   a reading costs {:.1} ns (in every single trip, a 64th of it in a block), \
             steps of {} ns; a pause takes {:.1} ns",
            self.clock_cost_ns, self.clock_step_ns, self.pause_ns
        )?;
        for jitter in &self.jitter {
            let cpu = jitter.cpu.map_or("any CPU".to_string(), |cpu| format!("CPU {cpu}"));
            write!(
                f,
                "\njitter  {cpu}, idle: {:.0} gaps > 1 us a second, median {:.1} us, longest \
                 {:.1} us, {:.2} % of the time",
                jitter.gaps_per_s,
                jitter.median_gap_ns as f64 / 1e3,
                jitter.max_gap_ns as f64 / 1e3,
                jitter.stolen * 100.0
            )?;
        }
        Ok(())
    }
}

fn cpu_model() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

//! What a run comes to: latency percentiles, throughput, and whether everything arrived. The
//! figures and their text; gathering them never lives here.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use super::news::{Ending, Received, Sent};
use super::tally::latency_histogram;
use super::units::{bytes_per_second, count, duration, rate};

/// All that is known when both children have ended.
pub(super) struct Findings {
    /// What was played; `None` if it couldn't be opened.
    pub(super) source: Option<String>,
    pub(super) sent: Sent,
    pub(super) received: Received,
    /// Each latency in nanoseconds with the number of messages; `None` if the subscriber ended
    /// without a word.
    pub(super) latencies: Option<Vec<(u64, u64)>>,
    /// The subscribers other than the first, of whom the above is.
    pub(super) others: Vec<Other>,
    /// `None` if the publisher ended without a word.
    pub(super) ending: Option<Ending>,
    /// Where the subscriber was to be found, between hosts.
    pub(super) door: Option<SocketAddr>,
    /// How many times the connection was cut, if that was asked for.
    pub(super) cuts: Option<u32>,
    /// The user wished an end.
    pub(super) interrupted: bool,
    /// What went wrong, in words.
    pub(super) problems: Vec<String>,
}

/// What is known of one of several subscribers.
#[derive(Default)]
pub(super) struct Other {
    pub(super) received: Received,
    pub(super) latencies: Option<Vec<(u64, u64)>>,
}

/// What one of several subscribers came to.
#[derive(Debug, Serialize)]
struct OtherReport {
    received: u64,
    received_is_final: bool,
    lost: Option<u64>,
    altered: u64,
    repeated: u64,
    latency: Vec<Percentile>,
}

/// What the user sees at the end, and gets by `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    source: Option<String>,
    address: String,
    ending: Option<Ending>,
    sent: u64,
    /// False if the publisher died: it may have sent more.
    sent_is_final: bool,
    received: u64,
    /// False if the subscriber died: it may have received more.
    received_is_final: bool,
    /// `None` if a process ended before it could tell its final count.
    lost: Option<u64>,
    altered: u64,
    repeated: u64,
    payload_bytes: u64,
    /// From the second message's sending to the last one's receipt.
    streaming_seconds: f64,
    messages_per_second: f64,
    bytes_per_second: f64,
    /// The messages that the percentiles are of: all but the first.
    latency_messages: u64,
    latency: Vec<Percentile>,
    /// The first message's, which may have waited for the ring to be opened.
    opening_ns: u64,
    /// The longest that a message was unsent after the source's pace had it due, which is in no latency:
    /// they begin when the publisher tries to send. `None` at full speed, where nothing is due.
    late_max_ns: Option<u64>,
    depth_max_bytes: u64,
    full_waits: u64,
    /// How many times the connection was cut on purpose, if that was asked for.
    cuts: Option<u32>,
    /// How many times the connection was taken up again, of whatever reason it broke.
    resumes: u64,
    /// Bytes that were sent again then.
    resent_bytes: u64,
    /// Subscribers other than the first, of whom the rest of this is.
    others: Vec<OtherReport>,
    /// Why this run failed; empty if it didn't.
    problems: Vec<String>,
}

/// A one-way latency that so many messages reached.
#[derive(Debug, PartialEq, Serialize)]
struct Percentile {
    name: &'static str,
    latency_ns: u64,
    /// Messages that took as long or longer: a percentile above few messages says little.
    messages_at_or_above: u64,
}

const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

impl Report {
    /// Draws the conclusions.
    pub(super) fn new(address: String, findings: Findings) -> Self {
        let Findings { source, sent, received, latencies, others, ending, cuts, .. } = findings;
        let mut problems = findings.problems;
        let (sent_is_final, received_is_final) = (ending.is_some(), latencies.is_some());
        let is_final = sent_is_final && received_is_final;
        let (latency_messages, latency) = percentiles(latencies.unwrap_or_default());
        let lost = judge(&sent, &received, is_final, "", &mut problems);
        let others = others.into_iter().zip(2..).map(|(other, number)| {
            let received_is_final = other.latencies.is_some();
            let is_final = sent_is_final && received_is_final;
            let who = format!("subscriber {number}: ");
            let Received { received, altered, repeated, .. } = other.received;
            let lost = judge(&sent, &other.received, is_final, &who, &mut problems);
            let (_, latency) = percentiles(other.latencies.unwrap_or_default());
            OtherReport { received, received_is_final, lost, altered, repeated, latency }
        });
        let others = others.collect();

        let streaming_ns = received.last_received_ns.saturating_sub(received.first_sent_ns);
        let streaming_seconds = if latency_messages == 0 { 0.0 } else { streaming_ns as f64 / 1e9 };
        let per_second =
            |amount: u64| if streaming_ns == 0 { 0.0 } else { amount as f64 / streaming_seconds };
        Self {
            source,
            address,
            ending,
            sent: sent.sent,
            sent_is_final,
            received: received.received,
            received_is_final,
            lost,
            altered: received.altered,
            repeated: received.repeated,
            payload_bytes: received.bytes,
            streaming_seconds,
            messages_per_second: per_second(latency_messages),
            bytes_per_second: per_second(received.bytes),
            latency_messages,
            latency,
            opening_ns: received.opening_ns,
            late_max_ns: sent.late_max_ns,
            depth_max_bytes: sent.depth_max_bytes,
            full_waits: sent.full_waits,
            cuts,
            resumes: sent.resumes,
            resent_bytes: sent.resent_bytes,
            others,
            problems,
        }
    }

    /// Why the run failed; empty if everything that was sent came, once and unaltered.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// Notes what is wrong with what one subscriber received. How much it lost, if that is known.
fn judge(
    sent: &Sent,
    received: &Received,
    is_final: bool,
    who: &str,
    problems: &mut Vec<String>,
) -> Option<u64> {
    let distinct = received.received.saturating_sub(received.repeated);
    let lost = is_final.then(|| sent.sent.saturating_sub(distinct));
    if lost.is_none() {
        problems.push(format!("{who}how many messages were lost is unknown"));
    }
    let invented = if is_final { distinct.saturating_sub(sent.sent) } else { 0 };
    for (what, messages) in [
        ("messages lost", lost.unwrap_or(0)),
        ("messages that nobody sent", invented),
        ("messages missing in the sequence", received.missing),
        ("messages received again", received.repeated),
        ("messages altered", received.altered),
    ] {
        if messages > 0 {
            problems.push(format!("{who}{what}: {}", count(messages)));
        }
    }
    lost
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.latency_messages > 0 {
            let messages = count(self.latency_messages);
            writeln!(out, "one-way latency of {messages} messages")?;
            for Percentile { name, latency_ns, messages_at_or_above } in &self.latency {
                let (value, above) = (duration(*latency_ns), count(*messages_at_or_above));
                writeln!(out, "  {name:<7} {value:>9}   {above:>13} at or above")?;
            }
            writeln!(
                out,
                "  first   {:>9}   not in the above: it may wait for the other end to be ready",
                duration(self.opening_ns)
            )?;
            if let Some(late_ns) = self.late_max_ns {
                writeln!(
                    out,
                    "  late    {:>9}   not in the above: the longest that a message was due and not yet sent",
                    duration(late_ns)
                )?;
            }
            writeln!(
                out,
                "throughput  {} messages/s, {} over {}",
                rate(self.messages_per_second),
                bytes_per_second(self.bytes_per_second),
                duration((self.streaming_seconds * 1e9) as u64)
            )?;
        }
        let lost = self.lost.map_or("unknown".into(), count);
        let at_least = |number, is_final| {
            if is_final { count(number) } else { format!("at least {}", count(number)) }
        };
        writeln!(
            out,
            "messages    sent {}, received {}, lost {lost}, altered {}, repeated {}; the first \
             included",
            at_least(self.sent, self.sent_is_final),
            at_least(self.received, self.received_is_final),
            count(self.altered),
            count(self.repeated)
        )?;
        for (other, number) in self.others.iter().zip(2..) {
            let lost = other.lost.map_or("unknown".into(), count);
            let received = at_least(other.received, other.received_is_final);
            write!(out, "subscriber {number} received {received}, lost {lost}")?;
            for Percentile { name, latency_ns, .. } in &other.latency {
                write!(out, ", {name} {}", duration(*latency_ns))?;
            }
            writeln!(out)?;
        }
        write!(out, "ring        full {} times", count(self.full_waits))?;
        if self.depth_max_bytes > 0 {
            // The sender looks only when it seems to run out of room: 0 says nothing.
            write!(
                out,
                ", at most {} bytes deep when the sender looked",
                count(self.depth_max_bytes)
            )?;
        }
        writeln!(out)?;
        if self.cuts.is_some() || self.resumes > 0 {
            writeln!(
                out,
                "connection  cut {} times, taken up again {} times, {} bytes sent again",
                count(self.cuts.unwrap_or(0).into()),
                count(self.resumes),
                count(self.resent_bytes)
            )?;
        }
        let ending = match self.ending {
            Some(Ending::SourceOver) => "the source was over",
            Some(Ending::TimeOver) => "the time was over",
            Some(Ending::Stopped) => "it was interrupted",
            None => "the publisher failed",
        };
        writeln!(out, "ended       because {ending}")
    }
}

/// The percentiles of several reports beside each other, under a name for each.
pub(super) struct SideBySide<'a>(pub(super) &'a [(&'static str, Report)]);

impl fmt::Display for SideBySide<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<9}", "")?;
        for (name, _) in self.0 {
            write!(out, " {name:>18}")?;
        }
        writeln!(out)?;
        for (name, _) in QUANTILES {
            write!(out, "  {name:<7}")?;
            for (_, report) in self.0 {
                let row = report.latency.iter().find(|row| row.name == name);
                let shown = row.map_or("-".into(), |row| duration(row.latency_ns));
                write!(out, " {shown:>18}")?;
            }
            writeln!(out)?;
        }
        write!(out, "  {:<7}", "late")?;
        for (_, report) in self.0 {
            write!(out, " {:>18}", report.late_max_ns.map_or("-".into(), duration))?;
        }
        writeln!(out)?;
        write!(out, "{:<9}", "lost")?;
        for (_, report) in self.0 {
            write!(out, " {:>18}", report.lost.map_or("unknown".into(), count))?;
        }
        writeln!(out)
    }
}

/// The number of messages, and their percentiles.
fn percentiles(latencies: Vec<(u64, u64)>) -> (u64, Vec<Percentile>) {
    let mut histogram = latency_histogram();
    for (latency_ns, messages) in latencies {
        histogram.saturating_record_n(latency_ns, messages);
    }
    if histogram.is_empty() {
        return (0, Vec::new());
    }
    let percentile = |(name, quantile)| {
        let latency_ns = histogram.value_at_quantile(quantile);
        let messages_at_or_above = histogram.count_between(latency_ns, histogram.max());
        Percentile { name, latency_ns, messages_at_or_above }
    };
    (histogram.len(), QUANTILES.map(percentile).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Findings {
        Findings {
            source: Some("a test".into()),
            sent: Sent { sent: 10_001, late_max_ns: Some(40_000_000), ..Sent::default() },
            received: Received {
                received: 10_001,
                bytes: 2_000_000,
                first_sent_ns: 1_000_000_000,
                last_received_ns: 3_000_000_000,
                opening_ns: 250_000,
                ..Received::default()
            },
            latencies: Some(vec![(100, 9_000), (200, 900), (1_000, 90), (2_000, 9), (900_000, 1)]),
            others: Vec::new(),
            ending: Some(Ending::TimeOver),
            door: None,
            cuts: None,
            interrupted: false,
            problems: Vec::new(),
        }
    }

    fn problems(findings: Findings) -> String {
        Report::new("shm://test".into(), findings).problems.join("; ")
    }

    #[test]
    fn percentiles_come_with_the_messages_behind_them() {
        let report = Report::new("shm://test".into(), good());
        let rows: Vec<_> = report
            .latency
            .iter()
            .map(|row| (row.name, row.latency_ns / 100 * 100, row.messages_at_or_above))
            .collect();
        assert_eq!(
            rows,
            [
                ("p50", 100, 10_000),
                ("p90", 100, 10_000),
                ("p99", 200, 1_000),
                ("p99.9", 1_000, 100),
                ("p99.99", 2_000, 10),
                ("max", 900_000, 1)
            ]
        );
    }

    #[test]
    fn a_good_run_has_no_problems_and_says_all() {
        let report = Report::new("shm://test".into(), good());
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let text = report.to_string();
        for part in [
            "one-way latency of 10,000 messages",
            "p99.99",
            "250 µs",
            "late      40.0 ms   not in the above",
            "5,000 messages/s, 1.00 MB/s over 2.00 s",
            "sent 10,001, received 10,001, lost 0, altered 0",
            "because the time was over",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn loss_alteration_and_repetition_are_problems() {
        let mut findings = good();
        findings.received.received -= 2;
        assert_eq!(problems(findings), "messages lost: 2");

        let mut findings = good();
        findings.received.altered = 1;
        assert_eq!(problems(findings), "messages altered: 1");

        let mut findings = good();
        findings.received.received += 3;
        findings.received.repeated = 3;
        assert_eq!(problems(findings), "messages received again: 3");

        let mut findings = good();
        findings.received.received += 1;
        assert_eq!(problems(findings), "messages that nobody sent: 1");

        // As many as were sent, but not the same: one skipped, one invented.
        let mut findings = good();
        findings.received.missing = 1;
        assert_eq!(problems(findings), "messages missing in the sequence: 1");
    }

    #[test]
    fn every_subscriber_is_judged() {
        let other = |received| Other {
            received: Received { received, ..Received::default() },
            latencies: Some(vec![(100, 5)]),
        };
        let findings = Findings { others: vec![other(10_001), other(9_999)], ..good() };
        let report = Report::new("shm://test".into(), findings);
        assert_eq!(report.problems, ["subscriber 3: messages lost: 2"]);
        let text = report.to_string();
        assert!(text.contains("subscriber 2 received 10,001, lost 0, p50 100 ns"), "{text}");
    }

    #[test]
    fn a_process_that_ended_without_a_word_leaves_the_loss_unknown() {
        for findings in
            [Findings { ending: None, ..good() }, Findings { latencies: None, ..good() }]
        {
            let report = Report::new("shm://test".into(), findings);
            assert_eq!(report.lost, None);
            assert_eq!(report.problems.len(), 1);
            let text = report.to_string();
            assert!(text.contains("lost unknown") && text.contains("at least 10,001"), "{text}");
        }
    }

    #[test]
    fn a_run_that_sent_nothing_has_a_text_too() {
        let findings = Findings {
            source: Some("a test".into()),
            sent: Sent { late_max_ns: Some(0), ..Sent::default() },
            received: Received::default(),
            latencies: Some(Vec::new()),
            others: Vec::new(),
            ending: Some(Ending::Stopped),
            door: None,
            cuts: None,
            interrupted: true,
            problems: Vec::new(),
        };
        let report = Report::new("shm://test".into(), findings);
        assert!(report.problems.is_empty());
        assert!(report.to_string().starts_with("messages    sent 0, received 0, lost 0"));
        assert!(
            !serde_json::to_string(&report).unwrap().replace("\"cuts\":null", "").contains("null")
        );
    }

    #[test]
    fn cuts_are_told_and_no_problem() {
        let mut findings = Findings { cuts: Some(10), ..good() };
        findings.sent.resumes = 10;
        findings.sent.resent_bytes = 4_096;
        let report = Report::new("tcp://test".into(), findings);
        assert!(report.problems.is_empty());
        let text = report.to_string();
        let line = "connection  cut 10 times, taken up again 10 times, 4,096 bytes sent again";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn two_paths_stand_side_by_side() {
        let mut slow = good();
        slow.latencies = Some(vec![(24_000, 10_000)]);
        slow.sent.late_max_ns = None;
        let reports = [("shared memory", good()), ("tcp", slow)]
            .map(|(name, findings)| (name, Report::new("test".into(), findings)));
        let text = SideBySide(&reports).to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect())
            .collect();
        assert_eq!(lines[0], ["shared memory", "tcp"]);
        assert_eq!(lines[1], ["p50", "100 ns", "24.0 µs"]);
        assert_eq!(lines[7], ["late", "40.0 ms", "-"]);
        assert_eq!(lines.last().unwrap()[..], ["lost", "0", "0"]);
    }
}

//! The texts under `/proc`: each function reads one file's format into readings. A line that it
//! doesn't know is left out, since kernels add lines. Opening files never lives here.

use super::message::{Body, Cpu, Interface, Interrupt, Kernel, Schedule};

/// `/proc/stat`: one [`Cpu`] per `cpu` line and one [`Kernel`] for the counters below them.
pub(super) fn stat(text: &str, out: &mut Vec<Body>) {
    let mut kernel = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        if name.starts_with("cpu") {
            if let Some([user, nice, system, idle, iowait, irq, softirq, steal]) = numbers(words) {
                let name = name.to_string();
                out.push(Body::Cpu(Cpu {
                    name,
                    user,
                    nice,
                    system,
                    idle,
                    iowait,
                    irq,
                    softirq,
                    steal,
                }));
            }
        } else if let Some([total]) = numbers(words) {
            let kernel = kernel.get_or_insert_with(Kernel::default);
            match name {
                "intr" => kernel.interrupts = total,
                "ctxt" => kernel.context_switches = total,
                "processes" => kernel.forks = total,
                "softirq" => kernel.softirqs = total,
                "procs_running" => kernel.procs_running = total,
                "procs_blocked" => kernel.procs_blocked = total,
                _ => {}
            }
        }
    }
    out.extend(kernel.map(Body::Kernel));
}

/// `/proc/net/dev`: one [`Interface`] per interface.
pub(super) fn net_dev(text: &str, out: &mut Vec<Body>) {
    for line in text.lines() {
        // From the right: the name of an alias has a colon of its own.
        let Some((name, counters)) = line.rsplit_once(':') else { continue };
        // Eight columns received, eight sent; the ones between are of kinds that few links have.
        let Some(columns) = numbers::<12>(counters.split_ascii_whitespace()) else { continue };
        let [
            received_bytes,
            received_packets,
            received_errors,
            received_drops,
            _,
            _,
            _,
            _,
            sent_bytes,
            sent_packets,
            sent_errors,
            sent_drops,
        ] = columns;
        out.push(Body::Interface(Interface {
            name: name.trim().to_string(),
            received_bytes,
            received_packets,
            received_errors,
            received_drops,
            sent_bytes,
            sent_packets,
            sent_errors,
            sent_drops,
        }));
    }
}

/// `/proc/schedstat`: one [`Schedule`] per CPU. Its last three columns are the same in all
/// versions of the format.
pub(super) fn schedstat(text: &str, out: &mut Vec<Body>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next().filter(|name| name.starts_with("cpu")) else { continue };
        let Some([_, _, _, _, _, _, running_ns, waiting_ns, timeslices]) = numbers(words) else {
            continue;
        };
        let name = name.to_string();
        out.push(Body::Schedule(Schedule { name, running_ns, waiting_ns, timeslices }));
    }
}

/// `/proc/interrupts`: one [`Interrupt`] per line.
pub(super) fn interrupts(text: &str, out: &mut Vec<Body>) {
    let mut lines = text.lines();
    // The heading has a word per CPU. Counting them keeps a number that begins a description
    // from being taken for a count.
    let cpus = lines.next().unwrap_or_default().split_ascii_whitespace().count();
    for line in lines {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let counts = rest.split_ascii_whitespace().take(cpus).map_while(|word| word.parse().ok());
        let (columns, count) = counts
            .fold((0, 0_u64), |(columns, sum), count: u64| (columns + 1, sum.wrapping_add(count)));
        if columns > 0 {
            out.push(Body::Interrupt(Interrupt { line: name.trim().to_string(), count }));
        }
    }
}

/// The first `N` words as numbers; `None` if there are fewer, or one is no number.
fn numbers<'a, const N: usize>(mut words: impl Iterator<Item = &'a str>) -> Option<[u64; N]> {
    let mut out = [0; N];
    for number in &mut out {
        *number = words.next()?.parse().ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parser: fn(&str, &mut Vec<Body>), text: &str) -> Vec<Body> {
        let mut out = Vec::new();
        parser(text, &mut out);
        out
    }

    #[test]
    fn stat_gives_cpus_and_totals() {
        let text = "cpu  10 20 30 40 50 60 70 80 0 0\n\
            cpu1 1 2 3 4 5 6 7 8 9 10\n\
            cpu2 1 2 3\n\
            intr 900 1 2 3\n\
            ctxt 800\n\
            btime 1700000000\n\
            processes 700\n\
            procs_running 2\n\
            procs_blocked 1\n\
            softirq 600 5 5\n\
            novelty a b\n";
        let found = read(stat, text);
        assert_eq!(found.len(), 3);
        let Body::Cpu(sum) = &found[0] else { panic!("{found:?}") };
        assert_eq!((sum.name.as_str(), sum.user, sum.steal), ("cpu", 10, 80));
        let Body::Cpu(one) = &found[1] else { panic!("{found:?}") };
        assert_eq!(
            *one,
            Cpu {
                name: "cpu1".into(),
                user: 1,
                nice: 2,
                system: 3,
                idle: 4,
                iowait: 5,
                irq: 6,
                softirq: 7,
                steal: 8
            }
        );
        assert_eq!(
            found[2],
            Body::Kernel(Kernel {
                interrupts: 900,
                context_switches: 800,
                forks: 700,
                softirqs: 600,
                procs_running: 2,
                procs_blocked: 1
            })
        );
    }

    #[test]
    fn net_dev_gives_interfaces() {
        let text = "Inter-|   Receive                    |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n\
            \x20   lo:    100       2    0    0    0     0          0         0      100       2 0 0 0 0 0 0\n\
            eth0:1:18446744073709551615 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n\
            short: 1 2 3\n";
        let found = read(net_dev, text);
        assert_eq!(found.len(), 2, "{found:?}");
        let Body::Interface(lo) = &found[0] else { panic!("{found:?}") };
        assert_eq!((lo.name.as_str(), lo.received_bytes, lo.sent_packets), ("lo", 100, 2));
        assert_eq!(
            found[1],
            Body::Interface(Interface {
                name: "eth0:1".into(),
                received_bytes: u64::MAX,
                received_packets: 3,
                received_errors: 4,
                received_drops: 5,
                sent_bytes: 10,
                sent_packets: 11,
                sent_errors: 12,
                sent_drops: 13,
            })
        );
    }

    #[test]
    fn schedstat_gives_the_last_three_columns() {
        let text = "version 15\n\
            timestamp 4295000000\n\
            cpu0 0 0 0 0 0 0 111 222 333\n\
            domain0 3 1 2 3\n\
            cpu1 0 0\n";
        assert_eq!(
            read(schedstat, text),
            [Body::Schedule(Schedule {
                name: "cpu0".into(),
                running_ns: 111,
                waiting_ns: 222,
                timeslices: 333
            })]
        );
    }

    #[test]
    fn interrupts_are_summed_over_cpus() {
        let text = "           CPU0       CPU1\n \
            24:          1          2  IO-APIC   5-edge      ACPI:Ged\n\
            NMI:         10         20   Non-maskable interrupts\n\
            ODD:          5          6  7 is part of the description\n\
            ERR:          3\n\
            nothing:\n";
        let interrupt = |line: &str, count| Body::Interrupt(Interrupt { line: line.into(), count });
        assert_eq!(
            read(interrupts, text),
            [interrupt("24", 3), interrupt("NMI", 30), interrupt("ODD", 11), interrupt("ERR", 3)]
        );
    }

    #[test]
    fn an_empty_or_strange_text_gives_nothing() {
        for parser in [stat, net_dev, schedstat, interrupts] {
            for text in ["", "\n\n", ":", "cpu", "cpu x", "\u{fffd}: \u{fffd}"] {
                assert_eq!(read(parser, text), []);
            }
        }
    }
}

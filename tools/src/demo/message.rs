//! What the demo sends: one numbered, stamped, checksummed message around a typed reading or a
//! line of a feed. Where readings come from never lives here.

use std::hash::{Hash, Hasher};

use crc32c::Crc32cHasher;
use ringway::{Describe, rkyv};

/// One message of the stream.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
pub(super) struct Message {
    /// 0, 1, 2 … without gaps.
    pub(super) sequence: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds, just before the first attempt to send.
    pub(super) sent_ns: u64,
    /// CRC-32C over everything else.
    checksum: u32,
    pub(super) body: Body,
}

/// What a message carries.
// Both enums, this one and its archive, have a one-byte discriminant, so both hash alike.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
#[repr(u8)]
pub(super) enum Body {
    /// The first message: its arrival shows that the subscriber has the ring open.
    Begin(Begin),
    Cpu(Cpu),
    Kernel(Kernel),
    Interface(Interface),
    Schedule(Schedule),
    Interrupt(Interrupt),
    Feed(FeedLine),
}

/// Who publishes, and what.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct Begin {
    pub(super) pid: u32,
    pub(super) source: String,
}

/// A `cpu` line of `/proc/stat`: ticks of 1/100 s, usually, since boot.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct Cpu {
    /// `cpu` for the sum, else `cpu0`, `cpu1` …
    pub(super) name: String,
    pub(super) user: u64,
    pub(super) nice: u64,
    pub(super) system: u64,
    pub(super) idle: u64,
    pub(super) iowait: u64,
    pub(super) irq: u64,
    pub(super) softirq: u64,
    pub(super) steal: u64,
}

/// The host-wide counters of `/proc/stat`, since boot, and the two gauges beside them.
#[derive(Clone, Debug, Default, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct Kernel {
    pub(super) interrupts: u64,
    pub(super) context_switches: u64,
    pub(super) forks: u64,
    pub(super) softirqs: u64,
    pub(super) procs_running: u64,
    pub(super) procs_blocked: u64,
}

/// A line of `/proc/net/dev`: totals since the interface came up.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) received_bytes: u64,
    pub(super) received_packets: u64,
    pub(super) received_errors: u64,
    pub(super) received_drops: u64,
    pub(super) sent_bytes: u64,
    pub(super) sent_packets: u64,
    pub(super) sent_errors: u64,
    pub(super) sent_drops: u64,
}

/// A `cpu` line of `/proc/schedstat`: totals since boot.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct Schedule {
    pub(super) name: String,
    pub(super) running_ns: u64,
    pub(super) waiting_ns: u64,
    pub(super) timeslices: u64,
}

/// A line of `/proc/interrupts`, summed over the CPUs, since boot.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct Interrupt {
    /// A number, or a name such as `NMI`.
    pub(super) line: String,
    pub(super) count: u64,
}

/// A line of a recorded feed.
#[derive(Clone, Debug, PartialEq, Hash, rkyv::Archive, rkyv::Serialize, Describe)]
#[rkyv(crate = ringway::rkyv, derive(Hash))]
pub(super) struct FeedLine {
    /// When it was recorded: nanoseconds since 1970.
    pub(super) recorded_ns: u64,
    pub(super) json: String,
}

impl Message {
    /// A message that lacks only its time: see [`Message::stamp`].
    pub(super) fn new(sequence: u64, body: Body) -> Self {
        let checksum = content_checksum(sequence, &body);
        Self { sequence, sent_ns: 0, checksum, body }
    }

    /// Adds the time of sending. Cheap whatever the body's size, so that the checksum of a long
    /// body doesn't count as latency. To be called once.
    pub(super) fn stamp(&mut self, now_ns: u64) {
        self.sent_ns = now_ns;
        self.checksum = with_time(self.checksum, now_ns);
    }
}

impl ArchivedMessage {
    /// Whether the checksum fits the content.
    pub(super) fn is_intact(&self) -> bool {
        let content = content_checksum(self.sequence.to_native(), &self.body);
        with_time(content, self.sent_ns.to_native()) == self.checksum.to_native()
    }
}

/// The same for a body and its archive, since each field hashes like its archive.
fn content_checksum(sequence: u64, body: &impl Hash) -> u32 {
    let mut hasher = Crc32cHasher::new(0);
    hasher.write_u64(sequence);
    body.hash(&mut hasher);
    hasher.finish() as u32
}

fn with_time(checksum: u32, sent_ns: u64) -> u32 {
    let mut hasher = Crc32cHasher::new(checksum);
    hasher.write_u64(sent_ns);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use rkyv::rancor::Error;
    use rkyv::util::AlignedVec;

    use super::*;

    fn one_of_each() -> Vec<Body> {
        let name = "a name that is too long to be stored inline".to_string();
        vec![
            Body::Begin(Begin { pid: 7, source: name.clone() }),
            Body::Cpu(Cpu {
                name: "cpu0".into(),
                user: 1,
                nice: 2,
                system: 3,
                idle: 4,
                iowait: 5,
                irq: 6,
                softirq: 7,
                steal: u64::MAX,
            }),
            Body::Kernel(Kernel { forks: 9, ..Kernel::default() }),
            Body::Interface(Interface {
                name,
                received_bytes: 1,
                received_packets: 2,
                received_errors: 3,
                received_drops: 4,
                sent_bytes: 5,
                sent_packets: 6,
                sent_errors: 7,
                sent_drops: 8,
            }),
            Body::Schedule(Schedule {
                name: "cpu1".into(),
                running_ns: 1,
                waiting_ns: 2,
                timeslices: 3,
            }),
            Body::Interrupt(Interrupt { line: "NMI".into(), count: 4 }),
            Body::Feed(FeedLine { recorded_ns: 5, json: "{}".into() }),
        ]
    }

    fn archive(sequence: u64, body: Body) -> AlignedVec {
        let mut message = Message::new(sequence, body);
        message.stamp(123_456_789);
        rkyv::to_bytes::<Error>(&message).unwrap()
    }

    fn is_intact(bytes: &[u8]) -> bool {
        rkyv::access::<ArchivedMessage, Error>(bytes).unwrap().is_intact()
    }

    #[test]
    fn every_body_is_intact_in_its_archive() {
        for (sequence, body) in one_of_each().into_iter().enumerate() {
            let shown = format!("{body:?}");
            assert!(is_intact(&archive(sequence as u64, body)), "{shown}");
        }
    }

    #[test]
    fn each_part_of_a_message_is_under_the_checksum() {
        let line =
            |recorded_ns, json: &str| Body::Feed(FeedLine { recorded_ns, json: json.into() });
        let sealed = |sequence, body, now_ns| {
            let mut message = Message::new(sequence, body);
            message.stamp(now_ns);
            message.checksum
        };
        let right = sealed(1, line(2, "{}"), 3);
        for wrong in [
            sealed(2, line(2, "{}"), 3),
            sealed(1, line(3, "{}"), 3),
            sealed(1, line(2, "[]"), 3),
            sealed(1, line(2, "{}"), 4),
        ] {
            assert_ne!(right, wrong);
        }
    }

    #[test]
    fn an_altered_text_is_noticed() {
        let text = "{\"price\": \"0.00621336\", \"size\": \"2.63300000\"}";
        let mut bytes = archive(1, Body::Feed(FeedLine { recorded_ns: 5, json: text.into() }));
        assert!(is_intact(&bytes));
        let at = bytes.windows(5).position(|seen| seen == b"price").unwrap();
        bytes[at] = b'P';
        assert!(!is_intact(&bytes));
    }
}

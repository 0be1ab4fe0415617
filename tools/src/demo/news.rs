//! What the children tell the parent, one JSON object a line on their standard output. What the
//! parent makes of it never lives here.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How often a child tells how far it is, in nanoseconds.
pub(super) const PROGRESS_EVERY_NS: u64 = 200_000_000;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// The subscriber has the channel open, and between hosts listens there.
    Ready { listens: Option<SocketAddr> },
    /// The publisher has its source open; `notes` tell what of it is left out.
    Playing { source: String, notes: Vec<String> },
    /// How far the publisher is.
    Sent(Sent),
    /// How far the subscriber is.
    Received(Received),
    /// The publisher has closed the stream; the last [`News::Sent`] is final.
    Published { ending: Ending },
    /// The stream ended; the last [`News::Received`] is final. Latencies as (ns, messages).
    Subscribed { latencies: Vec<(u64, u64)> },
    /// The child gives up.
    Failed { problem: String },
}

/// The publisher's counters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) sent: u64,
    /// Messages in the ring now.
    pub(super) depth: u64,
    /// Most bytes that were in the ring, with headers and padding.
    pub(super) depth_max_bytes: u64,
    /// How many times the ring was full.
    pub(super) full_waits: u64,
    /// How many times the connection was taken up again, if there is one.
    pub(super) resumes: u64,
    /// Bytes that were sent again then.
    pub(super) resent_bytes: u64,
    /// The longest that a message was unsent after it was due; `None` at full speed, where none is.
    pub(super) late_max_ns: Option<u64>,
}

/// The subscriber's counters. Latencies, but for the first message's, leave that one out.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) received: u64,
    /// Bytes of them, as serialised.
    pub(super) bytes: u64,
    /// Messages that a jump of the sequence passed over.
    pub(super) missing: u64,
    /// Messages whose sequence had come before.
    pub(super) repeated: u64,
    /// Messages whose checksum doesn't fit.
    pub(super) altered: u64,
    /// When it counted: `CLOCK_MONOTONIC`, as the other times here.
    pub(super) at_ns: u64,
    /// When the second message was sent: the first whose way is a steady state's.
    pub(super) first_sent_ns: u64,
    pub(super) last_received_ns: u64,
    /// The first message's latency, in which the ring may have been opened.
    pub(super) opening_ns: u64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
}

/// Why the publisher closed the stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// The source has no more.
    SourceOver,
    /// `--seconds` are over.
    TimeOver,
    /// The parent wished so.
    Stopped,
}

/// The way to the parent.
pub(super) struct Line<W: Write> {
    out: W,
    lost: bool,
}

impl<W: Write> Line<W> {
    /// News to `out`.
    pub(super) fn new(out: W) -> Self {
        Self { out, lost: false }
    }

    /// Tells it, at once. A parent that is gone is no reason to stop half-way: see
    /// [`Line::is_lost`].
    pub(super) fn tell(&mut self, news: &News) {
        let told = serde_json::to_string(news)
            .map_err(io::Error::from)
            .and_then(|text| writeln!(self.out, "{text}"))
            .and_then(|()| self.out.flush());
        self.lost |= told.is_err();
    }

    /// True once something couldn't be told: nobody is there to hear.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let mut text = Vec::new();
        let mut line = Line::new(&mut text);
        line.tell(&News::Ready { listens: Some(([127, 0, 0, 1], 7000).into()) });
        line.tell(&News::Sent(Sent { sent: u64::MAX, ..Sent::default() }));
        line.tell(&News::Subscribed { latencies: vec![(120, 3), (u64::MAX, 1)] });
        line.tell(&News::Failed { problem: "two\nlines".into() });
        assert!(!line.is_lost());

        let text = String::from_utf8(text).unwrap();
        let heard: Vec<News> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [
            News::Ready { listens: Some(listens) },
            News::Sent(sent),
            News::Subscribed { latencies },
            News::Failed { problem },
        ] = &heard[..]
        else {
            panic!("{heard:?}")
        };
        assert_eq!(listens.port(), 7000);
        assert_eq!(sent.sent, u64::MAX);
        assert_eq!(latencies, &[(120, 3), (u64::MAX, 1)]);
        assert_eq!(problem, "two\nlines");
    }

    #[test]
    fn a_parent_that_is_gone_is_noticed() {
        let (read, write) = io::pipe().unwrap();
        let mut line = Line::new(write);
        drop(read);
        line.tell(&News::Ready { listens: None });
        assert!(line.is_lost());
    }
}

//! The options of a test's channel, and how they travel to a peer.

use std::path::PathBuf;

use ringway_shm::{Kind, Options, Overflow, Schema, Wait};

use super::scratch::Scratch;

/// A channel `name` in the test's directory: one page of ring, so that it wraps and fills soon.
pub fn options(scratch: &Scratch, name: &str, wait: Wait) -> Options {
    Options {
        directory: Some(scratch.channels()),
        capacity: Some(4096),
        record_align: Some(16),
        wait: Some(wait),
        ..Options::new(name, schema())
    }
}

/// The same, as a broadcast.
pub fn broadcast(scratch: &Scratch, name: &str, wait: Wait, overflow: Overflow) -> Options {
    Options {
        kind: Some(Kind::Broadcast),
        overflow: Some(overflow),
        ..options(scratch, name, wait)
    }
}

/// What all tests send.
pub fn schema() -> Schema {
    Schema {
        fingerprint: 0x5eed,
        text: "incarnation u64\nindex u64\nsum u64\nrest [u8]\n".into(),
        payload_align: 8,
    }
}

/// As one word; [`decode`] undoes it. Every option must be given.
pub fn encode(options: &Options) -> String {
    let directory = options.directory.as_ref().unwrap().to_str().unwrap();
    let (capacity, align) = (options.capacity.unwrap(), options.record_align.unwrap());
    let kind = match (options.kind, options.overflow) {
        (None, _) => "-".into(),
        (Some(kind), None) => format!("{kind}"),
        (Some(kind), Some(overflow)) => format!("{kind}+{overflow}"),
    };
    format!("{},{directory},{capacity},{align},{},{kind}", options.name, options.wait.unwrap())
}

/// What [`encode`] was given, with the tests' own schema.
pub fn decode(text: &str) -> Options {
    let parts: Vec<&str> = text.split(',').collect();
    let [name, directory, capacity, align, wait, kind] = parts[..] else {
        panic!("options {text:?}")
    };
    Options {
        directory: Some(PathBuf::from(directory)),
        capacity: Some(capacity.parse().unwrap()),
        record_align: Some(align.parse().unwrap()),
        wait: Some(wait.parse().unwrap()),
        kind: kind.starts_with("broadcast").then_some(Kind::Broadcast),
        overflow: Overflow::ALL.into_iter().find(|overflow| kind.ends_with(overflow.name())),
        ..Options::new(name, schema())
    }
}

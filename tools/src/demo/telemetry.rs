//! This host's live telemetry as a source: samples a few files of `/proc` at a steady pace. Their
//! formats never live here, see `proc_text`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use super::message::Body;
use super::proc_text;
use super::source::Source;

/// The pace at speed 1.
const SAMPLE_EVERY_NS: u64 = 10_000_000;

type Parser = fn(&str, &mut Vec<Body>);

const FILES: [(&str, Parser); 4] = [
    ("stat", proc_text::stat),
    ("net/dev", proc_text::net_dev),
    ("schedstat", proc_text::schedstat),
    ("interrupts", proc_text::interrupts),
];

/// The files that this host has, kept open, and the readings of the last sample not yet taken.
pub(super) struct Telemetry {
    probes: Vec<Probe>,
    skipped: Vec<String>,
    samples: u64,
    pending: VecDeque<Body>,
    /// Kept for its room.
    text: String,
}

struct Probe {
    path: PathBuf,
    file: File,
    parser: Parser,
}

impl Telemetry {
    /// Opens what there is below `root`, which is `/proc` outside tests. Fails only if there is
    /// nothing to read at all.
    pub(super) fn open(root: &Path) -> Result<Self, String> {
        let mut probes = Vec::new();
        let mut skipped = Vec::new();
        let mut text = String::new();
        for (name, parser) in FILES {
            let path = root.join(name);
            match Probe::open(path.clone(), parser, &mut text) {
                Ok(probe) => probes.push(probe),
                Err(error) => skipped.push(format!("{}: {error}", path.display())),
            }
        }
        if probes.is_empty() {
            return Err(format!(
                "no telemetry to stream ({}): play a recorded feed with --feed FILE instead",
                skipped.join("; ")
            ));
        }
        Ok(Self { probes, skipped, samples: 0, pending: VecDeque::new(), text })
    }

    /// The files left out, each with the reason.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }
}

impl Source for Telemetry {
    fn due_ns(&self) -> Option<u64> {
        let sample =
            if self.pending.is_empty() { self.samples } else { self.samples.saturating_sub(1) };
        Some(sample.saturating_mul(SAMPLE_EVERY_NS))
    }

    fn take(&mut self) -> Result<Option<Body>, String> {
        if self.pending.is_empty() {
            let mut readings = Vec::from(std::mem::take(&mut self.pending));
            for probe in &mut self.probes {
                probe.sample(&mut self.text, &mut readings)?;
            }
            self.pending = readings.into();
            self.samples += 1;
        }
        Ok(self.pending.pop_front())
    }
}

impl Probe {
    /// Opens the file and shows that it has readings.
    fn open(path: PathBuf, parser: Parser, text: &mut String) -> Result<Self, String> {
        let file = File::open(&path).map_err(|error| error.to_string())?;
        let mut probe = Self { path, file, parser };
        let mut readings = Vec::new();
        probe.sample(text, &mut readings)?;
        if readings.is_empty() { Err("no readings in it".into()) } else { Ok(probe) }
    }

    fn sample(&mut self, text: &mut String, readings: &mut Vec<Body>) -> Result<(), String> {
        text.clear();
        self.file
            .rewind()
            .and_then(|()| self.file.read_to_string(text))
            .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        (self.parser)(text, readings);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("ringway-telemetry-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_sample_is_read_anew_and_paced() {
        let root = Scratch::new("paced");
        fs::write(root.0.join("stat"), "cpu 1 2 3 4 5 6 7 8\nctxt 1\n").unwrap();
        let mut telemetry = Telemetry::open(&root.0).unwrap();
        assert_eq!(telemetry.skipped().len(), 3);
        assert!(telemetry.skipped()[0].contains("net/dev: "), "{:?}", telemetry.skipped());

        assert_eq!(telemetry.due_ns(), Some(0));
        assert!(matches!(telemetry.take().unwrap(), Some(Body::Cpu(_))));
        assert_eq!(telemetry.due_ns(), Some(0));
        assert!(matches!(telemetry.take().unwrap(), Some(Body::Kernel(_))));

        fs::write(root.0.join("stat"), "cpu 9 2 3 4 5 6 7 8\n").unwrap();
        assert_eq!(telemetry.due_ns(), Some(SAMPLE_EVERY_NS));
        let Some(Body::Cpu(cpu)) = telemetry.take().unwrap() else { panic!("a cpu line") };
        assert_eq!(cpu.user, 9);
        assert_eq!(telemetry.due_ns(), Some(2 * SAMPLE_EVERY_NS));
    }

    #[test]
    fn a_file_without_readings_is_skipped_and_told() {
        let root = Scratch::new("empty");
        fs::write(root.0.join("stat"), "ctxt 1\n").unwrap();
        fs::write(root.0.join("schedstat"), "version 99\n").unwrap();
        let telemetry = Telemetry::open(&root.0).unwrap();
        assert!(telemetry.skipped().iter().any(|line| line.ends_with("no readings in it")));
    }

    #[test]
    fn a_host_without_telemetry_is_told_what_to_do() {
        let root = Scratch::new("none");
        let error = Telemetry::open(&root.0).err().expect("nothing to read");
        assert!(error.contains("--feed FILE") && error.contains("net/dev"), "{error}");
    }
}

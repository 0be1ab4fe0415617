//! `hold_cpu_latency`: keeps idle cores from deep sleep while a handle lives, so that a parked
//! receiver wakes about five times faster. Costs power, and needs permission.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;

use ringway_net::fork::Own;
use ringway_shm::ErrorKind;

const DEVICE: &str = "/dev/cpu_dma_latency";

/// The kernel honours the request for as long as the file stays open somewhere: by the last of a handle and its
/// clones, and not by children that are forked meanwhile, which would hold it for as long as they live.
#[derive(Clone, Debug)]
pub(crate) struct CpuLatency {
    _open: Arc<Own<File>>,
}

/// `hold_cpu_latency` is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("holding {DEVICE} at 0: {source}. {}, or drop `hold_cpu_latency`", self.said().1)]
pub struct CpuLatencyError {
    source: io::Error,
}

impl CpuLatency {
    pub(crate) fn hold() -> Result<Self, CpuLatencyError> {
        let hold = || {
            let mut file = OpenOptions::new().write(true).open(DEVICE)?;
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        };
        match Own::open(hold) {
            Ok(open) => Ok(Self { _open: Arc::new(open) }),
            Err(source) => Err(CpuLatencyError { source }),
        }
    }
}

impl CpuLatencyError {
    pub(crate) fn kind(&self) -> ErrorKind {
        self.said().0
    }

    /// What sort of error it is, and what to type next.
    fn said(&self) -> (ErrorKind, &'static str) {
        match self.source.kind() {
            io::ErrorKind::NotFound => (
                ErrorKind::Unsupported,
                "The device is not there: give it to a container (`--device /dev/cpu_dma_latency`), or run a \
                 kernel with CONFIG_CPU_IDLE",
            ),
            io::ErrorKind::PermissionDenied => (
                ErrorKind::Permission,
                "Run with permission to write it (`chmod` it or add a udev rule; of a container, `--device`)",
            ),
            _ => (ErrorKind::Io, "Look the error up in `man errno`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_a_device_that_is_not_there_from_one_that_is_refused() {
        for (source, kind, words) in [
            (io::ErrorKind::NotFound, ErrorKind::Unsupported, "--device"),
            (io::ErrorKind::PermissionDenied, ErrorKind::Permission, "udev"),
            (io::ErrorKind::IsADirectory, ErrorKind::Io, "man errno"),
        ] {
            let error = crate::Error::from(CpuLatencyError { source: source.into() });
            let text = error.to_string();
            assert_eq!(error.kind(), kind, "{text}");
            for words in [words, DEVICE, "or drop `hold_cpu_latency`"] {
                assert!(text.contains(words), "{words:?} is not in {text:?}");
            }
        }
    }
}

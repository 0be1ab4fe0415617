//! `hold_cpu_latency`: keeps idle cores from deep sleep while a handle lives, so that a parked
//! receiver wakes about five times faster. Costs power, and needs permission.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// The kernel honours the request for as long as the file stays open.
#[derive(Debug)]
pub(crate) struct CpuLatency {
    _open: File,
}

/// `hold_cpu_latency` is not to be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "holding {DEVICE} at 0: {source}. Run with permission to write it (`chmod` it or add a udev \
     rule), or drop `hold_cpu_latency`"
)]
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
        hold().map(|open| Self { _open: open }).map_err(|source| CpuLatencyError { source })
    }
}

//! Keeps idle cores awake, as the option `hold_cpu_latency` of a channel does, for all systems alike: the
//! kernel has one such wish for all cores, whoever holds it.

use std::fs::{File, OpenOptions};
use std::io::Write;

const DEVICE: &str = "/dev/cpu_dma_latency";

/// For as long as the file is open, or this process lives.
pub(crate) fn stay_awake() -> Result<File, String> {
    let hold = || {
        let mut file = OpenOptions::new().write(true).open(DEVICE)?;
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(file)
    };
    hold().map_err(|e: std::io::Error| {
        format!("can't hold {DEVICE} at 0: {e}; run with permission to write it, such as root's")
    })
}

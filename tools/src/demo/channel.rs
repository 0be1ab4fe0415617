//! The channel of one run of the demo: its name, and its removal at the end. Sending and
//! receiving never live here.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The address of a channel that no other run has: the pid tells runs apart that are going on,
/// the time those that are over.
pub(super) fn new_address(capacity: &str, wait: &str, subscribers: u8) -> String {
    let pid = std::process::id();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let kind = if subscribers > 1 { "&kind=broadcast" } else { "" };
    format!("shm://ringway-demo-{pid}-{time}?capacity={capacity}&wait={wait}{kind}")
}

/// Removes the channel once both children have ended. After a run in order there is none any
/// more.
pub(super) fn remove(address: &str) -> Result<(), String> {
    // The options are of no matter here, nor whether they are valid.
    let channel = address.split('?').next().unwrap_or(address);
    ringway::remove(channel).map(drop).map_err(|error| error.to_string())
}

/// Removes a channel from a child whose parent is gone. The other child may have it open still,
/// and then tries itself a little later; whoever comes last succeeds.
pub(super) fn remove_orphaned(address: &str) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let end = Instant::now() + PATIENCE;
    while ringway::remove(address).is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
}

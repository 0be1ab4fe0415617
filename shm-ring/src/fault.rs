//! Named places where a test may kill this process, to show what a crash there leaves behind.
//!
//! Compiled to nothing without the feature `testing`, which only this workspace's tests turn
//! on. `RINGWAY_FAULT=name` or `RINGWAY_FAULT=name:N` sends SIGKILL at the N-th visit (default 1).

/// The places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Point {
    ControlBuilt,
    ControlPlaced,
    SegmentBuilt,
    SegmentPlaced,
    MidBatch,
    MidWrap,
    MidRelease,
    SeatTaken,
    SeatSwept,
    SeatFilled,
    Claimed,
    Publishing,
    Flagged,
    Taken,
    Releasing,
    Repairing,
    Settled,
    MidMark,
    Announced,
}

/// Dies here if a test asked for it.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn point(_point: Point) {}

/// Dies here if a test asked for it.
#[cfg(feature = "testing")]
pub fn point(point: Point) {
    use std::sync::{Mutex, OnceLock};

    static WANTED: OnceLock<Option<(String, Mutex<u64>)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("RINGWAY_FAULT").ok()?;
        let (name, visit) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), Mutex::new(visit.parse().ok()?)))
    });
    let Some((name, left)) = wanted else { return };
    if *name != format!("{point:?}") {
        return;
    }
    let mut left = left.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *left = left.saturating_sub(1);
    if *left == 0 {
        // SAFETY: raise takes no pointers; SIGKILL does not return.
        unsafe {
            libc::raise(libc::SIGKILL);
        }
    }
}

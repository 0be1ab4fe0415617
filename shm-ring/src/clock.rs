//! The time, for those who look often and need it roughly: when the peer was last asked after.

/// Nanoseconds from any start, a few milliseconds coarse. Costs a quarter of what the fine clock does, so that
/// every poll that finds nothing may ask.
#[inline]
pub fn coarse_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live value to write to. It can't fail for a clock that every kernel has.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now);
    }
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

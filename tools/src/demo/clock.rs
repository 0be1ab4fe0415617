//! The one clock that the demo's processes share. Wall time never lives here: it jumps.

/// Nanoseconds of `CLOCK_MONOTONIC`, which is the same clock in every process of a host, so that
/// a difference of two readings in two processes is a time. About 25 ns a call; no system call.
pub(super) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that only this function refers to, and the call keeps no
    // pointer to it. The call can't fail: the clock exists on every Linux and the pointer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::now_ns;

    #[test]
    fn the_clock_never_goes_back_and_does_go_on() {
        let first = now_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now_ns() >= first + 2_000_000);
    }
}

//! The membarrier system call, nothing else: a fence that one thread runs on behalf of all threads
//! of all registered processes. Why the doorbell wants it is told in `wait`.

#[cfg(not(loom))]
use crate::sync::Word32;

/// From `linux/membarrier.h`; libc does not name them on every target.
#[cfg(not(loom))]
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
#[cfg(not(loom))]
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

/// Lets other processes' barriers reach this one's threads, from now on. False where the kernel, or
/// a filter before it, does not have it.
#[cfg(not(loom))]
pub fn register() -> bool {
    const UNKNOWN: u32 = 0;
    const YES: u32 = 1;
    const NO: u32 = 2;

    // Two threads may both ask, which does no harm. Not a lock: the call may take milliseconds, and in a child
    // that is forked meanwhile nobody would ever open it.
    static REGISTERED: Word32 = Word32::new(UNKNOWN);
    if REGISTERED.load_relaxed() == UNKNOWN {
        let is_registered = call(REGISTER_GLOBAL_EXPEDITED) && barrier();
        REGISTERED.store_relaxed(if is_registered { YES } else { NO });
    }
    REGISTERED.load_relaxed() == YES
}

/// A full fence on every thread of every registered process. 1-10 us. False if it did not happen.
#[cfg(not(loom))]
pub fn barrier() -> bool {
    call(GLOBAL_EXPEDITED)
}

#[cfg(not(loom))]
fn call(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Models have no such call: they check the fences.
#[cfg(loom)]
pub fn register() -> bool {
    false
}

/// See [`register`].
#[cfg(loom)]
pub fn barrier() -> bool {
    false
}

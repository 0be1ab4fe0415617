//! CPUs: which ones we may use, staying on one, and who else ran there. Asks the kernel, measures
//! nothing.

use std::io;
use std::mem;

/// CPUs this process may run on, in order.
pub(crate) fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is plain bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is writable and as long as we say.
    let done = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the index stays below the number of bits in a cpu_set_t.
    let isset = |cpu| unsafe { libc::CPU_ISSET(cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| isset(cpu)).collect())
}

/// Keeps the calling thread on `cpu`.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let failed = |e: io::Error| {
        io::Error::new(e.kind(), format!("can't stay on CPU {cpu}: {e}; --cpus picks others"))
    };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    // SAFETY: a cpu_set_t is plain bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` was found to be below the number of bits.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is readable and as long as we say; 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) };
    if done != 0 { Err(failed(io::Error::last_os_error())) } else { Ok(()) }
}

/// How often the kernel took the CPU from the calling thread, so far, for somebody else.
pub(crate) fn preemptions() -> u64 {
    // SAFETY: an rusage is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `usage` is a live rusage; the only error is an unknown first argument.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nivcsw as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_was_pinned() {
        std::thread::spawn(|| {
            let first = allowed().expect("the kernel knows")[0];
            pin(first).expect("an allowed CPU");
            assert_eq!(allowed().expect("the kernel knows"), [first]);
        })
        .join()
        .expect("the thread ends");
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error_with_a_remedy() {
        let e = pin(1 << 40).expect_err("no such CPU");
        assert!(e.to_string().contains("--cpus"), "{e}");
    }
}

//! Asking for cache lines before they are used. A hint to the processor: nothing here can be seen in memory,
//! or fail.

use crate::memory::Access;

/// Asks for a line, to be read or to be written soon. Does nothing where no memory is, and on processors
/// that are not x86-64.
#[inline(always)]
pub(crate) fn ask_for(line: *const u8, access: Access) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads and writes nothing that a program can see, and never faults, whatever the
    // address; processors without it take it for a nop.
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing behind it is accessed")]
    unsafe {
        match access {
            Access::Write => std::arch::asm!(
                "prefetchw [{line}]",
                line = in(reg) line,
                options(nostack, nomem, preserves_flags)
            ),
            Access::Read => std::arch::asm!(
                "prefetcht0 [{line}]",
                line = in(reg) line,
                options(nostack, nomem, preserves_flags)
            ),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (line, access);
}

/// Asks for the line at `base + offset + AHEAD`, to be written soon: one instruction, as the processor adds
/// the three up.
#[inline(always)]
pub(crate) fn ask_to_write<const AHEAD: usize>(base: *const u8, offset: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads and writes nothing that a program can see, and never faults, whatever the
    // address; processors without it take it for a nop.
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing behind it is accessed")]
    unsafe {
        std::arch::asm!(
            "prefetchw [{base} + {offset} + {ahead}]",
            base = in(reg) base,
            offset = in(reg) offset,
            ahead = const AHEAD,
            options(nostack, nomem, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (base, offset);
}

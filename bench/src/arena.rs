//! Memory that both processes of a pair share: an unnamed file, so that nothing is left behind
//! however they end. What lies where in it is the references' business.

use crate::plan::Fault;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Regions start on a page of their own: no two systems share a line or a page.
pub(crate) const PAGE: usize = 4096;

/// The parent's handle: the memory lives as long as this or a mapping does.
pub(crate) struct Arena {
    file: File,
    len: usize,
}

impl Arena {
    /// A zeroed arena of at least `len` bytes; pages are allocated when a process maps it.
    pub(crate) fn create(len: usize) -> Result<Arena, Fault> {
        let len = len.max(1).next_multiple_of(PAGE);
        // SAFETY: the name is a NUL-terminated literal; the call touches no other memory of ours.
        let fd = unsafe { libc::memfd_create(c"ringway-bench".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            let e = io::Error::last_os_error();
            return Err(Fault::new(format!("can't create shared memory (memfd_create): {e}")));
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(len as u64)
            .map_err(|e| Fault::new(format!("can't size shared memory to {len} B: {e}")))?;
        Ok(Arena { file, len })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// Part of an arena, mapped until the process ends.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    base: *mut u8,
    len: usize,
}

impl Region {
    /// Maps the whole arena behind an inherited descriptor, every page of it present.
    pub(crate) fn map(fd: RawFd, len: usize) -> Result<Region, Fault> {
        let map: MmapRaw = MmapOptions::new().len(len).populate().map_raw(fd).map_err(|e| {
            Fault::new(format!(
                "can't map {len} B of shared memory: {e}; is there so much memory? \
                 --capacity makes the rings smaller"
            ))
        })?;
        let base = map.as_mut_ptr();
        // Never unmapped: systems keep plain addresses, and the process ends with its run.
        std::mem::forget(map);
        Ok(Region { base, len })
    }

    /// Bytes `offset..offset + len`; panics when they are not all inside.
    pub(crate) fn part(self, offset: usize, len: usize) -> Region {
        assert!(offset <= self.len && len <= self.len - offset, "outside of the region");
        // SAFETY: `offset` is inside of the mapping, which is never unmapped (see `map`).
        Region { base: unsafe { self.base.add(offset) }, len }
    }

    /// First byte. All `len` bytes behind it stay mapped and writable.
    pub(crate) fn base(self) -> *mut u8 {
        self.base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_see_the_same_bytes() {
        let arena = Arena::create(PAGE + 1).expect("memory for two pages");
        assert_eq!(arena.len(), 2 * PAGE);
        let one = Region::map(arena.fd(), arena.len()).expect("it maps");
        let other = Region::map(arena.fd(), arena.len()).expect("it maps twice");
        let (one, other) = (one.part(PAGE, 8), other.part(PAGE, 8));
        // SAFETY: both point at eight mapped bytes, and only this thread uses them.
        unsafe {
            one.base().write(42);
            assert_eq!(other.base().read(), 42);
        }
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn a_part_outside_is_refused() {
        let arena = Arena::create(1).expect("memory for a page");
        Region::map(arena.fd(), arena.len()).expect("it maps").part(PAGE, 1);
    }
}

//! The ring that sends and receives happen in: memory that is mapped twice, side by side, so that
//! every range of up to its whole length is contiguous wherever it starts.
//!
//! ```text
//!   addresses   base            base + C         base + 2C
//!               |  bytes 0..C   |  bytes 0..C    |
//!                        [ head ........ tail )            one range, across the end
//! ```
//!
//! A range that would be empty may be begun anywhere: at the front, so that a ring which often runs empty
//! stays in the few lines that the core's cache has (`begin_at`).
//!
//! A byte has two addresses, which no reference may know of: this module hands out raw [`Span`]s
//! and never a slice. [`Ring`] is the one owner of a mapping, and has one owner itself; which of its
//! bytes are whose is decided by the positions of the session that it belongs to, whose ranges never
//! overlap. Nothing here knows what the bytes mean, nor who moves them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use crate::error::{Error, ErrorKind};
use crate::frame::{ALIGN, HEADER_LEN};
use crate::session::{Headers, MAX_CAPACITY, MIN_CAPACITY};

/// Bytes of a cache line.
const LINE: u64 = 64;

/// Some of a ring's bytes: where they start, and how many. Only an address: whoever reads or writes
/// there argues from what handed the span out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: *mut u8,
    /// Bytes.
    pub len: usize,
}

// SAFETY: an address, with which nothing can be done in safe code.
unsafe impl Send for Span {}

impl Span {
    /// The first `len` bytes; all, if it has no more.
    #[inline(always)]
    pub fn front(self, len: usize) -> Self {
        Self { len: self.len.min(len), ..self }
    }
}

/// Where a ring's bytes are. As with a [`Span`], only addresses: good for as long as the ring is.
#[derive(Clone, Copy, Debug)]
pub struct View {
    base: NonNull<u8>,
    capacity: usize,
    /// The position whose byte is the first.
    front: u64,
}

// SAFETY: addresses, with which nothing can be done in safe code.
unsafe impl Send for View {}

impl View {
    /// Bytes of the ring.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The `len` bytes from `position` on; at most the whole ring. Contiguous wherever they start.
    #[inline(always)]
    pub fn span(&self, position: u64, len: usize) -> Span {
        // SAFETY: a view is made by a ring only; the offset is below its capacity, and the mapping is
        // twice that long.
        let start = unsafe { self.base.as_ptr().add(self.offset(position)) };
        Span { start, len: len.min(self.capacity) }
    }

    /// Bytes from the ring's front to that at `position`.
    #[inline(always)]
    pub fn offset(&self, position: u64) -> usize {
        position.wrapping_sub(self.front) as usize & (self.capacity - 1)
    }
}

impl Headers for View {
    #[inline(always)]
    fn header(&self, position: u64) -> [u8; HEADER_LEN] {
        let span = self.span(position & !(ALIGN as u64 - 1), HEADER_LEN);
        // SAFETY: mapped while the ring is; headers are asked for that were written before, by this
        // thread or one that handed them over, and the kernel writes only where nothing is kept.
        unsafe { span.start.cast::<[u8; HEADER_LEN]>().read() }
    }
}

/// A mirrored ring. A position is any number; the byte is at that, modulo the capacity, from the front on.
#[derive(Debug)]
pub struct Ring {
    base: NonNull<u8>,
    /// A power of two, and a multiple of the page size.
    capacity: usize,
    /// See [`View`].
    front: u64,
}

// SAFETY: the mapping belongs to no thread. It is not Sync: `&Ring` gives out addresses that only
// the one who holds the ring may use.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps a ring of `capacity` bytes: a power of two from [`MIN_CAPACITY`] to [`MAX_CAPACITY`].
    /// Its memory is taken at once, so that no page fault comes later. Half a dozen system calls.
    ///
    /// # Errors
    /// [`ErrorKind::BadOption`], [`ErrorKind::NoSpace`].
    pub fn new(capacity: u64) -> Result<Self, Error> {
        let least = MIN_CAPACITY.max(page_size());
        if !capacity.is_power_of_two() || !(least..=MAX_CAPACITY).contains(&capacity) {
            let nearest = capacity.clamp(least, MAX_CAPACITY).next_power_of_two();
            return Err(Error::new(
                ErrorKind::BadOption,
                format!("mapping a ring of {capacity} bytes"),
                format!("a ring has a power of two of bytes, {least} to {MAX_CAPACITY}"),
                format!("Set `capacity` to {nearest}"),
            ));
        }
        Self::map(capacity as usize)
    }

    /// Bytes of the ring.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The `len` bytes from `position` on; at most the whole ring. Contiguous wherever they start.
    #[inline(always)]
    pub fn span(&self, position: u64, len: usize) -> Span {
        self.view().span(position, len)
    }

    /// Where its bytes are, for who reads or writes some of them by agreement with the owner.
    #[inline(always)]
    pub fn view(&self) -> View {
        View { base: self.base, capacity: self.capacity, front: self.front }
    }

    /// From now on the bytes from `position` on are at the ring's front, wherever they were: for a ring in
    /// which nothing is kept and nothing under way. Views of before show the old places.
    pub fn begin_at(&mut self, position: u64) {
        // Positions are aligned to cache lines as their bytes are.
        self.front = position & !(LINE - 1);
    }

    fn map(capacity: usize) -> Result<Self, Error> {
        let failed = |step: &str| {
            let tried = format!("mapping a ring of {capacity} bytes ({step})");
            Error::io(tried, io::Error::last_os_error())
        };
        // SAFETY: a name that ends in a zero; the result is checked.
        let fd = unsafe { libc::memfd_create(c"ringway-net".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(failed("memfd_create"));
        }
        // SAFETY: just opened, and nobody else knows of it.
        let memory = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a descriptor of our own; the length is positive and below 2^63.
        if unsafe { libc::ftruncate(memory.as_raw_fd(), capacity as libc::off_t) } != 0 {
            return Err(failed("ftruncate"));
        }
        // SAFETY: a reservation where the kernel likes it; nothing is there yet.
        let reserved = unsafe {
            libc::mmap(
                ptr::null_mut(),
                2 * capacity,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let base = match NonNull::new(reserved.cast::<u8>()) {
            Some(base) if reserved != libc::MAP_FAILED => base,
            _ => return Err(failed("reserving addresses")),
        };
        // From here on dropped, and with that unmapped, on every way out.
        let mapping = Self { base, capacity, front: 0 };
        for half in [0, capacity] {
            // SAFETY: each half lies inside the reservation just made, which is ours to replace.
            let mapped = unsafe {
                libc::mmap(
                    base.as_ptr().add(half).cast(),
                    capacity,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE,
                    memory.as_raw_fd(),
                    0,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(failed("mmap"));
            }
        }
        Ok(mapping)
    }
}

impl Headers for Ring {
    #[inline(always)]
    fn header(&self, position: u64) -> [u8; HEADER_LEN] {
        self.view().header(position)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, all of it ours. Who owns the ring has made sure that the kernel
        // is not about to write there (backend::Backend::detach).
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), 2 * self.capacity);
        }
    }
}

/// Fetches the two lines at an address into the core's cache, to be written soon. Nothing happens where no
/// memory is.
#[inline(always)]
pub(crate) fn prefetch(line: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads and writes nothing that a program can see, and never faults, wherever
    // the line is; processors without it take it for a nop.
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing behind it is accessed")]
    unsafe {
        std::arch::asm!(
            "prefetchw [{line}]",
            "prefetchw [{line} + 64]",
            line = in(reg) line,
            options(nostack, nomem, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

fn page_size() -> u64 {
    // SAFETY: asks for a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // A power of two on every system; none that is below ours tells nothing.
    u64::try_from(bytes).unwrap_or(MIN_CAPACITY)
}

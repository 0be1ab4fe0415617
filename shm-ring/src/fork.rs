//! What fork() does to handles: the child gets copies of file descriptors whose locks belong to the
//! parent. A child handler closes those descriptors, without unlocking (an unlock would release the
//! parent's lock), and marks every handle as not this process's own.
//!
//! Nothing here knows what a descriptor is for.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use crate::sync::Word32;

/// Forks since the program started, as this process sees it. Every verb reads it, so it shares its
/// line with nothing that is ever written.
static FORKS: CachePadded<Word32> = CachePadded::new(Word32::new(0));

/// In which process a handle was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth(u32);

impl Birth {
    /// Now, here.
    pub fn now() -> Self {
        Self(FORKS.load_relaxed())
    }

    /// Whether this process is a fork of the one it happened in.
    #[inline(always)]
    pub fn is_foreign(self) -> bool {
        FORKS.load_relaxed() != self.0
    }
}

/// A file that a forked child closes at once. In such a child, dropping it does nothing.
#[derive(Debug)]
pub struct OwnFile {
    file: ManuallyDrop<File>,
    slot: &'static Word32,
    birth: Birth,
}

impl OwnFile {
    /// Takes the file in charge.
    pub fn new(file: File) -> Self {
        install_handler();
        let slot = take_slot(file.as_raw_fd());
        Self { file: ManuallyDrop::new(file), slot, birth: Birth::now() }
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.birth.is_foreign() {
            return;
        }
        // First out of the table: a fork in between leaks a descriptor into the child, which is
        // harmless once unlocked; the other way round it would close somebody else's number.
        self.slot.store_relaxed(FREE);
        // SAFETY: `file` is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

/// A slot holds a descriptor + 1.
const FREE: u32 = 0;
const CHUNK: usize = 64;

/// Descriptors to close in a child. The handler may run while another thread of the parent holds
/// any lock, so it reads these words and takes none.
struct Chunk {
    slots: [Word32; CHUNK],
    next: OnceLock<Box<Chunk>>,
}

impl Chunk {
    const fn new() -> Self {
        Self { slots: [const { Word32::new(FREE) }; CHUNK], next: OnceLock::new() }
    }
}

static TABLE: Chunk = Chunk::new();
static TAKING: Mutex<()> = Mutex::new(());

fn take_slot(fd: i32) -> &'static Word32 {
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut chunk = &TABLE;
    loop {
        if let Some(slot) = chunk.slots.iter().find(|slot| slot.load_relaxed() == FREE) {
            slot.store_relaxed(fd.cast_unsigned() + 1);
            return slot;
        }
        chunk = chunk.next.get_or_init(|| Box::new(Chunk::new()));
    }
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is an extern "C" function that lives for ever and does only what is
        // allowed in the child of a multi-threaded process: loads, stores and close.
        // A failure (ENOMEM) leaves the handles usable; only a fork would go unnoticed.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
    });
}

extern "C" fn in_child() {
    FORKS.store_relaxed(FORKS.load_relaxed().wrapping_add(1));
    let mut chunk = Some(&TABLE);
    while let Some(Chunk { slots, next }) = chunk {
        for slot in slots {
            let fd = slot.load_relaxed();
            if fd != FREE {
                slot.store_relaxed(FREE);
                // SAFETY: the table holds open descriptors of files that only OwnFile closes, and
                // in this process OwnFile no longer does.
                drop(unsafe { File::from_raw_fd((fd - 1).cast_signed()) });
            }
        }
        chunk = next.get().map(|next| &**next);
    }
}

//! Words in a mapped file of the test's own: what a process noted there is still there when it has
//! been killed.

use std::fs::OpenOptions;
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};
use ringway_shm::sync::Word;

/// A mapped file of words.
pub struct Side {
    map: MmapRaw,
    words: usize,
}

impl Side {
    /// A new file of zeros. Sparse: only what is written takes memory.
    pub fn create(path: &Path, words: usize) -> Self {
        let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.set_len(words as u64 * 8).unwrap();
        Self::open(path)
    }

    /// A file that [`Self::create`] made.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let map = MmapOptions::new().len(bytes).map_raw(&file).unwrap();
        Self { map, words: bytes / 8 }
    }

    /// The word at `index`.
    pub fn word(&self, index: usize) -> &Word {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: inside the mapping, which starts on a page and lives as long as `self`; a Word is
        // an atomic, so other processes may write it, and any bytes are valid.
        unsafe { &*self.map.as_ptr().cast::<Word>().add(index) }
    }
}

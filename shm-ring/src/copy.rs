//! Copying a message out of memory that another process may be writing.

/// Copies as many bytes as `to` has. Whatever the copy holds then, it keeps.
///
/// # Safety
/// As many bytes are mapped at `from`.
pub unsafe fn copy_out(from: *const u8, to: &mut [u8]) {
    let (words, rest) = to.as_chunks_mut::<8>();
    let whole = if from.cast::<u64>().is_aligned() { words.len() } else { 0 };
    for (index, word) in words[..whole].iter_mut().enumerate() {
        // SAFETY: within the bytes that the caller vouches for; aligned; volatile, because another
        // process may write them just now.
        *word = unsafe { from.cast::<u64>().add(index).read_volatile() }.to_ne_bytes();
    }
    let done = whole * 8;
    let slow = words[whole..].as_flattened_mut().iter_mut().chain(rest);
    for (index, byte) in slow.enumerate() {
        // SAFETY: as above; bytes need no alignment.
        *byte = unsafe { from.add(done + index).read_volatile() };
    }
}

//! Messages that tell who sent them and as which, with a checksum over every byte.

/// Bytes of the smallest message: incarnation, index, checksum.
pub const MIN: usize = 24;

/// Writes message `index` of `incarnation` over all of `bytes`.
pub fn fill(bytes: &mut [u8], incarnation: u64, index: u64) {
    let (head, body) = bytes.split_at_mut(MIN);
    let first = (incarnation.wrapping_mul(31) ^ index.wrapping_mul(7)) as u8;
    for (at, byte) in body.iter_mut().enumerate() {
        *byte = first.wrapping_add(at as u8);
    }
    head[..8].copy_from_slice(&incarnation.to_le_bytes());
    head[8..16].copy_from_slice(&index.to_le_bytes());
    let sum = checksum(bytes);
    bytes[16..MIN].copy_from_slice(&sum.to_le_bytes());
}

/// Incarnation and index, or why this is no message that anybody sent.
pub fn read(bytes: &[u8]) -> Result<(u64, u64), String> {
    if bytes.len() < MIN {
        return Err(format!("a message of {} bytes", bytes.len()));
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (incarnation, index, found) = (word(0), word(8), word(16));
    let sum = checksum(bytes);
    if found != sum {
        return Err(format!(
            "message {index} of incarnation {incarnation}, {} bytes: checksum {found:#x}, not {sum:#x}",
            bytes.len()
        ));
    }
    Ok((incarnation, index))
}

/// A length for message `index` that is neither aligned nor repeated soon, from [`MIN`] to `max`.
pub fn length(index: u64, max: usize) -> usize {
    MIN + (index.wrapping_mul(2_654_435_761) % (max - MIN + 1) as u64) as usize
}

/// Over the length and everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u64 {
    let sum = crc32c::crc32c(&(bytes.len() as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &bytes[..16]);
    crc32c::crc32c_append(sum, &bytes[MIN..]).into()
}

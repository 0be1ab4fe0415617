//! The bytes of a message: every one is written by the sender and read by the receiver.
//! A message is `size / 8` words; word i is the message's *word* plus i. The word is its sequence
//! number with a mark in the top bits. The same code fills and checks for every system.

/// Ends a round. In the top bits, so that the receiver needs one comparison for all of it.
pub(crate) const STOP: u64 = 1 << 63;
/// Of the measured part of a stream, whose time runs from when the first one of it was read.
pub(crate) const MARK: u64 = 1 << 62;
/// The part of a word that is the sequence number.
pub(crate) const SEQ: u64 = MARK - 1;

/// With many senders the part that is the sequence number is shorter, and above it stand whether the
/// message is of the measured part, and who sent it.
pub(crate) const MEASURED: u64 = 1 << 61;
pub(crate) const SENDER_SHIFT: u32 = 56;
pub(crate) const SENDER: u64 = 0x1f << SENDER_SHIFT;
pub(crate) const OWN_SEQ: u64 = (1 << SENDER_SHIFT) - 1;

const _: () = assert!(STOP | MARK | MEASURED | SENDER | OWN_SEQ == u64::MAX);
const _: () = assert!((SENDER >> SENDER_SHIFT) as usize + 1 == crate::plan::Parties::MOST);

/// What a receiver found: the first word, and nonzero if any byte or the length was not as sent.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) word: u64,
    pub(crate) altered: u64,
}

/// Writes all of `dst`, whose length is a multiple of 8.
#[inline(always)]
pub(crate) fn fill(dst: &mut [u8], word: u64) {
    for (i, piece) in dst.chunks_exact_mut(8).enumerate() {
        piece.copy_from_slice(&word.wrapping_add(i as u64).to_ne_bytes());
    }
}

/// Reads all of `src` and compares it with a message of `N` bytes.
#[inline(always)]
pub(crate) fn check<const N: usize>(src: &[u8]) -> Seen {
    // A length known to the compiler makes straight-line code of the loop below.
    let Ok(message) = <&[u8; N]>::try_from(src) else { return Seen { word: 0, altered: 1 } };
    let mut sum = 0u64;
    for piece in message.as_chunks().0 {
        sum = sum.wrapping_add(word_of(piece));
    }
    judge::<N>(message.first_chunk().map_or(0, word_of), sum)
}

/// For receivers that read the words by themselves: what is to be said of a message of `N` bytes
/// with this first word and this sum of all words. A sum, because it is one instruction a word:
/// comparing each word by itself cost a stream of 1 KiB messages a sixth of its rate, which would
/// have been the harness's, not the system's. It misses only alterations that cancel each other.
#[inline(always)]
pub(crate) fn judge<const N: usize>(word: u64, sum: u64) -> Seen {
    let words = (N / 8) as u64;
    let expected = word.wrapping_mul(words).wrapping_add(words * (words - 1) / 2);
    Seen { word, altered: sum ^ expected }
}

#[inline(always)]
fn word_of(bytes: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_checks() {
        fn round<const N: usize>() {
            let mut message = [0; N];
            fill(&mut message, 7 | STOP);
            let seen = check::<N>(&message);
            assert_eq!((seen.word, seen.altered), (7 | STOP, 0));
        }
        round::<8>();
        round::<48>();
        round::<64>();
        round::<1024>();
        round::<65536>();
    }

    #[test]
    fn any_altered_byte_after_the_sequence_shows() {
        let mut message = [0; 64];
        for at in 8..64 {
            fill(&mut message, 1_000);
            message[at] ^= 0x10;
            assert_ne!(check::<64>(&message).altered, 0, "byte {at}");
        }
    }

    #[test]
    fn an_altered_sequence_shows_in_every_later_word() {
        let mut message = [0; 16];
        fill(&mut message, 1_000);
        message[0] ^= 1;
        assert_ne!(check::<16>(&message).altered, 0);
    }

    #[test]
    fn another_length_shows() {
        let mut message = [0; 16];
        fill(&mut message, 1);
        assert_ne!(check::<8>(&message).altered, 0);
        assert_ne!(check::<16>(&message[..8]).altered, 0);
        assert_ne!(check::<8>(&[]).altered, 0);
    }
}

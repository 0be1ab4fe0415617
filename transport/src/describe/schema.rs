//! A finished schema: the text and its fingerprint. How the text comes about is `writer`'s affair.

use std::fmt;

use super::Describe;
use super::writer::SchemaWriter;

/// What a message type looks like, field by field, in lines that people can compare.
///
/// Two types have equal texts, and so equal fingerprints, when a reader of one can read the other:
/// same names, types, order, offsets and sizes, archived by the same format of rkyv. A line by line
/// difference of two texts shows what differs. The text depends on the declarations alone, so it is
/// the same in every process, build and compiler version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    text: String,
    fingerprint: u64,
    align: usize,
}

impl Schema {
    /// The schema of `T`. Allocates; meant for the opening of a channel.
    pub fn of<T: Describe + ?Sized>() -> Self {
        let mut writer = SchemaWriter::new();
        T::describe(&mut writer);
        let (text, align) = writer.finish();
        let fingerprint = fnv1a(text.as_bytes());
        Self { text, fingerprint, align }
    }

    /// The text; each line ends with a line feed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The largest alignment that any part of a message needs, in bytes: where a message lies in a
    /// ring depends on it.
    pub fn align(&self) -> usize {
        self.align
    }

    /// A 64-bit hash of the text, for comparison where the text doesn't fit.
    ///
    /// It guards against mistakes, not malice: who can write to a channel can also copy a
    /// fingerprint. Among the few types that ever meet on one channel, 64 bits collide by chance
    /// once in 10^19 pairs, and never where one byte alone differs.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// FNV-1a: ten lines that any language can repeat. Each step is invertible, hence two texts of one
/// length that differ in a single byte never collide.
fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_fnv1a() {
        // The published test vectors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn raw_bytes_say_nothing_of_rkyv() {
        let schema = Schema::of::<[u8]>();
        assert_eq!(schema.text(), "ringway schema 1\nmessage: bytes\n");
        assert_eq!(schema.to_string(), schema.text());
    }
}

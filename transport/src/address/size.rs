//! Sizes in bytes as people write them: `65536`, `64KiB`, `4MiB`. Which sizes make sense for what
//! is for others to say.

use thiserror::Error;

use super::shown::Shown;

/// The units, and how many times a size is doubled by each.
const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

/// Reads a size: a whole number of bytes, or one followed by `KiB`, `MiB`, `GiB` or `TiB`. No
/// decimal units, short forms, signs, spaces, fractions or separators.
pub(super) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Form { found: text.to_owned() });
    }
    let too_large = || SizeError::TooLarge { found: text.to_owned() };
    // All are digits, so that a number which can't be read is one that is too large.
    let number: u64 = number.parse().map_err(|_| too_large())?;
    match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, shift)) => number.checked_mul(1 << shift).ok_or_else(too_large),
        None if unit.is_empty() => Ok(number),
        None => Err(wrong_unit(text, number, unit, too_large())),
    }
}

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SizeError {
    /// It doesn't look like a size.
    #[error(
        "{} is no size: type a whole number of bytes such as 65536, or one with a unit such as 64KiB, \
         4MiB, 1GiB or 1TiB",
        Shown(found)
    )]
    Form {
        /// What stood there.
        found: String,
    },
    /// A decimal, abbreviated or misspelled unit.
    #[error("the unit {unit:?} is not KiB, MiB, GiB or TiB (powers of 1024): type {remedy}")]
    Unit {
        /// What stood after the number.
        unit: String,
        /// The same number with the unit that was likely meant.
        remedy: String,
    },
    /// More than a `u64` holds.
    #[error("{} is more than 2^64 - 1 bytes: type less, such as 64KiB or 4MiB", Shown(found))]
    TooLarge {
        /// What stood there.
        found: String,
    },
}

/// Guesses by the first letter: `k`, `kB`, `KB`, `kib` all mean `KiB`.
fn wrong_unit(text: &str, number: u64, unit: &str, too_large: SizeError) -> SizeError {
    let meant = UNITS.iter().find(|(name, _)| {
        let short = [&name[..1], &format!("{}B", &name[..1]), name];
        short.iter().any(|form| form.eq_ignore_ascii_case(unit))
    });
    match meant {
        Some((_, shift)) if number.checked_mul(1 << shift).is_none() => too_large,
        Some((name, _)) => {
            SizeError::Unit { unit: unit.to_owned(), remedy: format!("{number}{name}") }
        }
        None => SizeError::Form { found: text.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_with_and_without_unit() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("0064"), Ok(64));
        assert_eq!(parse_size("65536"), Ok(65536));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("4MiB"), Ok(4 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("3TiB"), Ok(3 << 40));
        assert_eq!(parse_size("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_size("16777215TiB"), Ok(16_777_215 << 40));
    }

    fn text_of(size: &str) -> String {
        parse_size(size).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_no_size_is_told_the_form() {
        for size in
            ["", "fast", "KiB", "-1", "+1", "1.5GiB", "64 KiB", "1_000", "0x10", "4KiBx", "٤"]
        {
            let text = text_of(size);
            assert!(text.starts_with(&format!("{size:?} is no size: type a whole")), "{text}");
            assert!(text.contains("64KiB"), "{text}");
        }
    }

    #[test]
    fn other_units_are_told_the_right_one() {
        for (size, remedy) in [
            ("64k", "64KiB"),
            ("64kB", "64KiB"),
            ("64KB", "64KiB"),
            ("64kib", "64KiB"),
            ("4M", "4MiB"),
            ("4MB", "4MiB"),
            ("4Mib", "4MiB"),
            ("1g", "1GiB"),
            ("1tb", "1TiB"),
        ] {
            let text = text_of(size);
            assert!(text.ends_with(&format!(": type {remedy}")), "{text}");
            assert!(parse_size(remedy).is_ok());
        }
    }

    #[test]
    fn overflow_is_refused_not_wrapped() {
        for size in
            ["18446744073709551616", "16777216TiB", "16777216TB", "99999999999999999999999KiB"]
        {
            let text = text_of(size);
            assert!(text.starts_with(&format!("{size:?} is more than 2^64 - 1 bytes")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = parse_size(&text);
        }

        #[test]
        fn numbers_survive(number in any::<u64>()) {
            prop_assert_eq!(parse_size(&number.to_string()), Ok(number));
            let kib = number >> 10;
            prop_assert_eq!(parse_size(&format!("{kib}KiB")), Ok(kib << 10));
        }
    }
}

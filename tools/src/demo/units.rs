//! Figures as people read them. What they mean never lives here.

/// 1234567 as `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Nanoseconds in the unit that leaves one to three digits before the point.
pub(super) fn duration(time_ns: u64) -> String {
    scaled(time_ns as f64, &["ns", "µs", "ms", "s"])
}

/// Messages per second.
pub(super) fn rate(per_second: f64) -> String {
    count(per_second.round() as u64)
}

/// Bytes per second, in steps of 1000.
pub(super) fn bytes_per_second(per_second: f64) -> String {
    scaled(per_second, &["B/s", "kB/s", "MB/s", "GB/s"])
}

/// Three significant digits, if there are decimals.
fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would round to 1000 goes to the next unit already.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        let shown = [0, 7, 999, 1_000, 12_345, 999_999, 1_000_000, u64::MAX].map(count);
        let expected = [
            "0",
            "7",
            "999",
            "1,000",
            "12,345",
            "999,999",
            "1,000,000",
            "18,446,744,073,709,551,615",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (99_960, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (12_340_000_000, "12.3 s"),
            (3_600_000_000_000, "3600 s"),
        ];
        for (time_ns, shown) in cases {
            assert_eq!(duration(time_ns), shown);
        }
    }

    #[test]
    fn rates_are_short() {
        assert_eq!(rate(1234.5), "1,235");
        assert_eq!(bytes_per_second(0.0), "0 B/s");
        assert_eq!(bytes_per_second(1_500_000.0), "1.50 MB/s");
    }
}

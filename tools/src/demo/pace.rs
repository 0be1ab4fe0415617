//! How fast and how long a source is played: the arithmetic from a source's own time to the time of sending.
//! Reading clocks and sleeping never live here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `--speed`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Speed {
    /// So many times the source's own pace; positive and finite.
    Times(f64),
    /// As fast as the other side takes it.
    Max,
}

impl Speed {
    /// When something is due that the source itself would give `offset_ns` after its start:
    /// nanoseconds after the start of the stream. At full speed nothing has a time: `None`.
    pub(super) fn due_ns(self, offset_ns: u64) -> Option<u64> {
        match self {
            Self::Times(factor) => Some((offset_ns as f64 / factor) as u64),
            Self::Max => None,
        }
    }
}

/// `--seconds`: a positive number, fractions welcome.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let length = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    length
        .filter(|length| !length.is_zero())
        .ok_or_else(|| "expected a number of seconds above 0, such as 10 or 0.5".into())
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if factor > 0.0 && factor.is_finite() => Ok(Self::Times(factor)),
            _ => Err("expected a number above 0, such as 0.5 or 10, or `max`".into()),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(factor) => write!(out, "{factor}"),
            Self::Max => out.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_divided_by_the_speed() {
        assert_eq!(Speed::Times(1.0).due_ns(1_500_000_001), Some(1_500_000_001));
        assert_eq!(Speed::Times(10.0).due_ns(10_000_000), Some(1_000_000));
        assert_eq!(Speed::Times(0.5).due_ns(10_000_000), Some(20_000_000));
        assert_eq!(Speed::Max.due_ns(u64::MAX), None);
    }

    #[test]
    fn a_very_slow_speed_is_late_and_not_wrong() {
        assert_eq!(Speed::Times(1e-300).due_ns(1), Some(u64::MAX));
        assert_eq!(Speed::Times(1e-300).due_ns(0), Some(0));
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(parse_seconds("10").unwrap(), Duration::from_secs(10));
        assert_eq!(parse_seconds("0.25").unwrap(), Duration::from_millis(250));
        for text in ["", "0", "-1", "inf", "NaN", "1e300", "1e-300", "10s"] {
            assert!(parse_seconds(text).unwrap_err().contains("seconds"), "{text}");
        }
    }

    #[test]
    fn speeds_are_read_as_they_are_written() {
        for text in ["max", "1", "0.25", "1000"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-1", "inf", "NaN", "fast", "Max"] {
            assert!(text.parse::<Speed>().unwrap_err().contains("`max`"), "{text}");
        }
    }
}

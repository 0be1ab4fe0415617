//! Where the host had put our two cores, told from the round trip of a bare cache line before and
//! after each measurement. Nothing is assumed about the machine: the brackets of a run fall into
//! levels, and the lowest level seen is *near*.

use serde::{Serialize, Serializer};
use std::fmt;

/// A level ends where the next larger bracket is more than this times larger. Placements of one kind
/// differ by 10 to 20 %; the kinds (two threads of a core, one cache, two caches) by 2 and more.
const LEVEL_GAP: f64 = 1.4;

/// Brackets agree when the largest is at most this times the smallest.
const AGREE: f64 = 1.3;

/// How far apart the two cores were during a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// The closest level that the run saw: where there was only one, this.
    Near,
    /// The next level; `Far(2)` and so on for what is farther still.
    Far(usize),
    /// It changed during the measurement.
    Mixed,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Near => f.pad("near"),
            Placement::Far(1) => f.pad("far"),
            Placement::Far(level) => f.pad(&format!("far{level}")),
            Placement::Mixed => f.pad("mixed"),
        }
    }
}

impl Serialize for Placement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Round trips of a bare line right before and right after a measurement, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bracket {
    pub(crate) before_ns: f64,
    pub(crate) after_ns: f64,
}

impl Bracket {
    pub(crate) fn mean_ns(self) -> f64 {
        (self.before_ns + self.after_ns) / 2.0
    }

    /// Whether all four were taken in what looks like one placement.
    pub(crate) fn agrees_with(self, other: Bracket) -> bool {
        agree(&[self.before_ns, self.after_ns, other.before_ns, other.after_ns])
    }
}

/// One level, from its smallest to its largest bracket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Level {
    pub(crate) from_ns: f64,
    pub(crate) to_ns: f64,
    /// How many brackets of the run fell into it.
    pub(crate) brackets: usize,
}

/// The levels of a run, closest first.
#[derive(Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Levels(Vec<Level>);

impl Levels {
    /// Sorts every bracket of a run into levels.
    pub(crate) fn of(mut brackets: Vec<f64>) -> Levels {
        brackets.sort_by(f64::total_cmp);
        let mut levels: Vec<Level> = Vec::new();
        for ns in brackets {
            match levels.last_mut() {
                Some(level) if ns <= level.to_ns * LEVEL_GAP => {
                    level.to_ns = ns;
                    level.brackets += 1;
                }
                _ => levels.push(Level { from_ns: ns, to_ns: ns, brackets: 1 }),
            }
        }
        Levels(levels)
    }

    /// What to call a measurement between these two.
    pub(crate) fn label(&self, bracket: Bracket) -> Placement {
        let level = |ns| self.0.iter().position(|level| ns <= level.to_ns);
        let (before, after) = (level(bracket.before_ns), level(bracket.after_ns));
        match before {
            Some(level) if before == after && bracket.agrees_with(bracket) => match level {
                0 => Placement::Near,
                farther => Placement::Far(farther),
            },
            _ => Placement::Mixed,
        }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, level) in self.0.iter().enumerate() {
            let label = if i == 0 { Placement::Near } else { Placement::Far(i) };
            let comma = if i == 0 { "" } else { ", " };
            let Level { from_ns, to_ns, brackets } = level;
            write!(f, "{comma}{label} {from_ns:.0}-{to_ns:.0} ns ({brackets} brackets)")?;
        }
        Ok(())
    }
}

fn agree(brackets: &[f64]) -> bool {
    let least = brackets.iter().copied().fold(f64::INFINITY, f64::min);
    let most = brackets.iter().copied().fold(0.0, f64::max);
    most <= least * AGREE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bracket(before_ns: f64, after_ns: f64) -> Bracket {
        Bracket { before_ns, after_ns }
    }

    #[test]
    fn one_level_is_near_whatever_its_height() {
        for height in [45.0, 120.0, 500.0] {
            let levels = Levels::of(vec![height, height * 1.1, height * 1.05]);
            assert_eq!(levels.label(bracket(height, height * 1.1)), Placement::Near);
        }
    }

    #[test]
    fn levels_are_told_apart_and_named_from_the_closest() {
        let levels = Levels::of(vec![520.0, 118.0, 110.0, 45.0, 130.0, 490.0]);
        assert_eq!(levels.label(bracket(45.0, 45.0)), Placement::Near);
        assert_eq!(levels.label(bracket(110.0, 130.0)), Placement::Far(1));
        assert_eq!(levels.label(bracket(490.0, 520.0)), Placement::Far(2));
        assert_eq!(format!("{}", Placement::Far(1)), "far");
        assert_eq!(format!("{}", Placement::Far(2)), "far2");
    }

    #[test]
    fn a_move_during_the_measurement_is_mixed() {
        let levels = Levels::of(vec![51.0, 300.0]);
        assert_eq!(levels.label(bracket(51.0, 300.0)), Placement::Mixed);
        assert_eq!(levels.label(bracket(300.0, 51.0)), Placement::Mixed);
    }

    #[test]
    fn a_wide_level_does_not_make_its_ends_agree() {
        let levels = Levels::of(vec![200.0, 260.0, 340.0]);
        assert_eq!(levels.label(bracket(200.0, 340.0)), Placement::Mixed);
        assert_eq!(levels.label(bracket(200.0, 250.0)), Placement::Near);
        assert!(!bracket(200.0, 200.0).agrees_with(bracket(340.0, 340.0)));
        assert!(bracket(200.0, 210.0).agrees_with(bracket(250.0, 240.0)));
    }

    #[test]
    fn levels_show_their_range() {
        let levels = Levels::of(vec![51.0, 52.0, 300.0]);
        assert_eq!(levels.to_string(), "near 51-52 ns (2 brackets), far 300-300 ns (1 brackets)");
    }
}

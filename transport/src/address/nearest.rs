//! Which word was meant. For the last words of an error, nothing else may depend on it.

/// The candidate that `found` most resembles, if it is a plausible slip of the fingers: one edit,
/// or one for each three letters. Case and `-` for `_` count for nothing.
pub(super) fn nearest(found: &str, candidates: &[&'static str]) -> Option<&'static str> {
    let found: Vec<char> = found.chars().map(fold).collect();
    candidates
        .iter()
        .filter_map(|candidate| {
            let allowed = (candidate.len() / 3).max(1);
            // Also keeps a very long `found` from costing anything.
            if found.len().abs_diff(candidate.len()) > allowed {
                return None;
            }
            let distance = distance(&found, &candidate.chars().map(fold).collect::<Vec<_>>());
            (distance <= allowed).then_some((distance, *candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(c: char) -> char {
    if c == '-' { '_' } else { c.to_ascii_lowercase() }
}

/// Edits that turn `a` into `b`: insert, remove or replace a letter, or swap two neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    // Rows of the table of distances between the prefixes of `a` and all prefixes of `b`.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut least = (last[j + 1] + 1).min(row[j] + 1);
            least = least.min(last[j] + usize::from(from != to));
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(a: &str, b: &str) -> usize {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        distance(&chars(a), &chars(b))
    }

    #[test]
    fn distances() {
        assert_eq!(between("", ""), 0);
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("abc", ""), 3);
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("wiat", "wait"), 1);
        assert_eq!(between("smh", "shm"), 1);
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = ["capacity", "wait", "hold_cpu_latency"];
        assert_eq!(nearest("capcity", &words), Some("capacity"));
        assert_eq!(nearest("WAIT", &words), Some("wait"));
        assert_eq!(nearest("hold-cpu-latency", &words), Some("hold_cpu_latency"));
        assert_eq!(nearest("hold_latency", &words), Some("hold_cpu_latency"));
        assert_eq!(nearest("depth", &words), None);
        assert_eq!(nearest("", &words), None);
        assert_eq!(nearest(&"capacity".repeat(100_000), &words), None);
    }
}

//! A recorded exchange feed: reading its lines and giving them back in order, each with its time.
//! Sleeping until a line is due never lives here.
//!
//! A line is `UNIX_SECONDS: JSON`. Lines that begin with `wss://` are what the recording client
//! said of itself, not messages: they are left out and counted. Blank lines are left out.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use super::message::{Body, FeedLine};
use super::source::Source;

/// A feed, held in memory whole, so that reading the file is no part of what is measured.
pub(super) struct Feed {
    text: String,
    lines: Vec<Line>,
    next: usize,
    client_lines: usize,
}

/// Where a feed is, for the publishers to read it: each path has one of its own, whose standard input is
/// the leash. So a pipe would be empty for the second of them, and `/dev/stdin` another one for all.
pub(super) fn locate(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    if fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_file() {
        return fs::canonicalize(path).map_err(|error| unreadable(path, &error));
    }
    Err(format!(
        "the feed {shown} is no regular file, and it is read anew for each path: save what comes from \
         it, `cat {shown} > feed.txt`, and type `--feed feed.txt`"
    ))
}

struct Line {
    recorded_ns: u64,
    json: Range<usize>,
}

impl Feed {
    /// Reads and checks the whole file. An error names the file, the line and what was found.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
            format!("{shown}:{line}: expected UTF-8 text, found other bytes")
        })?;
        Self::parse(text).map_err(|error| format!("{shown}{error}"))
    }

    /// Lines of the recording client that were left out.
    pub(super) fn client_lines(&self) -> usize {
        self.client_lines
    }

    /// The error starts with `:LINE: `, to be put behind the file's name.
    fn parse(text: String) -> Result<Self, String> {
        let mut lines = Vec::new();
        let mut client_lines = 0;
        let mut end = 0;
        for (index, line) in text.split('\n').enumerate() {
            let start = end;
            end += line.len() + 1;
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.starts_with("wss://") {
                client_lines += 1;
            } else if !line.is_empty() {
                let (recorded_ns, json) =
                    parse_line(line).map_err(|error| format!(":{}: {error}", index + 1))?;
                let json = start + json.start..start + json.end;
                lines.push(Line { recorded_ns, json });
            }
        }
        if lines.is_empty() {
            return Err(": no line `UNIX_SECONDS: JSON` found in it: nothing to send".into());
        }
        Ok(Self { text, lines, next: 0, client_lines })
    }
}

impl Source for Feed {
    fn due_ns(&self) -> Option<u64> {
        // A recording whose clock was set back gives its lines in order nevertheless: an earlier
        // time than the first line's is due at once, as every time that has passed.
        let first_ns = self.lines.first()?.recorded_ns;
        Some(self.lines.get(self.next)?.recorded_ns.saturating_sub(first_ns))
    }

    fn take(&mut self) -> Result<Option<Body>, String> {
        let Some(line) = self.lines.get(self.next) else { return Ok(None) };
        self.next += 1;
        let json = self.text.get(line.json.clone()).unwrap_or_default().to_string();
        Ok(Some(Body::Feed(FeedLine { recorded_ns: line.recorded_ns, json })))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read the feed {}: {error}: give --feed a recorded feed", path.display())
}

/// The time of a line in nanoseconds, and where in it the JSON is.
fn parse_line(line: &str) -> Result<(u64, Range<usize>), String> {
    let (seconds, json) = line.split_once(": ").ok_or_else(|| {
        format!("expected `UNIX_SECONDS: JSON`, found no `: ` in {}", excerpt(line))
    })?;
    let recorded_ns = parse_seconds(seconds).ok_or_else(|| {
        format!("expected seconds such as 1618677817.061845, found {}", excerpt(seconds))
    })?;
    serde_json::from_str::<IgnoredAny>(json).map_err(|error| {
        format!("expected JSON after the time, found {} ({error})", excerpt(json))
    })?;
    Ok((recorded_ns, line.len() - json.len()..line.len()))
}

/// Decimal seconds in nanoseconds, exactly (a float of this size has steps of 238 ns); what lies
/// beyond nine decimals is cut.
fn parse_seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(9)];
    let scale = 10_u64.pow(9 - kept.len() as u32);
    let fraction_ns = kept.parse::<u64>().ok()? * scale;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction_ns)
}

/// The beginning of a text, quoted, short enough for one line of a terminal.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 48;
    match text.char_indices().nth(CHARS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?} …", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "wss://feed.test <-> 1600000000.5\r\n\
        1600000001.25: {\"type\":\"a\"}\r\n\
        wss://feed.test <- 1600000001.3: {\"type\":\"subscribe\"}\n\
        1600000001.2500001: {\"note\": \"a: b\"}\n\
        \n\
        1600000000: [1, 2]\n\
        1600000003.000000001999: \"é\"\n\n";

    fn refusal(text: &str) -> String {
        Feed::parse(text.to_string()).err().expect("this feed is malformed")
    }

    #[test]
    fn lines_come_in_order_with_their_times() {
        let mut feed = Feed::parse(SAMPLE.to_string()).unwrap();
        assert_eq!(feed.client_lines(), 2);
        let mut seen = Vec::new();
        while let Some(due_ns) = feed.due_ns() {
            let Some(Body::Feed(line)) = feed.take().unwrap() else { panic!("a feed's body") };
            seen.push((due_ns, line.recorded_ns, line.json));
        }
        let expected = [
            (0, 1_600_000_001_250_000_000, "{\"type\":\"a\"}"),
            (100, 1_600_000_001_250_000_100, "{\"note\": \"a: b\"}"),
            (0, 1_600_000_000_000_000_000, "[1, 2]"),
            (1_750_000_001, 1_600_000_003_000_000_001, "\"é\""),
        ];
        assert_eq!(seen, expected.map(|(due, at, json)| (due, at, json.to_string())));
        assert_eq!(feed.take().unwrap(), None);
    }

    #[test]
    fn a_malformed_line_is_named_with_what_was_found() {
        for (line, found) in [
            ("hello", "no `: ` in \"hello\""),
            ("12:{}", "no `: ` in \"12:{}\""),
            ("soon: {}", "found \"soon\""),
            ("1.2.3: {}", "found \"1.2.3\""),
            ("-1: {}", "found \"-1\""),
            ("1.: {}", "found \"1.\""),
            ("99999999999999: {}", "found \"99999999999999\""),
            ("1.5: {\"a\":", "found \"{\\\"a\\\":\" (EOF"),
            ("1.5: ", "found \"\" (EOF"),
        ] {
            let error = refusal(&format!("1: {{}}\n{line}\n3: {{}}\n"));
            assert!(error.starts_with(":2: expected "), "{error}");
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn a_long_malformed_line_is_shortened() {
        let error = refusal(&"é".repeat(10_000));
        assert!(error.chars().count() < 200, "{error}");
    }

    #[test]
    fn a_feed_without_messages_is_refused() {
        assert!(refusal("wss://only the client\n\n").contains("nothing to send"));
        assert!(refusal("").contains("nothing to send"));
    }

    #[test]
    fn a_file_that_is_not_text_or_not_there_is_named() {
        let path = std::env::temp_dir().join(format!("ringway-feed-{}", std::process::id()));
        fs::write(&path, b"1: {}\n2: \xff{}\n").unwrap();
        let error = Feed::open(&path).err().expect("not UTF-8");
        assert!(error.contains(&format!("{}:2: ", path.display())), "{error}");
        fs::remove_file(&path).unwrap();
        let error = Feed::open(&path).err().expect("no such file");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

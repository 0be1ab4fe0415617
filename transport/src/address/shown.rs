//! Typed text inside an error: between quotes, control characters escaped, cut at a sane length.

use std::fmt;

/// The most characters of one piece of text that an error repeats.
const SHOWN_CHARS_MAX: usize = 96;

/// Shows text that anybody may have typed.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_CHARS_MAX) {
            // `Debug` escapes quotes, control characters and whatever has no picture.
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => {
                let (shown, _) = self.0.split_at(end);
                write!(f, "{shown:?}... ({} bytes)", self.0.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_escaped_and_cut() {
        assert_eq!(Shown("it's").to_string(), "\"it's\"");
        assert_eq!(Shown("a\n\"b\"\u{1b}[1m").to_string(), r#""a\n\"b\"\u{1b}[1m""#);
        assert_eq!(Shown("\u{202e}x").to_string(), r#""\u{202e}x""#);
        let exact = "é".repeat(SHOWN_CHARS_MAX);
        assert_eq!(Shown(&exact).to_string(), format!("\"{exact}\""));
        let long = Shown(&format!("{exact}é")).to_string();
        assert_eq!(long, format!("\"{exact}\"... (194 bytes)"));
    }
}

//! Texts of others, as they can be shown to a person: what they say must not move the cursor, change the terminal's title or
//! clipboard, look like a line of its own, or fill the screen.

use std::fmt::{self, Write};
use std::path::Path;

/// The longest text that is shown whole, bytes.
pub const LONGEST: usize = 4000;
/// The longest piece of a file that is quoted, bytes.
const LONGEST_QUOTE: usize = 60;

/// Shows a text: control characters escaped, and cut off with `...` if it is longer than [`LONGEST`].
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    text: &'a str,
    is_cut: bool,
}

/// Shows a text; see [`Shown`].
pub fn shown(text: &str) -> Shown<'_> {
    cut(text, LONGEST)
}

/// Shows the path of a file, as any text.
pub fn path(path: &Path) -> impl fmt::Display + '_ {
    ShownPath(path)
}

struct ShownPath<'a>(&'a Path);

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.0.to_string_lossy()).fmt(f)
    }
}

/// The beginning of a text, of so many bytes at most. (Of Rust 1.91 on this is `floor_char_boundary`.)
pub fn beginning(text: &str, most: usize) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=most.min(text.len())).rev().find(fits);
    &text[..end.unwrap_or(0)]
}

/// A short piece of a file's text, in quotes, as Rust writes it.
pub fn quoted(text: &str) -> String {
    let piece = cut(text, LONGEST_QUOTE);
    let dots = if piece.is_cut { "..." } else { "" };
    format!("{:?}{dots}", piece.text)
}

fn cut(text: &str, most: usize) -> Shown<'_> {
    let piece = beginning(text, most);
    Shown {
        text: piece,
        is_cut: piece.len() < text.len(),
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.text;
        while let Some(at) = rest.find(does_something) {
            let (plain, behind) = rest.split_at(at);
            f.write_str(plain)?;
            let mut chars = behind.chars();
            for c in chars.next().into_iter().flat_map(char::escape_default) {
                f.write_char(c)?;
            }
            rest = chars.as_str();
        }
        f.write_str(rest)?;
        f.write_str(if self.is_cut { "..." } else { "" })
    }
}

/// Whether a character does anything else than being seen: control characters, line separators, and what turns the
/// direction of writing or is nothing at all.
fn does_something(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_what_is_seen() {
        let text = |text: &str| shown(text).to_string();
        assert_eq!(text("\x1b]0;owned\x07\x1b[2J"), "\\u{1b}]0;owned\\u{7}\\u{1b}[2J");
        assert_eq!(text("a\r\nb\tc\0"), "a\\r\\nb\\tc\\u{0}");
        assert_eq!(text("\u{9b}2J \u{202e}txt"), "\\u{9b}2J \\u{202e}txt");
        let plain = "it's \"quoted\", C:\\temp, caf\u{e9} \u{1f600} \u{928}\u{93f}";
        assert_eq!(text(plain), plain);
        assert_eq!(path(Path::new("a\nb")).to_string(), "a\\nb");
    }

    #[test]
    fn long_texts_are_cut_between_two_characters() {
        let long = "\u{e9}".repeat(LONGEST);
        let text = shown(&long).to_string();
        assert_eq!(text, format!("{}...", "\u{e9}".repeat(LONGEST / 2)));
        assert_eq!(quoted(&"9".repeat(61)), format!("\"{}\"...", "9".repeat(60)));
        assert_eq!(quoted("a\x1b"), "\"a\\u{1b}\"");
    }
}

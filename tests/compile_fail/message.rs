//! The compiler's messages in a form that is the same on every machine, and after every change to other files.

use crate::{PROGRAMS, workspace};

/// Lines that sum up or advertise, and say nothing of the program.
const SUMMARIES: [&str; 3] = [
    "error: aborting due to",
    "For more information about",
    "Some errors have detailed explanations",
];
/// Where the bar stands: behind numbers of three digits.
const MARGIN: usize = 4;

/// Paths begin at the workspace; quoted lines of other files have no numbers, and of the standard library nothing is quoted,
/// because its sources are not on every machine; the margin has one width, though the compiler makes it as wide as the longest
/// number of whatever file.
pub(crate) fn normal(message: &str) -> String {
    let mut text = String::new();
    let mut quoted = Quoted::Program;
    let mut margin = MARGIN;
    for line in message.lines() {
        if SUMMARIES.iter().any(|summary| line.starts_with(summary)) {
            continue;
        }
        let line = without_counts(&without_folders(line));
        let (number, rest) = numbered(&line);
        let mark = rest.split(' ').next().unwrap_or_default();
        match mark {
            "-->" | ":::" => {
                let place = &rest[mark.len() + 1..];
                quoted = Quoted::from(place);
                text += &format!("{mark:>width$} {}", quoted.place(place), width = MARGIN + 2);
            }
            "|" | "=" | "+" | "-" | "~" if number.is_some() || "|=".contains(mark) => {
                margin = line.len() - rest.len();
                match (&quoted, mark) {
                    (Quoted::Rust, "|") => continue,
                    (Quoted::Program, _) => text += &format!("{:>3} {rest}", number.unwrap_or_default()),
                    _ => text += &format!("{:MARGIN$}{rest}", ""),
                }
            }
            "..." => text += &line.split_whitespace().collect::<Vec<_>>().join(" "),
            // A note that goes on.
            _ if line.starts_with(' ') => {
                let indent = line.len() - rest.len();
                text += &format!(
                    "{:width$}{rest}",
                    "",
                    width = indent + MARGIN - margin.min(indent)
                );
            }
            _ => text += &line,
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// Whose lines follow.
enum Quoted {
    Program,
    Swathe,
    Rust,
}

impl Quoted {
    fn from(place: &str) -> Self {
        if place.starts_with(PROGRAMS) {
            Self::Program
        } else if place.starts_with("$RUST/") {
            Self::Rust
        } else {
            Self::Swathe
        }
    }

    fn place<'a>(&self, place: &'a str) -> &'a str {
        match self {
            Self::Program => place,
            _ => place.trim_end_matches(|c: char| c == ':' || c.is_ascii_digit()),
        }
    }
}

/// A quoted line's number, and what follows it or the indentation.
fn numbered(line: &str) -> (Option<&str>, &str) {
    let rest = line.trim_start();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match rest.split_at(digits) {
        ("", _) => (None, rest),
        (number, rest) if rest.starts_with(' ') => (Some(number), rest.trim_start()),
        _ => (None, rest),
    }
}

fn without_folders(line: &str) -> String {
    let line = line.replace(&format!("{}/", workspace().display()), "");
    // `/rustc/<commit>/library/core/..`, or below the compiler's own folder where the sources are installed.
    let Some((before, after)) = line.split_once("/library/") else {
        return line;
    };
    match before.rfind(' ') {
        Some(space) => format!("{} $RUST/{after}", &before[..space]),
        None => line,
    }
}

/// `and 5 others`: how many there are has nothing to do with what is told.
fn without_counts(line: &str) -> String {
    match line
        .trim_start()
        .strip_prefix("and ")
        .and_then(|rest| rest.strip_suffix(" others"))
    {
        Some(count) => line.replace(count, "$N"),
        None => line.to_owned(),
    }
}

#[test]
fn what_other_files_are_like_is_not_seen() {
    let told = |line: &str, margin: &str, quoted: &str| {
        format!(
            "error: it is wrong\n\
             {margin}--> /rustc/0123abcd/library/core/src/panic.rs:62:8\n\
             {margin} |\n\
             {quoted}\
             {margin} = note: because\n\
             {margin}         of {line}\n\
             {margin} |\n\
             {margin}::: {}/crates/swathe/src/lib.rs:{line}:5\n\
             {margin} |\n\
             {line} |     fn f() {{}}\n\
             {margin} |     ^^^^^^^^^\n\n\
             error: aborting due to 1 previous error\n",
            workspace().display(),
        )
    };
    let (few, many) = (told("7", " ", ""), told("1234", "    ", "62   | fn panic() {}\n"));
    assert_eq!(normal(&few).replace("of 7", "of 1234"), normal(&many));
    assert_eq!(
        normal(&few),
        "error: it is wrong\n   \
            --> $RUST/core/src/panic.rs\n    \
             = note: because\n            \
                     of 7\n   \
            ::: crates/swathe/src/lib.rs\n    \
             |\n    \
             |     fn f() {}\n    \
             |     ^^^^^^^^^\n"
    );
}

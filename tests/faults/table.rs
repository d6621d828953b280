//! The table of outcomes, as the documentation has it.

use std::fmt;

use swathe::chaos::{Fault, Point};

/// Where this table is.
const DOCUMENT: &str = include_str!("../../docs/reliability.md");
/// The heading above it.
const HEADING: &str = "## Every fault at every stage";

/// The rows: their titles, the point that is passed there, and whether the job changes its input in place.
pub(crate) const STAGES: [(&str, Point, bool); 13] = [
    ("in the initializer", Point::Initializer, false),
    ("idle", Point::Idle, false),
    ("before a claim", Point::BeforeClaim, false),
    ("between claim and its record", Point::Claimed, false),
    ("reading input", Point::Reading, false),
    ("running", Point::Running, false),
    ("writing results", Point::Writing, false),
    ("writing results, in place", Point::Writing, true),
    ("between the last write and publishing", Point::Written, false),
    (
        "between the last write and publishing, in place",
        Point::Written,
        true,
    ),
    ("after publishing", Point::Published, false),
    ("while being recycled", Point::Recycling, false),
    ("in the exit hook", Point::ExitHook, false),
];

/// The columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// An error is returned, by whatever returns something there.
    Error,
    Panic,
    DoublePanic,
    Exit,
    Abort,
    Segfault,
    BusError,
    Kill,
    Stop,
    Loop,
    /// More memory than a worker may have.
    Memory,
    /// More memory than a worker may gain.
    Growth,
}

impl FaultKind {
    pub(crate) const ALL: [(&str, Self); 12] = [
        ("error", Self::Error),
        ("panic", Self::Panic),
        ("panic in a panic", Self::DoublePanic),
        ("`exit(0)`", Self::Exit),
        ("abort", Self::Abort),
        ("SIGSEGV", Self::Segfault),
        ("SIGBUS", Self::BusError),
        ("SIGKILL", Self::Kill),
        ("SIGSTOP", Self::Stop),
        ("endless loop", Self::Loop),
        ("memory", Self::Memory),
        ("growth", Self::Growth),
    ];

    /// What is injected; errors are returned by tasks and initializers.
    pub(crate) fn fault(self) -> Option<Fault> {
        Some(match self {
            Self::Error => return None,
            Self::Panic => Fault::Panic,
            Self::DoublePanic => Fault::DoublePanic,
            Self::Exit => Fault::Exit(0),
            Self::Abort => Fault::Abort,
            Self::Segfault => Fault::Segfault,
            Self::BusError => Fault::BusError,
            Self::Kill => Fault::Kill,
            Self::Stop => Fault::Stop,
            Self::Loop => Fault::Loop,
            Self::Memory => Fault::Grow(2 * crate::cell::MAX_MEMORY),
            Self::Growth => Fault::Grow(2 * crate::cell::MAX_GROWTH),
        })
    }

    /// Whether the process stays and does nothing any more.
    pub(crate) fn hangs(self) -> bool {
        matches!(self, Self::Stop | Self::Loop)
    }
}

/// What a cell says; the words are explained below the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Absent,
    Nothing,
    Again,
    Replaced,
    Blamed,
    Fails,
    Late,
    Stuck,
    Spared,
    SlowStart,
    Recycled,
    Leaves,
    LeavesLate,
}

impl Outcome {
    const WORDS: [(&str, Self); 13] = [
        ("–", Self::Absent),
        ("nothing", Self::Nothing),
        ("again", Self::Again),
        ("replaced", Self::Replaced),
        ("blamed", Self::Blamed),
        ("fails", Self::Fails),
        ("late", Self::Late),
        ("stuck", Self::Stuck),
        ("spared", Self::Spared),
        ("slow start", Self::SlowStart),
        ("recycled", Self::Recycled),
        ("leaves", Self::Leaves),
        ("leaves late", Self::LeavesLate),
    ];
}

/// What happens at a stage (the title of a row) to a fault.
///
/// # Panics
/// If the document does not say.
pub(crate) fn outcome(stage: &str, kind: FaultKind) -> Outcome {
    let rows = rows();
    let (head, cells) = rows.split_first().expect("the table has a head");
    let (title, _) = FaultKind::ALL
        .iter()
        .find(|(_, other)| *other == kind)
        .expect("all are there");
    let column = head.iter().position(|cell| cell == title);
    let row = cells.iter().find(|row| row[0] == stage);
    let word = row.and_then(|row| row.get(column?));
    let known = word.and_then(|word| Outcome::WORDS.into_iter().find(|(known, _)| known == word));
    match known {
        Some((_, outcome)) => outcome,
        None => panic!("{stage}, {title}: {word:?} is no outcome"),
    }
}

/// The cells of the table, row by row, without the rule below its head.
fn rows() -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT
        .split_once(HEADING)
        .expect("the document has the section");
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|'));
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    let rows = lines.map(cells);
    rows.filter(|row: &Vec<_>| !row[0].starts_with('-')).collect()
}

/// The table has the cells that are tested, and no others.
#[test]
fn the_document_has_every_cell() {
    let rows = rows();
    let stages: Vec<&str> = rows[1..].iter().map(|row| row[0]).collect();
    assert_eq!(stages, STAGES.map(|(title, ..)| title));
    assert_eq!(rows[0][1..], FaultKind::ALL.map(|(title, _)| title));
    for (stage, ..) in STAGES {
        for (_, kind) in FaultKind::ALL {
            outcome(stage, kind);
        }
    }
    for (word, _) in &Outcome::WORDS[1..] {
        let explained = format!("- **{word}**: ");
        assert!(DOCUMENT.contains(&explained), "{word} is not explained");
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (title, _) = Self::ALL
            .iter()
            .find(|(_, kind)| kind == self)
            .expect("all are there");
        f.write_str(title)
    }
}

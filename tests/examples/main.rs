//! Every example, run as its header says: what it prints is what the header promises.
//!
//! - `run`: starts an example under a watchdog, and looks for processes that it left
//! - here: the examples that follow Python's `multiprocessing.Pool`
//! - `matched_filter`: the search for merging black holes

mod matched_filter;
mod run;

use std::collections::BTreeSet;

use run::{Output, example};

/// The output that an example's header shows: its last block of text.
fn promised(source: &str) -> Vec<&str> {
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = header
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let blocks: Vec<&[&str]> = lines.split(|line| line.starts_with("```")).collect();
    let [.., block, _] = blocks.as_slice() else {
        panic!("a header ends with a block of expected output")
    };
    assert!(!block.is_empty(), "a header shows some output");
    block.to_vec()
}

fn sorted<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<&str> = lines.into_iter().collect();
    lines.sort_unstable();
    lines
}

/// Checks that each of five workers has written its line once, and gives the other lines.
fn after_greetings(output: &Output) -> Vec<&str> {
    let (greetings, others): (Vec<&str>, Vec<&str>) = output
        .stdout
        .lines()
        .partition(|line| line.starts_with("pool process"));
    let end = format!(" received a task from main process with id {}", output.pid);
    let worker = |line: &str| {
        let id = line.strip_prefix("pool process with id ")?.strip_suffix(&end)?;
        id.parse::<u32>().ok()
    };
    let workers: BTreeSet<u32> = greetings.iter().filter_map(|line| worker(line)).collect();
    assert_eq!((workers.len(), greetings.len()), (5, 5), "{}", output.stdout);
    assert!(!workers.contains(&output.pid), "{}", output.stdout);
    others
}

#[test]
fn squares() {
    let output = example("squares", &[]);
    let lines = after_greetings(&output);
    let all = "[1, 4, 9, 16, 25, 36, 49, 64, 81, 100]";
    let [first, unordered @ .., last] = lines.as_slice() else {
        panic!("{}", output.stdout)
    };
    assert_eq!(*first, format!("Squares: {all}"));
    let mut unordered: Vec<i64> = unordered
        .iter()
        .map(|line| line.parse().expect("a square"))
        .collect();
    unordered.sort_unstable();
    assert_eq!(format!("{unordered:?}"), all);
    assert_eq!(*last, format!("Received result as: {all}"));
}

#[test]
fn labels() {
    let output = example("labels", &[]);
    assert_eq!(
        after_greetings(&output),
        promised(include_str!("../../examples/labels.rs"))
    );
}

#[test]
fn powers() {
    let output = example("powers", &[]);
    let promised = promised(include_str!("../../examples/powers.rs"));
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..4], promised[..4]);
    assert_eq!(sorted(lines.iter().copied()), sorted(promised));
    let line = |text: String| lines.iter().position(|line| line.starts_with(&text));
    for task in ["Task1", "Task2", "Task3"] {
        assert!(
            line(format!("{task} starting")) < line(format!("Callback received: {task}")),
            "{}",
            output.stdout
        );
    }
}

#[test]
fn shared_array() {
    let output = example("shared_array", &[]);
    assert_eq!(
        sorted(output.stdout.lines()),
        sorted(promised(include_str!("../../examples/shared_array.rs")))
    );
}

#[test]
fn retry() {
    let output = example("retry", &[]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines, promised(include_str!("../../examples/retry.rs")));
}

#[test]
fn requests() {
    let output = example("requests", &[]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines, promised(include_str!("../../examples/requests.rs")));
}

/// Killed when something is done, and started again.
#[test]
fn resume() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("scan.npy").display().to_string();
    run::killed_when("resume", &[&path], || {
        let progress = std::fs::read(format!("{path}.progress")).unwrap_or_default();
        progress
            .get(2 * 4096..2 * 4096 + 64)
            .is_some_and(|words| words.iter().any(|&byte| byte != 0))
    });
    let output = example("resume", &[&path]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [restored, last] = lines.as_slice() else {
        panic!("{}", output.stdout)
    };
    let restored = restored.strip_suffix(" of 262144 points were there");
    let restored: u32 = restored.and_then(|number| number.parse().ok()).expect("a number");
    assert!((1..262_144).contains(&restored), "{restored} were done before");
    let promised = promised(include_str!("../../examples/resume.rs"));
    assert_eq!(*last, promised[1].replace("scan.npy", &path));
    let again = example("resume", &[&path]).stdout;
    assert!(
        again.starts_with("262144 of 262144 points were there\n"),
        "{again}"
    );
}

#[test]
fn legacy_c() {
    let output = example("legacy_c", &[]);
    // The numbers of all lines, in turn; sizes have one decimal.
    let numbers = |line: &str| -> Vec<f64> {
        line.split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter_map(|word| word.parse().ok())
            .collect()
    };
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [right, turns, leaked, wrong] = lines.as_slice() else {
        panic!("{}", output.stdout)
    };
    assert_eq!(*right, "2000 of 2000 expressions have the right value");
    let [processes, longest] = numbers(turns)[..] else {
        panic!("{turns}")
    };
    assert!(longest <= 50.0 && processes >= 40.0, "{turns}");
    // Fifty calls leak 3.2 MiB; a worker that was never replaced would have some 30.
    let [all, largest] = numbers(leaked)[..] else {
        panic!("{leaked}")
    };
    assert!(all == 125.0 && largest > 3.0 && largest < 15.0, "{leaked}");
    let error =
        "a wrong expression is an error like any other: position 1 failed: a number is missing at column 9 ";
    assert!(wrong.starts_with(error), "{wrong}");
}

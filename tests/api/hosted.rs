//! A program that wants to do things of its own when its workers are started and ended.

use std::process::Command;

use swathe_tests::watch;

fn hosted(environment: Option<(&str, &str)>) -> Vec<String> {
    let _watch = watch();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hosted"));
    let output = command.envs(environment).output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Calls: prepare, before a fork, after it in the parent and in the child, enter, leave; and whether the worker's own
/// zygote was what had been prepared.
#[test]
fn each_turn_of_a_workers_life_is_told_once() {
    let expected = [
        "exit 0",
        "exit 0",
        "exit 0",
        "parent: [0, 0, 0, 0, 0, 0]",
        "worker 0 is back, left 1 times",
        "worker 0: [1, 1, 0, 1, 1, 0, 1]",
        "worker 1 is back, left 1 times",
        "worker 1: [1, 2, 1, 1, 1, 0, 1]",
    ];
    assert_eq!(hosted(None), expected);
}

#[test]
fn a_program_that_cannot_prepare_itself_has_no_pool() {
    let lines = hosted(Some(("REFUSE", "1")));
    let text = "the pool could not be started: the program could not prepare itself to start workers: there is no library";
    assert!(lines.iter().any(|line| line == text), "{lines:?}");
}

//! Descriptors that the host has closed, that tasks close, and of which there are too few.

use std::process::Command;

use crate::host::{Host, program, say};

#[test]
fn no_text_gets_into_memory_when_standard_descriptors_are_closed() {
    for how in ["closed", "not-inherited"] {
        for numbers in ["0", "1", "2", "12", "012"] {
            say(&["closed", &format!("{how}:{numbers}")]);
        }
    }
}

#[test]
fn an_initializer_may_close_what_it_does_not_own() {
    assert_eq!(say(&["closes", "initializer"]), "lost [] kept true");
}

#[test]
fn a_task_may_close_what_it_does_not_own() {
    assert_eq!(say(&["closes", "task"]), "lost [] kept true");
}

#[test]
fn a_task_that_becomes_another_program_is_lost_and_said_so() {
    assert_eq!(say(&["closes", "exec"]), "lost [3] kept true");
}

#[test]
fn a_host_that_closes_everything_is_told() {
    assert_eq!(say(&["closes-all"]), "told");
}

#[test]
fn more_workers_than_files_are_started_where_the_limit_may_be_raised() {
    let mut shell = Command::new("sh");
    let few = shell
        .arg("-c")
        .arg("ulimit -Sn 256; exec \"$0\" many 600")
        .arg(program());
    assert_eq!(Host::of(few).end(), "500500");
}

#[test]
fn more_workers_than_files_are_refused_with_both_numbers() {
    let mut shell = Command::new("sh");
    let few = shell
        .arg("-c")
        .arg("ulimit -n 256; exec \"$0\" many 600")
        .arg(program());
    let text = Host::of(few).end();
    assert!(
        text.starts_with("600 workers need this process to have 1"),
        "{text}"
    );
    assert!(
        text.contains(" open files, and it may have 256: raise the hard limit"),
        "{text}"
    );
}

#[test]
fn a_task_that_hoards_files_takes_none_from_its_worker() {
    let said = say(&["hoards", "soft"]);
    assert!(said.starts_with("5050"), "{said}");
}

#[test]
fn a_task_that_hoards_all_files_is_told_of() {
    let said = say(&["hoards", "hard"]);
    assert!(said.contains("has every descriptor open that it may"), "{said}");
}

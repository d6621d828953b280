//! Signals that the host handles, ignores or blocks, or that its whole group gets.

use std::process::Command;

use crate::host::{Host, program, say};

#[test]
fn a_host_that_ignores_the_end_of_children_has_a_pool_that_does_not() {
    assert_eq!(say(&["ignores-children"]), "works true Some(0)");
}

#[test]
fn a_launcher_that_ignores_the_end_of_children_changes_nothing() {
    let inherited = "trap '' CHLD; exec \"$0\" plain";
    let mut shell = Command::new("sh");
    assert_eq!(
        Host::of(shell.arg("-c").arg(inherited).arg(program())).end(),
        "works"
    );
}

#[test]
fn signals_to_the_group_are_the_hosts_business() {
    assert_eq!(say(&["group-signals"]), "handled 11 started 8 same true true");
}

#[test]
fn workers_and_their_programs_block_and_ignore_nothing() {
    assert_eq!(say(&["blocks-signals"]), "[[0, 0, 0], [0, 0, 0]]");
}

#[test]
fn pools_are_built_under_a_hail_of_signals() {
    assert_eq!(say(&["bursts"]), "20");
}

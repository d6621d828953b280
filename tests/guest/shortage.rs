//! What a shortage takes away comes back with its end.

use std::fs;

use crate::host::{is_root, say};

#[test]
fn a_pool_outlasts_a_shortage_of_descriptors() {
    assert_eq!(say(&["short-of-files", "taken"]), "whole");
}

#[test]
fn a_pool_outlasts_a_limit_below_what_is_open() {
    assert_eq!(say(&["short-of-files", "4"]), "whole");
    assert_eq!(say(&["short-of-files", "0"]), "whole");
}

#[test]
fn a_pool_outlasts_a_shortage_of_processes() {
    let root = "/sys/fs/cgroup/pids";
    let group = format!("{root}/swathe-test-{}", std::process::id());
    if !is_root() || fs::create_dir(&group).is_err() {
        return eprintln!("skipped: no control group can be made");
    }
    let said = std::panic::catch_unwind(|| say(&["short-of-processes", &group]));
    swathe_tests::until("the group is empty", || fs::remove_dir(&group).is_ok());
    assert_eq!(said.expect("it ends well"), "whole");
}

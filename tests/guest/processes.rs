//! The host as parent of processes: init, subreaper, one that waits for whoever ends; and a zygote that stands still.

use std::process::Command;

use crate::host::{Host, is_root, program, say};

#[test]
fn a_zygote_that_stands_still_blocks_nobody() {
    assert_eq!(say(&["stopped-zygote"]), "true 0");
}

#[test]
fn a_host_that_adopts_orphans_has_no_zombies() {
    assert_eq!(say(&["adopts"]), "0");
}

#[test]
fn the_first_process_of_a_container_has_no_zombies() {
    let contained = || {
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--mount-proc"]);
        command
    };
    let allowed = || {
        contained()
            .arg("true")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !is_root() || !allowed() {
        return eprintln!("skipped: no process can be the first of a namespace here");
    }
    assert_eq!(Host::of(contained().arg(program()).arg("adopts")).end(), "0");
}

#[test]
fn a_host_may_wait_for_whoever_ends() {
    assert_eq!(say(&["reaps-all"]), "works");
}

#[test]
fn a_stack_is_limited_as_memory_is() {
    let text = say(&["stack"]);
    assert!(text.starts_with("position 3 was lost"), "{text}");
    assert!(text.contains("it was allowed 64 MiB of private memory"), "{text}");
}

/// The hash maps of one worker cannot be attacked with what is known of another's.
#[test]
fn no_two_workers_have_the_same_keys() {
    assert_eq!(say(&["keys"]), "8");
}

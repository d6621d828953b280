//! A group that is stopped and goes on is not late.

use std::{thread, time::Duration};

use crate::host::Host;

/// Stopped for longer than any of its limits, `times` times.
fn stopped(what: &str, times: u32) -> String {
    let mut host = Host::start(&["stopped", what]);
    assert_eq!(host.line(), "go");
    for _ in 0..times {
        thread::sleep(Duration::from_millis(150));
        host.signal_group(libc::SIGSTOP);
        thread::sleep(Duration::from_millis(3500));
        host.signal_group(libc::SIGCONT);
    }
    host.end()
}

#[test]
fn elements_in_work_when_the_group_is_stopped_are_not_late() {
    assert_eq!(stopped("quiet", 1), "true");
    assert_eq!(stopped("busy", 1), "true");
}

#[test]
fn initializers_are_not_late_either() {
    assert_eq!(stopped("initializer", 1), "[1, 1]");
}

#[test]
fn nor_is_a_zygote_that_starts_workers() {
    assert_eq!(stopped("births", 2), "true");
}

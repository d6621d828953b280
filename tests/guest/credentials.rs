//! Hosts and tasks that change their user, and processes that nobody may have serve.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use swathe_tests::{until, watch};

use crate::host::{Host, is_root, program, running, say};

#[test]
fn a_host_that_drops_root_still_ends_what_is_late_or_cancelled() {
    if is_root() {
        assert_eq!(say(&["drops-root", "timeout"]), "TimedOut");
        assert_eq!(say(&["drops-root", "cancel"]), "Cancelled");
        assert_eq!(say(&["drops-root", "zygote"]), "[]");
    }
}

/// Whatever a task has done to the bond between its process and its parents.
#[test]
fn no_worker_outlives_a_killed_host() {
    for how in ["disarmed", "working", "user"] {
        if how == "user" && !is_root() {
            continue;
        }
        let mut host = Host::start(&["loses-root", how]);
        let workers = host.line();
        assert_eq!(running(&workers).len(), 2, "{how}");
        if how == "working" {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        host.kill();
        until("its workers are gone", || running(&workers).is_empty());
    }
}

/// A copy of the host that anybody may start and that is root then.
struct Raised {
    directory: tempfile::TempDir,
}

impl Raised {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("there is room");
        let raised = Self { directory };
        fs::copy(program(), raised.path()).expect("it can be copied");
        for (path, mode) in [
            (raised.directory.path().to_owned(), 0o755),
            (raised.path(), 0o4755),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        raised
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("host")
    }
}

#[test]
fn a_program_with_raised_privileges_builds_no_pool() {
    if !is_root() {
        return;
    }
    let _watch = watch();
    let raised = Raised::new();
    // As itself it works.
    assert_eq!(
        Host::of(Command::new(raised.path()).arg("many").arg("2")).end(),
        "500500"
    );
    let mut command = Command::new(raised.path());
    let command = command.arg("many").arg("2").uid(65534).gid(65534);
    let text = Host::of(command).end();
    assert!(text.starts_with("this process has raised privileges"), "{text}");
}

/// A stranger with everything that a parent has: the marker, a socket on descriptor 0, the right first message.
#[test]
fn nobody_but_its_parent_is_served() {
    use swathe_tests::stranger::{Seen, greet};
    let _watch = watch();
    // One's own program of one's own user: a greeting that is none is refused.
    assert_eq!(
        greet(Command::new(program()).arg("plain"), None),
        Seen::Ended(Some(1))
    );
    if !is_root() {
        return;
    }
    let raised = Raised::new();
    let mut set_uid = Command::new(raised.path());
    assert_eq!(greet(set_uid.arg("plain"), Some(65534)), Seen::Ended(Some(1)));
    // A program that has become root by itself (`sudo -E`), with the socket of somebody else.
    let mut sudo = Command::new(program());
    assert_eq!(greet(sudo.arg("plain"), Some(0)), Seen::Ended(Some(1)));
}

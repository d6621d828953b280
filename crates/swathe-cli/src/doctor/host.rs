//! What whoever started this program has left to it: signals, descriptors, threads, privileges, a debugger.
//!
//! A pool sets all of this to rights for its own processes. What is said here is what a program finds that holds pools.

use std::{env, fs};

use rustix::process::Signal;
use swathe_os::{process, surroundings};

use super::finding::{Finding, Severity};

const SECTION: &str = "host";

pub(super) fn examine() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut findings = vec![
        ignored(&status),
        blocked(&status),
        descriptors(),
        threads(),
        privileges(),
        filter(&status),
        debugger(&status),
        orphans(),
        proc_files(),
    ];
    findings.extend(launcher());
    findings
}

/// A line of `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// The signals of a mask in hexadecimal digits, by their names where programs care.
fn signals(status: &str, name: &str) -> Vec<String> {
    const NAMED: [(Signal, &str); 9] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::CHILD, "SIGCHLD"),
        (Signal::PIPE, "SIGPIPE"),
    ];
    let mask = field(status, name).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let mask = mask.unwrap_or(0);
    (1..=64)
        .filter(|number| mask >> (number - 1) & 1 == 1)
        .map(|number| {
            let named = NAMED.iter().find(|(signal, _)| signal.as_raw() == number);
            named.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
        })
        .collect()
}

fn ignored(status: &str) -> Finding {
    let mut ignored = signals(status, "SigIgn:");
    // By every Rust program for itself.
    ignored.retain(|name| name != "SIGPIPE");
    let value = match ignored.is_empty() {
        true => "none".to_owned(),
        false => ignored.join(", "),
    };
    let finding = Finding::ok(SECTION, "ignored signals", value).by("whoever started this program");
    match ignored.iter().any(|name| name == "SIGCHLD") {
        true => finding.but(
            Severity::Note,
            "have the launcher not ignore SIGCHLD: a program that waits for children of its own finds none (pools do \
             not mind)",
        ),
        false => finding,
    }
}

fn blocked(status: &str) -> Finding {
    let blocked = signals(status, "SigBlk:");
    if blocked.is_empty() {
        return Finding::ok(SECTION, "blocked signals", "none");
    }
    Finding::ok(SECTION, "blocked signals", blocked.join(", "))
        .by("whoever started this program")
        .but(
            Severity::Note,
            "unblock them in the launcher: this program does not hear them, and Ctrl-C or a batch system's warning may \
             be among them (workers hear them)",
        )
}

/// The standard library opens what was closed, on `/dev/null` and for both directions, which a shell does not.
fn descriptors() -> Finding {
    const WHAT: &str = "descriptors 0 to 2";
    let filled: Vec<String> = (0..=2)
        .filter(|number| {
            let target = fs::read_link(format!("/proc/self/fd/{number}"));
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
            let flags = field(&info, "flags:").and_then(|digits| u32::from_str_radix(digits, 8).ok());
            target.is_ok_and(|target| target.as_os_str() == "/dev/null")
                && flags.is_some_and(|flags| flags & 3 == 2)
        })
        .map(|number| number.to_string())
        .collect();
    if filled.is_empty() {
        return Finding::ok(SECTION, WHAT, "open");
    }
    Finding::ok(SECTION, WHAT, format!("{} closed at the start", filled.join(", ")))
        .by("whoever started this program")
        .but(
            Severity::Note,
            "redirect them to a file or /dev/null instead: in a program without Rust's `main`, its own files get these \
             numbers, and what it prints goes into them (pools take none of them)",
        )
}

/// Before this program has started any of its own.
fn threads() -> Finding {
    const WHAT: &str = "threads before main";
    let names = process::thread_names();
    let preloaded = env::var("LD_PRELOAD").unwrap_or_default();
    if names.len() <= 1 {
        return Finding::ok(SECTION, WHAT, "none");
    }
    let finding = Finding::ok(SECTION, WHAT, names[1..].join(", "));
    let finding = match preloaded.is_empty() {
        true => finding,
        false => finding.by(format!("LD_PRELOAD={preloaded}")),
    };
    finding.but(
        Severity::Note,
        "have the library that starts them start them later: workers are started by exec instead of fork, about a \
         millisecond more each",
    )
}

fn privileges() -> Finding {
    const WHAT: &str = "privileges";
    if !process::has_raised_privileges() {
        return Finding::ok(SECTION, WHAT, "those of whoever started this program");
    }
    Finding::ok(
        SECTION,
        WHAT,
        "raised (set-uid, set-gid or file capabilities)",
    )
    .by("AT_SECURE")
    .but(
        Severity::Failure,
        "run the pool in a helper program without raised privileges: this one must not be started once more on \
         anybody's word",
    )
}

fn filter(status: &str) -> Finding {
    const WHAT: &str = "filter of system calls";
    match (field(status, "Seccomp:"), field(status, "NoNewPrivs:")) {
        (None | Some("0"), Some("1")) => Finding::ok(SECTION, WHAT, "none; no new privileges can be had"),
        (None | Some("0"), _) => Finding::ok(SECTION, WHAT, "none"),
        (Some(_), _) => Finding::ok(
            SECTION,
            WHAT,
            "there is one (seccomp); what it allows is tried below",
        ),
    }
}

fn debugger(status: &str) -> Finding {
    const WHAT: &str = "debugger";
    let tracer = field(status, "TracerPid:").filter(|pid| *pid != "0");
    let Some(tracer) = tracer else {
        return Finding::ok(SECTION, WHAT, "none");
    };
    let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
    Finding::ok(SECTION, WHAT, format!("{} (process {tracer})", name.trim())).but(
        Severity::Note,
        "measure without it: what it stops is late, though time in which the parent was stopped is granted to elements",
    )
}

fn orphans() -> Finding {
    const WHAT: &str = "orphaned processes";
    if !process::adopts_orphans() {
        return Finding::ok(SECTION, WHAT, "go to another process");
    }
    let value = match std::process::id() {
        1 => "come to this process, which is number 1 of its PID namespace",
        _ => "come to this process, which is a subreaper",
    };
    Finding::ok(SECTION, WHAT, value).but(
        Severity::Note,
        "reap what your tasks leave behind, or start the container with an init (`docker run --init`); pools reap their \
         own",
    )
}

/// The mount's options may hide what belongs to others.
fn proc_files() -> Finding {
    const WHAT: &str = "/proc";
    if fs::metadata("/proc/self/stat").is_err() {
        return Finding::ok(SECTION, WHAT, "not mounted").but(
            Severity::Failure,
            "mount it: workers are started from there, and limits, cores and threads are read there",
        );
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let options = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == "/proc").then(|| fields.nth(1)).flatten()
    });
    let hidden = options.and_then(|options| options.split(',').find(|option| option.starts_with("hidepid=")));
    match hidden {
        Some(option) if !matches!(option, "hidepid=0" | "hidepid=off") => {
            Finding::ok(SECTION, WHAT, "mounted; processes of others are hidden").by(option)
        }
        _ => Finding::ok(SECTION, WHAT, "mounted"),
    }
}

fn launcher() -> Option<Finding> {
    let mut names: Vec<String> = env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| surroundings::is_launchers(name))
        .collect();
    names.sort();
    let some = match names.as_slice() {
        [] => return None,
        [first] => first.clone(),
        [first, .., last] => format!("{} variables, {first} to {last}", names.len()),
    };
    Some(Finding::ok(SECTION, "MPI launcher", some).by("the environment; workers do not get them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_as_names() {
        let status = "SigQ:\t0/1\nSigBlk:\t0000000000000000\nSigIgn:\t8000000000011001\n";
        assert!(signals(status, "SigBlk:").is_empty() && signals(status, "SigCgt:").is_empty());
        assert_eq!(
            signals(status, "SigIgn:"),
            ["SIGHUP", "SIGPIPE", "SIGCHLD", "signal 64"]
        );
    }
}

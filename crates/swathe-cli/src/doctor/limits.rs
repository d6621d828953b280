//! Limits on what a process may open and start.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit};

use super::finding::{Finding, Severity};
use crate::units;

const SECTION: &str = "limits";
/// Descriptors that a pool of any size should find free.
const FILES: u64 = 256;
/// Processes that should still be allowed.
const PROCESSES: u64 = 64;

pub(super) fn examine() -> Vec<Finding> {
    vec![files(), processes(), file_size(), core_dumps(), data(), stack()]
}

fn text(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
}

fn files() -> Finding {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let finding = Finding::ok(
        SECTION,
        "open files (RLIMIT_NOFILE)",
        format!("{}, {open} of them open", text(current)),
    )
    .by(format!("ulimit -n; at most {}", text(maximum)));
    match current {
        Some(limit) if limit < FILES => finding.but(
            Severity::Warning,
            "raise it (`ulimit -n 1024`): a pool holds a descriptor for every worker",
        ),
        _ => finding,
    }
}

fn processes() -> Finding {
    let limit = getrlimit(Resource::Nproc).current;
    let mine = own_threads();
    let finding = Finding::ok(
        SECTION,
        "processes (RLIMIT_NPROC)",
        format!("{}, {mine} threads of this user run", text(limit)),
    )
    .by("ulimit -u");
    match limit {
        // Root is not bound by it.
        Some(limit) if limit < mine + PROCESSES && !rustix::process::geteuid().is_root() => finding.but(
            Severity::Warning,
            "end other programs, or raise it (`ulimit -u`): every worker is a process",
        ),
        _ => finding,
    }
}

/// Threads of this user, which is what RLIMIT_NPROC counts.
fn own_threads() -> u64 {
    let user = rustix::process::geteuid().as_raw().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
        let owner = field("Uid:")?.split_whitespace().next()? == user;
        owner
            .then(|| field("Threads:")?.trim().parse::<u64>().ok())
            .flatten()
    })
    .sum()
}

/// A memory file is a file: a small limit bounds the arena.
fn file_size() -> Finding {
    let limit = getrlimit(Resource::Fsize).current;
    let finding = Finding::ok(SECTION, "file size (RLIMIT_FSIZE)", text(limit)).by("ulimit -f");
    match limit {
        Some(bytes) if bytes < 64 << 20 => finding.but(
            Severity::Warning,
            "raise it (`ulimit -f unlimited`): shared memory is a file to the kernel",
        ),
        Some(_) => finding.but(
            Severity::Note,
            "it also bounds shared memory, which is a file to the kernel",
        ),
        None => finding,
    }
}

/// A worker that crashes may leave one; arenas are not in it.
fn core_dumps() -> Finding {
    let limit = getrlimit(Resource::Core).current;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim();
    // A program at the end of a pipe gets dumps whatever the limit is.
    let value = match (limit, pattern.starts_with('|')) {
        (Some(0), false) => "none".to_owned(),
        (_, true) => format!("go to {}", pattern[1..].split(' ').next().unwrap_or_default()),
        (limit, false) => format!(
            "of up to {}, to {pattern}",
            limit.map_or("any size".to_owned(), units::bytes)
        ),
    };
    Finding::ok(SECTION, "core dumps (RLIMIT_CORE)", value)
        .by("ulimit -c and kernel.core_pattern; shared memory is left out")
}

/// What `max_memory_per_child` sets in workers.
fn data() -> Finding {
    let limit = getrlimit(Resource::Data).current;
    let finding = Finding::ok(
        SECTION,
        "private memory (RLIMIT_DATA)",
        limit.map_or("unlimited".to_owned(), units::bytes),
    )
    .by("ulimit -d");
    match limit {
        Some(bytes) if bytes < 256 << 20 => finding.but(
            Severity::Warning,
            "raise it (`ulimit -d unlimited`) and use `Builder::max_memory_per_child`, which bounds workers only",
        ),
        _ => finding,
    }
}

/// Tasks run on a worker's main stack, which this bounds.
fn stack() -> Finding {
    let limit = getrlimit(Resource::Stack).current;
    let finding = Finding::ok(
        SECTION,
        "stack of a task (RLIMIT_STACK)",
        limit.map_or("unlimited".to_owned(), units::bytes),
    )
    .by("ulimit -s");
    match limit {
        Some(bytes) if bytes < 1 << 20 => finding.but(
            Severity::Warning,
            "raise it (`ulimit -s 8192`): a task that needs more ends its worker",
        ),
        _ => finding,
    }
}

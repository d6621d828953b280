//! What the batch system and the container allow.

use std::{env, fs, path::Path};

use swathe_os::{cores::cgroup, memory_limits};

use super::finding::{Finding, Severity};
use crate::units;

const SECTION: &str = "job";
const SLURM: [&str; 6] = [
    "SLURM_JOB_ID",
    "SLURM_NTASKS",
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPUS_ON_NODE",
    "SLURM_MEM_PER_NODE",
    "SLURM_MEM_PER_CPU",
];

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![memory_group()];
    findings.extend(pids());
    findings.extend(suspends());
    findings.extend(slurm());
    findings
}

/// The innermost group, and the one that bounds memory if there is one.
fn memory_group() -> Finding {
    const WHAT: &str = "memory of the control group";
    let groups = cgroup::of_this_process(b"memory");
    match memory_limits::tightest_group() {
        Some((directory, limit)) => Finding::ok(SECTION, WHAT, format!("at most {}", units::bytes(limit)))
            .by(directory.display().to_string()),
        None => {
            let finding = Finding::ok(SECTION, WHAT, "no limit");
            match groups.first() {
                Some(group) => finding.by(group.directory.display().to_string()),
                None => finding,
            }
        }
    }
}

/// `pids.max` of a group or the groups above it: a pool that hits it cannot start its workers.
fn pids() -> Option<Finding> {
    let number = |folder: &Path, name| -> Option<u64> {
        fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    let room = |group: cgroup::Group| {
        let max = number(&group.directory, "pids.max")?;
        let left = max.saturating_sub(number(&group.directory, "pids.current").unwrap_or(0));
        Some((left, group.directory))
    };
    let groups = cgroup::of_this_process(b"pids");
    let (left, folder) = groups
        .into_iter()
        .filter_map(room)
        .min_by_key(|(left, _)| *left)?;
    let finding = Finding::ok(
        SECTION,
        "processes in the cgroup",
        format!("{left} more are allowed"),
    )
    .by(folder.join("pids.max").display().to_string());
    Some(match left {
        0..64 => finding.but(
            Severity::Warning,
            "give the job or container a larger process limit (--pids-limit, TasksMax=)",
        ),
        _ => finding,
    })
}

/// Whoever suspends the job stops all of its processes at once. (A group that is frozen now does not run this.)
fn suspends() -> Option<Finding> {
    let groups = cgroup::of_this_process(b"freezer");
    let can_freeze = |group: &&cgroup::Group| {
        ["freezer.state", "cgroup.freeze"]
            .iter()
            .any(|file| group.directory.join(file).exists())
    };
    let group = groups.iter().find(can_freeze)?;
    let finding = Finding::ok(
        SECTION,
        "suspends",
        "stop parent and workers together; elements are given the time",
    );
    Some(finding.by(group.directory.display().to_string()))
}

fn slurm() -> Vec<Finding> {
    let set: Vec<String> = SLURM
        .iter()
        .filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)))
        .collect();
    if set.is_empty() {
        return vec![Finding::ok(SECTION, "Slurm", "not in a Slurm job")];
    }
    let finding = Finding::ok(SECTION, "Slurm", set.join(" ")).by("the environment");
    if env::var_os("SLURM_CPUS_PER_TASK").is_none() {
        return vec![finding.but(
            Severity::Warning,
            "SLURM_CPUS_PER_TASK is not set: submit with --cpus-per-task, or every task of the job takes all cores it \
             can see",
        )];
    }
    vec![finding]
}

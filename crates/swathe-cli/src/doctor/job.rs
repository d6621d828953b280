//! What the batch system and the container allow.

use std::{env, fs, path::PathBuf};

use super::finding::{Finding, Severity};

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
    let mut findings = vec![cgroup()];
    findings.extend(pids());
    findings.extend(slurm());
    findings
}

/// The group of cgroup version 2 that this process is in.
fn group() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.to_owned())
}

fn cgroup() -> Finding {
    match group() {
        Some(path) => Finding::ok(SECTION, "cgroup", path).by("cgroup version 2"),
        None => Finding::ok(SECTION, "cgroup", "none of version 2"),
    }
}

/// `pids.max` of a group or the groups above it: a pool that hits it cannot start its workers.
fn pids() -> Option<Finding> {
    let mut folder = PathBuf::from(format!("/sys/fs/cgroup{}", group()?));
    let number = |folder: &PathBuf, name| -> Option<u64> {
        fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    let mut tightest: Option<(u64, PathBuf)> = None;
    while folder.starts_with("/sys/fs/cgroup") {
        if let Some(max) = number(&folder, "pids.max") {
            let left = max.saturating_sub(number(&folder, "pids.current").unwrap_or(0));
            if tightest.as_ref().is_none_or(|(least, _)| left < *least) {
                tightest = Some((left, folder.clone()));
            }
        }
        if !folder.pop() {
            break;
        }
    }
    let (left, folder) = tightest?;
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

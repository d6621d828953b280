//! Cores, and how busy they are.

use std::env;

use swathe_os::cores::{self, CoreSource, Cores, NumaNode};

use super::finding::{Finding, Severity};
use crate::{machine, units};

const SECTION: &str = "cores";

/// Variables by which inner thread pools are kept from taking all cores in every worker.
const THREADS: [&str; 4] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

pub(super) fn examine() -> Vec<Finding> {
    let cores = cores::cores();
    let mut findings = vec![count(&cores)];
    findings.extend(others(&cores));
    findings.extend(variable());
    findings.extend([affinity(), load(), waiting(&cores)]);
    findings.extend(THREADS.iter().filter_map(|name| threads(name, cores.count)));
    findings.push(numa(&cores::numa_nodes()));
    findings
}

fn count(cores: &Cores) -> Finding {
    let finding =
        Finding::ok(SECTION, "for this job", cores.count.to_string()).by(cores.decided_by.to_string());
    match &cores.decided_by {
        CoreSource::LocalRanks { .. } => finding.but(
            Severity::Note,
            format!(
                "each rank has its part; if they do not work at the same time, set {}",
                cores::VARIABLE
            ),
        ),
        CoreSource::CgroupQuota {
            quota_us, period_us, ..
        } if quota_us % period_us != 0 => finding.but(
            Severity::Note,
            "the quota is no whole number of cores, so a part of it stays unused: ask for whole cores",
        ),
        _ if cores.count == 1 => finding.but(
            Severity::Note,
            "with one core a pool isolates tasks, but makes nothing faster: ask for more cores",
        ),
        _ => finding,
    }
}

/// The parties that would have allowed more, or as much.
fn others(cores: &Cores) -> Vec<Finding> {
    let others = cores::limits().into_iter().filter(|limit| limit != cores);
    others
        .map(|limit| {
            Finding::ok(SECTION, "other limits", limit.count.to_string()).by(limit.decided_by.to_string())
        })
        .collect()
}

/// Said only if it is wrong: otherwise it is among the limits.
fn variable() -> Option<Finding> {
    let error = cores::check_variable().err()?;
    let finding = Finding::ok(SECTION, cores::VARIABLE, error.to_string()).by("the environment");
    Some(finding.but(
        Severity::Failure,
        format!("correct or unset {}: no pool is built with it", cores::VARIABLE),
    ))
}

/// Workers may use what the process may, however narrowly its main thread is bound.
fn affinity() -> Finding {
    let (thread, process) = (cores::affinity(), cores::process_affinity());
    let finding =
        Finding::ok(SECTION, "CPU numbers", ranges(&process).join(",")).by("the affinity of this process");
    match thread.len() < process.len() {
        true => finding.but(
            Severity::Note,
            format!(
                "the main thread is bound to {} (OMP_PROC_BIND, GOMP_CPU_AFFINITY?); workers are not, but what this \
                 program does itself is: bind no thread in a program that holds pools",
                ranges(&thread).join(",")
            ),
        ),
        false => finding,
    }
}

/// `0-3`, `8`.
fn ranges(cpus: &[usize]) -> Vec<String> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let text = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect()
}

fn load() -> Finding {
    let Some((load, is_busy)) = machine::load() else {
        return Finding::ok(SECTION, "load", "unknown").but(Severity::Note, "mount /proc to have it told");
    };
    let value = format!("{} runnable on average over the last minute", units::digits(load));
    let finding = Finding::ok(SECTION, "load", value);
    if is_busy {
        return finding.but(
            Severity::Note,
            "other programs use the cores too: what is measured now says little",
        );
    }
    finding
}

/// Spinning is worth it only while nobody needs the core.
fn waiting(cores: &Cores) -> Finding {
    let n = cores.count;
    if n == 1 {
        let value = "idle processes sleep at once: there is no other core for what they would wait for";
        return Finding::ok(SECTION, "waiting", value);
    }
    Finding::ok(
        SECTION,
        "waiting",
        format!("pools of up to {n} processes spin a moment before they sleep, larger ones sleep at once"),
    )
}

fn threads(name: &str, cores: usize) -> Option<Finding> {
    let value = env::var(name).ok()?;
    let finding = Finding::ok(SECTION, name, value.clone()).by("the environment");
    Some(match value.trim().parse::<usize>() {
        Ok(threads) if threads > 1 && cores > 1 => finding.but(
            Severity::Note,
            "each worker starts so many threads if its libraries read this: leave it unset, and the pool gives every \
             worker its share",
        ),
        _ => finding,
    })
}

fn numa(nodes: &[NumaNode]) -> Finding {
    let list: Vec<String> = nodes
        .iter()
        .map(|node| format!("node {}: {} CPUs", node.id, node.cpus.len()))
        .collect();
    match nodes.len() {
        0 => Finding::ok(SECTION, "NUMA nodes", "the kernel lists none"),
        1 => Finding::ok(SECTION, "NUMA nodes", "1: all memory is equally near"),
        n => Finding::ok(SECTION, "NUMA nodes", format!("{n} ({})", list.join(", "))).but(
            Severity::Note,
            "pin workers (`Pool::builder().pin(true)`), so that they stay near the memory that they touched first",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_listed_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), ["0-2", "5", "7-8"]);
        assert!(ranges(&[]).is_empty());
    }
}

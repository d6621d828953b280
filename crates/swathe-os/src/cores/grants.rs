//! What batch systems and launchers say in the environment about the cores of a job.
//!
//! | system | variable | says |
//! |---|---|---|
//! | Slurm, sbatch(1), srun(1) | `SLURM_CPUS_PER_TASK` | CPUs of this task |
//! | | `SLURM_CPUS_ON_NODE` | CPUs of the job, or of the step, on this node |
//! | | `SLURM_STEP_TASKS_PER_NODE` | tasks of the step on each node, as `2(x3),1` |
//! | | `SLURM_NTASKS_PER_NODE` | tasks that were asked for on each node |
//! | Grid Engine, qsub(1), submit(1) | `NSLOTS`, `NHOSTS` | slots of the job on all of its hosts, and these hosts |
//! | Torque, qsub(1) | `PBS_NUM_PPN` | processors of the job on each node |
//! | | `PBS_NP`, `PBS_NUM_NODES` | processors of the job on all of its nodes, and these nodes |
//! | PBS Professional, User's Guide | `NCPUS` | CPUs of the job on its first node |
//! | LSF, "Environment variables" | `LSB_DJOB_NUMPROC` | slots of the job on all of its hosts |
//! | | `LSB_MCPU_HOSTS` | slots on each host, as `a 4 b 8` |
//! | Open MPI, mpirun(1) | `OMPI_COMM_WORLD_LOCAL_SIZE` | ranks on this node |
//! | MPICH and Intel MPI (Hydra) | `MPI_LOCALNRANKS` | ranks on this node |
//! | MVAPICH2, User Guide | `MV2_COMM_WORLD_LOCAL_SIZE` | ranks on this node |
//! | Cray PALS, aprun(1) | `PMI_LOCAL_SIZE` | ranks on this node |
//!
//! A value that is no positive number says nothing.

use std::ffi::OsString;
use std::path::Path;

use super::cpu_list;

use crate::kernel_files;

/// What the environment is asked by.
pub(super) type Lookup<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// A number of cores that a batch system gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) cores: usize,
    pub(super) system: &'static str,
    /// The variables, as they are set.
    pub(super) says: String,
}

/// A variable that counts cores of a whole job on one node, or on all of its nodes.
struct Counter {
    system: &'static str,
    name: &'static str,
    /// The variable that counts the nodes, if `name` counts the cores of all of them.
    nodes: Option<&'static str>,
}

const fn counter(system: &'static str, name: &'static str, nodes: Option<&'static str>) -> Counter {
    Counter { system, name, nodes }
}

/// Node by node, and so shared by the tasks of a job on one node.
const NODE: [Counter; 6] = [
    counter("Slurm", "SLURM_CPUS_ON_NODE", None),
    counter("Grid Engine", "NSLOTS", Some("NHOSTS")),
    counter("PBS", "PBS_NUM_PPN", None),
    counter("PBS", "PBS_NP", Some("PBS_NUM_NODES")),
    counter("PBS", "NCPUS", None),
    counter("LSF", "LSB_DJOB_NUMPROC", None),
];

/// For each task by itself.
const TASK: Counter = counter("Slurm", "SLURM_CPUS_PER_TASK", None);

/// How many ranks a launcher started on this node.
const RANKS: [&str; 4] = [
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "PMI_LOCAL_SIZE",
];

/// A positive number.
pub(super) fn positive(value: &OsString) -> Option<usize> {
    value.to_str()?.trim().parse().ok().filter(|&number| number > 0)
}

fn number(get: &Lookup<'_>, name: &str) -> Option<usize> {
    positive(&get(name)?)
}

impl Counter {
    fn grant(&self, get: &Lookup<'_>) -> Option<Grant> {
        let all = number(get, self.name)?;
        let nodes = self.nodes.and_then(|name| Some((name, number(get, name)?)));
        let nodes = nodes.filter(|(_, nodes)| *nodes > 1);
        let mut says = format!("{}={all}", self.name);
        if let Some((name, nodes)) = nodes {
            says += &format!(" on {name}={nodes}");
        }
        Some(Grant {
            cores: (all / nodes.map_or(1, |(_, nodes)| nodes)).max(1),
            system: self.system,
            says,
        })
    }
}

/// What this task was given for itself.
pub(super) fn of_task(get: &Lookup<'_>) -> Option<Grant> {
    TASK.grant(get)
}

/// What the job was given on the node of this name; the smallest where several variables are set.
pub(super) fn of_node(get: &Lookup<'_>, node: &str) -> Option<Grant> {
    let counted = NODE.iter().filter_map(|counter| counter.grant(get));
    counted
        .chain(lsf_hosts(get, node))
        .min_by_key(|grant| grant.cores)
}

/// `LSB_MCPU_HOSTS` is `host slots host slots ...`. A host by another name than the kernel's has the fewest of them.
fn lsf_hosts(get: &Lookup<'_>, node: &str) -> Option<Grant> {
    let list = get("LSB_MCPU_HOSTS")?;
    let words: Vec<&str> = list.to_str()?.split_whitespace().collect();
    let hosts: Vec<(&str, usize)> = words
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0], pair[1].parse().ok().filter(|&slots| slots > 0)?)))
        .collect();
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let mine = hosts.iter().find(|(host, _)| short(host) == short(node));
    let (host, cores) = mine.or_else(|| hosts.iter().min_by_key(|(_, slots)| *slots))?;
    Some(Grant {
        cores: *cores,
        system: "LSF",
        says: format!("LSB_MCPU_HOSTS: {cores} on {host}"),
    })
}

/// How many ranks of one launcher are on this node, and the variable that says so. Of several the largest counts: a
/// launcher may run inside of another's only rank.
pub(super) fn local_ranks(get: &Lookup<'_>) -> Option<(usize, &'static str)> {
    let launchers = RANKS.iter().filter_map(|&name| Some((number(get, name)?, name)));
    let all = launchers.chain(slurm_tasks(get));
    all.max_by_key(|(ranks, _)| *ranks)
        .filter(|(ranks, _)| *ranks > 1)
}

/// Only where srun started this very process: in the batch script, which is alone, `SLURM_NTASKS_PER_NODE` is a wish.
fn slurm_tasks(get: &Lookup<'_>) -> Option<(usize, &'static str)> {
    const STEP: &str = "SLURM_STEP_TASKS_PER_NODE";
    const ASKED: &str = "SLURM_NTASKS_PER_NODE";
    let Some(list) = get(STEP) else {
        get("SLURM_STEP_ID")?;
        return Some((number(get, ASKED)?, ASKED));
    };
    let counts = repeated(list.to_str()?)?;
    let index: Option<usize> = get("SLURM_NODEID").and_then(|id| id.to_str()?.trim().parse().ok());
    let here = index.and_then(|index| counts.get(index)).or(counts.iter().max());
    Some((*here?, STEP))
}

/// `2(x3),1` is 2, 2, 2, 1.
fn repeated(list: &str) -> Option<Vec<usize>> {
    /// More nodes than any machine has.
    const MOST: usize = 1 << 20;
    let mut all = Vec::new();
    for part in list.trim().split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, rest)) => (count, rest.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        if all.len().saturating_add(times) > MOST {
            return None;
        }
        all.extend(std::iter::repeat_n(count.parse::<usize>().ok()?, times));
    }
    Some(all)
}

/// The CPUs of whoever started the ranks: the closest process above this one that has not got the variable that every
/// rank has. The ranks share these CPUs, however each of them is bound.
pub(super) fn launcher_cpus(root: &Path, variable: &str) -> Option<Vec<usize>> {
    /// A rank is wrapped in so many shells at most.
    const DEEPEST: usize = 16;
    let status = |process: &str| kernel_files::text(root.join("proc").join(process).join("status")).ok();
    let field = |status: &str, name: &str| -> Option<String> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    let mut parent = field(&status("self")?, "PPid:")?;
    for _ in 0..DEEPEST {
        let above = status(&parent)?;
        // One of another user does not show its environment, and is no rank of ours.
        let environment =
            kernel_files::read(root.join("proc").join(&parent).join("environ")).unwrap_or_default();
        let prefix = format!("{variable}=");
        let is_rank = environment
            .split(|&byte| byte == 0)
            .any(|entry| entry.starts_with(prefix.as_bytes()));
        if !is_rank {
            return cpu_list(&field(&above, "Cpus_allowed_list:")?);
        }
        parent = field(&above, "PPid:")?;
    }
    None
}

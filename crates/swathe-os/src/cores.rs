//! How many cores this process may really use, and who decided.
//!
//! A pool that starts one worker a core must not count cores that it will not be given. Several parties can narrow
//! the number: the machine (cores online), the affinity of the process, a cgroup CPU quota (version 1 or 2, at any level
//! above the process), a batch system, a launcher that started several ranks on the same cores, the user
//! ([`VARIABLE`]), and, inside a worker, the share that its pool gave it. [`cores`] takes the smallest and names the
//! party, so that a surprising number can be explained to whoever reads the log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use cgroup::{Group, Version};
use grants::Grant;

use crate::kernel_files;

pub mod cgroup;
mod grants;
mod openmp;
#[cfg(test)]
mod tests;

/// The environment variable by which a user says how many cores a program may take to be its own. It replaces what batch
/// system and launcher say; affinity and quotas hold all the same.
pub const VARIABLE: &str = "SWATHE_CORES";

/// Upper bound on a CPU number that a kernel list may name; a damaged list must not make us allocate without end.
/// Linux itself stops at 8192 on the largest configurations.
const CPU_NUMBER_LIMIT: usize = 1 << 16;

/// The period that the kernel uses where `cpu.max` names none, in microseconds (cgroup v2 documentation).
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The share of cores of this process if it is a worker; 0 when nobody set one.
static WORKER_SHARE: AtomicUsize = AtomicUsize::new(0);

/// A number of cores with the party that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Cores that can be kept busy at the same time; at least 1.
    pub count: usize,
    /// The party whose limit is the smallest. Between equal limits, the first in the order of [`CoreSource`].
    pub decided_by: CoreSource,
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.count == 1 { "core" } else { "cores" };
        write!(f, "{} {noun}, decided by {}", self.count, self.decided_by)
    }
}

/// The party that limits the number of cores, from the widest to the closest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreSource {
    /// All cores that are online on this machine: nobody asked for less.
    Online,
    /// The affinity of this process (`taskset`, a cpuset, a batch system or launcher that binds).
    Affinity,
    /// A CPU bandwidth limit of a control group that this process is in, directly or through a parent group.
    CgroupQuota {
        /// CPU time that the group may use in each period, in microseconds.
        quota_us: u64,
        /// Length of a period, in microseconds; never 0.
        period_us: u64,
        /// The file that says so: `cpu.max` (v2) or `cpu.cfs_quota_us` (v1).
        file: PathBuf,
    },
    /// A batch system, through the environment.
    BatchSystem {
        /// Its name.
        system: &'static str,
        /// The variables that say so, with their values.
        says: String,
    },
    /// A launcher that started several ranks on this node, which share their cores.
    LocalRanks {
        /// The ranks.
        ranks: usize,
        /// The cores that they share.
        shared: usize,
        /// The environment variable that counts the ranks.
        variable: &'static str,
    },
    /// The user, by the environment variable [`VARIABLE`].
    Variable,
    /// The share that a pool gave to this worker with [`set_worker_share`].
    WorkerShare,
}

impl fmt::Display for CoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Online => f.write_str("the number of cores online on this machine"),
            Self::Affinity => {
                f.write_str("the CPU affinity of this process (taskset, cpuset, batch system or launcher)")
            }
            Self::CgroupQuota {
                quota_us,
                period_us,
                file,
            } => {
                // Thousandths are the finest quota that the kernel accepts (1 ms in a period of 1 s).
                let cores = (*quota_us as f64 / *period_us as f64 * 1000.0).round() / 1000.0;
                let noun = if cores == 1.0 { "core" } else { "cores" };
                write!(f, "the cgroup CPU quota of {cores} {noun} in {}", file.display())
            }
            Self::BatchSystem { system, says } => write!(f, "{system} ({says})"),
            Self::LocalRanks {
                ranks,
                shared,
                variable,
            } => write!(
                f,
                "the {ranks} ranks on this node that share {shared} cores ({variable}={ranks})"
            ),
            Self::Variable => write!(f, "the environment variable {VARIABLE}"),
            Self::WorkerShare => f.write_str("the share of cores that the pool gave to this worker"),
        }
    }
}

/// The number of cores that this process may use, and who decided.
///
/// The smallest of all [`limits`], and at least 1. A fractional quota is rounded *down* (2.5 cores give 2 workers,
/// since a third would only make all three wait for the next period), but never below 1. A limit that is missing or
/// unreadable is no limit: bad contents of a system file or of a variable are skipped (see [`check_variable`]).
///
/// Reads a few small files of `/proc` and `/sys`: call it when a pool is built, not for every job.
pub fn cores() -> Cores {
    smallest(limits())
}

/// All limits on the number of cores that could be read, in the order of [`CoreSource`].
pub fn limits() -> Vec<Cores> {
    Host {
        root: Path::new("/"),
        affinity: &process_affinity(),
        get: &|name| std::env::var_os(name),
        node: &rustix::system::uname().nodename().to_string_lossy(),
        // Relaxed: the number stands alone, nothing is published with it.
        worker_share: WORKER_SHARE.load(Ordering::Relaxed),
    }
    .limits()
}

/// Checks what the user has put into the environment variable [`VARIABLE`].
///
/// # Errors
/// `InvalidInput`, with a sentence, if it is set to anything but a positive number.
pub fn check_variable() -> io::Result<()> {
    match std::env::var_os(VARIABLE) {
        Some(value) if grants::positive(&value).is_none() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the environment variable {VARIABLE} is {value:?}: it must be a number of cores, 1 or more"
            ),
        )),
        _ => Ok(()),
    }
}

/// Sets the share of cores of this whole process, for workers whose tasks build pools of their own; 0 removes it.
///
/// Without it each of n workers would count all cores of the machine, and nested pools would start n x n workers.
pub fn set_worker_share(cores: usize) {
    WORKER_SHARE.store(cores, Ordering::Relaxed);
}

/// The CPUs on which the calling thread may run, ascending; threads and processes that it starts inherit them.
///
/// Empty only if the kernel refuses to tell.
pub fn affinity() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => members(&set),
        // The kernel refuses a mask shorter than its own: a machine of more CPUs than the mask can hold.
        Err(_) => allowed_list(Path::new("/")).unwrap_or_default(),
    }
}

/// The CPUs on which this process may run, whatever its threads are bound to, ascending.
///
/// A thread that OpenMP, hwloc or the program itself has bound to one core (the main thread, as a rule) says nothing about
/// its process, and a pool that inherits its mask is on one core. So this is what all threads together may use, and what
/// an OpenMP runtime found before it bound the main thread.
pub fn process_affinity() -> Vec<usize> {
    let threads = kernel_files::names("/proc/self/task");
    let mut cpus: Vec<usize> = threads
        .iter()
        .filter_map(|thread| {
            let thread: i32 = thread.parse().ok()?;
            sched_getaffinity(Some(Pid::from_raw(thread)?)).ok()
        })
        .flat_map(|set| members(&set))
        .chain(affinity())
        .chain(openmp::places())
        .collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// Lets the calling thread run wherever its process may, if an OpenMP runtime has bound it before `main`.
pub fn unbind_thread() {
    let cpus = process_affinity();
    if affinity() != cpus {
        let _ = pin_to(&cpus);
    }
}

fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Lets the calling thread run on these CPUs only; threads and processes that it starts later inherit that.
///
/// CPUs that are offline or outside the cpuset of this process are silently left out by the kernel as long as at
/// least one remains; ask [`affinity`] for what was obtained.
///
/// # Errors
/// `InvalidInput` if `cpus` is empty, names a CPU beyond the largest mask (1024 CPUs), or leaves no usable CPU;
/// otherwise what the kernel says.
pub fn pin_to(cpus: &[usize]) -> io::Result<()> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    if cpus.is_empty() {
        return Err(invalid(
            "cannot pin to an empty list of CPUs: name at least one".to_owned(),
        ));
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            let highest = CpuSet::MAX_CPU - 1;
            return Err(invalid(format!(
                "cannot pin to CPU {cpu}: the highest number possible is {highest}"
            )));
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|errno| match errno {
        rustix::io::Errno::INVAL => invalid(format!(
            "cannot pin to CPUs {cpus:?}: this process may use none of them (see `affinity`)"
        )),
        other => other.into(),
    })
}

/// A NUMA node: CPUs that share a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// The number that the kernel gave to the node.
    pub id: usize,
    /// Its CPUs that are online, ascending; empty for a node that has only memory.
    pub cpus: Vec<usize>,
}

/// The NUMA nodes of this machine by ascending number; empty where the kernel does not list any.
pub fn numa_nodes() -> Vec<NumaNode> {
    numa_nodes_under(Path::new("/"))
}

fn numa_nodes_under(root: &Path) -> Vec<NumaNode> {
    let directory = root.join("sys/devices/system/node");
    let mut nodes: Vec<NumaNode> = kernel_files::names(&directory)
        .iter()
        .filter_map(|name| {
            let id = name.strip_prefix("node")?.parse().ok()?;
            let cpus = cpu_list(&kernel_files::text(directory.join(name).join("cpulist")).ok()?)?;
            Some(NumaNode { id, cpus })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

/// All that [`limits`] come from, so that tests can put a made-up machine in its place.
struct Host<'a> {
    /// Where `proc` and `sys` are found.
    root: &'a Path,
    /// CPUs that this process may use; none when unknown.
    affinity: &'a [usize],
    /// Looks an environment variable up.
    get: &'a grants::Lookup<'a>,
    /// The name of this machine.
    node: &'a str,
    /// 0 when this process is no worker.
    worker_share: usize,
}

impl Host<'_> {
    fn limits(&self) -> Vec<Cores> {
        let online = kernel_files::text(self.root.join("sys/devices/system/cpu/online"));
        let online = online.ok().and_then(|list| cpu_list(&list));
        let mut limits = vec![
            (online.map_or(0, |cpus| cpus.len()), CoreSource::Online),
            (self.affinity.len(), CoreSource::Affinity),
        ];
        limits.extend(tightest_quota(self.root).map(|quota| (quota.whole_cores(), quota.into_source())));
        match (self.get)(VARIABLE).as_ref().and_then(grants::positive) {
            Some(asked) => limits.push((asked, CoreSource::Variable)),
            None => self.add_grants(&mut limits),
        }
        limits.push((self.worker_share, CoreSource::WorkerShare));
        limits
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, decided_by)| Cores { count, decided_by })
            .collect()
    }

    /// What batch system and launcher say.
    fn add_grants(&self, limits: &mut Vec<(usize, CoreSource)>) {
        let by_system = |Grant { cores, system, says }| (cores, CoreSource::BatchSystem { system, says });
        limits.extend(grants::of_node(self.get, self.node).map(by_system));
        // Each rank has an equal part of all that the job has on this node, however its launcher binds it: one that is
        // bound to its part is bound by no more, and one that is not leaves the parts of the others alone.
        if let Some((ranks, variable)) = grants::local_ranks(self.get) {
            let smallest = limits
                .iter()
                .filter(|(count, source)| *count > 0 && *source != CoreSource::Affinity);
            let node = smallest.map(|(count, _)| *count).min().unwrap_or(usize::MAX);
            let shared = node.min(self.launchers_cores(variable).unwrap_or(usize::MAX));
            if shared < usize::MAX {
                let source = CoreSource::LocalRanks {
                    ranks,
                    shared,
                    variable,
                };
                limits.push(((shared / ranks).max(1), source));
            }
        }
        limits.extend(grants::of_task(self.get).map(by_system));
    }

    /// How many cores the launcher has, if it has all that this process has: one that the system keeps apart from its
    /// jobs, on a core of its own, tells nothing about them.
    fn launchers_cores(&self, variable: &str) -> Option<usize> {
        let cpus = grants::launcher_cpus(self.root, variable)?;
        let has_ours = self.affinity.iter().all(|cpu| cpus.contains(cpu));
        has_ours.then_some(cpus.len())
    }
}

/// The first of the smallest: who did not lower the number is not named.
fn smallest(limits: Vec<Cores>) -> Cores {
    let first = limits.into_iter().min_by_key(|cores| cores.count);
    first.unwrap_or(Cores {
        count: 1,
        decided_by: CoreSource::Online,
    })
}

/// Parses the kernel's CPU list format, `0-3,8`; an empty list is valid, anything malformed is `None`.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPU_NUMBER_LIMIT {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn allowed_list(root: &Path) -> Option<Vec<usize>> {
    let status = kernel_files::text(root.join("proc/thread-self/status")).ok()?;
    cpu_list(
        status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?,
    )
}

/// A CPU bandwidth limit of one control group. Both numbers are positive.
struct Quota {
    quota_us: u64,
    period_us: u64,
    file: PathBuf,
}

impl Quota {
    fn whole_cores(&self) -> usize {
        usize::try_from(self.quota_us / self.period_us)
            .unwrap_or(usize::MAX)
            .max(1)
    }

    fn is_tighter_than(&self, other: &Self) -> bool {
        // Cross-multiplied: exact, where a division would call 1.5 and 1.9 equal.
        let scaled = |quota: u64, period: u64| u128::from(quota) * u128::from(period);
        scaled(self.quota_us, other.period_us) < scaled(other.quota_us, self.period_us)
    }

    fn into_source(self) -> CoreSource {
        CoreSource::CgroupQuota {
            quota_us: self.quota_us,
            period_us: self.period_us,
            file: self.file,
        }
    }
}

/// The smallest quota on the way from this process's own groups up to the mount points: the kernel enforces every
/// level, so all count.
fn tightest_quota(root: &Path) -> Option<Quota> {
    let quotas = cgroup::groups(root, b"cpu")
        .into_iter()
        .filter_map(|group| quota_of(root, &group));
    quotas.reduce(|tightest, next| {
        if next.is_tighter_than(&tightest) {
            next
        } else {
            tightest
        }
    })
}

/// The quota that this group sets; `None` when it is unlimited or what it says makes no sense.
fn quota_of(root: &Path, group: &Group) -> Option<Quota> {
    let read = |name: &str| {
        let file = group.directory.join(name);
        let text = kernel_files::text(root.join(file.strip_prefix("/").unwrap_or(&file))).ok()?;
        Some((file, text))
    };
    let microseconds = |text: &str| text.trim().parse().ok().filter(|&us: &u64| us > 0);
    match group.version {
        Version::V2 => {
            let (file, text) = read("cpu.max")?;
            let mut words = text.split_whitespace();
            let quota_us = microseconds(words.next()?)?; // "max" is no number, hence no limit
            let period_us = words.next().map_or(Some(DEFAULT_PERIOD_US), microseconds)?;
            Some(Quota {
                quota_us,
                period_us,
                file,
            })
        }
        Version::V1 => {
            let (file, quota) = read("cpu.cfs_quota_us")?;
            let (_, period) = read("cpu.cfs_period_us")?;
            let quota_us = microseconds(&quota)?; // -1 is no unsigned number, hence no limit
            Some(Quota {
                quota_us,
                period_us: microseconds(&period)?,
                file,
            })
        }
    }
}

//! How much more memory this process can take before something refuses or kills it.
//!
//! Three authorities may say no: the machine (free memory, and the commit limit where overcommit is off), every
//! control group from the process's own up to the root, and `RLIMIT_AS` for address space. The first two decide about
//! pages, the third about mappings.

use std::fmt;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};

use crate::{
    cores::cgroup::{self, Group, Version},
    kernel_files,
};

/// Bytes that can still be taken, and what bounds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes left under the tightest limit.
    pub bytes: u64,
    /// The limit that decided.
    pub limited_by: LimitedBy,
}

/// The limits that bound memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitedBy {
    /// `MemAvailable` of the machine.
    FreeMemory,
    /// The machine's commit limit; only where `vm.overcommit_memory` is 2.
    CommitLimit,
    /// A control group.
    Cgroup {
        /// Its directory.
        directory: PathBuf,
        /// Its limit, in bytes.
        limit: u64,
    },
    /// `RLIMIT_AS`.
    AddressSpace {
        /// The soft limit, in bytes.
        limit: u64,
    },
    /// Nothing that could be read: no limit is known.
    Unknown,
}

impl LimitedBy {
    /// What a person can do about it, as the predicate of a sentence ("close other programs ...").
    pub fn remedy(&self) -> &'static str {
        match self {
            LimitedBy::FreeMemory => "free memory by ending other programs, or use a machine with more of it",
            LimitedBy::CommitLimit => "add swap, raise vm.overcommit_ratio, or set vm.overcommit_memory to 0",
            LimitedBy::Cgroup { .. } => {
                "give the job or container a larger memory limit (--mem, --memory, memory.max)"
            }
            LimitedBy::AddressSpace { .. } => "raise the address space limit (`ulimit -v unlimited`)",
            LimitedBy::Unknown => "mount /proc so that the limits can be read",
        }
    }
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitedBy::FreeMemory => f.write_str("the free memory of the machine"),
            LimitedBy::CommitLimit => f.write_str("the machine's commit limit (vm.overcommit_memory is 2)"),
            LimitedBy::Cgroup { directory, limit } => {
                write!(
                    f,
                    "the memory limit of {limit} bytes of control group {}",
                    directory.display()
                )
            }
            LimitedBy::AddressSpace { limit } => {
                write!(
                    f,
                    "the address space limit of this process (RLIMIT_AS, {limit} bytes)"
                )
            }
            LimitedBy::Unknown => f.write_str("no limit that could be read"),
        }
    }
}

/// Bytes of new pages that this process can take now.
///
/// Page cache that the kernel can drop counts as free, for the machine and for control groups alike. The number is a
/// snapshot: other processes may take memory right after.
pub fn page_headroom() -> Headroom {
    let meminfo = kernel_files::text("/proc/meminfo").unwrap_or_default();
    let strict = kernel_files::text("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let machine = machine_headrooms(&meminfo, strict);
    tightest(machine.into_iter().chain(cgroup_headrooms()))
}

/// Bytes of new address space that this process can map now; `None` without `RLIMIT_AS`.
pub fn address_space_headroom() -> Option<Headroom> {
    let limit = getrlimit(Resource::As).current?;
    let status = kernel_files::text("/proc/self/status").unwrap_or_default();
    let used = kib_field(&status, "VmSize:").unwrap_or(0);
    Some(Headroom {
        bytes: limit.saturating_sub(used),
        limited_by: LimitedBy::AddressSpace { limit },
    })
}

/// The tighter of [`page_headroom`] and [`address_space_headroom`]: what a fresh mapping that is then filled can take.
pub fn headroom() -> Headroom {
    tightest(std::iter::once(page_headroom()).chain(address_space_headroom()))
}

/// Physical memory of the machine, in bytes.
pub fn physical_memory() -> u64 {
    let info = rustix::system::sysinfo();
    // The fields are C longs: 64 bits wide on every target that Swathe supports, narrower on some others.
    #[allow(
        clippy::unnecessary_cast,
        reason = "the width of the field depends on the target"
    )]
    let total = info.totalram as u64;
    total.saturating_mul(u64::from(info.mem_unit.max(1)))
}

fn tightest(candidates: impl Iterator<Item = Headroom>) -> Headroom {
    candidates
        .min_by_key(|headroom| headroom.bytes)
        .unwrap_or(Headroom {
            bytes: u64::MAX,
            limited_by: LimitedBy::Unknown,
        })
}

fn machine_headrooms(meminfo: &str, strict_overcommit: bool) -> Vec<Headroom> {
    let available = kib_field(meminfo, "MemAvailable:").map(|bytes| Headroom {
        bytes,
        limited_by: LimitedBy::FreeMemory,
    });
    let commit = kib_field(meminfo, "CommitLimit:")
        .zip(kib_field(meminfo, "Committed_AS:"))
        .filter(|_| strict_overcommit)
        .map(|(limit, used)| Headroom {
            bytes: limit.saturating_sub(used),
            limited_by: LimitedBy::CommitLimit,
        });
    available.into_iter().chain(commit).collect()
}

/// Value in bytes of a line such as `MemAvailable:   123 kB`.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let value = line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?;
    value.checked_mul(1024)
}

/// Headroom in the memory control group of this process and in each of its ancestors.
fn cgroup_headrooms() -> impl Iterator<Item = Headroom> {
    groups().into_iter().filter_map(|group| headroom_in(&group))
}

/// The memory control groups of this process, each hierarchy from the innermost outwards.
fn groups() -> Vec<Group> {
    cgroup::of_this_process(b"memory")
}

/// The control group of this process with the smallest limit on memory, and the limit, if any is below the memory of the
/// machine.
pub fn tightest_group() -> Option<(PathBuf, u64)> {
    let limits = groups()
        .into_iter()
        .filter_map(|group| Some((limit_of(&group)?, group.directory)));
    let tightest = limits.min_by_key(|(limit, _)| *limit);
    tightest
        .filter(|(limit, _)| *limit < physical_memory())
        .map(|(limit, directory)| (directory, limit))
}

fn number(group: &Group, file: &str) -> Option<u64> {
    let text = kernel_files::text(group.directory.join(file)).ok()?;
    text.trim().parse().ok()
}

/// The limit of one group, if it has one.
fn limit_of(group: &Group) -> Option<u64> {
    let files = match group.version {
        Version::V1 => ["memory.limit_in_bytes"].as_slice(),
        Version::V2 => ["memory.max", "memory.high"].as_slice(),
    };
    // "max" (version 2) does not parse and is no limit; version 1 writes a huge number, which never decides.
    files.iter().filter_map(|file| number(group, file)).min()
}

fn headroom_in(group: &Group) -> Option<Headroom> {
    let (usage, reclaimable) = match group.version {
        Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
        Version::V2 => ("memory.current", "inactive_file"),
    };
    let limit = limit_of(group)?;
    let usage = number(group, usage)?;
    let reclaimable = count_in(group, "memory.stat", reclaimable).unwrap_or(0);
    Some(Headroom {
        bytes: limit.saturating_sub(usage.saturating_sub(reclaimable)),
        limited_by: LimitedBy::Cgroup {
            directory: group.directory.clone(),
            limit,
        },
    })
}

/// A number of a file with a line for each, such as `memory.stat`.
fn count_in(group: &Group, file: &str, name: &str) -> Option<u64> {
    stat_field(&kernel_files::text(group.directory.join(file)).ok()?, name)
}

/// Counts the processes that the kernel killed for want of memory, in the control groups of this process.
///
/// A process that dies of SIGKILL does not say who sent it. The kernel counts its own kills in the group of the victim
/// before it sends the signal, so whoever is told of a death finds it counted.
#[derive(Debug)]
pub struct OomKills {
    groups: Vec<Group>,
    /// When this was made, or the last kill was claimed.
    before: Counts,
    /// Kills that were seen and not claimed.
    unclaimed: u64,
}

/// What the groups count, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    kills: u64,
    /// How often each group of version 2 was at its limit.
    limit_hits: Vec<u64>,
}

/// A process was killed by the kernel for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// The control group that was full: its directory, and its limit in bytes. `None` if it was the machine.
    pub group: Option<(PathBuf, u64)>,
}

impl OomKills {
    /// Counts from now on.
    pub fn from_now() -> Self {
        let mut groups = groups();
        groups.retain(|group| {
            let file = match group.version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            group.directory.join(file).exists()
        });
        Self::in_groups(groups)
    }

    fn in_groups(groups: Vec<Group>) -> Self {
        let before = Counts::of(&groups);
        Self {
            groups,
            before,
            unclaimed: 0,
        }
    }

    /// Explains one death by SIGKILL: each kill that the kernel has counted explains one.
    pub fn claim(&mut self) -> Option<OomKill> {
        let now = Counts::of(&self.groups);
        self.unclaimed += now.kills.saturating_sub(self.before.kills);
        if self.unclaimed == 0 {
            return None;
        }
        self.unclaimed -= 1;
        let hits = now.limit_hits.iter().zip(&self.before.limit_hits);
        let full = self
            .groups
            .iter()
            .zip(hits)
            .filter(|(group, (now, before))| match group.version {
                // It does not count how often.
                Version::V1 => was_full(group),
                Version::V2 => now > before,
            });
        let group = full
            .filter_map(|(group, _)| Some((group.directory.clone(), limit_of(group)?)))
            .min_by_key(|(_, limit)| *limit);
        // While there are more to claim, they have the same cause.
        if self.unclaimed == 0 {
            self.before = now;
        } else {
            self.before.kills = now.kills;
        }
        Some(OomKill { group })
    }
}

impl Counts {
    fn of(groups: &[Group]) -> Self {
        // The innermost group is that of the workers, too. Groups above count the kills of others (version 2), or theirs only.
        let mut kills = groups.iter().filter_map(|group| match group.version {
            Version::V1 => count_in(group, "memory.oom_control", "oom_kill"),
            Version::V2 => count_in(group, "memory.events", "oom_kill"),
        });
        let limit_hits = groups.iter().map(|group| match group.version {
            Version::V1 => 0,
            Version::V2 => count_in(group, "memory.events", "oom").unwrap_or(0),
        });
        Self {
            kills: kills.next().unwrap_or(0),
            limit_hits: limit_hits.collect(),
        }
    }
}

/// Whether the most that a group of version 1 ever had is its limit, as far as the kernel tells them apart: each core takes
/// 64 pages at once. (Kernels of today no longer count in `memory.failcnt`.)
fn was_full(group: &Group) -> bool {
    let most = number(group, "memory.max_usage_in_bytes").unwrap_or(0);
    limit_of(group).is_some_and(|limit| most.saturating_add(1 << 20) >= limit)
}

/// The predicate of a sentence about the victim.
impl fmt::Display for OomKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("was killed by the kernel for want of memory: ")?;
        match &self.group {
            Some((directory, limit)) => write!(
                f,
                "the processes of control group {} together may have {} MiB; {}, or start fewer workers",
                directory.display(),
                limit >> 20,
                LimitedBy::Cgroup {
                    directory: directory.clone(),
                    limit: *limit
                }
                .remedy()
            ),
            None => write!(
                f,
                "the machine had none left; {}, or start fewer workers",
                LimitedBy::FreeMemory.remedy()
            ),
        }
    }
}

/// Has the kernel's OOM killer take this process, and those that it starts, before the one that started it: the score of a
/// process is its memory in thousandths of what there is, so a thousand more than the parent's is always more. What goes
/// wrong is ignored: nothing but the choice is lost.
pub fn offer_to_oom_killer() {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let now = kernel_files::text(SCORE).ok();
    let now = now.and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(now) = now {
        let _ = kernel_files::write(SCORE, (now + 1000).min(1000).to_string().as_bytes());
    }
}

/// Value of a line such as `inactive_file 4096` of `memory.stat`.
fn stat_field(stat: &str, name: &str) -> Option<u64> {
    let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::fs;

    use super::*;

    const MEMINFO: &str =
        "MemTotal:  1000 kB\nMemAvailable:   600 kB\nCommitLimit: 500 kB\nCommitted_AS: 450 kB\n";

    #[test]
    fn strict_overcommit_counts_only_where_it_is_on() {
        let loose = tightest(machine_headrooms(MEMINFO, false).into_iter());
        assert_eq!(
            (loose.bytes, loose.limited_by),
            (600 << 10, LimitedBy::FreeMemory)
        );
        let strict = tightest(machine_headrooms(MEMINFO, true).into_iter());
        assert_eq!(
            (strict.bytes, strict.limited_by),
            (50 << 10, LimitedBy::CommitLimit)
        );
    }

    #[test]
    fn unreadable_numbers_are_no_limit() {
        let none = tightest(machine_headrooms("MemAvailable: many kB", true).into_iter());
        assert_eq!((none.bytes, none.limited_by), (u64::MAX, LimitedBy::Unknown));
    }

    /// A made-up group, removed when dropped.
    struct Made(Group);

    impl Made {
        fn new(name: &str, version: Version) -> Self {
            let directory = std::env::temp_dir().join(format!("swathe-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            Self(Group { version, directory })
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.directory.join(name), text).unwrap();
        }

        fn same(&self, version: Version) -> Group {
            Group {
                version,
                directory: self.0.directory.clone(),
            }
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.directory);
        }
    }

    #[test]
    fn each_kill_explains_one_death() {
        for (version, kills) in [
            (Version::V1, "memory.oom_control"),
            (Version::V2, "memory.events"),
        ] {
            let made = Made::new("kills", version);
            let above = Made::new("kills-above", version);
            above.write(kills, "oom_kill 100\n");
            let tell = |hits: u64, count: u64| {
                made.write("memory.max_usage_in_bytes", &format!("{}\n", hits << 24));
                made.write(kills, &format!("under_oom 0\noom {hits}\noom_kill {count}\n"));
            };
            made.write("memory.max", "67108864\n");
            made.write("memory.limit_in_bytes", "67108864\n");
            tell(4, 5); // it was full before, too
            let mut watch = OomKills::in_groups(vec![made.same(version), above.same(version)]);
            assert_eq!(watch.claim(), None);
            tell(5, 7);
            let kill = OomKill {
                group: Some((made.0.directory.clone(), 64 << 20)),
            };
            assert_eq!(watch.claim(), Some(kill.clone()));
            assert_eq!(watch.claim(), Some(kill.clone()));
            assert_eq!(watch.claim(), None);
            assert!(kill.to_string().contains("together may have 64 MiB"), "{kill}");
            // A kill without a full group: the machine was full.
            made.write("memory.max_usage_in_bytes", "4096\n");
            made.write(kills, "oom 5\noom_kill 8\n");
            assert_eq!(watch.claim(), Some(OomKill { group: None }));
        }
    }

    /// A process that takes more than its group may have; only where a group can be made.
    #[test]
    fn a_kill_by_the_kernel_is_counted() {
        let (version, root, limit) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => (Version::V1, "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => (Version::V2, "/sys/fs/cgroup", "memory.max"),
        };
        let directory = Path::new(root).join(format!("swathe-os-test-{}", std::process::id()));
        let made = fs::create_dir(&directory)
            .and_then(|()| fs::write(directory.join(limit), (32 << 20).to_string()))
            .and_then(|()| fs::metadata(directory.join("memory.stat")));
        if let Err(e) = made {
            let _ = fs::remove_dir(&directory);
            return eprintln!("kills are not tested: no control group can be made: {e}");
        }
        // Where there is swap: none of it.
        let _ = fs::write(
            directory.join("memory.memsw.limit_in_bytes"),
            (32 << 20).to_string(),
        );
        let _ = fs::write(directory.join("memory.swap.max"), "0");
        let group = Group {
            version,
            directory: directory.clone(),
        };
        let mut watch = OomKills::in_groups(vec![group]);
        // A line without an end.
        let hoard = format!(
            "echo 0 > {}/cgroup.procs && exec tail /dev/zero",
            directory.display()
        );
        let ended = std::process::Command::new("sh")
            .args(["-c", &hoard])
            .status()
            .unwrap();
        let (claimed, again) = (watch.claim(), watch.claim());
        while fs::remove_dir(&directory).is_err() {
            std::thread::yield_now(); // the dead leave a moment after they were waited for
        }
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(9),
            "{ended}"
        );
        let group = Some((directory, 32 << 20));
        assert_eq!((claimed, again), (Some(OomKill { group }), None));
    }

    #[test]
    fn without_groups_nothing_is_explained() {
        assert_eq!(OomKills::in_groups(Vec::new()).claim(), None);
        let nowhere = Group {
            version: Version::V2,
            directory: "/nowhere".into(),
        };
        assert_eq!(OomKills::in_groups(vec![nowhere]).claim(), None);
    }

    #[test]
    fn a_group_directory_gives_limit_minus_use_plus_cache() {
        let made = Made::new("cgroup", Version::V2);
        made.write("memory.max", "max\n");
        made.write("memory.high", "1000\n");
        made.write("memory.current", "700\n");
        made.write("memory.stat", "anon 500\ninactive_file 200\n");
        made.write("memory.limit_in_bytes", "600\n");
        made.write("memory.usage_in_bytes", "900\n");
        assert_eq!(headroom_in(&made.0).unwrap().bytes, 500);
        let v1 = headroom_in(&made.same(Version::V1)).unwrap();
        assert_eq!(v1.bytes, 0, "use above the limit is no room, not an overflow");
        assert_eq!(
            v1.limited_by.to_string(),
            format!(
                "the memory limit of 600 bytes of control group {}",
                made.0.directory.display()
            )
        );
    }

    #[test]
    fn this_process_has_room_below_the_physical_memory() {
        let headroom = page_headroom();
        assert!(
            headroom.bytes > 0 && headroom.bytes <= physical_memory(),
            "{headroom:?}"
        );
    }
}

//! How much more memory this process can take before something refuses or kills it.
//!
//! Three authorities may say no: the machine (free memory, and the commit limit where overcommit is off), every
//! control group from the process's own up to the root, and `RLIMIT_AS` for address space. The first two decide about
//! pages, the third about mappings.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

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
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let machine = machine_headrooms(&meminfo, strict);
    tightest(machine.into_iter().chain(cgroup_headrooms()))
}

/// Bytes of new address space that this process can map now; `None` without `RLIMIT_AS`.
pub fn address_space_headroom() -> Option<Headroom> {
    let limit = getrlimit(Resource::As).current?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
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
fn cgroup_headrooms() -> Vec<Headroom> {
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for hierarchy in [Hierarchy::V2, Hierarchy::V1] {
        let Some(path) = hierarchy.membership(&memberships) else {
            continue;
        };
        let Some((root, mount)) = hierarchy.mount(&mounts) else {
            continue;
        };
        // Inside a container the group's path may be given from outside the mounted part.
        let relative = path.strip_prefix(&root).unwrap_or(Path::new(""));
        let own = mount.join(relative);
        let levels = own.ancestors().take_while(|level| level.starts_with(&mount));
        found.extend(levels.filter_map(|level| hierarchy.headroom(level)));
    }
    found
}

/// The two generations of control groups; a machine may run both, with memory in either.
#[derive(Clone, Copy)]
enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    /// Path of this process's group, without the leading slash, from `/proc/self/cgroup`.
    fn membership(self, memberships: &str) -> Option<PathBuf> {
        memberships.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let ours = match self {
                Hierarchy::V1 => controllers.split(',').any(|controller| controller == "memory"),
                Hierarchy::V2 => controllers.is_empty(),
            };
            ours.then(|| PathBuf::from(path.trim_start_matches('/')))
        })
    }

    /// The root inside the hierarchy (no leading slash) and the mount point, from `/proc/self/mountinfo`.
    fn mount(self, mounts: &str) -> Option<(PathBuf, PathBuf)> {
        mounts.lines().find_map(|line| {
            let (placement, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (fs_type, _, options) = (kind.next()?, kind.next()?, kind.next()?);
            let ours = match self {
                Hierarchy::V1 => fs_type == "cgroup" && options.split(',').any(|option| option == "memory"),
                Hierarchy::V2 => fs_type == "cgroup2",
            };
            let mut placement = placement.split(' ').skip(3);
            let (root, point) = (placement.next()?, placement.next()?);
            ours.then(|| (PathBuf::from(root.trim_start_matches('/')), PathBuf::from(point)))
        })
    }

    fn headroom(self, directory: &Path) -> Option<Headroom> {
        let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let (limits, usage, reclaimable) = match self {
            Hierarchy::V1 => (
                ["memory.limit_in_bytes"].as_slice(),
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            Hierarchy::V2 => (
                ["memory.max", "memory.high"].as_slice(),
                "memory.current",
                "inactive_file",
            ),
        };
        // "max" (version 2) does not parse and is no limit; version 1 writes a huge number, which never decides.
        let limit = limits
            .iter()
            .filter_map(|file| read(file)?.trim().parse::<u64>().ok())
            .min()?;
        let usage = read(usage)?.trim().parse::<u64>().ok()?;
        let reclaimable = read("memory.stat")
            .and_then(|stat| stat_field(&stat, reclaimable))
            .unwrap_or(0);
        Some(Headroom {
            bytes: limit.saturating_sub(usage.saturating_sub(reclaimable)),
            limited_by: LimitedBy::Cgroup {
                directory: directory.to_owned(),
                limit,
            },
        })
    }
}

/// Value of a line such as `inactive_file 4096` of `memory.stat`.
fn stat_field(stat: &str, name: &str) -> Option<u64> {
    let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn groups_are_found_in_both_generations() {
        let memberships = "5:cpu,cpuacct:/a\n4:memory:/jobs/7\n0::/system/app\n";
        assert_eq!(Hierarchy::V1.membership(memberships), Some("jobs/7".into()));
        assert_eq!(Hierarchy::V2.membership(memberships), Some("system/app".into()));
        let mounts = "31 2 0:9 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      35 31 0:32 /jobs /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            Hierarchy::V1.mount(mounts),
            Some(("jobs".into(), "/sys/fs/cgroup/memory".into()))
        );
        assert_eq!(
            Hierarchy::V2.mount(mounts),
            Some(("".into(), "/sys/fs/cgroup/unified".into()))
        );
    }

    #[test]
    fn a_group_directory_gives_limit_minus_use_plus_cache() {
        let directory = std::env::temp_dir().join(format!("swathe-cgroup-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.high", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 500\ninactive_file 200\n");
        let v2 = Hierarchy::V2.headroom(&directory);
        write("memory.limit_in_bytes", "600\n");
        write("memory.usage_in_bytes", "900\n");
        let v1 = Hierarchy::V1.headroom(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(v2.unwrap().bytes, 500);
        let v1 = v1.unwrap();
        assert_eq!(v1.bytes, 0, "use above the limit is no room, not an overflow");
        assert_eq!(
            v1.limited_by.to_string(),
            format!(
                "the memory limit of 600 bytes of control group {}",
                directory.display()
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

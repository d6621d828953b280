//! The limits of made-up machines, and affinity on the real one.

use super::*;

/// A made-up file system, removed when dropped.
struct Tree(PathBuf);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tree = Self(std::env::temp_dir().join(format!("swathe-cores-{}-{number}", std::process::id())));
        for (path, contents) in files {
            let path = tree.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        tree
    }

    fn host(&self) -> Host<'_> {
        Host {
            root: &self.0,
            affinity: 64,
            slurm: None,
            worker_share: 0,
        }
    }

    fn cores(&self) -> Cores {
        self.host().cores()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ONLINE: (&str, &str) = ("sys/devices/system/cpu/online", "0-63\n");
const V2_MOUNT: (&str, &str) = (
    "proc/self/mountinfo",
    "24 30 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
);
const V1_MOUNT: (&str, &str) = (
    "proc/self/mountinfo",
    "25 30 0:23 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n\
     26 30 0:24 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
);

fn v2(group: &'static str, files: &[(&'static str, &'static str)]) -> Tree {
    let mut all = vec![ONLINE, V2_MOUNT, ("proc/self/cgroup", group)];
    all.extend(files);
    Tree::new(&all)
}

fn v1(group: &'static str, files: &[(&'static str, &'static str)]) -> Tree {
    let mut all = vec![ONLINE, V1_MOUNT, ("proc/self/cgroup", group)];
    all.extend(files);
    Tree::new(&all)
}

fn quota(quota_us: u64, period_us: u64, file: &str) -> CoreSource {
    CoreSource::CgroupQuota {
        quota_us,
        period_us,
        file: file.into(),
    }
}

#[test]
fn v2_takes_the_tightest_level_up_to_the_mount() {
    let files = [
        ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/job/cpu.max", "250000 100000\n"),
        ("sys/fs/cgroup/job/step/cpu.max", "800000 100000\n"),
        ("sys/fs/cgroup/other/cpu.max", "100000 100000\n"),
    ];
    let cores = v2("0::/job/step\n", &files).cores();
    let decided_by = quota(250_000, 100_000, "/sys/fs/cgroup/job/cpu.max");
    assert_eq!(cores, Cores { count: 2, decided_by });
    assert_eq!(
        cores.to_string(),
        "2 cores, decided by the cgroup CPU quota of 2.5 cores in /sys/fs/cgroup/job/cpu.max"
    );
}

#[test]
fn v1_strips_the_group_that_the_container_sees_as_its_root() {
    let files = [
        ("sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n"),
    ];
    let cores = v1("3:cpuset:/docker/abc\n2:cpu,cpuacct:/docker/abc/inner\n", &files).cores();
    let decided_by = quota(150_000, 50_000, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us");
    assert_eq!(cores, Cores { count: 3, decided_by });
}

#[test]
fn a_mount_that_does_not_show_our_group_sets_no_limit() {
    let limit = [
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ];
    assert_eq!(v1("2:cpu,cpuacct:/docker/xyz\n", &limit).cores().count, 64);
    assert_eq!(v1("2:cpu,cpuacct:/docker/abc\n", &limit).cores().count, 1);
    assert_eq!(v1("2:cpuacct:/docker/abc\n", &limit).cores().count, 64);
    let outside = v2("0::/../peer\n", &[("sys/fs/cgroup/cpu.max", "100000 100000")]);
    assert_eq!(outside.cores().count, 64);
}

#[test]
fn a_quota_below_one_core_still_gives_one() {
    let tree = v2("0::/\n", &[("sys/fs/cgroup/cpu.max", "1000 1000000\n")]);
    let cores = tree.cores();
    assert_eq!(cores.count, 1);
    assert!(cores.to_string().contains("quota of 0.001 cores"), "{cores}");
}

#[test]
fn equal_whole_cores_name_the_tighter_quota() {
    let files = [
        ("sys/fs/cgroup/cpu.max", "190000 100000"),
        ("sys/fs/cgroup/a/cpu.max", "150000 100000"),
    ];
    let decided_by = v2("0::/a\n", &files).cores().decided_by;
    assert_eq!(decided_by, quota(150_000, 100_000, "/sys/fs/cgroup/a/cpu.max"));
}

#[test]
fn bad_contents_are_no_limit() {
    for text in [
        "",
        "\n",
        "max",
        "max 100000",
        "-1 100000",
        "0 100000",
        "100000 0",
        "100000 x",
        "1e5",
        "\0",
    ] {
        let tree = v2("0::/\n", &[("sys/fs/cgroup/cpu.max", text)]);
        assert_eq!(
            tree.cores(),
            Cores {
                count: 64,
                decided_by: CoreSource::Online
            },
            "cpu.max {text:?}"
        );
    }
    for (quota, period) in [
        ("x", "100000"),
        ("100000", "0"),
        ("100000", "-1"),
        ("100000", ""),
        ("0", "1"),
    ] {
        let files = [
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", period),
        ];
        let tree = v1("2:cpu:/docker/abc\n", &files);
        assert_eq!(tree.cores().count, 64, "quota {quota:?}, period {period:?}");
    }
    let limit = ("sys/fs/cgroup/cpu.max", "100000 100000");
    assert_eq!(v2("0::/", &[limit]).cores().count, 1);
    for group in ["", "0", "0::", "0::relative", ":::::", "\u{fffd}"] {
        assert_eq!(v2(group, &[limit]).cores().count, 64, "cgroup {group:?}");
    }
    for mounts in [
        "",
        "- - - - -",
        "24 30 0:22 / /sys/fs/cgroup rw",
        "a b c / / - cgroup\n",
    ] {
        let tree = Tree::new(&[
            ONLINE,
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "0::/\n"),
            limit,
        ]);
        assert_eq!(tree.cores().count, 64, "mountinfo {mounts:?}");
    }
}

#[test]
fn a_period_left_out_is_the_kernels_default() {
    let tree = v2("0::/\n", &[("sys/fs/cgroup/cpu.max", "300000\n")]);
    assert_eq!(tree.cores().count, 3);
}

#[test]
fn the_smallest_party_decides_and_the_widest_wins_a_tie() {
    let tree = v2("0::/\n", &[("sys/fs/cgroup/cpu.max", "800000 100000\n")]);
    let decide = |affinity, slurm: Option<&str>, worker_share| {
        let host = Host {
            affinity,
            slurm: slurm.map(OsString::from),
            worker_share,
            ..tree.host()
        };
        let cores = host.cores();
        (cores.count, cores.decided_by)
    };
    let cgroup = quota(800_000, 100_000, "/sys/fs/cgroup/cpu.max");
    assert_eq!(decide(64, None, 0), (8, cgroup.clone()));
    assert_eq!(decide(8, None, 0), (8, CoreSource::Affinity));
    assert_eq!(decide(64, Some(" 4 "), 0), (4, CoreSource::Slurm));
    assert_eq!(decide(64, Some("4"), 2), (2, CoreSource::WorkerShare));
    assert_eq!(decide(1, Some("4"), 2), (1, CoreSource::Affinity));
    for bad in ["", "0", "-3", "four", "99999999999999999999999"] {
        assert_eq!(
            decide(64, Some(bad), 0),
            (8, cgroup.clone()),
            "SLURM_CPUS_PER_TASK={bad}"
        );
    }
}

#[test]
fn a_machine_that_tells_nothing_has_one_core() {
    let tree = Tree::new(&[]);
    assert_eq!(
        Host {
            affinity: 0,
            ..tree.host()
        }
        .cores()
        .count,
        1
    );
    assert_eq!(
        tree.cores(),
        Cores {
            count: 64,
            decided_by: CoreSource::Affinity
        }
    );
}

#[test]
fn mount_points_with_blanks_are_found() {
    let tree = Tree::new(&[
        ONLINE,
        (
            "proc/self/mountinfo",
            "24 30 0:22 / /odd\\040place\\134x rw - cgroup2 none rw\n",
        ),
        ("proc/self/cgroup", "0::/\n"),
        ("odd place\\x/cpu.max", "500000 100000\n"),
    ]);
    assert_eq!(tree.cores().count, 5);
}

#[test]
fn cpu_lists() {
    assert_eq!(cpu_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
    assert_eq!(cpu_list("5,1-2,2"), Some(vec![1, 2, 5]));
    assert_eq!(cpu_list("\n"), Some(vec![]));
    for bad in ["3-1", "a", "1-", "-1", "0-18446744073709551615", "0-65536", "1 2"] {
        assert_eq!(cpu_list(bad), None, "{bad:?}");
    }
}

#[test]
fn numa_nodes_are_sorted_and_odd_entries_skipped() {
    let tree = Tree::new(&[
        ("sys/devices/system/node/node10/cpulist", "4-5\n"),
        ("sys/devices/system/node/node2/cpulist", "\n"),
        ("sys/devices/system/node/node0/cpulist", "0-3\n"),
        ("sys/devices/system/node/node3/cpulist", "rubbish\n"),
        ("sys/devices/system/node/possible", "0-10\n"),
        ("sys/devices/system/node/nodeX/cpulist", "9\n"),
    ]);
    let found: Vec<_> = numa_nodes_under(&tree.0)
        .into_iter()
        .map(|node| (node.id, node.cpus))
        .collect();
    assert_eq!(found, [(0, vec![0, 1, 2, 3]), (2, vec![]), (10, vec![4, 5])]);
    assert!(numa_nodes_under(&tree.0.join("nowhere")).is_empty());
}

#[test]
fn the_fallback_of_affinity_agrees_with_the_call() {
    assert_eq!(allowed_list(Path::new("/")), Some(affinity()));
}

/// In a thread of its own, which takes its mask away with it.
#[test]
fn pinning_to_one_cpu_is_seen_by_affinity_and_cores() {
    std::thread::spawn(|| {
        let last = *affinity().last().unwrap();
        pin_to(&[last]).unwrap();
        assert_eq!(affinity(), [last]);
        assert_eq!(cores().count, 1);
    })
    .join()
    .unwrap();
}

#[test]
fn impossible_pins_are_refused_and_change_nothing() {
    let before = affinity();
    for cpus in [&[][..], &[CpuSet::MAX_CPU], &[usize::MAX, 0]] {
        assert_eq!(
            pin_to(cpus).unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "{cpus:?}"
        );
    }
    if let Some(absent) = (0..CpuSet::MAX_CPU).rev().find(|cpu| !before.contains(cpu)) {
        let error = pin_to(&[absent]).unwrap_err();
        assert!(error.to_string().contains(&absent.to_string()), "{error}");
    }
    assert_eq!(affinity(), before);
}

/// The only test that touches the process-wide share; a share of 1 also bounds the pinning test as it expects.
#[test]
fn a_worker_share_narrows_the_process_until_removed() {
    set_worker_share(1);
    assert_eq!(cores().count, 1);
    set_worker_share(0);
    assert_ne!(cores().decided_by, CoreSource::WorkerShare);
}

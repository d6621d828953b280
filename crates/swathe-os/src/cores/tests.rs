//! The limits of made-up machines, and affinity on the real one.

use std::ffi::OsString;

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

    /// What a process that may use so many CPUs finds with this environment.
    fn cores_with(&self, cpus: usize, environment: &[(&str, &str)], worker_share: usize) -> Cores {
        let affinity: Vec<usize> = (0..cpus).collect();
        let value = |name: &str| environment.iter().find(|(key, _)| *key == name);
        let host = Host {
            root: &self.0,
            affinity: &affinity,
            get: &|name| value(name).map(|(_, value)| OsString::from(value)),
            node: "node7.cluster",
            worker_share,
        };
        smallest(host.limits())
    }

    fn cores(&self) -> Cores {
        self.cores_with(64, &[], 0)
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
    let slurm = |cpus: &str| CoreSource::BatchSystem {
        system: "Slurm",
        says: format!("SLURM_CPUS_PER_TASK={cpus}"),
    };
    let decide = |affinity, cpus: Option<&str>, worker_share| {
        let environment: Vec<_> = cpus
            .into_iter()
            .map(|cpus| ("SLURM_CPUS_PER_TASK", cpus))
            .collect();
        let cores = tree.cores_with(affinity, &environment, worker_share);
        (cores.count, cores.decided_by)
    };
    let cgroup = quota(800_000, 100_000, "/sys/fs/cgroup/cpu.max");
    assert_eq!(decide(64, None, 0), (8, cgroup.clone()));
    assert_eq!(decide(8, None, 0), (8, CoreSource::Affinity));
    assert_eq!(decide(64, Some(" 4 "), 0), (4, slurm("4")));
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
    assert_eq!(tree.cores_with(0, &[], 0).count, 1);
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
fn a_thread_that_is_bound_does_not_bind_its_process() {
    let all = process_affinity();
    std::thread::spawn(move || {
        let last = *affinity().last().unwrap();
        pin_to(&[last]).unwrap();
        assert_eq!(affinity(), [last]);
        assert_eq!(process_affinity(), all);
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

/// On a machine of 64 cores: the CPUs of the process, the environment, the cores, and a part of who decided.
type Case<'a> = (usize, &'a [(&'a str, &'a str)], usize, &'a str);

fn assert_heard(table: &[Case<'_>]) {
    let tree = Tree::new(&[ONLINE]);
    for (cpus, environment, count, says) in table {
        let found = tree.cores_with(*cpus, environment, 0);
        assert_eq!(found.count, *count, "{cpus} CPUs, {environment:?}: {found}");
        assert!(found.to_string().contains(says), "{environment:?}: {found}");
    }
}

#[test]
fn batch_systems_are_heard() {
    const PBS: [(&str, &str); 2] = [("PBS_NP", "24"), ("PBS_NUM_NODES", "4")];
    const LSF: [(&str, &str); 2] = [("LSB_DJOB_NUMPROC", "12"), ("LSB_MCPU_HOSTS", "node6 4 node7 8")];
    const SLURM: [(&str, &str); 2] = [("SLURM_CPUS_ON_NODE", "12"), ("SLURM_CPUS_PER_TASK", "3")];
    assert_heard(&[
        (64, &SLURM[1..], 3, "Slurm (SLURM_CPUS_PER_TASK=3)"),
        (64, &SLURM[..1], 12, "Slurm (SLURM_CPUS_ON_NODE=12)"),
        (64, &SLURM, 3, "PER_TASK=3"),
        (2, &SLURM, 2, "affinity"),
        (64, &[("NSLOTS", "8")], 8, "Grid Engine (NSLOTS=8)"),
        (64, &[("NSLOTS", "8"), ("NHOSTS", "1")], 8, "(NSLOTS=8)"),
        (64, &[("NSLOTS", "24"), ("NHOSTS", "3")], 8, "24 on NHOSTS=3"),
        (64, &[("NSLOTS", "2"), ("NHOSTS", "3")], 1, "2 on NHOSTS=3"),
        (64, &[("PBS_NUM_PPN", "6")], 6, "PBS (PBS_NUM_PPN=6)"),
        (64, &PBS[..1], 24, "PBS (PBS_NP=24)"),
        (64, &PBS, 6, "24 on PBS_NUM_NODES=4"),
        (64, &[("NCPUS", "5")], 5, "PBS (NCPUS=5)"),
        (64, &LSF[..1], 12, "LSF (LSB_DJOB_NUMPROC=12)"),
        (64, &LSF, 8, "LSF (LSB_MCPU_HOSTS: 8 on node7)"),
        (64, &[("LSB_MCPU_HOSTS", "a.x 4 b.x 3")], 3, "3 on b.x"),
        (
            64,
            &[("NSLOTS", "0"), ("NCPUS", "-1"), ("PBS_NP", "x")],
            64,
            "online",
        ),
        (64, &[("LSB_MCPU_HOSTS", "a b c 0 d")], 64, "online"),
    ]);
}

#[test]
fn ranks_on_the_same_cores_are_heard() {
    const OPEN_MPI: (&str, &str) = ("OMPI_COMM_WORLD_LOCAL_SIZE", "4");
    const STEP: [(&str, &str); 3] = [
        ("SLURM_STEP_TASKS_PER_NODE", "2(x3),4"),
        ("SLURM_NODEID", "3"),
        ("SLURM_CPUS_ON_NODE", "8"),
    ];
    const ASKED: [(&str, &str); 2] = [("SLURM_NTASKS_PER_NODE", "4"), ("SLURM_STEP_ID", "0")];
    assert_heard(&[
        (64, &[OPEN_MPI], 16, "4 ranks on this node that share 64 cores"),
        (64, &[("MPI_LOCALNRANKS", "3")], 21, "MPI_LOCALNRANKS=3"),
        (64, &[("MV2_COMM_WORLD_LOCAL_SIZE", "64")], 1, "MV2"),
        (64, &[("PMI_LOCAL_SIZE", "100")], 1, "PMI_LOCAL_SIZE=100"),
        (64, &[("OMPI_COMM_WORLD_LOCAL_SIZE", "1")], 64, "online"),
        (8, &[OPEN_MPI], 8, "affinity"),
        (32, &[OPEN_MPI], 16, "4 ranks"),
        (64, &[("NSLOTS", "16"), OPEN_MPI], 4, "share 16 cores"),
        (64, &[OPEN_MPI, ("SLURM_STEP_TASKS_PER_NODE", "1")], 16, "OMPI"),
        (
            64,
            &STEP,
            2,
            "4 ranks on this node that share 8 cores (SLURM_STEP_TASKS_PER_NODE=4)",
        ),
        (64, &[STEP[0], ("SLURM_NODEID", "1")], 32, "2 ranks"),
        (64, &STEP[..1], 16, "4 ranks"),
        (64, &[("SLURM_STEP_TASKS_PER_NODE", "2(x")], 64, "online"),
        (
            64,
            &[("SLURM_STEP_TASKS_PER_NODE", "2(x99999999999)")],
            64,
            "online",
        ),
        (64, &ASKED, 16, "SLURM_NTASKS_PER_NODE=4"),
        // In a batch script: asked for, and not started.
        (64, &ASKED[..1], 64, "online"),
    ]);
}

#[test]
fn the_user_has_the_last_word_within_what_is_allowed() {
    const JOB: [(&str, &str); 2] = [("NSLOTS", "2"), ("MPI_LOCALNRANKS", "64")];
    assert_heard(&[
        (64, &[(VARIABLE, "10"), JOB[0], JOB[1]], 10, "SWATHE_CORES"),
        (8, &[(VARIABLE, "10"), JOB[0]], 8, "affinity"),
        (64, &[(VARIABLE, "many"), JOB[0]], 2, "NSLOTS"),
    ]);
}

#[test]
fn ranks_share_what_their_launcher_has() {
    const RANK: &str = "MPI_LOCALNRANKS";
    let processes = |launcher: &'static str| {
        Tree::new(&[
            ONLINE,
            ("proc/self/status", "Name:\trank\nPPid:\t20\n"),
            // A shell of the rank's own, which is bound as the rank is.
            ("proc/20/status", "PPid:\t10\nCpus_allowed_list:\t0-7\n"),
            ("proc/20/environ", "HOME=/\0MPI_LOCALNRANKS=4\0"),
            ("proc/10/status", launcher),
            ("proc/10/environ", "HOME=/\0XMPI_LOCALNRANKS=4\0"),
        ])
    };
    let cores = |launcher, cpus| processes(launcher).cores_with(cpus, &[(RANK, "4")], 0).count;
    assert_eq!(cores("PPid:\t1\nCpus_allowed_list:\t0-7\n", 8), 2);
    assert_eq!(cores("PPid:\t1\nCpus_allowed_list:\t0-7\n", 1), 1);
    assert_eq!(cores("PPid:\t1\nCpus_allowed_list:\t0-31\n", 8), 8);
    assert_eq!(cores("PPid:\t1\nCpus_allowed_list:\t0\n", 8), 8, "kept apart");
    assert_eq!(cores("", 8), 8, "unreadable");
}

#[test]
fn a_bad_number_of_the_user_is_quoted() {
    // Nothing sets it in a test: what is checked is what everybody has.
    assert!(check_variable().is_ok());
    assert!(grants::positive(&OsString::from("0")).is_none());
    assert_eq!(grants::positive(&OsString::from(" 3 ")), Some(3));
}

//! Machines that have little left: of files, processes, address space, `/dev/shm`, memory. Each program here either works or
//! is refused in words; none panics, hangs, or dies.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use swathe_tests::{until, watch};

const NEIGHBOUR: &str = env!("CARGO_BIN_EXE_neighbour");

/// What a program said, by what it said it of.
type Said = Vec<(String, String)>;

/// Runs a program of `neighbour.rs`; `None` if the test cannot be made here.
fn run(arguments: &[&str]) -> Option<Said> {
    said_by(Command::new(NEIGHBOUR).args(arguments))
}

/// Runs one where these calls are denied: see `deny.rs`.
fn run_denied(denied: &[&str], arguments: &[&str]) -> Option<Said> {
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_deny"));
    said_by(sandbox.args(denied).args(["--", NEIGHBOUR]).args(arguments))
}

fn said_by(program: &mut Command) -> Option<Said> {
    let _watch = watch();
    let arguments: Vec<_> = program.get_args().map(OsStr::to_owned).collect();
    let output = program.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if let Some(why) = said.strip_prefix("skipped: ") {
        let _ = write!(io::stderr(), "{arguments:?} is not tested: {why}");
        return None;
    }
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{said}{complained}",
        output.status
    );
    assert!(
        !complained.contains("panicked"),
        "{arguments:?}: {said}{complained}"
    );
    let lines = said.lines().filter_map(|line| line.split_once(": "));
    Some(
        lines
            .map(|(what, how)| (what.to_owned(), how.to_owned()))
            .collect(),
    )
}

/// What became of something.
fn of<'a>(said: &'a [(String, String)], what: &str) -> &'a str {
    let found = said.iter().find(|(of, _)| of == what);
    found.map_or_else(|| panic!("{what} is not in {said:?}"), |(_, how)| how)
}

/// It works, or is refused in words.
fn assert_words(said: &[(String, String)]) {
    for (what, how) in said {
        let refused = how.strip_prefix("refused: ");
        assert!(
            how == "works" || refused.is_some_and(|words| words.len() > 20),
            "{what}: {how}"
        );
    }
}

#[test]
fn no_more_files_may_be_opened() {
    let said = run(&["files"]).expect("everybody can lower limits");
    assert_eq!(said.len(), 33);
    // A soft limit is raised as far as the hard one allows.
    for (what, how) in &said {
        assert_eq!(how, "works", "{what}");
    }
}

#[test]
fn no_more_files_may_be_opened_when_a_worker_dies() {
    let said = run(&["later_files"]).expect("everybody can lower limits");
    assert_words(&said);
    assert_eq!(of(&said, "numbers"), "works");
    assert_eq!(of(&said, "texts"), "works");
    assert!(
        of(&said, "another pool").contains("open files, and it may have 100: raise the hard limit"),
        "{said:#?}"
    );
    assert_eq!(of(&said, "a new pool"), "works");
}

#[test]
fn no_more_processes_may_be_started() {
    let mut refusals = 0;
    for most in 1..=8 {
        let most = most.to_string();
        let Some(said) = run(&["processes", &most]) else {
            return;
        };
        assert_words(&said);
        refusals += u32::from(of(&said, &format!("{most} processes")) != "works");
        assert_eq!(of(&said, "as many as before"), "works");
    }
    assert!(
        (1..8).contains(&refusals),
        "this one, the zygote, two threads and two workers need 6: {refusals}"
    );
}

#[test]
fn little_address_space() {
    let mut works = 0;
    for more in [1, 8, 64, 256, 1024, 8192] {
        let said = run(&["address_space", &more.to_string()]).expect("everybody can lower limits");
        assert_words(&said);
        works += u32::from(of(&said, &format!("{more} MiB more")) == "works");
    }
    assert!(works > 0);
}

#[test]
fn a_full_dev_shm() {
    let Some(said) = run(&["shm"]) else { return };
    assert_eq!((of(&said, "pools"), of(&said, "64 MiB")), ("works", "works"));
    assert_eq!(of(&said, "names"), "1");
}

/// What a sandbox may forbid, and whether pools run all the same; if not, the call is named.
#[test]
fn calls_that_a_filter_forbids() {
    let table = [
        ("memfd_noexec_seal=EPERM", None),
        ("memfd_noexec_seal=ENOSYS", None),
        ("memfd_noexec_seal=EINVAL", None),
        ("memfd_create=EPERM", Some("memfd_create failed")),
        ("memfd_create=ENOSYS", Some("memfd_create failed")),
        ("add_seals=EPERM", Some("fcntl(F_ADD_SEALS)")),
        ("add_seals=EINVAL", Some("fcntl(F_ADD_SEALS)")),
        ("get_seals=EINVAL", Some("fcntl(F_GET_SEALS)")),
        ("punch_hole=EPERM", None),
        ("fallocate=ENOSYS", None),
        ("populate_write=EINVAL", None),
        ("populate_write=EPERM", None),
        ("collapse=EPERM", None),
        ("madvise=ENOSYS", None),
        ("mbind=EPERM", None),
        ("set_affinity=EPERM", None),
        ("get_affinity=EPERM", None),
        ("pidfd_open=EPERM", None),
        ("pidfd_send_signal=ENOSYS", None),
        ("close_range=EPERM", None),
    ];
    for (denied, refused) in table {
        let Some(said) = run_denied(&[denied], &["sandbox"]) else {
            return;
        };
        let all = ["pools", "a death", "arrays"].map(|what| of(&said, what));
        match refused {
            None => assert_eq!(all, ["works"; 3], "{denied}"),
            Some(call) => assert!(
                all.iter()
                    .all(|how| how.contains(call) && how.contains("seccomp filter")),
                "{denied}: {all:#?}"
            ),
        }
    }
    let both = run_denied(&["madvise=EPERM", "fallocate=ENOSYS"], &["sandbox"]).expect("it went before");
    let how = of(&both, "pools");
    assert!(
        how.contains("both madvise(MADV_POPULATE_WRITE)") && how.contains("and fallocate"),
        "{how}"
    );
}

/// Where nothing keeps two jobs from writing one output, nobody writes one by accident.
#[test]
fn an_output_that_cannot_be_locked_is_refused_unless_the_program_says_that_it_is_alone() {
    for (denied, says) in [
        ("flock=EOPNOTSUPP", "Operation not supported"),
        ("flock=ENOLCK", "No locks available"),
    ] {
        let Some(said) = run_denied(&[denied], &["output"]) else {
            return;
        };
        let refused = format!(
            "refused: {} cannot be locked: {says} (os error ",
            of(&said, "path")
        );
        let locked = of(&said, "locked");
        assert!(locked.starts_with(&refused), "{denied}: {locked}");
        assert!(
            locked.contains("name a file in a file system that has locks (flock)")
                && locked.ends_with("say so with Batch::unlocked"),
            "{denied}: {locked}"
        );
        assert_eq!(of(&said, "unlocked"), "works", "{denied}");
    }
    let said = run(&["output"]).expect("it runs everywhere");
    assert_eq!((of(&said, "locked"), of(&said, "unlocked")), ("works", "works"));
}

/// A main thread that the program, or an OpenMP runtime before `main`, has bound to one core of several.
#[test]
fn a_bound_main_thread_binds_no_pool() {
    let cores = |bind: &str, preload: Option<&str>, variables: &[(&str, &str)]| {
        let mut program = Command::new(NEIGHBOUR);
        program.args(["cores", bind]).envs(variables.iter().copied());
        program.envs(preload.map(|library| ("LD_PRELOAD", library)));
        let said = said_by(&mut program).expect("everybody can bind threads");
        ["the main thread's", "the pool's", "the workers'"].map(|what| of(&said, what).to_owned())
    };
    let free = cores("", None, &[]);
    let [all, processes, workers] = &free;
    let bound = cores("bound", None, &[]);
    assert_eq!((&*bound[0], &bound[1], &bound[2]), ("1", processes, workers));
    if all == "1" {
        let _ = writeln!(io::stderr(), "on one core nothing can be bound more narrowly");
    }
    // GCC's runtime, where there is one: it binds the thread that loads it.
    let openmp = cores("", Some("libgomp.so.1"), &[("OMP_PROC_BIND", "true")]);
    assert_eq!(openmp[1..], free[1..]);
    // A user's word counts, and the workers may run wherever the program may.
    let less = cores("", None, &[("SWATHE_CORES", "1")]);
    assert_eq!((&less[0], &*less[1], &less[2]), (all, "1", &format!("[{all}]")));
}

/// The kernel would take all pages of an arena that is larger than the memory.
#[test]
fn a_program_that_locks_all_its_memory() {
    for who in ["root", "somebody"] {
        let Some(said) = run(&["locked", who]) else {
            continue;
        };
        assert_eq!(
            (of(&said, "pools"), of(&said, "files")),
            ("works", "works"),
            "{who}"
        );
        let mib: u64 = of(&said, "taken MiB").parse().expect("a number");
        assert!(mib < 128, "{who}: {mib} MiB");
    }
}

#[test]
fn the_arena_is_as_large_as_user_or_program_want() {
    let run = |value: Option<&str>| {
        let mut program = Command::new(NEIGHBOUR);
        program.arg("arena").env_remove("SWATHE_ARENA");
        program.envs(value.map(|value| ("SWATHE_ARENA", value)));
        said_by(&mut program).expect("everybody can set variables")
    };
    for (value, mib) in [
        (None, "80"),
        (Some("96M"), "96"),
        (Some("0x"), ""),
        (Some("1k"), ""),
    ] {
        let said = run(value);
        if let (Some(value), "") = (value, mib) {
            let refused = of(&said, "pools");
            assert!(
                refused.contains(&format!("the environment variable SWATHE_ARENA is {value:?}")),
                "{refused}"
            );
            continue;
        }
        assert_eq!(of(&said, "pools"), "works", "{value:?}");
        assert_eq!((of(&said, "here MiB"), of(&said, "in a worker MiB")), (mib, mib));
        let later = of(&said, "reserving later");
        assert!(later.contains("has a capacity of"), "{later}");
    }
}

/// A control group that may have so much memory, until it is dropped.
struct Group(PathBuf);

impl Group {
    /// Of version 1, or of version 2 where this process may make one.
    fn of_memory(bytes: u64) -> io::Result<Self> {
        let old = Path::new("/sys/fs/cgroup/memory");
        let (root, file) = match old.is_dir() {
            true => (old, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = Self(root.join(format!("swathe-test-{}", std::process::id())));
        fs::create_dir(&group.0)?;
        fs::write(group.0.join(file), bytes.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        until("the group is empty", || {
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}

#[test]
fn a_group_with_little_memory() {
    let group = match Group::of_memory(96 << 20) {
        Ok(group) => group,
        Err(e) => {
            let _ = writeln!(
                io::stderr(),
                "little memory is not tested: no control group can be made: {e}"
            );
            return;
        }
    };
    let path = group.0.display().to_string();
    let Some(said) = run(&["cgroup", &path]) else {
        return;
    };
    assert_words(&said);
    assert_eq!(of(&said, "pools"), "works");
    for large in ["a large array", "large results"] {
        let refused = of(&said, large);
        assert!(
            refused
                .contains(" are available, limited by the memory limit of 100663296 bytes of control group "),
            "{refused}"
        );
    }
    let hoard = of(&said, "a hoard");
    assert!(
        hoard.starts_with(
            "refused: position 3 was lost: its worker was killed by signal 9 (SIGKILL), 3 times"
        ),
        "{hoard}"
    );
    for words in [
        "by the kernel for want of memory",
        &path,
        "together may have 96 MiB",
    ] {
        assert!(hoard.contains(words), "{words}: {hoard}");
    }
    assert_eq!(of(&said, "afterwards"), "works");
}

//! A program on a machine that has little left of something; the first argument says of what. It makes a pool, uses it,
//! and says in a line each what came of it.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsRawFd,
    path::Path,
    process::exit,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::{Gid, Pid, Uid, setgid, setuid},
};
use swathe::{Array, Pool, Result};
use swathe_tests::{descendants, until};

fn main() {
    swathe::init();
    let argument = |i: usize| std::env::args().nth(i);
    let number = || {
        argument(2)
            .and_then(|text| text.parse().ok())
            .expect("a number is given")
    };
    match argument(1).as_deref() {
        Some("files") => files(),
        Some("later_files") => later_files(),
        Some("processes") => processes(number()),
        Some("address_space") => address_space(number()),
        Some("sandbox") => sandbox(),
        Some("locked") => locked(argument(2).as_deref() == Some("root")),
        Some("arena") => arena(),
        Some("output") => output(),
        Some("cores") => cores(argument(2).as_deref() == Some("bound")),
        Some("shm") => shm(),
        Some("cgroup") => cgroup(Path::new(&argument(2).expect("a directory is given"))),
        other => panic!("nothing is called {other:?}"),
    }
}

/// The test cannot be made here.
fn skip(why: &str) -> ! {
    println!("skipped: {why}");
    exit(0)
}

fn say<T>(what: &str, result: Result<T>) {
    match result {
        Ok(_) => println!("{what}: works"),
        Err(error) => println!("{what}: refused: {error}"),
    }
}

/// A pool and jobs of two kinds.
fn work() -> Result<()> {
    let pool = Pool::builder().processes(2).build()?;
    let numbers = pool.map(|x: u64| x + 1, 0..1000)?;
    assert!(numbers.iter().copied().eq(1..=1000));
    let texts = pool.map(|x: u64| x.to_string(), 0..1000)?;
    assert_eq!(texts.value(999)?, "999");
    pool.close();
    pool.join()
}

/// Nothing is left of a pool, of one that could not be built neither.
fn assert_alone() {
    until("no process is left", || descendants().is_empty());
}

fn limit(resource: Resource, soft: u64) {
    let (_, hard) = getrlimit(resource).expect("it can be asked");
    setrlimit(resource, soft.min(hard), hard).expect("it may be lowered");
}

/// The lowest number that no file has: under this limit none can be opened, whatever higher numbers were inherited.
fn lowest_free_number() -> u64 {
    let file = File::open("/dev/null").expect("there is room for a file yet");
    file.as_raw_fd() as u64
}

/// No file more may be opened, at most one, at most two, ...
fn files() {
    let (before, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("it can be asked");
    for more in 0..32 {
        limit(Resource::RLIMIT_NOFILE, lowest_free_number() + more);
        say(&format!("{more} more files"), work());
        limit(Resource::RLIMIT_NOFILE, before);
        assert_alone();
    }
    say("as many as before", work());
    assert_alone();
}

/// All files are open when a worker dies.
fn later_files() {
    // The hard limit as well: no room can be made.
    setrlimit(Resource::RLIMIT_NOFILE, 100, 100).expect("it may be lowered");
    let pool = Pool::builder()
        .processes(2)
        .build()
        .expect("there are enough files yet");
    pool.map(|x: u64| x, 0..10).expect("all is well yet");
    // Who is still being started needs a file.
    while pool.workers().len() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let open = || File::open("/dev/null");
    let hoard: Vec<File> = std::iter::from_fn(|| open().ok()).collect();
    say("numbers", pool.map(|x: u64| x, 0..1000));
    say("texts", pool.map(|x: u64| x.to_string(), 0..1000));
    say("another pool", work());
    let slowly = |x: u64| {
        std::thread::sleep(Duration::from_millis(1));
        x
    };
    let victim = pool.workers()[0].pid;
    let pending = pool.map_async(slowly, 0..300);
    kill(Pid::from_raw(victim as i32), Signal::SIGKILL).expect("it is there");
    say("a death", pending.and_then(|pending| pending.get()));
    drop(hoard);
    say("afterwards", pool.map(|x: u64| x, 0..10));
    drop(pool);
    say("a new pool", work());
    assert_alone();
}

/// So many processes and threads of this user, this one included.
fn processes(most: u64) {
    // A user whom nobody else is.
    let id = 1_000_000_000 + std::process::id();
    if let Err(e) = setgid(Gid::from_raw(id)).and_then(|()| setuid(Uid::from_raw(id))) {
        skip(&format!("only root can become somebody else: {e}"));
    }
    let (before, _) = getrlimit(Resource::RLIMIT_NPROC).expect("it can be asked");
    limit(Resource::RLIMIT_NPROC, most);
    say(&format!("{most} processes"), work());
    limit(Resource::RLIMIT_NPROC, before);
    assert_alone();
    say("as many as before", work());
    assert_alone();
}

/// So many MiB more than are mapped.
fn address_space(more: u64) {
    let statm = fs::read_to_string("/proc/self/statm").expect("/proc is there");
    let pages: u64 = statm
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    limit(Resource::RLIMIT_AS, pages * 4096 + (more << 20));
    say(&format!("{more} MiB more"), work());
    assert_alone();
}

/// A `/dev/shm` of one page, which is full.
fn shm() {
    let nothing = None::<&str>;
    let ready = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| {
            mount(
                nothing,
                "/",
                nothing,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                nothing,
            )
        })
        .and_then(|()| {
            mount(
                Some("tmpfs"),
                "/dev/shm",
                Some("tmpfs"),
                MsFlags::empty(),
                Some("size=4k"),
            )
        });
    if let Err(e) = ready {
        skip(&format!("no /dev/shm of its own could be had: {e}"));
    }
    fs::write("/dev/shm/full", [0; 4096]).expect("there is a page");
    fs::write("/dev/shm/more", [0]).expect_err("there is no more");
    fs::remove_file("/dev/shm/more").expect("an empty file was made");
    say("pools", work());
    let large = || -> Result<_> {
        let array = Array::from_fn(8 << 20, |i| i as u64)?;
        Pool::builder().processes(2).build()?.map(|x: u64| x, &array)
    };
    say("64 MiB", large());
    let names = fs::read_dir("/dev/shm")
        .map(Iterator::count)
        .expect("it is there");
    println!("names: {names}");
    assert_alone();
}

/// Where some system calls are answered with an error: pools, a death, a timeout, memory that goes back.
fn sandbox() {
    say("pools", work());
    let jobs = || -> Result<()> {
        let pool = Pool::builder().processes(2).build()?;
        let die_once = |context: &swathe::Context, x: u64| {
            if x == 3 && !context.is_rerun() {
                std::process::abort();
            }
            x
        };
        assert!(pool.map(die_once, 0..10)?.iter().copied().eq(0..10));
        let sleep = |x: u64| std::thread::sleep(Duration::from_secs(3600 * x));
        let limited = pool.batch().timeout(Duration::from_millis(100));
        println!("a timeout: {}", limited.map(sleep, 0..2).unwrap_err());
        Ok(())
    };
    say("a death", jobs());
    let arrays = || -> Result<()> {
        for _ in 0..3 {
            let array = Array::from_fn(4 << 20, |i| i as u64)?;
            assert_eq!(array.iter().sum::<u64>(), (4 << 20) * ((4 << 20) - 1) / 2);
            drop(array);
            swathe::Memory::global()?.trim();
        }
        Ok(())
    };
    say("arrays", arrays());
    assert_alone();
}

/// A program that has locked all memory that it has and will have.
fn locked(stays_root: bool) {
    const MOST: u64 = 32 << 20;
    if !stays_root {
        limit(Resource::RLIMIT_MEMLOCK, MOST);
        let id = 1_000_000_000 + std::process::id();
        if let Err(e) = setgid(Gid::from_raw(id)).and_then(|()| setuid(Uid::from_raw(id))) {
            skip(&format!("only root can become somebody else: {e}"));
        }
    }
    if let Err(e) = nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::MCL_FUTURE) {
        skip(&format!("memory cannot be locked here: {e}"));
    }
    say("pools", work());
    let numbers = || -> Result<()> {
        let folder = tempfile::tempdir().expect("there is room for files");
        let path = folder.path().join("numbers.npy");
        Array::from_fn(1 << 20, |i| i as u64)?.to_npy(&path)?;
        let pool = Pool::builder().processes(2).build()?;
        #[expect(unsafe_code, reason = "a file is mapped")]
        // SAFETY: nobody writes the file.
        let mapped = unsafe { Array::<u64>::map_npy_path(&path) }?;
        let found = pool.map(|x: u64| x + 1, &mapped)?;
        assert!(found.iter().copied().eq(1..=1 << 20));
        let sealed = Array::<u64>::from_sealed_file(sealed(&mapped), &[1 << 20])?;
        let found = pool.map(|x: u64| x + 1, &sealed)?;
        assert!(found.iter().copied().eq(1..=1 << 20));
        Ok(())
    };
    say("files", numbers());
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let kib = |name: &str| -> u64 {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("it is told");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    println!("taken MiB: {}", kib("VmRSS:") >> 10);
    assert_alone();
}

/// A memory file with these numbers that nobody can change any more.
fn sealed(numbers: &[u64]) -> File {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"numbers", flags).expect("there is room"));
    for number in numbers {
        file.write_all(&number.to_ne_bytes()).expect("there is room");
    }
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("nobody has it mapped");
    file
}

/// How many cores a pool gets, and on how many each of its workers may run.
fn cores(bind_main: bool) {
    let allowed = || {
        let set = sched_getaffinity(Pid::from_raw(0)).expect("it can be asked");
        (0..CpuSet::count())
            .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
            .count()
    };
    if bind_main {
        // A thread that lives on, as those of OpenMP do.
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600)));
        let set = sched_getaffinity(Pid::from_raw(0)).expect("it can be asked");
        let first = (0..CpuSet::count()).find(|&cpu| set.is_set(cpu).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(first.expect("it runs somewhere")).expect("it is a CPU");
        sched_setaffinity(Pid::from_raw(0), &one).expect("it may be bound more narrowly");
    }
    println!("the main thread's: {}", allowed());
    let pool = Pool::builder().build().expect("pools work");
    println!("the pool's: {}", pool.processes());
    let each = pool.run_per_worker(allowed).expect("workers answer");
    println!("the workers': {each:?}");
    drop(pool);
    assert_alone();
}

/// An output in a file: twice, and as one whose writer is known to be the only one.
fn output() {
    fn next(x: u64) -> u64 {
        x + 1
    }
    let folder = tempfile::tempdir().expect("there is room for files");
    let path = folder.path().join("numbers.npy");
    let pool = Pool::builder().processes(2).build().expect("pools work");
    let job = || pool.batch().output_file(&path);
    println!("path: {}", path.display());
    say("locked", job().map(next, 0..1000));
    #[expect(unsafe_code, reason = "what a lock would see to is seen to by the test")]
    // SAFETY: nobody else knows the folder, and one job is run after the other.
    let unlocked = || unsafe { job().unlocked() };
    let numbers = || -> Result<()> {
        let numbers = unlocked().map(next, 0..1000)?;
        assert!(numbers.iter().copied().eq(1..=1000));
        assert_eq!(Array::<u64>::from_npy_path(&path)?, numbers);
        let again = unlocked().map(next, 0..1000)?;
        assert_eq!(again, numbers);
        Ok(())
    };
    say("unlocked", numbers());
    drop(pool);
    assert_alone();
}

/// With the capacity that the environment says, or, without, one of 80 MiB.
fn arena() {
    if std::env::var_os("SWATHE_ARENA").is_none() {
        let reserved = swathe::Memory::reserve_global(80 << 20);
        say("reserving", reserved.map_err(swathe::Error::from));
    }
    say("pools", work());
    let capacities = || -> Result<[usize; 2]> {
        let here = swathe::Memory::global()?.stats().capacity;
        let pool = Pool::builder().processes(1).build()?;
        let in_workers = || {
            swathe::Memory::global()
                .expect("workers have arenas")
                .stats()
                .capacity
        };
        Ok([here, pool.apply(in_workers, ())?])
    };
    if let Ok([here, there]) = capacities() {
        println!("here MiB: {}\nin a worker MiB: {}", here >> 20, there >> 20);
        say(
            "reserving later",
            swathe::Memory::reserve_global(1 << 30).map_err(swathe::Error::from),
        );
    }
    assert_alone();
}

/// Inside of a control group.
fn cgroup(directory: &Path) {
    if let Err(e) = fs::write(directory.join("cgroup.procs"), "0") {
        skip(&format!("the group cannot be entered: {e}"));
    }
    say("pools", work());
    say(
        "a large array",
        Array::from_fn(32 << 20, |i| i as u64).map_err(swathe::Error::from),
    );
    let pool = Pool::builder().processes(2).build().expect("pools work");
    say("large results", pool.map(|x: u64| [x; 16], 0..2 << 20));
    let hoard = |x: u64| {
        if x == 3 {
            std::hint::black_box(vec![1u8; 256 << 20]);
        }
        x
    };
    // The parent has more than its workers, and lives.
    let held = Array::from_fn(5 << 20, |i| i as u64).expect("that much is there");
    say("a hoard", pool.map(hoard, 0..100));
    say("afterwards", pool.map(|x: u64| x, 0..100));
    drop((pool, held));
    assert_alone();
}

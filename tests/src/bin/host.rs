//! Programs as hosts of pools: each does to its pool what real programs, launchers and batch systems do, and says in one
//! line what it saw. `tests/guest` starts them and reads that.

#![expect(unsafe_code, reason = "a host does what C programs do to their own process")]

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    os::unix::process::CommandExt,
    process::{Command, exit},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use swathe::{Pool, Result, SharedArray, Status, Value};
use swathe_tests::{pool_processes, until, watch};

fn argument(n: usize) -> String {
    std::env::args().nth(n).unwrap_or_default()
}

fn main() -> Result<()> {
    swathe::init();
    let _watch = watch();
    match argument(1).as_str() {
        "closed" => closed(&argument(2)),
        "ignores-children" => ignores_children(),
        "group-signals" => group_signals(),
        "stopped" => stopped(&argument(2)),
        "blocks-signals" => blocks_signals(),
        "surroundings" => surroundings(),
        "threads" => threads(),
        "closes" => closes(&argument(2)),
        "many" => many(argument(2).parse().expect("a number")),
        "stack" => stack(),
        "drops-root" => drops_root(&argument(2)),
        "loses-root" => loses_root(&argument(2)),
        "short-of-files" => short_of_files(&argument(2)),
        "short-of-processes" => short_of_processes(&argument(2)),
        "stopped-zygote" => stopped_zygote(),
        "adopts" => adopts(),
        "reaps-all" => reaps_all(),
        "launched" => launched(),
        "keys" => keys(),
        "bursts" => bursts(),
        "closes-all" => closes_all(),
        "hoards" => hoards(&argument(2)),
        "plain" => plain(),
        other => panic!("nothing is called {other:?}"),
    }
}

fn nap(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

fn zygotes() -> Vec<u32> {
    let ours = pool_processes().into_iter();
    let me = std::process::id();
    let zygotes = ours.filter(|process| process.name == "swathe-zygote" && process.parent == me);
    zygotes
        .filter(|process| process.state != 'Z')
        .map(|process| process.pid)
        .collect()
}

fn pids<S>(pool: &Pool<S>) -> BTreeSet<u32> {
    pool.workers().iter().map(|worker| worker.pid).collect()
}

fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// A small job with an abort in it.
fn works(pool: &Pool) -> Result<()> {
    assert!(pool.map(|x: u64| x + 1, 0..1000)?.iter().copied().eq(1..1001));
    let partial = pool.batch().chunk_size(1).collect_errors().map(
        |x: u64| {
            if x == 3 {
                std::process::abort();
            }
            x
        },
        0..8,
    )?;
    let right = |i| (partial.status(i) == Status::Done) == (i != 3);
    assert!((0..8).all(right), "{:?}", partial.failures());
    Ok(())
}

fn plain() -> Result<()> {
    let pool = Pool::builder().processes(2).build()?;
    works(&pool)?;
    let hang = |_: u64| nap(3_600_000);
    let late = pool
        .batch()
        .timeout(Duration::from_millis(100))
        .collect_errors()
        .map(hang, 0..2)?;
    assert_eq!(
        (late.status(0), late.status(1)),
        (Status::TimedOut, Status::TimedOut)
    );
    println!("works");
    Ok(())
}

/// A daemon's way: everything above 2 is closed, the pool's descriptors too.
fn closes_all() -> Result<()> {
    let pool = Pool::builder().processes(2).build()?;
    works(&pool)?;
    let pending = pool.batch().chunk_size(1).map_async(stepwise, 0..100)?;
    close_from(3);
    let file = fs::File::create(std::env::temp_dir().join(format!("swathe-host-{}", std::process::id())));
    let error = pending.get().unwrap_err().to_string();
    assert!(error.contains("has closed descriptors of the pool's"), "{error}");
    drop(pool);
    // The numbers are the program's: nobody has closed its file, or written to it.
    let file = file.expect("it can be made");
    assert_eq!(file.metadata().expect("it is open").len(), 0);
    fs::remove_file(std::env::temp_dir().join(format!("swathe-host-{}", std::process::id())))
        .expect("it is there");
    until("nobody is left", || pool_processes().is_empty());
    println!("told");
    Ok(())
}

/// Text goes to descriptors that the program has closed, or that its children are not to have.
fn closed(how: &str) -> Result<()> {
    let (how, numbers) = how.split_once(':').expect("how and which");
    for number in numbers.bytes().map(|digit| i32::from(digit - b'0')) {
        // SAFETY: a daemon's way with its standard descriptors.
        unsafe {
            match how {
                "closed" => libc::close(number),
                _ => libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC),
            }
        };
    }
    let noisy = |x: u64| {
        if x.is_multiple_of(1000) {
            println!("task {x} {}", "x".repeat(200));
            eprintln!("task {x} {}", "y".repeat(200));
        }
        x + 1
    };
    let input = swathe::Array::from_vec((0..100_000u64).collect::<Vec<_>>())?;
    let pool = Pool::builder().processes(2).build()?;
    let mut right = true;
    for _ in 0..3 {
        println!("{}", "p".repeat(200));
        eprintln!("{}", "q".repeat(200));
        right &= pool.map(noisy, &input)?.iter().copied().eq(1..100_001);
        right &= input.iter().copied().eq(0..100_000);
    }
    let taken = |number: i32| {
        let name = fs::read_link(format!("/proc/self/fd/{number}"));
        how == "closed" && numbers.contains(&number.to_string()) && name.is_ok()
    };
    let stolen = (0..3).any(taken);
    exit(if right && !stolen {
        0
    } else {
        1 + i32::from(stolen)
    });
}

fn ignores_children() -> Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    let pool = Pool::builder().processes(2).max_tasks_per_child(5).build()?;
    let before = zygotes();
    assert!(
        pool.batch()
            .chunk_size(1)
            .map(|x: u64| x, 0..100)?
            .iter()
            .copied()
            .eq(0..100)
    );
    works(&pool)?;
    // A child of a task ends as it would anywhere.
    let code = pool.apply(
        || {
            Command::new("true")
                .status()
                .ok()
                .and_then(|status| status.code())
        },
        (),
    )?;
    println!("works {} {code:?}", before == zygotes());
    Ok(())
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

/// Signals that would end a process without a handler, also those of real time.
fn group_signal_numbers() -> Vec<i32> {
    let named = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGXCPU,
        libc::SIGPWR,
        libc::SIGIO,
    ];
    named
        .into_iter()
        .chain([libc::SIGRTMIN() + 1, libc::SIGRTMAX()])
        .collect()
}

fn handle_all() {
    for number in group_signal_numbers() {
        // SAFETY: the handler only adds to an atomic.
        unsafe { libc::signal(number, handle as extern "C" fn(i32) as libc::sighandler_t) };
    }
}

fn group_signals() -> Result<()> {
    handle_all();
    let starts = Value::new(0u64)?;
    let pool = Pool::builder().processes(2).build()?;
    pool.run_per_worker(|| ())?;
    let before = pids(&pool);
    let slow = |starts: &Value<u64>, x: u64| {
        starts.fetch_add(1);
        nap(300);
        x
    };
    let pending = pool.batch().chunk_size(1).with(&starts)?.map_async(slow, 0..8)?;
    let idle = Pool::builder().processes(1).build()?;
    idle.run_per_worker(|| ())?;
    let idlers = pids(&idle);
    for number in group_signal_numbers() {
        // SAFETY: a signal to the own group, which handles it.
        unsafe { libc::kill(0, number) };
        nap(30);
    }
    assert!(pending.get()?.iter().copied().eq(0..8));
    println!(
        "handled {} started {} same {} {}",
        HANDLED.load(SeqCst),
        starts.load(),
        before == pids(&pool),
        idlers == pids(&idle)
    );
    Ok(())
}

/// An element of 0.4 s that its clock alone would call late when the group was stopped in the middle.
fn stepwise(x: u64) -> u64 {
    (0..20).for_each(|_| nap(20));
    x
}

fn stopped(what: &str) -> Result<()> {
    let limit = Duration::from_millis(2500);
    let builder = Pool::builder().processes(2);
    let pool: &'static Pool = Box::leak(Box::new(match what {
        "initializer" => {
            println!("go");
            let set_up = || {
                stepwise(0);
            };
            builder
                .initializer_timeout(limit)
                .initializer(set_up, ())
                .build()?
        }
        "births" => builder.max_tasks_per_child(1).build()?,
        _ => builder.build()?,
    }));
    let busy = || loop {
        let _ = pool
            .batch()
            .timeout(Duration::from_secs(60))
            .map_async(|x: u64| x, 0..2);
        nap(20);
    };
    if what != "quiet" {
        thread::spawn(busy);
    }
    match what {
        "initializer" => {
            let incarnations = pool.run_per_worker(|context: &swathe::Context| context.incarnation())?;
            println!("{:?}", incarnations.to_vec());
        }
        "births" => {
            let before = zygotes();
            println!("go");
            let parent = |_: u64| {
                nap(3);
                std::os::unix::process::parent_id()
            };
            let parents = pool.batch().chunk_size(1).map(parent, 0..300)?;
            let parents: BTreeSet<u32> = parents.iter().copied().collect();
            println!("{:?}", parents.into_iter().eq(before));
        }
        _ => {
            pool.map(|x: u64| x, 0..10)?;
            println!("go");
            let partial = pool
                .batch()
                .timeout(limit)
                .chunk_size(1)
                .collect_errors()
                .map(stepwise, 0..2)?;
            println!("{:?}", partial.is_complete());
        }
    }
    exit(0)
}

/// What signals a worker and a program that it starts block and ignore.
fn blocks_signals() -> Result<()> {
    SigSet::all().thread_block().expect("signals may be blocked");
    let pool = Pool::builder().processes(2).build()?;
    let look = || {
        let of = |text: String, name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or("?")
                .trim()
                .to_owned();
            u64::from_str_radix(&line, 16).unwrap_or(u64::MAX)
        };
        let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let child = Command::new("cat")
            .arg("/proc/self/status")
            .output()
            .expect("cat is there");
        let child = String::from_utf8_lossy(&child.stdout).into_owned();
        vec![
            of(own.clone(), "SigBlk:"),
            of(child.clone(), "SigBlk:"),
            // Of those that a child ignores SIGPIPE is none: the standard library resets it.
            // The C library has 32 and 33 for itself, and starts programs with both ignored.
            of(child, "SigIgn:") & !(3 << 31),
        ]
    };
    let seen = pool.run_per_worker(look)?;
    println!("{:?}", seen.to_vec()?);
    Ok(())
}

fn surroundings() -> Result<()> {
    fn look(_: u64) -> String {
        nap(10);
        let directory = std::env::current_dir().map_or_else(|e| e.to_string(), |d| d.display().to_string());
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: plain system calls; the limit is a live variable.
        let (mask, nice) = unsafe {
            let mask = libc::umask(0);
            libc::umask(mask);
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            (mask, libc::getpriority(libc::PRIO_PROCESS, 0))
        };
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let x = std::env::var("X").unwrap_or_default();
        format!("{directory} {x} {mask:o} {nice} {} {cores}", limit.rlim_cur)
    }
    let change = |directory: &str, x: &str, mask: u32, files: u64| {
        let directory = std::env::temp_dir().join(format!("{}-{directory}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory can be made");
        std::env::set_current_dir(&directory).expect("it may be entered");
        // SAFETY: the threads of a pool do not read the environment; the limit is a live variable.
        unsafe {
            std::env::set_var("X", x);
            libc::umask(mask);
            let limit = libc::rlimit {
                rlim_cur: files,
                rlim_max: 1 << 16,
            };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        directory
    };
    let first = change("first", "1", 0o022, 500);
    let pool = Pool::builder().processes(2).build()?;
    let seen = |all: swathe::Records<String>| -> Result<BTreeSet<String>> {
        Ok(all.to_vec()?.into_iter().collect())
    };
    let before = seen(pool.map(look, 0..4)?)?;
    let second = change("second", "2", 0o077, 400);
    // The first is entered by what it is, not by its name.
    let moved = std::env::temp_dir().join(format!("{}-moved", std::process::id()));
    let pending = pool.batch().chunk_size(1).map_async(look, 0..60)?;
    nap(100);
    zygotes()
        .into_iter()
        .for_each(|zygote| send(zygote, Signal::SIGKILL));
    let after = seen(pending.get()?)?;
    fs::rename(&first, &moved).expect("a directory can be renamed");
    drop(pool);
    std::env::set_current_dir("/").expect("there is a root");
    for directory in [second, moved] {
        let _ = fs::remove_dir_all(directory);
    }
    println!("{} {}", before.len(), before == after);
    Ok(())
}

/// Threads that exist before `main`, in every process.
fn threads() -> Result<()> {
    let before = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let pool = Pool::builder().processes(2).max_tasks_per_child(20).build()?;
    works(&pool)?;
    assert!(
        pool.batch()
            .chunk_size(1)
            .map(|x: u64| x, 0..100)?
            .iter()
            .copied()
            .eq(0..100)
    );
    let names = pool.run_per_worker(|context: &swathe::Context| context.worker())?;
    zygotes()
        .into_iter()
        .for_each(|zygote| send(zygote, Signal::SIGKILL));
    works(&pool)?;
    let leaked = pool.apply(|| std::env::var("SWATHE_ZYGOTE").is_ok(), ())?;
    println!("{before} {:?} {leaked}", names.to_vec());
    Ok(())
}

fn close_from(first: u32) {
    // SAFETY: that is what this host is about.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) };
}

/// Tasks and initializers that close what they do not own, or become another program.
fn closes(what: &str) -> Result<()> {
    let before = |pool: &Pool| (zygotes(), pids(pool));
    let text = "x".repeat(5000);
    let (pool, partial, kept) = match what {
        "initializer" => {
            let pool = Pool::builder()
                .processes(2)
                .initializer(|| close_from(3), ())
                .build()?;
            pool.run_per_worker(|| ())?;
            let was = before(&pool);
            let partial = pool.batch().chunk_size(1).collect_errors().map(stepwise, 0..4)?;
            let kept = was == before(&pool);
            (pool, partial, kept)
        }
        "task" => {
            let pool = Pool::builder().processes(2).build()?;
            pool.run_per_worker(|| ())?;
            let was = before(&pool);
            let closes = |x: u64| {
                close_from(3);
                // The number of the worker's line is now this file's.
                let file =
                    fs::File::create(std::env::temp_dir().join(format!("swathe-{}", std::process::id())));
                let x = stepwise(x);
                let length = file.and_then(|file| file.metadata()).map_or(1, |file| file.len());
                let _ = fs::remove_file(std::env::temp_dir().join(format!("swathe-{}", std::process::id())));
                x + length
            };
            let partial = pool.batch().chunk_size(1).collect_errors().map(closes, 0..4)?;
            let kept = was == before(&pool);
            // What needs the line fails with words, or is done by another worker.
            let long = pool
                .batch()
                .collect_errors()
                .with(&text)?
                .map(|text: &String, _: u64| text.clone(), 0..100)?;
            assert!(
                long.failures()
                    .iter()
                    .all(|failure| !failure.message().is_empty())
            );
            (pool, partial, kept)
        }
        _ => {
            let pool = Pool::builder().processes(2).build()?;
            let was = zygotes();
            let execs = |x: u64| {
                if x == 3 {
                    let _ = Command::new("sleep").arg("3600").exec();
                }
                x
            };
            let partial = pool.batch().chunk_size(1).collect_errors().map(execs, 0..8)?;
            let said = partial
                .failures()
                .iter()
                .all(|failure| failure.message().contains("another program"));
            assert!(said, "{:?}", partial.failures());
            let kept = was == zygotes();
            (pool, partial, kept)
        }
    };
    let lost: Vec<u64> = partial
        .failures()
        .iter()
        .map(|failure| failure.position())
        .collect();
    drop(pool);
    println!("lost {lost:?} kept {kept}");
    Ok(())
}

fn many(workers: usize) -> Result<()> {
    let pool = match Pool::builder().processes(workers).build() {
        Ok(pool) => pool,
        Err(e) => {
            println!("{e}");
            return Ok(());
        }
    };
    let sum: u64 = pool.map(|x: u64| x + 1, 0..1000)?.iter().sum();
    println!("{sum}");
    Ok(())
}

/// Recursion in a worker whose memory is limited and whose stack is not.
fn stack() -> Result<()> {
    #[inline(never)]
    fn recurse(levels: u64) -> u64 {
        let page = std::hint::black_box([1u8; 16 << 10]);
        let below = if levels == 0 { 0 } else { recurse(levels - 1) };
        below + u64::from(std::hint::black_box(page)[100])
    }
    let limit = libc::rlimit {
        rlim_cur: 1 << 30,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is a live variable.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) };
    assert_eq!(raised, 0);
    let pool = Pool::builder()
        .processes(2)
        .max_memory_per_child(64 << 20)
        .build()?;
    let task = |x: u64| if x == 3 { recurse(20_000) } else { x };
    let partial = pool
        .batch()
        .max_deaths(1)
        .chunk_size(1)
        .collect_errors()
        .map(task, 0..8)?;
    println!(
        "{}",
        partial
            .failures()
            .first()
            .map_or("nothing".to_owned(), ToString::to_string)
    );
    Ok(())
}

fn become_nobody() {
    // SAFETY: plain system calls.
    let dropped = unsafe { libc::setgid(65534) == 0 && libc::setuid(65534) == 0 };
    assert!(dropped, "this needs root");
}

/// The parent may not signal its workers any more.
fn drops_root(what: &str) -> Result<()> {
    let pool = Pool::builder().processes(1).build()?;
    pool.map(|x: u64| x, 0..10)?;
    become_nobody();
    let batch = pool.batch().collect_errors();
    let batch = match what {
        "timeout" => batch.timeout(Duration::from_millis(100)),
        _ => batch,
    };
    let pending = batch.map_async(|_: u64| nap(3_600_000), 0..1)?;
    nap(50);
    if what == "cancel" {
        pending.cancel();
    }
    if what == "zygote" {
        drop(pool);
        println!("{:?}", zygotes());
        return Ok(());
    }
    println!("{:?}", pending.get()?.status(0));
    Ok(())
}

/// Workers that are no longer bound to their parents' lives say who they are, and wait to be orphaned.
fn loses_root(how: &str) -> Result<()> {
    let builder = Pool::builder().processes(2);
    let pool = match how {
        "user" => builder.initializer(become_nobody, ()).build()?,
        _ => builder.build()?,
    };
    // SAFETY: a plain system call.
    let disarm = || unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
    pool.run_per_worker(|| ())?;
    if how == "disarmed" {
        pool.run_per_worker(disarm)?;
    }
    let workers: Vec<String> = pids(&pool).iter().map(ToString::to_string).collect();
    println!("{}", workers.join(" "));
    if how == "working" {
        let hang = |_: u64| {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
            nap(3_600_000);
        };
        pool.map(hang, 0..2)?;
    }
    nap(3_600_000);
    Ok(())
}

fn set_files(soft: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is a live variable.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = soft;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// No descriptor is to be had for a while, in which workers die.
fn short_of_files(how: &str) -> Result<()> {
    let pool = Pool::builder().processes(4).build()?;
    pool.run_per_worker(|| ())?;
    let die_once = |context: &swathe::Context, x: u64| {
        nap(5);
        if x % 25 == 24 && !context.is_rerun() {
            std::process::abort();
        }
        x
    };
    let pending = pool.batch().chunk_size(1).map_async(die_once, 0..200)?;
    let mut taken = Vec::new();
    match how {
        "taken" => {
            set_files(200);
            while let Ok(file) = fs::File::open("/dev/null") {
                taken.push(file);
            }
        }
        _ => set_files(how.parse().expect("a limit")),
    }
    nap(500);
    drop(taken);
    set_files(1000);
    assert!(pending.get()?.iter().copied().eq(0..200));
    until("the pool is whole again", || pids(&pool).len() == 4);
    works(&pool)?;
    println!("whole");
    Ok(())
}

/// A task opens what its worker may open; the tasks after it need memory that their worker has never seen.
fn hoards(limit: &str) -> Result<()> {
    set_files(100);
    if limit == "hard" {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 100, 100)
            .expect("it may be lowered");
    }
    let pool = Pool::builder().processes(1).build()?;
    let hoard = || {
        while let Ok(file) = fs::File::open("/dev/null") {
            std::mem::forget(file);
        }
    };
    pool.run_per_worker(hoard)?;
    let sums = SharedArray::<u64>::zeros(1)?;
    let add = |sums: &SharedArray<u64>, x: u64| sums.fetch_add(0, x);
    match pool.map_with(&sums, add, 1..=100) {
        Ok(_) => println!("{}", sums.load(0)),
        Err(e) => println!("{e}"),
    }
    works(&pool)
}

/// No process is to be had for a while: this one's control group counts them.
fn short_of_processes(group: &str) -> Result<()> {
    let most = |n: &str| fs::write(format!("{group}/pids.max"), n).expect("the group is ours");
    fs::write(format!("{group}/cgroup.procs"), std::process::id().to_string()).expect("it may be entered");
    let pool = Pool::builder().processes(4).build()?;
    pool.run_per_worker(|| ())?;
    let task = |x: u64| {
        nap(5);
        x
    };
    let pending = pool.batch().chunk_size(1).map_async(task, 0..300)?;
    most("1");
    pids(&pool)
        .into_iter()
        .take(3)
        .for_each(|pid| send(pid, Signal::SIGKILL));
    zygotes()
        .into_iter()
        .for_each(|zygote| send(zygote, Signal::SIGKILL));
    nap(1000);
    most("max");
    assert!(pending.get()?.iter().copied().eq(0..300));
    until("the pool is whole again", || pids(&pool).len() == 4);
    println!("whole");
    Ok(())
}

/// Hundreds of orders wait for a zygote that stands still, and the pool is dropped.
fn stopped_zygote() -> Result<()> {
    let pool = Pool::builder().processes(600).build()?;
    zygotes()
        .into_iter()
        .for_each(|zygote| send(zygote, Signal::SIGSTOP));
    let pending = pool.map_async(|x: u64| x, 0..10)?;
    nap(100);
    let _ = pool.resize(700);
    drop(pool);
    println!("{} {}", pending.ready(), pool_processes().len());
    Ok(())
}

fn zombies() -> usize {
    let all = swathe_tests::descendants();
    all.iter().filter(|process| process.state == 'Z').count()
}

/// Orphans come back to this program.
fn adopts() -> Result<()> {
    // SAFETY: a plain system call.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let pool = Pool::builder().processes(4).max_tasks_per_child(3).build()?;
    for _ in 0..5 {
        let pending = pool.batch().chunk_size(1).map_async(stepless, 0..100)?;
        nap(30);
        zygotes()
            .into_iter()
            .for_each(|zygote| send(zygote, Signal::SIGKILL));
        assert!(pending.get()?.iter().copied().eq(0..100));
    }
    until("no zombie is left", || zombies() == 0);
    drop(pool);
    println!("{}", swathe_tests::descendants().len());
    Ok(())
}

fn stepless(x: u64) -> u64 {
    nap(1);
    x
}

/// A program that waits for whatever child ends, its pool's too.
fn reaps_all() -> Result<()> {
    static GO_ON: AtomicBool = AtomicBool::new(true);
    let reaper = thread::spawn(|| {
        while GO_ON.load(SeqCst) {
            // SAFETY: nobody asks for the status.
            if unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } <= 0 {
                nap(1);
            }
        }
    });
    let pool = Pool::builder().processes(2).build()?;
    for _ in 0..5 {
        works(&pool)?;
        zygotes()
            .into_iter()
            .for_each(|zygote| send(zygote, Signal::SIGKILL));
    }
    works(&pool)?;
    drop(pool);
    GO_ON.store(false, SeqCst);
    reaper.join().expect("it does not panic");
    println!("works");
    Ok(())
}

/// What a constructor found: the number of the launcher's variables, and whether descriptor 77 was open.
static FOUND: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

extern "C" fn constructor() {
    let launchers = ["OMPI_", "PMIX_", "PMI_", "HYD", "MPI_LOCAL"];
    let count = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        launchers.iter().any(|prefix| name.starts_with(prefix))
    });
    FOUND[0].store(count.count() as u32, SeqCst);
    // SAFETY: only asked about.
    FOUND[1].store(u32::from(unsafe { libc::fcntl(77, libc::F_GETFD) } >= 0), SeqCst);
}

// A constructor as C has them; what it calls needs nothing that is made later.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

fn launched() -> Result<()> {
    let found = || FOUND.iter().map(|found| found.load(SeqCst)).collect::<Vec<_>>();
    let own = found();
    let pool = Pool::builder().processes(2).build()?;
    let kept = pool.apply(|| std::env::var("SLURM_JOB_ID").unwrap_or_default(), ())?;
    zygotes()
        .into_iter()
        .for_each(|zygote| send(zygote, Signal::SIGKILL));
    println!("{own:?} {:?} {kept}", pool.run_per_worker(found)?.to_vec()?);
    Ok(())
}

/// The keys of the standard library's hash maps.
fn keys() -> Result<()> {
    let key = || RandomState::new().hash_one(1);
    let pool = Pool::builder().processes(4).build()?;
    let mut seen: BTreeSet<u64> = pool.run_per_worker(key)?.iter().copied().collect();
    let before = pids(&pool);
    before.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
    until("all are replaced", || {
        pids(&pool).len() == 4 && pids(&pool).is_disjoint(&before)
    });
    seen.extend(pool.run_per_worker(key)?.iter());
    println!("{}", seen.len());
    Ok(())
}

/// A launcher that signals the group while pools are built.
fn bursts() -> Result<()> {
    static GO_ON: AtomicBool = AtomicBool::new(true);
    for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGHUP] {
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler only adds to an atomic.
        unsafe { sigaction(signal, &action) }.expect("a handler may be installed");
    }
    let launcher = thread::spawn(|| {
        while GO_ON.load(SeqCst) {
            for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGHUP] {
                // SAFETY: a signal to the own group, which handles it.
                unsafe { libc::kill(0, signal) };
            }
            thread::sleep(Duration::from_micros(300));
        }
    });
    let start = Instant::now();
    let mut built = 0;
    while built < 20 && start.elapsed() < Duration::from_secs(60) {
        let pool = Pool::builder().processes(2).build()?;
        assert!(pool.map(|x: u64| x, 0..100)?.iter().copied().eq(0..100));
        built += 1;
    }
    GO_ON.store(false, SeqCst);
    launcher.join().expect("it does not panic");
    println!("{built}");
    Ok(())
}

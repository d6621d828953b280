//! Nothing is left behind: no process, no open file, no name in `/dev/shm`, no memory, however a pool ends.
//!
//! Without the harness, because only one pool may live at a time here.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use swathe::{Memory, Pool, Result};
use swathe_tests::{Holdings, pool_processes, runs, until, watch};

fn pool() -> Result<Pool> {
    Pool::builder().processes(2).build()
}

fn sleep_long(_: u8) {
    thread::sleep(Duration::from_secs(3600));
}

fn closed_and_joined() -> Result<()> {
    let pool = pool()?;
    let pending = pool.map_async(|x: u64| x.to_string(), 0..100)?;
    pool.close();
    pool.join()?;
    assert_eq!(pending.get()?.len(), 100);
    Ok(())
}

fn terminated() -> Result<()> {
    let pool = pool()?;
    let pending = pool.map_async(sleep_long, [0; 10])?;
    pool.terminate();
    assert!(pending.get().is_err());
    Ok(())
}

fn dropped() -> Result<()> {
    let pool = pool()?;
    let _pending = pool.map_async(sleep_long, [0; 10])?;
    Ok(())
}

fn dropped_at_once() -> Result<()> {
    pool().map(drop)
}

fn dropped_while_streaming() -> Result<()> {
    let pool = pool()?;
    let mut stream = pool.imap_unordered(|x: u64| vec![x; 1000], 0..);
    assert!(stream.next().is_some());
    Ok(())
}

fn used_after_its_end() -> Result<()> {
    let pool = pool()?;
    pool.map(|x: u64| x, 0..10)?;
    pool.close();
    pool.join()?;
    std::mem::forget(pool.map_async(sleep_long, [1]));
    Ok(())
}

fn broken() -> Result<()> {
    fn fail() {
        panic!("on purpose");
    }
    let pool = Pool::builder().processes(2).initializer(fail, ()).build()?;
    assert!(pool.map(|x: u8| x, [1]).is_err());
    Ok(())
}

/// Workers, then the process that forks them, die of SIGKILL.
fn killed() -> Result<()> {
    let pool = pool()?;
    let pending = pool.map_async(
        |x: u64| thread::sleep(Duration::from_millis(x / x.max(1))),
        0..200,
    )?;
    for round in 0..4 {
        until("both workers are there", || pool.workers().len() == 2);
        let worker = pool.workers()[0].pid;
        let victim = match round % 2 {
            0 => worker,
            _ => swathe_tests::Process::read(worker).map_or(worker, |process| process.parent),
        };
        if victim != std::process::id() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(victim as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        until("it is gone", || !runs(victim));
    }
    pending.get()?;
    drop(pool);
    reap_orphans();
    Ok(())
}

/// Workers whose own parent was killed are this process's to reap (see `main`); without it they would be `init`'s.
fn reap_orphans() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    until("all orphans are reaped", || {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {
        }
        pool_processes().is_empty()
    });
}

/// A program with a pool and much shared memory is killed: nobody holds its memory afterwards.
fn of_a_killed_program() -> Result<()> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_parent"))
        .arg("memory")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let said = program.stdout.take().expect("it is piped");
    BufReader::new(said)
        .read_line(&mut line)
        .expect("it says something");
    let pids: Vec<u32> = line
        .split_whitespace()
        .map(|pid| pid.parse().expect("a number"))
        .collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| runs(*pid)), "{line}");
    let memory = memfds(program.id());
    assert!(memory.len() >= 2, "the arena and the pool's words");
    let somebody_holds = || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.into_iter().any(|pid| !memfds(pid).is_disjoint(&memory))
    };
    assert!(somebody_holds());
    program.kill().expect("it is there");
    program.wait().expect("it is this process's");
    until("its workers are gone", || pids.iter().all(|pid| !runs(*pid)));
    until("nobody holds its memory", || !somebody_holds());
    reap_orphans();
    Ok(())
}

/// The unnamed files that a process has open or mapped, by their numbers.
fn memfds(pid: u32) -> BTreeSet<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:"));
    let mapped = mapped.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok());
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let files = files.filter(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        target.to_string_lossy().starts_with("/memfd:")
    });
    let open = files.filter_map(|file| Some(fs::metadata(file.path()).ok()?.ino()));
    mapped.chain(open).collect()
}

fn resized_and_recycled() -> Result<()> {
    let pool = Pool::builder().processes(1).max_tasks_per_child(3).build()?;
    for processes in [3, 1, 2] {
        pool.resize(processes)?;
        assert_eq!(pool.batch().chunk_size(1).map(|x: u64| x, 0..20)?.len(), 20);
    }
    Ok(())
}

fn of_mapped_files() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.npy");
    swathe::Array::from_fn(1000, |i| i as f64)?.to_npy(&path)?;
    #[expect(unsafe_code, reason = "a file is mapped")]
    // SAFETY: nobody writes the file.
    let array = unsafe { swathe::Array::<f64>::map_npy_path(&path) }?;
    assert_eq!(pool()?.map(|x: f64| x, &array)?[999], 999.0);
    Ok(())
}

fn with_an_arena_of_its_own() -> Result<()> {
    let memory = Memory::with_capacity(16 << 20)?;
    let pool = Pool::builder().processes(1).memory(memory).build()?;
    assert_eq!(pool.map(|x: u64| x, 0..1000)?.len(), 1000);
    Ok(())
}

fn main() -> Result<()> {
    swathe::init();
    // Orphans become children of this process, so that none can hide.
    nix::sys::prctl::set_child_subreaper(true).expect("Linux can do that");
    type Scenario = (&'static str, fn() -> Result<()>);
    let scenarios: [Scenario; 12] = [
        ("closed and joined", closed_and_joined),
        ("terminated", terminated),
        ("dropped", dropped),
        ("dropped at once", dropped_at_once),
        ("dropped while streaming", dropped_while_streaming),
        ("used after its end", used_after_its_end),
        ("broken", broken),
        ("killed", killed),
        ("of a killed program", of_a_killed_program),
        ("resized and recycled", resized_and_recycled),
        ("of mapped files", of_mapped_files),
        ("with an arena of its own", with_an_arena_of_its_own),
    ];
    // It stays for good.
    let memory = Memory::global()?;
    let (before, in_use) = (Holdings::now(), memory.stats().in_use);
    for (name, scenario) in scenarios {
        let _watch = watch();
        for _ in 0..3 {
            scenario()?;
            before.assert_restored(&format!("a pool that was {name}"));
            until("its memory is free", || memory.stats().in_use == in_use);
        }
        println!("a pool that was {name} left nothing");
    }
    Ok(())
}

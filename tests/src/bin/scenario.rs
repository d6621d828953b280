//! Programs that a test must run from outside; the first argument chooses one.

use std::{
    cell::OnceCell,
    fs::File,
    future::Future,
    io::Write as _,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use swathe::{ArrayMut, Context, Error, Pool, Result, Status};

fn main() -> Result<()> {
    swathe::init();
    match std::env::args().nth(1).as_deref() {
        Some("prints") => prints(),
        Some("forked") => forked(),
        Some("forked_handles") => forked_handles(),
        Some("little_address_space") => little_address_space(),
        Some("resume") => resume(),
        Some("no_room") => no_room(),
        Some("panics") => panics(),
        other => panic!("no scenario is called {other:?}"),
    }
}

/// Workers write to both streams; the parent writes when they have ended.
fn prints() -> Result<()> {
    let pool = Pool::builder().processes(2).build()?;
    pool.map(|x: u32| println!("worker got {x}"), 0..20)?;
    pool.apply(|| eprintln!("error stream"), ())?;
    pool.apply(|| print!("no newline"), ())?;
    pool.close();
    pool.join()?;
    println!("\nthe parent is last");
    Ok(())
}

/// Uses a pool in a child that was forked from the process that built it.
#[expect(unsafe_code, reason = "forking by hand is what is tested")]
fn forked() -> Result<()> {
    use nix::{
        sys::wait::waitpid,
        unistd::{ForkResult, fork},
    };
    let pool = Pool::builder().processes(2).build()?;
    let pending = pool.map_async(|x: u64| x + 1, 0..3)?;
    println!("{:?}", pending.get()?);
    // SAFETY: the pool's threads hold no lock of the standard library's while they sleep, and the child uses nothing
    // else of theirs.
    match unsafe { fork() }.expect("a process can be forked") {
        ForkResult::Child => {
            println!("map: {}", pool.map(|x: u64| x + 1, 0..3).unwrap_err());
            println!("apply_async: {}", pool.apply_async(|| 1_u8, ()).unwrap_err());
            println!("resize: {}", pool.resize(1).unwrap_err());
            pool.close();
            println!("join: {}", pool.join().unwrap_err());
            pool.terminate();
            drop(pool);
            println!("the old result: {:?}", pending.get()?);
            let own = Pool::builder().processes(1).build()?;
            println!("a pool of its own: {:?}", own.map(|x: u64| x + 1, 0..3)?);
        }
        ForkResult::Parent { child } => {
            println!("child: {:?}", waitpid(child, None).expect("it ends"));
            println!("the parent's pool: {:?}", pool.map(|x: u64| x + 2, 0..3)?);
        }
    }
    let _ = std::io::stdout().flush();
    Ok(())
}

fn slow(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(5));
    x
}

/// What children say that were forked while jobs run and other threads of their parent use its pool.
#[expect(unsafe_code, reason = "forking by hand is what is tested")]
#[expect(
    clippy::too_many_lines,
    reason = "a list of all handles, each asked once in a child"
)]
fn forked_handles() -> Result<()> {
    use std::{
        pin::pin,
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Waker},
        thread,
    };

    use nix::{
        sys::wait::waitpid,
        unistd::{ForkResult, alarm, fork},
    };
    use swathe::{Array, Queue, Value};

    let pool = Pool::builder().processes(2).build()?;
    let (value, queue, array) = (
        Value::new(7_u64)?,
        Queue::<u64>::bounded(8)?,
        Array::from_vec(vec![3.0; 1000])?,
    );
    queue.put(&5)?;
    let over = AtomicBool::new(false);
    let path = directory().join("out.npy");
    thread::scope(|scope| -> Result<()> {
        // Locks of the pool are held when the children are forked.
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(pool.map(slow, 0..3).is_ok());
                    pool.workers();
                }
            });
        }
        let jobs = (0..20).map(|round| -> Result<()> {
            let mut stream = pool.batch().chunk_size(1).imap(slow, 0..20);
            let mut any = pool.batch().chunk_size(1).imap_unordered(slow, 0..20);
            let first = (stream.next().transpose()?, any.next().transpose()?);
            let mut pending = pool.batch().chunk_size(1).map_async(slow, 0..40)?;
            let file = pool
                .batch()
                .output_file(&path)
                .chunk_size(1)
                .map_async(slow, 0..40)?;
            let waiting = first.0.is_some() && first.1.is_some() && pending.progress().0 < 40;
            // SAFETY: the child allocates, which the C library allows after a fork, uses no lock of another thread's but
            // those that are tested, and leaves by `_exit`.
            match unsafe { fork() }.expect("a process can be forked") {
                ForkResult::Child => {
                    // A child that hangs is killed, and is no success.
                    alarm::set(20);
                    let mut context = Context::from_waker(Waker::noop());
                    let forked = |text: String| text.contains("this process was forked from that one");
                    let text = |result: Result<Array<u64>>| result.unwrap_err().to_string();
                    let said = [
                        ("get", forked(text(pending.get()))),
                        (
                            "get_timeout",
                            forked(text(pending.get_timeout(Duration::from_secs(5)))),
                        ),
                        ("wait", !pending.wait(Duration::from_secs(5))),
                        ("ready", !pending.ready()),
                        (
                            "successful",
                            forked(pending.successful().unwrap_err().to_string()),
                        ),
                        ("progress", pending.progress() == (0, 0)),
                        ("report", pending.report().is_none()),
                        ("poll", pin!(&mut pending).poll(&mut context).is_ready()),
                        ("file", forked(text(file.get())) && !file.ready()),
                        (
                            "next",
                            stream.any(|item| item.is_err_and(|error| forked(error.to_string()))),
                        ),
                        ("end", stream.next().is_none()),
                        ("next_timeout", {
                            let mut items =
                                std::iter::from_fn(|| any.next_timeout(Duration::from_secs(5)).transpose());
                            items.any(|item| item.is_ok_and(|item| item.is_err()))
                        }),
                        ("workers", pool.workers().is_empty() && pool.processes() == 0),
                        ("put", forked(queue.put(&6).unwrap_err().to_string())),
                        (
                            "get of a queue",
                            forked(queue.get_timeout(Duration::from_secs(5)).unwrap_err().to_string()),
                        ),
                        (
                            "value",
                            value.load() == 7 && array[999] == 3.0 && queue.len() == 1,
                        ),
                        (
                            "new",
                            forked(
                                pool.imap(slow, 0..3)
                                    .next()
                                    .expect("an item")
                                    .unwrap_err()
                                    .to_string(),
                            ),
                        ),
                    ];
                    pending.cancel();
                    pool.close();
                    pool.terminate();
                    drop((stream, any, pending, file));
                    drop((value.clone(), queue.clone(), array.clone()));
                    let wrong: Vec<_> = said.iter().filter(|(_, right)| !right).collect();
                    if !wrong.is_empty() {
                        println!("in the child: {wrong:?}");
                    }
                    // SAFETY: it ends the process at once.
                    unsafe { libc::_exit(i32::from(!wrong.is_empty())) }
                }
                ForkResult::Parent { child } => {
                    let ended = waitpid(child, None).expect("it ends");
                    let items = 2
                        + stream.filter(|item| item.is_ok()).count()
                        + any.filter(|item| item.is_ok()).count();
                    let (all, saved) = (pending.get()?.len(), file.get()?.len());
                    println!("{round} {waiting}: {ended:?}, {items} items, {all} values, {saved} in a file");
                    std::fs::remove_file(&path)
                        .and_then(|()| std::fs::remove_file(path.with_extension("npy.progress")))
                        .expect("they are there");
                }
            }
            Ok(())
        });
        let done: Result<Vec<()>> = jobs.collect();
        over.store(true, Ordering::Relaxed);
        done.map(|_| ())
    })?;
    println!(
        "{} {:?} {}",
        value.load(),
        queue.try_get()?,
        array.iter().sum::<f64>()
    );
    Ok(())
}

/// Asks for more memory than the process may map.
fn little_address_space() -> Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    let limit = 700 << 20;
    setrlimit(Resource::RLIMIT_AS, limit, limit).expect("it may be lowered");
    let pool = Pool::builder().processes(1).build()?;
    println!("small: {:?}", pool.map(|x: u8| x, 0..3)?);
    match pool.map(|x: u64| [x; 16], 0..8 << 20) {
        Ok(_) => println!("a gibibyte was had"),
        Err(error) => println!("large: {error}"),
    }
    println!("small again: {:?}", pool.map(|x: u8| x, 0..3)?);
    Ok(())
}

fn directory() -> PathBuf {
    std::env::args_os().nth(2).expect("a directory is given").into()
}

thread_local! {
    static RUNS: OnceCell<File> = const { OnceCell::new() };
}

/// The root of a number, after a while. Counts that it was started; no two workers are at one position.
fn slow_root(runs: &String, x: u32) -> f64 {
    RUNS.with(|file| {
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(runs)
        };
        let file = file.get_or_init(|| open().expect("it can be opened"));
        let mut byte = [0];
        let _ = file.read_at(&mut byte, x.into()).expect("it can be read");
        file.write_all_at(&[byte[0] + 1], x.into())
            .expect("it can be written");
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(200) {
        std::hint::spin_loop();
    }
    f64::from(x).sqrt()
}

/// A job with its output in a file, as a cluster runs it.
fn resume() -> Result<()> {
    let directory = directory();
    let pool = Pool::builder().processes(2).build()?;
    let batch = pool.batch().output_file(directory.join("out.npy")).chunk_size(64);
    let runs = directory.join("runs").display().to_string();
    let roots = batch.with(&runs)?.map(slow_root, 0..4000)?;
    println!("{}", roots.len());
    Ok(())
}

/// Asks for more of a disk than there is; with a further argument, more than the process may write.
fn no_room() -> Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    let path = directory().join("out.npy");
    if let Some(limit) = std::env::args().nth(3) {
        let limit = limit.parse().expect("a number of bytes");
        setrlimit(Resource::RLIMIT_FSIZE, limit, limit).expect("it may be lowered");
    }
    let memory = swathe::Memory::with_capacity(64 << 10);
    let pool = match memory {
        Ok(memory) => Pool::builder().processes(1).memory(memory).build(),
        Err(error) => Err(error.into()),
    }?;
    let double = |x: u32| f64::from(x) * 2.0;
    match pool.batch().output_file(&path).map(double, 0..1 << 20) {
        Ok(_) => println!("8 MiB were had"),
        Err(error) => println!("large: {error}"),
    }
    println!(
        "left: {:?}",
        std::fs::read_dir(directory()).map(Iterator::count).ok()
    );
    println!("small: {:?}", pool.batch().output_file(&path).map(double, 0..3)?);
    Ok(())
}

/// Panics that abort (the profile `abort`) cost a worker each and are panics, as where they unwind.
fn panics() -> Result<()> {
    fn odd(x: u64) -> u64 {
        assert!(x % 2 == 1, "even {x}");
        x
    }
    fn shy(context: &Context, x: u64) -> String {
        assert!(!x.is_multiple_of(50) || context.attempt() == 2, "not yet");
        x.to_string()
    }
    fn no_plan() {
        panic!("no plan");
    }
    let budget = |deaths| {
        Pool::builder()
            .processes(2)
            .restart_budget(deaths, Duration::from_secs(60))
    };
    let pool = budget(0).build()?;
    let partial = pool.batch().collect_errors().map(odd, 0..1000)?;
    assert_eq!(partial.why_stopped(), None);
    for i in 0..1000 {
        assert_eq!(
            partial.value(i as usize)?,
            (i % 2 == 1).then_some(i),
            "position {i}"
        );
    }
    for failure in partial.failures() {
        let text = format!("even {}, at ", failure.position());
        assert_eq!(
            (failure.status(), failure.attempts()),
            (Status::Panicked, 1),
            "{failure}"
        );
        assert!(failure.message().starts_with(&text), "{failure}");
    }
    let texts = pool.batch().retries(1).map(shy, 0..1000)?;
    assert!(
        texts
            .iter()
            .zip(0..)
            .all(|(text, x): (String, u64)| text == x.to_string())
    );
    let grown = |x: u64| {
        if x == 500 {
            panic!("five hundred")
        } else {
            x + 1000
        }
    };
    let Err(Error::Job(error)) = pool.map_in_place(grown, ArrayMut::from_range(0..1000u64)?) else {
        panic!("one must fail")
    };
    let partial = error
        .into_partial::<ArrayMut<u64>>()
        .expect("the array comes back");
    for i in (0..1000).filter(|i| *i != 500) {
        assert_eq!(partial.value(i)?, Some(1000 + i as u64), "position {i}");
    }
    assert_eq!(partial.status(500), Status::Panicked);
    let pool = Pool::builder().processes(1).initializer(no_plan, ()).build()?;
    let error = pool.map(odd, [1]).unwrap_err().to_string();
    assert!(error.contains("last with: it panicked: no plan, at "), "{error}");
    println!(
        "panics that {} are panics",
        if cfg!(panic = "abort") { "abort" } else { "unwind" }
    );
    Ok(())
}

//! Programs that a test must run from outside; the first argument chooses one.

use std::{
    cell::OnceCell,
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use swathe::{Pool, Result};

fn main() -> Result<()> {
    swathe::init();
    match std::env::args().nth(1).as_deref() {
        Some("prints") => prints(),
        Some("forked") => forked(),
        Some("little_address_space") => little_address_space(),
        Some("resume") => resume(),
        Some("no_room") => no_room(),
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

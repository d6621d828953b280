//! Programs that a test must run from outside; the first argument chooses one.

use std::io::Write as _;

use swathe::{Pool, Result};

fn main() -> Result<()> {
    swathe::init();
    match std::env::args().nth(1).as_deref() {
        Some("prints") => prints(),
        Some("forked") => forked(),
        Some("little_address_space") => little_address_space(),
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

//! A job that the workers cannot run fails alone.

use nix::sys::resource::{Resource, setrlimit};
use swathe::{Array, Error, Pool, Result, Status};
use swathe_tests::watched;

/// From now on this process may open no more files, and not raise that limit.
fn no_more_files() {
    setrlimit(Resource::RLIMIT_NOFILE, 3, 3).expect("it may be lowered");
}

#[test]
fn a_job_without_its_memory_ends_alone() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory");
    let nap = |x: u64| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        x
    };
    let builder = Pool::builder().processes(2).initializer(no_more_files, ());
    // No worker dies of it.
    let pool = watched(
        builder
            .restart_budget(0, std::time::Duration::from_secs(60))
            .build(),
    );
    let beside = pool.map_async(nap, 0..200)?;
    for file in ["once.npy", "again.npy"] {
        let output = pool.batch().output_file(directory.path().join(file));
        let Err(Error::Job(error)) = output.map(nap, 0..200) else {
            panic!("nobody could open the output")
        };
        let text = error.to_string();
        assert!(
            text.starts_with("the workers cannot run this job: ")
                && text.ends_with(": 0 of 200 positions were done"),
            "{text}"
        );
        let partial = error.into_partial::<Array<u64>>().expect("these are numbers");
        assert_eq!(partial.status(3), Status::NotRun);
    }
    assert!(beside.get()?.iter().copied().eq(0..200));
    assert!(pool.map(nap, 0..10)?.iter().copied().eq(0..10));
    Ok(())
}

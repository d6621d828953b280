//! What is told of a job that did not bring all: by position, in one line, and to whoever prints it.

use std::{thread::sleep, time::Duration};

use swathe::{Error, Partial, Result, Status};
use swathe_tests::pool;

fn nap(_: u64) {
    sleep(Duration::from_millis(50));
}

/// The entries that it gives cover exactly the positions that have no value, and say of each what its status says.
fn assert_told<O: swathe::Collection>(partial: &Partial<O>) {
    let mut told = vec![None; partial.len()];
    let mut end = 0;
    for failure in partial.failures() {
        assert!(failure.position() >= end, "ascending, each position once");
        end = failure.position() + failure.span();
        for at in failure.position()..end {
            told[at as usize] = Some(failure.status());
        }
    }
    for (at, (told, result)) in told.iter().zip(partial.iter()).enumerate() {
        let status = partial.status(at);
        assert_eq!(told.unwrap_or(Status::Done), status, "position {at}");
        let status_of_result = result.err().map_or(Status::Done, |error| {
            assert!(error.position() <= at as u64);
            assert!(
                error.status() == Status::Lost || !error.message().is_empty(),
                "{at}: {error}"
            );
            error.status()
        });
        assert_eq!(status_of_result, status, "position {at}");
    }
}

#[test]
fn after_a_deadline_every_position_without_a_value_is_told() -> Result<()> {
    let pool = pool(2);
    for chunk in [1, 7] {
        let batch = pool
            .batch()
            .chunk_size(chunk)
            .deadline(Duration::from_millis(180))
            .collect_errors();
        let partial = batch.map(nap, 0..100_u64)?;
        let missing = (0..100)
            .filter(|at| partial.status(*at) == Status::TimedOut)
            .count();
        assert!(missing > 50, "{missing}");
        assert_told(&partial);
        let expected = format!("{} done, {missing} timed out", 100 - missing);
        assert_eq!(partial.summary(), expected);
        let last = partial.failures().pop().expect("some have no value");
        assert!(
            last.to_string().ends_with("the job's deadline has passed"),
            "{last}"
        );
    }
    Ok(())
}

#[test]
fn a_job_that_stops_at_its_first_failure_tells_what_was_not_run() -> Result<()> {
    fn no_three(x: u64) -> Result<u64, &'static str> {
        if x == 3 { Err("three") } else { Ok(x) }
    }
    let pool = pool(1);
    let batch = pool.batch().chunk_size(1).fail_fast().collect_errors();
    let partial = batch.try_map(no_three, 0..1000)?;
    assert_told(&partial);
    assert_eq!(partial.status(3), Status::Failed);
    assert_eq!(partial.status(999), Status::NotRun);
    let Err(Error::Job(error)) = pool.batch().chunk_size(1).fail_fast().try_map(no_three, 0..1000) else {
        panic!("3 fails")
    };
    assert_eq!(error.first().map(|first| first.position()), Some(3));
    assert!(error.failures().len() >= 2, "{:?}", error.failures());
    assert!(error.summary().contains("1 failed"), "{}", error.summary());
    Ok(())
}

#[test]
fn a_summary_counts_by_what_became_of_positions() -> Result<()> {
    fn mixed(x: u64) -> Result<u64, String> {
        match x % 100 {
            7 => Err("seven".to_owned()),
            8 => panic!("eight"),
            9 => std::process::abort(),
            _ => Ok(x),
        }
    }
    let pool = pool(2);
    let partial = pool
        .batch()
        .max_deaths(1)
        .collect_errors()
        .try_map(mixed, 0..200)?;
    assert_eq!(partial.summary(), "194 done, 2 failed, 2 panicked, 2 lost");
    assert_told(&partial);
    let complete = pool.batch().collect_errors().map(|x: u64| x, 0..10)?;
    assert_eq!(complete.summary(), "10 done");
    assert!(complete.failures().is_empty() && complete.iter().all(|result| result.is_ok()));
    Ok(())
}

/// `main() -> swathe::Result<()>` and `unwrap` print it with `{:?}`.
#[test]
fn what_is_printed_for_debugging_is_for_people() {
    let pool = pool(2);
    let error = pool
        .map(|x: u64| if x == 1 { panic!("odd") } else { x }, 0..4)
        .unwrap_err();
    assert!(
        error.to_string().starts_with("position 1 failed: panicked: odd"),
        "{error}"
    );
    assert_eq!(format!("{error:?}"), error.to_string());
    let Error::Job(job) = error else { panic!("a job") };
    assert_eq!(format!("{job:?}"), job.to_string());
    assert_eq!(
        format!("{:?}", job.first().unwrap()),
        job.first().unwrap().to_string()
    );
    let columns = pool.starmap(|a: i32, b: i32| a + b, ([1, 2], [3])).unwrap_err();
    assert_eq!(format!("{columns:?}"), columns.to_string());
}

#[test]
fn an_error_says_at_which_attempt_it_was_made() {
    let pool = pool(2);
    let batch = pool.batch().retries(2).backoff(Duration::ZERO, Duration::ZERO);
    let error = batch
        .try_map(|x: u64| if x == 1 { Err("never") } else { Ok(x) }, 0..3)
        .unwrap_err();
    assert!(
        error.to_string().starts_with("position 1 failed: never (worker "),
        "{error}"
    );
    assert!(error.to_string().ends_with(", attempt 3)"), "{error}");
}

//! A fault in every process, and not in one alone: the pool gives up, and says why.

use std::time::Duration;

use swathe::{
    Array, Builder, Error, Pool, Result,
    chaos::{Chaos, Fault, Injection, Point},
};
use swathe_tests::watched;

use crate::{
    cell::LIMIT,
    shape::{POSITIONS, number},
};

fn everywhere(point: Point, fault: Fault) -> Builder {
    let injection = Injection {
        point,
        fault,
        worker: None,
        incarnation: None,
        nth: 1,
    };
    Pool::builder()
        .processes(2)
        .chaos(Chaos::seeded(0).inject(injection))
        .restart_budget(20, Duration::from_secs(60))
}

/// What a broken pool says.
fn last_words(builder: Builder) -> String {
    let pool = watched(builder.build());
    let first = pool
        .map(number, 0..POSITIONS)
        .expect_err("nobody comes to work")
        .to_string();
    let text = first
        .trim_start_matches("the pool is broken: ")
        .split(": 0 of ")
        .next()
        .unwrap_or_default();
    let again = pool
        .map(number, 0..POSITIONS)
        .expect_err("it stays broken")
        .to_string();
    assert_eq!(again, format!("the pool is broken: {text}"));
    pool.close();
    assert_eq!(pool.join().expect_err("it broke").to_string(), again);
    text.to_owned()
}

#[test]
fn in_the_initializer_the_pool_breaks() {
    let breaks_with = |fault, expected: &str| {
        let said = last_words(everywhere(Point::Initializer, fault));
        assert!(
            said.contains(expected) && said.contains("3 times in a row"),
            "{said}"
        );
    };
    breaks_with(
        Fault::Panic,
        "last with: it panicked: injected at Initializer, at ",
    );
    breaks_with(Fault::Exit(0), "exited with code 0 before it came to work");
    breaks_with(
        Fault::Abort,
        "was killed by signal 6 (SIGABRT) before it came to work",
    );
    breaks_with(
        Fault::Segfault,
        "was killed by signal 11 (SIGSEGV) before it came to work",
    );
    breaks_with(
        Fault::BusError,
        "was killed by signal 7 (SIGBUS) before it came to work",
    );
    breaks_with(
        Fault::Kill,
        "was killed by signal 9 (SIGKILL) before it came to work",
    );
    let limited = everywhere(Point::Initializer, Fault::Stop).initializer_timeout(LIMIT);
    let said = last_words(limited);
    assert!(
        said.starts_with("the initializer did not end within 500ms, 3 times in a row"),
        "{said}"
    );
}

/// Nobody gets far, but those who get somewhere may be enough: the job is complete, or the pool says that too many died.
#[test]
fn elsewhere_the_budget_of_deaths_is_spent_or_the_job_is_done() -> Result<()> {
    for point in Point::ALL.into_iter().skip(1) {
        for fault in [Fault::Kill, Fault::Panic] {
            let mut builder = everywhere(point, fault);
            if matches!(point, Point::Recycling | Point::ExitHook) {
                builder = builder.max_tasks_per_child(20);
            }
            let pool = watched(builder.build());
            let error = match pool.map(number, 0..POSITIONS) {
                Ok(values) => {
                    assert!(values.iter().copied().eq((0..POSITIONS).map(|i| 3 * i + 1)));
                    continue;
                }
                Err(Error::Job(error)) => error,
                Err(Error::Engine(error)) => {
                    assert!(
                        error.to_string().contains("21 workers died within 60s"),
                        "{error}"
                    );
                    continue;
                }
                Err(other) => return Err(other),
            };
            let text = error.to_string();
            let panicked =
                fault == Fault::Panic && error.failures().iter().all(|failure| failure.cause().is_none());
            assert!(
                panicked
                    || text.contains(
                        "21 workers died within 60s, and it may lose 20 in that time; the last, worker "
                    ),
                "{point:?}: {text}"
            );
            let partial = error.into_partial::<Array<u64>>().expect("these are numbers");
            for i in 0..partial.len() {
                let expected = 3 * i as u64 + 1;
                assert!(
                    partial.value(i)?.is_none_or(|value| value == expected),
                    "{point:?}, position {i}"
                );
            }
        }
    }
    Ok(())
}

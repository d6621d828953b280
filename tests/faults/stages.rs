//! One test for each stage: all faults, in jobs of all shapes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use swathe::chaos::Point;

use crate::{
    cell::Trial,
    shape::Shape,
    table::{FaultKind, Outcome, STAGES, outcome},
};

/// How many pools there are at a time.
const AT_ONCE: usize = 4;
/// How many there are of those that mostly wait.
const WAITING_AT_ONCE: usize = 12;

/// All trials of a row: those that are over soon, those in which something stands still, and those in which something
/// takes a core for nothing.
fn trials(row: usize) -> [Vec<Trial>; 3] {
    let (stage, point, in_place) = STAGES[row];
    let mut groups = [Vec::new(), Vec::new(), Vec::new()];
    for (number, (_, kind)) in FaultKind::ALL.into_iter().enumerate() {
        let expected = outcome(stage, kind);
        if kind.fault().is_none() || expected == Outcome::Absent {
            continue;
        }
        let shapes = Shape::ALL
            .into_iter()
            .filter(|shape| shape.passes(point, in_place));
        // A job without limits would wait for it.
        let shapes = shapes.filter(|shape| !(*shape == Shape::PerWorker && kind.hangs()));
        for (index, shape) in shapes.enumerate() {
            let trial = Trial {
                stage,
                point,
                kind,
                shape,
                nth: nth(point, in_place, number + index),
                strict: false,
            };
            let group = match kind {
                FaultKind::Stop => 1,
                FaultKind::Loop => 2,
                _ => 0,
            };
            // One shape is enough to see that a loop is like a stop.
            if kind != FaultKind::Loop || index == 0 {
                groups[group].push(trial);
            }
            if matches!(expected, Outcome::Blamed | Outcome::Replaced | Outcome::Leaves)
                && index == number % 2
            {
                groups[0].push(Trial {
                    strict: true,
                    ..trial
                });
            }
        }
    }
    groups
}

/// At which passage the fault happens: the first, or one in the middle.
fn nth(point: Point, in_place: bool, turn: usize) -> u64 {
    match point {
        // A process passes these once.
        Point::Initializer | Point::Recycling | Point::ExitHook => 1,
        // Room for the copy is taken at the first passage, and at the second the copy is begun.
        Point::Writing if in_place => 2,
        _ if turn.is_multiple_of(2) => 1,
        _ => 3,
    }
}

/// Runs all trials of a row, some at a time, and says which went wrong.
fn run(row: usize) {
    let [soon, standing, turning] = trials(row);
    let mut wrong = run_all(soon, AT_ONCE);
    wrong.extend(run_all(standing, WAITING_AT_ONCE));
    wrong.extend(run_all(turning, 2));
    assert!(
        wrong.is_empty(),
        "{} cells went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn run_all(trials: Vec<Trial>, at_once: usize) -> Vec<String> {
    let wrong = Mutex::new(Vec::new());
    let trials = Mutex::new(trials);
    let next = || trials.lock().expect("nobody panics here").pop();
    let work = || {
        while let Some(trial) = next() {
            let said = match catch_unwind(AssertUnwindSafe(|| trial.run())) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(payload) => said(&*payload),
            };
            wrong
                .lock()
                .expect("nobody panics here")
                .push(format!("{trial:?}: {said}"));
        }
    };
    thread::scope(|scope| {
        for worker in 0..at_once {
            let name = format!("trials {worker}");
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, work)
                .expect("a thread can be had");
        }
    });
    wrong.into_inner().expect("nobody panics there")
}

fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

macro_rules! stages {
    ($($row:literal $name:ident),*) => {
        $(
            #[test]
            fn $name() {
                run($row);
            }
        )*
    };
}

stages!(
    0 in_the_initializer,
    1 idle,
    2 before_a_claim,
    3 between_claim_and_record,
    4 reading_input,
    5 running,
    6 writing_results,
    7 writing_results_in_place,
    8 between_last_write_and_publishing,
    9 between_last_write_and_publishing_in_place,
    10 after_publishing,
    11 while_being_recycled,
    12 in_the_exit_hook
);

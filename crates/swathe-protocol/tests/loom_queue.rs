//! The queue, searched by loom: `RUSTFLAGS="--cfg loom" cargo test -p swathe-protocol --release --test loom_queue`.
//!
//! Each model: what the threads do; then, when all have ended, that nothing was lost, doubled or wedged; and at last
//! that the search came to every outcome there is, for a model that never sees a race proves nothing.
#![cfg(loom)]

mod queue_words;

use loom::{sync::Arc, thread};
use queue_words::*;
use std::{collections::BTreeSet, sync::Mutex};

/// The outcomes of all orders with at most so many preemptions.
fn search<T: Ord + Send + 'static>(
    preemptions: usize,
    model: impl Fn() -> T + Send + Sync + 'static,
) -> BTreeSet<T> {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let outcomes = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    let seen = std::sync::Arc::clone(&outcomes);
    builder.check(move || {
        let outcome = model();
        seen.lock().unwrap().insert(outcome);
    });
    std::mem::take(&mut outcomes.lock().unwrap())
}

fn spawn<T: 'static>(words: &Arc<Words>, body: impl FnOnce(&Words) -> T + 'static) -> thread::JoinHandle<T> {
    let words = Arc::clone(words);
    thread::spawn(move || body(&words))
}

fn pop_times(words: &Words, times: usize) -> Vec<u64> {
    (0..times).filter_map(|_| words.pop()).collect()
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

#[test]
fn two_producers_and_a_consumer() {
    let outcomes = search(2, || {
        let words = Arc::new(Words::new(2, 4));
        let producers = [1, 2].map(|value| spawn(&words, move |words| words.push(value)));
        let early = pop_times(&words, 2);
        for producer in producers {
            assert_eq!(producer.join().unwrap(), Ok(()));
        }
        assert_eq!(words.queue().len(), 2 - early.len());
        assert_eq!(sorted([early.clone(), words.drain()].concat()), [1, 2]);
        assert_eq!(words.held(), 0);
        words.assert_works(1);
        early
    });
    assert_eq!(
        outcomes,
        [vec![], vec![1], vec![1, 2], vec![2], vec![2, 1]].into()
    );
}

#[test]
fn a_lap_boundary_keeps_the_order() {
    let outcomes = search(3, || {
        let words = Arc::new(Words::new(2, 3));
        for value in 90..93 {
            words.push(value).unwrap();
            assert_eq!(words.pop(), Some(value));
        }
        words.push(1).unwrap();
        let producer = spawn(&words, |words| {
            (2..5)
                .filter(|&value| words.push(value) == Ok(()))
                .collect::<Vec<_>>()
        });
        let early = pop_times(&words, 2);
        let mut pushed = vec![1];
        pushed.extend(producer.join().unwrap());
        assert_eq!([early.clone(), words.drain()].concat(), pushed);
        assert_eq!(words.held(), 0);
        words.assert_works(1);
        (early, pushed)
    });
    // In the first of them consumer and producer each miss the latest change of the other, as the memory model allows.
    let all: [(&[u64], &[u64]); 7] = [
        (&[1], &[1, 2]),
        (&[1], &[1, 2, 3]),
        (&[1], &[1, 2, 4]),
        (&[1, 2], &[1, 2]),
        (&[1, 2], &[1, 2, 3]),
        (&[1, 2], &[1, 2, 3, 4]),
        (&[1, 2], &[1, 2, 4]),
    ];
    assert_eq!(
        outcomes,
        all.map(|(early, pushed)| (early.to_vec(), pushed.to_vec()))
            .into()
    );
}

/// One thread never lets the queue be full, then never empty: no other may be told that it was.
#[test]
fn nobody_is_told_full_or_empty_without_cause() {
    for queued in 0..2 {
        let outcomes = search(2, move || {
            let words = Arc::new(Words::new(2, 4));
            (0..queued).for_each(|value| words.push(value).unwrap());
            let other = spawn(&words, move |words| match queued {
                0 => words.push(9).is_ok().then_some(9),
                _ => words.pop(),
            });
            for value in 1..3 {
                assert_eq!(words.push(value), Ok(()));
                words.pop().unwrap();
            }
            let outcome = other.join().unwrap();
            assert!(outcome.is_some());
            outcome
        });
        assert!(queued == 0 || outcomes.len() == 3, "{outcomes:?}");
    }
}

/// One node for all: each push writes over the words that two consumers may be copying.
#[test]
fn a_node_that_is_used_again_tears_no_message() {
    let outcomes = search(3, || {
        let words = Arc::new(Words::new(1, 1));
        words.push(1).unwrap();
        let consumers = [(); 2].map(|()| spawn(&words, Words::pop));
        let pushed: Vec<_> = (2..4).filter(|&value| words.push(value) == Ok(())).collect();
        let got: Vec<_> = consumers
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect();
        let all = [got.clone(), words.drain()].concat();
        assert_eq!(sorted(all), [vec![1], pushed].concat());
        words.assert_works(1);
        got
    });
    assert_eq!(
        outcomes,
        [vec![1], vec![1, 2], vec![2, 1], vec![1, 3], vec![3, 1]].into()
    );
}

#[test]
fn a_producer_dies_at_each_step_beside_a_producer_and_a_consumer() {
    for steps in 1..=PUSH_STEPS + 1 {
        let outcomes = search(2, move || {
            let words = Arc::new(Words::new(2, 3));
            let dying = spawn(&words, move |words| words.push_and_die(DEAD, 1, steps));
            let producer = spawn(&words, |words| words.push(2));
            let early = pop_times(&words, 2);
            assert_eq!(producer.join().unwrap(), Ok(()));
            let linked = dying.join().unwrap();
            let held = words.held();
            assert!(held <= 1);
            assert_eq!(
                (words.queue().recover(DEAD), words.queue().recover(DEAD)),
                (held, 0)
            );
            let all = sorted([early.clone(), words.drain()].concat());
            assert_eq!(all, if linked { vec![1, 2] } else { vec![2] });
            assert_eq!(words.held(), 0);
            words.assert_works(1);
            early
        });
        let linked = outcomes.contains(&vec![1, 2]) && outcomes.contains(&vec![2, 1]);
        assert_eq!(linked, steps >= 5, "{outcomes:?}");
        assert!(
            outcomes.contains(&vec![]) && outcomes.contains(&vec![2]),
            "{outcomes:?}"
        );
    }
}

#[test]
fn a_consumer_dies_at_each_step_beside_a_producer_and_a_consumer() {
    for steps in 1..=POP_STEPS {
        let outcomes = search(2, move || {
            let words = Arc::new(Words::new(2, 3));
            words.push(1).unwrap();
            let dying = spawn(&words, move |words| words.pop_and_die(steps));
            let producer = spawn(&words, |words| words.push(2));
            let early = pop_times(&words, 2);
            assert_eq!(producer.join().unwrap(), Ok(()));
            let taken = dying.join().unwrap();
            let left = [early, words.drain()].concat();
            assert!(left.is_sorted());
            // What the dead one took died with it, and nothing else.
            let all = left.into_iter().chain(taken).collect();
            assert_eq!(sorted(all), [1, 2]);
            assert_eq!(words.held(), 0);
            words.assert_works(1);
            taken
        });
        let all = [None, Some(1), Some(2)];
        assert_eq!(
            outcomes,
            all[..if steps == 1 { 1 } else { 3 }].iter().copied().collect()
        );
    }
}

/// A second dead producer makes the first one's node the very one that the next push looks at.
#[test]
fn recovery_runs_twice_at_once_beside_users() {
    for steps in 1..=PUSH_STEPS {
        let outcomes = search(2, move || {
            let words = Arc::new(Words::new(2, 3));
            words.push_and_die(DEAD + 1, 0, 1);
            let linked = words.push_and_die(DEAD, 1, steps);
            let recover = |words: &Words| words.queue().recover(DEAD);
            let recovery = spawn(&words, recover);
            let user = spawn(&words, |words| (words.push(2), words.pop()));
            let recovered = (recover(&words), recovery.join().unwrap());
            let (pushed, got) = user.join().unwrap();
            assert_eq!((pushed, words.held()), (Ok(()), 1));
            let all: Vec<_> = got.into_iter().chain(words.drain()).collect();
            assert_eq!(all, if linked { vec![1, 2] } else { vec![2] });
            assert_eq!((words.queue().recover(DEAD + 1), words.held()), (1, 0));
            words.assert_works(1);
            recovered
        });
        let each = if steps < 6 {
            [(0, 1), (1, 0)].into()
        } else {
            [(0, 0)].into()
        };
        assert_eq!(outcomes, each);
    }
}

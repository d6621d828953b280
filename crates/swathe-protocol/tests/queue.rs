//! The queue on real atomics: every place to die, one user at a time; then several threads at once, some of which die.
#![cfg(not(loom))]

mod queue_words;

use queue_words::*;
use std::{collections::BTreeMap, thread};
use swathe_protocol::{
    queue::{MAX_CAPACITY, MAX_NODES, PopError, PushError, QueueShape, QueueStep, QueueView, ShapeError},
    sync::{AtomicU64, Ordering},
};

/// Queues of each small shape at each place in a lap, holding 0 to `capacity` messages 0, 1, 2, ...
fn each_start(spare_nodes: usize, mut test: impl FnMut(Words, Vec<u64>)) {
    for capacity in [1, 2, 4] {
        for start in 0..=2 * capacity as u64 {
            for queued in 0..=capacity as u64 {
                let words = Words::new(capacity, capacity + spare_nodes);
                for value in 0..start {
                    words.push(value).unwrap();
                    assert_eq!(words.pop(), Some(value));
                }
                let held: Vec<_> = (0..queued).collect();
                assert!(held.iter().all(|&value| words.push(value) == Ok(())));
                test(words, held);
            }
        }
    }
}

#[test]
fn messages_of_every_length_come_out_as_they_went_in() {
    let shape = QueueShape::new(4, 6, 50).unwrap();
    assert!(shape.max_len() >= 50);
    let words = zeros(shape.words());
    let queue = QueueView::over(&shape, &words).unwrap();
    assert_eq!(
        (queue.capacity(), queue.max_len(), queue.is_empty()),
        (4, shape.max_len(), true)
    );
    let mut out = vec![0xAA; shape.max_len()];
    for len in 0..=shape.max_len() {
        let bytes: Vec<u8> = (0..len).map(|byte| (byte * 7 + len) as u8).collect();
        queue.push(7, &bytes).unwrap();
        assert_eq!(queue.pop(&mut out), Ok(Some(len)));
        assert_eq!(out[..len], bytes);
    }
    assert_eq!(queue.pop(&mut out), Ok(None));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let words = Words::new(2, 2);
    words.push(1).unwrap();
    let queue = words.queue();
    assert_eq!(
        queue.push(ALIVE, &[0; 17]),
        Err(PushError::TooLong { len: 17, max: 16 })
    );
    assert_eq!(
        queue.pop(&mut [0; 15]),
        Err(PopError::ShortBuffer { len: 15, max: 16 })
    );
    assert_eq!(words.held(), 0);
    assert_eq!(words.drain(), [1]);
    words.assert_works(3);
}

#[test]
fn shapes_that_are_no_queue_are_refused() {
    assert_eq!(QueueShape::new(0, 4, 8), Err(ShapeError::Capacity(0)));
    assert_eq!(QueueShape::new(3, 4, 8), Err(ShapeError::Capacity(3)));
    assert_eq!(
        QueueShape::new(2 * MAX_CAPACITY, 4, 8),
        Err(ShapeError::Capacity(2 * MAX_CAPACITY))
    );
    assert_eq!(
        QueueShape::new(4, 3, 8),
        Err(ShapeError::Nodes {
            nodes: 3,
            capacity: 4
        })
    );
    let nodes = MAX_NODES + 1;
    assert_eq!(
        QueueShape::new(4, nodes, 8),
        Err(ShapeError::Nodes { nodes, capacity: 4 })
    );
    for max_len in [usize::MAX, usize::MAX / 8, usize::MAX / 16] {
        assert_eq!(
            QueueShape::new(4, 8, max_len),
            Err(ShapeError::TooLarge { max_len })
        );
    }
    let shape = QueueShape::new(4, 8, 8).unwrap();
    let words = zeros(shape.words() - 1);
    let short = ShapeError::Words {
        words: words.len(),
        needed: shape.words(),
    };
    assert_eq!(QueueView::over(&shape, &words).err(), Some(short));
    for payload in [0, 15] {
        let (end, words) = (AtomicU64::new(0), zeros(4));
        let payload = zeros(payload);
        let view = QueueView::new(&end, &end, &words[..2], &words, &payload);
        assert_eq!(
            view.err(),
            Some(ShapeError::Payload {
                words: payload.len(),
                nodes: 4
            })
        );
    }
}

#[test]
fn the_lap_may_wrap() {
    for capacity in [1_usize, 2, 4] {
        let ticket = ((capacity as u64) << 48) - 3;
        let words = Words::new(capacity, capacity);
        words.head.store(ticket, Ordering::Relaxed);
        words.tail.store(ticket, Ordering::Relaxed);
        for next in ticket..ticket + capacity as u64 {
            let lap = next / capacity as u64;
            words.entries[next as usize % capacity].store(lap << 16, Ordering::Relaxed);
        }
        words.assert_works(10);
    }
}

#[test]
fn an_entry_that_names_no_node_is_dropped() {
    let words = Words::new(2, 3);
    words.push(1).unwrap();
    words.push(2).unwrap();
    words.entries[0].store(4, Ordering::Relaxed);
    words.payload[NODE_WORDS].store(u64::MAX, Ordering::Relaxed);
    assert_eq!(words.drain(), [2], "with its length cut to what a node can hold");
    words.push(3).unwrap();
    assert_eq!(words.drain(), [3]);
}

#[test]
fn a_producer_may_die_after_each_step() {
    for steps in 1..=PUSH_STEPS {
        each_start(1, |words, mut queued| {
            let full = queued.len() == words.entries.len();
            let linked = words.push_and_die(DEAD, 77, steps);
            assert_eq!(linked, !full && steps >= 5);
            queued.extend(linked.then_some(77));
            // Before anybody recovers it, one node is out of use at most, and nobody has to wait.
            let held = words.held();
            assert_eq!(held, usize::from(!full && steps < 6));
            assert_eq!(words.queue().len(), queued.len());
            assert_eq!(words.drain(), queued);
            words.assert_works(3);
            assert_eq!(
                (words.queue().recover(DEAD), words.queue().recover(DEAD)),
                (held, 0)
            );
            assert_eq!(words.held(), 0);
            words.assert_works(1);
        });
    }
}

#[test]
fn recovery_leaves_the_messages_of_the_dead_in_the_queue() {
    for steps in 1..=PUSH_STEPS {
        each_start(2, |words, mut queued| {
            // Another dead producer in its way, for the next push to look at the node in question first.
            words.push_and_die(DEAD + 1, 0, 1);
            queued.extend(words.push_and_die(DEAD, 77, steps).then_some(77));
            words.queue().recover(DEAD);
            while words.push(78) == Ok(()) {
                queued.push(78);
            }
            assert_eq!(queued.len(), words.entries.len());
            assert_eq!(words.drain(), queued);
            assert_eq!(words.held(), words.queue().recover(DEAD + 1));
            words.assert_works(1);
        });
    }
}

#[test]
fn a_consumer_may_die_after_each_step() {
    for steps in 1..=POP_STEPS {
        each_start(0, |words, queued| {
            let taken = words.pop_and_die(steps).is_some();
            assert_eq!(taken, !queued.is_empty() && steps >= 2);
            assert_eq!(words.queue().len(), queued.len() - usize::from(taken));
            assert_eq!(words.drain(), queued[usize::from(taken)..]);
            assert_eq!(words.held(), 0);
            words.assert_works(3);
        });
    }
}

#[test]
fn two_producers_and_a_consumer_may_die_in_a_row() {
    for deaths in 0..PUSH_STEPS * PUSH_STEPS * POP_STEPS {
        let (first, rest) = (deaths % PUSH_STEPS + 1, deaths / PUSH_STEPS);
        let (second, consumer) = (rest % PUSH_STEPS + 1, rest / PUSH_STEPS + 1);
        each_start(2, |words, mut queued| {
            queued.extend(words.push_and_die(1, 77, first).then_some(77));
            let taken = words.pop_and_die(consumer);
            queued.drain(..usize::from(taken.is_some()));
            queued.extend(words.push_and_die(2, 78, second).then_some(78));
            assert!(words.held() <= 2);
            assert_eq!(words.queue().len(), queued.len());
            assert_eq!(words.drain(), queued);
            words.assert_works(2);
            assert_eq!(words.held(), words.queue().recover(1) + words.queue().recover(2));
        });
    }
}

#[test]
fn deaths_without_recovery_use_up_the_nodes_and_recovery_brings_them_back() {
    let words = Words::new(2, 3);
    for owner in 0..3 {
        assert!(!words.push_and_die(owner, 1, 2));
    }
    assert_eq!(words.push(1), Err(PushError::NoNode));
    assert_eq!(words.pop(), None);
    assert_eq!((words.queue().recover(9), words.queue().recover(1)), (0, 1));
    assert_eq!(words.push(1), Ok(()));
    assert_eq!((words.queue().recover(0), words.queue().recover(2)), (1, 1));
    assert_eq!(words.drain(), [1]);
    words.assert_works(2);
}

/// Small numbers from a seed, by splitmix64 (Steele, Lea and Flood, 2014).
fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed >> 33) as usize
}

const EACH: u64 = 20_000;

/// Pushes `EACH` messages, in order; every push that dies is recovered, and repeated if it was not linked.
fn produce(words: &Words, producer: u64, dies: bool) {
    let mut seed = producer;
    let mut owner = producer as u32;
    for sequence in 0..EACH {
        let value = producer << 32 | sequence;
        loop {
            let steps = if dies {
                random(&mut seed) % (2 * PUSH_STEPS) + 1
            } else {
                usize::MAX
            };
            let linked = words.push_and_die(owner, value, steps);
            if dies {
                assert!(words.queue().recover(owner) <= 1);
                owner += 16; // the next one is another process
            }
            if linked {
                break;
            }
            thread::yield_now();
        }
    }
}

/// Takes messages until `done` and the queue is empty. What a dying consumer takes dies with it, but is noted here.
fn consume(words: &Words, dies: bool, done: &AtomicU64) -> Vec<u64> {
    let (mut got, mut seed) = (Vec::new(), 99);
    loop {
        let last = done.load(Ordering::Acquire) == 1;
        let mut steps = if dies {
            random(&mut seed) % (2 * POP_STEPS) + 1
        } else {
            usize::MAX
        };
        let (mut out, mut taken) = ([0; 16], false);
        let end = words.queue().pop_stepwise(&mut out, |step| {
            taken |= step == QueueStep::Taken;
            count_down(&mut steps)
        });
        got.extend(taken.then(|| value(&out)));
        if !taken && end.is_ok() {
            if last {
                return got;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn users_that_keep_dying_lose_and_double_nothing() {
    for (capacity, nodes) in [(1, 4), (4, 8), (64, 80)] {
        let (words, done) = (Words::new(capacity, nodes), AtomicU64::new(0));
        let got: Vec<Vec<u64>> = thread::scope(|scope| {
            let (words, done) = (&words, &done);
            let consumers = [false, true].map(|dies| scope.spawn(move || consume(words, dies, done)));
            let producers = [(1, false), (2, false), (3, true)]
                .map(|(producer, dies)| scope.spawn(move || produce(words, producer, dies)));
            producers.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(1, Ordering::Release);
            consumers
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for consumer in &got {
            let mut last = BTreeMap::new();
            for value in consumer {
                let before = last.insert(value >> 32, value);
                assert!(before < Some(value), "out of order: {before:?}, {value}");
            }
        }
        let mut all = got.concat();
        all.sort_unstable();
        let expected = (1..=3).flat_map(|producer| (0..EACH).map(move |sequence| producer << 32 | sequence));
        assert!(all.into_iter().eq(expected), "lost or doubled");
        assert_eq!((words.queue().len(), words.held()), (0, 0));
        words.assert_works(2);
    }
}

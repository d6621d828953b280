//! `Value`, `SharedArray` and `Queue`, used by tasks in several processes, which may be killed at any time.

use std::{
    collections::HashSet,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use swathe::{Array, Pool, Queue, QueueError, SharedArray, Value};
use swathe_os::process::Pidfd;

swathe::init_before_main!();

/// Ends the whole program with a message if the guarded test is not over after a minute: a wedge must not be silent.
struct Watchdog(#[allow(dead_code, reason = "dropped, it tells that the test is over")] mpsc::Sender<()>);

fn watchdog(test: &'static str) -> Watchdog {
    let (over, wait) = mpsc::channel();
    thread::spawn(move || {
        if wait.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("watchdog: {test} is stuck");
            std::process::abort();
        }
    });
    Watchdog(over)
}

fn pool(processes: usize) -> Pool {
    Pool::builder().processes(processes).build().unwrap()
}

/// Kills one worker after the other, until `done`; returns how many were killed.
fn kill_workers<S>(pool: &Pool<S>, most: usize, done: &AtomicBool) -> usize {
    let mut killed = 0;
    while killed < most && !done.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(4));
        let workers = pool.workers();
        if let Some(worker) = workers.get(killed % workers.len().max(1))
            && let Ok(process) = Pidfd::open(worker.pid)
        {
            process.kill();
            killed += 1;
        }
    }
    killed
}

/// A task of some length: about 300 us.
fn work() {
    thread::sleep(Duration::from_micros(300));
}

#[test]
fn values_count_every_element() {
    let _watchdog = watchdog("values_count_every_element");
    let pool = pool(3);
    let (count, sum, half) = (
        Value::new(0_u64).unwrap(),
        Value::new(-5_i16).unwrap(),
        Value::new(0.0).unwrap(),
    );
    type Counters = (Value<u64>, Value<i16>, Value<f64>);
    let task = |(count, sum, half): &Counters, x: i16| {
        count.fetch_add(1);
        sum.fetch_sub(x);
        half.update(|seen| seen + 0.5);
    };
    let counters = (count.clone(), sum.clone(), half.clone());
    pool.map_with(&counters, task, 0..200_i16).unwrap();
    assert_eq!((count.load(), sum.load(), half.load()), (200, -5 - 19_900, 100.0));
    assert_eq!(count.compare_exchange(200, 7), Ok(200));
    assert_eq!(count.compare_exchange(200, 8), Err(7));
    assert_eq!(count.swap(9), 7);
    count.store(1);
    assert_eq!(format!("{count:?}"), "Value(1)");
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Desk {
    stamp: Value<u8>,
    trays: Vec<Queue<String>>,
    board: Option<SharedArray<u16>>,
}
impl swathe::Record for Desk {}

#[test]
fn handles_cross_as_arguments_of_every_kind() {
    let _watchdog = watchdog("handles_cross_as_arguments_of_every_kind");
    let (stamp, board) = (
        Value::new(1_u8).unwrap(),
        SharedArray::from_slice(&[5_u16, 6]).unwrap(),
    );
    let trays: Vec<_> = (0..2).map(|_| Queue::bounded(4).unwrap()).collect();
    let desk = Desk {
        stamp: stamp.clone(),
        trays: trays.clone(),
        board: Some(board.clone()),
    };

    // The state of a worker, built from handles.
    let build = |stamp: Value<u8>, board: SharedArray<u16>| {
        stamp.fetch_add(1);
        board
    };
    let pool = Pool::builder()
        .processes(2)
        .state(build, (stamp.clone(), board.clone()))
        .build()
        .unwrap();

    // The one argument of a call, part of a record; and a handle as the result.
    let use_desk = |state: &mut SharedArray<u16>, desk: Desk| {
        desk.stamp.fetch_add(100);
        desk.trays[1].put(&"done".to_owned()).unwrap();
        desk.board.as_ref().unwrap().store(0, 50);
        state.update(1, |x| x * 10);
        desk.trays[0].clone()
    };
    let first: Queue<String> = pool.apply(use_desk, desk).unwrap();
    first.put(&"mine".to_owned()).unwrap();
    assert_eq!(trays[0].get().unwrap(), "mine");
    assert_eq!(trays[1].try_get().unwrap().as_deref(), Some("done"));
    assert_eq!(board.to_vec(), [50, 60]);
    pool.close();
    pool.join().unwrap();
    assert_eq!(stamp.load(), 103, "two workers were set up, one call was made");
}

#[test]
fn neighbouring_elements_do_not_disturb_each_other() {
    let _watchdog = watchdog("neighbouring_elements_do_not_disturb_each_other");
    let pool = pool(3);
    let bytes = SharedArray::<u8>::zeros(100).unwrap();
    let pairs = SharedArray::from_slice(&[[1.0_f32, -1.0]; 100]).unwrap();
    let task = |(bytes, pairs): &(SharedArray<u8>, SharedArray<[f32; 2]>), x: usize| {
        bytes.fetch_add(x % 100, 3);
        pairs.update(x % 100, |[a, b]| [a + 1.0, b - 1.0]);
    };
    pool.map_with(&(bytes.clone(), pairs.clone()), task, 0..1000_usize)
        .unwrap();
    assert_eq!(bytes.to_vec(), [30; 100]);
    assert_eq!(pairs.to_array().unwrap()[..], [[11.0, -11.0]; 100]);
    bytes.fill(9);
    assert_eq!(bytes.iter().map(u32::from).sum::<u32>(), 900);
    assert_eq!(
        (bytes.swap(7, 1), bytes.load(7), bytes.compare_exchange(7, 0, 2)),
        (9, 1, Err(1))
    );
    assert!(SharedArray::<u64>::zeros(0).unwrap().is_empty());
    assert!(SharedArray::<u64>::zeros(usize::MAX / 4).is_err());

    // Out of bounds is a panic of the task, which is its element's failure.
    let error = pool
        .apply(|bytes: SharedArray<u8>| bytes.load(100), bytes)
        .unwrap_err()
        .to_string();
    assert!(error.contains("out of bounds"), "{error}");
}

type Tally = (Queue<(u64, String)>, Queue<u64>);

#[test]
fn every_item_is_delivered_once_both_ways() {
    let _watchdog = watchdog("every_item_is_delivered_once_both_ways");
    const ITEMS: u64 = 600;
    let pool = pool(3);
    // Far fewer places than items: both sides wait for each other.
    let queues: Tally = (Queue::bounded(8).unwrap(), Queue::bounded(8).unwrap());
    let task = |(jobs, answers): &Tally, _: u64| {
        let (number, text) = jobs.get().unwrap();
        assert_eq!(text, format!("item {number}"));
        answers.put(&number).unwrap();
    };
    let pending = pool
        .batch()
        .with(&queues)
        .unwrap()
        .map_async(task, 0..ITEMS)
        .unwrap();
    let (jobs, answers) = queues;
    let feeder = thread::spawn(move || {
        for number in 0..ITEMS {
            jobs.put(&(number, format!("item {number}"))).unwrap();
        }
    });
    let mut got: Vec<_> = (0..ITEMS).map(|_| answers.get().unwrap()).collect();
    got.sort_unstable();
    assert!(got.iter().copied().eq(0..ITEMS), "{got:?}");
    feeder.join().unwrap();
    pending.get().unwrap();
    assert!(answers.is_empty());
}

#[test]
fn a_counter_of_killed_workers_lacks_nothing() {
    let _watchdog = watchdog("a_counter_of_killed_workers_lacks_nothing");
    const ELEMENTS: usize = 300;
    let pool = pool(3);
    let runs = SharedArray::<u32>::zeros(ELEMENTS).unwrap();
    let total = Value::new(0_u64).unwrap();
    let task = |(runs, total): &(SharedArray<u32>, Value<u64>), x: usize| {
        runs.fetch_add(x, 1);
        work();
        total.fetch_add(1);
    };
    let parameters = (runs.clone(), total.clone());
    let batch = pool.batch().with(&parameters).unwrap().max_deaths(u32::MAX);
    let pending = batch.map_async(task, 0..ELEMENTS).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| kill_workers(&pool, 12, &done));
        pending.get().unwrap();
        done.store(true, Ordering::Relaxed);
        assert!(killer.join().unwrap() > 0, "somebody was killed");
    });
    assert!(runs.iter().all(|runs| runs >= 1), "{runs:?}");
    let starts: u32 = runs.iter().sum();
    assert!(
        (ELEMENTS as u64..=u64::from(starts)).contains(&total.load()),
        "{} of {starts}",
        total.load()
    );
}

/// An item that no other put has: its element, and a number of its own.
type Stamped = (u64, u64);

fn stamp() -> u64 {
    static PUTS: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | PUTS.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn killed_producers_neither_block_nor_double() {
    let _watchdog = watchdog("killed_producers_neither_block_nor_double");
    const ELEMENTS: u64 = 300;
    let pool = pool(3);
    // The producers wait for the parent, so some are killed in their sleep.
    let queue = Queue::<Stamped>::bounded(4).unwrap();
    let task = |queue: &Queue<Stamped>, x: u64| {
        queue.put(&(x, stamp())).unwrap();
        work();
    };
    let batch = pool.batch().with(&queue).unwrap().max_deaths(u32::MAX);
    let pending = batch.map_async(task, 0..ELEMENTS).unwrap();
    let done = AtomicBool::new(false);
    let mut got = Vec::new();
    thread::scope(|scope| {
        let killer = scope.spawn(|| kill_workers(&pool, 12, &done));
        while !pending.ready() {
            got.extend(queue.get_timeout(Duration::from_millis(5)).unwrap());
        }
        done.store(true, Ordering::Relaxed);
        assert!(killer.join().unwrap() > 0, "somebody was killed");
    });
    pending.get().unwrap();
    got.extend(queue.drain().map(Result::unwrap));
    let elements: HashSet<_> = got.iter().map(|(element, _)| *element).collect();
    assert!(
        (0..ELEMENTS).all(|x| elements.contains(&x)),
        "what a finished task has put is delivered"
    );
    let stamps: HashSet<_> = got.iter().map(|(_, stamp)| *stamp).collect();
    assert_eq!(stamps.len(), got.len(), "no put is delivered twice");
    // The queue is as good as new.
    for x in 0..100 {
        queue.try_put(&(x, x)).unwrap();
        assert_eq!(queue.try_get().unwrap(), Some((x, x)));
    }
}

#[test]
fn killed_consumers_lose_what_they_held_and_no_more() {
    let _watchdog = watchdog("killed_consumers_lose_what_they_held_and_no_more");
    const ITEMS: usize = 300;
    let pool = pool(3);
    let queue = Queue::<usize>::bounded(ITEMS).unwrap();
    (0..ITEMS).for_each(|item| queue.put(&item).unwrap());
    let seen = SharedArray::<u32>::zeros(ITEMS).unwrap();
    let task = |(queue, seen): &(Queue<usize>, SharedArray<u32>), _: usize| {
        if let Some(item) = queue.try_get().unwrap() {
            seen.fetch_add(item, 1);
        }
        work();
    };
    let parameters = (queue.clone(), seen.clone());
    let batch = pool.batch().with(&parameters).unwrap().max_deaths(u32::MAX);
    let pending = batch.map_async(task, 0..ITEMS).unwrap();
    let done = AtomicBool::new(false);
    let killed = thread::scope(|scope| {
        let killer = scope.spawn(|| kill_workers(&pool, 12, &done));
        pending.get().unwrap();
        done.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    assert!(killed > 0, "somebody was killed");
    queue.drain().for_each(|item| {
        seen.fetch_add(item.unwrap(), 1);
    });
    assert!(
        seen.iter().all(|times| times <= 1),
        "no item is delivered twice: {seen:?}"
    );
    let missing = seen.iter().filter(|times| *times == 0).count();
    assert!(
        missing <= killed,
        "{missing} items are missing after {killed} deaths"
    );
}

#[test]
fn items_with_handles_are_refused_and_leave_no_trace() {
    let queue = Queue::<Option<Value<u64>>>::bounded(4).unwrap();
    let text = queue.put(&Some(Value::new(1).unwrap())).unwrap_err().to_string();
    assert!(
        text.starts_with("the item holds an array or another handle"),
        "{text}"
    );
    let arrays = Queue::<(u32, Array<f64>)>::bounded(4).unwrap();
    let item = (1, Array::from_vec(vec![1.0]).unwrap());
    assert!(matches!(arrays.try_put(&item), Err(QueueError::Handle)));
    queue.put(&None).unwrap();
    assert!(queue.get().unwrap().is_none());
    assert!(queue.get_timeout(Duration::from_millis(1)).unwrap().is_none());
}

#[test]
fn a_call_holds_the_handles_it_was_given() {
    let _watchdog = watchdog("a_call_holds_the_handles_it_was_given");
    let pool = pool(2);
    let late = |total: Value<u64>, marks: SharedArray<u8>, x: u64| {
        thread::sleep(Duration::from_millis(2));
        total.fetch_add(x) + u64::from(marks.load(1))
    };
    let calls: Vec<_> = (0..6_u64)
        .map(|x| {
            // Nobody but the call knows these handles.
            let handles = (
                Value::new(10 * x).unwrap(),
                SharedArray::from_slice(&[0, 1]).unwrap(),
            );
            pool.apply_async(late, (handles.0, handles.1, x)).unwrap()
        })
        .collect();
    for (x, call) in (0..).zip(&calls) {
        assert_eq!(call.get().unwrap(), 10 * x + 1);
    }
}

//! Handles, futures, callbacks, and callers on many threads.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use swathe::{Pool, Result};
use swathe_tests::pool;

fn nap(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(5));
    x + 1
}

fn sleep_long(_: u64) -> u64 {
    thread::sleep(Duration::from_secs(3600));
    0
}

/// As small as an executor can be.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn a_handle_gives_the_same_result_every_time() -> Result<()> {
    let pool = pool(2);
    let pending = pool.map_async(nap, 0..10)?;
    assert!(pending.wait(Duration::from_secs(60)) && pending.ready() && pending.successful()?);
    let (once, again) = (pending.get()?, pending.get_timeout(Duration::ZERO)?);
    assert_eq!(once, again);
    assert_eq!(once.as_ptr(), again.as_ptr(), "a handle of the same memory");
    assert_eq!(pending.progress(), (10, 0));

    let failed = pool.map_async(|x: u8| assert_eq!(x, 0), [0, 1])?;
    let texts = [failed.get(), failed.get()].map(|result| result.unwrap_err().to_string());
    assert_eq!(texts[0], texts[1]);
    assert!(!failed.successful()?);
    assert_eq!(failed.progress(), (2, 1));
    Ok(())
}

#[test]
fn a_job_goes_on_without_its_handle() -> Result<()> {
    let pool = pool(2);
    let (told, heard) = mpsc::channel();
    drop(
        pool.batch()
            .on_success(move |all: &[u64]| told.send(all.len()).unwrap())
            .map_async(nap, 0..10)?,
    );
    pool.close();
    pool.join()?;
    assert_eq!(heard.try_recv(), Ok(10), "`join` waits for callbacks too");
    Ok(())
}

#[test]
fn a_cancelled_job_ends_and_the_pool_goes_on() -> Result<()> {
    let pool = pool(2);
    let pending = pool.batch().chunk_size(1).map_async(nap, 0..1_000_000)?;
    while pending.progress().0 < 5 {
        thread::sleep(Duration::from_millis(1));
    }
    pending.cancel();
    pending.cancel();
    let swathe::Error::Job(error) = pending.get().unwrap_err() else {
        panic!("a job's error is expected")
    };
    let text = error.to_string();
    assert!(
        text.starts_with("the job was cancelled: ") && text.ends_with(" of 1000000 positions were done"),
        "{text}"
    );
    let partial = error
        .into_partial::<swathe::Array<u64>>()
        .expect("these are integers");
    assert_eq!(partial.value(0)?, Some(1));
    assert_eq!(partial.status(999_999), swathe::Status::Cancelled);
    assert_eq!(pool.map(nap, 0..3)?, [1, 2, 3]);
    Ok(())
}

#[test]
fn handles_are_futures() -> Result<()> {
    let pool = pool(2);
    let values = block_on(async {
        let first = pool.map_async(nap, 0..5)?;
        let second = pool.starmap_async(|a: u64, b: u64| a * b, (0..5, 5..10))?;
        let third = pool.apply_async(nap, 41_u64)?;
        let sum: u64 = first.await?.iter().sum::<u64>() + second.await?.iter().sum::<u64>();
        Ok::<_, swathe::Error>(sum + third.await?)
    })?;
    assert_eq!(values, 15 + (6 + 14 + 24 + 36) + 42);
    let done = pool.map_async(nap, 0..1)?;
    done.wait(Duration::from_secs(60));
    assert_eq!(block_on(done)?, [1], "one that was over before it was polled");
    let error = block_on(pool.try_apply_async(|| Err::<u8, _>("no"), ())?)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("position 0 failed: no (worker "), "{error}");
    let (stuck, terminator) = (pool.map_async(sleep_long, 0..2)?, thread::current());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            terminator.unpark();
            pool.terminate();
        });
        assert!(block_on(stuck).is_err(), "a terminated pool wakes its futures");
    });
    Ok(())
}

#[test]
fn callbacks_are_called_once_on_one_thread() -> Result<()> {
    let pool = pool(2);
    let (told, heard) = mpsc::channel();
    for job in 0..50_u64 {
        let (success, error) = (told.clone(), told.clone());
        let at = move |ok| (job, ok, thread::current().id());
        pool.batch()
            .on_success(move |_: &[u64]| success.send(at(true)).unwrap())
            .on_error(move |_| error.send(at(false)).unwrap())
            .try_map_async(|x: u64| if x == 7 { Err("seven") } else { Ok(x) }, job..job + 3)?;
    }
    pool.close();
    pool.join()?;
    drop(told);
    let mut calls: Vec<_> = heard.into_iter().collect();
    calls.sort_by_key(|call| call.0);
    assert!(calls.iter().map(|call| call.0).eq(0..50), "{calls:?}");
    assert!(
        calls.iter().all(|&(job, ok, _)| ok != (5..=7).contains(&job)),
        "{calls:?}"
    );
    assert!(calls.iter().all(|call| call.2 == calls[0].2) && calls[0].2 != thread::current().id());
    Ok(())
}

#[test]
fn callbacks_of_calls_that_wait_run_before_they_return() -> Result<()> {
    let pool = pool(2);
    let (told, heard) = mpsc::channel();
    let success = told.clone();
    pool.batch()
        .on_success(move |all: &[u64]| success.send(all.to_vec()).unwrap())
        .map(nap, 0..2)?;
    assert_eq!(heard.try_recv(), Ok(vec![1, 2]));
    let success = told.clone();
    pool.batch()
        .on_success(move |value: &u64| success.send(vec![*value]).unwrap())
        .apply(nap, 6_u64)?;
    assert_eq!(heard.try_recv(), Ok(vec![7]));
    let success = told.clone();
    pool.batch()
        .on_success(move |texts: &swathe::Records<String>| success.send(vec![texts.len() as u64]).unwrap())
        .map(|x: u64| x.to_string(), 0..5)?;
    assert_eq!(heard.try_recv(), Ok(vec![5]));
    pool.batch()
        .collect_errors()
        .on_success(move |partial: &swathe::Partial<swathe::Array<u64>>| {
            told.send(vec![partial.failures().len() as u64]).unwrap();
        })
        .try_map(|x: u64| if x == 1 { Err("one") } else { Ok(x) }, 0..3)?;
    assert_eq!(heard.try_recv(), Ok(vec![1]));
    Ok(())
}

/// In CPython it would be the end of all results.
#[test]
fn a_panicking_callback_harms_nothing() -> Result<()> {
    let pool = pool(2);
    let bad = pool
        .batch()
        .on_success(|_: &[u64]| panic!("a callback's own fault"))
        .map_async(nap, 0..3)?;
    let worse = pool
        .batch()
        .on_error(|_| panic!("another's"))
        .map_async(|x: u64| assert_eq!(x, 0), 1..2)?;
    assert_eq!(bad.get()?, [1, 2, 3]);
    assert!(worse.get().is_err());
    let (told, heard) = mpsc::channel();
    pool.batch()
        .on_success(move |all: &[u64]| told.send(all.len()).unwrap())
        .map_async(nap, 0..4)?;
    assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(4));
    assert_eq!(
        pool.batch()
            .on_success(|_: &[u64]| panic!("in a call that waits"))
            .map(nap, 0..1)?,
        [1]
    );
    pool.close();
    pool.join()
}

/// A callback may submit to its own pool.
#[test]
fn a_callback_may_start_the_next_job() -> Result<()> {
    let pool: Arc<Pool> = Arc::new(Pool::builder().processes(2).build()?);
    let _watch = swathe_tests::watch();
    let (told, heard) = mpsc::channel();
    let next = Arc::downgrade(&pool);
    pool.batch()
        .on_success(move |all: &[u64]| {
            let pool = next.upgrade().expect("the test holds it");
            let all = all.to_vec();
            pool.batch()
                .on_success(move |all: &[u64]| told.send(all.to_vec()).unwrap())
                .map_async(nap, all)
                .unwrap_or_else(|error| panic!("{error}"));
        })
        .map_async(nap, 0..3)?;
    assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(vec![2, 3, 4]));
    Ok(())
}

#[test]
fn many_threads_submit_at_once() -> Result<()> {
    let pool = pool(3);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..6_u64)
            .map(|caller| {
                let pool = &*pool;
                scope.spawn(move || -> Result<()> {
                    for round in 0..30 {
                        let n = 1 + (caller * 37 + round * 11) % 200;
                        let pending = pool.map_async(|x: u64| x * 3, caller..caller + n)?;
                        let texts = pool.map(|x: u64| x.to_string(), 0..n)?;
                        assert_eq!(texts.value(n as usize - 1)?, (n - 1).to_string());
                        assert!(
                            pending
                                .get()?
                                .iter()
                                .copied()
                                .eq((caller..caller + n).map(|x| x * 3))
                        );
                    }
                    Ok(())
                })
            })
            .collect();
        callers
            .into_iter()
            .try_for_each(|caller| caller.join().expect("no panic"))
    })
}

#[test]
fn a_callback_for_another_result_is_refused_before_anything_runs() -> Result<()> {
    let pool = pool(2);
    let runs = swathe::Value::new(0_u64)?;
    let count = |runs: &swathe::Value<u64>, x: u64| runs.fetch_add(x);
    let batch = || {
        pool.batch()
            .on_success(|_: &[i64]| unreachable!("the values are no i64"))
    };
    let refusals = [
        batch().with(&runs)?.map(count, 1..9).unwrap_err(),
        batch().with(&runs)?.map_async(count, 1..9).unwrap_err(),
        batch().with(&runs)?.apply(count, 1).map(drop).unwrap_err(),
        batch()
            .with(&runs)?
            .map_reduce(count, |a: u64, b: u64| a + b, 1..9)
            .unwrap_err(),
    ];
    let gives = ["[u64]", "[u64]", "u64", "core::option::Option<u64>"];
    for (refusal, gives) in refusals.iter().zip(gives) {
        let expected = format!(
            "the function given to on_success takes `[i64]`, and this call gives it `{gives}`; nothing was run"
        );
        assert_eq!(refusal.to_string(), expected);
    }
    assert_eq!(runs.load(), 0);
    Ok(())
}

#[test]
fn a_stream_refuses_callbacks_that_it_would_never_call() {
    let pool = pool(2);
    let batches = [
        pool.batch().on_success(|_: &u64| ()),
        pool.batch().on_error(|_| ()),
    ];
    for batch in batches {
        let results: Vec<_> = batch.imap(nap, 0..).collect();
        let [Err(error)] = &results[..] else {
            panic!("a stream that began: {results:?}")
        };
        assert!(error.to_string().contains("calls nobody back"), "{error}");
    }
}

#[test]
fn handles_and_pools_pass_between_threads() -> Result<()> {
    fn crosses<T: Send + Sync>(_: &T) {}
    let pool = pool(2);
    let pending = pool.map_async(nap, 0..3)?;
    crosses(&*pool);
    crosses(&pending);
    let values = thread::spawn(move || pending.get()).join().expect("no panic")?;
    assert_eq!(values, [1, 2, 3]);
    Ok(())
}

//! `imap` and its relatives, among them the twins of CPython's tests of it (by name).

use std::{
    cell::Cell,
    fs, iter,
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use swathe::{Context, Error, Result, Status};
use swathe_tests::{pool, until};

fn sqr(x: i64) -> i64 {
    x * x
}

fn nap(x: i64) -> i64 {
    sleep(Duration::from_millis(3));
    x
}

fn breaking_at(bad: i64) -> impl Iterator<Item = i64> {
    (0..20).map(move |x| if x == bad { panic!("{x} does not exist") } else { x })
}

#[test]
fn test_imap() -> Result<()> {
    let pool = pool(2);
    let mut squares = pool.imap(sqr, 0..10);
    for x in 0..10 {
        assert_eq!(squares.next(), Some(Ok(x * x)));
    }
    assert_eq!(squares.next(), None);
    assert_eq!(squares.next(), None, "and none after the end");
    let all: Vec<i64> = pool.imap(sqr, 0..1000).collect::<Result<_, _>>()?;
    assert!(all.into_iter().eq((0..1000).map(sqr)));
    let all: Vec<i64> = pool
        .batch()
        .chunk_size(100)
        .imap(sqr, 0..1000)
        .collect::<Result<_, _>>()?;
    assert!(all.into_iter().eq((0..1000).map(sqr)));
    Ok(())
}

/// All items before the bad one are delivered, also those that share a chunk with it; CPython loses these.
#[test]
fn test_imap_handle_iterable_exception() {
    let pool = pool(2);
    for (bad, chunk) in [(0, None), (7, None), (7, Some(4)), (4, Some(2)), (19, Some(100))] {
        let batch = match chunk {
            Some(elements) => pool.batch().chunk_size(elements),
            None => pool.batch(),
        };
        let mut squares = batch.imap(sqr, breaking_at(bad));
        for x in 0..bad {
            assert_eq!(squares.next(), Some(Ok(x * x)), "bad {bad}, chunk {chunk:?}");
        }
        let error = squares.next().expect("the error").expect_err("the panic");
        assert_eq!(error.position(), bad as u64);
        let expected = format!("position {bad} failed: the input's iterator panicked: {bad} does not exist");
        assert_eq!(error.to_string(), expected);
        assert_eq!(squares.next(), None);
    }
}

#[test]
fn test_imap_unordered() -> Result<()> {
    let pool = pool(2);
    for chunk in [1, 100] {
        let mut all: Vec<i64> = pool
            .batch()
            .chunk_size(chunk)
            .imap_unordered(sqr, 0..1000)
            .collect::<Result<_, _>>()?;
        all.sort_unstable();
        assert!(all.into_iter().eq((0..1000).map(sqr)));
    }
    Ok(())
}

#[test]
fn test_imap_unordered_handle_iterable_exception() {
    let pool = pool(2);
    for (bad, chunk) in [(0, 1), (7, 1), (7, 4), (4, 2)] {
        let mut results: Vec<_> = pool
            .batch()
            .chunk_size(chunk)
            .imap_unordered(sqr, breaking_at(bad))
            .collect();
        let error = results.pop().expect("the error is last").expect_err("the panic");
        assert_eq!(error.position(), bad as u64);
        let mut values: Vec<i64> = results
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("no other error");
        values.sort_unstable();
        assert!(values.into_iter().eq((0..bad).map(sqr)));
    }
}

#[test]
fn test_empty_iterable() {
    let pool = pool(1);
    assert_eq!(pool.imap(sqr, Vec::<i64>::new()).next(), None);
    assert_eq!(pool.imap_unordered(sqr, iter::empty::<i64>()).next(), None);
    assert_eq!(
        pool.istarmap(|a: i64, b: i64| a + b, Vec::<(i64, i64)>::new())
            .next(),
        None
    );
}

/// The input is pulled no further than the look-ahead, which is bounded by default.
#[test]
fn test_imap_and_imap_unordered_when_buffer_is_full() {
    let pool = pool(2);
    let pulled = Cell::new(0);
    let input = (0..).inspect(|_| pulled.set(pulled.get() + 1));
    let mut squares = pool.batch().chunk_size(1).imap(sqr, input);
    for x in 0..50 {
        assert_eq!(squares.next(), Some(Ok(sqr(x))));
        assert!(
            pulled.get() <= x + 1 + 16,
            "{} items were taken for {}",
            pulled.get(),
            x + 1
        );
    }
}

#[test]
fn test_imap_and_imap_unordered_with_buffersize_when_buffer_is_full() {
    let pool = pool(2);
    for (look_ahead, chunk) in [(1, 1), (4, 1), (10, 3)] {
        let pulled = Cell::new(0_usize);
        let mut taken = 0;
        let input = (0..).inspect(|_| pulled.set(pulled.get() + 1));
        let mut stream = pool
            .batch()
            .chunk_size(chunk)
            .imap_unordered(nap, input)
            .look_ahead(look_ahead);
        while taken < 40 {
            assert!(stream.next().is_some_and(|value| value.is_ok()));
            taken += 1;
            // The results of one block may lie ready besides what is in flight.
            let most = taken + look_ahead + chunk;
            assert!(
                pulled.get() <= most,
                "{} items for {taken} results, look-ahead {look_ahead}",
                pulled.get()
            );
        }
    }
}

/// Nothing runs before the first `next`, and dropping a stream cancels the rest.
#[test]
fn an_endless_input_is_no_trouble() -> Result<()> {
    let pool = pool(2);
    let found = pool.imap(sqr, 0..).find(|square| *square == Ok(10_000));
    assert_eq!(found, Some(Ok(10_000)));
    let many: Vec<i64> = pool
        .imap_unordered(sqr, 0..)
        .take(5000)
        .collect::<Result<_, _>>()?;
    assert_eq!(many.len(), 5000);
    let untouched = pool.imap(sqr, iter::from_fn(|| -> Option<i64> { panic!("nobody asked") }));
    drop(untouched);
    assert_eq!(pool.map(sqr, 0..3)?, [0, 1, 4], "the pool is free again");
    Ok(())
}

/// What a worker is in when the stream is dropped ends after it, and nobody waits for that.
#[test]
fn a_pool_ends_after_a_stream_that_was_dropped_in_the_middle() -> Result<()> {
    fn slow(x: i64) -> i64 {
        sleep(Duration::from_millis(20));
        x
    }
    for ordered in [true, false] {
        let pool = pool(2);
        let batch = || pool.batch().chunk_size(1);
        let first = match ordered {
            true => batch().imap(slow, 0..).next(),
            false => batch().imap_unordered(slow, 0..).next(),
        };
        assert!(first.is_some_and(|first| first.is_ok()));
        pool.close();
        pool.join()?;
    }
    Ok(())
}

#[test]
fn a_pool_ends_beside_a_stream_whose_results_nobody_takes() -> Result<()> {
    let pool = pool(2);
    let mut stream = pool.batch().chunk_size(1).imap(nap, 0..100).look_ahead(4);
    // The input is not asked for more until it is known that the first result takes longer than that.
    assert_eq!(stream.next(), Some(Ok(0)));
    assert_eq!(stream.next(), Some(Ok(1)));
    pool.close();
    pool.join()?;
    // What was under way is there, and no more.
    let rest: Vec<_> = stream.collect();
    let values = rest.iter().take_while(|result| result.is_ok()).count();
    assert!((1..100).contains(&values) && rest.len() == values + 1, "{rest:?}");
    Ok(())
}

/// Also with chunks, where CPython's iterator ends at the first error.
#[test]
fn a_stream_goes_on_after_errors() {
    fn parse(text: &str) -> Result<i64, String> {
        text.parse().map_err(|error| format!("{text:?}: {error}"))
    }
    let pool = pool(2);
    let texts = ["1", "2", "x", "4", "", "6"];
    for chunk in [1, 2, 4, 100] {
        let results: Vec<_> = pool.batch().chunk_size(chunk).try_imap(parse, texts).collect();
        let values: Vec<Option<i64>> = results
            .iter()
            .map(|result| result.as_ref().ok().copied())
            .collect();
        assert_eq!(values, [Some(1), Some(2), None, Some(4), None, Some(6)]);
        let error = results[2].as_ref().unwrap_err();
        assert_eq!((error.position(), error.status()), (2, Status::Failed));
        assert!(
            error
                .to_string()
                .starts_with("position 2 failed: \"x\": invalid digit found in string (worker "),
            "{error}"
        );
    }
    let failed = pool
        .try_imap_unordered(parse, texts)
        .filter(Result::is_err)
        .count();
    assert_eq!(failed, 2);
}

#[test]
fn positions_count_through_the_whole_stream() -> Result<()> {
    fn at(context: &Context, x: u64) -> bool {
        context.position() == x
    }
    fn deadly(x: u64) -> u64 {
        if x == 123 { std::process::abort() } else { x }
    }
    let pool = pool(2);
    for chunk in [1, 7] {
        assert!(
            pool.batch()
                .chunk_size(chunk)
                .imap(at, 0..200)
                .all(|same| same == Ok(true))
        );
    }
    assert!(pool.imap(at, 0..5000).all(|same| same == Ok(true)));
    for (x, result) in (0..).zip(pool.batch().max_deaths(1).imap(deadly, 0..300)) {
        match result {
            Ok(value) => assert_eq!(value, x),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.starts_with("position 123 was lost: its worker was killed by signal 6 (SIGABRT)"),
                    "{text}"
                );
                assert_eq!((x, error.status()), (123, Status::Lost));
            }
        }
    }
    Ok(())
}

#[test]
fn next_timeout_waits_as_long_as_asked() -> Result<()> {
    fn slow_first(x: i64) -> i64 {
        sleep(Duration::from_millis(if x == 0 { 300 } else { 0 }));
        x
    }
    let pool = pool(2);
    for chunk in [1, 3] {
        let mut stream = pool.batch().chunk_size(chunk).imap(slow_first, 0..5);
        let start = Instant::now();
        let error = stream.next_timeout(Duration::from_millis(40)).unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(40));
        assert_eq!(
            error.to_string(),
            "the result is not ready in time; the job goes on"
        );
        let rest: Vec<i64> = stream.collect::<Result<_, _>>()?;
        assert_eq!(rest, [0, 1, 2, 3, 4], "nothing was lost by the timeout");
    }
    let mut empty = pool.imap(sqr, 0..0);
    assert!(empty.next_timeout(Duration::ZERO)?.is_none());
    Ok(())
}

/// One slow element holds up an ordered stream, and nobody else's results: here it ends only after they have come.
#[test]
fn unordered_results_come_as_they_are_finished() -> Result<()> {
    fn first_waits(go: &String, x: i64) -> i64 {
        while x == 0 && !std::path::Path::new(go).exists() {
            sleep(Duration::from_millis(2));
        }
        x
    }
    let directory = tempfile::tempdir().expect("a directory");
    let go = directory.path().join("go").display().to_string();
    let pool = pool(2);
    let mut stream = pool
        .batch()
        .with(&go)?
        .chunk_size(1)
        .imap_unordered(first_waits, 0..6);
    let mut order = Vec::new();
    for result in stream.by_ref().take(5) {
        order.push(result.expect("none fails"));
    }
    order.sort_unstable();
    assert_eq!(order, [1, 2, 3, 4, 5]);
    fs::write(&go, "").expect("the directory is there");
    assert_eq!(stream.next(), Some(Ok(0)));
    Ok(())
}

#[test]
fn istarmap_takes_tuples() -> Result<()> {
    let pool = pool(2);
    let rows = (1..=3).zip(["a", "b", "c"]);
    let repeat = |n: usize, text: &str| text.repeat(n);
    let texts: Vec<String> = pool.istarmap(repeat, rows.clone()).collect::<Result<_, _>>()?;
    assert_eq!(texts, ["a", "bb", "ccc"]);
    let mut texts: Vec<String> = pool.istarmap_unordered(repeat, rows).collect::<Result<_, _>>()?;
    texts.sort();
    assert_eq!(texts, ["a", "bb", "ccc"]);
    let divide = |a: i64, b: i64| a.checked_div(b).ok_or("zero");
    let results: Vec<_> = pool.try_istarmap(divide, [(6, 3), (1, 0), (8, 2)]).collect();
    assert_eq!((&results[0], &results[2]), (&Ok(2), &Ok(4)));
    assert!(
        results[1]
            .as_ref()
            .unwrap_err()
            .to_string()
            .starts_with("position 1 failed: zero (worker ")
    );
    assert_eq!(
        pool.try_istarmap_unordered(divide, [(1, 0); 5])
            .filter(Result::is_err)
            .count(),
        5
    );
    Ok(())
}

/// Several streams of one pool take turns; a stream that is not drained keeps nobody waiting.
#[test]
fn streams_share_a_pool() -> Result<()> {
    let pool = pool(2);
    let idle = pool.imap(sqr, 0..);
    let mut one = pool.imap(sqr, 0..);
    let mut two = pool.imap(|x: i64| -x, 0..);
    assert!(one.next().is_some());
    for x in 0..300 {
        assert_eq!(two.next(), Some(Ok(-x)));
        assert_eq!(one.next(), Some(Ok(sqr(x + 1))));
    }
    assert_eq!(pool.map(sqr, 0..3)?, [0, 1, 4]);
    drop(idle);
    Ok(())
}

#[test]
fn a_stream_of_a_pool_that_stops_ends_with_an_error() {
    let pool = pool(2);
    let mut stream = pool.batch().chunk_size(1).imap(nap, 0..);
    assert_eq!(stream.next(), Some(Ok(0)));
    pool.terminate();
    let rest: Vec<_> = stream.collect();
    let last = rest.last().expect("an error").as_ref().expect_err("no value");
    let text = last.to_string();
    assert!(text.contains("was not run: the pool"), "{text}");
}

/// Values that are there are handed out; of all others one error tells.
#[test]
fn a_deadline_ends_a_stream_over_an_endless_input_with_one_error() {
    let pool = pool(2);
    for unordered in [false, true] {
        for chunk in [None, Some(1), Some(7)] {
            let mut batch = pool.batch().deadline(Duration::from_millis(120));
            if let Some(chunk) = chunk {
                batch = batch.chunk_size(chunk);
            }
            let stream = match unordered {
                false => batch.imap(nap, 0..),
                true => batch.imap_unordered(nap, 0..),
            };
            let all: Vec<_> = stream.positions().collect();
            let (values, errors): (Vec<_>, Vec<_>) = all.iter().partition(|(_, result)| result.is_ok());
            assert!(!values.is_empty());
            assert!(values.iter().all(|(at, value)| *value == Ok(*at as i64)));
            let [(at, Err(error))] = &errors[..] else {
                panic!("not one error: {errors:?}")
            };
            assert_eq!((*at, error.status()), (error.position(), Status::TimedOut));
            assert!(
                error
                    .to_string()
                    .contains("the deadline of the stream has passed"),
                "{error}"
            );
            assert!(matches!(all.last(), Some((_, Err(_)))), "the error is the last");
            assert!(values.iter().all(|(value, _)| value != at), "{at} has a value");
        }
    }
}

/// Also when nothing is under way then, because nobody has asked for a result.
#[test]
fn a_stream_whose_deadline_passes_while_nobody_looks_has_ended() {
    let pool = pool(2);
    let mut stream = pool
        .batch()
        .deadline(Duration::from_millis(30))
        .chunk_size(1)
        .imap(sqr, 0..)
        .look_ahead(1);
    assert_eq!(stream.next(), Some(Ok(0)));
    sleep(Duration::from_millis(40));
    let error = stream.next().expect("an error").unwrap_err();
    assert_eq!((error.position(), error.status()), (1, Status::TimedOut));
    assert!(error.to_string().ends_with("nothing was under way"), "{error}");
    assert!(stream.next().is_none());
    let in_time = pool.batch().deadline(Duration::from_secs(3600)).imap(sqr, 0..3);
    assert!(in_time.eq([Ok(0), Ok(1), Ok(4)]));
}

#[test]
fn a_stream_that_fails_fast_ends_behind_its_first_error() {
    fn no_five(x: i64) -> Result<i64, &'static str> {
        if x == 5 { Err("five") } else { Ok(x) }
    }
    let pool = pool(2);
    for chunk in [1, 4, 100] {
        let batch = pool.batch().fail_fast().chunk_size(chunk);
        let all: Vec<_> = batch.try_imap(no_five, 0..).collect();
        assert_eq!(all.len(), 6, "chunks of {chunk}: {all:?}");
        assert!(all[..5].iter().zip(0..).all(|(value, x)| *value == Ok(x)));
        assert_eq!(all[5].as_ref().unwrap_err().message(), "five");
        let batch = pool.batch().fail_fast().chunk_size(chunk);
        let all: Vec<_> = batch.try_imap_unordered(no_five, 0..10_000).collect();
        assert_eq!(all.iter().filter(|result| result.is_err()).count(), 1);
        assert!(all.last().is_some_and(Result::is_err));
    }
}

/// The next element is sent only when the result of the one before is there.
#[test]
fn with_a_look_ahead_of_one_an_element_may_depend_on_the_last_result() {
    for chunk in [None, Some(1)] {
        let pool = pool(2);
        let (send, receive) = mpsc::channel();
        send.send(1).unwrap();
        let mut batch = pool.batch();
        if let Some(chunk) = chunk {
            batch = batch.chunk_size(chunk);
        }
        let mut last = 0;
        for result in batch.imap(|x: i64| x * 3, receive).look_ahead(1) {
            last = result.expect("none fails");
            if last > 1_000_000 {
                break;
            }
            send.send(last).unwrap();
        }
        assert_eq!(last, 3_i64.pow(13));
    }
}

/// The look-ahead counts what is out: taken from the input and not yet handed out.
#[test]
fn no_more_is_taken_from_the_input_than_the_look_ahead_says() {
    let pool = pool(2);
    for (look_ahead, chunk) in [(1, None), (3, Some(1)), (8, None), (8, Some(4))] {
        let taken = Cell::new(0);
        let input = (0..60).inspect(|_| taken.set(taken.get() + 1));
        let mut batch = pool.batch();
        if let Some(chunk) = chunk {
            batch = batch.chunk_size(chunk);
        }
        let stream = batch.imap(nap, input).look_ahead(look_ahead);
        for (handed_out, result) in (1..).zip(stream) {
            assert!(result.is_ok());
            let out = taken.get() - handed_out;
            assert!(
                out < look_ahead.max(chunk.unwrap_or(1)),
                "{out} elements are out behind it"
            );
        }
        assert_eq!(taken.get(), 60);
    }
}

/// The first element ends when ten elements have begun; later ones, which are over, are no reason not to ask the input.
#[test]
fn a_slow_first_element_keeps_no_worker_idle() -> Result<()> {
    fn first_waits(begun: &swathe::Value<u64>, x: u64) -> u64 {
        begun.fetch_add(1);
        while x == 0 && begun.load() < 10 {
            sleep(Duration::from_millis(1));
        }
        x
    }
    let pool = pool(2);
    let begun = swathe::Value::new(0_u64)?;
    let mut input = 0..20;
    // Slow, so that it is never known to be quick.
    let slow = iter::from_fn(|| {
        sleep(Duration::from_millis(2));
        input.next()
    });
    let batch = pool.batch().chunk_size(1).with(&begun)?;
    let stream = batch.imap(first_waits, slow).look_ahead(16);
    assert!(stream.eq((0..20).map(Ok)));
    Ok(())
}

/// The channel stays open and silent: whoever asks it would wait for ever.
#[test]
fn what_is_ready_is_handed_out_before_a_silent_input_is_asked() {
    let pool = pool(2);
    let (send, receive) = mpsc::channel();
    send.send(7).unwrap();
    let mut stream = pool.batch().chunk_size(1).imap(sqr, receive);
    assert_eq!(stream.next(), Some(Ok(49)));
    drop(send);
    assert_eq!(stream.next(), None);
}

fn input_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .expect("this process has threads")
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name == "swathe-input\n")
        .count()
}

#[test]
fn a_live_input_is_never_waited_for() -> Result<()> {
    let pool = pool(2);
    for unordered in [false, true] {
        let (send, receive) = mpsc::channel();
        let mut stream = match unordered {
            false => pool.imap(sqr, receive).live(),
            true => pool.imap_unordered(sqr, receive).live(),
        };
        for round in 0..20 {
            // As many as there are, and then nothing: each result comes although the channel is silent.
            let burst = 1 + round % 5;
            (0..burst).for_each(|x| send.send(10 * round + x).unwrap());
            let mut squares: Vec<_> = stream.by_ref().take(burst as usize).collect::<Result<_, _>>()?;
            squares.sort_unstable();
            let expected: Vec<i64> = (0..burst).map(|x| sqr(10 * round + x)).collect();
            assert_eq!(squares, expected);
            let nothing = stream.next_timeout(Duration::from_millis(1));
            assert!(matches!(nothing, Err(Error::Timeout)), "{nothing:?}");
        }
        send.send(5).unwrap();
        drop(send);
        assert_eq!(stream.next(), Some(Ok(25)));
        assert_eq!(stream.next(), None);
    }
    Ok(())
}

/// A deadline ends it too, and its thread goes when the source has given something.
#[test]
fn a_live_stream_ends_at_its_deadline_and_leaves_no_thread() {
    let pool = pool(2);
    let (send, receive) = mpsc::channel();
    let batch = pool.batch().deadline(Duration::from_millis(50));
    let mut stream = batch.imap(sqr, receive).live();
    send.send(3).unwrap();
    assert_eq!(stream.next(), Some(Ok(9)));
    let error = stream.next().expect("an error").unwrap_err();
    assert_eq!((error.position(), error.status()), (1, Status::TimedOut));
    assert_eq!(stream.next(), None);
    drop(stream);
    drop(send);
    until("the thread of the input has ended", || input_threads() == 0);
}

#[test]
fn a_live_source_is_not_drained_beyond_the_look_ahead() {
    let pool = pool(2);
    let (told, tell) = mpsc::channel();
    let source = (0..40).inspect(move |x| told.send(*x).unwrap());
    let stream = pool.imap(nap, source).look_ahead(2).live();
    for (handed_out, result) in (1..).zip(stream) {
        assert!(result.is_ok());
        let taken = tell.try_iter().last();
        assert!(
            taken.is_none_or(|taken: i64| taken < handed_out + 2),
            "{taken:?} of {handed_out}"
        );
    }
}

#[test]
fn a_panic_of_a_live_source_is_one_error() {
    let pool = pool(2);
    let all: Vec<_> = pool.imap(sqr, breaking_at(4)).live().collect();
    assert_eq!(all.len(), 5);
    assert!(all[..4].iter().zip(0..).all(|(value, x)| *value == Ok(x * x)));
    let error = all[4].as_ref().unwrap_err();
    assert_eq!(error.position(), 4);
    assert!(error.message().contains("4 does not exist"), "{error}");
}

/// A journal of what is done, whatever the order in which it is done.
#[test]
fn positions_name_the_element_of_each_result() {
    fn odd_fails(x: i64) -> Result<i64, &'static str> {
        if x % 2 == 1 { Err("odd") } else { Ok(-x) }
    }
    let pool = pool(2);
    let input = || (0..500).map(|x| x * 3);
    for unordered in [false, true] {
        let stream = match unordered {
            false => pool.try_imap(odd_fails, input()),
            true => pool.try_imap_unordered(odd_fails, input()),
        };
        let mut seen = vec![false; 500];
        for (at, result) in stream.positions() {
            let x = 3 * at as i64;
            assert!(!std::mem::replace(&mut seen[at as usize], true), "{at} twice");
            match result {
                Ok(value) => assert_eq!(value, -x),
                Err(error) => assert_eq!((x % 2, error.position()), (1, at)),
            }
        }
        assert!(iter::zip(seen, 0..).all(|(seen, _)| seen));
    }
}

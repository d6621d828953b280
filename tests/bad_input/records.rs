//! Values that cannot cross, and texts that must not reach a terminal as they are.

use std::{sync::mpsc, thread};

use swathe::{Array, Error, Pool, Queue, Records, Result, SharedArray, Status, Value, items};
use swathe_tests::{pool, watched};

/// A tree whose nodes are not small.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
struct Node {
    weights: [f64; 64],
    #[rkyv(omit_bounds)]
    below: Vec<Node>,
}
impl swathe::Record for Node {}

/// A list, linked.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
struct Link {
    #[rkyv(omit_bounds)]
    next: Option<Box<Link>>,
}
impl swathe::Record for Link {}

fn tree(levels: u32) -> Node {
    let node = |below| Node {
        weights: [1.0; 64],
        below,
    };
    (1..levels).fold(node(vec![]), |below, _| node(vec![below]))
}

fn list(levels: u32) -> Link {
    (1..levels).fold(Link { next: None }, |next, _| Link {
        next: Some(Box::new(next)),
    })
}

/// Runs on a thread with so many KiB of stack.
fn on_a_stack<R: Send>(kib: usize, run: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(kib << 10);
        let thread = builder.spawn_scoped(scope, run).expect("a thread");
        thread.join().expect("it ends well")
    })
}

#[test]
fn records_of_any_depth_are_values_or_errors_on_any_stack() -> Result<()> {
    let pool = pool(1);
    for levels in [10, 1000, 3000] {
        let trees = pool.map(tree, [levels])?;
        let lists = pool.map(list, [levels])?;
        for kib in [64, 128, 256, 512, 1024, 2048, 16_384] {
            let read = || (trees.value(0).map(drop), lists.value(0).map(drop));
            let (tree, list) = on_a_stack(kib, read);
            for read in [tree, list] {
                match read {
                    Ok(()) => assert!(levels == 10 || levels == 1000 && kib >= 512, "{levels} on {kib}"),
                    Err(error) => {
                        assert!(
                            levels == 3000 || levels == 1000 && kib <= 512,
                            "{levels} on {kib}: {error}"
                        );
                        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
                        let text = error.to_string();
                        let expected = "the result at position 0 cannot be read: a record cannot be decoded: it has more levels than ";
                        assert!(text.starts_with(expected), "{text}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn deep_arguments_are_values_or_errors_on_any_stack() -> Result<()> {
    let pool: &Pool = &pool(1);
    // The values are dropped on the same stack: that must be large enough for them.
    for (kib, most) in [(256, 900), (1024, 5000), (2048, 12_000)] {
        for levels in [10, 900, most] {
            let (tree, list) = (tree(levels), list(levels));
            let count = on_a_stack(kib, || {
                let trees = pool.map(|node: Node| node.below.len() as u32, items([tree]));
                (
                    trees.map(|counts| counts[0]),
                    pool.batch().collect_errors().map(|_: Link| 1_u32, items([list])),
                )
            });
            let text = |error: Error| error.to_string();
            match count.0.map_err(text) {
                Ok(below) => assert!(below == 1 && levels < 1024),
                Err(text) => assert!(
                    levels >= 5000 && text.contains("has more levels than 1024"),
                    "{text}"
                ),
            }
            let failures = count.1?.failures();
            assert_eq!(failures.is_empty(), levels < 1024, "{failures:?}");
            assert!(
                failures
                    .iter()
                    .all(|failure| failure.message().contains("has more levels than 1024"))
            );
        }
    }
    Ok(())
}

#[test]
fn a_callback_reads_a_deep_record() -> Result<()> {
    let pool = pool(1);
    let (tell, told) = mpsc::channel();
    let read = move |trees: &Records<Node>| {
        let _ = tell.send(
            trees
                .value(0)
                .map(|node| node.below.len())
                .map_err(|error| error.to_string()),
        );
    };
    pool.batch().on_success(read).map_async(tree, [1000])?.get()?;
    let read = told.recv().expect("it is called");
    assert!(
        read == Ok(1)
            || read
                .as_ref()
                .is_err_and(|text| text.contains("has more levels than")),
        "{read:?}"
    );
    Ok(())
}

/// A list of things without bytes can claim any length.
#[test]
fn lists_of_nothing_have_a_length_that_can_be_counted() -> Result<()> {
    let pool = pool(1);
    let lists = pool.map(|n: u32| vec![(); n as usize], [0, 3, 100_000])?;
    assert_eq!(lists.value(2)?.len(), 100_000);
    let failed = pool
        .map(|n: u32| vec![(); n as usize], [u32::MAX])
        .unwrap_err()
        .to_string();
    assert!(
        failed.contains("4294967295 elements that have no bytes"),
        "{failed}"
    );
    Ok(())
}

/// Handles to what a worker has made, in every verb and inside of everything.
#[test]
#[expect(clippy::too_many_lines, reason = "a list of verbs and of types")]
fn what_a_worker_has_made_is_not_returned_as_a_handle() -> Result<()> {
    fn made(x: u32) -> Array<f64> {
        Array::from_vec(vec![f64::from(x); 10]).expect("ten numbers")
    }
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Inside {
        array: Option<Array<f64>>,
    }
    impl swathe::Record for Inside {}
    fn file(path: &str) -> Array<f64> {
        #[expect(unsafe_code, reason = "a file is mapped")]
        // SAFETY: nobody writes the file.
        let array = unsafe { Array::map_npy_path(path) };
        array.expect("it is there")
    }
    let pool = pool(1);
    let is_refused = |error: Error| {
        let text = error.to_string();
        let says =
            text.contains("failed: the result holds an array or another handle that this worker has made");
        assert!(says && !text.contains("damaged"), "{text}");
    };
    is_refused(pool.map(made, 0..3_u32).unwrap_err());
    is_refused(pool.apply(made, 1).map(drop).unwrap_err());
    is_refused(pool.starmap(|x: u32, _: u8| made(x), [(1, 2)]).unwrap_err());
    is_refused(
        pool.map(|x: u32| (x, vec![made(x)]), 0..3_u32)
            .map(drop)
            .unwrap_err(),
    );
    is_refused(pool.map(|x: u32| Some(made(x)), 0..3_u32).map(drop).unwrap_err());
    is_refused(
        pool.try_map(|x: u32| Ok::<_, String>(made(x)), 0..3_u32)
            .map(drop)
            .unwrap_err(),
    );
    is_refused(
        pool.map(|x: u32| Inside { array: Some(made(x)) }, 0..3_u32)
            .map(drop)
            .unwrap_err(),
    );
    is_refused(
        pool.imap(made, 0..3_u32)
            .next()
            .expect("one")
            .map(drop)
            .unwrap_err()
            .into(),
    );
    is_refused(
        pool.map_reduce(made, |a: Array<f64>, _: Array<f64>| a, 0..3_u32)
            .map(drop)
            .unwrap_err(),
    );
    is_refused(pool.run_per_worker(|| made(1)).map(drop).unwrap_err());
    is_refused(
        pool.map(|x: u32| Value::new(x).expect("a value"), [1])
            .map(drop)
            .unwrap_err(),
    );
    is_refused(
        pool.map(|x: u32| SharedArray::from_slice(&[x]).expect("one"), [1])
            .map(drop)
            .unwrap_err(),
    );
    is_refused(
        pool.map(|_: u32| Queue::<u32>::bounded(4).expect("a queue"), [1])
            .map(drop)
            .unwrap_err(),
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.npy");
    Array::from_vec(vec![1.0; 3])?.to_npy(&path)?;
    is_refused(
        pool.map(file, [path.to_str().expect("text")])
            .map(drop)
            .unwrap_err(),
    );

    // What the caller has made goes through.
    let given = vec![Array::from_vec(vec![1.0; 10])?, Array::from_vec(vec![2.0; 10])?];
    let passed = pool.map(|array: Array<f64>| array, &given[..])?;
    assert_eq!(passed.value(1)?[0], 2.0);
    let count = Value::new(7_u32)?;
    assert_eq!(
        pool.map(|count: Value<u32>| count, items([count.clone()]))?
            .value(0)?
            .load(),
        7
    );
    let none = pool.map(|x: Inside| x.array.is_some(), items([Inside { array: None }]))?;
    assert!(!none.value(0)?);
    // If nobody keeps it, nobody has damaged it.
    let lost = pool.map(|array: Array<f64>| array, given)?;
    pool.map(|x: u64| x, 0..10)?;
    if let Err(error) = lost.value(1) {
        assert!(
            error.to_string().contains("cannot be read: ") && error.to_string().contains("was freed"),
            "{error}"
        );
    }
    Ok(())
}

/// Terminal codes, a fake line, text that is written backwards.
const CODES: &str = "\x1b]0;owned\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07\r\nfake log line\0\u{9b}31m\u{202e}";

fn is_harmless(text: &str) {
    assert!(
        !text.contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{text:?}"
    );
    assert!(text.contains("\\u{1b}]0;owned"), "{text:?}");
    assert!(text.len() < 10_000, "{} bytes", text.len());
}

#[test]
fn texts_of_tasks_do_nothing_to_a_terminal() -> Result<()> {
    fn hostile(x: u32) -> Result<u32, String> {
        let text = format!("{CODES}{}", "x".repeat(100_000));
        match x {
            0 => Err(text),
            1 => panic!("{text}"),
            _ => Ok(x),
        }
    }
    let pool = pool(1);
    let partial = pool.batch().collect_errors().try_map(hostile, 0..3)?;
    assert_eq!(
        (partial.status(0), partial.status(1)),
        (Status::Failed, Status::Panicked)
    );
    for failure in partial.failures() {
        is_harmless(&failure.to_string());
        is_harmless(&format!("{failure:?}"));
        assert!(
            failure.message().contains(CODES),
            "a program gets the text as it is"
        );
    }
    let error = pool.try_map(hostile, 0..3).unwrap_err();
    is_harmless(&error.to_string());
    is_harmless(&format!("{error:?}"));
    let input = (0..3).inspect(|_| panic!("{CODES}"));
    let first = pool.imap(|x: u32| x, input).next().expect("it is told");
    is_harmless(&first.unwrap_err().to_string());
    fn refuse() -> Result<(), String> {
        Err(CODES.into())
    }
    let broken = Pool::builder().processes(1).try_initializer(refuse, ()).build();
    let broken = broken.and_then(|pool| watched(Ok(pool)).map(|x: u32| x, 0..3_u32).map(drop));
    is_harmless(&broken.unwrap_err().to_string());
    Ok(())
}

/// What an earlier job has left in memory is not shown by a later one, wherever it failed.
#[test]
#[expect(clippy::too_many_lines, reason = "a list of verbs, each failing in its way")]
fn nothing_of_an_earlier_job_is_shown() -> Result<()> {
    const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
    const LEN: usize = 10_000;
    let memory = swathe::Memory::with_capacity(64 << 20)?;
    let pool = watched(Pool::builder().processes(2).memory(memory.clone()).build());
    // Freed memory is used again, so whatever is taken next has this in it.
    let fill = || -> Result<()> {
        drop(pool.map(|_: u64| SECRET, 0..LEN as u64)?);
        drop(pool.map(|_: u64| [SECRET; 8], 0..LEN as u64)?);
        drop(pool.map(|_: u64| "a secret text".to_owned(), 0..LEN as u64)?);
        Ok(())
    };
    fn fails(x: u64) -> Result<u64, String> {
        if x % 3 == 1 { Err("no".into()) } else { Ok(x) }
    }
    fn half(x: &[u64], y: &mut [u64]) -> Result<(), String> {
        if let Some(i) = y.iter().position(|&y| y != 0) {
            panic!("{:#x} was there at {i}", y[i]);
        }
        y[0] = x[0];
        if x[0] % 2 == 1 { Err("no".into()) } else { Ok(()) }
    }
    for _ in 0..3 {
        fill()?;
        let values = pool
            .batch()
            .collect_errors()
            .try_map(fails, 0..LEN as u64)?
            .into_values();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(i, &x)| x == if i % 3 == 1 { 0 } else { i as u64 })
        );
        fill()?;
        let input = Array::from_fn(LEN, |i| i as u64 / 100)?;
        let batch = pool.batch().chunk_size(100).collect_errors();
        let partial = batch.try_map_chunks(half, &input)?;
        assert!(
            partial.failures().iter().all(|failure| failure.message() == "no"),
            "{partial:?}"
        );
        let values = partial.into_values();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(i, &x)| x == if i % 200 == 0 { i as u64 / 100 } else { 0 })
        );
        fill()?;
        let stopped = pool
            .batch()
            .fail_fast()
            .try_map(fails, 0..LEN as u64)
            .unwrap_err();
        let Error::Job(error) = stopped else {
            panic!("{stopped}")
        };
        let values = error.into_partial::<Array<u64>>().expect("numbers").into_values();
        assert!(values.iter().enumerate().all(|(i, &x)| x == 0 || x == i as u64));
        fill()?;
        let texts = pool.batch().collect_errors();
        let texts = texts
            .try_map(|x: u64| fails(x).map(|_| String::new()), 0..LEN as u64)?
            .into_values();
        for i in 0..LEN {
            match texts.value(i) {
                Ok(text) => assert!(i % 3 != 1 && text.is_empty(), "{i}: {text}"),
                Err(error) => assert!(
                    i % 3 == 1 && error.to_string().contains("has no value"),
                    "{i}: {error}"
                ),
            }
        }
        fill()?;
        let scratch = swathe::ArrayMut::<u64>::scratch_in(&memory, LEN)?;
        assert!(scratch.iter().all(|&x| x == 0));
    }
    Ok(())
}

//! Every verb that waits, against what a loop gives.

use ndarray::ArrayViewD;
use swathe::{Array, ArrayMut, ChunkSize, Error, Pool, Result, Status, items};
use swathe_tests::{pool, watched};

fn sqr(x: i64) -> i64 {
    x * x
}

fn parse(text: &str) -> Result<i64, std::num::ParseIntError> {
    text.parse()
}

fn label(x: i64, text: &str) -> String {
    format!("{text}-{x}")
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Debug, PartialEq)]
struct Reading {
    station: String,
    values: Vec<f32>,
}
impl swathe::Record for Reading {}

#[derive(bytemuck::Pod, bytemuck::Zeroable, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Point {
    x: f64,
    y: f64,
}

fn readings() -> Vec<Reading> {
    (0..7)
        .map(|i| Reading {
            station: format!("s{i}"),
            values: vec![i as f32; i],
        })
        .collect()
}

#[test]
fn map_takes_every_kind_of_input() -> Result<()> {
    let pool = pool(2);
    let expected: Vec<i64> = (0..50).map(sqr).collect();
    let vec: Vec<i64> = (0..50).collect();
    let array = Array::from_vec(vec.clone())?;
    let fixed: [i64; 50] = std::array::from_fn(|i| i as i64);
    assert_eq!(pool.map(sqr, 0..50)?, expected);
    assert_eq!(pool.map(sqr, 0..=49)?, expected);
    assert_eq!(pool.map(sqr, &array)?, expected);
    assert_eq!(pool.map(sqr, array.clone())?, expected);
    assert_eq!(pool.map(sqr, array.slice(10..20)?)?, expected[10..20]);
    assert_eq!(pool.map(sqr, &vec)?, expected);
    assert_eq!(pool.map(sqr, &vec[10..20])?, expected[10..20]);
    assert_eq!(pool.map(sqr, fixed)?, expected);
    assert_eq!(pool.map(sqr, &fixed)?, expected);
    assert_eq!(
        pool.map(sqr, items(vec.iter().copied().filter(|x| x % 7 == 0)))?,
        [0, 49, 196, 441, 784, 1225, 1764, 2401]
    );
    assert_eq!(pool.map(sqr, vec)?, expected);
    assert_eq!(pool.map(|x: u8| x, 250..=255_u8)?, [250, 251, 252, 253, 254, 255]);
    assert_eq!(pool.map(|x: i8| x, -128..=127_i8)?.len(), 256);
    Ok(())
}

#[test]
fn map_takes_and_gives_values_of_any_size() -> Result<()> {
    let pool = pool(2);
    let words = ["", "a", "\u{e9}\u{df}", "swathe"];
    let owned: Vec<String> = words.map(str::to_owned).into();
    assert_eq!(pool.map(|text: &str| text.len(), words)?, [0, 1, 4, 6]);
    assert_eq!(pool.map(|text: &str| text.len(), &owned)?, [0, 1, 4, 6]);
    assert_eq!(
        pool.map(|text: String| text + "!", owned.clone())?.to_vec()?,
        ["!", "a!", "\u{e9}\u{df}!", "swathe!"]
    );
    assert_eq!(pool.map(|reading: Reading| reading, readings())?, readings());
    assert_eq!(
        pool.map(|reading: Reading| reading.values.len(), &readings())?,
        [0, 1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        pool.map(|x: u32| x.is_multiple_of(2).then(|| vec![x; x as usize]), 1..4)?,
        [None, Some(vec![2; 2]), None]
    );
    assert_eq!(
        pool.map(|x: f64| Point { x, y: -x }, [1.0, 2.0])?,
        [Point { x: 1.0, y: -1.0 }, Point { x: 2.0, y: -2.0 }]
    );
    assert_eq!(
        pool.map(
            |pair: (u8, String)| pair.1.repeat(pair.0.into()),
            [(2, "ab".to_owned())]
        )?
        .to_vec()?,
        ["abab"]
    );
    let lines = pool.map(
        |n: usize| "x".repeat(n),
        (0..200).map(|i| i * 50).collect::<Vec<_>>(),
    )?;
    assert_eq!(lines.iter().map(|line| line.len()).sum::<usize>(), 199 * 100 * 50);
    assert_eq!(lines.iter().next_back().map(|line| line.len()), Some(9950));
    assert_eq!(pool.map(|_: u8| (), [1, 2])?.len(), 2);
    Ok(())
}

#[test]
fn chunk_sizes_change_nothing() -> Result<()> {
    let pool = pool(3);
    let expected: Vec<i64> = (0..1000).map(sqr).collect();
    for size in [1, 2, 3, 7, 64, 999, 1000, 5000, usize::MAX] {
        assert_eq!(
            pool.batch().chunk_size(size).map(sqr, 0..1000)?,
            expected,
            "chunks of {size}"
        );
    }
    assert_eq!(
        pool.batch().chunk_size(ChunkSize::Pool).map(sqr, 0..1000)?,
        expected
    );
    assert_eq!(
        pool.batch().chunk_size(ChunkSize::Auto).map(sqr, 0..1000)?,
        expected
    );
    Ok(())
}

/// The sizes are those of CPython's `Pool`, which makes 12 chunks of 1000 elements for 3 workers.
#[test]
fn chunks_of_a_pool_are_those_of_cpython() -> Result<()> {
    fn length(x: &[i64], out: &mut [u64]) {
        out.fill(x.len() as u64);
    }
    for (n, processes, longest, chunks) in [(1, 2, 1, 1), (9, 2, 2, 5), (100, 4, 7, 15), (1000, 3, 84, 12)] {
        let pool = pool(processes);
        let input = Array::from_range(0..n)?;
        let lengths = pool
            .batch()
            .chunk_size(ChunkSize::Pool)
            .map_chunks(length, input)?;
        let counted: f64 = lengths.iter().map(|&length| 1.0 / length as f64).sum();
        assert_eq!(
            (lengths[0], counted.round() as usize),
            (longest, chunks),
            "{n} elements, {processes} workers"
        );
    }
    Ok(())
}

#[test]
fn starmap_takes_columns_and_tuples() -> Result<()> {
    let pool = pool(2);
    let numbers = Array::from_range(0..5_i64)?;
    let texts = vec!["a", "b", "c", "d", "e"];
    let expected = ["a-0", "b-1", "c-2", "d-3", "e-4"];
    assert_eq!(pool.starmap(label, (&numbers, &texts))?.to_vec()?, expected);
    assert_eq!(pool.starmap(label, (0..5, texts.clone()))?.to_vec()?, expected);
    let rows: Vec<(i64, &str)> = (0..).zip(texts).collect();
    assert_eq!(pool.starmap(label, &rows)?.to_vec()?, expected);
    assert_eq!(
        pool.starmap(label, items(rows.iter().copied()))?.to_vec()?,
        expected
    );
    assert_eq!(pool.starmap(label, rows)?.to_vec()?, expected);
    let eight = |a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64| {
        i64::from(a) + i64::from(b) + i64::from(c) + d as i64 + i64::from(e) + i64::from(f) + i64::from(g) + h
    };
    let sums = pool.starmap(
        eight,
        (
            0..3_u8,
            0..3_u16,
            0..3_u32,
            0..3_u64,
            0..3_i8,
            0..3_i16,
            0..3_i32,
            0..3_i64,
        ),
    )?;
    assert_eq!(sums, [0, 8, 16]);
    Ok(())
}

#[test]
fn apply_takes_any_arguments() -> Result<()> {
    let pool = pool(1);
    assert_eq!(pool.apply(label, (7_i64, "x"))?, "x-7");
    assert_eq!(pool.apply(|| 5_u8, ())?, 5);
    assert_eq!(
        pool.apply(
            |all: Vec<String>| all.concat(),
            vec!["a".to_owned(), "b".to_owned()]
        )?,
        "ab"
    );
    let table = Array::from_vec(vec![1.0, 2.0, 3.0])?;
    assert_eq!(
        pool.apply(|table: Array<f64>, i: usize| table[i], (table, 2_usize))?,
        3.0
    );
    assert_eq!(pool.apply_with(&10_i64, |p: &i64, x: i64| p * x, 4_i64)?, 40);
    assert_eq!(pool.try_apply(parse, "12")?, 12);
    let text = pool.try_apply(parse, "x").unwrap_err().to_string();
    assert!(
        text.starts_with("position 0 failed: invalid digit found in string (worker 0, pid "),
        "{text}"
    );
    Ok(())
}

#[test]
fn try_forms_fail_at_the_lowest_position_and_keep_the_rest() -> Result<()> {
    let pool = pool(2);
    assert_eq!(pool.try_map(parse, ["1", "-2"])?, [1, -2]);
    let Err(Error::Job(error)) = pool.try_map(parse, ["1", "x", "3", ""]) else {
        panic!("two must fail")
    };
    assert!(
        error
            .to_string()
            .starts_with("position 1 failed: invalid digit found in string"),
        "{error}"
    );
    assert!(
        error.to_string().ends_with("; 1 other position failed too"),
        "{error}"
    );
    let partial = error.into_partial::<Array<i64>>().expect("these are integers");
    let statuses: Vec<Status> = (0..4).map(|i| partial.status(i)).collect();
    assert_eq!(
        statuses,
        [Status::Done, Status::Failed, Status::Done, Status::Failed]
    );
    assert_eq!(partial.to_vec_or(0)?, [1, 0, 3, 0]);

    let divide = |a: i64, b: i64| a.checked_div(b).ok_or_else(|| format!("{a} by zero"));
    assert_eq!(pool.try_starmap(divide, (0..3, [1, 2, 1]))?, [0, 0, 2]);
    let collected = pool
        .batch()
        .collect_errors()
        .try_starmap(divide, (5..8, [1, 0, 7]))?;
    assert_eq!(
        (collected.value(0)?, collected.value(1)?, collected.value(2)?),
        (Some(5), None, Some(1))
    );
    assert!(
        collected.failures()[0]
            .to_string()
            .starts_with("position 1 failed: 6 by zero (worker ")
    );
    let error = pool
        .try_starmap_async(divide, [(1, 0)])?
        .get()
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("position 0 failed: 1 by zero"), "{error}");
    assert_eq!(pool.try_map_async(parse, ["7"])?.get()?, [7]);
    assert_eq!(pool.try_apply_async(parse, "8")?.get()?, 8);
    Ok(())
}

#[test]
fn fail_fast_leaves_the_rest() -> Result<()> {
    fn fail_at_ten(x: u64) -> Result<u64, String> {
        std::thread::sleep(std::time::Duration::from_millis(1));
        if x == 10 { Err("ten".into()) } else { Ok(x) }
    }
    let pool = pool(2);
    let Err(Error::Job(error)) = pool
        .batch()
        .chunk_size(1)
        .fail_fast()
        .try_map(fail_at_ten, 0..100_000)
    else {
        panic!("position 10 must fail")
    };
    assert!(error.is_stopped());
    let text = error.to_string();
    assert!(text.starts_with("position 10 failed: ten (worker "), "{text}");
    assert!(
        text.contains("; the job stopped at its first failure, with ")
            && text.ends_with(" of 100000 positions done"),
        "{text}"
    );
    let partial = error.into_partial::<Array<u64>>().expect("these are integers");
    assert_eq!(
        (partial.status(99_999), partial.value(99_999)?),
        (Status::NotRun, None)
    );
    Ok(())
}

#[test]
fn parameters_cross_once_and_are_seen_by_reference() -> Result<()> {
    let pool = pool(2);
    let table = Array::from_fn(100, |i| i as f64 * 0.5)?;
    assert_eq!(
        pool.map_with(&table, |table: &Array<f64>, i: usize| table[i], [3, 99])?,
        [1.5, 49.5]
    );
    let prefix = String::from("p");
    assert_eq!(
        pool.map_with(&prefix, |p: &String, x: i64| format!("{p}{x}"), 0..2)?
            .to_vec()?,
        ["p0", "p1"]
    );
    let scaled = |k: &(f64, i64), x: f64, n: i64| k.0 * x + (n - k.1) as f64;
    assert_eq!(
        pool.starmap_with(&(2.0, 1), scaled, ([1.0, 2.0], 1..3))?,
        [2.0, 5.0]
    );
    let large = vec![7_u8; 3 << 20];
    assert_eq!(
        pool.map_with(&large, |all: &Vec<u8>, i: usize| all[i], [0, (3 << 20) - 1])?,
        [7, 7]
    );
    Ok(())
}

#[test]
fn map_chunks_gets_whole_chunks() -> Result<()> {
    fn negate(x: &[f64], out: &mut [f64]) {
        assert_eq!(x.len(), out.len());
        out.iter_mut().zip(x).for_each(|(out, x)| *out = -x);
    }
    let pool = pool(2);
    let input = Array::from_fn(1001, |i| i as f64)?;
    let expected: Vec<f64> = input.iter().map(|x| -x).collect();
    for size in [1, 10, 1001, 4000] {
        assert_eq!(
            pool.batch().chunk_size(size).map_chunks(negate, &input)?,
            expected
        );
    }
    assert_eq!(pool.map_chunks(negate, vec![1.0, 2.0])?, [-1.0, -2.0]);
    assert!(pool.map_chunks(negate, Vec::<f64>::new())?.is_empty());

    fn picky(x: &[i64], out: &mut [i64]) -> Result<(), String> {
        if x.contains(&25) {
            return Err("25 is in here".into());
        }
        out.copy_from_slice(x);
        Ok(())
    }
    let numbers: Vec<i64> = (0..100).collect();
    let Err(Error::Job(error)) = pool.batch().chunk_size(10).try_map_chunks(picky, &numbers) else {
        panic!("a chunk must fail")
    };
    assert!(
        error
            .to_string()
            .starts_with("positions 20 to 29 failed: 25 is in here (worker "),
        "{error}"
    );
    assert_eq!(
        error.first().map(|first| (first.position(), first.span())),
        Some((20, 10))
    );
    let partial = error.into_partial::<Array<i64>>().expect("these are integers");
    assert_eq!(
        (
            partial.value(19)?,
            partial.value(20)?,
            partial.value(29)?,
            partial.value(30)?
        ),
        (Some(19), None, None, Some(30))
    );
    Ok(())
}

#[test]
fn map_in_place_keeps_the_memory_and_what_failed() -> Result<()> {
    let pool = pool(2);
    let array = ArrayMut::from_fn(1000, |i| i as i64)?;
    let at = array.as_ptr();
    let squared = pool.map_in_place(sqr, array)?;
    assert_eq!(squared.as_ptr(), at);
    assert!(squared.iter().enumerate().all(|(i, &x)| x == (i * i) as i64));

    let odd = |x: i64| {
        if x % 2 == 1 {
            Ok(-x)
        } else {
            Err(format!("{x} is even"))
        }
    };
    let Err(Error::Job(error)) = pool.try_map_in_place(odd, ArrayMut::from_vec(vec![1, 2, 3])?) else {
        panic!("2 is even")
    };
    assert!(
        error
            .to_string()
            .starts_with("position 1 failed: 2 is even (worker "),
        "{error}"
    );
    let partial = error
        .into_partial::<ArrayMut<i64>>()
        .expect("the array comes back");
    assert_eq!(
        (partial.value(0)?, partial.value(1)?, partial.value(2)?),
        (Some(-1), None, Some(-3))
    );
    Ok(())
}

/// The sum of these floats depends on the order of the additions, and so on any change of it.
#[test]
fn map_reduce_gives_the_same_bits_for_any_number_of_workers() -> Result<()> {
    fn term(i: u64) -> f64 {
        let sign = if i.is_multiple_of(3) { -1.0 } else { 1.0 };
        sign * 1e16_f64.powf((i % 17) as f64 / 17.0) / (1.0 + i as f64)
    }
    fn add(a: f64, b: f64) -> f64 {
        a + b
    }
    let mut bits = Vec::new();
    for processes in [1, 2, 3, 5] {
        let pool = pool(processes);
        let sum = pool.map_reduce(term, add, 0..10_007_u64)?.expect("not empty");
        let blocks = pool
            .batch()
            .chunk_size(100)
            .map_reduce(term, add, 0..10_007_u64)?
            .expect("not empty");
        bits.push((sum.to_bits(), blocks.to_bits()));
    }
    assert!(bits.iter().all(|same| *same == bits[0]), "{bits:?}");
    assert_ne!(bits[0].0, bits[0].1, "the terms must tell one order from another");
    let reversed: f64 = (0..10_007).rev().map(term).sum();
    assert!((f64::from_bits(bits[0].0) / reversed - 1.0).abs() < 1e-9);
    Ok(())
}

/// Concatenation is associative and not commutative: the order of the input must survive.
#[test]
fn map_reduce_keeps_the_order_of_the_input() -> Result<()> {
    let pool = pool(3);
    let expected: String = (0..3000).map(|i| format!("{i},")).collect();
    let write = |i: u64| format!("{i},");
    let concatenate = |a: String, b: String| a + &b;
    assert_eq!(
        pool.map_reduce(write, concatenate, 0..3000)?.as_deref(),
        Some(expected.as_str())
    );
    assert_eq!(
        pool.batch()
            .chunk_size(7)
            .map_reduce(write, concatenate, 0..3000)?,
        Some(expected)
    );
    assert_eq!(pool.map_reduce(write, concatenate, 0..0)?, None);
    assert_eq!(pool.map_reduce(write, concatenate, 5..6)?.as_deref(), Some("5,"));
    assert_eq!(
        pool.map_reduce(|x: u64| x * x, |a: u64, b: u64| a + b, 1..=1000)?,
        Some(333_833_500)
    );
    Ok(())
}

#[test]
fn map_rows_gives_views_along_any_axis() -> Result<()> {
    let pool = pool(2);
    let table = Array::from_fn(24, |i| i as f64)?.reshape(&[2, 3, 4])?;
    let view = table.view();
    let sum = |row: ArrayViewD<'_, f64>| row.sum();
    let shape = |row: ArrayViewD<'_, f64>| row.shape().to_vec();
    for (axis, rest) in [vec![3, 4], vec![2, 4], vec![2, 3]].into_iter().enumerate() {
        let expected: Vec<f64> = view.axis_iter(ndarray::Axis(axis)).map(|row| row.sum()).collect();
        assert_eq!(pool.map_rows(sum, &table, axis)?, expected);
        assert_eq!(pool.map_rows(shape, &table, axis)?, vec![rest; expected.len()]);
    }
    assert_eq!(
        pool.map_rows(
            |x: ArrayViewD<'_, f64>| x.sum(),
            &Array::from_vec(vec![1.0, 2.0])?,
            0
        )?,
        [1.0, 2.0]
    );
    let positive = |row: ArrayViewD<'_, f64>| {
        if row.sum() > 70.0 {
            Ok(1_u8)
        } else {
            Err("too small")
        }
    };
    let text = pool.try_map_rows(positive, &table, 0).unwrap_err().to_string();
    assert!(
        text.starts_with("position 0 failed: too small (worker "),
        "{text}"
    );
    Ok(())
}

#[test]
fn run_per_worker_visits_each_once() -> Result<()> {
    let pool = watched(Pool::builder().processes(3).state(|| 0_u64, ()).build());
    let pids = pool.run_per_worker(std::process::id)?;
    let mut distinct = pids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 3);
    let add = |total: &mut u64, context: &swathe::Context| {
        *total += 10 + context.worker() as u64;
        (*total, context.position())
    };
    assert_eq!(pool.run_per_worker(add)?, [(10, 0), (11, 1), (12, 2)]);
    assert_eq!(pool.run_per_worker(add)?, [(20, 0), (22, 1), (24, 2)]);
    assert_eq!(pool.run_per_worker(std::process::id)?, pids);
    Ok(())
}

#[test]
fn results_are_inputs_of_the_next_job_without_a_copy() -> Result<()> {
    let pool = pool(2);
    let squares = pool.map(sqr, 0..1000)?;
    let roots = pool.map(|x: i64| (x as f64).sqrt(), &squares)?;
    assert!(roots.iter().enumerate().all(|(i, &x)| x == i as f64));
    let again = self::pool(1).map(|x: f64| x as i64, roots)?;
    assert!(again.iter().copied().eq(0..1000), "arrays pass between pools");
    Ok(())
}

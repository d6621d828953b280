//! Calls that cannot be made, and elements that cannot be had.

use std::{sync::mpsc, thread, time::Duration};

use swathe::{Array, ArrayMut, Error, Result, items};
use swathe_tests::pool;

use crate::text;

fn sqr(x: i64) -> i64 {
    x * x
}

/// A path is text only if its bytes are UTF-8.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Debug, PartialEq)]
struct Located {
    #[rkyv(with = rkyv::with::AsString)]
    path: std::path::PathBuf,
}
impl swathe::Record for Located {}

fn nowhere() -> Located {
    use std::os::unix::ffi::OsStrExt;
    Located {
        path: std::ffi::OsStr::from_bytes(b"\xff").into(),
    }
}

#[test]
fn a_chunk_size_of_0() -> Result<()> {
    let pool = pool(1);
    let refused = "a chunk has at least 1 element: a chunk size of 0 would never end";
    assert_eq!(text(pool.batch().chunk_size(0).map(sqr, 0..3)), refused);
    assert_eq!(text(pool.batch().chunk_size(0).map_async(sqr, 0..3)), refused);
    assert_eq!(
        text(
            pool.batch()
                .chunk_size(0)
                .starmap(|a: i64, b: i64| a + b, [(1, 2)])
        ),
        refused
    );
    let copy = |x: &[i64], y: &mut [i64]| y.copy_from_slice(x);
    assert_eq!(
        text(pool.batch().chunk_size(0).map_chunks(copy, vec![1])),
        refused
    );
    assert_eq!(
        text(
            pool.batch()
                .chunk_size(0)
                .map_in_place(sqr, ArrayMut::from_vec(vec![1])?)
        ),
        refused
    );
    assert_eq!(
        text(
            pool.batch()
                .chunk_size(0)
                .map_reduce(sqr, |a: i64, b: i64| a + b, 0..3)
        ),
        refused
    );
    assert_eq!(pool.map(sqr, 0..3)?, [0, 1, 4]);
    Ok(())
}

/// On a thread of its own, so that a stream that never ends fails this test alone.
#[test]
fn a_chunk_size_of_0_for_a_stream() {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let pool = pool(1);
        let first = pool.batch().chunk_size(0).imap(sqr, 0..3).next();
        let _ = tell.send(text(first.expect("an error, not the end")));
    });
    assert_eq!(
        told.recv_timeout(Duration::from_secs(20)).as_deref(),
        Ok("position 0 was not run: a chunk has at least 1 element: a chunk size of 0 would never end")
    );
}

/// Nothing to do is no error.
#[test]
fn an_empty_input() -> Result<()> {
    let pool = pool(1);
    assert_eq!(pool.map(sqr, 0..0)?, [0; 0]);
    assert_eq!(
        pool.map(|text: &str| text.len(), Vec::<String>::new().as_slice())?,
        [0; 0]
    );
    assert_eq!(
        pool.starmap(|a: i64, b: i64| a + b, (0..0, Array::zeros(0)?))?,
        [0; 0]
    );
    assert_eq!(pool.map(sqr, Array::from_vec(Vec::new())?)?, [0; 0]);
    assert_eq!(pool.map(|x: i64| x.to_string(), 0..0)?.to_vec()?, [""; 0]);
    assert!(pool.map_in_place(sqr, ArrayMut::zeros(0)?)?.is_empty());
    assert_eq!(pool.map_reduce(sqr, |a: i64, b: i64| a + b, 0..0)?, None);
    let rows = Array::<f64>::zeros(0)?.reshape(&[0, 3])?;
    assert_eq!(
        pool.map_rows(|row: ndarray::ArrayViewD<'_, f64>| row.len(), &rows, 0)?,
        [0; 0]
    );
    assert_eq!(
        pool.map_rows(|row: ndarray::ArrayViewD<'_, f64>| row.len(), &rows, 1)?,
        [0; 3]
    );
    assert_eq!(pool.batch().chunk_size(1).imap(sqr, 0..0).count(), 0);
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "a range that runs backwards is empty"
    )]
    let backwards = pool.map(sqr, 5..1)?;
    assert_eq!(backwards, [0; 0]);
    let partial = pool.batch().collect_errors().map(sqr, 0..0)?;
    assert!(partial.is_complete() && partial.is_empty());
    Ok(())
}

#[test]
fn columns_of_different_lengths() -> Result<()> {
    let pool = pool(1);
    let add = |a: i64, b: i64, c: i64| a + b + c;
    let refused = |column, len, first| {
        format!(
            "the columns of a starmap must be equally long: column 0 has {first} elements, column {column} has {len}"
        )
    };
    assert_eq!(text(pool.starmap(add, (0..3, 0..4, 0..3))), refused(1, 4, 3));
    assert_eq!(
        text(pool.starmap(add, (0..3, &[1, 2, 3], &Array::zeros(0)?))),
        refused(2, 0, 3)
    );
    assert_eq!(
        text(pool.starmap_async(add, (0..0, 0..0, 0..1))),
        refused(2, 1, 0)
    );
    Ok(())
}

#[test]
fn a_range_that_is_too_long() {
    let pool = pool(1);
    let refused = text(pool.map(|x: u64| x, 0..=u64::MAX));
    assert_eq!(
        refused,
        "the input has more elements than this machine can address"
    );
    let refused = text(pool.map(|x: u64| x, 0..u64::MAX));
    assert_eq!(
        refused,
        format!(
            "the shape [{}] has more elements than this machine can address",
            u64::MAX
        )
    );
}

#[test]
fn more_chunks_than_can_be_numbered() {
    let refused = text(pool(1).batch().chunk_size(1).map(|_: u64| (), 0..1 << 40));
    assert!(
        refused.starts_with("a job has at most ") && refused.ends_with("choose a larger chunk size"),
        "{refused}"
    );
    assert!(refused.contains("this one would have 1099511627776"), "{refused}");
}

#[test]
fn an_iterator_that_panics() -> Result<()> {
    let pool = pool(2);
    for bad in [0, 5] {
        let input = || (0..9).map(move |x| if x == bad { panic!("bad row {x}") } else { x });
        let expected = format!("the input's iterator panicked at position {bad}: bad row {bad}");
        assert_eq!(text(pool.map(sqr, items(input()))), expected);
        assert_eq!(
            text(pool.starmap(|a: i64, b: i64| a + b, items(input().zip(0..)))),
            expected
        );
        let mut stream = pool.imap(sqr, input());
        for x in 0..bad {
            assert_eq!(
                stream.next(),
                Some(Ok(x * x)),
                "items before the panic are delivered"
            );
        }
        let last = text(stream.next().expect("an error"));
        assert_eq!(
            last,
            format!("position {bad} failed: the input's iterator panicked: bad row {bad}")
        );
        assert_eq!(stream.next(), None);
    }
    assert_eq!(pool.map(sqr, 0..3)?, [0, 1, 4]);
    Ok(())
}

#[test]
fn an_element_that_cannot_cross() -> Result<()> {
    let pool = pool(1);
    let fine = Located { path: "fine".into() };
    let expected = "element 1 of the input cannot cross to the workers: it cannot be encoded: ";
    let refused = text(pool.map(|_: Located| (), vec![fine.clone(), nowhere()]));
    assert!(refused.starts_with(expected), "{refused}");
    let refused = text(pool.map(|_: Located| (), &[fine.clone(), nowhere()]));
    assert!(refused.starts_with(expected), "{refused}");
    let refused = text(pool.apply(|_: Located| (), nowhere()));
    assert!(
        refused.starts_with("element 0 of the input cannot cross to the workers: "),
        "{refused}"
    );
    let mut stream = pool
        .batch()
        .chunk_size(1)
        .imap(|at: Located| at.path.is_absolute(), [nowhere(), fine]);
    let refused = text(stream.next().expect("an error"));
    assert!(
        refused.starts_with("position 0 was not run: element 0 of the input cannot cross to the workers: "),
        "{refused}"
    );
    assert_eq!(stream.next(), Some(Ok(false)), "the stream goes on");
    Ok(())
}

#[test]
fn parameters_that_cannot_cross() {
    let refused = text(pool(1).map_with(&nowhere(), |_: &Located, x: i64| x, 0..3));
    assert!(
        refused.starts_with("the parameters cannot cross to the workers: it cannot be encoded: "),
        "{refused}"
    );
}

#[test]
fn a_result_that_cannot_cross() -> Result<()> {
    let pool = pool(1);
    let partial = pool.batch().collect_errors().map(
        |x: u8| {
            if x == 1 {
                nowhere()
            } else {
                Located { path: "fine".into() }
            }
        },
        0..3_u8,
    )?;
    let failures = partial.failures();
    assert_eq!(failures.len(), 1);
    let failure = failures[0].to_string();
    assert!(
        failure.starts_with("position 1 failed: it cannot be encoded: "),
        "{failure}"
    );
    assert_eq!(partial.value(2)?, Some(Located { path: "fine".into() }));
    Ok(())
}

/// The values of a failed job, asked for as another type than they are.
#[test]
fn partial_results_of_another_type() {
    let Err(Error::Job(error)) = pool(1).try_map(|x: i64| Err::<i64, _>(format!("no {x}")), 0..2) else {
        panic!("all must fail")
    };
    let error = error
        .into_partial::<Array<f64>>()
        .expect_err("these are integers");
    let error = error
        .into_partial::<swathe::Records<i64>>()
        .expect_err("and no records");
    assert!(
        error.to_string().starts_with("position 0 failed: no 0 (worker "),
        "{error}"
    );
    assert!(error.into_partial::<Array<i64>>().is_ok());
}

#[test]
fn positions_that_do_not_exist() -> Result<()> {
    let pool = pool(1);
    let texts = pool.map(|x: i64| x.to_string(), 0..3)?;
    assert_eq!(text(texts.value(3)), "there is no position 3: the results have 3");
    let partial = pool.batch().collect_errors().map(sqr, 0..3)?;
    assert_eq!(
        text(partial.value(usize::MAX)),
        format!("there is no position {}: the results have 3", usize::MAX)
    );
    Ok(())
}

#[test]
fn an_axis_that_does_not_exist() -> Result<()> {
    let pool = pool(1);
    let table = Array::<f64>::zeros(6)?.reshape(&[2, 3])?;
    let len = |row: ndarray::ArrayViewD<'_, f64>| row.len();
    assert_eq!(
        text(pool.map_rows(len, &table, 2)),
        "the array has 2 axes, and rows along axis 2 were asked for"
    );
    assert_eq!(
        text(table.reshape(&[4, 2])),
        "the shape [4, 2] has 8 elements, but the array has 6"
    );
    Ok(())
}

/// A record that lies: the texts of a worker that is wild must not reach far. Long messages are cut, not refused.
#[test]
fn an_error_of_many_mebibytes() {
    let refused = text(pool(1).try_map(|_: u8| Err::<u8, _>("\u{e9}".repeat(5 << 20)), [0]));
    assert!(
        refused.starts_with("position 0 failed: \u{e9}\u{e9}"),
        "{}",
        &refused[..100]
    );
    assert!(refused.len() < 1 << 20, "{} bytes", refused.len());
}

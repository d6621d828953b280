//! What is as it is without a file.

use std::sync::mpsc;

use ndarray::ArrayViewD;
use swathe::{Array, Context, Pool, Result};
use swathe_tests::pool;

use super::{Place, Published, count, root_or_not};

fn double(x: i64) -> i64 {
    2 * x
}

/// Every verb gives what it gives without a file, and the file holds it.
#[test]
fn every_verb_gives_the_same_with_a_file() -> Result<()> {
    fn even(x: u32) -> Result<u32, String> {
        Err(format!("{x} is odd")).or_else(|odd| if x.is_multiple_of(2) { Ok(x) } else { Err(odd) })
    }
    let pool = pool(2);
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    let doubles = at().map(double, 0..1000)?;
    assert_eq!(doubles, pool.map(double, 0..1000)?);
    assert_eq!(Array::<i64>::from_npy_path(place.output())?, doubles);
    assert_eq!(at().map_async(double, 0..1000)?.get()?, doubles);
    assert_is_numpys(&place);

    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    let evens = [0_u32, 2, 4];
    assert_eq!(at().try_map(even, evens)?, evens);
    assert_eq!(at().try_map_async(even, evens)?.get()?, evens);
    assert_is_numpys(&place);

    let place = Place::new();
    let length = |text: &str| text.len() as u8;
    let batch = pool.batch().output_file(place.output());
    assert_eq!(batch.map(length, ["a", "bcd", ""])?, [1, 3, 0]);
    assert_is_numpys(&place);
    Ok(())
}

#[test]
fn every_verb_of_columns_and_rows_does_too() -> Result<()> {
    fn sum(x: f32, y: i64) -> f32 {
        x + y as f32
    }
    fn try_sum(x: f32, y: i64) -> Result<f32, String> {
        Ok(sum(x, y))
    }
    let pool = pool(2);
    let (x, y) = (vec![1.0_f32, 2.0, 3.0], [10_i64, 20, 30]);
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    assert_eq!(at().starmap(sum, (&x, 0..3_i64))?, [1.0, 3.0, 5.0]);
    assert_eq!(at().starmap_async(sum, (&x, 0..3_i64))?.get()?, [1.0, 3.0, 5.0]);
    assert_is_numpys(&place);

    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    assert_eq!(at().try_starmap(try_sum, (&x, &y))?, [11.0, 22.0, 33.0]);
    assert_eq!(
        at().try_starmap_async(try_sum, (&x, &y))?.get()?,
        [11.0, 22.0, 33.0]
    );
    assert_is_numpys(&place);

    let row_sum = |row: ArrayViewD<'_, f64>| row.sum();
    let try_row_sum = |row: ArrayViewD<'_, f64>| Ok::<_, String>(row.sum());
    let table = Array::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?.reshape(&[3, 2])?;
    let (by_row, by_column) = (Place::new(), Place::new());
    let batch = pool.batch().output_file(by_row.output());
    assert_eq!(batch.map_rows(row_sum, &table, 0)?, [3.0, 7.0, 11.0]);
    let batch = pool.batch().output_file(by_column.output());
    assert_eq!(batch.try_map_rows(try_row_sum, &table, 1)?, [9.0, 12.0]);
    assert_is_numpys(&by_column);
    Ok(())
}

/// The file starts as NumPy's do, and its data are aligned.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Fit {
    slope: f64,
    residuals: [f32; 2],
}
swathe::npy_fields!(Fit {
    slope: f64,
    residuals: [f32; 2]
});

/// Several numbers an element: one more axis, or fields.
#[test]
fn several_numbers_an_element_have_a_numpy_form() -> Result<()> {
    fn moments(x: i32) -> [f64; 3] {
        let x = f64::from(x);
        [x, x * x, x * x * x]
    }
    fn table(x: u8) -> [[u8; 2]; 3] {
        [[x, 1], [x, 2], [x, 3]]
    }
    fn fit(x: u32) -> Result<Fit, String> {
        let residuals = [x as f32, 0.5];
        Ok(Fit {
            slope: f64::from(x),
            residuals,
        })
    }
    let pool = pool(2);
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    let all = at().map(moments, -500..500)?;
    assert_eq!(all, pool.map(moments, -500..500)?);
    assert_eq!(at().map(moments, -500..500)?, all, "nothing is run");
    assert_is_numpys(&place);
    let flat = Array::<f64>::from_npy_path(place.output())?;
    assert_eq!(
        (flat.shape(), &flat[3 * 503..3 * 504]),
        ([1000, 3].as_slice(), [3.0, 9.0, 27.0].as_slice())
    );
    let other = at()
        .map(|x: i32| [f64::from(x); 2], -500..500)
        .unwrap_err()
        .to_string();
    assert!(
        other.contains("results of the type [f64; 3], and these would be [f64; 2]"),
        "{other}"
    );

    let place = Place::new();
    pool.batch().output_file(place.output()).map(table, 0..5_u8)?;
    assert_eq!(Array::<u8>::from_npy_path(place.output())?.shape(), [5, 3, 2]);

    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    let fits = at().try_map(fit, 0..1000)?;
    assert_eq!(
        fits[999],
        Fit {
            slope: 999.0,
            residuals: [999.0, 0.5]
        }
    );
    assert_eq!(at().try_map(fit, 0..1000)?, fits);
    assert_is_numpys(&place);
    let text = String::from_utf8_lossy(&place.bytes().0[10..]).into_owned();
    let expected = "{'descr': [('slope', '<f8'), ('residuals', '<f4', (2,))], 'fortran_order': False, 'shape': (1000,), }";
    assert!(text.starts_with(expected), "{text:.120}");
    Ok(())
}

/// Whole chunks: with values, and with several of them an element.
#[test]
fn chunks_do_too() -> Result<()> {
    fn cumulate(x: &[f64], sums: &mut [[f64; 2]]) {
        let mut sum = 0.0;
        for (&x, out) in x.iter().zip(sums) {
            sum += x;
            *out = [x, sum];
        }
    }
    let pool = pool(2);
    let place = Place::new();
    let x = Array::from_fn(1000, |i| i as f64)?;
    let at = || pool.batch().output_file(place.output()).chunk_size(96);
    let sums = at().map_chunks(cumulate, &x)?;
    assert_eq!(sums, pool.batch().chunk_size(96).map_chunks(cumulate, &x)?);
    assert_eq!(at().map_chunks(cumulate, &x)?, sums, "nothing is run");
    assert_eq!(Array::<f64>::from_npy_path(place.output())?.shape(), [1000, 2]);
    let changed = at()
        .map_chunks(cumulate, &Array::from_fn(1000, |_| 0.0)?)
        .unwrap_err()
        .to_string();
    assert!(
        changed.contains("the contents of the input are not those"),
        "{changed}"
    );
    Ok(())
}

fn assert_is_numpys(place: &Place) {
    let values = place.bytes().0;
    assert!(values.starts_with(b"\x93NUMPY\x01\x00"));
    let header = 10 + u16::from_le_bytes([values[8], values[9]]);
    assert_eq!(header % 64, 0, "the data are aligned");
    assert!(Published::read(place, 2).done.iter().all(|&done| done));
}

/// A result says whether positions are done by itself, so it outlives the pool and the files' names.
#[test]
fn a_result_outlives_pool_and_names() -> Result<()> {
    let place = Place::new();
    let doubles = pool(1).batch().output_file(place.output()).map(double, 0..100)?;
    drop(place);
    assert_eq!(doubles[99], 198);
    assert_eq!(pool(1).map(double, &doubles)?[99], 396);
    Ok(())
}

/// The random numbers of a position are the same in whichever run it is its turn.
#[test]
fn random_numbers_do_not_depend_on_the_run() -> Result<()> {
    fn draw(runs: &String, context: &Context, x: u32) -> Result<u64, String> {
        use rand_pcg::rand_core::RngCore;
        root_or_not(runs, x).map(|_| context.rng().next_u64())
    }
    let pool = pool(2);
    let place = Place::new();
    let batch = || {
        pool.batch()
            .output_file(place.output())
            .seed(5)
            .with(&place.runs())
    };
    batch()?.collect_errors().try_map(draw, 0..100)?;
    place.go();
    let in_two_runs = batch()?.try_map(draw, 0..100)?;
    assert_eq!(
        in_two_runs,
        pool.batch().seed(5).with(&place.runs())?.try_map(draw, 0..100)?
    );
    Ok(())
}

/// Arrays are compared by what they hold, wherever they lie in this run.
#[test]
fn arrays_are_compared_by_content() -> Result<()> {
    fn scale(p: &(String, Array<f64>), x: f64) -> f64 {
        count(&p.0, x as u64).expect("it can be counted");
        x * p.1[0]
    }
    let place = Place::new();
    for _ in 0..2 {
        // Another pool and other memory, as in another run.
        let pool = pool(1);
        let _shift = Array::from_vec(vec![0_u8; 4096])?;
        let parameters = (place.runs(), Array::from_vec(vec![3.0])?);
        let input = Array::from_vec((0..50).map(f64::from).collect())?;
        assert_eq!(
            pool.batch()
                .output_file(place.output())
                .with(&parameters)?
                .map(scale, &input)?[9],
            27.0
        );
        assert_eq!(place.counts(50), [1; 50]);
        let other = (place.runs(), Array::from_vec(vec![4.0])?);
        let text = pool
            .batch()
            .output_file(place.output())
            .with(&other)?
            .map(scale, &input)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("the parameters are not those that it was begun with"),
            "{text}"
        );
        let other: Array<f64> = Array::from_vec((1..51).map(f64::from).collect())?;
        let text = pool
            .batch()
            .output_file(place.output())
            .with(&parameters)?
            .map(scale, &other)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("the contents of the input are not those that it was begun with"),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn arrays_in_records_are_compared_by_content() -> Result<()> {
    fn sum(x: Array<f64>) -> f64 {
        x.iter().sum()
    }
    let place = Place::new();
    let records = |last: f64| -> Result<Vec<Array<f64>>> {
        Ok(vec![
            Array::from_vec(vec![1.0, 2.0])?,
            Array::from_vec(vec![last])?,
        ])
    };
    let pool = pool(1);
    assert_eq!(
        pool.batch().output_file(place.output()).map(sum, records(5.0)?)?,
        [3.0, 5.0]
    );
    assert_eq!(
        pool.batch()
            .output_file(place.output())
            .map(sum, &records(5.0)?)?,
        [3.0, 5.0]
    );
    assert!(
        pool.batch()
            .output_file(place.output())
            .map(sum, records(6.0)?)
            .is_err()
    );
    Ok(())
}

/// Callbacks are called as without a file.
#[test]
fn callbacks_are_called() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    for _ in 0..2 {
        let (sender, receiver) = mpsc::channel();
        let batch = pool
            .batch()
            .output_file(place.output())
            .on_success(move |doubles: &[i64]| {
                let _ = sender.send(doubles.len());
            });
        let pending = batch.map_async(double, 0..10)?;
        assert_eq!(receiver.recv().expect("it is called"), 10);
        pending.get()?;
    }
    Ok(())
}

/// Two outputs at once are two outputs.
#[test]
fn jobs_write_side_by_side() -> Result<()> {
    let pool: &Pool = &pool(2);
    let places: Vec<Place> = (0..6).map(|_| Place::new()).collect();
    let pending = places.iter().map(|place| {
        pool.batch()
            .output_file(place.output())
            .map_async(double, 0..5000)
    });
    for (job, place) in pending.collect::<Result<Vec<_>>>()?.iter().zip(&places) {
        assert!(job.get()?.iter().copied().eq((0..5000).map(double)));
        assert_eq!(Array::<i64>::from_npy_path(place.output())?, job.get()?);
    }
    Ok(())
}

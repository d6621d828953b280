//! The main job.

use rayon::prelude::*;
use swathe::{Array, Pool};

use crate::{
    Result,
    bank::Grid,
    filter::{Filter, Peak},
    harness::{Bound, MS, Measured, Setup, Side, Unit, timed},
    psd,
    strain::{self, SAMPLE_RATE},
};

const GPS_START: f64 = 1_126_259_446.0;

/// The state of a worker, as the example has it.
fn load(strain: Array<f64>, noise: Array<f64>) -> std::result::Result<Filter, String> {
    Filter::load(&strain, &noise, SAMPLE_RATE, GPS_START).map_err(|error| error.to_string())
}

fn of_peaks(peaks: &[Peak]) -> f64 {
    peaks
        .iter()
        .zip(1u32..)
        .map(|(peak, i)| peak.snr * f64::from(i))
        .sum()
}

/// A bank of templates against 32 s of strain.
pub(crate) fn matched_filter(setup: &Setup) -> Result<Measured> {
    // 141 masses make 10 011 pairs.
    let bank = if setup.quick { "4:60:3" } else { "4:60:0.4" };
    let (m1s, m2s) = bank.parse::<Grid>()?.pairs();
    let (m1s, m2s) = (Array::from_vec(m1s)?, Array::from_vec(m2s)?);
    let strain = Array::from_vec(strain::synthetic()?)?;
    let noise = Array::from_vec(psd::density(&strain, SAMPLE_RATE)?)?;
    let pool = Pool::builder()
        .processes(setup.workers)
        .try_state(load, (strain.clone(), noise.clone()))
        .build()?;
    let threads = setup.threads()?;
    // The states are made beforehand, as those of the workers are.
    let mut alone = load(strain.clone(), noise.clone())?;
    let states: Vec<_> = (0..setup.workers)
        .map(|_| load(strain.clone(), noise.clone()).map(std::sync::Mutex::new))
        .collect::<std::result::Result<_, _>>()?;
    let by_this_thread = |m1: f64, m2: f64| {
        let state = &states[rayon::current_thread_index().unwrap_or(0)];
        state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .peak(m1, m2)
    };
    setup
        .bout(MS, 3)
        .rate(Unit("templates/s", 1.0), m1s.len() as f64)
        .contender("swathe", || {
            let peaks = || {
                pool.starmap(
                    |filter: &mut Filter, m1: f64, m2: f64| filter.peak(m1, m2),
                    (&m1s, &m2s),
                )
            };
            let (seconds, peaks) = timed(peaks);
            Ok((seconds, of_peaks(&peaks?)))
        })
        .contender("serial", || {
            let pairs = m1s.iter().zip(&m2s[..]);
            let (seconds, peaks) = timed(|| pairs.map(|(&m1, &m2)| alone.peak(m1, m2)).collect::<Vec<_>>());
            Ok((seconds, of_peaks(&peaks)))
        })
        .contender("rayon", || {
            // Single templates, so that it can balance.
            let peaks = m1s
                .par_iter()
                .zip(&m2s[..])
                .with_max_len(1)
                .map(|(&m1, &m2)| by_this_thread(m1, m2));
            let (seconds, peaks) = timed(|| threads.install(|| peaks.collect::<Vec<_>>()));
            Ok((seconds, of_peaks(&peaks)))
        })
        .ratio("serial", "swathe", Bound::AtLeast(0.98 * setup.workers as f64))
        .ratio("rayon", "swathe", Bound::Shown)
        .ratio(Side::PerWorker("serial"), "swathe", Bound::Shown) // parallel efficiency
        .run()
}

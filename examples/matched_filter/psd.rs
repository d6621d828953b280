//! The noise: its spectral density, by Welch's method, and the spectrum of the strain that is measured against it.

use std::f64::consts::{PI, TAU};

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

use crate::Result;
use crate::filter::{HIGHEST, LOWEST};

/// Length of a Welch segment, in seconds.
pub(crate) const SEGMENT: f64 = 4.0;
/// The part of the strain that is tapered, half of it at each end.
const TAPER: f64 = 0.25;

/// The one-sided noise density of `strain` (1/Hz when it is dimensionless) at the frequencies k x `sample_rate` / n, for k
/// from 0 to n/2 and n the number of samples.
///
/// # Errors
/// If there is not one whole segment of [`SEGMENT`] seconds, or if the density is zero or not finite at a frequency that is
/// searched: no filter can be weighted by it, in any worker.
pub(crate) fn density(strain: &[f64], sample_rate: f64) -> Result<Vec<f64>> {
    let segment = (SEGMENT * sample_rate) as usize;
    let coarse = welch_median(strain, segment, sample_rate)?;
    let ratio = segment as f64 / strain.len() as f64;
    let density: Vec<f64> = (0..=strain.len() / 2)
        .map(|k| interpolate(&coarse, k as f64 * ratio))
        .collect();
    let frequency = |k: usize| k as f64 * sample_rate / strain.len() as f64;
    let unusable = |k: &usize| {
        (LOWEST..=HIGHEST).contains(&frequency(*k)) && !(density[*k] > 0.0 && density[*k].is_finite())
    };
    match (0..density.len()).find(unusable) {
        Some(k) => {
            let (f, noise) = (frequency(k), density[k]);
            Err(format!("the strain cannot be searched: its noise density at {f} Hz is {noise}").into())
        }
        None => Ok(density),
    }
}

/// The Fourier transform of `strain` (strain x seconds) under a Tukey window, at the frequencies of [`density`].
///
/// # Errors
/// If the FFT refuses its buffers.
pub(crate) fn spectrum(strain: &[f64], sample_rate: f64) -> Result<Vec<Complex<f64>>> {
    let fft = RealFftPlanner::<f64>::new().plan_fft_forward(strain.len());
    let mut tapered: Vec<f64> = strain
        .iter()
        .enumerate()
        .map(|(i, x)| x * tukey(i, strain.len(), TAPER) / sample_rate)
        .collect();
    let mut spectrum = fft.make_output_vec();
    fft.process(&mut tapered, &mut spectrum)?;
    Ok(spectrum)
}

/// Welch's estimate at k x `sample_rate` / `segment`: periodic Hann windows that overlap by half, means removed, and the
/// *median* over the segments, which a loud signal in a few of them does not raise.
fn welch_median(strain: &[f64], segment: usize, sample_rate: f64) -> Result<Vec<f64>> {
    if segment < 2 || strain.len() < segment {
        return Err(format!(
            "{} samples of strain are less than one segment of {segment}",
            strain.len()
        )
        .into());
    }
    let window: Vec<f64> = (0..segment)
        .map(|i| 0.5 - 0.5 * (TAU * i as f64 / segment as f64).cos())
        .collect();
    let scale = 1.0 / (sample_rate * window.iter().map(|w| w * w).sum::<f64>());
    let fft = RealFftPlanner::<f64>::new().plan_fft_forward(segment);
    let (mut samples, mut bins) = (fft.make_input_vec(), fft.make_output_vec());
    let mut periodograms = vec![Vec::new(); bins.len()];
    for start in (0..=strain.len() - segment).step_by(segment / 2) {
        let piece = &strain[start..start + segment];
        let mean = piece.iter().sum::<f64>() / segment as f64;
        for ((sample, x), w) in samples.iter_mut().zip(piece).zip(&window) {
            *sample = (x - mean) * w;
        }
        fft.process(&mut samples, &mut bins)?;
        for (periodogram, bin) in periodograms.iter_mut().zip(&bins) {
            periodogram.push(bin.norm_sqr() * scale);
        }
    }
    let bias = median_bias(periodograms[0].len());
    let unpaired = |k: usize| k == 0 || 2 * k == segment; // no negative frequency to add
    Ok(periodograms
        .iter_mut()
        .enumerate()
        .map(|(k, values)| median(values) / bias * if unpaired(k) { 1.0 } else { 2.0 })
        .collect())
}

/// The expected median of `count` exponential variables of mean 1, so that the density of Gaussian noise comes out
/// unbiased (Allen et al., Phys. Rev. D 85, 122006, 2012, appendix B): 1 - 1/2 + 1/3 - ... to the last odd term.
fn median_bias(count: usize) -> f64 {
    1.0 + (1..=count.saturating_sub(1) / 2)
        .map(|i| 1.0 / (2 * i + 1) as f64 - 1.0 / (2 * i) as f64)
        .sum::<f64>()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        values[half]
    } else {
        0.5 * (values[half - 1] + values[half])
    }
}

/// The value at position `at`, linear between the values at whole positions and constant beyond them.
fn interpolate(values: &[f64], at: f64) -> f64 {
    let last = values.len() - 1;
    let below = (at as usize).min(last);
    let above = (below + 1).min(last);
    values[below] + (at - below as f64) * (values[above] - values[below])
}

/// Sample `i` of the symmetric Tukey window of `n` samples, of which `fraction` are under its two cosine flanks.
fn tukey(i: usize, n: usize, fraction: f64) -> f64 {
    let flank = fraction * (n - 1) as f64 / 2.0;
    let inward = i.min(n - 1 - i) as f64; // from the nearer end
    if inward < flank {
        0.5 - 0.5 * (PI * inward / flank).cos()
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs().max(1.0)
    }

    #[test]
    fn a_tukey_window_is_symmetric_and_flat_in_the_middle() {
        let window: Vec<f64> = (0..101).map(|i| tukey(i, 101, 0.25)).collect();
        assert_eq!((window[0], window[100]), (0.0, 0.0));
        assert!((0..101).all(|i| close(window[i], window[100 - i])));
        assert!(window[13..=87].iter().all(|&w| w == 1.0) && window[12] < 1.0);
        assert!(
            close(tukey(5, 81, 0.25), 0.5),
            "half way up a flank of 10 samples"
        );
    }

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two_middle_ones() {
        assert_eq!(median(&mut [3.0, 1.0, 9.0]), 3.0);
        assert_eq!(median(&mut [3.0, 1.0, 9.0, 4.0]), 3.5);
        assert_eq!((median_bias(1), median_bias(2)), (1.0, 1.0));
        assert!(close(median_bias(3), 1.0 - 1.0 / 2.0 + 1.0 / 3.0));
        assert!((median_bias(100_001) - 2f64.ln()).abs() < 1e-5);
    }

    #[test]
    fn interpolation_is_linear_between_bins_and_constant_beyond_the_last() {
        let values = [1.0, 3.0, 2.0];
        assert_eq!(
            [0.0, 0.5, 1.0, 1.75, 2.0, 2.5].map(|at| interpolate(&values, at)),
            [1.0, 2.0, 3.0, 2.25, 2.0, 2.0]
        );
    }

    /// A sine of amplitude a has the power a^2/2, which the density holds however the window spreads it.
    #[test]
    fn the_density_integrates_to_the_power_of_a_sine() {
        let (rate, n, amplitude) = (256.0, 32 * 256, 3.0);
        let strain: Vec<f64> = (0..n)
            .map(|i| amplitude * (TAU * 40.0 * i as f64 / rate).sin() + 7.0)
            .collect();
        let segment = 1024;
        let coarse = welch_median(&strain, segment, rate).unwrap();
        assert_eq!(coarse.len(), 513);
        let power = coarse.iter().sum::<f64>() * rate / segment as f64 * median_bias(15);
        assert!((power - amplitude * amplitude / 2.0).abs() < 1e-9, "{power}");
        let loudest = (0..coarse.len()).max_by(|&a, &b| coarse[a].total_cmp(&coarse[b]));
        assert_eq!(loudest, Some(160), "40 Hz in bins of 0.25 Hz");
    }

    #[test]
    fn less_than_one_segment_is_an_error() {
        assert!(density(&[1.0; 100], 4096.0).is_err());
        assert!(density(&[], 4096.0).is_err());
    }

    #[test]
    fn noise_that_no_filter_can_be_weighted_by_is_an_error() {
        let silent = density(&[0.0; 131_072], 4096.0).unwrap_err().to_string();
        assert!(silent.contains("density at 20 Hz is 0"), "{silent}");
        let huge: Vec<f64> = (0..131_072)
            .map(|i| if i % 3 == 0 { 1e300 } else { 0.0 })
            .collect();
        let infinite = density(&huge, 4096.0).unwrap_err().to_string();
        assert!(infinite.contains("cannot be searched"), "{infinite}");
    }
}

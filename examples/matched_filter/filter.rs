//! One template against the strain: its largest signal-to-noise ratio, and when it happens.
//!
//! Everything that does not depend on the template (spectra, powers of the frequency, FFT plans, buffers) is made once, by
//! [`Filter::load`]; [`Filter::peak`] then allocates nothing.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::{Result, psd};

/// Templates are zero below this frequency, in Hz.
pub(crate) const LOWEST: f64 = 20.0;
/// Templates are zero above this frequency, in Hz: just under the Nyquist frequency of 4096 samples a second.
pub(crate) const HIGHEST: f64 = 2047.0;
/// No peak is looked for this close to either end of the strain, in seconds: the window's taper lies there.
pub(crate) const EDGE: f64 = 4.0;
/// G x (one solar mass) / c^3, in seconds.
const SOLAR_MASS: f64 = 4.925491025543576e-6;

/// The loudest moment of one template.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Peak {
    /// Signal-to-noise ratio.
    pub(crate) snr: f64,
    /// GPS time in seconds; NaN, with an SNR of 0, for a template that has no frequency in the band.
    pub(crate) time: f64,
}

/// Phase and end of the signal of two bodies, TaylorF2 to second post-Newtonian order
/// (Buonanno et al., Phys. Rev. D 80, 084043, 2009, eq. 3.18, without spins).
pub(crate) struct Template {
    /// 3 / (128 eta), the factor in front of the phase.
    scale: f64,
    /// (pi M)^(-1/3): 1/v is this times f^(-1/3).
    slowness: f64,
    /// Coefficients of v^2 and v^4.
    second: f64,
    fourth: f64,
    /// The highest frequency, in Hz: that of the innermost stable orbit, or [`HIGHEST`].
    pub(crate) cutoff: f64,
}

impl Template {
    /// The template of two bodies of `m1` and `m2` solar masses, as the detector sees them (redshifted).
    pub(crate) fn new(m1: f64, m2: f64) -> Self {
        let total = (m1 + m2) * SOLAR_MASS;
        let eta = m1 * m2 / (m1 + m2).powi(2);
        Self {
            scale: 3.0 / (128.0 * eta),
            slowness: (std::f64::consts::PI * total).cbrt().recip(),
            second: 3715.0 / 756.0 + 55.0 / 9.0 * eta,
            fourth: 15293365.0 / 508032.0 + 27145.0 / 504.0 * eta + 3085.0 / 72.0 * eta * eta,
            cutoff: (3f64.powf(1.5) * std::f64::consts::PI * total)
                .recip()
                .min(HIGHEST),
        }
    }

    /// The phase in radians where f^(-1/3) is `root`. In 1/v the series is a polynomial, so no power is taken.
    #[inline]
    pub(crate) fn phase(&self, root: f64) -> f64 {
        let x = self.slowness * root; // 1/v
        self.scale * x * (self.fourth + x * (-16.0 * std::f64::consts::PI + x * (self.second + x * x)))
    }
}

/// (m1 m2)^(3/5) / (m1 + m2)^(1/5), in the unit of the masses: what the signal's evolution depends on first.
pub(crate) fn chirp_mass(m1: f64, m2: f64) -> f64 {
    (m1 * m2).powf(0.6) / (m1 + m2).powf(0.2)
}

/// How long the signal of two bodies of `m1` and `m2` solar masses lasts from [`LOWEST`] on, in seconds, to leading order.
pub(crate) fn duration(m1: f64, m2: f64) -> f64 {
    let chirp = chirp_mass(m1, m2) * SOLAR_MASS;
    5.0 / 256.0 * (std::f64::consts::PI * LOWEST).powf(-8.0 / 3.0) * chirp.powf(-5.0 / 3.0)
}

/// What a process keeps from template to template.
///
/// With n samples and a template that covers K bins, the n-point inverse FFT is mostly of zeros. It is taken as p FFTs of
/// n/p >= K points, the r-th of which gives the samples r, r + p, r + 2p, ... after the spectrum has been turned by
/// exp(2 pi i k r / n): the same numbers, but out of the processor's cache. Only |z| is wanted, so the band is moved down
/// to bin 0, which multiplies z by a phase.
pub(crate) struct Filter {
    /// Index of the first bin at or above [`LOWEST`]; the vectors over bins start there.
    first: usize,
    /// Width of a bin, in Hz.
    bin: f64,
    /// f^(-1/3).
    root: Vec<f64>,
    /// X(f) f^(-7/6) / S(f): what remains of X conj(h) / S without the template's phase.
    weighted: Vec<Complex<f64>>,
    /// The sum of f^(-7/3) / S(f) up to and including each bin.
    power: Vec<f64>,
    /// exp(2 pi i k / n), from k = 0.
    turn: Vec<Complex<f64>>,
    /// Inverse FFTs of n, n/2, n/4, ... points.
    inverse: Vec<Arc<dyn Fft<f64>>>,
    product: Vec<Complex<f64>>,
    series: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    sample_rate: f64,
    gps_start: f64,
}

impl Filter {
    /// Prepares `strain` (dimensionless, `sample_rate` samples a second from GPS time `gps_start` on) for filtering against
    /// noise of the one-sided density `psd` (1/Hz) at the strain's own frequencies, k / duration from k = 0 to n/2.
    ///
    /// # Errors
    /// If `psd` has not n/2 + 1 values, if strain is too short to have a sample [`EDGE`] away from both ends, or if a
    /// value in the band makes no finite result (zero noise, infinite strain).
    pub(crate) fn load(strain: &[f64], psd: &[f64], sample_rate: f64, gps_start: f64) -> Result<Self> {
        let n = strain.len();
        if psd.len() != n / 2 + 1 {
            return Err(format!(
                "the noise density has {} values, {n} samples need {}",
                psd.len(),
                n / 2 + 1
            )
            .into());
        }
        if n as f64 <= 2.0 * EDGE * sample_rate {
            return Err(format!("{n} samples of strain leave none that is {EDGE} s from both ends").into());
        }
        let bin = sample_rate / n as f64;
        let first = (LOWEST / bin).ceil() as usize;
        let last = ((HIGHEST / bin).floor() as usize).min(n / 2);
        let spectrum = psd::spectrum(strain, sample_rate)?;

        let frequencies = (first..=last).map(|k| k as f64 * bin);
        let root: Vec<f64> = frequencies.clone().map(|f| f.cbrt().recip()).collect();
        let weighted: Vec<_> = frequencies
            .clone()
            .zip(&spectrum[first..])
            .zip(&psd[first..])
            .map(|((f, x), s)| x * (f.powf(-7.0 / 6.0) / s))
            .collect();
        let power: Vec<f64> = frequencies
            .zip(&psd[first..])
            .scan(0.0, |sum, (f, s)| {
                *sum += f.powf(-7.0 / 3.0) / s;
                Some(*sum)
            })
            .collect();
        if !weighted.iter().all(|w| w.is_finite()) || !power.iter().all(|p| p.is_finite()) {
            return Err(format!(
                "the noise of the strain is zero or not finite somewhere from {LOWEST} to {HIGHEST} Hz"
            )
            .into());
        }

        let mut planner = FftPlanner::new();
        let halvings = n.trailing_zeros().min(6);
        let inverse: Vec<_> = (0..=halvings).map(|h| planner.plan_fft_inverse(n >> h)).collect();
        let longest_scratch = inverse
            .iter()
            .map(|fft| fft.get_inplace_scratch_len())
            .max()
            .unwrap_or(0);
        let step = std::f64::consts::TAU / n as f64;
        let zero = Complex::new(0.0, 0.0);
        Ok(Self {
            first,
            bin,
            turn: (0..root.len()).map(|k| Complex::cis(step * k as f64)).collect(),
            product: vec![zero; root.len()],
            series: vec![zero; n],
            scratch: vec![zero; longest_scratch],
            root,
            weighted,
            power,
            inverse,
            sample_rate,
            gps_start,
        })
    }

    /// The largest SNR of the template of `m1` and `m2` solar masses over the samples at least [`EDGE`] from both ends.
    pub(crate) fn peak(&mut self, m1: f64, m2: f64) -> Peak {
        let template = Template::new(m1, m2);
        let bins = ((template.cutoff / self.bin) as usize + 1)
            .saturating_sub(self.first)
            .min(self.root.len());
        if bins == 0 || !(m1 > 0.0 && m2 > 0.0) {
            return Peak {
                snr: 0.0,
                time: f64::NAN,
            };
        }
        self.correlate(&template, bins);
        let (sample, loudest) = self.loudest(bins);
        // z = 4 df sum(..), sigma^2 = 4 df sum(..), with the same df.
        let snr = loudest.sqrt() * (4.0 * self.bin / self.power[bins - 1]).sqrt();
        Peak {
            snr,
            time: self.gps_start + sample as f64 / self.sample_rate,
        }
    }

    /// Fills the first `bins` of `product` with X conj(h) / S, but for a constant phase.
    fn correlate(&mut self, template: &Template, bins: usize) {
        for ((product, &root), weighted) in self.product[..bins]
            .iter_mut()
            .zip(&self.root)
            .zip(&self.weighted)
        {
            *product = weighted * Complex::cis(template.phase(root));
        }
    }

    /// Transforms `product` back to time; the sample where its square is largest, and that square.
    fn loudest(&mut self, bins: usize) -> (usize, f64) {
        let n = self.series.len();
        let edge = (EDGE * self.sample_rate).ceil() as usize;
        let halvings = self
            .inverse
            .iter()
            .rposition(|fft| fft.len() >= bins)
            .unwrap_or(0);
        let (inverse, phases) = (&self.inverse[halvings], 1 << halvings);
        let series = &mut self.series[..n / phases];
        let mut best = (edge, 0.0);
        for phase in 0..phases {
            // Also turns the spectrum for the next phase, while it is at hand.
            for ((z, product), turn) in series.iter_mut().zip(&mut self.product[..bins]).zip(&self.turn) {
                *z = *product;
                *product *= turn;
            }
            series[bins..].fill(Complex::new(0.0, 0.0));
            inverse.process_with_scratch(series, &mut self.scratch);
            let inner = edge.saturating_sub(phase).div_ceil(phases)..(n - edge - phase).div_ceil(phases);
            if let Some((at, square)) = louder(&series[inner.clone()], best.1) {
                best = ((inner.start + at) * phases + phase, square);
            }
        }
        best
    }
}

/// The first largest square in `series`, and where it is, if it is above `threshold`.
///
/// Blocks are compared by their maxima, which the compiler keeps in vector registers: almost every block ends there.
fn louder(series: &[Complex<f64>], threshold: f64) -> Option<(usize, f64)> {
    const BLOCK: usize = 64;
    const LANES: usize = 8;
    let mut best = (None, threshold);
    for (number, block) in series.chunks(BLOCK).enumerate() {
        let mut lanes = [0.0f64; LANES];
        for group in block.chunks(LANES) {
            for (lane, z) in lanes.iter_mut().zip(group) {
                let square = z.norm_sqr();
                *lane = if square > *lane { square } else { *lane };
            }
        }
        if lanes.iter().any(|&square| square > best.1) {
            for (at, z) in block.iter().enumerate() {
                if z.norm_sqr() > best.1 {
                    best = (Some(number * BLOCK + at), z.norm_sqr());
                }
            }
        }
    }
    best.0.map(|at| (at, best.1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bank::Grid;
    use crate::strain::{self, INJECTED, MERGER, SAMPLE_RATE};

    const GPS_START: f64 = 1126259446.0;

    fn loaded(strain: &[f64]) -> Filter {
        Filter::load(
            strain,
            &psd::density(strain, SAMPLE_RATE).unwrap(),
            SAMPLE_RATE,
            GPS_START,
        )
        .unwrap()
    }

    /// The definition, step by step: every power of v taken, one FFT of n points, nothing left out.
    fn by_definition(strain: &[f64], m1: f64, m2: f64) -> Peak {
        use std::f64::consts::PI;
        let n = strain.len();
        let bin = SAMPLE_RATE / n as f64;
        let (spectrum, noise) = (
            psd::spectrum(strain, SAMPLE_RATE).unwrap(),
            psd::density(strain, SAMPLE_RATE).unwrap(),
        );
        let total = (m1 + m2) * SOLAR_MASS;
        let eta = m1 * m2 / ((m1 + m2) * (m1 + m2));
        let end = (1.0 / (3f64.powf(1.5) * PI * total)).min(HIGHEST);
        let (mut z, mut sum) = (vec![Complex::new(0.0, 0.0); n], 0.0);
        for k in 0..=n / 2 {
            let f = k as f64 * bin;
            if f < LOWEST || f > end {
                continue;
            }
            let v = (PI * total * f).cbrt();
            let series = 1.0 + (3715.0 / 756.0 + 55.0 / 9.0 * eta) * v.powi(2) - 16.0 * PI * v.powi(3)
                + (15293365.0 / 508032.0 + 27145.0 / 504.0 * eta + 3085.0 / 72.0 * eta * eta) * v.powi(4);
            let psi = 3.0 / (128.0 * eta) * v.powi(-5) * series;
            let h = Complex::from_polar(f.powf(-7.0 / 6.0), -(psi - PI / 4.0));
            z[k] = spectrum[k] * h.conj() / noise[k] * (4.0 * bin);
            sum += 4.0 * bin * h.norm_sqr() / noise[k];
        }
        FftPlanner::new().plan_fft_inverse(n).process(&mut z);
        let edge = (EDGE * SAMPLE_RATE) as usize;
        let at = (edge..n - edge)
            .max_by(|&a, &b| z[a].norm_sqr().total_cmp(&z[b].norm_sqr()))
            .unwrap();
        Peak {
            snr: z[at].norm() / f64::sqrt(sum),
            time: GPS_START + at as f64 / SAMPLE_RATE,
        }
    }

    #[test]
    fn the_short_ffts_give_the_peak_of_the_definition() {
        let strain = strain::synthetic().unwrap();
        // Lengths that halve 17 times, 3 times, and not at all.
        for n in [131_072, 120_008, 81_921] {
            let mut filter = loaded(&strain[..n]);
            for (m1, m2) in [(38.0, 36.0), (60.0, 60.0), (16.0, 8.0), (1.4, 1.4), (150.0, 10.0)] {
                let (found, expected) = (filter.peak(m1, m2), by_definition(&strain[..n], m1, m2));
                assert!(
                    (found.snr / expected.snr - 1.0).abs() < 1e-9,
                    "{n} {m1} {m2}: {found:?} {expected:?}"
                );
                assert_eq!(found.time, expected.time, "{n} {m1} {m2}");
            }
        }
    }

    #[test]
    fn the_injected_signal_is_the_loudest_of_its_bank() {
        let mut filter = loaded(&strain::synthetic().unwrap());
        let (m1s, m2s) = "30:44:2".parse::<Grid>().unwrap().pairs();
        let peaks: Vec<_> = m1s
            .iter()
            .zip(&m2s)
            .map(|(&m1, &m2)| (filter.peak(m1, m2), (m1, m2)))
            .collect();
        let (peak, masses) = peaks.iter().max_by(|a, b| a.0.snr.total_cmp(&b.0.snr)).unwrap();
        assert_eq!(*masses, INJECTED);
        assert!(
            (peak.time - GPS_START - MERGER).abs() < 2.0 / SAMPLE_RATE,
            "{peak:?}"
        );
        assert!((peak.snr - 17.0).abs() < 2.0, "{peak:?}");
    }

    #[test]
    fn a_template_that_is_nowhere_in_the_band_is_silent() {
        let mut filter = loaded(&strain::synthetic().unwrap());
        let masses = [f64::NAN, 0.0, -1.0, -30.0, 1e9, f64::INFINITY];
        for (m1, m2) in masses.iter().flat_map(|&m| [(m, 20.0), (20.0, m), (m, m)]) {
            let peak = filter.peak(m1, m2);
            assert!(peak.snr == 0.0 && peak.time.is_nan(), "{m1} {m2}: {peak:?}");
        }
    }

    #[test]
    fn what_cannot_be_filtered_is_refused() {
        let strain = strain::synthetic().unwrap();
        let noise = psd::density(&strain, SAMPLE_RATE).unwrap();
        let refused = |strain: &[f64], noise: &[f64]| {
            Filter::load(strain, noise, SAMPLE_RATE, GPS_START)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(refused(&strain, &noise[1..]).contains("need 65537"));
        assert!(refused(&strain[..32_768], &noise[..16_385]).contains("leave none"));
        assert!(refused(&[], &[1.0]).contains("leave none"));
        assert!(refused(&vec![0.0; 131_072], &vec![0.0; 65_537]).contains("zero or not finite"));
    }

    /// Needs the strain of GW150914; `shared/data` is not part of the repository, and nothing is tested where it is not.
    #[test]
    fn gw150914_is_found_as_published() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/gw150914");
        if !folder.is_dir() {
            eprintln!("skipped: {} is not there", folder.display());
            return;
        }
        let tables = [
            (
                "H1.npy",
                [16.7441, 15.5387, 15.1580, 6.6813, 10.0175],
                [418213, 420898, 423096, 430420, 403076],
            ),
            (
                "L1.npy",
                [10.6041, 10.9922, 9.9946, 4.9956, 5.5508],
                [410889, 413574, 416504, 427246, 393799],
            ),
        ];
        let masses = [
            (38.0, 36.0),
            (36.0, 30.0),
            (30.0, 30.0),
            (16.0, 8.0),
            (60.0, 60.0),
        ];
        for (name, snrs, microseconds) in tables {
            let mut filter = loaded(&strain::read(&folder.join(name)).unwrap());
            for (((m1, m2), snr), micro) in masses.into_iter().zip(snrs).zip(microseconds) {
                let peak = filter.peak(m1, m2);
                assert!((peak.snr - snr).abs() < 1e-3, "{name} {m1} {m2}: {peak:?}");
                assert_eq!(
                    format!("{:.6}", peak.time),
                    format!("1126259462.{micro}"),
                    "{name} {m1} {m2}"
                );
            }
        }
        let mut filter = loaded(&strain::read(&folder.join("H1.npy")).unwrap());
        let (m1s, m2s) = "4:60:2".parse::<Grid>().unwrap().pairs();
        let snrs = m1s.iter().zip(&m2s).map(|(&m1, &m2)| filter.peak(m1, m2).snr);
        let loudest = snrs.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
        assert_eq!((m1s[loudest], m2s[loudest]), (38.0, 36.0));
    }
}

//! The strain: read from a file, or made up with a signal in it.

use std::f64::consts::TAU;
use std::path::Path;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{RngCore, SeedableRng};
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use swathe::Array;

use crate::Result;
use crate::filter::{EDGE, LOWEST, Template};

/// Samples a second: the rate at which the observatories publish short stretches of strain.
pub(crate) const SAMPLE_RATE: f64 = 4096.0;
/// The shortest strain that is searched, in seconds: both edges and as much again for the noise.
const SHORTEST: f64 = 4.0 * EDGE;

/// Length of the synthetic strain, in seconds.
const DURATION: f64 = 32.0;
/// The synthetic signal: its masses (solar masses), when it merges (seconds after the start), and its SNR.
pub(crate) const INJECTED: (f64, f64) = (38.0, 36.0);
pub(crate) const MERGER: f64 = 16.418213;
const LOUDNESS: f64 = 17.0;
const SEED: u64 = 20150914;

/// Reads strain at [`SAMPLE_RATE`] from a `.npy` file, into memory that the workers map.
///
/// # Errors
/// If the file is not a one-dimensional float64 array of finite numbers, of at least 16 s.
pub(crate) fn read(path: &Path) -> Result<Array<f64>> {
    let fail = |what: String| format!("cannot use {} as strain: {what}", path.display());
    let strain = Array::<f64>::from_npy_path(path).map_err(|error| fail(error.to_string()))?;
    match strain.shape() {
        [_] => check(&strain).map_err(fail)?,
        shape => return Err(fail(format!("it has {} dimensions, not one", shape.len())).into()),
    }
    Ok(strain)
}

/// Says why `strain` cannot be searched, if so.
fn check(strain: &[f64]) -> std::result::Result<(), String> {
    if let Some(at) = strain.iter().position(|x| !x.is_finite()) {
        return Err(format!(
            "sample {at} is {}; only finite numbers can be filtered",
            strain[at]
        ));
    }
    let seconds = strain.len() as f64 / SAMPLE_RATE;
    if seconds < SHORTEST {
        return Err(format!(
            "it lasts {seconds:.3} s at {SAMPLE_RATE} samples a second; {SHORTEST} s are needed"
        ));
    }
    Ok(())
}

/// Gaussian noise of the colour of an advanced LIGO detector, the same at every call, and one merger in it.
///
/// # Errors
/// If the FFT refuses its buffers.
pub(crate) fn synthetic() -> Result<Vec<f64>> {
    let n = (DURATION * SAMPLE_RATE) as usize;
    let bin = 1.0 / DURATION;
    let template = Template::new(INJECTED.0, INJECTED.1);
    let heard = |f: f64| f >= LOWEST && f <= template.cutoff;
    // The template's own SNR, for an amplitude of 1: the square root of 4 df sum(|h|^2 / S).
    let squares = (1..n / 2).map(|k| k as f64 * bin).filter(|&f| heard(f));
    let unit = (4.0
        * bin
        * squares
            .map(|f| f.powf(-7.0 / 3.0) / design_density(f))
            .sum::<f64>())
    .sqrt();

    let mut random = Pcg64::seed_from_u64(SEED);
    let inverse = RealFftPlanner::<f64>::new().plan_fft_inverse(n);
    let (mut spectrum, mut strain) = (inverse.make_input_vec(), inverse.make_output_vec());
    for (k, x) in spectrum.iter_mut().enumerate().take(n / 2).skip(1) {
        let f = k as f64 * bin;
        // E |X|^2 = S T / 2, half of it in either part.
        *x = normal_pair(&mut random) * (design_density(f) * DURATION / 4.0).sqrt();
        if heard(f) {
            let phase = template.phase(f.cbrt().recip()) + TAU * f * MERGER;
            *x += Complex::from_polar(f.powf(-7.0 / 6.0) * LOUDNESS / unit, -phase);
        }
    }
    inverse.process(&mut spectrum, &mut strain)?;
    strain.iter_mut().for_each(|x| *x *= bin);
    Ok(strain)
}

/// One-sided noise density of advanced LIGO at its design sensitivity, in 1/Hz (Sathyaprakash and Schutz, Living Rev.
/// Relativity 12, 2, 2009, table 1), held constant below 10 Hz, where the fit ends and the real noise has a wall.
fn design_density(f: f64) -> f64 {
    let x = f.max(10.0) / 215.0;
    let x2 = x * x;
    1e-49 * (x.powf(-4.14) - 5.0 / x2 + 111.0 * (1.0 - x2 + 0.5 * x2 * x2) / (1.0 + 0.5 * x2))
}

/// Two independent normal numbers of mean 0 and variance 1 (Box and Muller).
fn normal_pair(random: &mut impl RngCore) -> Complex<f64> {
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64; // never 0, never 1
    Complex::from_polar((-2.0 * uniform().ln()).sqrt(), TAU * uniform())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::psd;

    #[test]
    fn the_synthetic_noise_has_the_density_it_was_made_with() {
        let density = psd::density(&synthetic().unwrap(), SAMPLE_RATE).unwrap();
        let band = 32 * 200..32 * 2000; // above the signal
        let ratios = band
            .clone()
            .map(|k| density[k] / design_density(k as f64 / DURATION));
        let mean = ratios.sum::<f64>() / band.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn the_synthetic_strain_is_reproducible_and_passes_its_own_check() {
        let strain = synthetic().unwrap();
        assert_eq!(strain.len(), 131_072);
        assert_eq!(strain, synthetic().unwrap());
        check(&strain).unwrap();
    }

    #[test]
    fn strain_that_cannot_be_searched_is_refused_in_words() {
        let mut strain = vec![1e-21; 131_072];
        strain[77] = f64::NAN;
        assert!(check(&strain).unwrap_err().contains("sample 77 is NaN"));
        assert!(check(&strain[..77]).unwrap_err().contains("16 s are needed"));
        assert!(check(&[]).unwrap_err().contains("16 s are needed"));
    }

    #[test]
    fn a_file_that_is_not_strain_is_refused_in_words() {
        let refused = |name: &str, header: &str, data: &[u8]| {
            let path = std::env::temp_dir().join(format!("swathe-strain-{}-{name}.npy", std::process::id()));
            let header = format!("{header:<117}\n"); // the data then starts at byte 128
            let length = (header.len() as u16).to_le_bytes();
            std::fs::write(
                &path,
                [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat(),
            )
            .unwrap();
            let error = read(&path).unwrap_err().to_string();
            std::fs::remove_file(&path).unwrap();
            error
        };
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
        };
        assert!(refused("f4", &header("<f4", "(2,)"), &[0; 8]).contains("its elements are f32"));
        assert!(refused("2d", &header("<f8", "(1, 1)"), &[0; 8]).contains("it has 2 dimensions"));
        // 2^50 elements in 8 bytes: an error, not an allocation.
        assert!(refused("huge", &header("<f8", "(1125899906842624,)"), &[0; 8]).contains("has only 8 bytes"));
        assert!(refused("garbage", "not a header", &[]).contains("cannot use"));
        assert!(
            read(Path::new("no such file.npy"))
                .unwrap_err()
                .to_string()
                .contains("no such file.npy")
        );
        assert!(
            read(&std::env::temp_dir())
                .unwrap_err()
                .to_string()
                .contains("not a regular file")
        );
    }
}

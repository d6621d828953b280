//! The search for merging black holes: in made-up noise, and in the real strain where it is at hand.

use std::path::{Path, PathBuf};

use crate::run::example;

/// What the closing line of a search says.
#[derive(Debug)]
struct Loudest {
    templates: u32,
    masses: (f64, f64),
    snr: f64,
    time: f64,
    chirp_mass: f64,
}

impl Loudest {
    /// Reads `loudest of 10 templates: 38 + 36 solar masses, SNR 16.7 at GPS 1126259462.4, chirp mass 32.2 solar masses`.
    fn of(stdout: &str) -> Self {
        let line = stdout.lines().next_back().unwrap_or_default();
        let between = |before: &str, after: &str| {
            let (_, rest) = line
                .split_once(before)
                .unwrap_or_else(|| panic!("no '{before}' in: {line}"));
            rest.split(after).next().unwrap_or_default()
        };
        let number = |text: &str| {
            text.parse::<f64>()
                .unwrap_or_else(|_| panic!("'{text}' is no number in: {line}"))
        };
        Self {
            templates: number(between("loudest of ", " templates")) as u32,
            masses: (
                number(between("templates: ", " + ")),
                number(between(" + ", " solar masses")),
            ),
            snr: number(between("SNR ", " at GPS")),
            time: number(between("at GPS ", ",")),
            chirp_mass: number(between("chirp mass ", " ")),
        }
    }
}

#[test]
fn the_merger_that_was_put_into_noise_is_found() {
    let output = example("matched_filter", &["--bank", "34:40:2", "--processes", "2"]);
    let loudest = Loudest::of(&output.stdout);
    assert_eq!(loudest.templates, 10);
    assert_eq!(loudest.masses, (38.0, 36.0), "{loudest:?}");
    // The merger is put there at this time with an SNR of 17, which the noise changes by about 1.
    assert!((loudest.time - 1126259462.418213).abs() < 0.01, "{loudest:?}");
    assert!((loudest.snr - 17.0).abs() < 4.0, "{loudest:?}");
    assert!((loudest.chirp_mass - 32.20).abs() < 0.02, "{loudest:?}");
}

/// The strain of GW150914 is not part of the repository.
fn real_data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/gw150914");
    folder.join("H1.npy").exists().then_some(folder)
}

/// Rows of the table of published peaks: m1, m2, then SNR and GPS time in H1.
fn published(readme: &str) -> Vec<[f64; 4]> {
    let row = |line: &str| {
        let cells: Vec<f64> = line
            .split(['|', ','])
            .filter_map(|cell| cell.trim().parse().ok())
            .collect();
        cells.first_chunk::<4>().copied()
    };
    readme
        .lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(row)
        .collect()
}

/// The rows (m1, m2, SNR, GPS time) of a two-dimensional `.npy` file of float64.
fn rows(path: &Path) -> Vec<[f64; 4]> {
    let bytes = std::fs::read(path).expect("the search wrote its peaks");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]])); // version 1 of the format
    let (values, _) = bytes[10 + header..].as_chunks::<8>();
    let values: Vec<f64> = values.iter().map(|value| f64::from_le_bytes(*value)).collect();
    values.as_chunks::<4>().0.to_vec()
}

#[test]
fn peaks_in_real_strain_are_those_published() {
    let Some(folder) = real_data() else {
        eprintln!("skipped: the strain of GW150914 is not here");
        return;
    };
    let readme =
        std::fs::read_to_string(folder.join("README.md")).expect("the data come with their description");
    let published = published(&readme);
    assert_eq!(published.len(), 5, "the table has five rows");
    let place = tempfile::tempdir().expect("there is room for temporary files");
    let (strain, peaks) = (folder.join("H1.npy"), place.path().join("peaks.npy"));
    for [m1, m2, snr, time] in published {
        // The smallest bank that holds the pair.
        let bank = format!("{m2}:{m1}:{}", (m1 - m2).max(1.0));
        let paths = [&strain, &peaks].map(|path| path.to_str().expect("a path that is text"));
        example(
            "matched_filter",
            &["--strain", paths[0], "--out", paths[1], "--bank", &bank],
        );
        let rows = rows(&peaks);
        let found = rows
            .iter()
            .find(|row| row[..2] == [m1, m2])
            .unwrap_or_else(|| panic!("{m1} + {m2} in {rows:?}"));
        assert!(
            (found[2] - snr).abs() < 1e-3,
            "{m1} + {m2}: SNR {} for {snr}",
            found[2]
        );
        // Times are published to the microsecond; a sample is 244 of them.
        assert!(
            (found[3] - time).abs() < 1e-4,
            "{m1} + {m2}: GPS time {} for {time}",
            found[3]
        );
    }
}

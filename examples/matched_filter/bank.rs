//! The bank: which pairs of masses are tried.

use std::str::FromStr;

use crate::filter;

/// More pairs than this are taken for a slip of the keyboard: at a millisecond each they take most of a day.
const MOST_TEMPLATES: f64 = 5e7;
/// In solar masses; no detector tells masses apart that finely.
const FINEST_STEP: f64 = 1e-6;

/// A grid of masses, in solar masses, as written on the command line: `LO:HI:STEP`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) low: f64,
    pub(crate) step: f64,
    /// How many masses: `low`, `low + step`, ... up to the `HI` of the command line, included where a step falls on it.
    pub(crate) count: usize,
}

impl Grid {
    /// The masses, in increasing order, to nine decimals: 1.3 is then the number that people write so, not 1 + 3 x 0.1.
    pub(crate) fn masses(&self) -> impl Iterator<Item = f64> + Clone {
        let Self { low, step, count } = *self;
        (0..count).map(move |i| ((low + i as f64 * step) * 1e9).round() / 1e9)
    }

    /// Every pair with m1 >= m2, as two columns: the pool takes one array an argument, and copies nothing then.
    pub(crate) fn pairs(&self) -> (Vec<f64>, Vec<f64>) {
        self.masses()
            .enumerate()
            .flat_map(|(i, m1)| self.masses().take(i + 1).map(move |m2| (m1, m2)))
            .unzip()
    }
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f64>, _> = text.split(':').map(|number| number.trim().parse()).collect();
        let [low, high, step] = numbers.unwrap_or_default()[..] else {
            return Err("a bank is three numbers, LO:HI:STEP, such as 4:60:2".into());
        };
        if ![low, high, step].iter().all(|number| number.is_finite()) {
            return Err("a bank is three finite numbers, LO:HI:STEP, such as 4:60:2".into());
        }
        if low <= 0.0 || high < low || step < FINEST_STEP {
            return Err(format!(
                "a bank LO:HI:STEP needs 0 < LO <= HI and a STEP of at least {FINEST_STEP}"
            ));
        }
        if filter::Template::new(high, high).cutoff < filter::LOWEST {
            return Err(format!(
                "two bodies of {high} solar masses merge below {} Hz, where nothing is searched: lower HI",
                filter::LOWEST
            ));
        }
        // A step that falls on HI but for rounding, as in 1:2:0.1, counts.
        let count = ((high - low) / step + 1e-9).floor() + 1.0;
        if count * (count + 1.0) / 2.0 > MOST_TEMPLATES {
            return Err(format!(
                "a bank of {count:.0} masses has more than {MOST_TEMPLATES:.0} pairs: raise STEP"
            ));
        }
        Ok(Self {
            low,
            step,
            count: count as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_bank_has_435_pairs_with_the_heavier_body_first() {
        let (m1, m2) = "4:60:2".parse::<Grid>().unwrap().pairs();
        assert_eq!((m1.len(), m2.len()), (435, 435));
        assert!(m1.iter().zip(&m2).all(|(m1, m2)| m1 >= m2));
        assert_eq!((m1[0], m2[0], m1[434], m2[434]), (4.0, 4.0, 60.0, 60.0));
    }

    #[test]
    fn the_upper_end_counts_when_a_step_falls_on_it() {
        let masses = |text: &str| text.parse::<Grid>().unwrap().masses().collect::<Vec<_>>();
        assert_eq!(masses("5:5:1"), [5.0]);
        assert_eq!(masses("5:10:2"), [5.0, 7.0, 9.0]);
        assert_eq!(masses("1:1.3:0.1"), [1.0, 1.1, 1.2, 1.3]);
        assert_eq!(masses(" 5 : 6 : 1 "), [5.0, 6.0]);
    }

    #[test]
    fn a_bad_bank_says_what_is_wrong() {
        for text in [
            "", "4", "4:60", "4:60:2:1", "4:60:2:x", "a:60:2", "4:60:", "nan:60:2", "4:inf:2",
        ] {
            let error = text.parse::<Grid>().unwrap_err();
            assert!(error.contains("LO:HI:STEP, such as 4:60:2"), "{text}: {error}");
        }
        for text in ["0:60:2", "-4:60:2", "60:4:2", "4:60:0", "4:60:-2", "4:60:1e-320"] {
            assert!(
                text.parse::<Grid>().unwrap_err().contains("0 < LO <= HI"),
                "{text}"
            );
        }
        assert!("4:400:2".parse::<Grid>().unwrap_err().contains("lower HI"));
        assert!("4:60:1e-6".parse::<Grid>().unwrap_err().contains("raise STEP"));
    }
}

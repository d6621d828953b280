//! The figures for other programs: a list of {case, contender, median, min, max, unit, better, workers, rounds, machine,
//! date}. Each figure says where it comes from, so that lists can be put together.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    Result,
    harness::{Bound, Measured, Spread},
    machine,
};

/// Writes all figures; ratios are contenders of the unit "ratio", whose median, min and max are over the rounds.
pub(crate) fn write(path: &Path, all: &[(&str, usize, Measured)]) -> Result<()> {
    let mut list = Vec::new();
    let (machine, date) = (machine::sentence(), machine::today());
    for (case, workers, measured) in all {
        let mut put = |contender: &str, spread: &Spread, unit: &str, better: &str| {
            let Spread { median, min, max } = spread;
            list.push(json!({
                "case": case, "contender": contender, "median": median, "min": min, "max": max,
                "unit": unit, "better": better, "workers": workers,
                "rounds": measured.rounds, "machine": machine, "date": date,
            }));
        };
        for row in &measured.rows {
            put(row.contender, &row.spread, measured.unit, "lower");
            if let Some((unit, amount)) = measured.rate {
                let Spread { median, min, max } = row.spread;
                let rate = Spread {
                    median: amount / median,
                    min: amount / max,
                    max: amount / min,
                };
                put(row.contender, &rate, unit, "higher");
            }
        }
        for verdict in &measured.verdicts {
            let better = match verdict.bound {
                Bound::AtLeast(_) => "higher",
                Bound::AtMost(_) | Bound::Shown => "lower",
            };
            put(&verdict.what, &verdict.by_round, "ratio", better);
        }
    }
    fs::write(path, serde_json::to_string_pretty(&list)? + "\n")
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

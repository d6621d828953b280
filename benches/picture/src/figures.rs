//! The figures that `benches/compare` has written.

use std::{fs, path::Path};

use serde_json::Value;

use crate::Result;

/// A contender's times in a case, in `unit`.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The case.
    pub case: String,
    /// Who was measured.
    pub contender: String,
    /// Of all turns.
    pub median: f64,
    /// The quickest turn.
    pub min: f64,
    /// The slowest turn.
    pub max: f64,
    /// What the times are in.
    pub unit: String,
    /// Processes or threads; `None`: it does not depend on it.
    pub workers: Option<usize>,
    /// How many turns.
    pub rounds: Option<usize>,
    /// Where it was measured.
    pub machine: Option<String>,
    /// When.
    pub date: Option<String>,
}

/// Reads the figures of a file.
///
/// # Errors
/// If it cannot be read, or is no list of figures.
pub fn read(path: &Path) -> Result<Vec<Figure>> {
    let refused = |what: &str| format!("cannot use {} as figures: {what}", path.display());
    let text = fs::read_to_string(path).map_err(|error| refused(&error.to_string()))?;
    let list: Value = serde_json::from_str(&text).map_err(|error| refused(&error.to_string()))?;
    let list = list.as_array().ok_or_else(|| refused("it is no list"))?;
    let figure = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        Some(Figure {
            case: text("case")?,
            contender: text("contender")?,
            median: entry["median"].as_f64()?,
            min: entry["min"].as_f64()?,
            max: entry["max"].as_f64()?,
            unit: text("unit")?,
            workers: entry["workers"].as_u64().map(|workers| workers as usize),
            rounds: entry["rounds"].as_u64().map(|rounds| rounds as usize),
            machine: text("machine"),
            date: text("date"),
        })
    };
    list.iter()
        .map(|entry| figure(entry).ok_or_else(|| refused(&format!("{entry} is no figure")).into()))
        .collect()
}

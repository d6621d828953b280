//! The figures that `benches/compare` has written.

use std::{fs, path::Path};

use serde_json::Value;

use crate::Result;

/// One of them: a contender's times in a case.
pub(crate) struct Figure {
    pub(crate) case: String,
    pub(crate) contender: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) unit: String,
    /// `None`: it does not depend on it.
    pub(crate) workers: Option<usize>,
    pub(crate) rounds: Option<usize>,
    pub(crate) machine: Option<String>,
    pub(crate) date: Option<String>,
}

/// Reads them.
pub(crate) fn read(path: &Path) -> Result<Vec<Figure>> {
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

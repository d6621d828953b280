//! The machine, as figures from it need it said.

use std::fs;

/// CPU, cores and kernel, in a line.
pub(crate) fn description() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("a CPU that does not say its name", |(_, model)| model);
    let kernel = rustix::system::uname();
    format!(
        "{model}; {}; Linux {}",
        swathe::cores(),
        kernel.release().to_string_lossy()
    )
}

/// How many threads were runnable on average over the last minute, and whether that is so many that they were in the
/// way of what is measured now. `None`: it cannot be read.
pub(crate) fn load() -> Option<(f64, bool)> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((load, load > swathe::cores().count as f64 / 2.0))
}

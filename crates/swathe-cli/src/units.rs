//! Numbers with units, three digits or so, for people.

/// A time in seconds: `1.23 ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    let (factor, unit) = match seconds {
        s if s < 1e-6 => (1e9, "ns"),
        s if s < 1e-3 => (1e6, "µs"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", digits(seconds * factor))
}

/// A number with a decimal prefix: `1.23 M`.
pub(crate) fn decimal(number: f64) -> String {
    let (factor, prefix) = match number {
        n if n >= 1e9 => (1e-9, " G"),
        n if n >= 1e6 => (1e-6, " M"),
        n if n >= 1e4 => (1e-3, " k"),
        _ => (1.0, ""),
    };
    format!("{}{prefix}", digits(number * factor))
}

/// Without the zeros at the end of a fraction: `10 ms` for `10.0 ms`.
pub(crate) fn plain(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number} {unit}").trim_end().to_owned()
}

/// A size in bytes, with binary prefixes: `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const PREFIXES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut step = 0;
    while size >= 1024.0 && step + 1 < PREFIXES.len() {
        size /= 1024.0;
        step += 1;
    }
    if step == 0 {
        return format!("{bytes} B");
    }
    format!("{} {}", digits(size), PREFIXES[step])
}

/// Three significant digits; large numbers have all of theirs before the point.
pub(crate) fn digits(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 || n == 0.0 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        n if n >= 0.0995 => format!("{number:.2}"),
        _ => format!("{number:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(seconds(0.000_012_34), "12.3 µs");
        assert_eq!(seconds(2.5), "2.50 s");
        assert_eq!(digits(0.004_56), "4.56e-3");
        assert_eq!(seconds(3e-9), "3.00 ns");
        assert_eq!(decimal(16_777_216.0), "16.8 M");
        assert_eq!(decimal(512.0), "512");
        assert_eq!(plain("10.0 ms"), "10 ms");
        assert_eq!(plain("1.50"), "1.5");
        assert_eq!(plain("100"), "100");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(3 << 40), "3.00 TiB");
    }
}

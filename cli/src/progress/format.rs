//! How times and sizes look.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Seconds with one digit: `3.2s`.
pub fn seconds(ms: u64) -> String {
    let tenths = ms.saturating_add(50) / 100;
    format!("{}.{}s", tenths / 10, tenths % 10)
}

/// A time that may be long, with two units: `48.3s`, `2m 3s`, `1h 5m`.
pub fn long(ms: u64) -> String {
    let s = ms.saturating_add(500) / 1000;
    match s {
        _ if ms < 59_950 => seconds(ms),
        0..3600 => format!("{}m {}s", s / 60, s % 60),
        _ => format!("{}h {}m", s / 3600, s / 60 % 60),
    }
}

/// The time before a line of a log, in seconds: four digits, as BuildKit writes it (`0.123`,
/// `12.34`, `123.4`).
pub fn log_time(ms: u64) -> String {
    let (whole, rest) = (ms / 1000, ms % 1000);
    match whole {
        0..10 => format!("{whole}.{rest:03}"),
        10..100 => format!("{whole}.{:02}", rest / 10),
        _ => format!("{whole}.{}", rest / 100),
    }
}

/// A size in decimal units: `512B`, `1.50kB`, `40.00MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n}B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// What a transfer has moved: `12.30MB / 40.00MB`, `12.30MB`, or nothing.
pub fn moved(current: u64, total: u64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (_, 0) => bytes(current),
        _ => format!("{} / {}", bytes(current), bytes(total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(
            [0, 49, 50, 3249, 123_456].map(seconds),
            ["0.0s", "0.0s", "0.1s", "3.2s", "123.5s"]
        );
        assert_eq!(
            [48_300, 59_949, 59_950, 123_000, 3_599_499, 3_599_500, 3_900_000].map(long),
            ["48.3s", "59.9s", "1m 0s", "2m 3s", "59m 59s", "1h 0m", "1h 5m"]
        );
        assert_eq!([123, 12_345, 123_456].map(log_time), ["0.123", "12.34", "123.4"]);
        assert_eq!(long(u64::MAX), "5124095576030h 25m");
        assert_eq!(seconds(u64::MAX), "18446744073709551.6s");
    }

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 999, 1000, 1500, 40_000_000, 12_345_678_901].map(bytes),
            ["0B", "999B", "1.00kB", "1.50kB", "40.00MB", "12.35GB"]
        );
        assert_eq!(bytes(u64::MAX), "18.45EB");
        assert_eq!(moved(0, 0), "");
        assert_eq!(moved(12_300_000, 0), "12.30MB");
        assert_eq!(moved(0, 40_000_000), "0B / 40.00MB");
    }
}

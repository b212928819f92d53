//! The time, for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// How long ago, in words: `3 minutes ago`.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    match about(now_ms.saturating_sub(then_ms)) {
        Some(time) => format!("{time} ago"),
        None => "just now".to_owned(),
    }
}

/// How far ahead, in words: `in 3 minutes`.
pub fn ahead(then_ms: u64, now_ms: u64) -> String {
    match about(then_ms.saturating_sub(now_ms)) {
        Some(time) => format!("in {time}"),
        None => "now".to_owned(),
    }
}

/// A time in the unit that fits; none for less than a second.
fn about(ms: u64) -> Option<String> {
    let seconds = ms / 1000;
    let (count, unit) = match seconds {
        0 => return None,
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        172_800..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    Some(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
}

/// A time span: `850ms`, `3.2s`, `1m4s`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A size: `12.3MB`, in powers of 1000, as Docker shows it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    match value {
        _ if unit == 0 => format!("{bytes}B"),
        v if v < 9.995 => format!("{v:.2}{}", UNITS[unit]),
        v if v < 99.95 => format!("{v:.1}{}", UNITS[unit]),
        v => format!("{v:.0}{}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_for_people() {
        assert_eq!(ago(0, 90_000), "1 minute ago");
        assert_eq!(ago(0, 7_200_000), "2 hours ago");
        assert_eq!(ago(5, 1), "just now");
        assert_eq!((ahead(90_000, 0), ahead(0, 1)), ("in 1 minute".into(), "now".into()));
        assert_eq!(span(3249), "3.2s");
        assert_eq!(span(64_000), "1m4s");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1234), "1.23kB");
        assert_eq!(size(999_600), "1.00MB");
        assert_eq!(size(358_900_000), "359MB");
    }
}

//! Spans of time, as Go's `time` package reads and writes them.

use std::time::Duration;

/// Why a text is no span of time that HEALTHCHECK takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a number with a unit.
    #[error("is `{0}`, which is no duration; write for example `1m30s`, `500ms` or `0`")]
    Syntax(String),
    /// Shorter than a millisecond, but not zero.
    #[error("is `{0}`, but must be 0 or at least 1ms")]
    TooShort(String),
}

const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Reads a time of HEALTHCHECK: `300ms`, `1h15m30.5s`, `0`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let syntax = || DurationError::Syntax(super::super::text::shown(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(sign @ (b'-' | b'+')) => (*sign == b'-', &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(syntax());
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let part;
        (part, rest) = one_part(rest).ok_or_else(syntax)?;
        nanos = nanos.checked_add(part).filter(|n| *n <= i64::MAX as u64).ok_or_else(syntax)?;
    }
    match nanos {
        0 => Ok(Duration::ZERO),
        1_000_000.. if !negative => Ok(Duration::from_nanos(nanos)),
        _ => Err(DurationError::TooShort(super::super::text::shown(text))),
    }
}

/// Nanoseconds of the number and unit at the head of `text`, and what follows.
fn one_part(text: &str) -> Option<(u64, &str)> {
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_len);
    let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(*scale as u64)?;
    // Digits beyond the 18th are far below a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = digits as f64 * (scale / 10f64.powi(fraction.len() as i32));
    Some((whole.checked_add(part as u64)?, rest))
}

/// Writes a span of time: `1m0s`, `1.5s`, `250ms`, `0s`.
pub fn go_text(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (unit, name) = match nanos {
        ..1_000 => (1, "ns"),
        ..1_000_000 => (1_000, "µs"),
        ..1_000_000_000 => (1_000_000, "ms"),
        _ => return seconds(nanos),
    };
    format!("{}{name}", decimal(nanos / unit, nanos % unit, unit))
}

fn seconds(nanos: u128) -> String {
    const SECOND: u128 = 1_000_000_000;
    let whole = nanos / SECOND;
    let seconds = decimal(whole % 60, nanos % SECOND, SECOND);
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `whole` and the fraction `part / unit`, where `unit` is a power of ten.
fn decimal(whole: u128, part: u128, unit: u128) -> String {
    if part == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{part:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(parse(text).ok().map(go_text).as_deref(), expect, "{text}");
    }

    #[test]
    fn spans_are_read_and_written() {
        check("5s", Some("5s"));
        check("60s", Some("1m0s"));
        check("1h", Some("1h0m0s"));
        check("1h15m30.918s", Some("1h15m30.918s"));
        check("1.5ms", Some("1.5ms"));
        check(".5s", Some("500ms"));
        check("1.s", Some("1s"));
        check("2000us", Some("2ms"));
        check("1000µs1000μs", Some("2ms"));
        check("+3m", Some("3m0s"));
        for zero in ["0", "-0", "0s", "0h0m"] {
            check(zero, Some("0s"));
        }
        for bad in ["", "soon", "5", "s", "1..5s", ".s", "1 s", "1x", "-", "9999999999h", "1s,"] {
            assert!(matches!(parse(bad), Err(DurationError::Syntax(_))), "{bad}");
        }
        for short in ["1ns", "999us", "-5s"] {
            assert!(matches!(parse(short), Err(DurationError::TooShort(_))), "{short}");
        }
        assert_eq!(go_text(Duration::from_nanos(1)), "1ns");
        assert_eq!(go_text(Duration::from_nanos(1_100)), "1.1µs");
    }
}

//! Values that an instruction's words must have after expansion.

mod chmod;
mod duration;
mod port;
mod signal;

pub use chmod::{Chmod, ChmodError};
pub use duration::{DurationError, go_text as duration_text, parse as duration};
pub use port::{Parts as PortParts, Port, PortError};
pub use signal::{SignalError, check as stop_signal};

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A size in bytes: a number, and an optional unit (`k`, `kb`, `KiB`, `m` … `p`, or `b`), all of them
/// powers of 1024, as docker's `go-units` reads them.
pub fn bytes(text: &str) -> Option<u64> {
    let digit = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, unit) = text.split_at(digit + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let number: f64 = number.bytes().all(plain).then(|| number.parse().ok())??;
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let (letter, rest) = unit.split_at_checked(1)?;
            if !matches!(rest, "" | "b" | "ib") {
                return None;
            }
            10 * (1 + "kmgtp".find(letter)?)
        }
    };
    let size = number * (1u64 << shift) as f64;
    (0.0..9e18).contains(&size).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("0", Some(0)),
            ("64", Some(64)),
            ("64b", Some(64)),
            ("4m", Some(4 << 20)),
            ("4 MB", Some(4 << 20)),
            ("1.5KiB", Some(1536)),
            ("1e3", Some(1000)),
            ("2P", Some(2 << 50)),
            ("-1", None),
            ("big", None),
            ("", None),
            ("1x", None),
            ("1mm", None),
            ("1bb", None),
            ("1 2", None),
            ("1e300", None),
            ("inf0", None),
            ("1é", None),
        ];
        for (text, expect) in cases {
            assert_eq!(bytes(text), expect, "{text}");
        }
    }
}

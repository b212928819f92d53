//! Values of settings: as they are written, and as they are shown.

use std::fmt;
use std::time::Duration;

/// A value as somebody gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string of the file.
    Text(String),
    /// An integer of the file.
    Number(i64),
    /// A boolean of the file.
    Switch(bool),
    /// A list of strings of the file.
    List(Vec<String>),
    /// A text that is read as whatever is wanted: a variable's, a flag's.
    Word(String),
    /// What no setting is: a date, a table. As a text for people.
    Other(String),
}

impl Value {
    /// As a text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Word(text) => Some(text),
            _ => None,
        }
    }

    /// As a number that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self {
            Value::Number(number) => u64::try_from(*number).ok(),
            Value::Word(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// As a number of things, at least one.
    pub fn count(&self) -> Option<u32> {
        u32::try_from(self.number()?).ok().filter(|n| *n > 0)
    }

    /// As yes or no.
    pub fn switch(&self) -> Option<bool> {
        match self {
            Value::Switch(value) => Some(*value),
            Value::Word(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// As texts: a list, or one text with commas between them.
    pub fn texts(&self) -> Option<Vec<String>> {
        match self {
            Value::Word(text) | Value::Text(text) => {
                Some(text.split(',').map(|part| part.trim().to_owned()).collect())
            }
            _ => self.list().map(<[String]>::to_vec),
        }
    }

    /// As a list of texts.
    pub fn list(&self) -> Option<&[String]> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) | Value::Word(text) | Value::Other(text) => f.write_str(text),
            Value::Number(number) => write!(f, "{number}"),
            Value::Switch(value) => write!(f, "{value}"),
            Value::List(list) => f.write_str(&list.join(", ")),
        }
    }
}

/// A time: a number and `ms`, `s`, `m`, `h` or `d`; seconds without one.
pub fn time(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "ms" => return Some(Duration::from_millis(number)),
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// A time in the largest unit in which it is a whole number, as [`time`] reads it.
pub fn show_time(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.as_millis());
    match seconds {
        _ if millis % 1000 != 0 => format!("{millis}ms"),
        0 => "0s".to_owned(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A size: a number and `B`, `kB`, `MB`, `GB`, `TB`, all of them powers of 1024, as Docker reads
/// them; bytes without one.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let number: f64 = number.parse().ok()?;
    let power = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let size = number * 1024f64.powi(power);
    (size.is_finite() && size < 9e18).then_some(size as u64)
}

/// A size in the largest unit in which it is a whole number, as [`bytes`] reads it.
pub fn show_bytes(size: u64) -> String {
    let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "kB")];
    let fits = |(shift, _): &(u32, &str)| size > 0 && size.is_multiple_of(1 << shift);
    match units.into_iter().find(fits) {
        Some((shift, unit)) => format!("{}{unit}", size >> shift),
        None => format!("{size}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(bytes("1.5k"), Some(1536));
        assert_eq!(bytes("2 GiB"), Some(2 << 30));
        assert_eq!(bytes("12"), Some(12));
        assert_eq!(bytes("x"), None);
        assert_eq!(time("20m"), Some(Duration::from_secs(1200)));
        assert_eq!(time("m"), None);
        assert_eq!(show_time(Duration::from_secs(900)), "15m");
        assert_eq!(show_time(Duration::ZERO), "0s");
        assert_eq!(show_bytes(40 << 30), "40GB");
        assert_eq!((show_bytes(0), show_bytes(1025)), ("0B".to_owned(), "1025B".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(millis in any::<u32>(), units in 0..1_000_000u64, shift in 0..30) {
            for time in [Duration::from_millis(millis.into()), Duration::from_secs(millis.into())] {
                prop_assert_eq!(super::time(&show_time(time)), Some(time));
            }
            prop_assert_eq!(bytes(&show_bytes(units << shift)), Some(units << shift));
        }
    }

    #[test]
    fn a_word_is_whatever_is_wanted_and_a_value_of_the_file_is_what_it_is() {
        let word = |text: &str| Value::Word(text.to_owned());
        assert_eq!(word("3").count(), Some(3));
        assert_eq!(word("0").count(), None);
        assert_eq!(word("true").switch(), Some(true));
        assert_eq!(word("x").text(), Some("x"));
        assert_eq!(Value::Text("3".to_owned()).count(), None);
        assert_eq!(Value::Number(3).text(), None);
        assert_eq!(Value::Number(-3).number(), None);
        assert_eq!(Value::Text("true".to_owned()).switch(), None);
    }
}

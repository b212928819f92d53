//! STOPSIGNAL.

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("STOPSIGNAL: `{0}` is no signal of Linux; write for example SIGTERM, SIGRTMIN+3 or 15")]
pub struct SignalError(pub String);

/// The signals of Linux without their `SIG`, aside of the real-time ones.
const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// Checks that a text names a signal of Linux: a name with or without `SIG`, in any case, or a
/// number other than 0. Numbers are not checked further, as in BuildKit.
pub fn check(text: &str) -> Result<(), SignalError> {
    let fine = match text.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => {
            let upper = text.to_uppercase();
            let name = upper.strip_prefix("SIG").unwrap_or(&upper);
            NAMES.contains(&name) || name == "RTMAX" || is_offset(name, "RTMIN+", 15)
                || is_offset(name, "RTMAX-", 14)
        }
    };
    if fine { Ok(()) } else { Err(SignalError(super::super::text::shown(text))) }
}

fn is_offset(name: &str, base: &str, max: u8) -> bool {
    let Some(offset) = name.strip_prefix(base) else { return false };
    let plain = offset.bytes().all(|b| b.is_ascii_digit()) && !offset.starts_with('0');
    plain && offset.parse().is_ok_and(|offset: u8| offset <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known() {
        for good in ["SIGTERM", "term", "SIGRTMIN+3", "rtmax-14", "RTMAX", "SIGRTMIN", "15", "-1"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "SIGNOTHING", "RTMIN+16", "RTMIN+03", "RTMAX-0", "SIGSIGTERM", "9x"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}

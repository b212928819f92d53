//! The environment of a container's process. Pure.

/// The path in an image that sets none. Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether the process has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// It has one.
    Yes,
    /// It has none.
    No,
}

/// Puts the lists together, later values in the place of earlier ones, and adds what every process
/// has: `PATH`, `HOME` (also when it is set to nothing, as in runc), `TERM` on a terminal.
pub(crate) fn environment<'a>(
    lists: impl IntoIterator<Item = &'a (String, String)>,
    home: &str,
    terminal: Terminal,
) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for (name, value) in lists {
        match out.iter_mut().find(|(there, _)| there == name) {
            Some((_, there)) => there.clone_from(value),
            None => out.push((name.clone(), value.clone())),
        }
    }
    let mut default = |name: &str, value: &str, also_empty: bool| match out
        .iter_mut()
        .find(|(there, _)| there == name)
    {
        Some((_, there)) if also_empty && there.is_empty() => value.clone_into(there),
        Some(_) => {}
        None => out.push((name.to_owned(), value.to_owned())),
    };
    default("PATH", DEFAULT_PATH, false);
    default("HOME", home, true);
    if terminal == Terminal::Yes {
        default("TERM", "xterm", false);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn later_values_win_and_defaults_fill_in() {
        let given = list(&[("A", "1"), ("HOME", ""), ("B", "2"), ("A", "3"), ("PATH", "/p")]);
        let want = list(&[("A", "3"), ("HOME", "/root"), ("B", "2"), ("PATH", "/p")]);
        assert_eq!(environment(&given, "/root", Terminal::No), want);
        let none = environment(&[], "/", Terminal::Yes);
        assert_eq!(none, list(&[("PATH", DEFAULT_PATH), ("HOME", "/"), ("TERM", "xterm")]));
    }
}

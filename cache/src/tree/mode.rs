//! `--chmod`: octal, or symbolic as chmod(1) has it.

use super::nodes::TreeError;

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits, for files and directories alike.
    Octal(u16),
    /// Changes, one after the other.
    Symbolic(Vec<Change>),
}

/// One change of a symbolic mode. As in BSD's setmode(3), of which BuildKit has a copy, `=` is a
/// removal and an addition, and the sticky bit is touched by `t` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// These bits are set.
    Add(u16),
    /// These bits are taken away.
    Remove(u16),
    /// `X`: these bits are set if it is a directory, or could be executed before all changes.
    AddExec(u16),
    /// What one class may is what others may (`=`), may too (`+`), or may not (`-`).
    Copy {
        /// The bits of the class that is looked at.
        from: u16,
        /// The bits of the classes that change.
        to: u16,
        /// How.
        op: Op,
    },
}

/// The sign of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Set,
    /// `+`
    Add,
    /// `-`
    Remove,
}

const USER: u16 = 0o700;
const GROUP: u16 = 0o070;
const OTHER: u16 = 0o007;
const ALL: u16 = USER | GROUP | OTHER;
/// Set-user-id.
pub const SET_UID: u16 = 0o4000;
/// Set-group-id.
pub const SET_GID: u16 = 0o2000;
const STICKY: u16 = 0o1000;

impl ModeChange {
    /// Reads `644`, `u=rwX,go=rX`, `+x`, `g+s,o-w`.
    pub fn parse(text: &str) -> Result<Self, TreeError> {
        let fail = |why| Err(TreeError::BadMode(text.to_owned(), why));
        if text.is_empty() {
            return fail("it is empty");
        }
        if text.chars().all(|c| c.is_ascii_digit()) {
            return match u16::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                Ok(_) => fail("an octal mode is at most 7777"),
                Err(_) => fail("an octal mode has the digits 0 to 7 and is at most 7777"),
            };
        }
        let mut changes = Vec::new();
        for part in text.split(',') {
            match clause(part) {
                Some(more) => changes.extend(more),
                None => return fail("expected octal digits, or parts such as `u=rwX` or `go-w`"),
            }
        }
        Ok(Self::Symbolic(changes))
    }

    /// The mode that `mode` becomes.
    pub fn apply(&self, mode: u16, is_dir: bool) -> u16 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                let exec = is_dir || mode & 0o111 != 0;
                changes.iter().fold(mode, |mode, change| change.apply(mode, exec))
            }
        }
    }

    /// The mode of directories that have to be made on the way.
    pub fn of_parents(&self) -> u16 {
        match self {
            // Go's `os.Mkdir` has no place for the special bits.
            Self::Octal(mode) => mode & 0o777,
            Self::Symbolic(_) => 0o755,
        }
    }
}

/// Reads `[ugoa]*` and then one or more of `[=+-]` with its permissions.
fn clause(text: &str) -> Option<Vec<Change>> {
    let split = text.find(['=', '+', '-'])?;
    let (classes, mut rest) = text.split_at(split);
    let mut who = 0;
    for class in classes.chars() {
        who |= match class {
            'u' => USER | SET_UID,
            'g' => GROUP | SET_GID,
            'o' => OTHER,
            'a' => ALL | SET_UID | SET_GID,
            _ => return None,
        };
    }
    let mut changes = Vec::new();
    while let Some(op) = rest.chars().next() {
        let op = match op {
            '=' => Op::Set,
            '+' => Op::Add,
            '-' => Op::Remove,
            _ => return None,
        };
        let end = rest[1..].find(['=', '+', '-']).map_or(rest.len(), |at| at + 1);
        permissions(who, op, &rest[1..end], &mut changes)?;
        rest = &rest[end..];
    }
    Some(changes)
}

/// Reads the permissions after a sign: `rwxXst`, and `u`, `g` and `o` among them.
fn permissions(who: u16, op: Op, text: &str, changes: &mut Vec<Change>) -> Option<()> {
    let (mut who, mut bits, mut exec, mut is_set) = (who, 0, false, false);
    for c in text.chars() {
        let from = match c {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHER,
            _ => {
                match c {
                    'r' => bits |= 0o444,
                    'w' => bits |= 0o222,
                    'x' => bits |= 0o111,
                    // There is no taking away under a condition.
                    'X' if op == Op::Remove => bits |= 0o111,
                    'X' => exec = true,
                    // Others have neither.
                    's' | 't' if who != 0 && who & !OTHER == 0 => {}
                    's' => bits |= SET_UID | SET_GID,
                    't' => {
                        who |= STICKY;
                        bits |= STICKY;
                    }
                    _ => return None,
                }
                continue;
            }
        };
        // What stood before it comes first; `=` with a class alone leaves the set-id bits.
        if bits != 0 {
            flush(who, op, bits, changes);
        }
        if exec {
            changes.push(Change::AddExec(bits_of(who) & 0o111));
        }
        (bits, exec, is_set) = (0, false, true);
        changes.push(Change::Copy { from, to: bits_of(who) & ALL, op });
    }
    if bits != 0 || op == Op::Set && !is_set {
        flush(who, op, bits, changes);
    }
    if exec {
        changes.push(Change::AddExec(bits_of(who) & 0o111));
    }
    Some(())
}

fn flush(who: u16, op: Op, bits: u16, changes: &mut Vec<Change>) {
    let who = bits_of(who);
    if op == Op::Set {
        changes.push(Change::Remove(who));
    }
    match op {
        Op::Set | Op::Add => changes.push(Change::Add(who & bits)),
        Op::Remove => changes.push(Change::Remove(who & bits)),
    }
}

/// The bits that classes may change: all but the sticky one when none was named.
fn bits_of(who: u16) -> u16 {
    if who == 0 { ALL | SET_UID | SET_GID } else { who }
}

impl Change {
    fn apply(self, mode: u16, exec: bool) -> u16 {
        match self {
            Self::Add(bits) => mode | bits,
            Self::Remove(bits) => mode & !bits,
            Self::AddExec(bits) if exec => mode | bits,
            Self::AddExec(_) => mode,
            Self::Copy { from, to, op } => {
                let one = (mode & from) >> from.trailing_zeros();
                let value = (one << 6 | one << 3 | one) & to;
                match op {
                    Op::Add => mode | value,
                    Op::Remove => mode & !value,
                    Op::Set => mode & !to | value,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, mode: u16, is_dir: bool, expected: u16) {
        let change = ModeChange::parse(text).unwrap();
        assert_eq!(change.apply(mode, is_dir), expected, "{text} on {mode:o}");
    }

    #[test]
    fn modes_are_applied() {
        check("644", 0o777, true, 0o644);
        check("4755", 0, false, 0o4755);
        check("u=rwX,go=rX", 0o600, false, 0o644);
        check("u=rwX,go=rX", 0o700, false, 0o755);
        check("u=rwX,go=rX", 0o600, true, 0o755);
        check("+x", 0o644, false, 0o755);
        check("a-w", 0o666, false, 0o444);
        check("g+s", 0o755, true, 0o2755);
        check("u+s,a+t", 0o755, false, 0o5755);
        // As setmode(3) has it, not as GNU's chmod.
        check("u+s,o+t", 0o755, false, 0o4755);
        check("u=rwX,go=rX", 0o1777, false, 0o1755);
        check("=r", 0o7777, false, 0o1444);
        check("a=rt", 0o777, false, 0o1444);
        check("g=u", 0o2741, false, 0o2771);
        check("o+s", 0o755, false, 0o755);
        check("+s", 0o755, false, 0o6755);
        check("u=rg", 0o741, false, 0o441);
        check("a-X", 0o755, false, 0o644);
        check("a-x,a+X", 0o755, false, 0o755);
        check("u-u", 0o755, false, 0o055);
        check("+", 0o755, false, 0o755);
        check("++tgu", 0o1457, true, 0o1457);
        check("=+tr", 0o777, false, 0o1000);
        check("o=ttr=g,+wXtr+xwX,-=tso", 0o4544, true, 0o5777);
        check("-orsu,g-Xu,+XtX", 0o6250, true, 0o1000);
        check("o=os", 0o1163, false, 0o1163);
        check("go=u", 0o640, false, 0o666);
        check("u+w-x", 0o500, false, 0o600);
        check("u=", 0o4755, false, 0o055);
    }

    #[test]
    fn bad_modes_are_refused() {
        for bad in ["", "999", "17777", "u", "u=q", "z+x", "u=r,,", "rwx", "-rwxr-xr-x,"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}

//! `--chmod`: octal, or symbolic as chmod(1) has it.

use super::nodes::TreeError;

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits, for files and directories alike.
    Octal(u16),
    /// Clauses, one after the other.
    Symbolic(Vec<Clause>),
}

/// `who op perm`: one part of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// The bits of the classes that it is about: 0700, 0070, 0007.
    who: u16,
    op: Op,
    perm: Perm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Set,
    Add,
    Remove,
}

/// What is set, added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Perm {
    Bits {
        rwx: u16,
        exec_if: bool,
        set_id: bool,
        sticky: bool,
    },
    /// The bits that another class has.
    Copy(u16),
}

const USER: u16 = 0o700;
const GROUP: u16 = 0o070;
const OTHER: u16 = 0o007;

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
        let mut clauses = Vec::new();
        for part in text.split(',') {
            match clause(part) {
                Some(more) => clauses.extend(more),
                None => return fail("expected octal digits, or parts such as `u=rwX` or `go-w`"),
            }
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The mode that `mode` becomes.
    pub fn apply(&self, mode: u16, is_dir: bool) -> u16 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir))
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
fn clause(text: &str) -> Option<Vec<Clause>> {
    let split = text.find(['=', '+', '-'])?;
    let (classes, mut rest) = text.split_at(split);
    let mut who = 0;
    for class in classes.chars() {
        who |= match class {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHER,
            'a' => USER | GROUP | OTHER,
            _ => return None,
        };
    }
    let who = if classes.is_empty() { USER | GROUP | OTHER } else { who };
    let mut clauses = Vec::new();
    while let Some(op) = rest.chars().next() {
        let op = match op {
            '=' => Op::Set,
            '+' => Op::Add,
            '-' => Op::Remove,
            _ => return None,
        };
        let end = rest[1..].find(['=', '+', '-']).map_or(rest.len(), |at| at + 1);
        clauses.push(Clause { who, op, perm: perm(&rest[1..end])? });
        rest = &rest[end..];
    }
    Some(clauses)
}

fn perm(text: &str) -> Option<Perm> {
    match text {
        "u" => return Some(Perm::Copy(USER)),
        "g" => return Some(Perm::Copy(GROUP)),
        "o" => return Some(Perm::Copy(OTHER)),
        _ => {}
    }
    let (mut rwx, mut exec_if, mut set_id, mut sticky) = (0, false, false, false);
    for c in text.chars() {
        match c {
            'r' => rwx |= 0o444,
            'w' => rwx |= 0o222,
            'x' => rwx |= 0o111,
            'X' => exec_if = true,
            's' => set_id = true,
            't' => sticky = true,
            _ => return None,
        }
    }
    Some(Perm::Bits { rwx, exec_if, set_id, sticky })
}

impl Clause {
    fn apply(&self, mode: u16, is_dir: bool) -> u16 {
        let mut bits = 0;
        let mut special = 0;
        match self.perm {
            Perm::Bits { rwx, exec_if, set_id, sticky } => {
                bits = rwx;
                if exec_if && (is_dir || mode & 0o111 != 0) {
                    bits |= 0o111;
                }
                if set_id {
                    special |= if self.who & USER != 0 { 0o4000 } else { 0 };
                    special |= if self.who & GROUP != 0 { 0o2000 } else { 0 };
                }
                if sticky {
                    special |= 0o1000;
                }
            }
            Perm::Copy(class) => {
                let shift = class.trailing_zeros();
                let one = (mode & class) >> shift;
                bits |= one << 6 | one << 3 | one;
            }
        }
        let value = bits & self.who | special;
        match self.op {
            Op::Add => mode | value,
            Op::Remove => mode & !value,
            Op::Set => {
                let mut cleared = self.who;
                cleared |= if self.who & USER != 0 { 0o4000 } else { 0 };
                cleared |= if self.who & GROUP != 0 { 0o2000 } else { 0 };
                cleared |= if self.who & OTHER != 0 { 0o1000 } else { 0 };
                mode & !cleared | value
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
        check("u+s,o+t", 0o755, false, 0o5755);
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

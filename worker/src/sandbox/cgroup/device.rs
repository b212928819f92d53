//! Which devices a container may open, in the forms that both versions of control groups take.
//!
//! The list is Docker's: any node may be made, only harmless ones opened.

use super::super::bpf::{self, Cond, Insn, Program, R1, R2, R3, R4, R5};
use std::fmt;

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Block,
    /// A character device.
    Char,
}

/// What may be done with devices of these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Block or character device.
    pub kind: Kind,
    /// The major number; none for all.
    pub major: Option<u32>,
    /// The minor number; none for all.
    pub minor: Option<u32>,
    /// Whether it may be read and written.
    pub open: bool,
    /// Whether a node of it may be made.
    pub make: bool,
}

const fn open(major: u32, minor: Option<u32>) -> Rule {
    Rule { kind: Kind::Char, major: Some(major), minor, open: true, make: true }
}

const fn make(kind: Kind) -> Rule {
    Rule { kind, major: None, minor: None, open: false, make: true }
}

/// What every container may do.
pub(crate) const DEFAULT: [Rule; 10] = [
    make(Kind::Char),
    make(Kind::Block),
    open(1, Some(3)), // null
    open(1, Some(5)), // zero
    open(1, Some(7)), // full
    open(1, Some(8)), // random
    open(1, Some(9)), // urandom
    open(5, Some(0)), // tty
    open(5, Some(2)), // ptmx
    open(136, None),  // pts
];

/// What a container without confinement may do.
pub(crate) const ALL: [Rule; 2] = [
    Rule { kind: Kind::Char, major: None, minor: None, open: true, make: true },
    Rule { kind: Kind::Block, major: None, minor: None, open: true, make: true },
];

/// As `devices.allow` takes it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        f.write_str(if self.open { "rw" } else { "" })?;
        f.write_str(if self.make { "m" } else { "" })
    }
}

/// `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE`: the access that is asked for.
const MAKE: u32 = 1;
const OPEN: u32 = 2 | 4;

/// As the second version takes it: a program that answers 1 for what is allowed. Its context is
/// `struct bpf_cgroup_dev_ctx`: access and kind in one word, major, minor.
pub(crate) fn program(rules: &[Rule]) -> Vec<Insn> {
    let mut program = Program::new(&[
        bpf::load32(R2, R1, 0),
        bpf::mov_reg(R5, R2),
        bpf::and(R2, 0xffff),
        bpf::shift_right(R5, 16),
        // The rules need R5 for masks: the access moves on to R1, whose context is read below.
        bpf::load32(R3, R1, 4),
        bpf::load32(R4, R1, 8),
        bpf::mov_reg(R1, R5),
    ]);
    for rule in rules {
        let allowed = if rule.open { OPEN } else { 0 } | if rule.make { MAKE } else { 0 };
        let kind = match rule.kind {
            Kind::Block => 1,
            Kind::Char => 2,
        };
        let mut conditions = vec![Cond::Is(R2, kind)];
        if allowed != OPEN | MAKE {
            // Nothing else may be asked for.
            conditions.push(Cond::Masked(R1, !allowed, 0));
        }
        conditions.extend(rule.major.map(|major| Cond::Is(R3, major)));
        conditions.extend(rule.minor.map(|minor| Cond::Is(R4, minor)));
        program.rule(&conditions, 1);
    }
    program.finish(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        bpf::run(&program(rules), &[access << 16 | kind, major, minor]) == 1
    }

    #[test]
    fn the_default_is_dockers() {
        for (kind, access, major, minor, want) in [
            (2, 6, 1, 3, true),
            (2, 7, 1, 3, true),
            (2, 2, 1, 1, false), // mem
            (2, 1, 1, 1, true),
            (2, 3, 1, 1, false),
            (2, 4, 136, 12, true),
            (2, 2, 5, 1, false),
            (1, 2, 1, 3, false),
            (1, 1, 8, 0, true),
            (1, 2, 8, 0, false),
        ] {
            assert_eq!(
                allowed(&DEFAULT, kind, access, major, minor),
                want,
                "{kind} {access} {major}"
            );
            assert!(allowed(&ALL, kind, access, major, minor));
        }
        assert!(!allowed(&[], 2, 2, 1, 3));
    }

    #[test]
    fn rules_are_written_for_the_first_version() {
        let lines: Vec<String> = DEFAULT.iter().map(Rule::to_string).collect();
        assert_eq!(lines[0], "c *:* m");
        assert_eq!(lines[1], "b *:* m");
        assert_eq!(lines[2], "c 1:3 rwm");
        assert_eq!(lines[9], "c 136:* rwm");
    }
}

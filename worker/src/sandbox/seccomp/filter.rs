//! Verdicts on system calls as a program for the kernel's packet filter.
//!
//! Format and context: `struct sock_filter` and `struct seccomp_data` of seccomp(2). For each
//! architecture the calls' numbers are cut into ranges of one verdict, and the range is found by
//! halving.

use std::collections::BTreeMap;

/// An architecture of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

impl Arch {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::X86 => "x86",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        }
    }

    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }
}

/// What becomes of a system call. Arguments are compared in their lower half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It is not made, and answers this error.
    Errno(u32),
    /// It is made unless this argument has any of these bits.
    AllowUnlessBits(u8, u32),
    /// It is made unless this argument is one of these.
    AllowUnless(u8, Vec<u32>),
    /// It is made if this argument is one of these.
    AllowOnly(u8, Vec<u32>),
}

/// One instruction: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

const LOAD: u16 = 0x20;
const GOTO: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

fn plain(code: u16, value: u32) -> Insn {
    Insn { code, yes: 0, no: 0, value }
}

fn jump(code: u16, value: u32, yes: u8, no: u8) -> Insn {
    Insn { code, yes, no, value }
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    code: Vec<Insn>,
}

impl Filter {
    /// Calls that are in no table, and those of other architectures, get `otherwise`.
    pub(super) fn compile(tables: &[(Arch, BTreeMap<u32, Verdict>)], otherwise: Verdict) -> Self {
        let mut code = vec![plain(LOAD, OFFSET_ARCH)];
        for (arch, verdicts) in tables {
            let mut body = vec![plain(LOAD, OFFSET_NUMBER)];
            body.extend(search(&ranges(verdicts, &otherwise)));
            // A jump on a condition reaches 255 instructions, one without reaches all.
            code.push(jump(IF_EQUAL, arch.audit(), 1, 0));
            code.push(plain(GOTO, body.len() as u32));
            code.extend(body);
        }
        code.extend(answer(&otherwise));
        Self { code }
    }

    /// The filter as seccomp(2) takes it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.code.len() * 8);
        for insn in &self.code {
            out.extend(insn.code.to_ne_bytes());
            out.extend([insn.yes, insn.no]);
            out.extend(insn.value.to_ne_bytes());
        }
        out
    }
}

/// Where each range of one verdict begins; the first begins at 0.
fn ranges(verdicts: &BTreeMap<u32, Verdict>, otherwise: &Verdict) -> Vec<(u32, Verdict)> {
    let mut out: Vec<(u32, Verdict)> = vec![(0, otherwise.clone())];
    let mut push = |start: u32, verdict: &Verdict| match out.last_mut() {
        Some((_, last)) if last == verdict => {}
        Some((from, last)) if *from == start => *last = verdict.clone(),
        _ => out.push((start, verdict.clone())),
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if *number > next {
            push(next, otherwise);
        }
        push(*number, verdict);
        next = number + 1;
    }
    push(next, otherwise);
    out
}

fn search(ranges: &[(u32, Verdict)]) -> Vec<Insn> {
    let [(_, verdict)] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let (below, above) = (search(low), search(high));
        let pivot = high[0].0;
        let mut code = match u8::try_from(below.len()) {
            Ok(over) => vec![jump(IF_AT_LEAST, pivot, over, 0)],
            Err(_) => vec![jump(IF_AT_LEAST, pivot, 0, 1), plain(GOTO, below.len() as u32)],
        };
        code.extend(below);
        code.extend(above);
        return code;
    };
    answer(verdict)
}

fn answer(verdict: &Verdict) -> Vec<Insn> {
    let allow = plain(RETURN, ALLOW);
    let refuse = plain(RETURN, ERRNO | 1);
    let argument = |index: u8| {
        // The lower half of a register of 64 bits.
        let half = if cfg!(target_endian = "little") { 0 } else { 4 };
        plain(LOAD, OFFSET_ARGS + 8 * u32::from(index) + half)
    };
    let one_of = |index: u8, values: &[u32], then: Insn, otherwise: Insn| {
        let mut code = vec![argument(index)];
        for (at, value) in values.iter().enumerate() {
            let over = (values.len() - at) as u8;
            code.push(jump(IF_EQUAL, *value, over, 0));
        }
        code.extend([otherwise, then]);
        code
    };
    match verdict {
        Verdict::Allow => vec![allow],
        Verdict::Errno(errno) => vec![plain(RETURN, ERRNO | errno)],
        Verdict::AllowUnlessBits(index, bits) => {
            vec![argument(*index), jump(IF_ANY_BIT, *bits, 0, 1), refuse, allow]
        }
        Verdict::AllowUnless(index, values) => one_of(*index, values, refuse, allow),
        Verdict::AllowOnly(index, values) => one_of(*index, values, allow, refuse),
    }
}

#[cfg(test)]
mod tests {
    use super::super::default_filter;
    use super::*;
    use proptest::prelude::*;

    /// What the kernel would answer.
    fn run(filter: &Filter, audit: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut context = Vec::new();
        context.extend(number.to_ne_bytes());
        context.extend(audit.to_ne_bytes());
        context.extend(0u64.to_ne_bytes());
        args.iter().for_each(|arg| context.extend(arg.to_ne_bytes()));
        let (mut at, mut value) = (0, 0u32);
        loop {
            let insn = filter.code[at];
            at += 1;
            let branch = |holds: bool| usize::from(if holds { insn.yes } else { insn.no });
            match insn.code {
                LOAD => {
                    let from = insn.value as usize;
                    value = u32::from_ne_bytes(context[from..from + 4].try_into().unwrap());
                }
                GOTO => at += insn.value as usize,
                IF_EQUAL => at += branch(value == insn.value),
                IF_AT_LEAST => at += branch(value >= insn.value),
                IF_ANY_BIT => at += branch(value & insn.value != 0),
                RETURN => return insn.value,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const REFUSED: u32 = ERRNO | 1;

    #[test]
    fn the_default_filter_answers_as_dockers() {
        let filter = default_filter("x86_64").unwrap();
        let x64 = |number, arg: u64| run(&filter, 0xc000_003e, number, [arg, 0, 0, 0, 0, 0]);
        for (number, arg, want) in [
            (0, 0, ALLOW),              // read
            (59, 0, ALLOW),             // execve
            (165, 0, REFUSED),          // mount
            (161, 0, ALLOW),            // chroot
            (101, 0, ALLOW),            // ptrace
            (298, 0, REFUSED),          // perf_event_open
            (321, 0, REFUSED),          // bpf
            (272, 0, REFUSED),          // unshare
            (425, 0, REFUSED),          // io_uring_setup
            (246, 0, REFUSED),          // kexec_load
            (304, 0, REFUSED),          // open_by_handle_at
            (250, 0, REFUSED),          // keyctl
            (435, 0, ERRNO | 38),       // clone3
            (56, 0x11, ALLOW),          // clone, SIGCHLD
            (56, 0x1000_0000, REFUSED), // clone, CLONE_NEWUSER
            (41, 2, ALLOW),             // socket, AF_INET
            (41, 16, ALLOW),            // AF_NETLINK
            (41, 38, REFUSED),          // AF_ALG
            (41, 40, REFUSED),          // AF_VSOCK
            (41, 40 | 1 << 32, REFUSED),
            (135, 0xffff_ffff, ALLOW), // personality
            (135, 0x4_0000, REFUSED),
            (0x4000_0000, 0, REFUSED), // read by x32
            (100_000, 0, REFUSED),
        ] {
            assert_eq!(x64(number, arg), want, "{number} {arg:#x}");
        }
        let x86 = |number, arg: u64| run(&filter, 0x4000_0003, number, [arg, 0, 0, 0, 0, 0]);
        assert_eq!(x86(11, 0), ALLOW); // execve
        assert_eq!(x86(21, 0), REFUSED); // mount
        assert_eq!(x86(359, 40), REFUSED); // socket
        assert_eq!(run(&filter, 0xc000_00b7, 0, [0; 6]), REFUSED);
        let arm = default_filter("aarch64").unwrap();
        assert_eq!(run(&arm, 0xc000_00b7, 221, [0; 6]), ALLOW); // execve
        assert_eq!(run(&arm, 0xc000_00b7, 40, [0; 6]), REFUSED); // mount
        assert_eq!(run(&arm, 0x4000_0028, 11, [0; 6]), ALLOW); // execve
        assert!(default_filter("vax").is_none());
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Allow),
            (1u32..5).prop_map(Verdict::Errno),
            (0u8..6, 1u32..8).prop_map(|(i, bits)| Verdict::AllowUnlessBits(i, bits)),
            (0u8..6, prop::collection::vec(0u32..4, 1..4))
                .prop_map(|(i, v)| Verdict::AllowUnless(i, v)),
            (0u8..6, prop::collection::vec(0u32..4, 1..4))
                .prop_map(|(i, v)| Verdict::AllowOnly(i, v)),
        ]
    }

    fn meant(verdict: &Verdict, args: [u64; 6]) -> u32 {
        let low = |index: &u8| args[usize::from(*index)] as u32;
        let allowed = match verdict {
            Verdict::Allow => true,
            Verdict::Errno(errno) => return ERRNO | errno,
            Verdict::AllowUnlessBits(index, bits) => low(index) & bits == 0,
            Verdict::AllowUnless(index, values) => !values.contains(&low(index)),
            Verdict::AllowOnly(index, values) => values.contains(&low(index)),
        };
        if allowed { ALLOW } else { REFUSED }
    }

    proptest! {
        #[test]
        fn a_filter_answers_what_its_table_says(
            one in prop::collection::btree_map(0u32..600, verdict(), 0..500),
            two in prop::collection::btree_map(0u32..30, verdict(), 0..20),
            calls in prop::collection::vec((any::<bool>(), 0u32..620, prop::array::uniform6(0u64..5)), 50),
        ) {
            let otherwise = Verdict::Errno(9);
            let tables = [(Arch::X86_64, one.clone()), (Arch::X86, two.clone())];
            let filter = Filter::compile(&tables, otherwise.clone());
            prop_assert_eq!(filter.to_bytes().len(), filter.code.len() * 8);
            for (first, number, args) in calls {
                let (table, audit) = if first { (&one, 0xc000_003e) } else { (&two, 0x4000_0003) };
                let want = meant(table.get(&number).unwrap_or(&otherwise), args);
                prop_assert_eq!(run(&filter, audit, number, args), want);
            }
        }
    }
}

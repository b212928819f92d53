//! Small programs for the kernel's hooks on control groups: assembled, loaded and attached.
//!
//! The instruction format is that of Documentation/bpf/standardization/instruction-set.rst; the
//! calls are bpf(2)'s. All programs here are straight rows of rules, each of which answers or
//! passes on to the next, so the verifier takes them on any kernel that has the hook.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reg(u8);

/// The answer.
pub(crate) const R0: Reg = Reg(0);
/// The context that a program is given.
pub(crate) const R1: Reg = Reg(1);
/// For the program's own use.
pub(crate) const R2: Reg = Reg(2);
/// For the program's own use.
pub(crate) const R3: Reg = Reg(3);
/// For the program's own use.
pub(crate) const R4: Reg = Reg(4);
/// For the program's own use.
pub(crate) const R5: Reg = Reg(5);

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    code: u8,
    dst: Reg,
    src: Reg,
    offset: i16,
    value: i32,
}

const fn insn(code: u8, dst: Reg, src: Reg, offset: i16, value: i32) -> Insn {
    Insn { code, dst, src, offset, value }
}

/// `dst = *(u32 *)(src + offset)`
pub(crate) const fn load32(dst: Reg, src: Reg, offset: i16) -> Insn {
    insn(0x61, dst, src, offset, 0)
}

/// `dst = value`, the upper half zero.
pub(crate) const fn mov(dst: Reg, value: u32) -> Insn {
    insn(0xb4, dst, R0, 0, value as i32)
}

/// `dst = src`, the upper half zero.
pub(crate) const fn mov_reg(dst: Reg, src: Reg) -> Insn {
    insn(0xbc, dst, src, 0, 0)
}

/// `dst &= value`, the upper half zero.
pub(crate) const fn and(dst: Reg, value: u32) -> Insn {
    insn(0x54, dst, R0, 0, value as i32)
}

/// `dst >>= value`, the upper half zero.
pub(crate) const fn shift_right(dst: Reg, value: u32) -> Insn {
    insn(0x74, dst, R0, 0, value as i32)
}

/// Ends the program with what is in [`R0`].
pub(crate) const EXIT: Insn = insn(0x95, R0, R0, 0, 0);

/// A row of rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    code: Vec<Insn>,
}

/// A condition on the lower half of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cond {
    /// It is this.
    Is(Reg, u32),
    /// Under the mask it is this.
    Masked(Reg, u32, u32),
}

impl Program {
    /// A program that begins so.
    pub(crate) fn new(start: &[Insn]) -> Self {
        Self { code: start.to_vec() }
    }

    /// Answers `answer` when all conditions hold, else goes on. Uses [`R5`] for masks.
    pub(crate) fn rule(&mut self, conditions: &[Cond], answer: u32) {
        let size = |cond: &Cond| match cond {
            Cond::Is(..) => 1,
            Cond::Masked(..) => 3,
        };
        let mut left: i16 = conditions.iter().map(size).sum();
        for cond in conditions {
            left -= size(cond);
            // To the rule after this one: over what is left of the conditions, and the answer.
            let over = left + 2;
            match *cond {
                Cond::Is(reg, value) => self.code.push(insn(0x56, reg, R0, over, value as i32)),
                Cond::Masked(reg, mask, value) => self.code.extend([
                    mov_reg(R5, reg),
                    and(R5, mask),
                    insn(0x56, R5, R0, over, value as i32),
                ]),
            }
        }
        self.code.extend([mov(R0, answer), EXIT]);
    }

    /// Ends the program with this answer.
    pub(crate) fn finish(mut self, answer: u32) -> Vec<Insn> {
        self.code.extend([mov(R0, answer), EXIT]);
        self.code
    }
}

/// Where a program is hooked in. The numbers are the kernel's (`include/uapi/linux/bpf.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Opening and making device nodes.
    Device,
    /// connect(2) to an IPv4 address.
    Connect4,
    /// connect(2) to an IPv6 address.
    Connect6,
    /// An unconnected datagram to an IPv4 address.
    Send4,
    /// An unconnected datagram to an IPv6 address.
    Send6,
}

impl Hook {
    /// The program's type, and the place that it is attached to.
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::Device => (15, 6),
            Self::Connect4 => (18, 10),
            Self::Connect6 => (18, 11),
            Self::Send4 => (18, 14),
            Self::Send6 => (18, 15),
        }
    }
}

const LOAD: i32 = 5;
const ATTACH: i32 = 8;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads the program and attaches it to the control group (of the second version), in the place of
/// one that was attached before.
pub(crate) fn attach(group: impl AsFd, hook: Hook, code: &[Insn]) -> io::Result<()> {
    let (kind, place) = hook.numbers();
    let program = load(kind, place, code)?;
    let attr = AttachAttr {
        target: group.as_fd().as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: place,
        flags: 0,
    };
    // SAFETY: the attributes have the layout that the call expects, and their real size is given.
    let done = unsafe { libc::syscall(libc::SYS_bpf, ATTACH, &attr, size_of::<AttachAttr>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn load(kind: u32, place: u32, code: &[Insn]) -> io::Result<OwnedFd> {
    let bytes = encode(code);
    let attr = LoadAttr {
        kind,
        count: code.len() as u32,
        code: bytes.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        name: *b"slipway\0\0\0\0\0\0\0\0\0",
        expected: if kind == 18 { place } else { 0 },
        ..LoadAttr::default()
    };
    // SAFETY: as above; the code and the licence outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &attr, size_of::<LoadAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call answered a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn encode(code: &[Insn]) -> Vec<u8> {
    let mut out = Vec::with_capacity(code.len() * 8);
    for Insn { code, dst, src, offset, value } in code {
        let registers =
            if cfg!(target_endian = "little") { src.0 << 4 | dst.0 } else { dst.0 << 4 | src.0 };
        out.extend([*code, registers]);
        out.extend(offset.to_ne_bytes());
        out.extend(value.to_ne_bytes());
    }
    out
}

/// Runs a program as the kernel would, for tests: `words` is the context.
#[cfg(test)]
pub(crate) fn run(code: &[Insn], words: &[u32]) -> u32 {
    let (mut regs, mut at) = ([0u32; 11], 0);
    loop {
        let Insn { code, dst, src, offset, value } = code[at];
        let (dst, src, value) = (usize::from(dst.0), usize::from(src.0), value as u32);
        at += 1;
        match code {
            0x61 => {
                assert_eq!(src, 1, "only the context can be read");
                regs[dst] = words[offset as usize / 4];
            }
            0xb4 => regs[dst] = value,
            0xbc => regs[dst] = regs[src],
            0x54 => regs[dst] &= value,
            0x74 => regs[dst] >>= value,
            0x56 => {
                if regs[dst] != value {
                    at += offset as usize;
                }
            }
            0x95 => return regs[0],
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_tried_in_order() {
        let mut program = Program::new(&[load32(R2, R1, 0), load32(R3, R1, 4)]);
        program.rule(&[Cond::Is(R2, 1), Cond::Masked(R3, 0xff00, 0x1200)], 7);
        program.rule(&[Cond::Is(R2, 1)], 8);
        program.rule(&[Cond::Masked(R3, 1, 1), Cond::Is(R2, 2)], 9);
        let code = program.finish(10);
        for (words, want) in
            [([1, 0x1234], 7), ([1, 0x3434], 8), ([2, 3], 9), ([2, 2], 10), ([3, 0x1235], 10)]
        {
            assert_eq!(run(&code, &words), want, "{words:x?}");
        }
    }
}

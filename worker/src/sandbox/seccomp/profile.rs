//! Docker's default profile, resolved for a container with Docker's default capabilities.
//!
//! The list of calls is in `profile.txt`. What depends on arguments is here, as in the original,
//! but that arguments are looked at as the kernel does: the lower half of the register, for those
//! that are an `int`. Calls by the x32 interface, which no distribution's kernel has, are refused.

use super::filter::{Arch, Filter, Verdict};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;
use std::collections::BTreeMap;
use std::str::FromStr;

const PROFILE: &str = include_str!("profile.txt");

/// Not allowed.
const EPERM: u32 = 1;
/// Not there: C libraries then use an older call that can be checked.
const ENOSYS: u32 = 38;

/// `CLONE_NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWUSER | _NEWPID | _NEWNET`
const CLONE_NEW: u32 = 0x7e02_0000;

/// What personality(2) may be set to: `PER_LINUX`, `PER_LINUX32`, each also with `UNAME26`, and
/// asking for it.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Families of sockets that reach around the container: `AF_ALG`, `AF_VSOCK`.
const REFUSED_SOCKETS: [u32; 2] = [38, 40];

/// The filter for this machine's architecture and the one of 32 bits that it also runs. None on an
/// architecture that we have no tables for.
pub(crate) fn default_filter(machine: &str) -> Option<Filter> {
    let arches: &[Arch] = match machine {
        "x86_64" => &[Arch::X86_64, Arch::X86],
        "aarch64" => &[Arch::Aarch64, Arch::Arm],
        _ => return None,
    };
    let tables = arches.iter().map(|arch| (*arch, verdicts(*arch))).collect::<Vec<_>>();
    Some(Filter::compile(&tables, Verdict::Errno(EPERM)))
}

/// The names of the calls that the profile lets through on an architecture.
fn allowed(arch: Arch) -> Vec<&'static str> {
    let mut out = Vec::new();
    let mut applies = false;
    for line in PROFILE.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(arches) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            applies = arches.split(' ').any(|a| a == "any" || a == arch.name());
        } else if applies {
            out.extend(line.split_whitespace());
        }
    }
    out
}

/// The profile as a spec has it, for other runtimes, which compile it themselves.
pub(crate) fn default_oci(machine: &str) -> Option<LinuxSeccomp> {
    let (arches, oci) = match machine {
        "x86_64" => ([Arch::X86_64, Arch::X86], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
        "aarch64" => ([Arch::Aarch64, Arch::Arm], ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => return None,
    };
    let mut names: Vec<&str> = arches.into_iter().flat_map(allowed).collect();
    names.sort_unstable();
    names.dedup();
    let allow = "SCMP_ACT_ALLOW";
    let arg = |value: u32, op: &str| json!([{"index": 0, "value": value, "op": op}]);
    let mut rules = vec![
        json!({"names": names, "action": allow}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
        json!({"names": ["clone"], "action": allow, "args": [
            {"index": 0, "value": CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        // Between and beyond the families that are refused, as Docker has it.
        json!({"names": ["socket"], "action": allow, "args": arg(38, "SCMP_CMP_LT")}),
        json!({"names": ["socket"], "action": allow, "args": arg(39, "SCMP_CMP_EQ")}),
        json!({"names": ["socket"], "action": allow, "args": arg(40, "SCMP_CMP_GT")}),
    ];
    rules.extend(PERSONALITIES.iter().map(|value| {
        json!({"names": ["personality"], "action": allow, "args": arg(*value, "SCMP_CMP_EQ")})
    }));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": oci,
        "syscalls": rules,
    });
    Some(serde_json::from_value(profile).expect("the profile is a valid one"))
}

fn verdicts(arch: Arch) -> BTreeMap<u32, Verdict> {
    let numbers = allowed(arch).into_iter().filter_map(|name| number(arch, name));
    let mut out: BTreeMap<u32, Verdict> = numbers.map(|n| (n, Verdict::Allow)).collect();
    let special = [
        ("clone", Verdict::AllowUnlessBits(0, CLONE_NEW)),
        ("clone3", Verdict::Errno(ENOSYS)),
        ("personality", Verdict::AllowOnly(0, PERSONALITIES.to_vec())),
        ("socket", Verdict::AllowUnless(0, REFUSED_SOCKETS.to_vec())),
    ];
    for (name, verdict) in special {
        if let Some(number) = number(arch, name) {
            out.insert(number, verdict);
        }
    }
    out
}

/// The call's number, if the architecture has it.
fn number(arch: Arch, name: &str) -> Option<u32> {
    fn look<T: FromStr>(name: &str, id: impl Fn(T) -> i32) -> Option<u32> {
        T::from_str(name).ok().and_then(|call| u32::try_from(id(call)).ok())
    }
    match arch {
        Arch::X86_64 => look(name, |call: syscalls::x86_64::Sysno| call.id()),
        Arch::X86 => look(name, |call: syscalls::x86::Sysno| call.id()),
        Arch::Aarch64 => look(name, |call: syscalls::aarch64::Sysno| call.id()),
        Arch::Arm => match name {
            // Arm's own (`arch/arm/include/uapi/asm/unistd.h`), which tables of calls leave out.
            "breakpoint" => Some(0x0f_0001),
            "cacheflush" => Some(0x0f_0002),
            "set_tls" => Some(0x0f_0005),
            _ => look(name, |call: syscalls::arm::Sysno| call.id()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known() {
        let all = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm];
        let mut unknown: Vec<&str> = PROFILE
            .lines()
            .map(|line| line.split('#').next().unwrap())
            .filter(|line| !line.starts_with('['))
            .flat_map(|line| line.split_whitespace())
            .filter(|name| all.iter().all(|arch| number(*arch, name).is_none()))
            .collect();
        unknown.sort_unstable();
        // Of another architecture, and one under its other name.
        assert_eq!(unknown, ["riscv_hwprobe", "sync_file_range2"]);
    }
}

//! Which platforms' programs can be run here.

use proto::platform::Platform;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the kernel lists its emulators (`Documentation/admin-guide/binfmt-misc.rst`).
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// QEMU's names of processors, and the platforms that they stand for.
const EMULATED: [(&str, &str); 9] = [
    ("qemu-x86_64", "linux/amd64"),
    ("qemu-i386", "linux/386"),
    ("qemu-aarch64", "linux/arm64"),
    ("qemu-arm", "linux/arm/v7"),
    ("qemu-riscv64", "linux/riscv64"),
    ("qemu-ppc64le", "linux/ppc64le"),
    ("qemu-s390x", "linux/s390x"),
    ("qemu-mips64el", "linux/mips64le"),
    ("qemu-loongarch64", "linux/loong64"),
];

/// A program for 386 that ends without an error: the ELF header, one segment, and the system call.
const PROGRAM_386: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\
    \x02\0\x03\0\x01\0\0\0\x54\x80\x04\x08\x34\0\0\0\0\0\0\0\0\0\0\0\x34\0\x20\0\x01\0\0\0\0\0\0\0\
    \x01\0\0\0\0\0\0\0\0\x80\x04\x08\0\x80\x04\x08\x5d\0\0\0\x5d\0\0\0\x05\0\0\0\0\x10\0\0\
    \xb8\x01\0\0\0\x31\xdb\xcd\x80";

/// Whether the kernel runs programs for 386 beside its own: not every one was built to.
fn runs_386() -> bool {
    let run = || -> std::io::Result<bool> {
        let program = rustix::fs::memfd_create("386", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(program);
        file.write_all(PROGRAM_386)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Command::new(path).stdin(Stdio::null()).status()?.success())
    };
    run().unwrap_or(false)
}

/// This machine's own platform, and those that the kernel has an emulator for. The emulator must be
/// registered so that it is found inside of containers, too (flag `F`), as Debian's
/// `qemu-user-static` does.
pub fn platforms() -> Vec<Platform> {
    from_registered(|name| std::fs::read_to_string(Path::new(BINFMT).join(name)).ok())
}

/// The levels of the x86-64 instruction set behind the first that this processor has (x86-64 psABI,
/// section 3.1.1): programs for `linux/amd64/v2` are told from others only by what they need.
#[cfg(target_arch = "x86_64")]
fn levels() -> Vec<&'static str> {
    macro_rules! has {
        ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let v2 = has!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
    let v3 = v2 && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let v4 = v3 && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    let all = [(v2, "v2"), (v3, "v3"), (v4, "v4")];
    all.into_iter().filter(|(has, _)| *has).map(|(_, level)| level).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn levels() -> Vec<&'static str> {
    Vec::new()
}

fn from_registered(read: impl Fn(&str) -> Option<String>) -> Vec<Platform> {
    let mut all = vec![Platform::host()];
    all.extend(
        levels()
            .into_iter()
            .map(|level| Platform { variant: level.to_owned(), ..Platform::host() }),
    );
    if cfg!(target_arch = "x86_64") && runs_386() {
        all.push(Platform { arch: "386".to_owned(), ..Platform::host() });
    }
    for (name, platform) in EMULATED {
        let Some(text) = read(name) else { continue };
        let fixed = text.lines().any(|l| l.starts_with("flags:") && l.contains('F'));
        let Ok(platform) = Platform::parse(platform) else { continue };
        if text.starts_with("enabled") && fixed && !all.contains(&platform) {
            if platform.arch == "arm" {
                // What runs v7 runs the older ones.
                all.extend(
                    ["linux/arm/v6", "linux/arm/v5"].map(Platform::parse).into_iter().flatten(),
                );
            }
            all.push(platform);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulators_count_when_containers_find_them() {
        let registered = |flags: &'static str| {
            move |name: &str| {
                (name == "qemu-riscv64")
                    .then(|| format!("enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\n"))
            }
        };
        let own = from_registered(|_| None);
        assert_eq!(own[0], Platform::host());
        let levels = own[1..].iter().filter(|platform| platform.arch == "amd64");
        let levels: Vec<&str> = levels.map(|level| level.variant.as_str()).collect();
        assert!(["v2", "v3", "v4"].starts_with(&levels), "{levels:?}");
        assert_eq!(from_registered(registered("OC")), own);
        let both = from_registered(registered("OCF"));
        assert_eq!(both.last(), Platform::parse("linux/riscv64").ok().as_ref());
    }
}

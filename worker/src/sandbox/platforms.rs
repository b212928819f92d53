//! Which platforms' programs can be run here.

use proto::platform::Platform;
use std::path::Path;

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

/// This machine's own platform, and those that the kernel has an emulator for. The emulator must be
/// registered so that it is found inside of containers, too (flag `F`), as Debian's
/// `qemu-user-static` does.
pub fn platforms() -> Vec<Platform> {
    from_registered(|name| std::fs::read_to_string(Path::new(BINFMT).join(name)).ok())
}

fn from_registered(read: impl Fn(&str) -> Option<String>) -> Vec<Platform> {
    let mut all = vec![Platform::host()];
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
        assert_eq!(from_registered(|_| None), [Platform::host()]);
        assert_eq!(from_registered(registered("OC")).len(), 1);
        let both = from_registered(registered("OCF"));
        assert_eq!(both[1], Platform::parse("linux/riscv64").unwrap());
    }
}

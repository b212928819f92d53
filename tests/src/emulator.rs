//! Programs of other processors: a busybox for arm64, and the emulator that runs it.

use crate::command::{command, run};
use crate::scratch::lock;
use crate::standin::{MIRROR, SUITE};
use crate::tool::tool;
use std::fs::{self, File};
use std::path::Path;

/// Where the kernel is told of emulators (`Documentation/admin-guide/binfmt-misc.rst`).
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
const NAME: &str = "qemu-aarch64";
/// How it is registered, as Debian's package has it.
const RULE: &str = "/usr/lib/binfmt.d/qemu-aarch64.conf";

/// The kernel runs programs for arm64 by QEMU while this lives. It is one for the whole machine.
#[derive(Debug)]
pub struct Emulator {
    /// Whether it is to be taken away.
    ours: bool,
    _only: File,
}

impl Emulator {
    /// Registers it, unless the machine has it already.
    pub fn for_arm64() -> Self {
        let only = lock("binfmt");
        if !Path::new(BINFMT).join("register").exists() {
            let mut mount = command(tool("mount"));
            run(mount.args(["-t", "binfmt_misc", "binfmt_misc", BINFMT])).ok();
        }
        let ours = !Path::new(BINFMT).join(NAME).exists();
        if ours {
            tool("qemu-aarch64-static");
            let rule = fs::read_to_string(RULE).unwrap_or_else(|e| panic!("{RULE}: {e}"));
            let told = fs::write(Path::new(BINFMT).join("register"), rule.trim_end());
            told.unwrap_or_else(|e| panic!("registering {NAME}: {e}"));
        }
        Self { ours, _only: only }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if self.ours {
            // What a panic leaves is one more emulator, which no other test minds.
            let _ = fs::write(Path::new(BINFMT).join(NAME), "-1");
        }
    }
}

/// Puts Debian's busybox for arm64 there.
pub fn busybox_for_arm64(to: &Path) {
    let scratch = crate::scratch::Scratch::new("arm64");
    let mirror = std::env::var("SLIPWAY_TEST_DEBIAN_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    let mut unpack = command(tool("mmdebstrap"));
    unpack.args(["--quiet", "--variant=extract", "--architectures=arm64"]);
    unpack.args(["--include=busybox-static", SUITE]).arg(scratch.join("root"));
    run(unpack.arg(format!("deb {mirror} {SUITE} main"))).ok();
    let from = scratch.join("root/bin/busybox");
    fs::copy(&from, to).unwrap_or_else(|e| panic!("copying {}: {e}", from.display()));
}

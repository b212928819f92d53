//! Operating system and processor, as OCI and `--platform` name them.

use crate::canon::Canon;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// A platform: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, lower-case.
    pub os: String,
    /// The processor, by Go's names: `amd64`, `arm64`, `arm`.
    pub arch: String,
    /// The processor's variant (`v7`), or empty.
    pub variant: String,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform: {why}")]
pub struct PlatformError {
    /// The text as given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Platform {
    /// The platform of the machine that this binary was compiled for.
    pub fn host() -> Self {
        let arch = std::env::consts::ARCH;
        Self::normal("linux", arch, if arch == "arm" { "v7" } else { "" })
    }

    fn normal(os: &str, arch: &str, variant: &str) -> Self {
        let os = match os {
            "macos" => "darwin",
            os => os,
        };
        let (arch, variant) = match (arch, variant) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", if v == "v1" { "" } else { v }),
            ("aarch64" | "arm64", v) => ("arm64", if matches!(v, "8" | "v8") { "" } else { v }),
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self { os: os.to_owned(), arch: arch.to_owned(), variant: variant.to_owned() }
    }

    /// Reads `os/arch[/variant]`, or an `os` or `arch` alone that is completed from the host's.
    /// Names are brought to the form that registries use (`aarch64` is `arm64`).
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let fail = |why| Err(PlatformError { text: text.chars().take(80).collect(), why });
        let lower = text.to_ascii_lowercase();
        let fine = |p: &&str| {
            !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        };
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(fine) {
            return fail("its parts are names of letters, digits, `_`, `-` and `.`");
        }
        const OSES: [&str; 13] = [
            "aix",
            "android",
            "darwin",
            "dragonfly",
            "freebsd",
            "illumos",
            "js",
            "linux",
            "macos",
            "netbsd",
            "openbsd",
            "solaris",
            "windows",
        ];
        const ARCHES: [&str; 24] = [
            "386", "amd64", "arm", "arm64", "armel", "armhf", "aarch64", "i386", "i686", "loong64",
            "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x",
            "sparc64", "wasm", "x86_64", "x86-64", "x86", "armbe",
        ];
        let host = Self::host();
        match parts[..] {
            [one] if OSES.contains(&one) => Ok(Self::normal(one, &host.arch, &host.variant)),
            [one] if ARCHES.contains(&one) => Ok(Self::normal("linux", one, "")),
            [_] => fail("it names no known operating system and no known processor"),
            [os, arch] => Ok(Self::normal(os, arch, "")),
            [os, arch, variant] => Ok(Self::normal(os, arch, variant)),
            _ => fail("expected `os/arch` or `os/arch/variant`"),
        }
    }

    /// As an image config names it, brought to the same form as [`Platform::parse`] does.
    pub fn from_config(os: &str, arch: &str, variant: &str) -> Self {
        Self::normal(&os.to_ascii_lowercase(), &arch.to_ascii_lowercase(), variant)
    }

    /// Whether a machine of this platform runs programs of `other` without an emulator.
    pub fn runs(&self, other: &Platform) -> bool {
        let older_arm = || {
            let level = |v: &str| v.trim_start_matches('v').parse::<u8>().unwrap_or(8);
            level(&other.variant) <= level(&self.variant)
        };
        self.os == other.os
            && match (self.arch.as_str(), other.arch.as_str()) {
                ("amd64", "386") => true,
                ("arm", "arm") => older_arm(),
                (a, b) => a == b,
            }
    }

    /// Adds the platform to an identity.
    pub fn canon(&self, c: &mut Canon<'_>) {
        c.text(&self.os).text(&self.arch).text(&self.variant);
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        let show = |t: &str| Platform::parse(t).map(|p| p.to_string());
        assert_eq!(show("linux/aarch64").unwrap(), "linux/arm64");
        assert_eq!(show("Linux/ARM/7").unwrap(), "linux/arm/v7");
        assert_eq!(show("linux/arm64/v8").unwrap(), "linux/arm64");
        assert_eq!(show("arm64").unwrap(), "linux/arm64");
        for bad in ["", "bogus", "a/b/c/d", "linux/", "linux/a b"] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }
}

//! The programs of the machine that scenarios use, and the packages that bring them.

use std::path::{Path, PathBuf};

/// Where Debian keeps programs. `/usr/local` is left out on purpose: what lies there is not the
/// version that is meant.
const PLACES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Programs and their Debian packages, where the names differ.
const PACKAGES: [(&str, &str); 18] = [
    ("bridge", "iproute2"),
    ("busybox", "busybox-static"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("python3", "python3"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("setcap", "libcap2-bin"),
    ("setfacl", "acl"),
    ("ldd", "libc-bin"),
    ("ssh-add", "openssh-client"),
    ("ssh-agent", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
];

/// The path of a program. Panics, naming the package, when it is not installed.
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| {
        let package = PACKAGES.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, p)| p);
        panic!("`{name}` is not installed: apt-get install {package} (see ops/packages.txt)")
    })
}

fn find(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

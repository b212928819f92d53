//! A host that gives git repositories by ssh.

use crate::hosts::{Host, Site};
use crate::service::Service;
use crate::tool::tool;

/// What it is called by all hosts of its site.
pub const FORGE: &str = "forge";

/// When the repository's commit was made: seconds since 1970.
pub const COMMITTED: i64 = 1_600_000_000;

/// Who may come, by which keys: nobody by any other way.
const SETTINGS: &str = "
ListenAddress 0.0.0.0
HostKey /root/host
PidFile none
AuthorizedKeysFile /root/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
";

/// One commit with one file; and a repository of which that one is a submodule, by the name of this host
/// or, in the branch `elsewhere`, by its address.
const REPOSITORIES: &str = "
set -e
commit() { git -c user.name=ann -c user.email=ann@example.org commit -q -m one; }
submodule() {
    printf '[submodule \"inner\"]\\n\\tpath = inner\\n\\turl = %s\\n' $1 > .gitmodules
    git add .gitmodules && commit
}
mkdir /root/work && cd /root/work
git init -q -b main
echo of git > file
git add file
commit
git clone -q --bare . /root/r.git
inner=$(git rev-parse HEAD)
mkdir /root/around && cd /root/around
git init -q -b main
git update-index --add --cacheinfo 160000,$inner,inner
submodule ../r.git
git checkout -q -b elsewhere
submodule root@$ADDRESS:/root/r.git
git clone -q --bare --branch main . /root/around.git
";

/// A forge that runs. It has to end before its site does.
#[derive(Debug)]
pub struct Forge {
    service: Service,
    host: Host,
}

impl Forge {
    /// One with its repositories, for whoever has one of these keys.
    pub fn start(site: &Site, public_keys: &str) -> Self {
        let host = site.host(FORGE);
        host.write("/root/authorized", public_keys);
        host.write("/root/sshd.conf", SETTINGS);
        // sshd gives its rights up for those of this account.
        let accounts = "root:x:0:0::/root:/bin/sh\nsshd:x:109:65534::/run/sshd:/usr/sbin/nologin\n";
        host.write("/etc/passwd", accounts);
        // No password is right, which is not yet a locked account.
        host.write("/etc/shadow", "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n");
        let key = ["-q", "-N", "", "-t", "ed25519", "-f", "/root/host"];
        host.command(tool("ssh-keygen"), key).run().ok();
        let time = format!("{COMMITTED} +0000");
        let make = host.command("sh", ["-c", REPOSITORIES]).env("ADDRESS", host.ip().to_string());
        make.env("GIT_COMMITTER_DATE", time).run().ok();
        host.command("mkdir", ["-p", "/run/sshd"]).run().ok();
        let mut service =
            host.command(tool("sshd"), ["-D", "-e", "-f", "/root/sshd.conf"]).serve("sshd");
        service.until("sshd", |log| log.contains("Server listening").then_some(()));
        Self { service, host }
    }

    /// The repository, as `user@host:path`.
    pub fn repository(&self) -> String {
        format!("root@{FORGE}:/root/r.git")
    }

    /// The repository's URL.
    pub fn url(&self) -> String {
        format!("ssh://root@{FORGE}/root/r.git")
    }

    /// A repository of which the other one is the submodule `inner`.
    pub fn around(&self) -> String {
        format!("root@{FORGE}:/root/around.git")
    }

    /// A line of `known_hosts` with its key.
    pub fn known(&self) -> String {
        self.known_as(FORGE)
    }

    /// The same by its address, of which nobody but the branch `elsewhere` speaks.
    pub fn known_by_address(&self) -> String {
        self.known_as(&self.host.ip().to_string())
    }

    fn known_as(&self, name: &str) -> String {
        let key = self.host.read("/root/host.pub");
        format!("{name} {}", String::from_utf8_lossy(&key))
    }

    /// What its server wrote so far.
    pub fn log(&self) -> String {
        self.service.log()
    }
}

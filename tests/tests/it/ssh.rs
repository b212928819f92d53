//! ssh agents in RUN: real agents, real keys, and OpenSSH's own programs in the container.

use crate::cache::until;
use crate::secrets::containing;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tests::cluster::HOME;
use tests::command::{DEADLINE, Outcome, command, run, run_with};
use tests::corpus;
use tests::forge::{COMMITTED, FORGE, Forge};
use tests::hosts::{Host, Site as Hosts};
use tests::roles::Roles;
use tests::scratch::Scratch;
use tests::service::Service;
use tests::site::Site;
use tests::slipway::program;
use tests::tool::tool;

/// Lists the keys of the agent, and signs with the one whose public half is `/id.pub`.
const SIGNING: &str = "
FROM conf/busybox:1
COPY tools /
COPY id.pub message /
RUN --mount=type=ssh ssh-add -l | cut -d' ' -f2 > /keys \\
    && ssh-keygen -q -Y sign -n test -f /id.pub < /message > /message.sig
FROM scratch
COPY --from=0 /keys /message.sig /
";

const MESSAGE: &str = "what is signed\n";

/// Whoever has a key.
struct Person {
    home: Scratch,
}

impl Person {
    fn new(kind: &str) -> Self {
        let home = Scratch::new("person");
        let mut program = command(tool("ssh-keygen"));
        program.args(["-q", "-N", "", "-C", "ann", "-t", kind, "-f"]).arg(home.join("id"));
        run(&mut program).ok();
        Self { home }
    }

    fn key(&self) -> PathBuf {
        self.home.join("id")
    }

    /// An agent that has the key.
    fn agent(&self) -> (Service, PathBuf) {
        let socket = self.home.join("agent");
        let mut agent = Service::start(
            command(tool("ssh-agent")).arg("-D").arg("-a").arg(&socket),
            &self.home.join("log"),
        );
        agent.until("ssh-agent", |log| log.contains("SSH_AUTH_SOCK").then_some(()));
        run(ask(&socket).arg("-q").arg(self.key())).ok();
        (agent, socket)
    }

    /// What `ssh-keygen -l` has of the key, as `ssh-add -l` does.
    fn fingerprint(&self) -> String {
        let listed = run(command(tool("ssh-keygen")).arg("-lf").arg(self.key())).ok().text();
        listed.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// The step saw the key, and signed with it.
    #[track_caller]
    fn assert_signed(&self, out: &Path) {
        let keys = fs::read_to_string(out.join("keys")).expect("the keys that were listed");
        assert_eq!(keys.trim(), self.fingerprint());
        let public = fs::read_to_string(self.home.join("id.pub")).expect("a public key");
        let signers = self.home.write("signers", format!("ann {public}"));
        let mut verify = command(tool("ssh-keygen"));
        verify.args(["-Y", "verify", "-I", "ann", "-n", "test", "-f"]).arg(signers);
        verify.arg("-s").arg(out.join("message.sig"));
        run_with(&mut verify, MESSAGE.as_bytes(), DEADLINE).ok();
    }
}

/// `ssh-add`, which asks the agent of that socket.
fn ask(socket: &Path) -> std::process::Command {
    let mut program = command(tool("ssh-add"));
    program.env("SSH_AUTH_SOCK", socket);
    program
}

/// OpenSSH's programs of this machine, with the libraries that they need, as `tools` in a context.
fn give_tools(context: &Scratch) {
    context.write("tools/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    for program in ["ssh-add", "ssh-keygen"].map(tool) {
        let listed = run(command(tool("ldd")).arg(&program)).ok().text();
        let files = listed.split_whitespace().filter(|word| word.starts_with('/'));
        for file in files.map(PathBuf::from).chain([program.clone()]) {
            let inside = file.strip_prefix("/").expect("an absolute path");
            let to = context.join("tools").join(inside);
            fs::create_dir_all(to.parent().expect("below the context")).expect("a directory");
            fs::copy(&file, &to).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        }
    }
}

/// A context in which steps list keys and sign.
fn signing(context: &Scratch, person: &Person) {
    give_tools(context);
    context.write("message", MESSAGE);
    fs::copy(person.home.join("id.pub"), context.join("id.pub")).expect("a public key");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the tests is UTF-8")
}

#[test]
fn a_step_lists_the_keys_of_an_agent_and_signs_with_them() {
    let person = Person::new("ed25519");
    let (_agent, socket) = person.agent();
    let mut site = Site::of(SIGNING);
    signing(&site.context, &person);
    let by_socket = format!("default={}", text(&socket));
    let by_key = format!("default={}", text(&person.key()));
    let out = Scratch::new("out");
    site.slipway.set_env("SSH_AUTH_SOCK", text(&socket));
    for ssh in ["default", &by_socket, &by_key] {
        let to = out.join("files");
        site.build(&["--ssh", ssh, "--no-cache", "-o", text(&to)]).ok();
        person.assert_signed(&to);
        fs::remove_dir_all(to).expect("what was written");
    }
    // Another agent is no reason to run the step again.
    site.build(&["--ssh", &by_key]).ok().says("CACHED");
}

#[test]
fn keys_of_other_kinds_sign_from_their_files() {
    for kind in ["rsa", "ecdsa"] {
        let person = Person::new(kind);
        let site = Site::of(SIGNING);
        signing(&site.context, &person);
        let (ssh, out) = (format!("default={}", text(&person.key())), Scratch::new("out"));
        let to = out.join("files");
        site.build(&["--ssh", &ssh, "-o", text(&to)]).ok();
        person.assert_signed(&to);
    }
}

#[test]
fn an_agent_is_not_changed_and_nothing_of_it_is_kept() {
    let person = Person::new("ed25519");
    let (_agent, socket) = person.agent();
    let site = Site::of(
        "
FROM conf/busybox:1
COPY tools /
RUN --mount=type=ssh ssh-keygen -q -N '' -f /own && ! ssh-add /own && ! ssh-add -D
RUN --mount=type=ssh ssh-add -L | cut -d' ' -f2 | sha256sum > /sum
RUN --mount=type=ssh for i in $(seq 100); do { ssh-add -L > /dev/null || touch /failed; } & done; \\
    wait; test ! -e /failed
",
    );
    give_tools(&site.context);
    let ssh = format!("default={}", text(&socket));
    site.build(&["--ssh", &ssh]).ok();
    let keys = run(ask(&socket).arg("-l")).ok().text();
    assert!(keys.contains(&person.fingerprint()), "{keys}");
    assert_eq!(keys.lines().count(), 1, "{keys}");
    // What every answer to a list holds: the last part of the public key, as bytes and as text.
    let public = fs::read_to_string(person.home.join("id.pub")).expect("a public key");
    let encoded = public.split(' ').nth(1).expect("a key").to_owned();
    let decoded = run_with(command(tool("base64")).arg("-d"), encoded.as_bytes(), DEADLINE).ok();
    let bytes = &decoded.stdout[decoded.stdout.len() - 32..];
    site.slipway.stop();
    for known in [bytes, encoded.as_bytes()] {
        assert_eq!(containing(site.slipway.home(), known), [""; 0]);
    }
}

#[test]
fn each_mount_has_a_socket_with_its_own_place_mode_and_owner() {
    let person = Person::new("ed25519");
    let site = Site::of(
        "
FROM conf/busybox:1
RUN --mount=type=ssh,id=a --mount=type=ssh,id=a,target=/own,mode=0666,uid=5,gid=6 \\
    stat -c '%n %F %a %u:%g' /run/buildkit/ssh_agent.0 /own && echo \"at $SSH_AUTH_SOCK\"
ENV SSH_AUTH_SOCK=/own
RUN --mount=type=ssh,id=a echo \"then at $SSH_AUTH_SOCK\"
",
    );
    site.build(&["--ssh", &format!("a={}", text(&person.key()))])
        .ok()
        .says("/run/buildkit/ssh_agent.0 socket 600 0:0")
        .says("/own socket 666 5:6")
        .says(" at /run/buildkit/ssh_agent.0")
        .says("then at /own");
}

#[test]
fn what_is_not_given_is_an_error_where_it_must_be_there() {
    let site = Site::of("FROM conf/busybox:1\nRUN --mount=type=ssh,required true\n");
    site.build(&[]).fails(1).says("ssh agent `default`").says("Dockerfile:2").says("--ssh default");
    site.dockerfile(
        "
FROM conf/busybox:1
RUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK && echo at $SSH_AUTH_SOCK
",
    );
    site.build(&[]).ok().says("at /run/buildkit/ssh_agent.0");
    site.build(&["--ssh", "default"]).fails(1).says("SSH_AUTH_SOCK is not set");
    site.build(&["--ssh", "x=/nowhere/at/all"]).fails(1).says("/nowhere/at/all");
    site.build(&["--ssh", "x=a,"]).fails(2).says("ID=SOCKET");
    let text = format!("x={}", text(&site.write("key", "no key")));
    site.build(&["--ssh", &text]).fails(1).says("no private key");
}

#[test]
fn a_step_says_why_its_agent_refuses() {
    let person = Person::new("ed25519");
    let (mut agent, socket) = person.agent();
    let site = Site::of("FROM conf/busybox:1\nCOPY tools /\nRUN --mount=type=ssh ssh-add -l\n");
    give_tools(&site.context);
    // Its socket stays behind.
    agent.kill();
    site.build(&["--ssh", &format!("default={}", text(&socket))])
        .fails(1)
        .says("The ssh agent `default` cannot be asked: nothing comes from")
        .says(text(&socket))
        .says("did not complete successfully");
}

#[test]
fn a_step_ends_when_whoever_has_the_agent_is_gone() {
    let person = Person::new("ed25519");
    let site = Site::of(
        "
FROM conf/busybox:1
COPY tools /
RUN --mount=type=ssh while ssh-add -l; do sleep 0.1; done
",
    );
    give_tools(&site.context);
    let ssh = format!("default={}", text(&person.key()));
    let build = site.start_build(&["--ssh", &ssh, "--progress", "plain"]);
    until("the agent is asked", || build.so_far().contains(&person.fingerprint()));
    build.signal(Signal::KILL);
    until("the build is over", || site.slipway.run(&["builds"]).text().contains("cancelled"));
    site.slipway.stop();
    site.slipway.assert_gone();
}

#[test]
fn agents_are_reached_from_the_workers_of_a_farm() {
    let (person, registry) = (Person::new("ed25519"), corpus::registry());
    let (_agent, socket) = person.agent();
    let mut farm = Roles::new(&registry, 2);
    let (context, out) = (Scratch::new("context"), Scratch::new("out"));
    signing(&context, &person);
    context.write("Dockerfile", SIGNING);
    let (by_socket, to) = (format!("default={}", text(&socket)), out.join("files"));
    let build = |flags: &[&str]| -> Outcome { farm.client.build(flags, context.path()) };
    build(&["--ssh", &by_socket, "-o", text(&to)]).ok();
    person.assert_signed(&to);
    build(&["--no-cache"]).fails(1).says("did not complete successfully");
    farm.stop();
}

/// A host with a key of its own, which builds what the forge gives.
fn builder(hosts: &Hosts) -> (Host, String) {
    let host = hosts.host("builder");
    for (name, kind) in [("id", "ed25519"), ("other", "ed25519"), ("rsa", "rsa")] {
        let file = format!("/root/{name}");
        let key = ["-q", "-N", "", "-C", name, "-t", kind, "-f", &file];
        host.command(tool("ssh-keygen"), key).run().ok();
    }
    let public = String::from_utf8(host.read("/root/id.pub")).expect("a public key is a text");
    (host, public)
}

#[track_caller]
fn fetch(host: &Host, source: &str, flags: &[&str]) -> Outcome {
    host.write("/root/context/Dockerfile", format!("FROM scratch AS src\nADD {source} /\n"));
    let args = [&["build", "-o", "/root/out"], flags, &["/root/context"]].concat();
    host.command(program(), &args).run()
}

#[test]
fn add_reaches_repositories_by_the_agent_of_the_client() {
    let hosts = Hosts::new();
    let (host, public) = builder(&hosts);
    let forge = Forge::start(&hosts, &public);
    let agent = host.command(tool("ssh-agent"), ["-D", "-a", "/root/agent"]);
    let mut agent = agent.serve("ssh-agent");
    agent.until("ssh-agent", |log| log.contains("SSH_AUTH_SOCK").then_some(()));
    let add = host.command(tool("ssh-add"), ["-q", "/root/id"]);
    add.env("SSH_AUTH_SOCK", "/root/agent").run().ok();
    // Neither an agent that has not the key is a way in, nor one of another name.
    host.write("/root/.ssh/known_hosts", forge.known());
    fetch(&host, &forge.repository(), &[]).fails(1).says("--ssh default").says("Dockerfile:2");
    let other = ["--ssh", "default=/root/other"];
    fetch(&host, &forge.repository(), &other).fails(1).says("Permission denied").says("ssh-add -l");
    let named = ["--ssh", "other=/root/id"];
    fetch(&host, &forge.repository(), &named).fails(1).says("--ssh default");
    for source in [forge.repository(), forge.url()] {
        for ssh in ["default=/root/agent", "default=/root/id"] {
            let epoch = ["--ssh", ssh, "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=src"];
            fetch(&host, &source, &epoch).ok();
            assert_eq!(host.read("/root/out/file"), b"of git\n", "{source} {ssh}");
            let about = fs::symlink_metadata(host.path("/root/out/file")).expect("a file");
            assert_eq!(about.mtime(), COMMITTED, "{source} {ssh}");
            host.command("rm", ["-r", "/root/out"]).run().ok();
        }
    }
    assert!(forge.log().contains("Accepted publickey for root"), "{}", forge.log());
    // Another agent is no reason to fetch it again.
    fetch(&host, &forge.url(), &["--ssh", "default=/root/id"]).ok().says("CACHED");
    // The socket, what was known of the host for it, and the checkout are gone.
    let left = host.command("ls", [&format!("{HOME}/worker/scratch")]).run().ok().text();
    let of_git = |name: &str| name.starts_with("ssh-") || name.starts_with("git-");
    assert!(!left.lines().any(of_git), "{left}");
    host.command(program(), ["down", "--now"]).run().ok();
}

#[test]
fn add_takes_no_other_key_of_a_host_that_the_machine_knows() {
    let hosts = Hosts::new();
    let (host, public) = builder(&hosts);
    let forge = Forge::start(&hosts, &public);
    let ssh = ["--ssh", "default=/root/id"];
    fetch(&host, &forge.repository(), &ssh).ok();
    assert!(!host.path("/root/.ssh/known_hosts").exists(), "nobody is trusted for longer");
    for wrong in ["other", "rsa"] {
        let key = String::from_utf8(host.read(format!("/root/{wrong}.pub"))).expect("a key");
        host.write("/root/.ssh/known_hosts", format!("{FORGE} {key}"));
        let refused = fetch(&host, &forge.repository(), &ssh).fails(1);
        refused.says("IDENTIFICATION HAS CHANGED").says("known_hosts");
    }
    host.write("/root/.ssh/known_hosts", forge.known());
    fetch(&host, &forge.repository(), &ssh).ok();
    assert_eq!(host.read("/root/out/file"), b"of git\n");
    host.command(program(), ["down", "--now"]).run().ok();
}

#[test]
fn submodules_lead_to_no_host_that_only_the_repository_names() {
    let hosts = Hosts::new();
    let (host, public) = builder(&hosts);
    let forge = Forge::start(&hosts, &public);
    let ssh = ["--ssh", "default=/root/id"];
    fetch(&host, &forge.around(), &ssh).ok();
    assert_eq!(host.read("/root/out/inner/file"), b"of git\n");
    host.command("rm", ["-r", "/root/out"]).run().ok();
    let elsewhere = format!("{}#elsewhere", forge.around());
    let refused = fetch(&host, &elsewhere, &ssh).fails(1);
    refused.says("Host key verification failed").says("known_hosts");
    host.write("/root/.ssh/known_hosts", forge.known_by_address());
    fetch(&host, &elsewhere, &ssh).ok();
    assert_eq!(host.read("/root/out/inner/file"), b"of git\n");
    host.command(program(), ["down", "--now"]).run().ok();
}

#[test]
fn add_reaches_repositories_without_an_agent_as_the_machine() {
    let hosts = Hosts::new();
    let (host, public) = builder(&hosts);
    let forge = Forge::start(&hosts, &public);
    host.write("/root/.ssh/id_ed25519", host.read("/root/id"));
    host.command("chmod", ["600", "/root/.ssh/id_ed25519"]).run().ok();
    fetch(&host, &forge.repository(), &[]).fails(1).says("Host key verification failed");
    host.write("/root/.ssh/known_hosts", forge.known());
    // With an agent, the machine's own keys are no way in.
    host.write("/root/.ssh/config", "IdentityFile /root/id\nIdentityFile ~/.ssh/id_ed25519\n");
    let other = ["--ssh", "default=/root/other"];
    fetch(&host, &forge.repository(), &other).fails(1).says("Permission denied");
    fetch(&host, &forge.repository(), &[]).ok();
    assert_eq!(host.read("/root/out/file"), b"of git\n");
    host.command(program(), ["down", "--now"]).run().ok();
}

//! What we write is read by other people's tools, and the other way round.

use crate::sample::{content, image, layer, list, tar_of_all_kinds};
use crate::setup::{DockerRegistry, amd64, config, quiet, reference, run, session, store};
use cache::store::{Compression, Store, StoreNodes};
use cache::tree::apply::archived;
use proto::id::{BlobId, Millis, RootId};
use proto::tree::{AnyNode, DirRef, LinkId, Node};
use proto::wire::build::{ArchiveEntry, ArchiveFormat, MediaTypes};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use worker::image::archive::{Source, load, plan, write_dir, write_tar};
use worker::image::manifest::ImageSet;
use worker::image::pack::{Packer, gzip, zstd};
use worker::image::push::push;

/// One line for each file of a tree: all that an archive carries, times in whole seconds.
fn tree_lines(store: &dyn Store, root: &RootId, xattrs: bool) -> Vec<String> {
    type Lines = Vec<(String, Option<LinkId>)>;
    fn walk(store: &dyn Store, dir: &DirRef, at: &str, xattrs: bool, out: &mut Lines) {
        let AnyNode::Dir(node) = &*store.node(&dir.tree).unwrap() else { panic!() };
        for entry in node.entries() {
            let path = format!("{at}/{}", entry.name);
            let m = &entry.meta;
            let (kind, link) = match &entry.node {
                Node::Dir(below, _) => {
                    walk(store, below, &path, xattrs, out);
                    continue;
                }
                Node::File { size, link, .. } => (format!("file {size}"), *link),
                Node::Symlink(to) => (format!("-> {}", to.escape_ascii()), None),
                Node::Char(major, minor) => (format!("char {major}:{minor}"), None),
                Node::Fifo => ("fifo".to_owned(), None),
                other => panic!("{other:?}"),
            };
            let mut line =
                format!("{path} {:o} {}:{} {} {kind}", m.mode, m.uid, m.gid, m.mtime.seconds);
            for (name, value) in m.xattrs.iter().filter(|_| xattrs) {
                line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
            }
            out.push((line, link));
        }
    }
    let AnyNode::Root(root) = &*store.node(&root.0).unwrap() else { panic!() };
    let mut lines = Vec::new();
    walk(store, &root.dir, "", xattrs, &mut lines);
    let all = lines.clone();
    let names = |link| all.iter().filter(|(_, l)| link == *l).count();
    let show = |(line, link): (String, Option<LinkId>)| match link {
        Some(link) => format!("{line} x{}", names(Some(link))),
        None => line,
    };
    let mut lines: Vec<String> = lines.into_iter().map(show).collect();
    lines.sort();
    lines
}

/// The same lines for a directory on disk.
fn disk_lines(root: &Path, xattrs: bool) -> Vec<String> {
    let (mut lines, mut dirs) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                dirs.push(path);
                continue;
            }
            let (kind, rdev) = (meta.file_type(), meta.rdev());
            let kind = if kind.is_symlink() {
                let to = std::fs::read_link(&path).unwrap();
                format!("-> {}", to.as_os_str().as_bytes().escape_ascii())
            } else if kind.is_char_device() {
                format!("char {}:{}", rdev >> 8, rdev & 0xff)
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                format!("file {}", meta.len())
            };
            let shown = format!("/{}", path.strip_prefix(root).unwrap().display());
            let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            let mode = if meta.is_symlink() { 0o644 } else { mode };
            let mut line = format!("{shown} {mode:o} {uid}:{gid} {} {kind}", meta.mtime());
            if xattrs && meta.is_file() {
                line += &attributes(&path);
            }
            if meta.is_file() && meta.nlink() > 1 {
                line += &format!(" x{}", meta.nlink());
            }
            lines.push(line);
        }
    }
    lines.sort();
    lines
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut shown: Vec<String> = names
        .map(|name| {
            let mut value = vec![0u8; 4096];
            let text = std::ffi::OsStr::from_bytes(name);
            let length = rustix::fs::lgetxattr(path, text, &mut value).unwrap();
            format!(" {}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    shown.sort();
    shown.concat()
}

fn save(store: &dyn Store, blob: &BlobId, file: &Path) {
    let mut content = store.open(blob, 0).unwrap();
    io::copy(&mut content, &mut File::create(file).unwrap()).unwrap();
}

#[test]
fn gnu_tar_and_python_read_our_layers() {
    let store = store();
    let diff = layer(&*store, &tar_of_all_kinds());
    let (held, made) = archived(&StoreNodes(&*store), &diff).unwrap();
    store.put_nodes(&made.into_nodes()).unwrap();
    let packer = Packer::new(store.clone(), 2);
    let dir = tempfile::tempdir().unwrap();
    for how in [Compression::None, gzip(0).unwrap(), zstd(0).unwrap()] {
        let file = dir.path().join("layer");
        save(&*store, &packer.layer(&diff, how).unwrap().packed.blob, &file);
        let into = |name: &str| {
            let path = dir.path().join(format!("{name} {how:?}"));
            std::fs::create_dir(&path).unwrap();
            path
        };
        let gnu = into("gnu");
        let options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"];
        run(Command::new("tar").args(options).arg(&file).arg("-C").arg(&gnu));
        assert_eq!(disk_lines(&gnu, true), tree_lines(&*store, &held, true), "{how:?}");
        if matches!(how, Compression::Zstd(_)) {
            continue; // Python learns zstd in 3.14.
        }
        let python = into("python");
        let script = "import sys, tarfile\n\
                      with tarfile.open(sys.argv[1]) as t: t.extractall(sys.argv[2], numeric_owner=True)";
        run(Command::new("python3").args(["-c", script]).arg(&file).arg(&python));
        // It gives symlinks no times.
        let without = |mut lines: Vec<String>| {
            lines.retain(|line| !line.contains("->"));
            lines
        };
        let (disk, tree) = (disk_lines(&python, false), tree_lines(&*store, &diff, false));
        assert_eq!(without(disk), without(tree), "{how:?}");
    }
}

/// Archives of GNU tar, in all its forms.
#[test]
fn we_read_what_gnu_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let script = "mkdir -p deep/$(printf 'd%.0s' $(seq 120))/e && (cd deep/d*/e && echo x > f) && \
        printf start > sparse && truncate -s 3M sparse && printf end >> sparse && \
        truncate -s 1M hole && ln sparse sparse2 && ln -s $(printf 'l%.0s' $(seq 150)) long && \
        mkfifo p && printf 'non-utf8' > $(printf 'n\\377') && chown 7:2097153 hole && chmod 4750 hole";
    run(Command::new("sh").args(["-ec", script]).current_dir(&tree));
    let on_disk = disk_lines(&tree, false);
    let fixed = |lines: Vec<String>| -> Vec<String> {
        // Whatever the umask of links, and names that are no text.
        lines.into_iter().filter(|l| !l.contains("->") && !l.starts_with("/n")).collect()
    };
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--sparse", "-J"],
        &["--format=posix", "-j"],
        &["--format=posix", "--zstd"],
    ] {
        let file = dir.path().join("archive");
        let mut tar = Command::new("tar");
        run(tar
            .args(options)
            .arg("--numeric-owner")
            .arg("-cf")
            .arg(&file)
            .arg("-C")
            .arg(&tree)
            .arg("."));
        let store = store();
        let mut bytes = Vec::new();
        File::open(&file).unwrap().read_to_end(&mut bytes).unwrap();
        let diff = layer(&*store, &bytes);
        assert_eq!(fixed(tree_lines(&*store, &diff, false)), fixed(on_disk.clone()), "{options:?}");
        let sparse = content(&*store, &diff, "sparse").unwrap();
        assert!(sparse == std::fs::read(tree.join("sparse")).unwrap(), "{options:?}");
        let lines = list(&*store, &diff);
        assert!(lines.iter().any(|l| l.starts_with("/long -> lll") && l.len() == 159), "{lines:?}");
    }
}

fn opener(store: &Arc<dyn Store>) -> impl FnMut(&BlobId) -> io::Result<Box<dyn Read + Send>> {
    let store = store.clone();
    move |blob| store.open(blob, 0).map_err(io::Error::other)
}

fn archive(store: &Arc<dyn Store>, set: &ImageSet, format: ArchiveFormat, file: &Path) {
    let plan: Vec<ArchiveEntry> = plan(set, &["docker.io/library/app:1".into()], format).unwrap();
    let mut out = File::create(file).unwrap();
    write_tar(&plan, &mut opener(store), &mut out, file).unwrap();
}

/// An image that runs: a busybox.
fn runnable(store: &Arc<dyn Store>, media: MediaTypes) -> ImageSet {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is needed");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let layers = [layer(&**store, &tar), layer(&**store, &tar_of_all_kinds())];
    ImageSet::single(image(store, &layers, media))
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_and_buildah_take_our_images() {
    let registry = DockerRegistry::start();
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let policy = at("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let set = runnable(&store, MediaTypes::Oci);
    let docker = runnable(&store, MediaTypes::Docker);
    let id = set.images[0].config.digest.hex();
    let name = reference(&format!("{}/app:1", registry.host));
    push(&store, &session(config()), &name, &set, false, &quiet()).await.unwrap();
    archive(&store, &set, ArchiveFormat::Oci, &at("oci.tar"));
    archive(&store, &docker, ArchiveFormat::Docker, &at("docker.tar"));
    let layout = plan(&set, &["docker.io/library/app:1".into()], ArchiveFormat::Oci).unwrap();
    write_dir(&layout, &mut opener(&store), &at("layout")).unwrap();
    let sources = [
        format!("docker://{name}"),
        format!("oci-archive:{}", at("oci.tar").display()),
        format!("docker-archive:{}", at("docker.tar").display()),
        format!("oci:{}:1", at("layout").display()),
    ];
    for (index, source) in sources.iter().enumerate() {
        // To a docker-archive, so that each layer is unpacked and compared with its diff id.
        let copy = at(&format!("copy{index}.tar"));
        let to = format!("docker-archive:{}:copy:1", copy.display());
        let mut skopeo = Command::new("skopeo");
        let options = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false"];
        run(skopeo.args(options).args([source, &to]));
        let back = crate::setup::store();
        let input = Box::new(File::open(&copy).unwrap());
        let loaded = load(&*back, Source::Tar(input), &amd64(), Millis(1)).unwrap();
        assert_eq!(loaded[0].names, ["docker.io/library/copy:1"], "{source}");
        let root = loaded[0].image.layers[1].diff.unwrap();
        assert_eq!(content(&*back, &root, "etc/motd").unwrap(), b"hello\n");
    }
    let buildah = |args: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run"));
        run(command.args(["--storage-driver", "vfs"]).args(args)).trim().to_owned()
    };
    let policy = policy.display().to_string();
    let pull = ["pull", "-q", "--tls-verify=false", "--signature-policy", &policy];
    for source in &sources[..3] {
        assert_eq!(buildah(&[&pull[..], &[source]].concat()), id, "{source}");
    }
    let container = buildah(&["from", "--signature-policy", &policy, "--pull-never", &id]);
    let mounted = PathBuf::from(buildah(&["mount", &container]));
    assert_eq!(std::fs::read(mounted.join("etc/motd")).unwrap(), b"hello\n");
    assert_eq!(std::fs::metadata(mounted.join("usr/bin/tool")).unwrap().mode() & 0o7777, 0o4755);
    buildah(&["umount", &container]);
    buildah(&["rm", &container]);
}

/// A Docker engine of its own, without a network.
struct Docker {
    child: Child,
    dir: tempfile::TempDir,
}

impl Docker {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("pid"));
        command.arg("-H").arg(format!("unix://{}", at("socket").display()));
        command.args([
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]);
        let log = File::create(at("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let docker = Self { child: child.expect("dockerd (Debian: docker.io) is needed"), dir };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker.command(&["version"]).output().unwrap().status.success() {
            let log = std::fs::read_to_string(docker.dir.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "dockerd does not start: {log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let socket = self.dir.path().join("socket");
        command.arg("-H").arg(format!("unix://{}", socket.display())).args(args);
        command.env("DOCKER_CONFIG", self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Asked to end, it takes its containerd with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_loads_pulls_runs_and_saves_our_images() {
    let registry = DockerRegistry::start();
    let (docker, store, dir) = (Docker::start(), store(), tempfile::tempdir().unwrap());
    let file = dir.path().join("image.tar");
    for (format, media) in
        [(ArchiveFormat::Oci, MediaTypes::Oci), (ArchiveFormat::Docker, MediaTypes::Docker)]
    {
        let set = runnable(&store, media);
        archive(&store, &set, format, &file);
        let said = docker.run(&["load", "-i", file.to_str().unwrap()]);
        assert!(said.contains("app:1"), "{said}");
        let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", "app:1"]);
        assert_eq!(id, set.images[0].config.digest.to_string());
        let ran = ["run", "--rm", "--network=none", "app:1", "/bin/busybox", "cat", "/etc/motd"];
        assert_eq!(docker.run(&ran), "hello");
        docker.run(&["rmi", "app:1"]);
        let name = reference(&format!("{}/app:{format:?}", registry.host).to_lowercase());
        push(&store, &session(config()), &name, &set, false, &quiet()).await.unwrap();
        docker.run(&["pull", "-q", &name.to_string()]);
        let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", &name.to_string()]);
        assert_eq!(id, set.images[0].config.digest.to_string());
        // And back again.
        docker.run(&["save", "-o", file.to_str().unwrap(), &name.to_string()]);
        let back = crate::setup::store();
        let input = Box::new(File::open(&file).unwrap());
        let loaded = load(&*back, Source::Tar(input), &amd64(), Millis(1)).unwrap();
        assert_eq!(loaded[0].names, [name.to_string()]);
        assert_eq!(loaded[0].image.id, set.images[0].config.digest);
        docker.run(&["rmi", &name.to_string()]);
    }
}

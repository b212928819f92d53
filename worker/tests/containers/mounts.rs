//! What a step's mounts show.

use crate::house::*;
use proto::error::Class;
use proto::step::{
    BindMount, CacheMount, Mount, MountKind, RunOp, SecretMount, Sharing, SshMount, TmpfsMount,
};
use std::os::unix::net::UnixDatagram;
use worker::rootfs::{Access, Stack, WrittenAs};
use worker::sandbox::{Inputs, Order, Outcome};

fn mount(target: &str, input: Option<u32>, kind: MountKind) -> Mount {
    Mount { target: target.to_owned(), input, kind }
}

fn bind(target: &str, source: &str, writable: bool) -> Mount {
    mount(target, Some(1), MountKind::Bind(BindMount { source: source.to_owned(), writable }))
}

fn with(mounts: Vec<Mount>, script: &str) -> RunOp {
    RunOp { mounts, ..op(script) }
}

fn run(house: &House, op: &RunOp, inputs: Inputs) -> Ran {
    let ran = house.try_order(Order { inputs, ..order(op, &house.base) }).unwrap();
    assert_eq!(ran.outcome, Outcome::Exited(0), "{}{}", ran.out, ran.err);
    ran
}

fn error(house: &House, op: &RunOp, inputs: Inputs) -> worker::sandbox::SandboxError {
    house.try_order(Order { inputs, ..order(op, &house.base) }).err().expect("it is refused")
}

/// A tree with `/sub/file`, and a link to `sub` that looks as if it led outside.
fn tree(house: &House) -> Stack {
    let store = &*house.store;
    let sub = dir(store, "sub", 0o755, vec![file(store, "file", b"shown\n", 0o644)]);
    stack(root(store, vec![sub, symlink("link", "/../../sub")]))
}

fn one(tree: Stack) -> Inputs {
    Inputs { trees: vec![tree], ..Inputs::default() }
}

#[test]
fn bind_mounts_show_a_part_of_a_tree() {
    let house = house();
    for (source, what) in [("/", "/m/sub/file"), ("/sub", "/m/file"), ("/link", "/m/file")] {
        let script = format!("cat {what}; echo x > {what} || echo refused");
        let ran = run(&house, &with(vec![bind("/m", source, false)], &script), one(tree(&house)));
        assert_eq!(ran.out, "shown\nrefused\n", "{source}");
        let captured = ran.exited.capture().unwrap();
        assert!(house.names(&captured.diff().id).is_empty());
    }
    let op = with(vec![bind("/etc/new/name", "/sub/file", false)], "cat /etc/new/name");
    assert_eq!(run(&house, &op, one(tree(&house))).out, "shown\n");
    let failed = error(&house, &with(vec![bind("/m", "/none", false)], "true"), one(tree(&house)));
    assert!(failed.to_string().contains("`/none`"), "{failed}");
    assert_eq!(failed.class(), Class::User);
}

#[test]
fn what_is_written_to_a_bind_mount_is_thrown_away() {
    let house = house();
    let tree = tree(&house);
    let script = "cat /m/file; echo mine > /m/file; echo more > /m/other; cat /m/file";
    for _ in 0..2 {
        let ran = run(&house, &with(vec![bind("/m", "/sub", true)], script), one(tree.clone()));
        assert_eq!(ran.out, "shown\nmine\n");
        assert!(house.names(&ran.exited.capture().unwrap().diff().id).is_empty());
    }
}

#[test]
fn mounts_in_mounts() {
    let house = house();
    let tmpfs = || MountKind::Tmpfs(TmpfsMount { size: 1 << 20, read_only: false });
    // The outer one stands last: parents are mounted first all the same.
    let mounts = vec![bind("/outer/sub", "/sub", false), mount("/outer", None, tmpfs())];
    let script =
        "cat /outer/sub/file; echo x > /outer/here; df -k /outer | tail -n 1 | awk '{print $2}'";
    assert_eq!(run(&house, &with(mounts, script), one(tree(&house))).out, "shown\n1024\n");
    let ran = run(
        &house,
        &with(
            vec![mount("/t", None, tmpfs())],
            "dd if=/dev/zero of=/t/big bs=1M count=2 2>&1 || true",
        ),
        Inputs::default(),
    );
    assert!(ran.out.contains("No space left"), "{}", ran.out);
}

fn secret(id: &str, required: bool) -> SecretMount {
    SecretMount { id: id.to_owned(), file: true, env: None, required, mode: 0o400, uid: 7, gid: 8 }
}

#[test]
fn secrets_as_files_and_as_variables() {
    let house = house();
    let mounts = vec![
        mount("/run/secrets/key", None, MountKind::Secret(secret("key", true))),
        mount(
            "/run/secrets/token",
            None,
            MountKind::Secret(SecretMount {
                file: false,
                env: Some("TOKEN".to_owned()),
                ..secret("token", true)
            }),
        ),
        mount("/run/secrets/none", None, MountKind::Secret(secret("none", false))),
    ];
    let script = "cat /run/secrets/key; stat -c %a:%u:%g /run/secrets/key; echo $TOKEN; \
                  ls /run/secrets; mount | grep /run/secrets/key | grep -o noexec; \
                  echo x > /run/secrets/key || echo refused";
    let secrets = || Inputs {
        secrets: [
            ("key".to_owned(), b"k3y\n".to_vec().into()),
            ("token".to_owned(), b"t0k".to_vec().into()),
        ]
        .into(),
        ..Inputs::default()
    };
    let ran = run(&house, &with(mounts.clone(), script), secrets());
    assert_eq!(ran.out, "k3y\n400:7:8\nt0k\nkey\nnoexec\nrefused\n");
    assert!(house.names(&ran.exited.capture().unwrap().diff().id).is_empty());
    let failed = error(&house, &with(mounts, "true"), Inputs::default()).failure();
    assert!(failed.message.contains("`key`") && failed.hint.is_some(), "{failed}");
}

#[test]
fn a_cache_keeps_what_was_written() {
    let house = house();
    let empty = stack(root(&*house.store, Vec::new()));
    let cache = CacheMount {
        id: "c".to_owned(),
        sharing: Sharing::Shared,
        merge: None,
        source: "/".to_owned(),
        read_only: false,
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    let op = with(vec![mount("/c", None, MountKind::Cache(cache))], "echo a > /c/a; echo b > /b");
    let overlay = house.sandbox.layers().mount(&empty, Access::Private).unwrap();
    let inputs = Inputs { caches: [(0, overlay)].into(), ..Inputs::default() };
    let captured = run(&house, &op, inputs).exited.capture().unwrap();
    assert_eq!(house.names(&captured.diff().id), ["/b"]);
    let (_, mut caches) = captured.keep().unwrap();
    let upper = caches.remove(&0).expect("the cache's changes");
    let diff = upper.capture(&*house.store, WrittenAs::Directory).unwrap();
    assert_eq!(house.names(&diff.id), ["/a"]);
}

#[test]
fn the_agents_socket_is_reached() {
    let house = house();
    // A socket of another kind than an agent's, because busybox can speak to that: with its logger.
    let path = house.path.join("agent");
    let socket = UnixDatagram::bind(&path).unwrap();
    let ssh = SshMount { id: "default".to_owned(), required: true, mode: 0o600, uid: 0, gid: 0 };
    let mounts = vec![mount("/dev/log", None, MountKind::Ssh(ssh))];
    let script = "stat -c %F:%a /dev/log; logger hello";
    let op = with(mounts, script);
    let inputs = Inputs { agents: [(0, path)].into(), ..Inputs::default() };
    assert_eq!(run(&house, &op, inputs).out, "socket:600\n");
    socket.set_nonblocking(true).unwrap();
    let mut said = [0; 100];
    let count = socket.recv(&mut said).unwrap();
    assert!(said[..count].ends_with(b"root: hello"), "{}", String::from_utf8_lossy(&said));
    let failed = error(&house, &op, Inputs::default()).failure();
    assert!(failed.message.contains("`default`"), "{failed}");
}

#[test]
fn links_in_the_image_lead_nowhere_else() {
    let house = house();
    let store = &*house.store;
    let mut entries = base_entries(store);
    entries.push(symlink("out", "/../../../../../tmp"));
    let base = stack(root(store, entries));
    let op =
        with(vec![bind("/out/slipway-was-here", "/sub", false)], "cat /tmp/slipway-was-here/file");
    let ran = house.try_order(Order { inputs: one(tree(&house)), ..order(&op, &base) }).unwrap();
    assert_eq!((ran.outcome, ran.out.as_str()), (Outcome::Exited(0), "shown\n"));
    assert!(!std::path::Path::new("/tmp/slipway-was-here").exists());
}

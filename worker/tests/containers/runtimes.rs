//! Other makers of containers: programs with the command line of runc.

use crate::house::*;
use proto::step::{Mount, MountKind, NetworkMode, RunOp, TmpfsMount};
use std::path::PathBuf;
use worker::sandbox::{Limits, Order, Outcome, Runtime};

fn works(program: &str) {
    let house = house_with(Runtime::Program(PathBuf::from(program)));
    let ran = house.run(&op("echo out; echo err >&2; echo x > /new; exit 3"));
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
    assert_eq!(ran.outcome, Outcome::Exited(3));
    let captured = ran.exited.capture().unwrap();
    assert_eq!(house.names(&captured.diff().id), ["/new"]);
    let mount = Mount {
        target: "/t".to_owned(),
        input: None,
        kind: MountKind::Tmpfs(TmpfsMount { size: 1 << 20, read_only: false }),
    };
    let user = RunOp {
        user: "app".to_owned(),
        mounts: vec![mount],
        network: NetworkMode::Default,
        ..op(
            "id -u; echo x > /t/x; ls /sys/class/net | tr '\\n' ' '; grep ^Seccomp: /proc/self/status",
        )
    };
    let ran = house.run(&user);
    assert_eq!(ran.outcome, Outcome::Exited(0), "{}{}", ran.out, ran.err);
    assert_eq!(ran.out, "1000\neth0 lo Seccomp:\t2\n");
    let status = house.sh("grep -E '^CapEff' /proc/self/status");
    assert!(status.ends_with("00000000a80425fb"), "{status}");
    let greedy = op("awk 'BEGIN { s = \"x\"; while (1) s = s s }'");
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let ran = house.try_order(Order { limits, ..order(&greedy, &house.base) }).unwrap();
    assert_eq!(ran.outcome, Outcome::OutOfMemory, "{}{}", ran.out, ran.err);
    drop(ran);
    let missing = RunOp { args: ["/none".to_owned()].into(), ..op("") };
    match house.try_order(order(&missing, &house.base)) {
        Ok(ran) => assert_ne!(ran.outcome, Outcome::Exited(0)),
        Err(e) => assert!(e.to_string().contains("none"), "{e}"),
    }
    let stubborn = op("trap '' TERM; (sleep 1000 &); echo up; sleep 1000");
    assert_eq!(house.cancel(&stubborn), Outcome::Cancelled);
}

#[test]
fn crun() {
    works("/usr/bin/crun");
}

#[test]
fn runc() {
    works("/usr/sbin/runc");
}

#[test]
fn a_missing_program_is_named() {
    let house = house_with(Runtime::Program(PathBuf::from("/no/such/runtime")));
    let error = house.fails(&op("true"));
    assert!(error.contains("/no/such/runtime"), "{error}");
}

//! What a container changes: read back as a diff tree, kept as the next step's layer.

use crate::house::*;
use worker::rootfs::Stack;
use worker::sandbox::{Captured, Outcome};

fn capture(house: &House, script: &str, on: &Stack) -> Captured {
    let op = op(script);
    let ran = house.try_order(order(&op, on)).unwrap();
    assert_eq!(ran.outcome, Outcome::Exited(0), "{script}: {}{}", ran.out, ran.err);
    ran.exited.capture().unwrap()
}

#[test]
fn nothing_done_is_nothing_changed() {
    let house = house();
    let first = capture(&house, "true", &house.base);
    assert!(house.names(&first.diff().id).is_empty());
    let second = capture(&house, "cat /etc/passwd /etc/hosts /etc/resolv.conf", &house.base);
    assert_eq!(first.diff().id, second.diff().id);
}

#[test]
fn changes_are_seen_by_the_next_step() {
    let house = house();
    let script = "mkdir -p /new/deep; echo one > /new/deep/file; rm /etc/group; \
                  ln -s deep/file /new/link; chmod 4750 /bin/busybox";
    let captured = capture(&house, script, &house.base);
    let names = house.names(&captured.diff().id);
    assert_eq!(
        names,
        [
            "-/etc/group",
            "/bin",
            "/bin/busybox",
            "/etc",
            "/new",
            "/new/deep",
            "/new/deep/file",
            "/new/link"
        ]
    );
    let (diff, caches) = captured.keep().unwrap();
    assert!(caches.is_empty());
    assert!(house.sandbox.layers().has(&diff.id));
    let next = house.upon(&house.base, &diff.id);
    let looks = "test ! -e /etc/group && stat -c %a /bin/busybox && cat /new/link && echo two > /new/deep/file";
    let op = op(looks);
    let ran = house.try_order(order(&op, &next)).unwrap();
    assert_eq!((ran.outcome, ran.out.as_str()), (Outcome::Exited(0), "4750\none\n"));
    let second = ran.exited.capture().unwrap();
    assert_eq!(house.names(&second.diff().id), ["/new", "/new/deep", "/new/deep/file"]);
}

#[test]
fn what_a_failed_step_wrote_is_gone() {
    let house = house();
    let ran = house.run(&op("echo x > /left; exit 1"));
    assert_eq!(ran.outcome, Outcome::Exited(1));
    drop(ran);
    assert_eq!(house.sh("ls /left 2>&1 || true"), "ls: /left: No such file or directory");
    let work = house.path.join("layers");
    let uppers = work_directories(&work);
    assert!(uppers.is_empty(), "{uppers:?}");
}

#[test]
fn places_made_for_mounts_are_no_change() {
    let house = house();
    // Both files are mounted over: the base has neither.
    let captured =
        capture(&house, "cat /etc/hosts > /dev/null; ls /proc /sys /dev > /dev/null", &house.base);
    assert!(house.names(&captured.diff().id).is_empty());
    // One that the step puts beside them is.
    let captured = capture(&house, "echo a > /etc/mine", &house.base);
    assert_eq!(house.names(&captured.diff().id), ["/etc", "/etc/mine"]);
}

//! The program: how it ends, what it says, who it is, where it is.

use crate::house::*;
use proto::step::RunOp;
use worker::rootfs::Stack;
use worker::sandbox::Outcome;

#[test]
fn exit_codes_and_output() {
    let house = house();
    let ran = house.run(&op("echo out; echo err >&2; exit 3"));
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
    assert_eq!(ran.outcome, Outcome::Exited(3));
    let ran = house.run(&op("sh -c 'kill -9 $$'; echo $?"));
    assert_eq!(ran.out, "137\n");
    assert!(ran.exited.took().as_nanos() > 0);
}

#[test]
fn a_signal_ends_it() {
    let house = house();
    // The first process of a namespace hears only what it listens to: its child ends, then it.
    let ran = house.run(&RunOp {
        args: ["/bin/sh", "-c", "trap 'exit 7' TERM; kill -TERM $$; sleep 60"]
            .map(String::from)
            .into(),
        ..op("")
    });
    assert_eq!(ran.outcome, Outcome::Exited(7));
}

#[test]
fn much_output_arrives_whole() {
    let house = house();
    let ran = house.run(&op("seq 1 200000; seq 1 1000 >&2"));
    assert_eq!(ran.out.lines().count(), 200_000);
    assert_eq!(ran.out.lines().last(), Some("200000"));
    assert_eq!(ran.err.lines().count(), 1000);
}

#[test]
fn children_left_behind_do_not_hold_it_up() {
    let house = house();
    assert_eq!(house.sh("sleep 1000 & echo done"), "done");
}

#[test]
fn users_and_groups() {
    let house = house();
    for (user, want) in [
        ("", "0:0:0 10 /root"),
        ("app", "1000:1000:1000 10 2000 /home/app"),
        ("1000", "1000:1000:1000 10 2000 /home/app"),
        ("app:staff", "1000:2000:2000 /home/app"),
        ("1234:5678", "1234:5678:5678 /"),
        ("1234", "1234:0:0 /"),
        ("svc", "1500:2000:2000 /home/svc"),
    ] {
        let script = "echo \"$(id -u):$(id -g):$(id -G) $HOME\"";
        let ran = house.run(&RunOp { user: user.to_owned(), ..op(script) });
        assert_eq!(ran.out.trim(), want, "{user}");
    }
    let message = house.fails(&RunOp { user: "ghost".to_owned(), ..op("id") });
    assert!(message.contains("`ghost`"), "{message}");
}

#[test]
fn a_link_to_passwd_leads_inside_only() {
    let house = house();
    let store = &*house.store;
    let mut entries = base_entries(store);
    entries.retain(|entry| entry.name.as_bytes() != b"etc");
    let links = [symlink("passwd", "/../../../data/p"), symlink("group", "../../../../etc/group")];
    entries.push(dir(store, "etc", 0o755, links.into()));
    let passwd = "inner:x:4321:8765:::\n";
    entries.push(dir(store, "data", 0o755, vec![file(store, "p", passwd.as_bytes(), 0o644)]));
    let base = stack(root(store, entries));
    let op = RunOp { user: "inner".to_owned(), ..op("id -u; id -g") };
    let ran = house.try_order(order(&op, &base)).unwrap();
    assert_eq!(ran.out, "4321\n8765\n");
}

#[test]
fn environment_and_host_name() {
    let house = house();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let ran = house.run(&RunOp {
        env: vec![pair("A", "x  y"), pair("EMPTY", ""), pair("A", "last")],
        proxy_env: vec![pair("http_proxy", "http://p:1")],
        hostname: "conf-host".to_owned(),
        ..op("env | sort; hostname")
    });
    assert_eq!(
        ran.out,
        "A=last\nEMPTY=\nHOME=/root\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nSHLVL=1\n\
         http_proxy=http://p:1\nconf-host\n"
    );
    assert_eq!(house.sh("hostname"), "buildkitsandbox");
}

#[test]
fn the_working_directory_is_made_and_owned() {
    let house = house();
    let at = |cwd: &str, user: &str| RunOp {
        cwd: cwd.to_owned(),
        user: user.to_owned(),
        ..op("pwd; stat -c %a:%u:%g .")
    };
    assert_eq!(house.run(&at("/new/deep", "app")).out, "/new/deep\n755:1000:1000\n");
    assert_eq!(house.run(&at("/tmp", "app")).out, "/tmp\n1777:0:0\n");
    let message = house.fails(&at("/etc/passwd", ""));
    assert!(message.contains("`/etc/passwd`") && message.contains("a file"), "{message}");
    let message = house.fails(&at("/etc/passwd/x", ""));
    assert!(message.contains("`/etc/passwd/x`"), "{message}");
}

#[test]
fn programs_are_found_in_the_path() {
    let house = house();
    let run = |args: &[&str]| {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let op = RunOp { args, ..op("") };
        house.try_order(order(&op, &house.base)).map(|ran| ran.out)
    };
    assert_eq!(run(&["echo", "found"]).unwrap(), "found\n");
    assert_eq!(run(&["bin/echo", "relative"]).unwrap(), "relative\n");
    for (program, why) in [
        ("no-such", "No such file"),
        ("/bin/no-such", "No such file"),
        ("/etc/passwd", "Permission denied"),
        ("/etc", "Permission denied"),
    ] {
        let error = run(&[program]).err().unwrap();
        let failure = error.failure();
        assert!(failure.message.contains(program) && failure.message.contains(why), "{failure}");
        assert!(failure.hint.is_some());
        assert_eq!(failure.class, proto::error::Class::User);
    }
}

#[test]
fn a_root_without_anything() {
    let house = house();
    let empty = root(&*house.store, Vec::new());
    let empty = Stack { diffs: Vec::new(), merged: empty };
    let error = house.try_order(order(&op("true"), &empty)).err().unwrap();
    assert!(error.to_string().contains("/bin/sh"), "{error}");
}

#[test]
fn limits_of_the_process() {
    let house = house();
    let limit = |name: &str, soft, hard| (name.to_owned(), soft, hard);
    let ran = house.run(&RunOp {
        ulimits: vec![limit("nofile", 777, 999), limit("core", 0, -1)],
        ..op("ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc")
    });
    assert_eq!(ran.out, "777\n999\n0\nunlimited\n");
    assert_eq!(house.sh("ulimit -n; umask"), "1024\n0022");
}

#[test]
fn containers_run_side_by_side() {
    let house = house();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let house = &house;
            scope.spawn(move || {
                for _ in 0..5 {
                    let script = format!("echo {n} > /mine; cat /mine; ls -d /proc/[0-9]* | wc -l");
                    let said = house.sh(&script);
                    let (first, rest) = said.split_once('\n').unwrap();
                    assert_eq!(first, n.to_string());
                    assert!(rest.trim().parse::<u32>().unwrap() < 10);
                }
            });
        }
    });
}

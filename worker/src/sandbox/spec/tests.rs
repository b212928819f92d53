use super::*;
use serde_json::{Value, json};

fn identity() -> Identity {
    Identity { uid: 1000, gid: 7, groups: vec![7, 10], home: "/home/app".to_owned() }
}

fn helper() -> Maker {
    Maker::Helper(CgroupView::Unified)
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn build<'a>(change: impl FnOnce(&mut Container<'a>)) -> Result<Value, SpecError> {
    let mut container = Container {
        args: leak(["/bin/sh".to_owned(), "-c".to_owned(), "true".to_owned()]),
        env: leak([("A".to_owned(), "1".to_owned())]),
        cwd: "/w",
        identity: leak(identity()),
        security: SecurityMode::Sandbox,
        capabilities: CapSet::DEFAULT,
        hostname: "box",
        ulimits: &[],
        shm_bytes: 0,
        mounts: &[],
        devices: &[],
        network: NetworkNamespace::Path("/proc/self/fd/9".to_owned()),
        terminal: false,
        maker: helper(),
    };
    change(&mut container);
    Ok(serde_json::to_value(container.spec()?).unwrap())
}

fn targets(spec: &Value) -> Vec<&str> {
    let mounts = spec["mounts"].as_array().unwrap();
    mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect()
}

fn namespaces(spec: &Value) -> Vec<&str> {
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    list.iter().map(|namespace| namespace["type"].as_str().unwrap()).collect()
}

#[test]
fn the_usual_container() {
    let spec = build(|_| {}).unwrap();
    let process = &spec["process"];
    assert_eq!(process["user"], json!({"uid": 1000, "gid": 7, "additionalGids": [7, 10]}));
    assert_eq!(process["env"], json!(["A=1"]));
    assert_eq!(process["cwd"], "/w");
    assert_eq!(process["noNewPrivileges"], Value::Null);
    assert_eq!(process["rlimits"], Value::Null);
    assert_eq!(process["capabilities"]["effective"].as_array().unwrap().len(), 15);
    assert_eq!(process["capabilities"]["inheritable"], json!([]));
    assert_eq!(process["capabilities"]["ambient"], json!([]));
    assert_eq!(
        targets(&spec),
        ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]
    );
    assert_eq!(namespaces(&spec), ["pid", "ipc", "uts", "mount", "cgroup", "network"]);
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), 11);
    assert_eq!(spec["linux"]["readonlyPaths"][3], "/proc/sys");
    for absent in ["seccomp", "resources", "cgroupsPath", "devices"] {
        assert_eq!(spec["linux"][absent], Value::Null, "{absent}");
    }
}

#[test]
fn without_confinement() {
    let devices = insecure_devices();
    let spec = build(|c| {
        c.security = SecurityMode::Insecure;
        c.capabilities = CapSet((1 << 41) - 1);
        c.devices = &devices;
        c.network = NetworkNamespace::Host;
    })
    .unwrap();
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["readonlyPaths"], json!([]));
    assert_eq!(spec["process"]["capabilities"]["ambient"].as_array().unwrap().len(), 41);
    assert_eq!(namespaces(&spec), ["pid", "ipc", "uts", "mount", "cgroup"]);
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/kmsg");
    let options = spec["mounts"][5]["options"].as_array().unwrap();
    assert!(options.contains(&json!("rw")) && !options.contains(&json!("ro")));
}

#[test]
fn groups_of_the_first_version_are_bound_one_by_one() {
    let controllers = vec![("memory".to_owned(), "/g/0".to_owned())];
    let spec = build(|c| c.maker = Maker::Helper(CgroupView::Split(controllers))).unwrap();
    assert_eq!(targets(&spec)[6..], ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"]);
    assert_eq!(spec["mounts"][7]["source"], "/g/0");
    assert_eq!(spec["linux"]["readonlyPaths"][5], "/sys/fs/cgroup");
    assert!(!namespaces(&spec).contains(&"cgroup"));
}

#[test]
fn for_another_runtime() {
    let device = [DeviceNode::character("/dev/fuse", 10, 229)];
    let spec = build(|c| {
        c.devices = &device;
        let seccomp = Box::new(super::super::seccomp::default_oci("x86_64"));
        c.maker = Maker::Runtime { cgroup_path: "/a/b".to_owned(), seccomp };
    })
    .unwrap();
    assert_eq!(spec["process"]["capabilities"]["effective"].as_array().unwrap().len(), 14);
    let linux = &spec["linux"];
    assert_eq!(linux["cgroupsPath"], "/a/b");
    assert_eq!(linux["resources"]["devices"][0], json!({"allow": false, "access": "rwm"}));
    assert_eq!(linux["resources"]["devices"][1]["major"], 10);
    assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    let names = linux["seccomp"]["syscalls"][0]["names"].as_array().unwrap();
    assert!(names.contains(&json!("execve")) && !names.contains(&json!("mount")));
}

#[test]
fn a_mount_takes_the_place_of_a_default_one() {
    let lines = [
        MountLine::new("tmpfs", "/dev/shm", "tmpfs", &["size=1k"]),
        MountLine::new("bind", "/x", "/m/0", &["rbind", "ro"]),
    ];
    let spec = build(|c| c.mounts = &lines).unwrap();
    assert_eq!(targets(&spec).len(), 8);
    assert_eq!(spec["mounts"][3]["options"], json!(["size=1k"]));
    assert_eq!(spec["mounts"][7]["destination"], "/x");
}

#[test]
fn shared_memory_and_limits() {
    let ulimits = [("nofile".to_owned(), 777, 999), ("CORE".to_owned(), 0, -1)];
    let spec = build(|c| {
        c.shm_bytes = 33_554_432;
        c.ulimits = &ulimits;
    })
    .unwrap();
    assert_eq!(spec["mounts"][3]["options"][4], "size=32768k");
    assert_eq!(
        spec["process"]["rlimits"],
        json!([
            {"type": "RLIMIT_NOFILE", "hard": 999, "soft": 777},
            {"type": "RLIMIT_CORE", "hard": u64::MAX, "soft": 0},
        ])
    );
    let limit = |name: &str, soft, hard| {
        let ulimits = [(name.to_owned(), soft, hard)];
        build(|c| c.ulimits = &ulimits).unwrap_err()
    };
    assert_eq!(limit("files", 1, 1), SpecError::UnknownLimit("files".to_owned()));
    assert_eq!(limit("nofile", -1, 1), SpecError::LimitOrder("nofile".to_owned()));
}

#[test]
fn bad_texts_are_refused() {
    assert_eq!(build(|c| c.args = &[]).unwrap_err(), SpecError::NoProgram);
    assert!(matches!(build(|c| c.cwd = "/a\0b"), Err(SpecError::Nul(_))));
    let bad = ["a\0".to_owned()];
    assert!(matches!(build(|c| c.args = &bad), Err(SpecError::Nul(_))));
    let bad = [("A".to_owned(), "\0".to_owned())];
    assert!(matches!(build(|c| c.env = &bad), Err(SpecError::Nul(_))));
}

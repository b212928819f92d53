use super::super::directive::Escape;
use super::*;

fn expand(text: &str) -> Result<Mount, MountError> {
    let lookup = |name: &str| (name == "T").then_some("/t");
    let mut expander = Expander::new(Escape::Backslash, &lookup);
    MountSpec::parse(text)?.expand(&mut expander)
}

fn check(text: &str, target: &str, kind: MountKind) {
    assert_eq!(expand(text), Ok(Mount { target: target.to_owned(), kind }), "{text}");
}

/// The message and the hint hold what is expected.
fn check_error(text: &str, expect: &str) {
    let error = expand(text).unwrap_err();
    let shown = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(shown.contains(expect), "{text}: {shown}");
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn binds_are_read() {
    let bind = |from: Option<&str>, source: &str, writable| MountKind::Bind {
        from: from.map(str::to_owned),
        source: source.to_owned(),
        writable,
    };
    check("target=/x", "/x", bind(None, "", false));
    check("type=BIND,src=a,dst=/x,rw", "/x", bind(None, "a", true));
    check("readwrite=true,from=s,source=/a,destination=x", "x", bind(Some("s"), "/a", true));
    check("ro=false,target=$T/y", "/t/y", bind(None, "", true));
    check("\"target=/a b\",\"source=c,d\"", "/a b", bind(None, "c,d", false));
}

#[test]
fn caches_are_read() {
    let owner = Owner { mode: 0o700, uid: 0, gid: 7 };
    let cache = |id: &str, sharing, read_only, owner| MountKind::Cache {
        id: id.to_owned(),
        from: None,
        source: String::new(),
        sharing,
        read_only,
        owner,
    };
    check("type=cache,target=/c//d/", "/c//d/", cache("/c/d", Sharing::Shared, false, None));
    let options = "type=cache,id=i,target=/c,sharing=LOCKED,ro,mode=0700,gid=7";
    check(options, "/c", cache("i", Sharing::Locked, true, Some(owner)));
}

#[test]
fn what_is_empty_has_no_source() {
    let tmpfs = |read_only| MountKind::Tmpfs { size: 0, read_only };
    check("type=tmpfs,target=/m,source=/", "/m", tmpfs(false));
    check("type=tmpfs,target=/m,rw=false", "/m", tmpfs(true));
    check_error("type=tmpfs,target=/m,source=/x", "no `/x` to mount: a tmpfs has no `source`");
    check_error("type=tmpfs,target=/m,from=s,source=x", "no `x` to mount");
    expand("type=cache,target=/m,source=q").unwrap();
    expand("type=cache,target=/m,from=s,source=q").unwrap();
}

#[test]
fn secrets_are_read() {
    let owner = Owner { mode: 0o400, uid: 0, gid: 0 };
    let secret = |id: &str, file: Option<&str>, env: Option<&str>, required| MountKind::Secret {
        id: id.to_owned(),
        file: file.map(str::to_owned),
        env: env.map(str::to_owned),
        required,
        owner,
    };
    check("type=secret,id=a/b", "", secret("a/b", Some("/run/secrets/b"), None, false));
    check("type=secret,target=/x/y,required", "/x/y", secret("y", Some("/x/y"), None, true));
    check("type=secret,src=s,env=E", "", secret("s", None, Some("E"), false));
    check("type=secret,id=s,env=E,dst=/f", "/f", secret("s", Some("/f"), Some("E"), false));
}

#[test]
fn tmpfs_and_ssh_are_read() {
    check("type=tmpfs,target=/t", "/t", MountKind::Tmpfs { size: 0, read_only: false });
    check("type=tmpfs,size=1.5k,ro,dst=/t", "/t", MountKind::Tmpfs { size: 1536, read_only: true });
    let owner = Owner { mode: 0o600, uid: 0, gid: 0 };
    let ssh = |id: &str, socket, required, owner| MountKind::Ssh {
        id: id.to_owned(),
        socket,
        required,
        owner,
    };
    check("type=ssh", "", ssh("default", None, false, owner));
    let options = "type=ssh,id=o,target=/s,mode=0666,uid=1,required=1";
    let owner = Owner { mode: 0o666, uid: 1, gid: 0 };
    check(options, "/s", ssh("o", text("/s"), true, owner));
}

#[test]
fn mistakes_are_explained() {
    check_error("", "empty");
    check_error("a\"b", "quote");
    check_error("from=$stage,target=/x", "alias");
    check_error("type=floppy", "`type=floppy` is not valid");
    check_error("type=cahce", "Did you mean `cache`?");
    check_error("taget=/x", "Did you mean `target`?");
    check_error("type=cache,target=/x,colour=red", "`colour`");
    check_error("size=1,type=tmpfs", "`size` is not for mounts of the type `bind`");
    check_error("type=tmpfs,size=big", "`size=big`");
    check_error("target=/x,uid=1", "`uid` is not for mounts of the type `bind`");
    check_error("type=cache,uid=-1", "`uid=-1`");
    check_error("type=cache,mode=888", "`mode=888`");
    check_error("type=secret", "`id`, `source` and `target`");
    check_error("type=secret,id=a,source=b", "give one of them");
    check_error("type=secret,id=a,from=b", "no `from`");
    check_error("type=secret,id=a,env=", "the name of a variable");
    check_error("type=ssh,source=a", "`source`");
    check_error("type=tmpfs,sharing=shared", "`sharing`");
    check_error("type=cache,sharing=sometimes", "shared, private or locked");
    check_error("target", "needs a value");
    check_error("ro=maybe", "true or false");
    check_error("target=${x", "missing");
}

#[test]
fn targets_count_from_the_working_directory() {
    let target = |options: &str, cwd: &str| expand(options).unwrap().target_in(cwd).ok();
    assert_eq!(target("target=/x/", "/w"), text("/x/"));
    assert_eq!(target("target=x", "/w"), text("/w/x"));
    assert_eq!(target("type=cache", "/w"), text("/w"));
    assert_eq!(target("target=.", "/"), None);
    assert_eq!(target("target=..", "/w"), None);
    assert_eq!(target("target=/", "/w"), None);
}

#[test]
fn only_the_source_stage_is_known_before_expansion() {
    let from = |options| MountSpec::parse(options).unwrap().from().map(str::to_owned);
    assert_eq!(from("type=$x,FROM=s,size=?"), text("s"));
    assert_eq!(from("from=s$"), text("s$"));
    assert_eq!(from("from="), None);
}

#[test]
fn devices_are_read() {
    let device = |name: &str, required| Ok(Device { name: name.to_owned(), required });
    assert_eq!(Device::parse("nvidia.com/gpu=all"), device("nvidia.com/gpu=all", false));
    assert_eq!(Device::parse("name=a,required"), device("a", true));
    assert_eq!(Device::parse("a,required=false"), device("a", false));
    assert_eq!(Device::parse("name=a,name=b"), Err(MountError::DeviceTwice));
    for bad in ["", "a,b", "a,requird=1", "a,required=x"] {
        assert!(Device::parse(bad).is_err(), "{bad}");
    }
}

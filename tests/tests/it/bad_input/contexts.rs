//! Contexts that are not there, that cannot be read, and that hold what no image can.

use super::Refusal;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use tests::command::{command, run};
use tests::http::{Response, Server};
use tests::scratch::Scratch;
use tests::tool::tool;

#[test]
fn contexts_that_are_no_directory_are_refused() {
    let refusal = Refusal::new();
    refusal.refuses_context(&[], Path::new("/nowhere/at/all"), &[], &["/nowhere/at/all"]);
    let file = refusal.site.write("file", "");
    refusal.refuses_context(&[], &file, &[], &["file", "directory"]);
    refusal.refuses(&[], &["Dockerfile"]);
    refusal.refuses(&["-f", "/nowhere/Dockerfile"], &["/nowhere/Dockerfile"]);
    refusal.assert_unharmed();
}

#[test]
fn contexts_from_elsewhere_that_cannot_be_had_are_refused() {
    let refusal = Refusal::new();
    let server = Server::start(|request| match request.path.as_str() {
        "/half.tar" => Response::new(200, [&b"half/"[..], &[0; 252], b"ustar\x0000"].concat()),
        _ => Response::new(404, "nothing"),
    });
    let refuse = |path: &str, says: &[&str]| {
        let url = server.url(path);
        let host = url.split('/').nth(2).expect("a host").to_owned();
        refusal.refuses_context(&[], Path::new(&url), &[], &[says, &[host.as_str()]].concat());
    };
    refuse("none.tar", &["404"]);
    refuse("half.tar", &["archive"]);
    refuse("none.git#v1:folder", &["git ls-remote"]);
    refusal.refuses_context(&[], Path::new("http://127.0.0.1:1/x"), &[], &["refused"]);
    refusal.refuses(&["--build-context", "x=other://y"], &["oci-layout", "expected"]);
    refusal.assert_unharmed();
}

#[test]
fn sockets_and_devices_are_copied_but_not_read() {
    let refusal = Refusal::new();
    let at = |name: &str| refusal.site.context.join(name);
    let _listener = UnixListener::bind(at("a-socket")).expect("a socket");
    // `/dev/zero`: it has no end.
    mknodat(CWD, at("a-device"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 5))
        .expect("root");
    refusal.site.dockerfile("FROM scratch\nCOPY a-* /\n");
    let out = Scratch::new("files");
    let to = format!("type=local,dest={}", out.path().display());
    refusal.site.build(&["-o", &to]).ok();
    let device = std::fs::metadata(out.join("a-device")).expect("a device");
    assert!(device.file_type().is_char_device() && device.rdev() == makedev(1, 5));
    assert_eq!(std::fs::read(out.join("a-socket")).expect("a file"), b"");
    refusal.assert_unharmed();
}

#[test]
fn links_do_not_lead_out_of_a_context() {
    let refusal = Refusal::new();
    let at = |name: &str| refusal.site.context.join(name);
    symlink("/etc/passwd", at("absolute")).expect("a link");
    symlink("../../../../../../../../etc/passwd", at("upwards")).expect("a link");
    symlink("/etc", at("directory")).expect("a link");
    for source in ["absolute", "upwards", "directory/passwd", "../../../etc/passwd"] {
        refusal.site.dockerfile(&format!("FROM scratch\nCOPY {source} /stolen\n"));
        refusal.refuses(&[], &["Dockerfile:2"]);
        let mount = format!("RUN --mount=type=bind,source={source},target=/m cat /m");
        refusal.site.dockerfile(&format!("FROM conf/busybox:1\n{mount}\n"));
        refusal.refuses(&[], &["Dockerfile:2"]).never_says("root:x:0:0:root:/root:/bin/bash");
    }
    refusal.assert_unharmed();
}

#[test]
fn the_dockerfile_of_an_archive_leads_nowhere_else() {
    let refusal = Refusal::new();
    let (outside, inside) = (Scratch::new("outside"), Scratch::new("inside"));
    let secret = outside.write("secret", "not for builders\n");
    symlink(secret, inside.join("Dockerfile")).expect("a link");
    mknodat(CWD, inside.join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    let tar = run(command(tool("tar")).arg("-C").arg(inside.path()).args(["-c", "."])).ok().stdout;
    for flags in [&[][..], &["-f", "pipe"], &["-f", "../outside/secret"]] {
        refusal
            .refuses_context(flags, Path::new("-"), &tar, &["Opening the Dockerfile"])
            .never_says("not for builders");
    }
    refusal.assert_unharmed();
}

#[test]
fn what_cannot_be_read_is_named() {
    let refusal = Refusal::new();
    refusal.site.dockerfile("FROM scratch\nCOPY . /\n");
    let secret = refusal.site.write("deep/unreadable", "x");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).expect("our own file");
    // The farm has root's rights; this client has not, though it may use the farm's socket.
    refusal.site.build(&["-o", "type=cacheonly"]).ok();
    let slipway = refusal.site.slipway.command(&["build", "-t", "refused"]);
    let mut without = tests::command::command(tool("setpriv"));
    without.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
    without.arg(slipway.get_program()).args(slipway.get_args()).arg(refusal.site.context.path());
    without.envs(slipway.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(&mut without).fails(1).says("deep/unreadable").says("ermission denied");
    refusal.assert_unharmed();
}

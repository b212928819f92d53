//! `SOURCE_DATE_EPOCH`: what two machines make of the same files is the same to the last byte.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tests::cluster::HOME;
use tests::command::{command, run};
use tests::hosts::{Host, Site};
use tests::http::{Response, Server};
use tests::image::Image;
use tests::mirror::Mirror;
use tests::scratch::Scratch;
use tests::site::Site as Place;
use tests::slipway::program;

const EPOCH: &str = "1700000000";

/// Files by all that makes files.
const DOCKERFILE: &str = r#"
FROM conf/busybox:1 AS made
WORKDIR /made
RUN mkdir deep && echo text > deep/file && ln -s deep link && ln deep/file hard && mkfifo fifo \
 && touch -t 202001010000 old && mkdir -p /tmp/empty

FROM conf/busybox:1
WORKDIR /new
COPY --from=made /made /made
COPY --chown=7:8 given /given/
COPY <<EOF /said
hello
EOF
RUN echo more >> /given/a.txt && chmod 700 /home && rm /etc/os-release
"#;

/// A machine that builds, whose files are of that day.
fn machine(site: &Site, registry: &Mirror, name: &str, day: &str) -> Host {
    let host = site.host(name);
    host.write(format!("{HOME}/config.toml"), registry.settings());
    host.write("/root/context/Dockerfile", DOCKERFILE);
    host.write("/root/context/given/a.txt", "a\n");
    host.write("/root/context/given/b/c.txt", "c\n");
    let script = format!("find /root/context | xargs touch -d {day}");
    host.command("sh", ["-c", &script]).run().ok();
    host
}

/// The bytes of an output.
#[track_caller]
fn built(host: &Host, flags: &[&str], output: &str) -> Vec<u8> {
    let output = format!("{output},dest=/root/out");
    let args = [&["build", "-o", &output], flags, &["/root/context"]].concat();
    host.command(program(), &args).run().ok();
    host.read("/root/out")
}

#[test]
fn two_machines_make_the_same_bytes() {
    let site = Site::new();
    let registry = Mirror::of_corpus(&site);
    let one = machine(&site, &registry, "one", "2024-01-01");
    let two = machine(&site, &registry, "two", "2025-02-02");
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let with_epoch = ["--build-arg", &epoch];
    let both = |flags: &[&str], output| [&one, &two].map(|host| built(host, flags, output));
    for output in
        ["type=oci,rewrite-timestamp=true", "type=docker,rewrite-timestamp=true", "type=tar"]
    {
        let [of_one, of_two] = both(&with_epoch, output);
        assert!(of_one == of_two, "{output}: {} and {} bytes", of_one.len(), of_two.len());
    }
    let own = format!("type=oci,rewrite-timestamp=true,source-date-epoch={EPOCH}");
    let [of_one, of_two] = both(&[], &own);
    assert!(of_one == of_two, "an epoch of the output");
    let image = Image::only(&one.path("/root/out"));
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
    assert!(!image.tree.0.contains_key("etc/os-release") && image.tree.0.contains_key("made/link"));
    // Without it the times of the files are in the layers: the machines were given other ones.
    let [of_one, of_two] = both(&with_epoch, "type=oci");
    assert!(of_one != of_two, "files have times of their own");
    for host in [&one, &two] {
        host.command(program(), ["down", "--now"]).run().ok();
    }
}

#[test]
fn files_get_the_time_that_the_environment_says() {
    let site = Site::new();
    let registry = Mirror::of_corpus(&site);
    let host = machine(&site, &registry, "one", "2024-01-01");
    let args = ["build", "-o", "/root/files", "/root/context"];
    host.command(program(), args).env("SOURCE_DATE_EPOCH", EPOCH).run().ok();
    for path in ["given/a.txt", "given/b", "made/link", "made/old", "said", "bin/busybox"] {
        let about = fs::symlink_metadata(host.path(format!("/root/files/{path}")));
        assert_eq!(about.expect(path).mtime().to_string(), EPOCH, "{path}");
    }
    host.command(program(), ["down", "--now"]).run().ok();
}

/// A repository with one commit of this time, as a web server gives it that knows nothing of git.
fn repository(time: &str) -> (Scratch, String) {
    let scratch = Scratch::new("repository");
    let (work, bare) = (scratch.join("work"), scratch.join("r.git"));
    fs::create_dir(&work).expect("a directory");
    fs::write(work.join("file"), "of git\n").expect("a file");
    let git = |dir: &Path, args: &[&str]| {
        let mut git = command("git");
        git.current_dir(dir).env("HOME", scratch.path()).env("GIT_COMMITTER_DATE", time);
        git.args(["-c", "user.name=ann", "-c", "user.email=ann@example.org"]).args(args);
        run(&mut git).ok().text()
    };
    git(&work, &["init", "-q", "-b", "main"]);
    git(&work, &["add", "file"]);
    git(&work, &["commit", "-q", "-m", "one"]);
    let commit = git(&work, &["rev-parse", "HEAD"]).trim().to_owned();
    git(scratch.path(), &["clone", "-q", "--bare", "work", "r.git"]);
    git(&bare, &["update-server-info"]);
    (scratch, commit)
}

#[test]
fn a_stage_that_fetches_one_thing_says_the_time() {
    let (repository, commit) = repository("1600000000 +0000");
    let root = repository.path().to_owned();
    let archive = Scratch::new("archive");
    archive.write("f", "x");
    let mut tar = command("tar");
    tar.args(["-czf", "a.tgz", "--mtime=@1500000000", "f"]).current_dir(archive.path());
    run(&mut tar).ok();
    let archived = fs::read(archive.join("a.tgz")).expect("an archive");
    let server = Server::start(move |request| match request.path.as_str() {
        "/dated" => Response::new(200, "x").with("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
        "/a.tgz" => Response::new(200, archived.clone()),
        "/plain" => Response::new(200, "x"),
        path => {
            let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
            fs::read(root.join(path))
                .map_or(Response::new(404, ""), |file| Response::new(200, file))
        }
    });
    let place = Place::new();
    let stage = |source: &str| {
        place.dockerfile(&format!(
            "FROM scratch AS src\nARG SOURCE={source}\nADD $SOURCE /\n\
             FROM conf/busybox:1\nARG SOURCE_DATE_EPOCH=none\nRUN echo \"at $SOURCE_DATE_EPOCH.\"\n"
        ));
    };
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=src"];
    for (path, created, seconds) in [
        ("dated", "2015-10-21T07:28:00Z", "1445412480"),
        ("a.tgz", "2017-07-14T02:40:00Z", "1500000000"),
        ("r.git#main", "2020-09-13T12:26:40Z", "1600000000"),
        (&format!("r.git#{commit}"), "2020-09-13T12:26:40Z", "1600000000"),
    ] {
        stage(&server.url(path));
        place.build(&[&epoch[..], &["--no-cache"]].concat()).ok().says(&format!("at {seconds}."));
        assert_eq!(place.image(&epoch).config["created"], created, "{path}");
    }
    stage(&server.url("plain"));
    place.build(&[&epoch[..], &["--no-cache"]].concat()).ok().says("at none.");
    stage(&server.url("missing"));
    place.build(&epoch).fails(1).says("404").says("Dockerfile:3");
    place.dockerfile("FROM scratch AS src\nADD . /\n");
    place.build(&epoch).fails(1).says("the stage `src` has no time").says("Dockerfile:2");
}

#[test]
fn files_of_each_platform_get_the_time_of_what_was_fetched_for_it() {
    let dated = |day: &str| {
        Response::new(200, "x").with("Last-Modified", format!("{day} Oct 2015 07:28:00 GMT"))
    };
    let server = Server::start(move |request| match request.path.as_str() {
        "/amd64" => dated("Wed, 21"),
        "/arm64" => dated("Thu, 22"),
        _ => Response::new(404, ""),
    });
    let place = Place::of(&format!(
        "FROM scratch AS src\nARG TARGETARCH\nADD {}$TARGETARCH /\nFROM scratch\nCOPY file /\n",
        server.url("")
    ));
    place.write("file", "of the context\n");
    let out = Scratch::new("out");
    let (tar, files, unpacked) = (out.join("out.tar"), out.join("files"), out.join("unpacked"));
    fs::create_dir(&unpacked).expect("a directory");
    let output = |kind: &str, dest: &Path| format!("type={kind},dest={}", dest.display());
    place
        .build(&[
            "--platform=linux/amd64,linux/arm64",
            "--build-arg=SOURCE_DATE_EPOCH=src",
            "-o",
            &output("local", &files),
            "-o",
            &output("tar", &tar),
        ])
        .ok();
    run(command("tar").arg("-xf").arg(&tar).arg("-C").arg(&unpacked)).ok();
    for top in [files, unpacked] {
        for (platform, time) in [("linux_amd64", 1_445_412_480), ("linux_arm64", 1_445_498_880)] {
            let file = top.join(platform).join("file");
            assert_eq!(fs::metadata(&file).expect("a file").mtime(), time, "{}", file.display());
        }
    }
}

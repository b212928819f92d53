//! The commands around images.

use serde_json::Value;
use tests::command::Outcome;
use tests::image::Image;
use tests::registry::Registry;
use tests::scratch::Scratch;
use tests::site::Site;

const APP: &str = r#"
FROM conf/busybox:1
LABEL purpose="tests"
ENV GREETING=hello
WORKDIR /data
RUN echo $GREETING > said
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat said"]
"#;

fn json(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.stdout).unwrap_or_else(|e| panic!("{e}\n{outcome}"))
}

#[test]
fn images_are_listed_named_and_removed() {
    let site = Site::of(APP);
    let slipway = |args: &[&str]| site.slipway.run(args);
    assert!(slipway(&["images"]).ok().text().starts_with("REPOSITORY"));
    site.build(&["-t", "app:1", "-t", "app:2"]).ok();
    let id = slipway(&["images", "-q", "--no-trunc", "app:1"]).ok().text();
    let rows = slipway(&["images", "app"]).ok().text();
    assert_eq!(rows.lines().count(), 3, "{rows}");
    let short = &id["sha256:".len()..][..12];
    assert!(
        rows.lines().skip(1).all(|row| row.starts_with("app") && row.contains(short)),
        "{rows}"
    );
    slipway(&["tag", "app:1", "127.0.0.1:5999/other/name"]).ok();
    slipway(&["tag", short, "by-id"]).ok();
    let rows = slipway(&["images", "--format", "json"]).ok().text();
    let rows: Vec<Value> = rows.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let named = |name: &str, tag: &str| {
        rows.iter().filter(|r| r["Repository"] == name && r["Tag"] == tag).count()
    };
    assert_eq!([named("app", "2"), named("by-id", "latest")], [1, 1]);
    assert_eq!(named("127.0.0.1:5999/other/name", "latest"), 1);
    slipway(&["rmi", "app:1", "by-id"]).ok();
    slipway(&["inspect", "app:1"]).fails(1).says("app:1");
    assert_eq!(json(&slipway(&["inspect", "app:2"]).ok())[0]["Id"], id);
    slipway(&["rmi", short]).fails(1).says("--force");
    slipway(&["rmi", "-f", short]).ok();
    assert_eq!(slipway(&["images", "-aq"]).ok().text(), "");
    slipway(&["rmi", "app:2"]).fails(1).says("app:2");
    slipway(&["tag", "nothing", "something"]).fails(1).says("nothing");
    site.slipway.assert_store_intact();
}

#[test]
fn inspect_and_history_tell_how_an_image_came_about() {
    let site = Site::of(APP);
    site.build(&["-t", "app"]).ok();
    let about = json(&site.slipway.run(&["inspect", "app"]).ok());
    let about = &about[0];
    assert_eq!(about["Config"]["Labels"]["purpose"], "tests");
    assert_eq!(about["Config"]["WorkingDir"], "/data");
    assert_eq!(about["Config"]["Cmd"], serde_json::json!(["cat said"]));
    assert_eq!((&about["Os"], &about["Architecture"]), (&"linux".into(), &"amd64".into()));
    assert!(about["Size"].as_u64().is_some_and(|size| size > 100_000), "{about}");
    assert!(about["RepoTags"].to_string().contains("app:latest"), "{about}");
    let history = site.slipway.run(&["history", "--no-trunc", "app"]).ok().text();
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[1].contains("CMD") && lines[2].contains("ENTRYPOINT"), "newest first\n{history}");
    assert!(history.contains("RUN") && history.contains("echo $GREETING > said"), "{history}");
}

#[test]
fn run_does_what_the_image_and_the_flags_say() {
    let site = Site::of(APP);
    site.build(&["-t", "app"]).ok();
    let run = |flags: &[&str], args: &[&str]| {
        site.slipway.run(&[&["run", "--rm"], flags, &["app"], args].concat())
    };
    assert_eq!(run(&[], &[]).ok().text(), "hello");
    assert_eq!(run(&[], &["pwd; id -u; exit 3"]).fails(3).text(), "/data\n0");
    assert_eq!(run(&["-e", "GREETING=bye"], &["echo $GREETING"]).ok().text(), "bye");
    assert_eq!(run(&["-u", "app", "-w", "/tmp"], &["id -un; pwd"]).ok().text(), "app\n/tmp");
    assert_eq!(run(&["--entrypoint", "echo"], &["-n", "x"]).ok().text(), "x");
    assert_eq!(run(&[], &["echo out; echo err >&2"]).ok().text(), "out");
    run(&[], &["echo changed > said"]).ok();
    assert_eq!(run(&[], &[]).ok().text(), "hello", "what a container writes is thrown away");
    let input = site.slipway.run_with(&["run", "--rm", "-i", "app", "cat; echo end"], b"typed\n");
    assert_eq!(input.ok().text(), "typed\nend");
    run(&["--entrypoint", "/no/such/program"], &[]).says("/no/such/program").fails(127);
    site.slipway.run(&["run", "--rm", "no-such-image"]).fails(1).says("no-such-image");
    let id = site.slipway.run(&["images", "-q", "app"]).ok().text();
    assert_eq!(site.run(&id, &[]).ok().text(), "hello", "by the beginning of the id");
}

/// As in BuildKit; who loses a change is told so.
#[test]
fn a_change_that_neither_size_nor_time_tells_is_in_no_image() {
    let site = Site::of(
        "FROM conf/busybox:1\n\
         COPY a /copied\n\
         RUN echo old > /f && echo old > /cut && touch -d '2020-01-02 03:04:05' /cut\n\
         COPY b /copied\n\
         RUN touch -r /f /t && echo new > /f && touch -r /t /f && rm /t && \
             echo new > /cut && touch -d '2020-01-02 03:04:05' /cut\n\
         RUN cat /f /copied /cut > /seen\n",
    );
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 7);
    for name in ["a", "b"] {
        site.write(name, format!("{name}\n"));
        let file = std::fs::File::open(site.context.join(name)).expect("our own");
        file.set_modified(time).expect("our own");
    }
    let warning = |path: &str| format!("images are made without this step's change of {path}: ");
    site.build(&["-t", "app"]).ok().says(&warning("/copied")).says(&warning("/f"));
    let all = ["run", "--rm", "app", "cat", "/seen", "/f", "/copied", "/cut"];
    let both = "new\nb\nnew\nold\na\nnew";
    assert_eq!(site.slipway.run(&all).ok().text(), both);
    // A COPY that loses something is nobody's earlier result: its files may have other times there.
    let again = site.build(&["-t", "app"]).ok().says(&warning("/copied"));
    assert!(!again.all().contains(&warning("/f")), "what is cached is not done again\n{again}");
    // Whoever gets the image has what runs here, and whoever builds upon it.
    let scratch = Scratch::new("archive");
    let archive = scratch.join("app.tar").display().to_string();
    site.slipway.run(&["save", "-o", &archive, "app"]).ok();
    let other = tests::slipway::Slipway::new();
    other.run(&["load", "-i", &archive]).ok();
    assert_eq!(other.run(&all).ok().text(), both);
    // So has what they change in the same way: times of images are in whole seconds.
    site.dockerfile(
        "FROM app\n\
         RUN touch -r /seen /t && sed -i s/new/odd/ /seen && touch -r /t /seen && rm /t\n",
    );
    for slipway in [&site.slipway, &other] {
        slipway.build(&["--no-cache", "-t", "child"], site.context.path()).ok();
        let child = slipway.run(&["run", "--rm", "child", "cat", "/seen", "/f"]).ok().text();
        assert_eq!(child, "odd\nb\nodd\nold");
    }
}

/// The warning goes the way of all that a step writes.
#[test]
fn a_warning_shows_no_secret_and_begins_a_line() {
    let site = Site::of(
        "FROM conf/busybox:1\n\
         RUN --mount=type=secret,id=s echo old > /$(cat /run/secrets/s)\n\
         RUN --mount=type=secret,id=s f=/$(cat /run/secrets/s); touch -r $f /t; \
             echo new > $f; touch -r /t $f; rm /t; printf unfinished\n",
    );
    site.write("secret", "hunter2-and-more\n");
    let secret = site.context.join("secret").display().to_string();
    let said = site.build(&["--secret", &format!("id=s,src={secret}")]).ok().all();
    assert!(!said.contains("hunter2-and"), "{said}");
    let line = said.lines().find(|line| line.contains("warning:")).expect("a warning");
    assert!(line.contains(" of /****: ") && !line.contains("unfinished"), "{said}");
}

#[test]
fn saved_images_can_be_loaded() {
    let (site, out) = (Site::of(APP), Scratch::new("out"));
    site.build(&["-t", "one", "-t", "two"]).ok();
    let id = site.slipway.run(&["images", "-q", "--no-trunc", "one"]).ok().text();
    for format in ["docker", "oci"] {
        let file = out.join(format);
        let file = file.to_str().expect("UTF-8");
        site.slipway.run(&["save", "--format", format, "-o", file, "one"]).ok();
        let image = Image::only(out.join(format).as_path());
        assert_eq!(image.id, id, "{format}");
        let other = Site::new();
        other.slipway.run(&["load", "-i", file]).ok().says("one");
        assert_eq!(other.slipway.run(&["images", "-q", "--no-trunc", "one"]).ok().text(), id);
        assert_eq!(other.run("one", &[]).ok().text(), "hello", "{format}");
        other.slipway.assert_store_intact();
    }
    let both = site.slipway.run(&["save", "one", "two"]).ok();
    let other = Site::new();
    other.slipway.run_with(&["load"], &both.stdout).ok().says("one").says("two");
    assert_eq!(other.run("two", &[]).ok().text(), "hello");
    other.slipway.run_with(&["load"], b"this is no archive").fails(1);
    other.slipway.run_with(&["load"], &both.stdout[..both.stdout.len() / 2]).fails(1);
    site.slipway.run(&["save", "-o", "/dev/null/image", "one"]).fails(1).says("/dev/null");
    site.slipway.run(&["save", "-o", out.join("none").to_str().expect("UTF-8"), "nobody"]).fails(1);
    assert!(!out.join("none").exists(), "nothing half-written");
    other.slipway.assert_store_intact();
}

#[test]
fn images_are_pulled_and_pushed() {
    let (site, there) = (Site::new(), Registry::empty());
    site.slipway.run(&["pull", "conf/busybox:1"]).ok().says("Digest: sha256:");
    assert_eq!(site.run("conf/busybox:1", &["echo", "pulled"]).ok().text(), "pulled");
    let name = there.image("copies/busybox:1");
    site.slipway.run(&["tag", "conf/busybox:1", &name]).ok();
    let digest = site.slipway.run(&["push", "-q", &name]).ok().text();
    let other = Site::new();
    let pinned = there.image(&format!("copies/busybox@{digest}"));
    other.slipway.run(&["pull", &pinned]).ok();
    assert_eq!(other.run(&pinned, &["echo", "again"]).ok().text(), "again");
    let id =
        |site: &Site, name: &str| json(&site.slipway.run(&["inspect", name]).ok())[0]["Id"].clone();
    assert_eq!(id(&other, &pinned), id(&site, &name));
    site.slipway.run(&["push", "no-such-image"]).fails(1).says("no-such-image");
    other.slipway.assert_store_intact();
}

/// Steps of the build see one file with two names, and everybody who has the image two files.
#[test]
fn an_image_is_the_same_where_it_was_made_and_where_it_was_pulled() {
    let made = "FROM conf/busybox:1\nRUN echo x > /old\nRUN ln /old /new\nRUN test /old -ef /new\n";
    let (site, there, other) = (Site::of(made), Registry::empty(), Site::new());
    let name = there.image("made:1");
    site.build(&["-t", &name]).ok();
    site.slipway.run(&["push", &name]).ok();
    other.slipway.run(&["pull", &name]).ok();
    for site in [&site, &other] {
        site.run(&name, &["test", "/old", "-ef", "/new"]).fails(1);
        site.dockerfile(&format!("FROM {name}\nRUN test ! /old -ef /new\n"));
        site.build(&[]).ok();
        site.slipway.assert_store_intact();
    }
}

#[test]
fn builds_and_their_logs_stay_readable() {
    let site = Site::of("FROM conf/busybox:1\nRUN echo remember me\nRUN echo and fail; exit 4\n");
    site.build(&["-t", "wanted"]).fails(1);
    site.dockerfile("FROM conf/busybox:1\nRUN echo remember me\n");
    site.build(&["-t", "wanted"]).ok();
    let check = || {
        let rows = site.slipway.run(&["builds"]).ok().text();
        assert_eq!(rows.lines().count(), 3, "{rows}");
        assert!(rows.lines().nth(1).is_some_and(|row| row.contains("done")), "{rows}");
        assert!(rows.lines().nth(2).is_some_and(|row| row.contains("failed")), "{rows}");
        let names = site.slipway.run(&["builds", "-q"]).ok().text();
        let failed = names.lines().nth(1).expect("two builds");
        site.slipway.run(&["logs", failed]).ok().says("remember me").says("and fail").says("4");
        site.slipway.run(&["logs"]).ok().says("RUN echo remember me");
    };
    check();
    site.slipway.stop();
    check();
    site.slipway.run(&["logs", "no-such-build"]).fails(1).says("no-such-build");
    site.slipway.run(&["cancel", "no-such-build"]).fails(1).says("no-such-build");
}

//! Secrets reach the step that asks for them, and nothing else.

use std::fs;
use std::path::Path;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::tree::sha256;

/// Not compressible, so that it can be found wherever it lies.
fn value(seed: &str) -> String {
    sha256(format!("{seed} {}", std::process::id()).as_bytes())
}

/// All files below a directory that contain these bytes.
pub fn containing(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![directory.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                next.push(path);
            } else if fs::read(&path).unwrap_or_default().windows(bytes.len()).any(|w| w == bytes) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn secrets_are_in_no_layer_history_log_or_store() {
    let [by_file, by_variable, control] = ["file", "variable", "control"].map(value);
    let mut site = Site::of(&format!(
        "
FROM conf/busybox:1
RUN --mount=type=secret,id=one --mount=type=secret,id=two,env=TWO \\
    sha256sum /run/secrets/one > /sum && printf %s $TWO | sha256sum >> /sum \\
    && stat -c %a /run/secrets/one > /mode
RUN test ! -s /run/secrets/one && test -z \"$TWO\"
RUN echo {control} > /control
"
    ));
    let outside = Scratch::new("secret");
    let source = outside.write("token", &by_file);
    let one = format!("id=one,src={}", source.display());
    site.slipway.set_env("TOKEN", &by_variable);
    let flags = ["--secret", &one, "--secret", "id=two,env=TOKEN"];
    let built = site.build(&[&flags[..], &["-t", "app"]].concat()).ok();
    let sums = site.run("app", &["sh", "-c", "cut -c1-64 /sum; cat /mode"]).ok().text();
    let expected =
        format!("{}\n{}\n400", sha256(by_file.as_bytes()), sha256(by_variable.as_bytes()));
    assert_eq!(sums, expected, "the step saw both");
    let archive = outside.join("image.tar");
    let archive = archive.to_str().expect("UTF-8");
    site.slipway.run(&["save", "-o", archive, "app"]).ok();
    let said = ["logs", "builds"].map(|c| site.slipway.run(&[c]).ok().all());
    let about = ["history", "inspect"].map(|c| site.slipway.run(&[c, "app"]).ok().all());
    site.slipway.stop();
    for secret in [&by_file, &by_variable] {
        for text in said.iter().chain(&about).chain([&built.all()]) {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
        assert_eq!(containing(site.slipway.home(), secret.as_bytes()), [""; 0]);
        assert!(!fs::read(archive).expect("saved").windows(64).any(|w| w == secret.as_bytes()));
    }
    let found = containing(site.slipway.home(), control.as_bytes());
    assert!(!found.is_empty(), "the search finds what is there");
    // Another value is no reason to run the step again.
    fs::write(&source, "changed").expect("writing");
    let again = site.build(&[&flags[..], &["-t", "app"]].concat()).ok();
    assert!(again.all().contains("CACHED"), "{again}");
}

#[test]
fn a_secret_that_is_asked_for_and_not_given_is_an_error_where_it_must_be_there() {
    let site = Site::of(
        "
FROM conf/busybox:1
RUN --mount=type=secret,id=token,required cat /run/secrets/token
",
    );
    site.build(&[]).fails(1).says("token").says("Dockerfile:3");
    site.build(&["--secret", "id=token,src=/nowhere/at/all"]).fails(1).says("/nowhere/at/all");
    site.dockerfile(
        "
FROM conf/busybox:1
RUN --mount=type=secret,id=token test ! -e /run/secrets/token
",
    );
    site.build(&[]).ok();
}

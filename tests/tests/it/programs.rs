//! Real programs, from the source that Debian and the registry of crates carry, built in several
//! stages; what comes out is run, and holds nothing but the program.

use tests::builder::Builder;
use tests::command::Outcome;
use tests::program::{home, source};
use tests::registry::Registry;

/// Builds a program into an image of its name.
fn build(name: &str, standins: &[&str]) -> Builder {
    let registry = Registry::of(standins);
    let builder = Builder::under_test(&registry);
    let dockerfile = home(name).join("Dockerfile");
    let flags = ["-f", dockerfile.to_str().expect("UTF-8"), "-t", name];
    builder.build(&flags, &source(name)).ok();
    builder
}

#[track_caller]
fn run(builder: &Builder, image: &str, args: &[&str]) -> Outcome {
    builder.run_image(&[], image, args).ok()
}

#[test]
fn sqlite() {
    let builder = build("sqlite", &["debian"]);
    let version = std::fs::read_to_string(source("sqlite").join("VERSION")).expect("its version");
    let query = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
                 select sqlite_version(), sum(i) from n";
    let printed = run(&builder, "sqlite", &[":memory:", query]).text();
    assert_eq!(printed, format!("{}|500500", version.trim()));

    let lines = "select cast(readfile('/lines') as integer) > 100000";
    assert_eq!(run(&builder, "sqlite", &[":memory:", lines]).text(), "1", "a large program");
    let image = builder.image("sqlite");
    assert_eq!(image.tree.0.keys().collect::<Vec<_>>(), ["lines", "sqlite3"]);
}

#[test]
fn ripgrep() {
    let builder = build("ripgrep", &["rust"]);
    run(&builder, "ripgrep", &["--version"]).says("ripgrep 13.0.0");
    // It finds something in itself.
    run(&builder, "ripgrep", &["--binary", "--count", "ripgrep", "/rg"]);
    let image = builder.image("ripgrep");
    assert_eq!(image.tree.0.keys().collect::<Vec<_>>(), ["rg"]);
}

#[test]
fn esbuild() {
    let builder = build("esbuild", &["golang"]);
    run(&builder, "esbuild", &["--version"]).says("0.17.0");
    let image = builder.image("esbuild");
    assert_eq!(image.tree.0.keys().collect::<Vec<_>>(), ["esbuild"]);
    // What it made runs where it is copied to: it makes JavaScript smaller.
    let context = tests::scratch::Scratch::new("context");
    context.write("page.js", "const greeting = 'hello';\nfunction unused() {}\nlog(greeting);\n");
    context.write("Dockerfile", "FROM esbuild\nCOPY page.js /\nCMD [\"--minify\", \"/page.js\"]\n");
    builder.build(&["-t", "page"], context.path()).ok();
    let printed = run(&builder, "page", &[]).text();
    assert!(
        printed.starts_with("const greeting=\"hello\";") && !printed.contains('\n'),
        "{printed}"
    );
}

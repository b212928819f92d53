//! Document 000, the second example: a web server in Go, in one stage and in two.

use super::{Site, assert_fraction, seed};

#[test]
fn a_web_server_without_its_compiler() {
    let site = Site::with(&["alpine", "golang-alpine"]);
    let context = seed("000/web-server");
    site.build(&context, "Dockerfile", "golang-example");
    site.build(&context, "Dockerfile.whole-stages.meant", "golang-min-example");
    for image in ["golang-example", "golang-min-example"] {
        let page = site.serves(image, "/app/server", 8000);
        assert_eq!(page, "Hello from a web server in Go", "{image}");
        let about = site.builder.inspect(image);
        assert_eq!(about["Config"]["Cmd"], serde_json::json!(["/app/server"]), "{image}");
        assert_eq!(about["Config"]["ExposedPorts"]["8000/tcp"], serde_json::json!({}), "{image}");
        assert_eq!(about["Config"]["WorkingDir"], "/app", "{image}");
    }
    // 12 MB and 359 MB, with the document's images.
    assert_fraction(&site, "golang-min-example", "golang-example", 10);
}

#[test]
fn the_first_stage_alone_and_a_line_that_is_no_instruction() {
    let site = Site::with(&["alpine", "golang-alpine"]);
    let context = seed("000/web-server");
    site.build(&context, "Dockerfile.first-stage", "first-stage");
    assert!(site.prints("first-stage", &["ls", "/app"]).contains("server"));
    let outcome = site.build_with(&[], &context, "Dockerfile.whole-stages");
    outcome
        .fails(1)
        .says("Unknown instruction `-----階段分界示意線-----`")
        .says("Dockerfile.whole-stages:12");
}

//! Document 003: a web application in Python, and a program in Go.

use super::{Site, assert_fraction, seed};

#[test]
fn a_program_on_nothing() {
    let site = Site::with(&["golang"]);
    let context = seed("003/go");
    site.build(&context, "dockerfile", "goapp:v1");
    site.build(&context, "dockerfile_multi_stage", "goapp:v2");
    site.build(&context, "dockerfile_from_0", "goapp:v3");
    for image in ["goapp:v1", "goapp:v2", "goapp:v3"] {
        assert_eq!(site.prints(image, &[]), "hello world", "{image}");
    }
    // 1.21 MB and 800 MB, with the document's images.
    assert_fraction(&site, "goapp:v2", "goapp:v1", 2);
    // A stage by its name and by its number is the same stage.
    let (named, numbered) = (site.builder.image("goapp:v2"), site.builder.image("goapp:v3"));
    assert_eq!(named.config["rootfs"], numbered.config["rootfs"]);
    assert!(named.tree.has("app/server"));
    assert_eq!(named.tree.0.len(), 2, "the program and its directory");
}

#[test]
fn packages_of_a_user_are_copied_between_stages() {
    let site = Site::with(&["python"]);
    let context = seed("003/flask");
    site.build(&context, "dockerfile", "flask-app:v1");
    site.build(&context, "dockerfile_multi_stage", "flask-app:v2");
    for image in ["flask-app:v1", "flask-app:v2"] {
        let command = &site.builder.inspect(image)["Config"]["Cmd"];
        assert_eq!(*command, serde_json::json!(["flask", "run", "--debug"]), "{image}");
        // Debian's Flask is 2.2.2; `run` takes `--debug` since 2.2.3, and before it stands so.
        assert_eq!(site.serves(image, "flask --debug run", 5000), "Hello World!~", "{image}");
    }
    let path = site.builder.env("flask-app:v2", "PATH").expect("the image has a PATH");
    assert!(path.starts_with("/root/.local/bin:/usr/local/sbin:"), "{path}");
}

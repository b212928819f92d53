//! Why steps of builds ran, of which several machines did some.

use super::{Scene, Size};

const STAGES: &str = "\
FROM base AS one
COPY src /src
RUN cat /src/a /src/b > /one
FROM base AS two
RUN echo 2 > /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
";

#[test]
fn the_file_that_has_changed_is_named() {
    let scene = Scene::new(Size { caches: 1, workers: 2, clients: 2 });
    let client = scene.host("client-1");
    client.write("/root/app/src/b", "b\n");
    for content in ["first", "second"] {
        client.write("/root/app/src/a", format!("{content}\n"));
        scene.build("client-1", "app", STAGES).ok();
        assert_eq!(scene.output("client-1", "app", "one"), format!("{content}\nb"));
    }
    // By whoever is of the project, and however the farm is named.
    let explain = |host: &str, args: &[&str]| {
        let args = [&["explain"], args].concat();
        scene.farm.slipway(&scene.host(host), &args).run().ok()
    };
    let use_it = ["context", "use", "test"];
    scene.farm.slipway(&scene.host("client-2"), &use_it).run().ok();
    for said in [explain("client-1", &["--farm", "test"]), explain("client-2", &[])] {
        let text = said.text();
        let line = |step: &str| {
            let found = text.lines().find(|line| line.contains(step));
            found.unwrap_or_else(|| panic!("no `{step}` in\n{text}"))
        };
        let why = "miss: the file src/a of the context has other content";
        assert!(line("COPY src /src").ends_with(why), "{text}");
        assert!(line("RUN cat /src/a").contains("COPY src /src` is another one"), "{text}");
        assert!(!line("RUN echo 2").contains("miss"), "{text}");
    }
    let first = scene.farm.slipway(&client, &["builds", "-q", "--farm", "test"]).run().ok().text();
    let first = first.lines().last().expect("the first build").to_owned();
    explain("client-1", &[&first, "--farm", "test"]).says("nothing like it was built before");
}

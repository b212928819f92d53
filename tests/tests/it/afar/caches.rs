//! Caches outside of a farm that many share.

use tests::afar::{Afar, Client};
use tests::mirror::REGISTRY;

/// Steps whose results nobody makes twice, and that say that they run.
const STEPS: &str = r#"
FROM conf/busybox:1
RUN cat /proc/sys/kernel/random/uuid > /one && echo ran-$((1))
ARG LATE
RUN cat /one > /two && echo "$LATE" >> /two && echo ran-$((2))
"#;

/// Somebody of a project of their own.
fn client(farm: &Afar, name: &str, project: &str) -> Client {
    let client = farm.client(name, &["--project", project]);
    client.write("Dockerfile", STEPS);
    client
}

/// Builds, and says how many steps ran.
fn ran(client: &Client, flags: &[&str]) -> usize {
    let outcome = client.build(&[&["-o", "type=cacheonly"], flags].concat()).ok();
    ["ran-1", "ran-2"].iter().filter(|said| outcome.all().contains(**said)).count()
}

#[test]
fn what_a_client_brings_counts_for_its_build_alone() {
    let farm = Afar::new(2, 1);
    let (ann, bob) = (client(&farm, "ann", "web"), client(&farm, "bob", "shop"));
    let cache = format!("{REGISTRY}/team/cache");
    assert_eq!(ran(&bob, &["--cache-to", &format!("type=registry,ref={cache},mode=max")]), 2);
    let (from, late) = (["--cache-from", &cache], ["--build-arg", "LATE=1"]);
    assert_eq!(ran(&ann, &from), 0, "another project's results, by way of the registry");
    assert_eq!(ran(&ann, &[from, late].concat()), 1);
    assert_eq!(ran(&ann, &[from, late].concat()), 0, "found by content");
    // Neither what was brought nor what was made upon it is there for others.
    assert_eq!(ran(&ann, &late), 2);
    assert_eq!(ran(&ann, &late), 0);
    assert_eq!(ran(&ann, &[from, late].concat()), 0, "what the farm has comes first");
}

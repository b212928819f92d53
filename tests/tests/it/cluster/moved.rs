//! What a build says that it has moved, held against what went over the wires.

use super::{BASE, Scene, Size};
use serde_json::Value;
use tests::tool::tool;

const MIB: u64 = 1 << 20;

/// What a build says, by kind, in bytes.
struct Moved(Value);

impl Moved {
    fn bytes(&self, kind: &str) -> u64 {
        self.0[kind].as_u64().unwrap_or_else(|| panic!("no `{kind}` in {}", self.0))
    }

    /// Of this kind something more than so many bytes.
    #[track_caller]
    fn is_about(&self, kind: &str, bytes: u64) {
        let is = self.bytes(kind);
        assert!(
            (bytes..bytes + MIB).contains(&is),
            "{kind} is {is}, and not {bytes} or little more"
        );
    }
}

/// Builds on the farm; answers what it says that it has moved, and its last line.
fn build(scene: &Scene, name: &str, stages: &str) -> (Moved, String) {
    let client = scene.host("client-1");
    scene.context(&client, name, &format!("{BASE}{stages}"));
    let (output, context) = (format!("type=local,dest=/root/{name}.out"), format!("/root/{name}"));
    let metadata = format!("/root/{name}.json");
    let args = ["build", "--farm", "test", "-o", &output, "--metadata-file", &metadata, &context];
    let outcome = scene.farm.slipway(&client, &args).run().ok();
    let metadata: Value = serde_json::from_slice(&client.read(metadata)).expect("it is JSON");
    let last = String::from_utf8_lossy(&outcome.stderr).lines().last().map(str::to_owned);
    (Moved(metadata["slipway.build"]["movedBytes"].clone()), last.unwrap_or_default())
}

#[test]
fn a_build_ends_with_the_bytes_that_it_moved() {
    let scene = Scene::new(Size { caches: 1, workers: 1, clients: 1 });
    let (client, worker) = (scene.host("client-1"), scene.host("worker-1"));
    let busybox = std::fs::metadata(tool("busybox")).expect("it is installed").len();
    let stages = "FROM base AS big\n\
                  RUN dd if=/dev/urandom of=/big bs=1M count=8\n\
                  FROM scratch\nCOPY --from=big /big /\n";
    let before = [client.bytes_sent(), client.bytes_received()];
    let received = worker.bytes_received();
    let (moved, last) = build(&scene, "first", stages);
    moved.is_about("context", busybox);
    moved.is_about("inputs", busybox);
    moved.is_about("results", 8 * MIB);
    moved.is_about("outputs", 8 * MIB);
    let wires = [("context", client.bytes_sent()), ("outputs", client.bytes_received())];
    for ((kind, after), before) in wires.into_iter().zip(before) {
        let (said, is) = (moved.bytes(kind), after - before);
        assert!((said..said + said / 4 + MIB).contains(&is), "{kind}: {said} of {is} on the wire");
    }
    assert!(worker.bytes_received() - received >= moved.bytes("inputs"));
    assert!(last.starts_with("moved: context ") && last.contains(", outputs 8.39MB"), "{last}");

    let (moved, last) = build(&scene, "again", stages);
    assert!(["context", "inputs", "results"].iter().all(|kind| moved.bytes(kind) == 0), "{last}");
    moved.is_about("outputs", 8 * MIB);

    let stages = "FROM base AS mount\n\
                  RUN --mount=type=cache,target=/mnt dd if=/dev/urandom of=/mnt/f bs=1M count=4\n\
                  FROM scratch\nCOPY --from=mount /bin/sh /\n";
    let (moved, _) = build(&scene, "mount", stages);
    moved.is_about("cacheMounts", 4 * MIB);
}

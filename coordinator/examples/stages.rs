//! How long a large Dockerfile takes until its steps have keys: parse, lower, key.
//!
//! ```text
//! cargo run --release -p coordinator --example stages [STAGES]
//! ```

use coordinator::dockerfile::parse;
use coordinator::graph::keys::{Joined, keys, local_inputs};
use coordinator::graph::{Found, Inputs, Lowered, lower};
use proto::id::{ContentDigest, OciDigest, RootId, TreeId};
use proto::platform::Platform;
use proto::step::{ImageOp, ImageOrigin};
use proto::wire::build::{BuildRequest, Output};
use proto::wire::worker::ResolvedImage;
use std::time::{Duration, Instant};

/// A Dockerfile of so many stages.
type Shape = (&'static str, fn(usize) -> String);

const SHAPES: [Shape; 5] = [
    ("each FROM the one before", chain),
    ("each FROM an image, copied by the next", copied),
    ("all copied by the last", fan_in),
    ("each with an ENV of its own, FROM the one before", environment),
    ("each with ten instructions", wide),
];

fn chain(stages: usize) -> String {
    let stage = |n: usize| match n {
        0 => "FROM base AS s0\nRUN first\n".to_owned(),
        n => format!("FROM s{} AS s{n}\nCOPY f /f{n}\nRUN work {n}\n", n - 1),
    };
    (0..stages).map(stage).collect()
}

fn copied(stages: usize) -> String {
    let stage = |n: usize| match n {
        0 => "FROM base AS s0\nRUN first\n".to_owned(),
        n => format!("FROM base AS s{n}\nCOPY --from=s{} /out /in\nRUN work {n}\n", n - 1),
    };
    (0..stages).map(stage).collect()
}

fn fan_in(stages: usize) -> String {
    let mut text: String =
        (1..stages).map(|n| format!("FROM base AS s{n}\nRUN work {n}\n")).collect();
    text.push_str("FROM scratch\n");
    (1..stages).for_each(|n| text.push_str(&format!("COPY --from=s{n} /out /{n}\n")));
    text
}

fn environment(stages: usize) -> String {
    let stage = |n: usize| match n {
        0 => "FROM base AS s0\n".to_owned(),
        n => format!("FROM s{} AS s{n}\nENV NAME_{n}=value\nLABEL name.{n}=value\n", n - 1),
    };
    (0..stages).map(stage).collect::<String>() + "RUN env\n"
}

fn wide(stages: usize) -> String {
    let stage = |n: usize| {
        format!(
            "FROM base AS s{n}\nARG A=1\nENV B=$A C={n}\nWORKDIR /w\nCOPY f{n} $B/\n\
             COPY --from=s{} /w /v\nRUN --mount=type=cache,target=/c make $C\nUSER app\n\
             EXPOSE 80\nLABEL n=$C\nCMD [\"x\"]\n",
            n.saturating_sub(1)
        )
    };
    (1..stages).fold("FROM base AS s0\nRUN first\n".to_owned(), |text, n| text + &stage(n))
}

fn main() {
    let stages = std::env::args().nth(1).map_or(5000, |n| n.parse().expect("a number of stages"));
    println!("{stages} stages: steps, then milliseconds to parse, lower and key them");
    for (name, shape) in SHAPES {
        let text = shape(stages);
        let (steps, [parsing, lowering, keying]) = measure(&text);
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{steps:6}  {:7.1} + {:7.1} + {:7.1} = {:7.1}  {name}",
            ms(parsing),
            ms(lowering),
            ms(keying),
            ms(parsing + lowering + keying)
        );
    }
}

/// How many steps there are, and how long each part took.
fn measure(text: &str) -> (usize, [Duration; 3]) {
    let start = Instant::now();
    let dockerfile = parse(text.as_bytes(), "Dockerfile").expect("a Dockerfile");
    let parsed = Instant::now();
    let platform = Platform::parse("linux/amd64").expect("a platform");
    let mut found = Found::default();
    let image = image(&platform);
    found.images.insert((image.op.reference.clone(), platform.clone()), image);
    let request = request();
    let (dockerfile, request, build_platform) = (&dockerfile, &request, &platform);
    let inputs = Inputs { dockerfile, request, build_platform, found: &found };
    let Ok(Lowered::Draft(draft)) = lower(inputs, &mut Vec::new()) else {
        panic!("all that is needed was looked up");
    };
    let root = RootId(TreeId::from_bytes([1; 32]));
    let roots = draft.locals.keys().map(|name| (name.clone(), root)).collect();
    let graph = draft.finish(&roots);
    let lowered = Instant::now();
    let selected = ContentDigest::from_bytes([2; 32]);
    let selections = local_inputs(&graph).into_iter().map(|place| (place, selected)).collect();
    let keys = keys(&graph, &selections, "nonce", Joined::WithOthers);
    let keyed = Instant::now();
    (keys.len(), [parsed - start, lowered - parsed, keyed - lowered])
}

fn image(platform: &Platform) -> ResolvedImage {
    ResolvedImage {
        op: ImageOp {
            reference: "docker.io/library/base:latest".into(),
            manifest: OciDigest::from_bytes([3; 32]),
            origin: ImageOrigin::Registry,
        },
        platform: platform.clone(),
        config: r#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"]},
            "rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#
            .into(),
        layers: Vec::new(),
    }
}

fn request() -> BuildRequest {
    BuildRequest {
        dockerfile_name: "Dockerfile".into(),
        has_context: true,
        outputs: vec![Output::CacheOnly],
        ..BuildRequest::default()
    }
}

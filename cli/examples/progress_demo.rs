//! Plays a build that is made up, to look at its progress display.
//!
//! `progress_demo MODE SCENE [GATES]`, with the scenes `success`, `failure` and `many`. With a
//! folder of gates the play stops at each of its gates until there is a file of that name, so that
//! a test can look at the display as long as it likes. Without, it takes its pauses.

#[allow(dead_code, unused_imports)]
#[path = "../src/progress/mod.rs"]
mod progress;

use progress::{Display, Mode, Settings};
use proto::error::{Class, Failure, SourceRange};
use proto::id::Millis;
use proto::wire::build::{
    BuildResult, Event, Progress, Stream, Summary, Traffic, Vertex, VertexId, Warning,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What happens in a play.
enum Act {
    /// A vertex is known.
    Know(u32, &'static str),
    /// It begins.
    Begin(u32),
    /// It is done.
    Done(u32),
    /// An earlier result is taken.
    Cached(u32),
    /// It fails.
    Fail(u32, &'static str),
    /// It writes.
    Log(u32, &'static str),
    /// It has moved so many bytes of so many.
    Move(u32, &'static str, u64, u64),
    /// A remark is made on a line of the Dockerfile.
    Remark(&'static str, &'static str, u32),
    /// Milliseconds go by.
    Pause(u64),
    /// The play stops at a gate.
    Gate(&'static str),
}
use Act::{Begin, Cached, Done, Fail, Gate, Know, Log, Move, Pause, Remark};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, scene, gates @ ..] = &args[..] else {
        return Err("usage: progress_demo MODE SCENE [GATES]".into());
    };
    let mut settings = Settings::from_env(|name| std::env::var(name).ok());
    settings.description = "slipway:demo".into();
    let display = Display::start(mode.parse::<Mode>()?, &settings)?;
    let mut stage = Stage {
        display: &display,
        gates: gates.first().map(PathBuf::from),
        vertices: BTreeMap::new(),
        transfers: BTreeMap::new(),
    };
    let result = match scene.as_str() {
        "success" => {
            opening().iter().chain(&happy_end()).for_each(|act| stage.play(act));
            Ok(result(8, 2, 48_300))
        }
        "failure" => {
            opening().iter().chain(&sad_end()).for_each(|act| stage.play(act));
            Err(failure())
        }
        "many" => {
            stage.many();
            Ok(result(5000, 0, 0))
        }
        _ => return Err("the scenes are success, failure and many".into()),
    };
    display.finish(&result);
    Ok(())
}

fn opening() -> Vec<Act> {
    let mut acts = vec![
        Know(1, "[internal] load build definition from Dockerfile"),
        Know(2, "[internal] load metadata for docker.io/library/rust:1.88"),
        Begin(1),
        Pause(40),
        Done(1),
        Begin(2),
        Remark("StageNameCasing", "Stage name 'Builder' should be lowercase", 3),
        Pause(400),
        Done(2),
        Know(3, "[internal] load build context"),
        Know(4, "[builder 1/4] FROM docker.io/library/rust:1.88@sha256:5cb9aeb1d8a8"),
        Know(5, "[builder 2/4] WORKDIR /src"),
        Know(6, "[builder 3/4] COPY . ."),
        Know(7, "[builder 4/4] RUN cargo build --release"),
        Know(8, "[stage-1 1/1] COPY --from=builder /src/target/release/app /app"),
        Cached(5),
        Begin(3),
        Begin(4),
    ];
    for step in 1..=10 {
        acts.push(Move(
            4,
            "sha256:0a9a5dfd008f05ebc27e4790db0709a29e527690c21bcbcd01481eaeb6bb49dc",
            step * 5_600_000,
            56_000_000,
        ));
        acts.push(Move(3, "transferring context:", step * 410_000, 0));
        acts.push(Pause(100));
    }
    acts.extend([Done(4), Done(3), Begin(6), Pause(200), Done(6), Begin(7)]);
    for line in [
        "    Updating crates.io index\n",
        "   \x1b[1m\x1b[32mCompiling\x1b[0m libc v0.2.191\n",
        "   Compiling 日本語 v1.0.0\n",
        // What a log must not do: a title, the cursor, a cleared screen.
        "\x1b]0;owned\x07\x1b[2J\x1b[3A   Compiling evil v6.6.6\x1b[10D\n",
        "   Compiling a-name-that-is-far-too-long-for-any-terminal-that-people-have-had-on-their-desks v0.1.0 (/src/a/b/c)\n",
        "   Compiling serde v1.0.229\n",
        "   Compiling app v0.1.0 (/src)\n",
        "\r    Building [=====>    ] 5/8\r    Building [========> ] 7/8",
    ] {
        acts.extend([Log(7, line), Pause(250)]);
    }
    acts.push(Gate("running"));
    acts
}

fn happy_end() -> Vec<Act> {
    let finished = "\r    Finished `release` profile\n";
    let tail =
        [Log(7, finished), Done(7), Begin(8), Pause(60), Done(8), Know(9, "exporting to image")];
    tail.into_iter().chain([Begin(9), Pause(30), Done(9)]).collect()
}

fn sad_end() -> Vec<Act> {
    let error = "\rerror[E0425]: cannot find value `x` in this scope\n --> src/main.rs:3:5\n";
    let why = "process \"/bin/sh -c cargo build --release\" did not complete successfully: exit code: 101";
    vec![Log(7, error), Fail(7, why)]
}

fn result(steps: u32, cached: u32, saved_ms: u64) -> BuildResult {
    let traffic = Traffic { context: 48_200, pulled: 31_400_000, ..Traffic::default() };
    let summary = Summary { steps, cached, saved_ms, wall_ms: 5700, traffic };
    BuildResult { outputs: Vec::new(), caches: Vec::new(), summary }
}

fn failure() -> Failure {
    let lines = ["WORKDIR /src", "COPY . .", "RUN cargo build --release", "", "FROM scratch"];
    let mut failure = Failure::new(
        Class::User,
        "process \"/bin/sh -c cargo build --release\" did not complete successfully: exit code: 101",
    )
    .at(place(6));
    failure.excerpt = (4..).zip(lines.map(str::to_owned)).collect();
    failure.exit_code = Some(101);
    failure
}

fn place(line: u32) -> SourceRange {
    SourceRange { file: "Dockerfile".into(), first_line: line, last_line: line }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

struct Stage<'a> {
    display: &'a Display,
    gates: Option<PathBuf>,
    vertices: BTreeMap<u32, Vertex>,
    transfers: BTreeMap<(u32, &'static str), Millis>,
}

impl Stage<'_> {
    fn play(&mut self, act: &Act) {
        match *act {
            Know(id, name) => self.know(id, name.to_owned()),
            Begin(id) => self.change(id, |v| v.started = Some(now())),
            Done(id) => self.change(id, |v| v.completed = Some(now())),
            Cached(id) => self.change(id, |v| {
                (v.started, v.completed, v.cached) = (Some(now()), Some(now()), true);
            }),
            Fail(id, why) => self.change(id, |v| {
                (v.completed, v.error) = (Some(now()), Some(why.to_owned()));
            }),
            Log(id, text) => self.log(id, text.as_bytes().to_vec()),
            Move(id, what, current, total) => self.moved(id, what, current, total),
            Remark(rule, message, line) => self.display.event(Event::Warning(Warning {
                rule: rule.into(),
                message: message.into(),
                detail: String::new(),
                url: String::new(),
                at: Some(place(line)),
                excerpt: Vec::new(),
            })),
            Pause(ms) if self.gates.is_none() => std::thread::sleep(Duration::from_millis(ms)),
            Pause(_) => {}
            Gate(name) => self.gate(name),
        }
    }

    fn gate(&self, name: &str) {
        while let Some(gates) = &self.gates
            && !gates.join(name).exists()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn know(&mut self, id: u32, name: String) {
        let vertex = Vertex {
            id: VertexId(id),
            name,
            inputs: Vec::new(),
            started: None,
            completed: None,
            cached: false,
            saved_ms: 0,
            error: None,
        };
        self.vertices.insert(id, vertex);
        self.change(id, |_| {});
    }

    fn change(&mut self, id: u32, change: impl FnOnce(&mut Vertex)) {
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        change(vertex);
        self.display.event(Event::Vertex(vertex.clone()));
    }

    fn log(&self, id: u32, data: Vec<u8>) {
        let (vertex, stream) = (VertexId(id), Stream::Stdout);
        self.display.event(Event::Log { vertex, stream, at: now(), data });
    }

    fn moved(&mut self, id: u32, what: &'static str, current: u64, total: u64) {
        let started = *self.transfers.entry((id, what)).or_insert_with(now);
        let completed = (current == total).then(now);
        let (vertex, what) = (VertexId(id), what.to_owned());
        self.display.event(Event::Progress(Progress {
            vertex,
            what,
            current,
            total,
            started,
            completed,
        }));
    }

    /// 5,000 vertices, four at a time, that write 20 lines each.
    fn many(&mut self) {
        (0..5000).for_each(|id| self.know(id, format!("[stage-{id} 1/1] RUN make part-{id}")));
        for id in 0..5004 {
            self.change(id, |v| v.started = Some(now()));
            for line in 0..20 {
                self.log(id, format!("cc -O2 -c part-{id}/file-{line}.c\n").into_bytes());
            }
            if let Some(old) = id.checked_sub(4) {
                self.change(old, |v| v.completed = Some(now()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

//! Events for tests. Times are milliseconds since [`T0`].

use super::model::Model;
use super::palette::Palette;
use super::session::{Form, Look, Outcome, Session};
use super::tail::Limits;
use super::tty::{Size, View};
use proptest::prelude::*;
use proto::error::{Class, Failure, SourceRange};
use proto::id::Millis;
use proto::wire::build::{Event, Progress, Stream, Summary, Traffic, Vertex, VertexId, Warning};

/// The moment at which builds of tests begin.
pub const T0: u64 = 1_755_700_000_000;

/// A moment so long after the beginning.
pub fn at(ms: u64) -> Millis {
    Millis(T0 + ms)
}

/// A vertex that has not begun.
pub fn vertex(id: u32, name: &str) -> Vertex {
    Vertex {
        id: VertexId(id),
        name: name.into(),
        inputs: Vec::new(),
        started: None,
        completed: None,
        cached: false,
        saved_ms: 0,
        error: None,
    }
}

/// A vertex is known.
pub fn known(id: u32, name: &str) -> Event {
    Event::Vertex(vertex(id, name))
}

/// A vertex has begun.
pub fn begins(id: u32, name: &str, started: u64) -> Event {
    Event::Vertex(Vertex { started: Some(at(started)), ..vertex(id, name) })
}

/// A vertex is done.
pub fn done(id: u32, name: &str, started: u64, completed: u64) -> Event {
    let (started, completed) = (Some(at(started)), Some(at(completed)));
    Event::Vertex(Vertex { started, completed, ..vertex(id, name) })
}

/// A vertex has failed.
pub fn fails(id: u32, name: &str, started: u64, completed: u64, error: &str) -> Event {
    let (started, completed) = (Some(at(started)), Some(at(completed)));
    Event::Vertex(Vertex { started, completed, error: Some(error.into()), ..vertex(id, name) })
}

/// An earlier result was taken.
pub fn cached(id: u32, name: &str, when: u64) -> Event {
    let (started, completed) = (Some(at(when)), Some(at(when)));
    Event::Vertex(Vertex { started, completed, cached: true, saved_ms: 1000, ..vertex(id, name) })
}

/// A step writes.
pub fn log(id: u32, when: u64, data: impl AsRef<[u8]>) -> Event {
    let data = data.as_ref().to_vec();
    Event::Log { vertex: VertexId(id), stream: Stream::Stdout, at: at(when), data }
}

/// Bytes were moved.
pub fn moves(id: u32, what: &str, (current, total): (u64, u64), started: u64) -> Event {
    Event::Progress(Progress {
        vertex: VertexId(id),
        what: what.into(),
        current,
        total,
        started: at(started),
        completed: None,
    })
}

/// All bytes were moved.
pub fn moved(id: u32, what: &str, total: u64, started: u64, completed: u64) -> Event {
    Event::Progress(Progress {
        vertex: VertexId(id),
        what: what.into(),
        current: total,
        total,
        started: at(started),
        completed: Some(at(completed)),
    })
}

/// A remark on a line of the Dockerfile.
pub fn remark(rule: &str, message: &str, line: u32) -> Event {
    Event::Warning(Warning {
        rule: rule.into(),
        message: message.into(),
        detail: "Names of stages are written in small letters".into(),
        url: "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/".into(),
        at: Some(place(line)),
        excerpt: vec![(line, "FROM debian AS Builder".into())],
    })
}

/// A line of the Dockerfile.
pub fn place(line: u32) -> SourceRange {
    SourceRange { file: "Dockerfile".into(), first_line: line, last_line: line }
}

/// A build of which these events are known.
pub fn model(events: &[Event]) -> Model {
    let mut model = Model::new(at(0), Limits { lines: 100, bytes: 100_000 });
    events.iter().for_each(|event| model.apply(at(0), event));
    model
}

/// A display without colours.
pub fn session(form: Form) -> Session {
    Session::new(at(0), Look { form, palette: Palette::NONE, expand_warnings: false })
}

/// The form of a display on a terminal.
pub fn tty(log_lines: usize) -> Form {
    Form::Tty(View { log_lines, description: String::new() })
}

/// A build that has worked.
pub fn built() -> Outcome {
    let traffic = Traffic::default();
    Outcome::Built(Summary { steps: 14, cached: 12, saved_ms: 48_300, wall_ms: 5_700, traffic })
}

/// A build whose step failed in line 12.
pub fn failed() -> Outcome {
    let message = "process \"/bin/sh -c make\" did not complete successfully: exit code: 2";
    let mut failure = Failure::new(Class::User, message).at(place(12));
    failure.excerpt = vec![(11, "COPY . .".into()), (12, "RUN make".into()), (13, String::new())];
    Outcome::Failed(failure.hint("Run the step by hand with `slipway run`."))
}

/// Any size of a terminal.
pub fn any_size() -> impl Strategy<Value = Size> {
    let width = prop_oneof![0..30usize, 30..250usize];
    (width, 0..60usize).prop_map(|(width, height)| Size { width, height })
}

/// Any event: of few vertices, with times that need not make sense, with text that is meant to do
/// harm.
pub fn any_event() -> impl Strategy<Value = Event> {
    let time = prop_oneof![
        4 => (0..100_000u64).prop_map(at),
        1 => any::<u64>().prop_map(Millis),
    ];
    let time = || time.clone();
    let maybe = || prop::option::of(time());
    let id = || (0..8u32).prop_map(VertexId);
    let vertex = (id(), any_text(), maybe(), maybe(), any::<bool>(), prop::option::of(any_text()));
    let progress = (id(), any_text(), any::<[u64; 2]>(), time(), maybe());
    let log = (id(), any::<bool>(), time(), prop::collection::vec(any_text(), 0..4));
    prop_oneof![
        2 => vertex.prop_map(|(id, name, started, completed, cached, error)| {
            let inputs = vec![VertexId(id.0 / 2)];
            let saved_ms = 7;
            Event::Vertex(Vertex { id, name, inputs, started, completed, cached, saved_ms, error })
        }),
        1 => progress.prop_map(|(vertex, what, [current, total], started, completed)| {
            Event::Progress(Progress { vertex, what, current, total, started, completed })
        }),
        2 => log.prop_map(|(vertex, is_error, at, lines)| {
            let stream = if is_error { Stream::Stderr } else { Stream::Stdout };
            Event::Log { vertex, stream, at, data: lines.join("\n").into_bytes() }
        }),
        1 => (any_text(), any_text(), prop::option::of(any::<[u32; 2]>())).prop_map(
            |(rule, message, lines)| {
                let at = lines.map(|[first_line, last_line]| SourceRange {
                    file: message.clone(),
                    first_line,
                    last_line,
                });
                let excerpt = vec![(7, message.clone())];
                let (detail, url) = (message.clone(), rule.clone());
                Event::Warning(Warning { rule, message, detail, url, at, excerpt })
            }
        ),
    ]
}

/// Text with escape sequences, wide characters, marks and ends of lines.
pub fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[a-zA-Z0-9 ./:-]{0,30}",
        1 => prop::sample::select(vec![
            "\x1b[2J", "\x1b]0;title\x07", "\x1b[31m", "\x1b[10A", "\x1bc", "\x1b]8;;", "\x1bP",
            "\u{9b}2J", "\r", "\n", "\r\n", "\t", "\x08\x08", "日本語", "👩‍👩‍👧", "e\u{301}", "☃\u{fe0f}",
            "\u{202e}", "\u{2028}", "\0", "\x7f",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

//! The display for programs: one JSON object for each batch of events, on a line of its own, in
//! the form of BuildKit's `client.SolveStatus`, which `docker buildx build --progress=rawjson`
//! writes (moby/buildkit, `client/graph.go`; bytes are base64 and times RFC 3339, as Go's
//! `encoding/json` has them). Texts are as they came, as JSON escapes what is not harmless.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::report;
use base64::prelude::{BASE64_STANDARD, Engine};
use proto::error::SourceRange;
use proto::id::Millis;
use proto::wire::build::{Event, Progress, Stream, Vertex, VertexId, Warning};
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};

/// The last moment that has a name: 9999-12-31T23:59:59.999Z.
const MILLIS_MAX: u64 = 253_402_300_799_999;

/// The events as a line; nothing if there are none.
pub fn line(now: Millis, events: &[Event]) -> String {
    if events.is_empty() {
        return String::new();
    }
    let mut status = SolveStatus::default();
    for event in events {
        match event {
            Event::Vertex(vertex) => status.vertexes.push(vertex.into()),
            Event::Progress(progress) => status.statuses.push(VertexStatus::new(now, progress)),
            Event::Log { vertex, stream, at, data } => status.logs.push(VertexLog {
                vertex: digest(*vertex),
                stream: if *stream == Stream::Stdout { 1 } else { 2 },
                data: BASE64_STANDARD.encode(data),
                timestamp: time(*at),
            }),
            Event::Warning(warning) => status.warnings.push(warning.into()),
        }
    }
    let mut line = serde_json::to_string(&status).expect("text and numbers can be written as JSON");
    line.push('\n');
    line
}

/// A name of the form that BuildKit's readers expect. Unique in a build.
fn digest(id: VertexId) -> String {
    format!("sha256:{:064x}", id.0)
}

fn time(at: Millis) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at.0.min(MILLIS_MAX));
    humantime::format_rfc3339_millis(at).to_string()
}

/// False is left out, as in Go's `omitempty`.
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<SolveVertex<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<VertexStatus<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<VertexLog>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<VertexWarning<'a>>,
}

#[derive(Serialize)]
struct SolveVertex<'a> {
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> From<&'a Vertex> for SolveVertex<'a> {
    fn from(vertex: &'a Vertex) -> Self {
        Self {
            digest: digest(vertex.id),
            inputs: vertex.inputs.iter().copied().map(digest).collect(),
            name: &vertex.name,
            started: vertex.started.map(time),
            completed: vertex.completed.map(time),
            cached: vertex.cached,
            error: vertex.error.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct VertexStatus<'a> {
    id: &'a str,
    vertex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

impl<'a> VertexStatus<'a> {
    fn new(now: Millis, progress: &'a Progress) -> Self {
        Self {
            id: &progress.what,
            vertex: digest(progress.vertex),
            total: (progress.total > 0).then_some(progress.total),
            current: progress.current,
            timestamp: time(progress.completed.unwrap_or(now)),
            started: time(progress.started),
            completed: progress.completed.map(time),
        }
    }
}

#[derive(Serialize)]
struct VertexLog {
    vertex: String,
    /// 1 is standard output, 2 standard error.
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct VertexWarning<'a> {
    /// BuildKit's level of the linter's warnings.
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Serialize)]
struct SourceInfo<'a> {
    filename: &'a str,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

impl<'a> From<&'a Warning> for VertexWarning<'a> {
    fn from(warning: &'a Warning) -> Self {
        let range = |at: &SourceRange| Range {
            start: Position { line: at.first_line },
            end: Position { line: at.last_line },
        };
        Self {
            level: 1,
            short: BASE64_STANDARD.encode(report::remark(warning)),
            detail: Some(warning.detail.as_str())
                .filter(|detail| !detail.is_empty())
                .map(|detail| BASE64_STANDARD.encode(detail))
                .into_iter()
                .collect(),
            url: &warning.url,
            source_info: warning.at.as_ref().map(|at| SourceInfo { filename: &at.file }),
            range: warning.at.iter().map(range).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Millis = Millis(1_755_700_000_123);

    #[test]
    fn field_names_are_buildkits() {
        let events = [
            Event::Vertex(Vertex {
                id: VertexId(5),
                name: "[2/2] RUN make".into(),
                inputs: vec![VertexId(4)],
                started: Some(AT),
                completed: None,
                cached: false,
                saved_ms: 0,
                error: None,
            }),
            Event::Progress(Progress {
                vertex: VertexId(4),
                what: "sha256:abc".into(),
                current: 0,
                total: 40,
                started: AT,
                completed: None,
            }),
            Event::Log {
                vertex: VertexId(5),
                stream: Stream::Stderr,
                at: Millis(AT.0 + 877),
                data: b"\x1b[31mhi\xff\n".to_vec(),
            },
            Event::Warning(Warning {
                rule: "StageNameCasing".into(),
                message: "Stage name 'A' should be lowercase".into(),
                detail: "hi".into(),
                url: "https://u".into(),
                at: Some(SourceRange { file: "Dockerfile".into(), first_line: 3, last_line: 4 }),
                excerpt: Vec::new(),
            }),
        ];
        let zeros = "0".repeat(63);
        let expected = format!(
            concat!(
                r#"{{"vertexes":[{{"digest":"sha256:{z}5","inputs":["sha256:{z}4"],"#,
                r#""name":"[2/2] RUN make","started":"2025-08-20T14:26:40.123Z"}}],"#,
                r#""statuses":[{{"id":"sha256:abc","vertex":"sha256:{z}4","total":40,"current":0,"#,
                r#""timestamp":"2025-08-20T14:26:42.000Z","started":"2025-08-20T14:26:40.123Z"}}],"#,
                r#""logs":[{{"vertex":"sha256:{z}5","stream":2,"data":"G1szMW1oaf8K","#,
                r#""timestamp":"2025-08-20T14:26:41.000Z"}}],"#,
                r#""warnings":[{{"level":1,"short":"U3RhZ2VOYW1lQ2FzaW5nOiBTdGFnZSBuYW1lICdBJyBza"#,
                r#"G91bGQgYmUgbG93ZXJjYXNlIChsaW5lIDMp","detail":["aGk="],"url":"https://u","#,
                r#""sourceInfo":{{"filename":"Dockerfile"}},"#,
                r#""range":[{{"start":{{"line":3}},"end":{{"line":4}}}}]}}]}}"#,
                "\n"
            ),
            z = zeros
        );
        assert_eq!(line(Millis(1_755_700_002_000), &events), expected);
        assert_eq!(line(AT, &[]), "");
    }

    #[test]
    fn an_end_says_so() {
        let vertex = Vertex {
            id: VertexId(0),
            name: "x".into(),
            inputs: Vec::new(),
            started: Some(Millis(0)),
            completed: Some(Millis(u64::MAX)),
            cached: true,
            saved_ms: 7,
            error: Some("why".into()),
        };
        let line = line(AT, &[Event::Vertex(vertex)]);
        let end = concat!(
            r#""started":"1970-01-01T00:00:00.000Z","completed":"9999-12-31T23:59:59.999Z","#,
            r#""cached":true,"error":"why"}]}"#,
            "\n"
        );
        assert!(line.ends_with(end), "{line}");
    }
}

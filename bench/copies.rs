//! COPY --from between stages: the step alone, as each side's own progress tells it.

use crate::context::{Context, path};
use crate::side::{BUILDKIT, Sides, farm, settle, slipway};
use crate::table::{Row, TIMES, Table, Target};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::builder::Builder;

pub fn measure(table: &mut Table) {
    let context = Context::new();
    let sides = Sides::fresh();
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    let mut moved = Vec::new();
    for time in 0..=TIMES {
        let text = format!(
            "FROM scratch AS a\nCOPY . /files/\nFROM scratch\nCOPY --from=a / /to{time}/\n"
        );
        let dockerfile = context.write_dockerfile("Dockerfile.copy", &text);
        let files = context.path();
        settle();
        let before = moved_bytes(&sides.ours);
        let our_time = step(&sides.ours, &["-f", &dockerfile, "-o", "type=cacheonly"], &files);
        let after = moved_bytes(&sides.ours);
        settle();
        let peer_time = step(&sides.peer, &["-f", &dockerfile, "-t", "bench"], &files);
        // The first time brings the context.
        if time > 0 {
            ours.push(our_time);
            peer.push(peer_time);
            moved.push(after.saturating_sub(before));
        }
        if time == TIMES {
            sides.ours.build(&["-f", &dockerfile, "-t", "bench"], &files).ok();
        }
    }
    let differences = sides.differences("bench");
    let peer = Some((BUILDKIT.to_owned(), peer));
    let work = "COPY --from of the 20,000 files, the step alone".to_owned();
    let target = Target::Within(Duration::from_millis(20));
    table.add(Row { work, ours, peer, target, differences });
    moved.sort_unstable();
    table.note(format!(
        "In the whole build with that step the farm read and wrote {:.1} MB by system calls \
         (`rchar` and `wchar` of its `/proc/PID/io`), of 235 MB.",
        moved[moved.len() / 2] as f64 / 1e6,
    ));
}

/// The bytes that the farm has read and written by now, from and to anything.
fn moved_bytes(builder: &Builder) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", farm(slipway(builder)).pid));
    let text = text.expect("the farm lives");
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a counter");
        line.trim().parse::<u64>().expect("a number")
    };
    of("rchar:") + of("wchar:")
}

/// How long the step took that copies from another stage.
fn step(builder: &Builder, flags: &[&str], context: &Path) -> Duration {
    let progress = match builder {
        Builder::Slipway(_) => "--progress=rawjson",
        Builder::BuildKit(_) => "--progress=plain",
    };
    let outcome = builder.build(&[flags, &[progress]].concat(), context).ok();
    let text = outcome.all();
    match builder {
        Builder::Slipway(_) => from_json(&text),
        Builder::BuildKit(_) => from_plain(&text),
    }
    .unwrap_or_else(|| panic!("the time of `COPY --from` in {}:\n{outcome}", path(context)))
}

/// From BuildKit's status messages: when the vertex was started and completed. Their times are whole
/// milliseconds: what began and ended in the same one is taken for one.
fn from_json(text: &str) -> Option<Duration> {
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let vertexes = messages
        .filter_map(|message: serde_json::Value| Some(message["vertexes"].as_array()?.clone()));
    let ended = vertexes.flatten().find(|vertex| {
        vertex["name"].as_str().is_some_and(|name| name.contains("COPY --from"))
            && vertex["completed"].is_string()
    })?;
    let moment = |key: &str| seconds_of_day(ended[key].as_str()?);
    let took = (moment("completed")? - moment("started")?).rem_euclid(86400.0);
    Some(Duration::from_secs_f64(took).max(Duration::from_millis(1)))
}

/// The seconds of the day of a time by RFC 3339 in UTC.
fn seconds_of_day(text: &str) -> Option<f64> {
    let (_, time) = text.split_once('T')?;
    let mut parts = time.trim_end_matches('Z').split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

/// From plain progress: `#7 [stage-1 1/1] COPY --from=…` and `#7 DONE 2.3s`.
fn from_plain(text: &str) -> Option<Duration> {
    let named = text.lines().find(|line| line.contains("] COPY --from"))?;
    let number = named.split(' ').next()?;
    let start = format!("{number} DONE ");
    let time = text.lines().find_map(|line| line.strip_prefix(&start))?;
    time.trim_end_matches('s').parse().ok().map(Duration::from_secs_f64)
}

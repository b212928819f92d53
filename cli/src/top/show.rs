//! How a farm is, as text and as JSON.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::clock::{size, span};
use crate::images::familiar;
use crate::table::Table;
use proto::id::{BuildId, Millis};
use proto::wire::overview::{BuildNow, Overview, StepRuns, StepWaits, WorkerNow};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthChar;

/// Characters of a build's name that are shown: enough for `slipway logs` to find it.
const SHORT: usize = 8;

/// Characters of a step's name that are shown before something else.
const STEP: usize = 40;

/// One kind of rows, with a heading.
struct Section {
    title: String,
    table: Vec<String>,
}

fn since(overview: &Overview, then: Millis) -> String {
    span(overview.at.since(then))
}

fn first(builds: &[BuildId]) -> String {
    let name = builds.first().map_or("", BuildId::as_str);
    let short: String = name.chars().take(SHORT).collect();
    match builds.len() {
        0 | 1 => short,
        n => format!("{short} +{}", n - 1),
    }
}

/// The beginning of a step's name.
fn beginning(name: &str) -> String {
    match name.chars().count() > STEP {
        true => name.chars().take(STEP - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

fn section(title: String, headings: &[&str], rows: Vec<Vec<String>>) -> Section {
    let mut table = Table::new(headings);
    for row in rows {
        table.row(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    Section { title, table: table.text().lines().map(str::to_owned).collect() }
}

fn workers(overview: &Overview) -> Section {
    let row = |worker: &WorkerNow| {
        let memory = match worker.memory_bytes {
            0 => String::new(),
            all => format!("{} of {}", size(worker.memory_taken), size(all)),
        };
        let disk = match worker.disk_free_bytes {
            0 => String::new(),
            free => size(free),
        };
        let platforms: Vec<String> = worker.platforms.iter().map(ToString::to_string).collect();
        vec![
            worker.id.to_string(),
            worker.state.as_str().to_owned(),
            format!("{} of {}", worker.slots_used, worker.slots),
            worker.fetches.to_string(),
            memory,
            disk,
            platforms.join(" "),
        ]
    };
    let headings = ["WORKER", "STATE", "SLOTS", "FETCHES", "MEMORY", "DISK FREE", "PLATFORMS"];
    let title = format!("Workers ({})", overview.workers.len());
    section(title, &headings, overview.workers.iter().map(row).collect())
}

fn builds(overview: &Overview) -> Section {
    let row = |build: &BuildNow| {
        let what = build.description.split(", ").map(familiar).collect::<Vec<_>>().join(", ");
        vec![
            build.id.as_str().chars().take(SHORT).collect(),
            build.who.clone(),
            since(overview, build.started),
            build.steps_done.to_string(),
            build.steps_cached.to_string(),
            what,
        ]
    };
    let headings = ["BUILD", "WHO", "FOR", "STEPS DONE", "CACHED", "WHAT"];
    let title = format!("Builds ({})", overview.build_count);
    section(title, &headings, overview.builds.iter().map(row).collect())
}

fn running(overview: &Overview) -> Section {
    let row = |step: &StepRuns| {
        let time = since(overview, step.since);
        vec![time, step.worker.to_string(), first(&step.builds), step.name.clone()]
    };
    let headings = ["FOR", "WORKER", "BUILD", "STEP"];
    let title = format!("Running ({})", overview.running_count);
    section(title, &headings, overview.running.iter().map(row).collect())
}

fn waiting(overview: &Overview) -> Section {
    let row = |step: &StepWaits| {
        let time = since(overview, step.since);
        vec![time, first(&step.builds), beginning(&step.name), step.why.clone()]
    };
    let headings = ["FOR", "BUILD", "STEP", "WHY"];
    let title = format!("Waiting ({})", overview.waiting_count);
    section(title, &headings, overview.waiting.iter().map(row).collect())
}

fn sections(overview: &Overview) -> [Section; 4] {
    [workers(overview), builds(overview), running(overview), waiting(overview)]
}

/// The farm in one line.
fn heading(overview: &Overview) -> String {
    let slots: u64 = overview.workers.iter().map(|w| u64::from(w.slots)).sum();
    let used: u64 = overview.workers.iter().map(|w| u64::from(w.slots_used)).sum();
    let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}, {}, {used} of {slots} slots used, {} running, {} waiting",
        count(overview.workers.len() as u64, "worker"),
        count(overview.build_count, "build"),
        count(overview.running_count, "step"),
        overview.waiting_count
    )
}

/// All of it, for scripts and for paper.
pub fn whole(overview: &Overview) -> String {
    let mut out = format!("{}\n", heading(overview));
    for section in sections(overview) {
        out.push_str(&format!("\n{}\n", section.title));
        section.table.iter().skip(usize::from(section.table.len() == 1)).for_each(|line| {
            out.push_str(line);
            out.push('\n');
        });
    }
    out
}

/// As much of it as fits on a terminal.
pub fn fitted(overview: &Overview, note: &str, rows: usize, columns: usize) -> Vec<String> {
    let sections = sections(overview);
    let mut lines = vec![heading(overview)];
    if !note.is_empty() {
        lines.push(note.to_owned());
    }
    // A blank line, a title and headings for each; what is left is for rows.
    let fixed = lines.len() + 3 * sections.len();
    let wants = sections.each_ref().map(|s| s.table.len().saturating_sub(1));
    let shares = shares(rows.saturating_sub(fixed), wants);
    for (section, share) in sections.iter().zip(shares) {
        let count = section.table.len().saturating_sub(1);
        lines.push(String::new());
        lines.push(match count > share {
            true => format!("{}, the first {share}", section.title),
            false => section.title.clone(),
        });
        if count > 0 {
            lines.extend(section.table.iter().take(1 + share).cloned());
        }
    }
    lines.truncate(rows);
    lines.iter().map(|line| cut(line, columns)).collect()
}

/// Gives out rows, one by one to each that wants more.
fn shares<const N: usize>(mut room: usize, wants: [usize; N]) -> [usize; N] {
    let mut shares = [0; N];
    while room > 0 && shares != wants {
        for (share, want) in shares.iter_mut().zip(wants) {
            if room > 0 && *share < want {
                *share += 1;
                room -= 1;
            }
        }
    }
    shares
}

/// As much of a line as fits.
fn cut(line: &str, columns: usize) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for c in line.chars() {
        width += c.width().unwrap_or(0);
        if width > columns {
            return out;
        }
        out.push(c);
    }
    out
}

/// All of it, for programs.
pub fn json(overview: &Overview) -> String {
    let names = |builds: &[BuildId]| builds.iter().map(BuildId::as_str).map(Value::from).collect();
    let worker = |w: &WorkerNow| {
        let platforms: Vec<String> = w.platforms.iter().map(ToString::to_string).collect();
        json!({
            "name": w.id.as_str(),
            "state": w.state.as_str(),
            "platforms": platforms,
            "slots": w.slots,
            "slots_used": w.slots_used,
            "fetches": w.fetches,
            "memory_bytes": w.memory_bytes,
            "memory_taken_bytes": w.memory_taken,
            "disk_free_bytes": w.disk_free_bytes,
        })
    };
    let runs = |s: &StepRuns| {
        let builds: Vec<Value> = names(&s.builds);
        json!({
            "step": s.name,
            "builds": builds,
            "worker": s.worker.as_str(),
            "for_ms": overview.at.since(s.since),
        })
    };
    let waits = |s: &StepWaits| {
        let builds: Vec<Value> = names(&s.builds);
        json!({
            "step": s.name,
            "builds": builds,
            "for_ms": overview.at.since(s.since),
            "reason": s.reason,
            "why": s.why,
        })
    };
    let build = |b: &BuildNow| {
        json!({
            "id": b.id.as_str(),
            "who": b.who,
            "description": b.description,
            "for_ms": overview.at.since(b.started),
            "steps_done": b.steps_done,
            "steps_cached": b.steps_cached,
        })
    };
    let all = json!({
        "at_ms": overview.at.0,
        "workers": overview.workers.iter().map(worker).collect::<Vec<_>>(),
        "builds": overview.builds.iter().map(build).collect::<Vec<_>>(),
        "running": overview.running.iter().map(runs).collect::<Vec<_>>(),
        "waiting": overview.waiting.iter().map(waits).collect::<Vec<_>>(),
        "build_count": overview.build_count,
        "running_count": overview.running_count,
        "waiting_count": overview.waiting_count,
    });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::WorkerId;
    use proto::platform::Platform;
    use proto::wire::overview::WorkerState;

    fn farm(waiting: usize) -> Overview {
        let build = || BuildId::parse("bcdfghjkmnbc").unwrap();
        let worker = |name: &str, state, slots_used| WorkerNow {
            id: WorkerId::parse(name).unwrap(),
            state,
            platforms: vec![Platform::parse("linux/amd64").unwrap()],
            slots: 2,
            slots_used,
            fetches: 0,
            memory_bytes: 16_000_000_000,
            memory_taken: 8_000_000_000,
            disk_free_bytes: 40_000_000_000,
        };
        let waits = |n: usize| StepWaits {
            builds: vec![build()],
            name: format!("[stage-{n} 2/2] RUN make"),
            since: Millis(9000),
            reason: "busy".into(),
            why: "The only worker that could do it is busy: it is the next one".into(),
        };
        Overview {
            at: Millis(10_000),
            workers: vec![
                worker("box-1", WorkerState::Open, 1),
                worker("box-2", WorkerState::Cordoned, 0),
            ],
            running: vec![StepRuns {
                builds: vec![build(), BuildId::parse("other").unwrap()],
                name: "[builder 2/5] RUN\x1b[2J make".into(),
                worker: WorkerId::parse("box-1").unwrap(),
                since: Millis(6800),
            }],
            waiting: (0..waiting).map(waits).collect(),
            builds: vec![BuildNow {
                id: build(),
                who: "ann".into(),
                description: "docker.io/library/app:latest".into(),
                started: Millis(4000),
                steps_done: 3,
                steps_cached: 1,
            }],
            running_count: 1,
            waiting_count: waiting as u64,
            build_count: 1,
        }
    }

    #[test]
    fn all_of_it_is_told_in_words() {
        let text = whole(&farm(1));
        let has = |part: &str| assert!(text.contains(part), "{part:?} is not in\n{text}");
        has("2 workers, 1 build, 1 of 4 slots used, 1 step running, 1 waiting\n");
        has("box-1    serving    1 of 2   0         8.00GB of 16.0GB   40.0GB");
        has("box-2    cordoned");
        has("bcdfghjk   ann   6.0s   3            1        app:latest");
        has("3.2s   box-1    bcdfghjk +1   [builder 2/5] RUN [2J make");
        has(
            "1.0s   bcdfghjk   [stage-0 2/2] RUN make   The only worker that could do it is busy: it is",
        );
        assert_eq!(beginning(&"x".repeat(41)), format!("{}…", "x".repeat(39)));
        assert!(!text.contains('\x1b'), "what builds say moves no cursor");
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        for (rows, columns) in [(24, 80), (10, 20), (1, 1), (60, 200)] {
            let lines = fitted(&farm(100), "", rows, columns);
            assert!(lines.len() <= rows, "{} lines for {rows} rows", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= columns));
        }
        let lines = fitted(&farm(100), "No answer", 24, 80);
        assert_eq!(lines[1], "No answer");
        assert!(lines.contains(&"Waiting (100), the first 6".to_owned()), "{lines:#?}");
    }

    #[test]
    fn rows_are_shared() {
        assert_eq!(shares(10, [1, 100, 2, 0]), [1, 7, 2, 0]);
        assert_eq!(shares(3, [5, 5, 5]), [1, 1, 1]);
        assert_eq!(shares(0, [5, 5]), [0, 0]);
        assert_eq!(shares(99, [5, 0]), [5, 0]);
    }

    #[test]
    fn programs_get_all_of_it() {
        let value: Value = serde_json::from_str(&json(&farm(2))).unwrap();
        assert_eq!(value["workers"][1]["state"], "cordoned");
        assert_eq!(value["running"][0]["for_ms"], 3200);
        assert_eq!(value["running"][0]["builds"][1], "other");
        assert_eq!(value["waiting"][1]["reason"], "busy");
        assert_eq!(value["builds"][0]["who"], "ann");
        assert_eq!(value["waiting_count"], 2);
    }
}

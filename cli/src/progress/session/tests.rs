use super::*;
use crate::progress::testing::*;
use proptest::prelude::*;
use proto::wire::build::Traffic;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const SIZE: Size = Size { width: 60, height: 20 };

/// A build that fails in a step.
fn failing() -> Vec<Event> {
    let lines: String = (1..=12).map(|n| format!("line\t{n}\n")).collect();
    vec![
        remark("StageNameCasing", "Stage name 'Builder' should be\nlowercase", 3),
        cached(1, "[1/2] FROM debian", 0),
        begins(2, "[2/2] RUN make", 0),
        log(2, 512, lines),
        fails(2, "[2/2] RUN make", 0, 900, "exit code: 2"),
    ]
}

fn last(form: Form, expand_warnings: bool, events: &[Event], outcome: &Outcome) -> String {
    let mut session = session(form);
    session.expand_warnings = expand_warnings;
    session.events(at(1000), SIZE, events);
    session.finish(at(1000), SIZE, outcome)
}

const ERROR: &str = "\
Dockerfile:12
--------------------
  11 |     COPY . .
  12 | >>> RUN make
  13 |
--------------------
ERROR: process \"/bin/sh -c make\" did not complete successfully: exit code: 2
Hint: Run the step by hand with `slipway run`.
";

#[test]
fn a_failure_on_a_terminal() {
    let mut session = session(tty(6));
    session.events(at(900), SIZE, &failing());
    let text = session.finish(at(1000), SIZE, &failed());
    let report = text.rsplit_once("\x1b[?25h").unwrap().1;
    let log: String = (1..=12).map(|n| format!("0.512 line    {n}\n")).collect();
    assert_eq!(
        report,
        format!(
            "\
------
 > [2/2] RUN make:
{log}------

 1 warning found (use --debug to expand):
 - StageNameCasing: Stage name 'Builder' should be lowercase (line 3)
{ERROR}"
        )
    );
    assert!(text.contains("[+] Building 1.0s (2/2) ERROR"), "{text}");
    assert!(text.contains(" => ERROR [2/2] RUN make "), "{text}");
}

#[test]
fn a_failure_as_text_repeats_the_last_lines() {
    let text = last(Form::Plain, true, &failing(), &failed());
    let log: String = (3..=12).map(|n| format!("0.512 line    {n}\n")).collect();
    assert_eq!(
        text,
        format!(
            "\
------
 > [2/2] RUN make:
[2 earlier lines are left out here]
{log}------

 1 warning found:
 - StageNameCasing: Stage name 'Builder' should be lowercase (line 3)
Names of stages are written in small letters
More info: https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Dockerfile:3
--------------------
   3 | >>> FROM debian AS Builder
--------------------
{ERROR}"
        )
    );
}

#[test]
fn quiet_says_nothing_but_the_failure() {
    let mut session = session(Form::Quiet);
    assert_eq!(session.events(at(900), SIZE, &failing()), "");
    let text = session.finish(at(1000), SIZE, &failed());
    assert!(text.starts_with("------\n > [2/2] RUN make:\n0.512 line    1\n"), "{text}");
    assert!(text.ends_with(&format!("0.512 line    12\n------\n{ERROR}")), "{text}");
    assert_eq!(last(Form::Quiet, false, &[remark("A", "b", 1)], &built()), "");
}

#[test]
fn json_ends_with_the_error() {
    let mut session = session(Form::RawJson);
    let text = session.events(at(900), SIZE, &failing());
    assert_eq!(text.lines().count(), 1);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["vertexes"].as_array().unwrap().len(), 3);
    assert_eq!(session.events(at(900), SIZE, &[]), "");
    assert_eq!(session.finish(at(1000), SIZE, &failed()), ERROR);
    assert_eq!(last(Form::RawJson, false, &failing(), &built()), "");
}

#[test]
fn a_result_is_summed_up() {
    let text = last(Form::Plain, false, &[cached(1, "a", 0)], &built());
    assert_eq!(text, "\n14 steps, 12 cached, 48.3s saved (5.7s in all)\n");
    let traffic = Traffic { context: 1500, inputs: 2_000_000, ..Traffic::default() };
    let summary = Summary { steps: 1, cached: 0, saved_ms: 0, wall_ms: 65_000, traffic };
    let text = last(tty(6), false, &[done(1, "a", 0, 5)], &Outcome::Built(summary));
    assert!(text.contains("[+] Building 1.0s (1/1) FINISHED"), "{text}");
    assert!(
        text.ends_with(
            "\x1b[?25h\n1 step, 0 cached (1m 5s in all)\nmoved: context 1.50kB, inputs 2.00MB\n"
        ),
        "{text:?}"
    );
}

#[test]
fn a_cancelled_build_says_so() {
    let outcome = Outcome::Failed(Failure::new(Class::Cancelled, "The build was cancelled"));
    let text = last(tty(6), false, &[begins(1, "RUN sleep", 0)], &outcome);
    assert!(text.contains("[+] Building 1.0s (1/1) CANCELED"), "{text}");
    assert!(text.contains(" => CANCELED RUN sleep "), "{text}");
    assert!(text.ends_with("\x1b[?25hERROR: The build was cancelled\n"), "{text}");
    let text = last(Form::Plain, false, &[begins(1, "RUN sleep", 0)], &Outcome::Abandoned);
    assert_eq!(text, "#1 CANCELED\n");
}

#[test]
fn an_error_without_lines_names_its_place() {
    let failure = Failure::new(Class::User, "unknown \x1b[31minstruction\nFRM").at(place(7));
    let text = last(Form::Plain, false, &[], &Outcome::Failed(failure));
    assert_eq!(text, "ERROR: Dockerfile:7: unknown instruction\nFRM\n");
}

#[test]
fn colours_are_for_words_that_matter() {
    let look = Look { form: Form::Quiet, palette: Palette::new(""), expand_warnings: false };
    let mut session = Session::new(at(0), look);
    session.events(at(1), SIZE, &failing());
    let text = session.finish(at(1), SIZE, &failed());
    assert!(text.contains("\n > \x1b[31m[2/2] RUN make\x1b[0m:\n"), "{text}");
    assert!(text.contains("\n\x1b[31mERROR:\x1b[0m process"), "{text}");
}

/// What is left of a frame when the sequences that [`Screen`] writes are taken away.
fn lines(frame: &str) -> Vec<String> {
    let body = frame.strip_prefix("\x1b[?25l\x1b[?7l\r").expect("a frame begins so");
    let body = body.strip_suffix("\x1b[J\x1b[?7h\x1b[?25h").expect("a frame ends so");
    let body = match body.strip_prefix("\x1b[").and_then(|rest| rest.split_once('A')) {
        Some((up, rest)) if up.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => body,
    };
    let mut lines: Vec<_> = body.split("\x1b[K\r\n").map(str::to_owned).collect();
    assert_eq!(lines.pop().as_deref(), Some(""));
    lines
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<[u64; 2]>().prop_map(|[saved_ms, wall_ms]| {
            let traffic = Traffic { context: saved_ms, ..Traffic::default() };
            Outcome::Built(Summary { steps: 3, cached: 2, saved_ms, wall_ms, traffic })
        }),
        (any_text(), any_text()).prop_map(|(message, hint)| {
            let mut failure = Failure::new(Class::User, message).hint(hint.clone()).at(place(1));
            failure.excerpt = vec![(1, hint)];
            Outcome::Failed(failure)
        }),
        Just(Outcome::Abandoned),
    ]
}

fn any_batches() -> impl Strategy<Value = Vec<(u64, Size, Vec<Event>)>> {
    let batch = (0..200_000u64, any_size(), prop::collection::vec(any_event(), 0..12));
    prop::collection::vec(batch, 0..6)
}

proptest! {
    /// Whatever comes, frames fit the terminal and hold nothing that a terminal would obey.
    #[test]
    fn frames_fit(batches in any_batches(), outcome in any_outcome(), log_lines in 0..9usize) {
        let mut session = session(tty(log_lines));
        for (now, size, events) in &batches {
            let lines = lines(&session.events(at(*now), *size, events));
            prop_assert!(lines.len() < size.height.max(1), "{} of {}", lines.len(), size.height);
            for line in &lines {
                prop_assert!(line.width() < size.width.max(1), "{line:?} in {}", size.width);
                let cells: usize = line.chars().map(|c| c.width().unwrap_or(9)).sum();
                prop_assert!(cells < size.width.max(1), "{line:?} in {}", size.width);
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
        let text = session.finish(at(0), SIZE, &outcome);
        let (frames, report) = text.rsplit_once("\x1b[?25h").expect("a frame comes first");
        let (_, last) = frames.rsplit_once("\x1b[?25l").expect("a frame has a beginning");
        for line in lines(&format!("\x1b[?25l{last}\x1b[?25h")) {
            prop_assert!(line.width() < SIZE.width && !line.chars().any(char::is_control));
        }
        prop_assert!(!report.chars().any(|c| c.is_control() && c != '\n'), "{report:?}");
    }

    /// Whatever comes, text is harmless, and logs are complete.
    #[test]
    fn text_is_harmless(batches in any_batches(), outcome in any_outcome()) {
        let mut session = session(Form::Plain);
        let mut text = String::new();
        for (now, size, events) in &batches {
            text += &session.events(at(*now), *size, events);
        }
        text += &session.finish(at(300_000), SIZE, &outcome);
        prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
        prop_assert!(text.is_empty() || text.ends_with('\n'));
    }

    /// However the lines of steps side by side are told, each step's are there and in order.
    #[test]
    fn logs_are_complete(pieces in prop::collection::vec((1..5u32, "[a-z \n]{0,12}", 0..9_000u64), 1..60)) {
        let mut session = session(Form::Plain);
        let (mut now, mut text) = (0, String::new());
        let starts: Vec<_> = (1..5).map(|id| begins(id, &format!("step {id}"), 0)).collect();
        text += &session.events(at(0), SIZE, &starts);
        for (id, data, pause) in &pieces {
            now += pause;
            text += &session.events(at(now), SIZE, &[log(*id, now, data)]);
        }
        text += &session.finish(at(now), SIZE, &Outcome::Abandoned);
        let mut numbers = std::collections::BTreeMap::new();
        let mut told = std::collections::BTreeMap::<u32, String>::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (number, rest) = line.split_once(' ').expect("a line has a number and words");
            if let Some(id) = rest.strip_prefix("step ") {
                numbers.insert(number.to_owned(), id.parse::<u32>().unwrap());
            } else if rest.starts_with(|c: char| c.is_ascii_digit()) {
                let said = rest.split_once(' ').map_or("", |(_, said)| said);
                *told.entry(numbers[number]).or_default() += said;
            } else {
                prop_assert!(["...", "CANCELED"].contains(&rest), "{line:?}");
            }
        }
        for id in 1..5 {
            let said: String = pieces.iter().filter(|p| p.0 == id).map(|p| &*p.1).collect();
            prop_assert_eq!(told.remove(&id).unwrap_or_default(), said.replace('\n', ""));
        }
    }

    /// Whatever comes, each batch is a line of JSON.
    #[test]
    fn json_is_json(batches in any_batches()) {
        let mut session = session(Form::RawJson);
        for (now, size, events) in &batches {
            let text = session.events(at(*now), *size, events);
            prop_assert_eq!(text.is_empty(), events.is_empty());
            for line in text.lines() {
                let status: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
                let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
                let all: usize = ["vertexes", "statuses", "logs", "warnings"].map(count).iter().sum();
                prop_assert_eq!(all, events.len());
            }
        }
    }
}

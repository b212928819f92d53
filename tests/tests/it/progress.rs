//! What people and programs see of a build.

use crate::cache::until;
use serde_json::Value;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tests::command::{command, run};
use tests::http::{Response, Server};
use tests::scratch::Scratch;
use tests::site::Site;
use tests::tool::tool;

const TWO_STAGES: &str = "
FROM conf/busybox:1 AS builder
COPY note /note
RUN echo from the builder && cat /note
FROM conf/busybox:1
COPY --from=builder /note /note
";

fn site() -> Site {
    let site = Site::of(TWO_STAGES);
    site.write("note", "a note\n");
    site
}

#[test]
fn plain_names_steps_and_shows_their_logs() {
    let site = site();
    let first = site.build(&["--progress=plain", "-t", "app"]).ok();
    assert_eq!(first.text(), "", "progress goes to standard error");
    let first = first.says("[builder 2/3] COPY note /note").says("[builder 3/3] RUN echo from");
    let first = first.says("[stage-1 2/2] COPY --from=builder").says("from the builder\n");
    let first = first.says("transferring context").says("DONE");
    assert!(!first.all().contains('\x1b'), "no escapes where no terminal is");
    let second = site.build(&["--progress=plain", "-t", "app"]).ok().says("CACHED");
    let second = second.never_says("from the builder\n");
    let last = second.all().trim_end().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("cached") && last.contains("saved"), "a summary at the end\n{second}");
}

#[test]
fn rawjson_is_one_object_a_line_with_buildkits_names() {
    let site = site();
    let outcome = site.build(&["--progress=rawjson", "-t", "app"]).ok();
    let text = String::from_utf8(outcome.stderr.clone()).expect("UTF-8");
    let parse = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let lines: Vec<Value> = text.lines().map(parse).collect();
    let all = |key: &str| -> Vec<&Value> {
        lines.iter().filter_map(|line| line[key].as_array()).flatten().collect()
    };
    let run = all("vertexes").into_iter().find(|vertex| {
        vertex["name"].as_str().is_some_and(|name| name.contains("RUN echo from the builder"))
    });
    let digest = run.expect("the step is there")["digest"].clone();
    assert!(digest.as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    let completed = |vertex: &&Value| vertex["digest"] == digest && vertex["completed"].is_string();
    assert!(all("vertexes").iter().any(completed));
    // "from the builder\n" in base64.
    let logged = |log: &&Value| {
        log["vertex"] == digest
            && log["data"].as_str().is_some_and(|d| d.starts_with("ZnJvbSB0aGUgYnVpbGRlc"))
    };
    assert!(all("logs").iter().any(logged), "{text}");
    assert!(all("statuses").iter().any(|status| status["current"].as_u64() > Some(0)));
}

#[test]
fn quiet_says_nothing_until_something_fails() {
    let site = site();
    let quiet = site.build(&["--progress=quiet", "-t", "app"]).ok();
    assert_eq!(quiet.stderr, b"");
    site.dockerfile("FROM conf/busybox:1\nRUN echo before it fails; exit 9\n");
    let failed = site.build(&["-q"]).fails(1).says("before it fails").says("Dockerfile:2");
    assert_eq!(failed.text(), "");
}

#[test]
fn a_failing_step_is_shown_with_its_log_and_its_line() {
    let site = Site::of(
        "FROM conf/busybox:1 AS one\nRUN echo fine\n\n# Here:\nRUN echo one; \\\n    echo two; \\\n    exit 7\n",
    );
    let failed = site.build(&[]).fails(1).says("two").says("7");
    let text = failed.all();
    let end = &text[text.rfind("------").unwrap_or_default()..];
    assert!(text.contains("Dockerfile:5"), "{failed}");
    assert!(
        text.contains(">>>") && text.contains("RUN echo one;"),
        "the lines are shown\n{failed}"
    );
    assert!(end.contains("ERROR"), "the error comes last\n{failed}");
}

#[test]
fn an_unknown_way_of_progress_is_wrong_usage() {
    let site = site();
    site.build(&["--progress=fancy"]).says("fancy").says("rawjson").says("plain");
    site.build(&["--progress=tty"]).fails(1).says("terminal");
    let mut by_variable = site.slipway.command(&["build"]);
    by_variable.env("BUILDKIT_PROGRESS", "quiet").arg(site.context.path());
    assert_eq!(run(&mut by_variable).ok().stderr, b"");
}

/// A terminal of 100 columns and 30 lines, in which a command runs.
struct Terminal {
    scratch: Scratch,
}

impl Terminal {
    fn start(program: &std::process::Command) -> Self {
        let this = Self { scratch: Scratch::new("terminal") };
        let words = std::iter::once(program.get_program()).chain(program.get_args());
        let words: Vec<String> =
            words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let env = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let env: Vec<String> = env
            .map(|(name, value)| {
                format!("{}='{}'", name.to_string_lossy(), value.to_string_lossy())
            })
            .collect();
        let line = format!(
            "env -i TERM=xterm {} {}; echo ended $?; read end",
            env.join(" "),
            words.join(" ")
        );
        this.tmux(&["new-session", "-d", "-x", "100", "-y", "30", &line]);
        this
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut tmux = command(tool("tmux"));
        tmux.env("HOME", self.scratch.path()).env("TERM", "xterm");
        tmux.args(["-f", "/dev/null", "-S"]).arg(self.scratch.join("socket"));
        run(tmux.args(args)).ok().text()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn on_a_terminal_what_runs_is_drawn_again_and_again() {
    let go = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Arc::clone(&go);
    let server = Server::start(move |_| {
        let open = gate.0.lock().expect("no one panics with it");
        drop(gate.1.wait_timeout_while(open, Duration::from_secs(120), |open| !*open));
        Response::new(200, "ok\n")
    });
    let site = Site::of(&format!(
        "FROM conf/busybox:1\nRUN echo the tail of the log; wget -q -O- {}\n",
        server.url("gate")
    ));
    let mut program = site.slipway.command(&["build", "--progress=tty", "--network=host"]);
    program.args(["--allow=network.host", "-t", "app"]).arg(site.context.path());
    let terminal = Terminal::start(&program);
    until("the log's tail is shown under its step", || {
        let screen = terminal.screen();
        let step = screen.lines().position(|line| line.contains("=> [2/2] RUN echo the tail"));
        let tail = screen.lines().position(|line| line.contains("=> => # the tail of the log"));
        screen.contains("[+] Building") && step.is_some() && step < tail
    });
    *go.0.lock().expect("no one panics with it") = true;
    go.1.notify_all();
    until("it ends", || terminal.screen().contains("ended 0"));
    let screen = terminal.screen();
    assert_eq!(screen.matches("[+] Building").count(), 1, "drawn over, not again\n{screen}");
    assert!(!screen.contains("# the tail of the log"), "{screen}");
}

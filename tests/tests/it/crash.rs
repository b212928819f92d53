//! The farm is killed in the middle of builds, at named points and at random moments. After each
//! kill nothing in the store is wrong, and the next build succeeds.

use crate::cache::until;
use rustix::process::{Pid, Signal};
use std::time::Duration;
use tests::command::{DEADLINE, Outcome, run};
use tests::image::Image;
use tests::scratch::Scratch;
use tests::site::Site;
use tests::slipway::Slipway;
use tests::tree::{Kind, sha256};

/// The phases in which a farm can be told to die, and at which times of coming to them.
const POINTS: [(&str, [u32; 5]); 6] = [
    ("ingest", [1, 2, 3, 5, 8]),
    ("capture", [1, 2, 3, 1, 2]),
    ("publish", [1, 2, 3, 5, 8]),
    ("commit", [1, 2, 3, 5, 8]),
    ("collect", [1, 2, 3, 5, 8]),
    ("export", [1, 2, 1, 2, 1]),
];

/// How often it is killed at random moments; with the points these are 50 kills.
const RANDOM_KILLS: u64 = 20;

const DOCKERFILE: &str = "
FROM conf/busybox:1 AS build
ARG ROUND
COPY . /src
RUN --mount=type=cache,target=/cache echo $ROUND > /cache/round && cat /src/input > /copy \\
    && for n in $(seq 200); do echo $ROUND $n > /src/$n; done
RUN cat /src/??? /copy > /all
FROM conf/busybox:1
COPY --from=build /all /src /result/
";

/// A farm, and what is built on it.
struct Victim {
    site: Site,
    round: u64,
    out: Scratch,
}

impl Victim {
    fn new() -> Self {
        Self { site: Site::of(DOCKERFILE), round: 0, out: Scratch::new("out") }
    }

    /// The content of the context's large file: another one in each round.
    fn input(&self) -> Vec<u8> {
        let words =
            (0..100_000).map(|n: u64| n.wrapping_mul(2_654_435_761).wrapping_mul(self.round + 1));
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// Makes that the next build has something to do.
    fn next_round(&mut self) {
        self.round += 1;
        self.site.write("input", self.input());
        self.site.write(&format!("small/{}", self.round), self.round.to_string());
    }

    fn flags(&self) -> [String; 6] {
        let output = format!("type=oci,dest={}", self.out.join("image.tar").display());
        let round = format!("ROUND={}", self.round);
        [
            "--build-arg".to_owned(),
            round,
            "-o".to_owned(),
            output,
            "-t".to_owned(),
            "app".to_owned(),
        ]
    }

    fn command(&self) -> std::process::Command {
        let mut build = self.site.slipway.command(&["build", "-o", "type=image"]);
        build.args(self.flags()).arg(self.site.context.path());
        build
    }

    /// A build that is killed at a point, and what happens after it.
    fn killed_at(&mut self, phase: &str, time: u32) {
        self.next_round();
        let point = format!("{phase}:{time}");
        self.site.slipway.stop();
        let mut command = match phase {
            "collect" => {
                // Something that can be collected, by a farm that survives it.
                run(&mut self.command()).ok();
                self.site.slipway.stop();
                self.site.slipway.command(&["cache", "prune", "--all", "--force"])
            }
            _ => self.command(),
        };
        let died = run(command.env("SLIPWAY_CRASH_AT", &point));
        assert_eq!(died.code, 1, "it was to die at {point}\n{died}");
        assert!(farm(&self.site.slipway).is_none(), "the farm is still there after {point}");
        self.assert_recovers(&point, &died);
    }

    /// A build whose farm is killed after a while.
    fn killed_after(&mut self, wait: Duration) {
        self.next_round();
        let build = tests::command::Running::start(&mut self.command(), &[]);
        until("the farm runs", || farm(&self.site.slipway).is_some());
        std::thread::sleep(wait);
        if let Some(pid) = farm(&self.site.slipway) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let ended = build.finish(DEADLINE);
        self.assert_recovers(&format!("{wait:?}"), &ended);
    }

    /// The store is whole, and what is built now is right.
    #[track_caller]
    fn assert_recovers(&self, point: &str, died: &Outcome) {
        let slipway = &self.site.slipway;
        let verified = slipway.run(&["cache", "verify"]);
        assert_eq!(verified.code, 0, "after a kill at {point}:\n{verified}\n{died}");
        let built = run(&mut self.command());
        assert_eq!(built.code, 0, "after a kill at {point}:\n{built}\n{died}");
        let image = Image::only(&self.out.join("image.tar"));
        let Kind::File { sha256: found, .. } = &image.tree.entry("result/input").kind else {
            panic!("it is a file");
        };
        assert_eq!(*found, sha256(&self.input()[..]), "{point}");
        assert!(image.tree.has(&format!("result/small/{}", self.round)));
        let all = slipway.run(&["run", "--rm", "app", "tail", "-c", "5", "/result/200"]).ok();
        assert_eq!(all.text().split(' ').next_back(), Some("200"), "{point}");
    }
}

/// The farm's process.
fn farm(slipway: &Slipway) -> Option<Pid> {
    let all = slipway.processes();
    let farm = all.iter().find(|process| process.command.contains(" up"))?;
    Pid::from_raw(farm.pid)
}

fn killed_in(phases: &[&str]) {
    let mut victim = Victim::new();
    for (phase, times) in POINTS.iter().filter(|(phase, _)| phases.contains(phase)) {
        times.iter().for_each(|time| victim.killed_at(phase, *time));
    }
    victim.site.slipway.assert_store_intact();
}

#[test]
fn killed_while_bytes_come_in() {
    killed_in(&["ingest", "publish"]);
}

#[test]
fn killed_while_a_step_is_captured_and_recorded() {
    killed_in(&["capture", "commit"]);
}

#[test]
fn killed_while_it_collects_and_exports() {
    killed_in(&["collect", "export"]);
}

#[test]
fn killed_at_random_moments() {
    let mut victim = Victim::new();
    victim.next_round();
    run(&mut victim.command()).ok();
    // A low-discrepancy sequence (multiples of the golden ratio): moments all over half a second.
    for n in 1..=RANDOM_KILLS {
        let part = (n as f64 * 0.618_033_988_749_895).fract();
        victim.killed_after(Duration::from_secs_f64(part / 2.0));
    }
    victim.site.slipway.assert_store_intact();
}

#[test]
fn a_point_that_is_none_is_an_error() {
    let site = Site::of(DOCKERFILE);
    let mut up = site.slipway.command(&["up"]);
    run(up.env("SLIPWAY_CRASH_AT", "lunch:1")).fails(1).says("SLIPWAY_CRASH_AT").says("ingest");
}

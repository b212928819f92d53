use super::*;
use crate::progress::testing::*;

fn show(model: &Model, now: u64, width: usize, height: usize) -> String {
    let view = View { log_lines: 6, description: String::new() };
    let lines = frame(model, at(now), Size { width, height }, &view);
    lines.iter().map(|line| line.text.trim_end().to_owned() + "\n").collect()
}

/// A build whose middle is under way. The first event tells the clocks' difference.
fn under_way() -> Model {
    let mut build = model(&[]);
    for (now, event) in [
        (20, done(0, "[internal] load build definition", 0, 20)),
        (100, cached(1, "[builder 1/3] FROM docker.io/library/rust:1.88", 90)),
        (100, begins(2, "[internal] load build context", 100)),
        (2000, moved(2, "metadata", 1500, 100, 400)),
        (2000, moves(2, "transferring context", (12_300_000, 0), 200)),
        (2000, begins(3, "[builder 2/3] RUN make", 500)),
        (2100, log(3, 600, "cc -c a.c\ncc -c b.c\n")),
        (2500, log(3, 2400, "\x1b]0;owned\x07\x1b[5Acc -c\tc.c\n 10%\r 20%")),
        (2500, known(4, "[builder 3/3] COPY . .")),
    ] {
        build.apply(at(now), &event);
    }
    build
}

#[test]
fn a_build_under_way() {
    assert_eq!(
        show(&under_way(), 3700, 70, 24),
        "\
[+] Building 3.7s (2/5)
 => [internal] load build definition                             0.0s
 => CACHED [builder 1/3] FROM docker.io/library/rust:1.88        0.0s
 => [internal] load build context                                3.6s
 => => metadata 1.50kB / 1.50kB                                  0.3s
 => => transferring context 12.30MB                              3.5s
 => [builder 2/3] RUN make                                       3.2s
 => => # cc -c a.c
 => => # cc -c b.c
 => => # cc -c   c.c
 => => #  20%
"
    );
}

#[test]
fn what_is_at_work_is_shown_first() {
    let build = under_way();
    assert_eq!(show(&build, 3700, 40, 1), "");
    assert_eq!(show(&build, 3700, 40, 2), "[+] Building 3.7s (2/5)\n");
    assert_eq!(
        show(&build, 3700, 40, 3),
        "\
[+] Building 3.7s (2/5)
 => and 2 more at work
"
    );
    assert_eq!(
        show(&build, 3700, 40, 5),
        "\
[+] Building 3.7s (2/5)
 => [internal] load build context  3.6s
 => => transferring contex 12.30MB 3.5s
 => [builder 2/3] RUN make         3.2s
"
    );
    assert_eq!(
        show(&build, 3700, 40, 10),
        "\
[+] Building 3.7s (2/5)
 => [internal] load build definiti 0.0s
 => CACHED [builder 1/3] FROM dock 0.0s
 => [internal] load build context  3.6s
 => => metadata                    0.3s
 => => transferring contex 12.30MB 3.5s
 => [builder 2/3] RUN make         3.2s
 => => # cc -c   c.c
 => => #  20%
"
    );
}

#[test]
fn a_narrow_terminal_shows_names_first() {
    let build = under_way();
    let third = |width| show(&build, 3700, width, 24).lines().nth(5).unwrap().to_owned();
    assert_eq!(third(36), " => => transferring co 12.30MB 3.5s");
    assert_eq!(third(25), " => => transferring 3.5s");
    assert_eq!(third(15), " => => transfe");
    assert_eq!(third(2), "");
}

#[test]
fn the_end_shows_everything() {
    let mut build = under_way();
    build.end(at(4000), Ending::Failed);
    assert_eq!(
        show(&build, 9000, 70, 4),
        "\
[+] Building 4.0s (4/5) ERROR
 => [internal] load build definition                             0.0s
 => CACHED [builder 1/3] FROM docker.io/library/rust:1.88        0.0s
 => CANCELED [internal] load build context                       3.9s
 => => metadata 1.50kB / 1.50kB                                  0.3s
 => => transferring context 12.30MB                              3.8s
 => CANCELED [builder 2/3] RUN make                              3.5s
"
    );
}

#[test]
fn logs_share_the_room() {
    let mut build = model(&[]);
    for id in 0..4 {
        build.apply(at(10), &begins(id, &format!("step {id}"), 0));
        build.apply(at(10), &log(id, 1, format!("{id}a\n{id}b\n{id}c\n")));
    }
    let logs = |height| {
        let shown = show(&build, 100, 80, height);
        let lines: Vec<_> =
            shown.lines().filter_map(|line| line.strip_prefix(" => => # ")).collect();
        lines.join(" ")
    };
    assert_eq!(logs(9), "");
    assert_eq!(logs(11), "0c 1c");
    assert_eq!(logs(13), "0c 1c 2c 3c");
    assert_eq!(logs(17), "0b 0c 1b 1c 2b 2c 3b 3c");
    assert_eq!(logs(80), "0a 0b 0c 1a 1b 1c 2a 2b 2c 3a 3b 3c");
}

#[test]
fn the_head_says_who_builds_if_there_is_room() {
    let view = View { log_lines: 0, description: "slipway:local".into() };
    let head = |width| frame(&model(&[]), at(0), Size { width, height: 9 }, &view)[0].text.clone();
    assert_eq!(head(45), "[+] Building 0.0s (0/0)        slipway:local");
    assert_eq!(head(30), "[+] Building 0.0s (0/0)");
}

#[test]
fn styles_tell_how_it_went() {
    let build = model(&[
        done(1, "done", 0, 1),
        cached(2, "cached", 0),
        fails(3, "failed", 0, 1, "no"),
        fails(4, "stopped", 0, 1, "context canceled"),
        begins(5, "runs", 0),
        log(5, 0, "says"),
    ]);
    let view = View { log_lines: 6, description: String::new() };
    let lines = frame(&build, at(1), Size { width: 30, height: 30 }, &view);
    let styles: Vec<_> = lines.iter().map(|line| line.style).collect();
    use Style::*;
    assert_eq!(styles, [Normal, Done, Done, Failed, Cancelled, Normal, Log]);
    assert_eq!(lines[3].text, " => ERROR failed         0.0s");
    assert_eq!(lines[4].text, " => CANCELED stopped     0.0s");
}

/// With thousands of vertices a frame looks only at what it shows, so this ends at once.
#[test]
fn thousands_of_vertices() {
    let mut build = model(&[]);
    for id in 0..5000 {
        build.apply(at(id), &done(id as u32, &format!("[stage-{id} 1/1] RUN true"), id, id));
    }
    build.apply(at(5000), &begins(6000, "last", 5000));
    assert_eq!(
        show(&build, 5000, 40, 5),
        "\
[+] Building 5.0s (5000/5001)
 => [stage-4998 1/1] RUN true      0.0s
 => [stage-4999 1/1] RUN true      0.0s
 => last                           0.0s
"
    );
    build.end(at(5000), Ending::Finished);
    assert_eq!(show(&build, 5000, 40, 5).lines().count(), 5002);
}

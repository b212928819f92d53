use super::*;
use crate::progress::testing::*;

/// What is written when each group of events comes at its time, and at the end.
fn write(groups: &[(u64, &[Event])]) -> String {
    let (mut model, mut plain, mut text) = (model(&[]), Plain::default(), String::new());
    for (now, events) in groups {
        for event in *events {
            model.apply(at(*now), event);
            plain.note(at(*now), &model, event);
        }
        plain.write(at(*now), &model, &mut text);
    }
    let last = groups.last().map_or(0, |(now, _)| *now);
    model.end(at(last), crate::progress::model::Ending::Cancelled);
    plain.finish(at(last), &model, &mut text);
    text
}

#[test]
fn one_step_after_the_other() {
    assert_eq!(
        write(&[
            (0, &[known(1, "[internal] load"), begins(1, "[internal] load", 0)]),
            (50, &[done(1, "[internal] load", 0, 20), cached(2, "[1/3] FROM debian", 30)]),
            (60, &[begins(3, "[2/3] RUN make", 60)]),
            (200, &[log(3, 183, "cc\ta.c\n\nc"), log(3, 190, "c b.c\r\n\r10%\r20%")]),
            (
                300,
                &[log(3, 300, "\r100%\n\x1b[1mbold\x1b[0m"), done(3, "[2/3] RUN make", 60, 3260)]
            ),
            (4000, &[fails(4, "[3/3] RUN false", 3300, 3400, "exit code: 1")]),
        ]),
        "\
#1 [internal] load
#1 DONE 0.0s

#2 [1/3] FROM debian
#2 CACHED

#3 [2/3] RUN make
#3 0.123 cc\ta.c
#3 0.123
#3 0.123 cc b.c
#3 0.130 10%
#3 0.130 20%
#3 0.240 100%
#3 0.240 bold
#3 DONE 3.2s

#4 [3/3] RUN false
#4 ERROR: exit code: 1
"
    );
}

#[test]
fn a_line_that_grows_is_written_as_it_grows() {
    let step = [begins(1, "a", 0)];
    let (dots, more, end) = ([log(1, 10, "..")], [log(1, 20, "..")], [log(1, 30, " ok\n")]);
    let groups = [(0, &step[..]), (10, &dots), (20, &more), (30, &end)];
    assert_eq!(write(&groups), "#1 a\n#1 0.010 .... ok\n#1 CANCELED\n");
    assert_eq!(write(&groups[..2]), "#1 a\n#1 0.010 ..\n#1 CANCELED\n");
}

#[test]
fn transfers_are_told_of_when_they_have_moved() {
    let what = "sha256:abc";
    let mega = |n: u64| n * 1_000_000;
    let move_to = |n| [moves(1, what, (mega(n), mega(40)), 0)];
    assert_eq!(
        write(&[
            (20, &[begins(1, "[1/2] FROM debian", 0), moves(1, what, (0, mega(40)), 0)]),
            (100, &move_to(1)),
            (200, &move_to(2)),
            (300, &move_to(3)),
            (5200, &move_to(3)),
            (5300, &[moved(1, what, mega(40), 0, 5300), moves(1, "extracting", (0, 0), 5300)]),
            (5400, &[moved(1, what, mega(40), 0, 5300)]),
            (5500, &[done(1, "[1/2] FROM debian", 0, 5500)]),
        ]),
        "\
#1 [1/2] FROM debian
#1 sha256:abc 0B / 40.00MB
#1 sha256:abc 2.00MB / 40.00MB 0.2s
#1 sha256:abc 3.00MB / 40.00MB 5.2s
#1 sha256:abc 40.00MB / 40.00MB 5.3s done
#1 extracting
#1 extracting 0.2s done
#1 DONE 5.5s
"
    );
}

#[test]
fn steps_side_by_side_take_turns() {
    let (a, b) = ("[a 1/1] RUN a", "[b 1/1] RUN b");
    let quiet: [Event; 0] = [];
    assert_eq!(
        write(&[
            (0, &[begins(1, a, 0), begins(2, b, 0)]),
            (100, &[log(1, 100, "a1\n"), log(2, 100, "b1\nb2")]),
            (200, &[log(1, 200, "a2")]),
            // The other one has waited for long enough.
            (10_200, &quiet),
            (10_300, &[log(1, 10_300, " and more\n")]),
            // The end of a step is told at once.
            (10_400, &[done(1, a, 0, 10_400)]),
            (10_500, &[log(2, 10_500, " b3\n"), done(2, b, 0, 10_500)]),
        ]),
        "\
#1 [a 1/1] RUN a
#1 0.100 a1
#1 0.200 a2
#1 ...

#2 [b 1/1] RUN b
#2 0.100 b1
#2 0.100 b2
#2 ...

#1 [a 1/1] RUN a
#1 10.30  and more
#1 DONE 10.4s

#2 [b 1/1] RUN b
#2 10.50  b3
#2 DONE 10.5s
"
    );
}

#[test]
fn who_says_a_lot_does_not_wait_for_long() {
    let loud = [log(2, 100, vec![b'x'; WAITING_BYTES_MAX + 1])];
    let written = write(&[
        (0, &[begins(1, "a", 0), begins(2, "b", 0)]),
        (100, &[log(1, 100, "a\n")]),
        (200, &loud),
    ]);
    assert!(written.starts_with("#1 a\n#1 0.100 a\n#1 ...\n\n#2 b\n#2 0.100 xxx"), "{written:.60}");
    assert_eq!(written.matches('x').count(), WAITING_BYTES_MAX + 1);
}

#[test]
fn the_one_that_says_more_is_followed() {
    let (mut model, mut plain, mut text) = (model(&[]), Plain::default(), String::new());
    let mut apply = |now, event: Event| {
        model.apply(at(now), &event);
        plain.note(at(now), &model, &event);
        plain.write(at(now), &model, &mut text);
        std::mem::take(&mut text)
    };
    apply(0, begins(1, "a", 0));
    apply(0, begins(2, "b", 0));
    let mut turns = 0;
    for now in (100..60_000).step_by(100) {
        let text = if now % 1000 == 0 {
            apply(now, log(2, now, "b\n"))
        } else {
            apply(now, log(1, now, "a\n"))
        };
        turns += text.matches("...").count();
    }
    // The step with a line in a second interrupts the other one, which it must not do each time.
    assert!((4..16).contains(&turns), "{turns}");
}

#[test]
fn an_end_that_comes_twice_is_told_once() {
    let written = write(&[
        (10, &[done(1, "a", 0, 10)]),
        (20, &[done(1, "a", 0, 10)]),
        (30, &[log(1, 9, "late\n")]),
        (40, &[begins(1, "a", 40)]),
        (50, &[done(1, "a", 40, 50)]),
    ]);
    assert_eq!(written, "#1 a\n#1 DONE 0.0s\n\n#1 a\n#1 0.009 late\n\n#1 a\n#1 DONE 0.0s\n");
}

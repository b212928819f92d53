use super::*;
use crate::progress::testing::*;

fn phase(model: &Model, id: u32) -> &Phase {
    &model.node(VertexId(id)).unwrap().phase
}

#[test]
fn vertices_begin_and_end() {
    let mut build = model(&[known(1, "a"), begins(2, "b", 5), cached(3, "c", 6)]);
    assert_eq!(build.counts(), (1, 3));
    assert_eq!(build.begun(), [VertexId(2), VertexId(3)]);
    assert_eq!(build.running().values().collect::<Vec<_>>(), [&VertexId(2)]);
    build.apply(at(9), &fails(2, "b", 5, 8, "exit\ncode 1"));
    build.apply(at(9), &done(1, "a", 7, 9));
    assert_eq!(build.counts(), (3, 3));
    assert!(build.running().is_empty());
    let how = End::Failed("exit code 1".into());
    assert_eq!(*phase(&build, 2), Phase::Ended { started: at(5), completed: at(8), how });
    assert_eq!(build.failed().map(|node| &*node.name).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn the_same_vertex_is_counted_once() {
    let twice = [begins(1, "a", 0), begins(1, "a", 0), done(1, "a", 0, 4), done(1, "a", 0, 4)];
    let build = model(&twice);
    assert_eq!((build.counts(), build.begun().len()), ((1, 1), 1));
}

#[test]
fn a_vertex_goes_back_only_to_begin_anew() {
    let mut build = model(&[done(1, "a", 0, 4)]);
    build.apply(at(5), &known(1, "a"));
    build.apply(at(5), &begins(1, "a", 2));
    assert_eq!(build.counts(), (1, 1));
    build.apply(at(6), &begins(1, "a", 5));
    assert_eq!(*phase(&build, 1), Phase::Running { started: at(5) });
    assert_eq!((build.counts(), build.running().len()), ((0, 1), 1));
}

#[test]
fn an_end_without_a_time_is_an_end() {
    let mut event = vertex(1, "a");
    event.error = Some("The build was cancelled.".into());
    let build = model(&[Event::Vertex(event), cached(2, "b", 0)]);
    assert!(matches!(phase(&build, 1), Phase::Ended { how: End::Cancelled, .. }));
    let mut event = vertex(3, "c");
    event.cached = true;
    let build = model(&[Event::Vertex(event)]);
    assert!(matches!(phase(&build, 3), Phase::Ended { how: End::Cached, .. }));
}

#[test]
fn the_clocks_may_differ() {
    // Their clock is an hour ahead of ours; messages take 20 ms and more.
    let hour = 3_600_000;
    let mut build = Model::new(at(0), Limits { lines: 1, bytes: 1 });
    build.apply(at(1000), &begins(1, "a", hour + 900));
    build.apply(at(2000), &log(1, hour + 1980, "x"));
    assert_eq!(build.spent(at(3000), at(hour + 900), None), 2080);
    assert_eq!(build.elapsed(at(3000)), 3000);
}

#[test]
fn transfers_end_with_their_vertex() {
    let mut build = model(&[
        begins(1, "pull", 0),
        moves(1, "sha256:a", (10, 40), 1),
        moves(1, "sha256:b", (1, 2), 2),
        moves(1, "sha256:a", (20, 40), 1),
        moves(7, "of nobody", (1, 1), 0),
    ]);
    let what = |build: &Model| -> Vec<_> {
        let node = build.node(VertexId(1)).unwrap();
        node.transfers.iter().map(|t| (t.what.clone(), t.current, t.completed)).collect()
    };
    assert_eq!(what(&build), [("sha256:a".into(), 20, None), ("sha256:b".into(), 1, None)]);
    build.apply(at(5), &moved(1, "sha256:a", 40, 1, 3));
    build.apply(at(5), &done(1, "pull", 0, 5));
    let (a, b) = (("sha256:a".into(), 40, Some(at(3))), ("sha256:b".into(), 1, Some(at(5))));
    assert_eq!(what(&build), [a, b]);
}

#[test]
fn logs_are_kept_while_they_may_be_needed() {
    let mut build =
        model(&[begins(1, "a", 0), log(1, 1, "x\n"), begins(2, "b", 0), log(2, 1, "y\n")]);
    build.apply(at(2), &done(1, "a", 0, 2));
    build.apply(at(2), &fails(2, "b", 0, 2, "no"));
    build.apply(at(3), &log(1, 2, "late\n"));
    build.apply(at(3), &log(2, 2, "late\n"));
    assert!(build.node(VertexId(1)).unwrap().tail.is_none());
    assert_eq!(build.node(VertexId(2)).unwrap().tail.as_ref().unwrap().len(), 2);
}

#[test]
fn what_runs_at_the_end_is_stopped() {
    for (ending, how) in [
        (Ending::Finished, End::Done),
        (Ending::Failed, End::Cancelled),
        (Ending::Cancelled, End::Cancelled),
    ] {
        let mut build = model(&[known(1, "a"), begins(2, "b", 5)]);
        build.end(at(8), ending);
        let ended = Phase::Ended { started: at(5), completed: at(8 + 5), how };
        assert_eq!(*phase(&build, 2), ended);
        assert_eq!(*phase(&build, 1), Phase::Waiting);
        assert_eq!((build.counts(), build.running().len()), ((1, 2), 0));
        assert_eq!(build.elapsed(at(99)), 8);
    }
}

#[test]
fn a_remark_is_made_once() {
    let build = model(&[remark("A", "m", 1), remark("A", "m", 1), remark("A", "m", 2)]);
    assert_eq!(build.warnings().len(), 2);
}

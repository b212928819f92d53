//! What layers do to a tree, and what their archives have, by example.

use super::super::apply::archived;
use super::*;

/// What the tree is under the layer.
fn under(store: &MemoryStore, base: &RootId, diff: &RootId) -> Vec<String> {
    let (whole, made) = apply(&StoreNodes(store), base, diff).expect("whole trees");
    store.put_nodes(&made.into_nodes()).expect("nodes that fit");
    show(&read(store, whole))
}

/// What the archive of the layer has, and nothing that such an archive has not.
fn in_archive(store: &MemoryStore, diff: &RootId) -> Vec<String> {
    let (layer, made) = archived(&StoreNodes(store), diff).expect("a whole layer");
    store.put_nodes(&made.into_nodes()).expect("nodes that fit");
    assert_eq!(archived(&StoreNodes(store), &layer).expect("a whole layer").0, layer);
    show(&read(store, layer))
}

#[test]
fn layers_of_registries_are_applied() {
    let store = MemoryStore::new();
    let base = build(
        &store,
        &[("d/", "700:1"), ("d/a", "644 A"), ("e/", "711"), ("e/old", "644 O"), ("f", "644 F")],
    );
    let diff = build(
        &store,
        &[
            ("d/", "~755"),
            ("d/new", "644 N"),
            ("e/", "!755"),
            ("e/x", "644 X"),
            ("f", "0 whiteout"),
            ("g/", "~755"),
            ("g/h", "644 H"),
        ],
    );
    let expected =
        ["d/ 700:1", "d/a 644 A", "d/new 644 N", "e/ 755", "e/x 644 X", "g/ 755", "g/h 644 H"];
    assert_eq!(under(&store, &base, &diff), expected);
    let (layer, made) = explicit(&StoreNodes(&store), &base, &diff).unwrap();
    store.put_nodes(&made.into_nodes()).unwrap();
    let layer = read(&store, layer);
    assert_eq!((&layer["d/"][..], &layer["g/"][..], &layer["e/"][..]), ("700:1", "755", "!755"));
}

#[test]
fn a_file_can_get_other_names_and_stay_what_it_is() {
    let store = MemoryStore::new();
    let base = build(
        &store,
        &[
            ("a", "640:7 A"),
            ("d/", "700:1"),
            ("d/one", "644 P = g"),
            ("d/two", "644 P = g"),
            ("e/", "750:2"),
            ("e/x", "600 X"),
            ("link", "777 -> a"),
            ("no-file/", "750"),
            ("pipe", "600 fifo = p"),
        ],
    );
    let diff = build(
        &store,
        &[
            ("a", "0 relink = h"),
            ("b", "640:7 A = h"),
            ("d/", "700:1"),
            ("d/one", "0 relink"),
            ("e/", "~750:2"),
            ("e/x", "0 relink = i"),
            ("link", "0 relink = j"),
            ("no-file", "0 relink = j"),
            ("nothing", "0 relink = j"),
            ("pipe", "0 relink"),
        ],
    );
    let linked =
        |model: &[(&str, &str)]| -> Vec<String> { show(&read(&store, build(&store, model))) };
    let expected = [
        ("a", "640:7 A = h"),
        ("b", "640:7 A = h"),
        ("d/", "700:1"),
        ("d/one", "644 P"),
        ("d/two", "644 P = g"),
        ("e/", "750:2"),
        ("e/x", "600 X = i"),
        ("link", "777 -> a = j"),
        ("no-file/", "750"),
        ("pipe", "600 fifo"),
    ];
    assert_eq!(under(&store, &base, &diff), linked(&expected));
    let expected = linked(&[("b", "640:7 A = h"), ("d/", "700:1")]);
    assert_eq!(in_archive(&store, &diff), expected);
}

#[test]
fn what_is_unlisted_is_for_steps_and_for_no_archive() {
    let store = MemoryStore::new();
    let base = build(&store, &[("a", "640 old"), ("d/", "700"), ("e/", "755"), ("f/", "755")]);
    let diff = build(
        &store,
        &[
            ("a", "640 unlisted new"),
            ("d/", "^700:5"),
            ("d/x", "644 unlisted X"),
            ("e/", "^711"),
            ("e/listed", "644 L"),
            ("f/", "755"),
            ("f/y", "644 unlisted Y"),
        ],
    );
    let seen =
        ["a 640 new", "d/ 700:5", "d/x 644 X", "e/ 711", "e/listed 644 L", "f/ 755", "f/y 644 Y"];
    assert_eq!(under(&store, &base, &diff), seen);
    assert_eq!(in_archive(&store, &diff), ["e/ ~711", "e/listed 644 L", "f/ 755"]);
}

/// Parts of a second decide what a later step lists; of an image they are gone on every machine.
#[test]
fn an_archive_has_whole_seconds_and_no_sockets() {
    let store = MemoryStore::new();
    let diff = [("d/", "755@1"), ("d/f", "644@5 F"), ("d/sock", "755 socket"), ("l", "777@9 -> f")];
    let diff = build(&store, &diff);
    assert_eq!(in_archive(&store, &diff), ["d/ 755", "d/f 644 F", "l 777 -> f"]);
}

//! The soak, for a moment. `make soak` does it for long.

#[test]
fn builds_come_to_the_same_end_whatever_happens_to_machines() {
    tests::soak::soak(7, |round| round < 4);
}

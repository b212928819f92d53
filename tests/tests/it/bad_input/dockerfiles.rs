//! Dockerfiles that are none, or that ask for what is not there.

use super::Refusal;

/// A Dockerfile, and what the error says.
const WRONG: [(&str, &[&str]); 16] = [
    ("FROM conf/busybox:1\nRNU echo\n", &["Dockerfile:2", "RNU"]),
    ("FROM conf/busybox:1\nCOPY --chwon=1 given /\n", &["Dockerfile:2", "chwon"]),
    ("FROM conf/busybox:1\n\nCOPY missing /\n", &["Dockerfile:3", "missing"]),
    ("FROM conf/busybox:1\nCOPY dir/missing* /\n", &["Dockerfile:2", "dir/missing*"]),
    ("FROM conf/busybox:1\nADD given\n", &["Dockerfile:2", "ADD"]),
    ("FROM conf/busybox:1\nCOPY --from=nobody /a /b\n", &["Dockerfile:2", "nobody"]),
    ("FROM conf/busybox:1 AS a\nCOPY --from=a /a /b\n", &["Dockerfile:2", "a"]),
    ("FROM conf/busybox:1 AS a\nCOPY --from=b /a /b\nFROM a AS b\nCOPY --from=a /b /a\n", &["b"]),
    ("FROM conf/no-such-image:1\n", &["Dockerfile:1", "conf/no-such-image:1"]),
    ("FROM conf/busybox:1\nRUN echo said before; exit 7\n", &["Dockerfile:2", "7", "said before"]),
    ("FROM conf/busybox:1\nRUN [\"/no/such\"]\n", &["Dockerfile:2", "/no/such"]),
    ("FROM conf/busybox:1\nRUN <<END\necho\n", &["Dockerfile:2", "END"]),
    ("RUN echo\n", &["Dockerfile:1", "FROM"]),
    ("", &["Dockerfile"]),
    ("FROM conf/busybox:1\nUSER nobody-knows\nRUN true\n", &["Dockerfile:3", "nobody-knows"]),
    (
        "FROM conf/busybox:1\nRUN --mount=type=bind,source=gone,target=/m true\n",
        &["Dockerfile:2", "gone"],
    ),
];

#[test]
fn wrong_dockerfiles_are_refused_with_the_line() {
    let refusal = Refusal::new();
    refusal.site.write("given", "");
    for (text, says) in WRONG {
        refusal.site.dockerfile(text);
        refusal.refuses(&[], says);
    }
    refusal.site.dockerfile("FROM conf/busybox:1 AS known\n");
    refusal.refuses(&["--target", "unknown"], &["unknown", "known"]);
    refusal.assert_unharmed();
}

#[test]
fn huge_and_random_dockerfiles_are_refused() {
    let refusal = Refusal::new();
    let line = "RUN echo a line of a Dockerfile that does not end\n";
    let huge = "FROM conf/busybox:1\n".to_owned() + &line.repeat((50 << 20) / line.len());
    refusal.site.dockerfile(&huge);
    refusal.refuses(&[], &["Dockerfile", "16"]);
    refusal.site.dockerfile(&format!("FROM conf/busybox:1\nRUN {}\n", "x".repeat(1 << 20)));
    refusal.refuses(&[], &["Dockerfile:2"]);
    // xorshift64 (Marsaglia, 2003): the same bytes in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20 {
        let bytes = (0..4096 << (round % 4)).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        refusal.site.write("Dockerfile", bytes.collect::<Vec<u8>>());
        refusal.refuses(&[], &["Dockerfile"]);
    }
    refusal.assert_unharmed();
}

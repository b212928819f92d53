//! A farm from afar: outputs, the image store, scopes, and what happens when it is away.

mod images;
mod outputs;
mod scopes;

use tests::afar::{Afar, Client};

/// Files of many kinds, made by COPY and RUN.
const FILES: &str = r#"
FROM conf/busybox:1 AS made
RUN mkdir -p /made/deep/er && echo text > /made/deep/er/file && ln -s deep/er /made/link \
 && ln /made/deep/er/file /made/hard && chmod 4755 /made/hard && mkfifo /made/fifo \
 && chown 1000:2000 /made/deep && chmod 1777 /made/deep && : > /made/empty

FROM scratch
COPY --from=made /made /made
COPY --chown=7:8 --chmod=0640 given /given/
ENV WHO=world
ENTRYPOINT ["/made/hard"]
"#;

/// An image that runs.
const APP: &str = r#"
FROM conf/busybox:1
ENV GREETING=hello
RUN echo $GREETING > /said
CMD ["cat", "/said"]
"#;

/// A farm with a client who is trusted.
fn farm(dockerfile: &str) -> (Afar, Client) {
    let farm = Afar::new(2, 1);
    let ann = farm.client("ann", &["--project", "web"]);
    ann.write("Dockerfile", dockerfile);
    ann.write("given/a.txt", "a\n");
    ann.write("given/b/c.bin", (0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    (farm, ann)
}

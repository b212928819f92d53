//! A farm from afar: outputs, the image store, scopes, and what happens when it is away.

mod caches;
mod images;
mod outputs;
mod scopes;

use crate::outputs::{FILES, given};
use tests::afar::{Afar, Client};

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
    given().into_iter().for_each(|(name, content)| ann.write(name, content));
    (farm, ann)
}

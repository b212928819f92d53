//! What cannot be built: each says what is wrong and where, ends with the right code, leaves nothing
//! half-written, and harms nothing.

mod archives;
mod contexts;
mod dockerfiles;
mod full;
mod usage;

use std::fs;
use std::path::Path;
use tests::command::{Outcome, run_with};
use tests::scratch::Scratch;
use tests::site::Site;

/// A place that nothing may come to be in.
struct Refusal {
    site: Site,
    out: Scratch,
}

impl Refusal {
    fn new() -> Self {
        Self { site: Site::new(), out: Scratch::new("out") }
    }

    /// Builds the context with outputs of every kind, which must fail and leave nothing.
    #[track_caller]
    fn refuses(&self, flags: &[&str], says: &[&str]) -> Outcome {
        self.refuses_context(flags, self.site.context.path(), &[], says)
    }

    /// The same for another context, and standard input.
    #[track_caller]
    fn refuses_context(
        &self,
        flags: &[&str],
        context: &Path,
        input: &[u8],
        says: &[&str],
    ) -> Outcome {
        let path = |name: &str| self.out.join(name).to_str().expect("UTF-8").to_owned();
        let outputs = [
            format!("type=oci,dest={}", path("image.tar")),
            format!("type=tar,dest={}", path("files.tar")),
            format!("type=local,dest={}", path("files")),
            "type=image".to_owned(),
        ];
        let mut command = self.site.slipway.command(&["build", "-t", "refused"]);
        command.args(outputs.iter().flat_map(|output| ["-o", output]));
        command.args(["--iidfile", &path("iid"), "--metadata-file", &path("metadata")]);
        command.args(flags).arg(context);
        let outcome = run_with(&mut command, input, tests::command::DEADLINE).fails(1);
        let outcome = says.iter().fold(outcome, |outcome, text| outcome.says(text));
        let left: Vec<_> = fs::read_dir(self.out.path()).expect("a directory").flatten().collect();
        assert!(left.is_empty(), "nothing is left of it: {left:?}\n{outcome}");
        outcome.never_says("panicked").never_says("internal error")
    }

    /// Nothing came of it, and what was there before is there.
    #[track_caller]
    fn assert_unharmed(&self) {
        assert_eq!(self.site.slipway.run(&["images", "-aq"]).ok().text(), "");
        self.site.slipway.assert_store_intact();
        let fine = Scratch::new("fine");
        fine.write("Dockerfile", "FROM conf/busybox:1\nRUN echo it works\n");
        self.site.slipway.build(&[], fine.path()).ok().says("it works");
    }
}

//! Names: of images in full, and of steps for people.

use super::LowerProblem;
use proto::platform::Platform;
use proto::reference::Reference;

/// The full form of an image's name: `alpine` is `docker.io/library/alpine:latest`.
pub(super) fn reference(name: &str) -> Result<String, LowerProblem> {
    match Reference::parse(name) {
        Ok(reference) => Ok(reference.to_string()),
        Err(e) => Err(LowerProblem::Reference(name.to_owned(), e.to_string())),
    }
}

/// Counts the steps of a stage that people see: `[builder 2/5] `.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    /// The stage's name; empty when there is only one.
    pub stage: String,
    /// The platform, when there are several.
    pub platform: Option<Platform>,
    pub total: usize,
    pub index: usize,
}

impl Counter {
    /// The next step's name. `target` is the platform that the step builds for, when it says so.
    pub fn next(&mut self, title: &str, is_trigger: bool, target: Option<&Platform>) -> String {
        if self.total == 0 {
            return title.to_owned();
        }
        self.index += 1;
        let mut out = "[".to_owned();
        if let Some(platform) = &self.platform {
            out.push_str(&platform.to_string());
            if let Some(target) = target.filter(|t| *t != platform) {
                out.push_str("->");
                match target.os == platform.os {
                    true => out.push_str(&target.to_string()[target.os.len() + 1..]),
                    false => out.push_str(&target.to_string()),
                }
            }
            out.push(' ');
        }
        if !self.stage.is_empty() {
            out.push_str(&self.stage);
            out.push(' ');
        }
        let width = self.total.to_string().len();
        out.push_str(&format!("{:>width$}/{}] ", self.index, self.total));
        if is_trigger {
            out.push_str("ONBUILD ");
        }
        out + title
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_full() {
        let full = |name: &str| reference(name).ok();
        assert_eq!(full("alpine").unwrap(), "docker.io/library/alpine:latest");
        assert_eq!(full("a/b:1").unwrap(), "docker.io/a/b:1");
        assert_eq!(full("127.0.0.1:5000/x").unwrap(), "127.0.0.1:5000/x:latest");
        assert_eq!(full("Not_A::Valid//Name"), None);
        let digest = format!("alpine@sha256:{}", "0".repeat(64));
        assert_eq!(full(&digest).unwrap(), format!("docker.io/library/{digest}"));
    }

    #[test]
    fn steps_are_counted() {
        let platform = Platform::parse("linux/amd64").unwrap();
        let mut counter = Counter { stage: "b".into(), platform: None, total: 12, index: 1 };
        assert_eq!(counter.next("RUN x", false, None), "[b  2/12] RUN x");
        counter.platform = Some(platform);
        let target = Platform::parse("linux/arm64").unwrap();
        let name = counter.next("RUN x", true, Some(&target));
        assert_eq!(name, "[linux/amd64->arm64 b  3/12] ONBUILD RUN x");
        counter.total = 0;
        assert_eq!(counter.next("FROM x", false, None), "FROM x");
    }
}

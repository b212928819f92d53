//! Comments above a RUN that speak to Slipway, and that other builders pass over:
//! `# slipway: cpu=4 mem=8g timeout=20m`, what it asks of a machine, and
//! `# slipway: cache-mount id=/root/.cache merge=union`, how a cache mount is merged.

use super::LowerProblem;
use crate::dockerfile::value;
use proto::mount::Policy;
use proto::step::Needs;

/// What the comments above an instruction say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hints {
    /// What it asks of a machine.
    pub needs: Needs,
    /// How cache mounts are merged.
    pub merges: Vec<MergeHint>,
}

/// How one cache mount is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MergeHint {
    /// The mount's id.
    pub id: String,
    /// How.
    pub policy: Policy,
}

impl Hints {
    /// How the mount with this id is merged, if a comment says so.
    pub fn merge(&self, id: &str) -> Option<Policy> {
        self.merges.iter().rev().find(|hint| hint.id == id).map(|hint| hint.policy)
    }
}

/// A `# slipway:` comment that is being read.
struct Comment<'t>(&'t str);

impl<'t> Comment<'t> {
    fn wrong(&self, why: impl Into<String>) -> LowerProblem {
        LowerProblem::Hint { text: self.0.to_owned(), why: why.into() }
    }

    fn pair(&self, word: &'t str) -> Result<(&'t str, &'t str), LowerProblem> {
        word.split_once('=').ok_or_else(|| self.wrong(format!("`{word}` has no `=`")))
    }
}

/// Reads the comments above an instruction. Comments of other kinds say nothing.
pub(super) fn read(comments: &[String]) -> Result<Hints, LowerProblem> {
    let mut hints = Hints::default();
    for comment in comments {
        let Some(text) = comment.trim().strip_prefix("slipway:") else { continue };
        let comment = Comment(text.trim());
        match comment.0.strip_prefix("cache-mount") {
            Some(rest) if rest.starts_with(char::is_whitespace) => {
                hints.merges.push(merge(&comment, rest)?);
            }
            Some("") => return Err(comment.wrong("it lacks `id=` and `merge=`")),
            _ => needs(&comment, &mut hints.needs)?,
        }
    }
    Ok(hints)
}

fn needs(comment: &Comment<'_>, needs: &mut Needs) -> Result<(), LowerProblem> {
    for word in comment.0.split_whitespace() {
        let (key, value) = comment.pair(word)?;
        match key {
            "cpu" => {
                let cpus = value.parse().ok().filter(|c: &f64| (0.001..=4096.0).contains(c));
                let cpus =
                    cpus.ok_or_else(|| comment.wrong("`cpu` is a number such as 0.5 or 4"))?;
                needs.cpu_millis = (cpus * 1000.0) as u32;
            }
            "mem" => {
                let bytes = value::bytes(value).filter(|b| *b > 0);
                needs.memory_bytes =
                    bytes.ok_or_else(|| comment.wrong("`mem` is a size such as 512m or 8g"))?;
            }
            "timeout" => {
                let time = value::duration(value).ok().filter(|d| !d.is_zero());
                let time =
                    time.ok_or_else(|| comment.wrong("`timeout` is a time such as 90s or 20m"))?;
                needs.timeout_ms = time.as_millis() as u64;
            }
            _ => {
                return Err(comment.wrong(format!(
                    "there is no `{key}`; there are `cpu`, `mem` and `timeout`, and `cache-mount`"
                )));
            }
        }
    }
    Ok(())
}

fn merge(comment: &Comment<'_>, rest: &str) -> Result<MergeHint, LowerProblem> {
    let (mut id, mut policy) = (None, None);
    for word in rest.split_whitespace() {
        match comment.pair(word)? {
            ("id", value) => id = Some(value.to_owned()),
            ("merge", value) => {
                policy = Some(Policy::parse(value).map_err(|e| comment.wrong(e.to_string()))?);
            }
            (key, _) => {
                return Err(
                    comment.wrong(format!("there is no `{key}`; there are `id` and `merge`"))
                );
            }
        }
    }
    let lacks = |what: &str| comment.wrong(format!("it lacks `{what}=`"));
    Ok(MergeHint {
        id: id.filter(|id| !id.is_empty()).ok_or_else(|| lacks("id"))?,
        policy: policy.ok_or_else(|| lacks("merge"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(text: &str) -> Result<Hints, LowerProblem> {
        read(&[" other".to_owned(), text.to_owned()])
    }

    #[test]
    fn needs_are_read() {
        let needs = read_one(" slipway: cpu=1.5 mem=8g timeout=20m ").unwrap().needs;
        assert_eq!((needs.cpu_millis, needs.memory_bytes), (1500, 8 << 30));
        assert_eq!(needs.timeout_ms, 1_200_000);
        assert_eq!(read_one("anything").unwrap(), Hints::default());
        for bad in ["slipway: x=1", "slipway: cpu", "slipway: cpu=-1", "slipway: mem=0"] {
            assert!(read_one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn merges_of_cache_mounts_are_read() {
        let hints = read_one(" slipway: cache-mount id=/root/.cache merge=union").unwrap();
        assert_eq!(hints.merge("/root/.cache"), Some(Policy::Union));
        assert_eq!((hints.merge("/other"), hints.needs), (None, Needs::default()));
        for bad in [
            "slipway: cache-mount",
            "slipway: cache-mount id=a",
            "slipway: cache-mount merge=last",
            "slipway: cache-mount id= merge=last",
            "slipway: cache-mount id=a merge=first",
            "slipway: cache-mount id=a merge=last cpu=1",
            "slipway: cache-mounts id=a merge=last",
        ] {
            assert!(read_one(bad).is_err(), "{bad}");
        }
    }
}

//! `# slipway: cpu=4 mem=8g timeout=20m` above a RUN: what it asks of a machine.

use super::LowerProblem;
use crate::dockerfile::value;
use proto::step::Needs;

/// Reads the comments above an instruction. Comments of other kinds say nothing.
pub(super) fn read(comments: &[String]) -> Result<Needs, LowerProblem> {
    let mut needs = Needs::default();
    for comment in comments {
        let Some(text) = comment.trim().strip_prefix("slipway:") else { continue };
        for word in text.split_whitespace() {
            let wrong = |why: &str| LowerProblem::Hint {
                text: text.trim().to_owned(),
                why: why.to_owned(),
            };
            let Some((key, value)) = word.split_once('=') else {
                return Err(wrong(&format!("`{word}` has no `=`")));
            };
            match key {
                "cpu" => {
                    let cpus = value.parse().ok().filter(|c: &f64| (0.001..=4096.0).contains(c));
                    let cpus = cpus.ok_or_else(|| wrong("`cpu` is a number such as 0.5 or 4"))?;
                    needs.cpu_millis = (cpus * 1000.0) as u32;
                }
                "mem" => {
                    let bytes = value::bytes(value).filter(|b| *b > 0);
                    needs.memory_bytes =
                        bytes.ok_or_else(|| wrong("`mem` is a size such as 512m or 8g"))?;
                }
                "timeout" => {
                    let time = value::duration(value).ok().filter(|d| !d.is_zero());
                    let time =
                        time.ok_or_else(|| wrong("`timeout` is a time such as 90s or 20m"))?;
                    needs.timeout_ms = time.as_millis() as u64;
                }
                _ => {
                    return Err(wrong(&format!(
                        "there is no `{key}`; there are `cpu`, `mem` and `timeout`"
                    )));
                }
            }
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read() {
        let read = |text: &str| read(&[" other".to_owned(), text.to_owned()]);
        let needs = read(" slipway: cpu=1.5 mem=8g timeout=20m ").unwrap();
        assert_eq!((needs.cpu_millis, needs.memory_bytes), (1500, 8 << 30));
        assert_eq!(needs.timeout_ms, 1_200_000);
        assert_eq!(read("anything").unwrap(), Needs::default());
        for bad in ["slipway: x=1", "slipway: cpu", "slipway: cpu=-1", "slipway: mem=0"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

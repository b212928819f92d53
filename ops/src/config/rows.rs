//! Settings as people see them: `slipway config show`.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// A settings file.
    File {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u32,
    },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "${name}"),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub key: String,
    /// Its value; in parentheses, what is taken where none is given.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Rows for people: columns of key, value and origin.
pub fn as_table(rows: &[Row]) -> String {
    let width = |cell: fn(&Row) -> &str| rows.iter().map(|r| cell(r).chars().count()).max();
    let keys = width(|row| &row.key).unwrap_or(0);
    let values = width(|row| &row.value).unwrap_or(0);
    let line = |row: &Row| format!("{:keys$}   {:values$}   {}\n", row.key, row.value, row.origin);
    rows.iter().map(line).collect()
}

/// Rows for programs: a JSON list of objects `{key, value, origin}`; the origin is `"default"` or
/// an object with one of `file`, `variable`, `flag`.
pub fn as_json(rows: &[Row]) -> String {
    serde_json::to_string_pretty(rows).expect("texts and numbers") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |key: &str, value: &str, origin| Row {
            key: key.to_owned(),
            value: value.to_owned(),
            origin,
        };
        vec![
            row("farm.slots", "3", Origin::File { path: "/c.toml".into(), line: 2 }),
            row("node.name", "büro", Origin::Default),
            row("log.level", "debug", Origin::Variable("SLIPWAY_LOG".to_owned())),
            row("farm.idle", "1m", Origin::Flag("--idle".to_owned())),
        ]
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "\
farm.slots   3       /c.toml:2
node.name    büro    default
log.level    debug   $SLIPWAY_LOG
farm.idle    1m      --idle
";
        assert_eq!(as_table(&rows()), expected);
        assert_eq!(as_table(&[]), "");
    }

    #[test]
    fn programs_get_json() {
        let value: serde_json::Value = serde_json::from_str(&as_json(&rows())).unwrap();
        assert_eq!(value[0]["origin"]["file"]["line"], 2);
        assert_eq!(value[1]["origin"], "default");
        assert_eq!(value[2]["origin"]["variable"], "SLIPWAY_LOG");
        assert_eq!(
            value[3],
            serde_json::json!({
                "key": "farm.idle", "value": "1m", "origin": { "flag": "--idle" }
            })
        );
    }
}

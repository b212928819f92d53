//! The settings file as a list of keys, each with its line.

use super::value::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How deep keys are: `registry.NAME.mirrors`.
const DEPTH_MAX: usize = 8;

/// One key of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, part by part.
    pub path: Vec<String>,
    /// The line that it is in, counted from 1.
    pub line: u32,
    /// Its value; none for a section without keys.
    pub value: Option<Value>,
}

impl Entry {
    /// The name as people write it.
    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

/// All keys of a file. The error says what is wrong, and where.
pub fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let table = DeTable::parse(text).map_err(|e| e.to_string())?;
    let mut entries = Vec::new();
    collect(text, &[], table.get_ref(), &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn collect(text: &str, above: &[String], table: &DeTable<'_>, out: &mut Vec<Entry>) {
    for (name, value) in table.iter() {
        let mut path = above.to_vec();
        path.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() && path.len() < DEPTH_MAX => {
                collect(text, &path, table, out);
            }
            DeValue::Table(table) if table.is_empty() => {
                out.push(Entry { path, line: line(text, name.span().start), value: None });
            }
            other => {
                let line = line(text, name.span().start);
                out.push(Entry { path, line, value: Some(read(other)) });
            }
        }
    }
}

fn read(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(value) => Value::Switch(*value),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Number(number),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::Float(number) => Value::Other(number.to_string()),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(array) => {
            let text = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            };
            match array.iter().map(text).collect() {
                Some(list) => Value::List(list),
                None => Value::Other("a list of other things than strings".to_owned()),
            }
        }
        DeValue::Table(_) => Value::Other("a section".to_owned()),
    }
}

/// The line that a byte is in.
fn line(text: &str, at: usize) -> u32 {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_lines() {
        let text = "# first\n[farm]\nslots = 3\n\nidle = \"1m\"\n[registry.\"docker.io\"]\n\
                    http = true\nmirrors = [\n  \"a\",\n]\nca = [1]\n[run]\n";
        let found: Vec<(String, u32, Option<Value>)> = entries(text)
            .unwrap()
            .into_iter()
            .map(|entry| (entry.path.join("|"), entry.line, entry.value))
            .collect();
        let other = Value::Other("a list of other things than strings".to_owned());
        let expected = [
            ("farm|slots", 3, Some(Value::Number(3))),
            ("farm|idle", 5, Some(Value::Text("1m".to_owned()))),
            ("registry|docker.io|http", 7, Some(Value::Switch(true))),
            ("registry|docker.io|mirrors", 8, Some(Value::List(vec!["a".to_owned()]))),
            ("registry|docker.io|ca", 11, Some(other)),
            ("run", 12, None),
        ];
        assert_eq!(found, expected.map(|(key, line, value)| (key.to_owned(), line, value)));
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        let error = entries("[farm]\nslots = ").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        assert!(entries("[farm]\nslots = 1\nslots = 2").is_err());
        assert!(entries("[farm]\n[farm]").is_err());
    }

    #[test]
    fn deep_tables_end_somewhere() {
        let text = format!("[a{}]\nx = 1", ".a".repeat(60));
        let entries = entries(&text).unwrap();
        assert_eq!(entries[0].path.len(), DEPTH_MAX);
        assert_eq!(entries[0].value, Some(Value::Other("a section".to_owned())));
    }
}

//! One line of comma-separated values (RFC 4180), as `--mount` and `--device` take it.

/// Why a text is no list of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// Nothing at all.
    #[error("the list of options is empty")]
    Empty,
    /// A quote inside a field that does not begin with one.
    #[error("a `\"` stands inside of an option; quote the whole option: \"key=value\"")]
    BareQuote,
    /// Something after a closing quote, or no closing quote.
    #[error("a quoted option must end with a `\"` before the next comma")]
    OpenQuote,
}

/// The fields of a line.
pub(super) fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut out = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(text)?,
        };
        out.push(field);
        rest = after;
    }
    Ok(out)
}

fn plain_field(text: &str) -> Result<(String, Option<&str>), CsvError> {
    let (field, after) = match text.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    if field.contains('"') { Err(CsvError::BareQuote) } else { Ok((field.to_owned(), after)) }
}

/// A field after its opening quote; two quotes inside stand for one.
fn quoted_field(mut text: &str) -> Result<(String, Option<&str>), CsvError> {
    let mut field = String::new();
    loop {
        let (part, after) = text.split_once('"').ok_or(CsvError::OpenQuote)?;
        field.push_str(part);
        match after.chars().next() {
            None => return Ok((field, None)),
            Some(',') => return Ok((field, Some(&after[1..]))),
            Some('"') => field.push('"'),
            Some(_) => return Err(CsvError::OpenQuote),
        }
        text = &after[1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Result<&[&str], CsvError>) {
        let expect = expect.map(|e| e.iter().map(|f| (*f).to_owned()).collect());
        assert_eq!(fields(line), expect, "{line}");
    }

    #[test]
    fn fields_are_cut_at_commas() {
        check("a=b,c", Ok(&["a=b", "c"]));
        check("a,,b,", Ok(&["a", "", "b", ""]));
        check("\"a,b\",\"c\"\"d\"", Ok(&["a,b", "c\"d"]));
        check("\"\",\"\"\"\"", Ok(&["", "\""]));
        check("", Err(CsvError::Empty));
        check("a\"b", Err(CsvError::BareQuote));
        check("\"a", Err(CsvError::OpenQuote));
        check("\"a\"b,c", Err(CsvError::OpenQuote));
    }
}

//! Names of variables: letters (of all languages), decimal digits and `_`, by Unicode's general
//! categories L and Nd, as Go's `unicode.IsLetter` and `unicode.IsDigit` have them.

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || !c.is_ascii() && category(c) == GeneralCategory::DecimalNumber
}

/// Whether a name may have the character.
pub(super) fn has(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || c == '_'
        || !c.is_ascii() && (is_digit(c) || GeneralCategoryGroup::Letter.contains(category(c)))
}

/// The bytes of the name, or else of the number, at the head of a text.
pub(super) fn len(text: &str) -> usize {
    let ends = match text.chars().next() {
        Some(c) if is_digit(c) => text.find(|c| !is_digit(c)),
        _ => text.find(|c| !has(c)),
    };
    ends.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gos() {
        for (text, name) in [
            ("a_1-b", "a_1"),
            ("12ab", "12"),
            ("é日ß.", "é日ß"),
            ("a٣b", "a٣b"),
            ("٣4a", "٣4"),
            // Other numbers and marks are in no name.
            ("a²", "a"),
            ("²", ""),
            ("aⅧ", "a"),
            ("aⓐ", "a"),
            ("a\u{345}", "a"),
            ("a\u{948}", "a"),
            ("", ""),
        ] {
            assert_eq!(&text[..len(text)], name, "{text}");
        }
    }
}

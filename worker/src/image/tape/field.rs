//! Numbers and texts in the fixed fields of a header. Pure.

/// A text that ends at a NUL or at the field's end.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number: octal digits between blanks and NULs (nothing at all is 0), or GNU's base 256, where
/// the first byte has its highest bit set and the rest is a signed number, highest byte first.
pub fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let rest = &field[start..];
    let end = rest.iter().position(blank).unwrap_or(rest.len());
    rest[..end].iter().try_fold(0i64, |value, b| match b {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add((b - b'0').into()),
        _ => None,
    })
}

fn base256(field: &[u8]) -> Option<i64> {
    // The highest bit only marks the form; the one below it is the sign.
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let start = if negative { -1i128 } else { 0 };
    let mut value = start;
    for (index, byte) in field.iter().enumerate() {
        let byte = if index == 0 { first } else { *byte };
        value = (value << 8) | i128::from(byte);
        if value != i128::from(value as i64) {
            return None;
        }
    }
    Some(value as i64)
}

/// Writes an octal number that fills the field but for a final NUL. False when it does not fit.
pub fn put_octal(field: &mut [u8], mut value: u64) -> bool {
    let digits = field.len() - 1;
    field[digits] = 0;
    for slot in field[..digits].iter_mut().rev() {
        *slot = b'0' + (value % 8) as u8;
        value /= 8;
    }
    value == 0
}

/// Decimal digits, with nothing around them.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_all_their_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00009\0"), None);
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        let huge = [0x80, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(number(&huge), None);
    }

    proptest! {
        #[test]
        fn octal_reads_what_it_wrote(value in 0u64..1 << 33) {
            let mut field = [0; 12];
            prop_assert!(put_octal(&mut field, value));
            prop_assert_eq!(number(&field), Some(value as i64));
        }

        #[test]
        fn any_field_is_read_without_panic(field in prop::collection::vec(any::<u8>(), 1..13)) {
            let _ = number(&field);
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert!(put_octal(&mut [0; 8], 0o7777777));
        assert!(!put_octal(&mut [0; 8], 0o10000000));
    }
}

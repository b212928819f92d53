//! The records of a pax header. Pure.

use super::field::decimal;
use super::sparse::Sparse;
use proto::tree::Mtime;

/// What an extended header says about the entry that follows.
#[derive(Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Mtime>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Sparse,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    /// Takes the records of one header. Answers the keyword of the first bad one.
    pub fn read(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value, rest) = split(records).ok_or("pax record")?;
            self.record(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = text(value, "pax path")?,
            b"linkpath" => self.link = text(value, "pax linkpath")?,
            b"size" => self.size = number(value, "pax size")?,
            b"uid" => self.uid = number(value, "pax uid")?,
            b"gid" => self.gid = number(value, "pax gid")?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or("pax mtime")?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value).ok_or("GNU.sparse record")?;
                }
            }
        }
        Ok(())
    }
}

/// One record: `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn split(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&records[..blank])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], rest))
}

/// An empty value takes an earlier one back (POSIX).
fn text(value: &[u8], what: &'static str) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err(what);
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8], what: &'static str) -> Result<Option<u64>, &'static str> {
    if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or(what) }
}

/// Seconds with an optional fraction; a negative time counts back from 1970.
fn time(value: &[u8]) -> Option<Mtime> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |i: usize| fraction.get(i).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |sum, i| sum * 10 + digit(i));
    Some(match (negative, nanos) {
        (false, nanos) => Mtime { seconds, nanos },
        (true, 0) => Mtime { seconds: -seconds, nanos: 0 },
        (true, nanos) => Mtime { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Writes one record.
pub fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Writes the record of an extended attribute.
pub fn put_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put(out, &[XATTR, name].concat(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(records: &[u8]) -> Result<Pax, &'static str> {
        let mut pax = Pax::default();
        pax.read(records).map(|()| pax)
    }

    #[test]
    fn values_may_hold_anything() {
        let mut records = Vec::new();
        put_xattr(&mut records, b"user.x", b"a\nb\0=c");
        put(&mut records, b"path", &[b'p'; 200]);
        put(&mut records, b"comment", b"unknown keys are passed over");
        let pax = read(&records).unwrap();
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a\nb\0=c".to_vec())]);
        assert_eq!(pax.path.unwrap(), [b'p'; 200]);
    }

    #[test]
    fn times() {
        let at = |text: &str| time(text.as_bytes()).map(|t| (t.seconds, t.nanos));
        assert_eq!(at("12"), Some((12, 0)));
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("12.0000000019"), Some((12, 1)));
        assert_eq!(at("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(at("-3"), Some((-3, 0)));
        for bad in ["", "-", "1.x", "0x1", "99999999999999999999"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_records_are_refused() {
        for bad in [&b"x"[..], b"5 a=b", b"9 a=b\n", b"6 ab c\n", b"07 =ab\n\n", b"12 path=a\0b\n"]
        {
            assert!(read(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn records_read_what_they_wrote(key in "[a-z.]{1,90}", value in prop::collection::vec(any::<u8>(), 0..999)) {
            let mut record = Vec::new();
            put(&mut record, key.as_bytes(), &value);
            prop_assert_eq!(split(&record), Some((key.as_bytes(), &value[..], &b""[..])));
        }

        #[test]
        fn random_records_do_not_panic(records in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&records);
            let _ = time(&records);
        }
    }
}

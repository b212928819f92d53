//! Makes the header of an entry. Pure.

use super::field::put_octal;
use super::{BLOCK, Head, Kind, pax};
use tar::{EntryType, Header};

/// The end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many zeros follow a content of `size` bytes.
pub fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// The blocks before an entry's content. Whatever a ustar header cannot hold goes into a pax
/// header before it, and only that; the names of owners are left empty, as containerd does.
///
/// The same head always gives the same bytes.
pub fn encode(head: &Head) -> Vec<u8> {
    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    let flag = flag(head.kind);
    header.set_entry_type(flag);
    {
        let ustar = header.as_ustar_mut().expect("it was made as ustar");
        let over = |name: &[u8], value: i128| (name.to_vec(), value.to_string().into_bytes());
        let mut large = Vec::new();
        put_octal(&mut ustar.mode, head.mode.into());
        if !put_octal(&mut ustar.gid, head.gid.into()) {
            put_octal(&mut ustar.gid, 0);
            large.push(over(b"gid", head.gid.into()));
        }
        let past = head.mtime.seconds < 0;
        if past || !put_octal(&mut ustar.mtime, head.mtime.seconds as u64) {
            put_octal(&mut ustar.mtime, 0);
            large.push(over(b"mtime", head.mtime.seconds.into()));
        }
        if !put_octal(&mut ustar.size, head.size) {
            put_octal(&mut ustar.size, 0);
            large.push(over(b"size", head.size.into()));
        }
        if !put_octal(&mut ustar.uid, head.uid.into()) {
            put_octal(&mut ustar.uid, 0);
            large.push(over(b"uid", head.uid.into()));
        }
        put_octal(&mut ustar.dev_major, head.device.0.into());
        put_octal(&mut ustar.dev_minor, head.device.1.into());
        put_names(ustar, head, &mut records);
        let xattrs = head.xattrs.iter();
        xattrs.for_each(|(name, value)| pax::put_xattr(&mut records, name, value));
        large.iter().for_each(|(name, value)| pax::put(&mut records, name, value));
    }
    header.set_cksum();
    let mut out = if records.is_empty() { Vec::new() } else { extended(&head.path, &records) };
    out.extend_from_slice(header.as_bytes());
    out
}

fn flag(kind: Kind) -> EntryType {
    match kind {
        Kind::File => EntryType::Regular,
        Kind::HardLink => EntryType::Link,
        Kind::Symlink => EntryType::Symlink,
        Kind::Char => EntryType::Char,
        Kind::Block => EntryType::Block,
        Kind::Dir => EntryType::Directory,
        Kind::Fifo => EntryType::Fifo,
    }
}

/// Names that are long, or not ASCII, stand in full in a pax record; readers that know no pax
/// headers find the beginning of the name.
fn put_names(ustar: &mut tar::UstarHeader, head: &Head, records: &mut Vec<u8>) {
    if head.link.len() <= 100 && head.link.is_ascii() {
        ustar.linkname[..head.link.len()].copy_from_slice(&head.link);
    } else {
        cut(&mut ustar.linkname, &head.link);
        pax::put(records, b"linkpath", &head.link);
    }
    match split(&head.path) {
        Some((prefix, name)) if head.path.is_ascii() => {
            ustar.prefix[..prefix.len()].copy_from_slice(prefix);
            ustar.name[..name.len()].copy_from_slice(name);
        }
        _ => {
            cut(&mut ustar.name, &head.path);
            pax::put(records, b"path", &head.path);
        }
    }
}

/// Splits a name into the fields `prefix` (up to 155 bytes) and `name` (1 to 100), at the last
/// slash that allows it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let last = path.len() - usize::from(path.ends_with(b"/")) - 1;
    let from = path.len().saturating_sub(101);
    let at = (from..=last.min(155)).find(|i| path[*i] == b'/')?;
    (at > 0).then(|| (&path[..at], &path[at + 1..]))
}

fn cut(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len() - 1);
    for (slot, byte) in field[..length].iter_mut().zip(text) {
        *slot = if byte.is_ascii() { *byte } else { b'_' };
    }
}

/// A pax header with these records.
fn extended(path: &[u8], records: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    let ustar = header.as_ustar_mut().expect("it was made as ustar");
    let base = path.strip_suffix(b"/").unwrap_or(path);
    let base = base.rsplit(|b| *b == b'/').next().unwrap_or(base);
    cut(&mut ustar.name, &[b"PaxHeaders.0/", base].concat());
    put_octal(&mut ustar.mode, 0);
    put_octal(&mut ustar.uid, 0);
    put_octal(&mut ustar.gid, 0);
    put_octal(&mut ustar.mtime, 0);
    put_octal(&mut ustar.size, records.len() as u64);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(records);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, TapeError};
    use super::*;
    use proptest::prelude::*;
    use proto::tree::Mtime;
    use std::io::Read;

    fn head() -> impl Strategy<Value = Head> {
        let kinds = [Kind::File, Kind::HardLink, Kind::Symlink, Kind::Char, Kind::Dir, Kind::Fifo];
        let path = prop_oneof!["[a-z/]{1,300}", "[a-z]{95,105}", "[é/a]{1,90}"];
        let numbers = (0u16..0o10000, any::<u32>(), any::<u32>(), any::<i64>());
        let device = (0u32..0o10000000, 0u32..0o10000000);
        let xattr = (prop::collection::vec(1u8.., 1..9), prop::collection::vec(any::<u8>(), 0..99));
        let xattrs = prop::collection::btree_map(xattr.0, xattr.1, 0..3);
        (path, prop::sample::select(kinds.to_vec()), numbers, device, xattrs, "[a-zé]{1,200}")
            .prop_map(|(path, kind, (mode, uid, gid, seconds), device, xattrs, link)| Head {
                path: path.into_bytes(),
                kind,
                mode,
                uid,
                gid,
                // The lowest time of all has no positive counterpart to read back.
                mtime: Mtime { seconds: seconds.max(-i64::MAX), nanos: 0 },
                link: match kind {
                    Kind::HardLink | Kind::Symlink => link.into_bytes(),
                    _ => Vec::new(),
                },
                size: 0,
                device: if kind == Kind::Char { device } else { (0, 0) },
                xattrs: xattrs.into_iter().filter(|(k, _)| !k.contains(&b'=')).collect(),
            })
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_written(head in head(), content in prop::collection::vec(any::<u8>(), 0..1500)) {
            let mut head = head;
            let mut bytes = Vec::new();
            if head.kind == Kind::File {
                head.size = content.len() as u64;
            }
            bytes.extend(encode(&head));
            bytes.extend(&content[..head.size as usize]);
            bytes.extend(&END[..padding(head.size)]);
            bytes.extend(END);
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            let mut reader = Reader::new(&bytes[..]);
            prop_assert_eq!(reader.next_head().unwrap().unwrap(), head.clone());
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            prop_assert_eq!(&read, &content[..head.size as usize]);
            prop_assert!(reader.next_head().unwrap().is_none());
        }

        #[test]
        fn damage_never_panics(head in head(), at in any::<usize>(), flip in 1u8.., cut in any::<usize>()) {
            let mut bytes = encode(&head);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            bytes.truncate(cut % (bytes.len() + 1));
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next_head() {}
        }
    }

    #[test]
    fn a_size_beyond_octal_goes_into_a_record() {
        let head = Head {
            path: b"big".to_vec(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            link: Vec::new(),
            size: 1 << 40,
            device: (0, 0),
            xattrs: Vec::new(),
        };
        let bytes = encode(&head);
        assert_eq!(Reader::new(&bytes[..]).next_head().unwrap().unwrap(), head);
        let small = encode(&Head { size: 5, ..head });
        assert_eq!(small.len(), BLOCK, "no extended header where none is needed");
    }

    #[test]
    fn extended_headers_are_bounded() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 30);
        header.set_cksum();
        let error = Reader::new(&header.as_bytes()[..]).next_head().unwrap_err();
        assert!(matches!(error, TapeError::TooLong { size: 1_073_741_824, .. }));
    }
}

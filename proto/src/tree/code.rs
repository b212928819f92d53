//! Nodes as bytes.
//!
//! All numbers little-endian; lengths as u64 unless said otherwise.
//!
//! ```text
//! node   = version:u8 = 1, kind:u8 (0 directory, 1 root), count:u64, entry*
//! entry  = name: len:u16 + bytes, mode:u16 (07777), uid:u32, gid:u32, seconds:i64, nanos:u32,
//!          xattrs: count:u16, (name: len:u16 + bytes, value: len:u32 + bytes)*, node-kind:u8, ...
//!   0 file      blob:32, size:u64, link:u64 (0: the only name)
//!   1 directory tree:32, content:32, entries:u64, bytes:u64, remade:u8, marks:u8, presence:u8
//!   2 symlink   target: len:u16 + bytes
//!   3 character device, 4 block device  major:u32, minor:u32
//!   5 fifo, 6 socket, 7 whiteout        nothing
//!   8 relink    link:u64 (0: no other name)
//!   9 unlisted  node-kind:u8 (0 or 2), ... as for that kind
//!  10 linked    link:u64, node-kind:u8 (2 to 6), ... as for that kind: one of several names
//! ```

use super::{
    DirRef, Entry, LinkId, Meta, Mtime, Node, NodeError, Presence, Summary, Unlisted, VERSION,
    Xattrs,
};
use crate::canon::{Canon, Reader};
use crate::id::{BlobId, ContentDigest, TreeId};
use crate::limit;
use crate::path::FileName;

pub(super) fn encode(kind: u8, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + entries.len() * 112);
    bytes.extend_from_slice(&[VERSION, kind]);
    let mut sink = |b: &[u8]| bytes.extend_from_slice(b);
    let mut c = Canon::new(&mut sink);
    c.u64(entries.len() as u64);
    for entry in entries {
        encode_entry(&mut c, entry.name.as_bytes(), &entry.meta, &entry.node);
    }
    bytes
}

fn short_bytes(c: &mut Canon<'_>, bytes: &[u8]) {
    c.u16(bytes.len() as u16).raw(bytes);
}

pub(super) fn encode_entry(c: &mut Canon<'_>, name: &[u8], meta: &Meta, node: &Node) {
    short_bytes(c, name);
    c.u16(meta.mode).u32(meta.uid).u32(meta.gid).i64(meta.mtime.seconds).u32(meta.mtime.nanos);
    c.u16(meta.xattrs.len() as u16);
    for (name, value) in meta.xattrs.iter() {
        short_bytes(c, name);
        c.u32(value.len() as u32).raw(value);
    }
    encode_node(c, node);
}

fn encode_node(c: &mut Canon<'_>, node: &Node) {
    match node {
        Node::File { blob, size, link } => encode_file(c, blob, *size, *link),
        Node::Dir(dir, presence) => {
            c.tag(1).hash32(dir.tree.as_bytes()).hash32(dir.content.as_bytes());
            c.u64(dir.summary.entries).u64(dir.summary.bytes);
            c.bool(dir.summary.remade).bool(dir.summary.marks).tag(*presence as u8);
        }
        Node::Symlink(target) => short_bytes(c.tag(2), target),
        Node::Char(major, minor) => {
            c.tag(3).u32(*major).u32(*minor);
        }
        Node::Block(major, minor) => {
            c.tag(4).u32(*major).u32(*minor);
        }
        Node::Fifo => {
            c.tag(5);
        }
        Node::Socket => {
            c.tag(6);
        }
        Node::Whiteout => {
            c.tag(7);
        }
        Node::Relink(link) => {
            c.tag(8).u64(link.map_or(0, LinkId::get));
        }
        Node::Linked(link, what) => encode_node(c.tag(10).u64(link.get()), &what.clone().alone()),
        Node::Unlisted(what) => {
            c.tag(9);
            match what {
                Unlisted::File { blob, size, link } => encode_file(c, blob, *size, *link),
                Unlisted::Symlink(target) => short_bytes(c.tag(2), target),
            }
        }
    }
}

fn encode_file(c: &mut Canon<'_>, blob: &BlobId, size: u64, link: Option<LinkId>) {
    c.tag(0).hash32(blob.as_bytes()).u64(size).u64(link.map_or(0, LinkId::get));
}

pub(super) fn header(r: &mut Reader<'_>) -> Result<(u8, u64), NodeError> {
    let version = r.tag().ok_or(NodeError::Length)?;
    if version != VERSION {
        return Err(NodeError::Unknown { what: "version", value: version.into() });
    }
    let kind = r.tag().ok_or(NodeError::Length)?;
    let count = r.u64().ok_or(NodeError::Length)?;
    if count > limit::DIR_ENTRIES_MAX as u64 {
        return Err(NodeError::Limit { what: "number of entries", value: count });
    }
    Ok((kind, count))
}

pub(super) fn decode(bytes: &[u8]) -> Result<(u8, Vec<Entry>), NodeError> {
    let mut r = Reader::new(bytes);
    let (kind, count) = header(&mut r)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(bytes.len() as u64 / 32) as usize);
    for _ in 0..count {
        let (name, meta, node) = decode_entry(&mut r)?;
        let name = FileName::new(name)?;
        if entries.last().is_some_and(|last| last.name >= name) {
            return Err(NodeError::Order(name.to_string()));
        }
        entries.push(Entry { name, meta, node });
    }
    if r.is_empty() { Ok((kind, entries)) } else { Err(NodeError::Length) }
}

type RawEntry<'a> = (&'a [u8], Meta, Node);

pub(super) fn decode_entry<'a>(r: &mut Reader<'a>) -> Result<RawEntry<'a>, NodeError> {
    let name = short_slice(r).ok_or(NodeError::Length)?;
    let meta = decode_meta(r)?;
    let tag = r.tag().ok_or(NodeError::Length)?;
    Ok((name, meta, decode_node(r, tag)?))
}

fn decode_node(r: &mut Reader<'_>, tag: u8) -> Result<Node, NodeError> {
    Ok(match tag {
        0 | 2 => decode_unlisted(r, tag)?.listed(),
        1 => decode_dir(r)?,
        3 | 4 => {
            let major = r.u32().ok_or(NodeError::Length)?;
            let minor = r.u32().ok_or(NodeError::Length)?;
            if tag == 3 { Node::Char(major, minor) } else { Node::Block(major, minor) }
        }
        5 => Node::Fifo,
        6 => Node::Socket,
        7 => Node::Whiteout,
        8 => Node::Relink(decode_link(r).ok_or(NodeError::Length)?),
        9 => {
            let tag = r.tag().ok_or(NodeError::Length)?;
            Node::Unlisted(decode_unlisted(r, tag)?)
        }
        10 => {
            let link = decode_link(r).ok_or(NodeError::Length)?;
            let link = link.ok_or(NodeError::Unknown { what: "group of names", value: 0 })?;
            match r.tag().ok_or(NodeError::Length)? {
                tag @ 2..=6 => decode_node(r, tag)?.with_link(Some(link)),
                tag => {
                    return Err(NodeError::Unknown {
                        what: "kind of linked entry",
                        value: tag.into(),
                    });
                }
            }
        }
        _ => {
            return Err(NodeError::Unknown { what: "kind of entry", value: tag.into() });
        }
    })
}

fn decode_meta(r: &mut Reader<'_>) -> Result<Meta, NodeError> {
    let numbers = |r: &mut Reader<'_>| {
        let (mode, uid, gid) = (r.u16()?, r.u32()?, r.u32()?);
        Some((mode, uid, gid, Mtime { seconds: r.i64()?, nanos: r.u32()? }, r.u16()?))
    };
    let (mode, uid, gid, mtime, count) = numbers(r).ok_or(NodeError::Length)?;
    if mode > 0o7777 {
        return Err(NodeError::Limit { what: "mode", value: mode.into() });
    }
    if mtime.nanos >= 1_000_000_000 {
        return Err(NodeError::Limit { what: "nanoseconds", value: mtime.nanos.into() });
    }
    if usize::from(count) > limit::XATTRS_MAX {
        return Err(NodeError::Limit { what: "number of attributes", value: count.into() });
    }
    let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for _ in 0..count {
        let pair = |r: &mut Reader<'_>| {
            let len = r.u16()?;
            let name = r.raw(len.into())?.to_vec();
            let len = r.u32()?;
            Some((name, r.raw(len as usize)?.to_vec()))
        };
        let (name, value) = pair(r).ok_or(NodeError::Length)?;
        if value.len() > limit::XATTR_BYTES_MAX {
            return Err(NodeError::Limit { what: "attribute", value: value.len() as u64 });
        }
        if list.last().is_some_and(|(last, _)| *last >= name) {
            return Err(NodeError::Order(String::from_utf8_lossy(&name).into_owned()));
        }
        list.push((name, value));
    }
    Ok(Meta { mode, uid, gid, mtime, xattrs: Xattrs::new(list) })
}

fn short_slice<'a>(r: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = r.u16()?;
    r.raw(len.into())
}

/// A file or a symbolic link: those can be unlisted.
fn decode_unlisted(r: &mut Reader<'_>, tag: u8) -> Result<Unlisted, NodeError> {
    match tag {
        0 => decode_file(r).ok_or(NodeError::Length),
        2 => {
            let target = short_slice(r).ok_or(NodeError::Length)?;
            if target.len() > limit::LINK_TARGET_BYTES_MAX {
                let value = target.len() as u64;
                return Err(NodeError::Limit { what: "symlink target", value });
            }
            Ok(Unlisted::Symlink(target.to_vec()))
        }
        _ => Err(NodeError::Unknown { what: "kind of unlisted entry", value: tag.into() }),
    }
}

fn decode_file(r: &mut Reader<'_>) -> Option<Unlisted> {
    let blob = BlobId::from_bytes(r.hash32()?);
    let size = r.u64()?;
    Some(Unlisted::File { blob, size, link: decode_link(r)? })
}

fn decode_link(r: &mut Reader<'_>) -> Option<Option<LinkId>> {
    Some(std::num::NonZeroU64::new(r.u64()?).map(LinkId))
}

fn decode_dir(r: &mut Reader<'_>) -> Result<Node, NodeError> {
    let fields = |r: &mut Reader<'_>| {
        let tree = TreeId::from_bytes(r.hash32()?);
        let content = ContentDigest::from_bytes(r.hash32()?);
        let summary =
            Summary { entries: r.u64()?, bytes: r.u64()?, remade: r.bool()?, marks: r.bool()? };
        Some((DirRef { tree, content, summary }, r.tag()?))
    };
    let (dir, presence) = fields(r).ok_or(NodeError::Length)?;
    let presence = match presence {
        0 => Presence::Merge,
        1 => Presence::Opaque,
        2 => Presence::Implicit,
        3 => Presence::Unlisted,
        value => {
            return Err(NodeError::Unknown { what: "presence", value: value.into() });
        }
    };
    Ok(Node::Dir(dir, presence))
}

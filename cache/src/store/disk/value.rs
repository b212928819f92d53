//! What the index holds: where blobs are, what is known of trees, and how keys are made.

use super::super::meta::Table;
use super::super::persist::persisted;
use proto::id::{BlobId, ContentDigest, ContentKey, DefKey, Scope, TreeId};
use proto::tree::{DirRef, Summary};
use rkyv::{Archive, Deserialize, Serialize};

/// Where a blob's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) enum Place {
    /// In a segment.
    Packed(Span),
    /// In a file of its own.
    File {
        /// How many bytes.
        size: u64,
    },
}

impl Place {
    pub fn size(&self) -> u64 {
        match self {
            Place::Packed(span) => span.len.into(),
            Place::File { size } => *size,
        }
    }
}

/// Some bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub(super) struct Span {
    /// Which segment.
    pub segment: u32,
    /// Where they begin.
    pub offset: u32,
    /// How many.
    pub len: u32,
}

impl Span {
    /// The offset behind the last byte.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}

/// What is known of a tree node without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Head {
    /// What parents must carry for it. None for a root node.
    dir: Option<HeadDir>,
    /// How many levels of directories are below: children always have less than their parents, so
    /// that deleting from the highest down leaves every tree whole at each moment.
    pub height: u16,
    /// Bytes of its encoding.
    pub len: u32,
    /// The blob that holds the encoding, when it is too large for the index.
    pub blob: Option<BlobId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct HeadDir {
    content: [u8; 32],
    entries: u64,
    bytes: u64,
    remade: bool,
    marks: bool,
}

impl Head {
    pub fn new(dir: Option<DirRef>, height: u16, len: u32, blob: Option<BlobId>) -> Self {
        let dir = dir.map(|d| HeadDir {
            content: *d.content.as_bytes(),
            entries: d.summary.entries,
            bytes: d.summary.bytes,
            remade: d.summary.remade,
            marks: d.summary.marks,
        });
        Self { dir, height, len, blob }
    }

    /// What parents must carry for the node, whose id is `tree`.
    pub fn dir_ref(&self, tree: TreeId) -> Option<DirRef> {
        let dir = self.dir.as_ref()?;
        let summary = Summary {
            entries: dir.entries,
            bytes: dir.bytes,
            remade: dir.remade,
            marks: dir.marks,
        };
        Some(DirRef { tree, content: ContentDigest::from_bytes(dir.content), summary })
    }
}

/// Where in a blob a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u32,
}

/// What is known of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct SegmentRow {
    /// How many of its bytes a loss of power can't take away.
    pub synced: u64,
}

/// A blob that is not here but on another node of the farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    /// How many bytes it has.
    pub size: u64,
}

persisted!(Place, Head, SegmentRow, Piece, Elsewhere);

/// Keys of the column family of tables.
pub(super) mod key {
    use super::*;

    pub const RECORD: u8 = b'r';
    pub const ALIAS: u8 = b'a';
    pub const ROW: u8 = b't';
    /// Followed by a record's or a row's whole key: when it was used last.
    pub const USED: u8 = b'u';
    /// Followed by a blob's id: the list of its chunks.
    pub const CHUNKS: u8 = b'l';
    /// Followed by a chunk's id and a blob's id: where in the blob the chunk lies.
    pub const CHUNK: u8 = b'c';
    /// Followed by a blob's id: another node of the farm has it.
    pub const ELSEWHERE: u8 = b'e';

    fn scoped(kind: u8, scope: &Scope, id: &[u8; 32]) -> Vec<u8> {
        [&[kind], scope.as_str().as_bytes(), &[0], id].concat()
    }

    pub fn record(scope: &Scope, id: &ContentKey) -> Vec<u8> {
        scoped(RECORD, scope, id.as_bytes())
    }

    pub fn alias(scope: &Scope, id: &DefKey) -> Vec<u8> {
        scoped(ALIAS, scope, id.as_bytes())
    }

    pub fn row(table: Table, id: &[u8]) -> Vec<u8> {
        [&[ROW, table.tag()], id].concat()
    }

    pub fn used(of: &[u8]) -> Vec<u8> {
        [&[USED], of].concat()
    }

    pub fn elsewhere(blob: &BlobId) -> Vec<u8> {
        [&[ELSEWHERE], &blob.as_bytes()[..]].concat()
    }

    pub fn chunks(blob: &BlobId) -> Vec<u8> {
        [&[CHUNKS], &blob.as_bytes()[..]].concat()
    }

    pub fn chunk(chunk: &BlobId, blob: &BlobId) -> Vec<u8> {
        [&[CHUNK], &chunk.as_bytes()[..], blob.as_bytes()].concat()
    }

    /// With what the keys of all places of a chunk begin.
    pub fn chunks_named(chunk: &BlobId) -> Vec<u8> {
        [&[CHUNK], &chunk.as_bytes()[..]].concat()
    }

    /// The blob of the key of a list of chunks.
    pub fn chunks_of(key: &[u8]) -> Option<BlobId> {
        let id = key.strip_prefix(&[CHUNKS])?;
        Some(BlobId::from_bytes(id.try_into().ok()?))
    }

    /// The chunk and the blob of a chunk's key.
    pub fn chunk_of(key: &[u8]) -> Option<(BlobId, BlobId)> {
        let (chunk, blob) = key.strip_prefix(&[CHUNK])?.split_at_checked(32)?;
        let id = |bytes: &[u8]| bytes.try_into().ok().map(BlobId::from_bytes);
        Some((id(chunk)?, id(blob)?))
    }

    /// The scope of a record's or an alias's key.
    pub fn scope_of(key: &[u8]) -> Option<Scope> {
        let (scope, _) = key.get(1..)?.split_at_checked(key.len().checked_sub(34)?)?;
        Scope::parse(std::str::from_utf8(scope).ok()?).ok()
    }

    /// The table and the own key of a row's key.
    pub fn row_of(key: &[u8]) -> Option<(Table, &[u8])> {
        let [ROW, tag, own @ ..] = key else {
            return None;
        };
        let table = Table::ALL.into_iter().find(|table| table.tag() == *tag)?;
        Some((table, own))
    }
}

/// Keys of the column family of the store's own state.
pub(super) mod state {
    use super::BlobId;

    pub const SEGMENT: u8 = b's';
    /// Blobs whose files may not be safe from a loss of power yet.
    pub const UNSYNCED: u8 = b'p';
    /// Blobs whose files are to be deleted.
    pub const DOOMED: u8 = b'd';
    pub const PACKED: &[u8] = b"cp";
    pub const LARGE: &[u8] = b"cl";
    pub const TREES: &[u8] = b"ct";
    /// Followed by a segment's number: what of it is still in use.
    pub const LIVE: &[u8] = b"cs";

    pub fn segment(id: u32) -> Vec<u8> {
        [&[SEGMENT][..], &id.to_be_bytes()].concat()
    }

    pub fn live(id: u32) -> Vec<u8> {
        [LIVE, &id.to_be_bytes()].concat()
    }

    pub fn unsynced(id: &BlobId) -> Vec<u8> {
        [&[UNSYNCED][..], id.as_bytes()].concat()
    }

    pub fn doomed(id: &BlobId) -> Vec<u8> {
        [&[DOOMED][..], id.as_bytes()].concat()
    }

    /// The number behind a prefix.
    pub fn number(rest: &[u8]) -> Option<u32> {
        Some(u32::from_be_bytes(rest.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::persist::Persisted;
    use super::*;

    #[test]
    fn keys_give_back_what_they_are_made_of() {
        for scope in ["trusted", "branch/a/b", "dev/x"] {
            let scope = Scope::parse(scope).unwrap();
            let key = key::record(&scope, &ContentKey::from_bytes([0; 32]));
            assert_eq!(key::scope_of(&key), Some(scope));
        }
        assert_eq!(key::scope_of(b"r"), None);
        let row = key::row(Table::Layer, b"xyz");
        assert_eq!(key::row_of(&row), Some((Table::Layer, &b"xyz"[..])));
        assert_eq!(key::row_of(&[key::ROW, 99]), None);
        let (a, b) = (BlobId::of(b"a"), BlobId::of(b"b"));
        assert_eq!(key::chunks_of(&key::chunks(&a)), Some(a));
        assert_eq!(key::chunk_of(&key::chunk(&a, &b)), Some((a, b)));
        assert!(key::chunk(&a, &b).starts_with(&key::chunks_named(&a)));
        assert_eq!((key::chunks_of(b"l"), key::chunk_of(b"c")), (None, None));
        assert_eq!(key::chunk_of(&key::chunks_named(&a)), None);
    }

    #[test]
    fn a_place_reads_what_it_wrote() {
        let places = [
            Place::File { size: u64::MAX },
            Place::Packed(Span { segment: 1, offset: u32::MAX, len: 3 }),
        ];
        for place in places {
            assert_eq!(Place::from_bytes(&place.to_bytes()), Some(place));
        }
    }
}

//! The store's readable twin: everything in maps. It promises what [`Store`] promises, except that
//! nothing outlives it and nothing is ever collected.

use super::{BlobWriter, Pin, Row, Store, StoreError, Table, hash_file};
use crate::chunk::ChunkPlace;
use crate::chunk::cut::{CutError, cut};
use bytes::Bytes;
use proto::chunk::ChunkList;
use proto::id::{BlobId, ContentKey, DefKey, Scope, TreeId};
use proto::limit::{CHUNK_BYTES_MAX, NODE_BYTES_MAX, PACKED_BLOB_BYTES_MAX};
use proto::record::{Alias, Record};
use proto::tree::{AnyNode, Meta, NodeError, node_id};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<BlobId, Bytes>,
    /// Encoding, node, and levels of directories below.
    nodes: BTreeMap<TreeId, (Bytes, Arc<AnyNode>, usize)>,
    records: BTreeMap<(Scope, ContentKey), Record>,
    aliases: BTreeMap<(Scope, DefKey), Alias>,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    lists: BTreeMap<BlobId, ChunkList>,
    /// Of a chunk, in a blob: where it begins, and how many bytes it has.
    places: BTreeMap<(BlobId, BlobId), (u64, u32)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Looks into the asking scope, then into its project's trusted one, for what is `fit`.
fn scoped<'a, K: Ord + Copy, V>(
    map: &'a BTreeMap<(Scope, K), V>,
    scope: &Scope,
    key: K,
    fit: impl Fn(&&V) -> bool,
) -> Option<&'a V> {
    let own = map.get(&(scope.clone(), key)).filter(&fit);
    own.or_else(|| map.get(&(scope.base(), key)).filter(&fit))
}

impl State {
    fn blob(&self, id: &BlobId) -> Result<Bytes, StoreError> {
        self.blobs.get(id).cloned().ok_or(StoreError::NoBlob(*id))
    }

    /// Answers how many levels of directories are below.
    fn check_whole(&self, id: TreeId, node: &AnyNode) -> Result<usize, StoreError> {
        let refuse = |why: String| Err(StoreError::Incomplete { tree: id, why });
        for (blob, size) in node.blobs() {
            match self.blobs.get(&blob) {
                None => return refuse(format!("blob {blob} is not here")),
                Some(b) if b.len() as u64 != size => {
                    return refuse(format!("blob {blob} has {} bytes, not {size}", b.len()));
                }
                Some(_) => {}
            }
        }
        let mut height = 0;
        for dir in node.dirs() {
            match self.nodes.get(&dir.tree) {
                None => return refuse(format!("tree {} is not here", dir.tree)),
                Some((_, child, _)) if child.dir_ref(dir.tree) != Some(dir) => {
                    return refuse(format!("the digests given for tree {} are wrong", dir.tree));
                }
                Some((_, _, levels)) => height = height.max(levels + 1),
            }
        }
        if height > node.height_max() {
            let too_deep = NodeError::Limit { what: "depth", value: height as u64 };
            return Err(StoreError::Node(id, too_deep));
        }
        Ok(height)
    }

    fn check_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let refuse = |why: String| Err(StoreError::Row { table, why });
        let names = match table.names(key, value) {
            Ok(names) => names,
            Err(why) => return refuse(why.to_owned()),
        };
        for (blob, size) in names.blobs {
            match self.blobs.get(&blob) {
                None => return refuse(format!("blob {blob} is not here")),
                Some(b) if size.is_some_and(|s| s != b.len() as u64) => {
                    return refuse(format!("blob {blob} has {} bytes", b.len()));
                }
                Some(_) => {}
            }
        }
        match names.trees.iter().find(|tree| !self.nodes.contains_key(tree)) {
            Some(tree) => refuse(format!("tree {tree} is not here")),
            None => Ok(()),
        }
    }
}

impl Store for MemoryStore {
    fn missing_blobs(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, StoreError> {
        let state = self.state();
        Ok(ids.iter().filter(|id| !state.blobs.contains_key(id)).copied().collect())
    }

    fn missing_trees(&self, ids: &[TreeId]) -> Result<Vec<TreeId>, StoreError> {
        let state = self.state();
        Ok(ids.iter().filter(|id| !state.nodes.contains_key(id)).copied().collect())
    }

    fn put_blobs(&self, blobs: &[(BlobId, Bytes)]) -> Result<(), StoreError> {
        for (id, bytes) in blobs {
            let hashed = BlobId::of(bytes);
            if hashed != *id {
                let (named, hashed) = (id.to_string(), hashed.to_string());
                return Err(StoreError::WrongBytes { named, hashed });
            }
        }
        self.state().blobs.extend(blobs.iter().cloned());
        Ok(())
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        Ok(Box::new(Writer { state: self.state.clone(), bytes: Vec::new() }))
    }

    fn adopt(&self, file: &Path) -> Result<(BlobId, u64), StoreError> {
        let read = || {
            let (id, size) = hash_file(&mut File::open(file)?)?;
            Ok((id, size, std::fs::read(file)?))
        };
        let (id, size, bytes) = read().map_err(|source| StoreError::Io {
            action: "Reading",
            path: file.to_owned(),
            source,
        })?;
        self.state().blobs.insert(id, bytes.into());
        Ok((id, size))
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, StoreError> {
        Ok(self.state().blob(id)?.len() as u64)
    }

    fn sizes(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>, StoreError> {
        let state = self.state();
        Ok(ids.iter().map(|id| Some(state.blobs.get(id)?.len() as u64)).collect())
    }

    fn read(&self, id: &BlobId) -> Result<Bytes, StoreError> {
        self.state().blob(id)
    }

    fn read_many(&self, ids: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        let state = self.state();
        ids.iter().map(|id| state.blob(id)).collect()
    }

    fn open(&self, id: &BlobId, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        let bytes = self.state().blob(id)?;
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(offset);
        Ok(Box::new(cursor))
    }

    fn place(&self, id: &BlobId, meta: &Meta, dest: &Path) -> Result<(), StoreError> {
        use rustix::fs::{CWD, Gid, Timespec, Timestamps, Uid, XattrFlags};
        let bytes = self.state().blob(id)?;
        let place = || -> io::Result<()> {
            let mut file = File::create_new(dest)?;
            file.write_all(&bytes)?;
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(meta.mode.into()))?;
            for (name, value) in meta.xattrs.iter() {
                let name = std::ffi::OsStr::from_bytes(name);
                rustix::fs::lsetxattr(dest, name, value, XattrFlags::empty())?;
            }
            let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanos.into() };
            let times = Timestamps { last_access: time, last_modification: time };
            Ok(rustix::fs::utimensat(CWD, dest, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
        };
        place().map_err(|source| StoreError::Io {
            action: "Placing",
            path: dest.to_owned(),
            source,
        })
    }

    fn chunks(&self, id: &BlobId) -> Result<ChunkList, StoreError> {
        let bytes = self.state().blob(id)?;
        if let Some(list) = self.state().lists.get(id) {
            return Ok(list.clone());
        }
        let list = cut(&bytes[..]).map_err(|error| match error {
            CutError::List(why) => StoreError::Uncut { blob: *id, why },
            CutError::Io(source) => {
                StoreError::Io { action: "Cutting", path: Path::new("memory").to_owned(), source }
            }
        })?;
        self.note_chunks(&list)?;
        Ok(list)
    }

    fn note_chunks(&self, list: &ChunkList) -> Result<(), StoreError> {
        let mut state = self.state();
        let id = list.blob();
        let size = state.blobs.get(&id).map_or(0, Bytes::len);
        let here = size as u64 == list.size() && size > PACKED_BLOB_BYTES_MAX;
        if here && !state.lists.contains_key(&id) {
            for chunk in list.chunks() {
                let place = (chunk.offset, chunk.len);
                state.places.entry((chunk.id, id)).or_insert(place);
            }
            state.lists.insert(id, list.clone());
        }
        Ok(())
    }

    fn find_chunks(&self, ids: &[BlobId]) -> Result<Vec<Option<ChunkPlace>>, StoreError> {
        let state = self.state();
        let find = |id: &BlobId| {
            let from = (*id, BlobId::from_bytes([0; 32]));
            let ((chunk, blob), (offset, len)) = state.places.range(from..).next()?;
            (chunk == id).then_some(ChunkPlace { blob: *blob, offset: *offset, len: *len })
        };
        Ok(ids.iter().map(find).collect())
    }

    fn read_chunk(&self, id: &BlobId, at: &ChunkPlace) -> Result<Bytes, StoreError> {
        let blob = self.state().blob(&at.blob)?;
        let end = at.offset.checked_add(at.len.into()).filter(|end| *end <= blob.len() as u64);
        let range = end.map(|end| at.offset as usize..end as usize);
        let bytes = range.filter(|r| r.len() <= CHUNK_BYTES_MAX).map(|range| blob.slice(range));
        let right = bytes.filter(|bytes| BlobId::of(bytes) == *id);
        right.ok_or(StoreError::NoChunk { chunk: *id, at: *at })
    }

    fn put_nodes(&self, nodes: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut state = self.state();
        for bytes in nodes {
            let id = node_id(bytes);
            if bytes.len() > NODE_BYTES_MAX {
                let too_large = NodeError::Limit { what: "size", value: bytes.len() as u64 };
                return Err(StoreError::Node(id, too_large));
            }
            let node = AnyNode::decode(bytes).map_err(|e| StoreError::Node(id, e))?;
            let height = state.check_whole(id, &node)?;
            state.nodes.insert(id, (Bytes::copy_from_slice(bytes), Arc::new(node), height));
        }
        Ok(())
    }

    fn node(&self, id: &TreeId) -> Result<Arc<AnyNode>, StoreError> {
        self.state().nodes.get(id).map(|(_, n, _)| n.clone()).ok_or(StoreError::NoTree(*id))
    }

    fn node_bytes(&self, id: &TreeId) -> Result<Bytes, StoreError> {
        self.state().nodes.get(id).map(|(b, _, _)| b.clone()).ok_or(StoreError::NoTree(*id))
    }

    fn records(
        &self,
        scope: &Scope,
        keys: &[ContentKey],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let state = self.state();
        let whole = |r: &&Record| r.layers.iter().all(|l| state.nodes.contains_key(&l.0));
        let find = |key: &ContentKey| scoped(&state.records, scope, *key, whole).cloned();
        Ok(keys.iter().map(find).collect())
    }

    fn aliases(&self, scope: &Scope, keys: &[DefKey]) -> Result<Vec<Option<Alias>>, StoreError> {
        let state = self.state();
        Ok(keys.iter().map(|key| scoped(&state.aliases, scope, *key, |_| true).cloned()).collect())
    }

    fn put_record(
        &self,
        scope: &Scope,
        key: &ContentKey,
        record: &Record,
        alias: Option<(&DefKey, &Alias)>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        let place = (scope.clone(), *key);
        if state.records.get(&place).is_some_and(|old| old.version > record.version) {
            return Ok(());
        }
        state.records.insert(place, record.clone());
        if let Some((def, alias)) = alias {
            state.aliases.insert((scope.clone(), *def), alias.clone());
        }
        Ok(())
    }

    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().rows.get(&(table, key.to_vec())).cloned())
    }

    fn put_row(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let mut state = self.state();
        state.check_row(table, key, value)?;
        state.rows.insert((table, key.to_vec()), value.to_vec());
        Ok(())
    }

    fn delete_row(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.state().rows.remove(&(table, key.to_vec())).is_some())
    }

    fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let state = self.state();
        let from = state.rows.range((table, prefix.to_vec())..);
        let matching = from.take_while(|((t, key), _)| *t == table && key.starts_with(prefix));
        Ok(matching.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn barrier(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn pin(&self) -> Pin {
        Pin::new(())
    }
}

struct Writer {
    state: Arc<Mutex<State>>,
    bytes: Vec<u8>,
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Writer {
    fn finish(self: Box<Self>, expected: Option<BlobId>) -> Result<(BlobId, u64), StoreError> {
        let id = BlobId::of(&self.bytes);
        if let Some(expected) = expected.filter(|e| *e != id) {
            let (named, hashed) = (expected.to_string(), id.to_string());
            return Err(StoreError::WrongBytes { named, hashed });
        }
        let size = self.bytes.len() as u64;
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.blobs.insert(id, self.bytes.into());
        Ok((id, size))
    }
}

//! Contexts that are archives.
//!
//! Their trees come from the archives' headers, as those of an ADD do, and not from files on this
//! machine's disk: owners, set-id bits and devices are kept, whoever runs the client.

use crate::error::user;
use cache::cluster::Cluster;
use cache::scan::{ScanError, send_stored};
use cache::store::{DiskStore, Options, Store, StoreError, StoreNodes};
use cache::tree::apply::implied_meta;
use cache::tree::graft;
use cache::tree::select::{Bound, bind};
use cache::tree::{Made, TreeError, root};
use proto::error::Failure;
use proto::id::RootId;
use proto::tree::{AnyNode, Dir, Node, Presence, Root};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tempfile::TempDir;
use worker::image::unpack::{Reading, unpack};

/// An archive that was unpacked.
pub struct Packed {
    store: Arc<dyn Store>,
    root: RootId,
    /// The time of the newest file in it, in seconds since 1970.
    pub newest: Option<i64>,
    /// Holds the store.
    _dir: TempDir,
}

impl Packed {
    /// Unpacks an archive, compressed or not. `what` names it in messages. Blocks.
    pub fn read(input: impl Read + Send, what: &str) -> Result<Self, Failure> {
        let failed = |why: &dyn std::fmt::Display| user(format!("{what} was not unpacked: {why}"));
        let dir = super::remote::directory()?;
        let store = DiskStore::open(dir.path(), Options::default()).map_err(|e| failed(&e))?;
        let unpacked = unpack(&store, what, input, Reading::Archive)
            .map_err(|e| Failure::new(e.class(), e.to_string()))?;
        let root = whole(&store, &unpacked.root).map_err(|e| failed(&e))?;
        Ok(Self { store: Arc::new(store), root, newest: unpacked.newest, _dir: dir })
    }

    /// Opens a file of it; links lead nowhere outside. Fails as opening a file on disk does.
    pub fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        let nodes = StoreNodes(&*self.store);
        let bound = bind(&nodes, &self.root, path.as_bytes()).map_err(|e| match e {
            TreeError::NotFound(_) => io::Error::from(io::ErrorKind::NotFound),
            e => io::Error::other(e.to_string()),
        });
        let (Bound::File(file), _, made) = bound? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        self.store.put_nodes(&made.into_nodes()).map_err(io::Error::other)?;
        let root = root(&nodes, &file).map_err(io::Error::other)?;
        let node = self.store.node(&root.dir.tree).map_err(io::Error::other)?;
        let found = match &*node {
            AnyNode::Dir(dir) => dir.entries().first().map(|entry| entry.node.clone()),
            AnyNode::Root(_) => None,
        };
        match found {
            Some(Node::File { blob, .. }) => self.store.open(&blob, 0).map_err(io::Error::other),
            _ => Err(io::Error::other("it is no file")),
        }
    }

    /// Sees to it that the farm has all of it; answers its tree.
    pub async fn send(&self, blobs: &Arc<Cluster>, sent: &AtomicU64) -> Result<RootId, ScanError> {
        send_stored(blobs, &self.store, self.root, sent).await?;
        Ok(self.root)
    }
}

/// Why a tree was not made whole.
#[derive(Debug, thiserror::Error)]
enum NotWhole {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tree of a directory that was empty before. The directory is root's, whatever the archive says
/// of it: BuildKit unpacks into one that is there.
fn whole(store: &dyn Store, unpacked: &RootId) -> Result<RootId, NotWhole> {
    let mut made = Made::default();
    let dir = made.dir(Dir::default());
    let base = made.root(&Root { meta: implied_meta(), dir, presence: Presence::Merge });
    store.put_nodes(&made.into_nodes())?;
    let change = graft::unpack(&StoreNodes(store), &base, unpacked)?;
    store.put_nodes(&change.made.into_nodes())?;
    Ok(change.root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::tree::Entry;

    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, mode: u32, data: &[u8]| {
            let mut header = tar::Header::new_ustar();
            // `set_path` refuses what leads upwards.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(4);
            header.set_gid(5);
            header.set_mtime(1_600_000_000);
            header.set_size(data.len() as u64);
            if kind == tar::EntryType::Symlink {
                header.set_link_name("../../Dockerfile").unwrap();
            }
            if kind == tar::EntryType::Char {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            header.set_cksum();
            tar.append(&header, data).unwrap();
        };
        add("./", tar::EntryType::Directory, 0o700, b"");
        add("Dockerfile", tar::EntryType::Regular, 0o644, b"FROM scratch");
        add("d/", tar::EntryType::Directory, 0o2755, b"");
        add("d/null", tar::EntryType::Char, 0o600, b"");
        add("implied/link", tar::EntryType::Symlink, 0o777, b"");
        add("../up", tar::EntryType::Regular, 0o4755, b"up");
        tar.into_inner().unwrap()
    }

    fn entry(packed: &Packed, dir: &proto::tree::DirRef, name: &str) -> Entry {
        let node = packed.store.node(&dir.tree).unwrap();
        let AnyNode::Dir(dir) = &*node else { panic!("no directory") };
        dir.get(name.as_bytes()).unwrap().clone()
    }

    #[test]
    fn what_the_headers_say_is_kept() {
        let packed = Packed::read(&archive()[..], "The archive").unwrap();
        assert_eq!(packed.newest, Some(1_600_000_000));
        let root = root(&StoreNodes(&*packed.store), &packed.root).unwrap();
        assert_eq!((root.meta.mode, root.meta.uid), (0o755, 0));
        let look = |entry: &Entry| (entry.meta.mode, entry.meta.uid, entry.meta.gid);
        let dir = entry(&packed, &root.dir, "d");
        assert_eq!(look(&dir), (0o2755, 4, 5));
        assert_eq!(look(&entry(&packed, &root.dir, "up")), (0o4755, 4, 5));
        let device = entry(&packed, dir.as_dir().unwrap(), "null");
        assert_eq!(device.node, Node::Char(1, 3));
        let implied = entry(&packed, &root.dir, "implied");
        assert_eq!(look(&implied), (0o755, 0, 0));
        assert!(matches!(implied.node, Node::Dir(_, Presence::Merge)));
    }

    #[test]
    fn files_are_opened_and_links_lead_nowhere_outside() {
        let packed = Packed::read(&archive()[..], "The archive").unwrap();
        let text = |path: &str| packed.open(path).and_then(io::read_to_string);
        assert_eq!(text("Dockerfile").unwrap(), "FROM scratch");
        assert_eq!(text("implied/link").unwrap(), "FROM scratch");
        assert_eq!(text("/../up").unwrap(), "up");
        assert_eq!(text("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(text("d").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(text("d/null").is_err());
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let why = Packed::read(&[0x1f, 0x8b, 8, 0, 0][..], "The archive x").err().unwrap();
        assert!(why.message.contains("The archive x"), "{}", why.message);
    }
}

//! From a packed layer, or any archive, to a diff tree in the store.
//!
//! One thread reads and decompresses, one hashes (SHA-256, for the diff id), one puts small blobs
//! into the store, and the caller's reads the archive, hashes contents (BLAKE3) and grows the tree.
//! Between them wait a few MiB at most; names and metadata are held in memory until the end,
//! bounded by `limit::LAYER_TREE_BYTES_MAX`.
//!
//! # What an archive becomes
//!
//! * Names are resolved inside the tree, never on a disk. A name below a symlink of the same archive
//!   goes where the symlink leads, inside the archive's root: so do containerd, Docker and BuildKit.
//!   `..` in a name of a layer is refused; in one of another archive it leads no further than to the
//!   root.
//! * A directory that is needed but has no entry is [`Presence::Implicit`]; an opaque one, or one
//!   whose name has a whiteout too, is [`Presence::Opaque`]. Whiteouts are about the layers below,
//!   wherever in the archive they stand.
//! * Of two entries with one name the later counts.
//! * Names of one file share a [`LinkId`], and have the metadata of the last of them. A hard link to a
//!   file of a layer below needs [`Lower`].
//! * Extended attributes that belong to a host (`proto::tree::is_host_xattr`) are left out: a layer
//!   must not be able to mark overlayfs directories of the machine that unpacks it.
//!
//! An archive that ADD unpacks has no whiteouts, and its symlinks and hard links count in the
//! destination: what depends on that is a part of its own ([`cache::tree::parts`]). `..` leads back
//! there, but never out; and what stands behind the archive's end does not matter, broken or not.
//!
//! [`Presence::Implicit`]: proto::tree::Presence::Implicit
//! [`Presence::Opaque`]: proto::tree::Presence::Opaque
//! [`LinkId`]: proto::tree::LinkId

mod decode;
mod error;
mod keep;
mod name;
mod parts;
mod seal;
mod stream;
#[cfg(test)]
mod tests;
mod tree;

pub use decode::{Format, decoder};
pub use error::{BadArchive, UnpackError};
pub use name::{BadName, components};
pub use tree::Lower;

use super::pack::read_error;
use super::tape::{Head, Kind, Reader, TapeError};
use cache::store::{Store, StoreError};
use keep::{Keeper, NotKept, keep};
use parts::Parts;
use proto::id::{BlobId, OciDigest, RootId};
use proto::limit;
use proto::tree::{Meta, Xattrs, is_host_xattr};
use std::io::{self, BufReader, Read};
use std::sync::mpsc::sync_channel;
use stream::{Pieces, hash, stream};
use tree::{Growing, Leaf, LeafNode, Refused, show};

pub(crate) use keep::write_error;
pub(crate) use stream::decompressed;

/// What an archive is read as.
#[derive(Clone, Copy)]
pub enum Reading<'a> {
    /// A layer of an image: with whiteouts, and links to the layers below if those are given.
    Layer {
        /// The SHA-256 that the uncompressed bytes must have, when it is known.
        diff_id: Option<OciDigest>,
        /// The layers below.
        lower: Option<&'a dyn Lower>,
    },
    /// Any archive (ADD): a file named `.wh.x` is a file.
    Archive,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// The diff tree. Its root is [`Presence::Implicit`](proto::tree::Presence::Implicit) unless
    /// the archive has an entry for it.
    pub root: RootId,
    /// SHA-256 of the uncompressed bytes.
    pub diff_id: OciDigest,
    /// Whether the tree depends on the layers below, so that it is wrong upon others.
    pub depends: bool,
    /// Entries in the archive.
    pub entries: u64,
    /// The time of the newest file in an archive that is no layer, in seconds since 1970, as
    /// [`newest_file`] tells it.
    pub newest: Option<i64>,
}

/// Unpacks what `input` gives. `what` names it in messages: `Layer sha256:…`.
///
/// Blocks; call it on a thread that may. The result is visible, and durable after the store's
/// barrier.
pub fn unpack(
    store: &dyn Store,
    what: &str,
    input: impl Read + Send,
    reading: Reading<'_>,
) -> Result<Unpacked, UnpackError> {
    // Blobs are put long before the nodes that name them.
    let _pin = store.pin();
    let (pump, ends) = stream();
    let (batches, to_keep) = sync_channel(1);
    let keeper = Keeper::new(store, batches);
    let (grown, pumped, kept, diff_id) = std::thread::scope(|scope| {
        let pumping = scope.spawn(move || pump.run(input));
        let hashing = scope.spawn(move || hash(ends.to_hash));
        let keeping = scope.spawn(move || keep(store, to_keep));
        let grown = grow(ends.pieces, keeper, reading);
        // Decompressors are other people's code; a panic in one is an error of this layer only.
        (grown, pumping.join(), keeping.join(), hashing.join())
    });
    let bad = |why| UnpackError::Archive { what: what.to_owned(), why };
    let panicked = |_| bad(BadArchive::Read(io::Error::other("the decompressor gave up")));
    // The first cause is said, not what followed from it.
    kept.map_err(panicked)??;
    let behind =
        matches!(reading, Reading::Archive) && grown.as_ref().is_ok_and(|(_, ended)| *ended);
    match pumped.map_err(panicked)? {
        // BuildKit stops reading at the archive's end. A layer is all of its bytes.
        Err(BadArchive::Compression { .. } | BadArchive::Bomb { .. }) if behind => {}
        pumped => pumped.map_err(bad)?,
    }
    let diff_id = diff_id.map_err(panicked)?;
    let (tree, _) = grown.map_err(|refused| match refused {
        Failed::Refused(Refused::Bad(why)) | Failed::NotKept(NotKept::Bad(why)) => bad(why),
        Failed::Refused(Refused::Store(e)) | Failed::NotKept(NotKept::Store(e)) => e.into(),
        Failed::Refused(Refused::NeedsLower(path)) => {
            UnpackError::NeedsLower { what: what.to_owned(), path }
        }
        Failed::NotKept(NotKept::Stopped) => stopped().into(),
    })?;
    if let Reading::Layer { diff_id: Some(expected), .. } = reading
        && expected != diff_id
    {
        return Err(UnpackError::DiffId { what: what.to_owned(), expected, actual: diff_id });
    }
    let (root, depends, entries, newest) = match tree {
        Grown::Layer(tree) => {
            let (depends, entries) = (tree.depends, tree.entries);
            (seal::seal_layer(store, what, tree, &diff_id)?, depends, entries, None)
        }
        Grown::Archive { parts, newest } => {
            let entries = parts.entries();
            (seal::seal_archive(store, what, parts.finish(), &diff_id)?, false, entries, newest)
        }
    };
    Ok(Unpacked { root, diff_id, depends, entries, newest })
}

/// Whether these bytes are an archive that ADD unpacks: a tar, plain or compressed, with at least
/// one entry. The answer is by content, as BuildKit gives it. What cannot be read is an error, and
/// not something else than an archive.
pub fn is_archive(input: impl Read + Send) -> io::Result<bool> {
    readable(input, |input| begins(input))
}

fn begins(input: impl Read + Send) -> bool {
    let Ok((_, plain)) = decoder(BufReader::new(input)) else { return false };
    // An entry of unknown kind is an entry.
    matches!(Reader::new(plain).next_head(), Ok(Some(_)) | Err(TapeError::Kind { .. }))
}

/// The time of the newest file in an archive, in seconds since 1970, as BuildKit takes it for
/// `SOURCE_DATE_EPOCH`: none when there is no file in it, or when it is no archive to its end.
pub fn newest_file(input: impl Read + Send) -> io::Result<Option<i64>> {
    readable(input, |input| newest_of(input))
}

/// What `look` makes of the input, unless reading failed.
fn readable<R: Read, T>(input: R, look: impl FnOnce(&mut Failing<R>) -> T) -> io::Result<T> {
    let mut input = Failing { input, error: None };
    let found = look(&mut input);
    input.error.map_or(Ok(found), Err)
}

fn newest_of(input: impl Read + Send) -> Option<i64> {
    let (_, plain) = decoder(BufReader::new(input)).ok()?;
    let mut tape = Reader::new(plain);
    let mut newest = None;
    while let Some(head) = tape.next_head().ok()? {
        newest = newest.max(time_of_file(&head));
    }
    newest
}

fn time_of_file(head: &Head) -> Option<i64> {
    matches!(head.kind, Kind::File | Kind::HardLink).then_some(head.mtime.seconds)
}

/// Keeps why reading failed: behind a decompressor it looks like bytes that are no archive.
struct Failing<R> {
    input: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).map_err(|e| {
            let kind = e.kind();
            if kind != io::ErrorKind::Interrupted {
                self.error = Some(e);
            }
            kind.into()
        })
    }
}

/// Whether an archive, compressed or not, begins so: for who has only some 512 bytes to look at.
pub fn begins_archive(head: &[u8]) -> bool {
    let is_ustar = head.get(257..262) == Some(b"ustar");
    Format::of(head) != Format::Plain || is_ustar || begins(head)
}

/// What the blob unpacks to when it is an archive, as ADD asks.
pub fn unpack_blob(store: &dyn Store, blob: &BlobId) -> Result<Option<RootId>, UnpackError> {
    if !is_archive(store.open(blob, 0)?).map_err(|e| read_error(blob, e))? {
        return Ok(None);
    }
    let what = format!("The archive {}", blob.short());
    let unpacked = unpack(store, &what, store.open(blob, 0)?, Reading::Archive)?;
    Ok(Some(unpacked.root))
}

fn stopped() -> StoreError {
    let source = io::Error::other("the store's writer stopped");
    StoreError::Io { action: "Writing", path: "blobs".into(), source }
}

enum Failed {
    Refused(Refused),
    NotKept(NotKept),
}

impl<E: Into<BadArchive>> From<E> for Failed {
    fn from(bad: E) -> Self {
        Self::Refused(Refused::Bad(bad.into()))
    }
}

/// What was read.
enum Grown {
    Layer(Growing),
    Archive { parts: Parts, newest: Option<i64> },
}

/// Reads the archive, and whether it has an end of its own.
fn grow(pieces: Pieces, mut keeper: Keeper, reading: Reading<'_>) -> Result<(Grown, bool), Failed> {
    let mut tape = Reader::new(pieces);
    let grown = match reading {
        Reading::Layer { lower, .. } => Grown::Layer(grow_layer(&mut tape, &mut keeper, lower)?),
        Reading::Archive => grow_archive(&mut tape, &mut keeper)?,
    };
    keeper.finish().map_err(Failed::NotKept)?;
    let ended = tape.ended();
    tape.into_inner().drain();
    Ok((grown, ended))
}

fn grow_layer(
    tape: &mut Reader<Pieces>,
    keeper: &mut Keeper,
    lower: Option<&dyn Lower>,
) -> Result<Growing, Failed> {
    let mut tree = Growing::new(true);
    while let Some(mut head) = tape.next_head()? {
        let names = tree.name(&head.path)?;
        if tree.is_mark(&names) {
            tree.put_mark(&names)?;
            continue;
        }
        match head.kind {
            Kind::Dir => tree.put_dir(&names, meta(head)?)?,
            Kind::HardLink => {
                let target = std::mem::take(&mut head.link);
                tree.put_link(&names, &target, &meta(head)?, lower).map_err(Failed::Refused)?;
            }
            _ => tree.put_leaf(&names, leaf(tape, keeper, head)?)?,
        }
    }
    Ok(tree)
}

fn grow_archive(tape: &mut Reader<Pieces>, keeper: &mut Keeper) -> Result<Grown, Failed> {
    let (mut parts, mut newest) = (Parts::new(), None);
    while let Some(mut head) = tape.next_head()? {
        newest = newest.max(time_of_file(&head));
        let path = head.path.clone();
        match head.kind {
            Kind::Dir => parts.put_dir(&path, meta(head)?)?,
            Kind::HardLink => {
                let target = std::mem::take(&mut head.link);
                parts.put_link(&path, &target, meta(head)?)?;
            }
            _ => parts.put_leaf(&path, || leaf(tape, keeper, head))?,
        }
    }
    Ok(Grown::Archive { parts, newest })
}

/// What is neither a directory nor a hard link.
fn leaf(tape: &mut Reader<Pieces>, keeper: &mut Keeper, head: Head) -> Result<Leaf, Failed> {
    let node = match head.kind {
        Kind::File => {
            let packed = |tape: &Reader<Pieces>| tape.get_ref().packed();
            let blob = keeper.take(tape, head.size, packed).map_err(Failed::NotKept)?;
            LeafNode::File(blob, head.size)
        }
        Kind::Symlink => LeafNode::Symlink(target(&head)?),
        Kind::Char => LeafNode::Char(head.device.0, head.device.1),
        Kind::Block => LeafNode::Block(head.device.0, head.device.1),
        Kind::Fifo => LeafNode::Fifo,
        Kind::Dir | Kind::HardLink => unreachable!("what has names of others is put elsewhere"),
    };
    Ok(Leaf { meta: meta(head)?, node, group: None })
}

fn target(head: &Head) -> Result<Box<[u8]>, BadArchive> {
    let fine = !head.link.is_empty() && head.link.len() <= limit::LINK_TARGET_BYTES_MAX;
    if !fine || head.link.contains(&0) {
        let what = "a target that no symbolic link can have";
        return Err(BadArchive::Value { path: show(&head.path), what });
    }
    Ok(head.link.as_slice().into())
}

fn meta(head: Head) -> Result<Meta, BadArchive> {
    let xattrs: Vec<_> = head.xattrs.into_iter().filter(|(n, _)| !is_host_xattr(n)).collect();
    let fine = |(name, value): &(Vec<u8>, Vec<u8>)| {
        (1..=limit::NAME_BYTES_MAX).contains(&name.len())
            && !name.contains(&0)
            && value.len() <= limit::XATTR_BYTES_MAX
    };
    if xattrs.len() > limit::XATTRS_MAX || !xattrs.iter().all(fine) {
        let what = "extended attributes that no file system takes";
        return Err(BadArchive::Value { path: show(&head.path), what });
    }
    let Head { mode, uid, gid, mtime, .. } = head;
    Ok(Meta { mode, uid, gid, mtime, xattrs: Xattrs::new(xattrs) })
}

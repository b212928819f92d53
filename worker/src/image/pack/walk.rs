//! A tree as the entries of an archive, in order.

use super::PackError;
use crate::image::tape::{Head, Kind};
use cache::store::{Source, StoreError};
use proto::id::{BlobId, RootId, TreeId};
use proto::limit;
use proto::tree::{
    AnyNode, CAPABILITY, Entry, Meta, Mtime, Node, OneFile, Presence, Root, is_host_xattr,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

/// What an archive is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A layer: whiteouts and opaque directories become marks, what is implicit or unlisted no entry.
    Layer,
    /// The files as they are. For merged trees.
    Plain {
        /// The time that all of them get, in seconds since 1970, if they don't keep their own.
        time: Option<i64>,
    },
}

/// The largest number that fits into a header's field. Linux has 12 and 20 bits.
const DEVICE_MAX: u32 = 0o7777777;

/// A file's content: its blob and size.
pub type Content = (BlobId, u64);

type Sink<'s> = dyn FnMut(&Head, Option<Content>) -> Result<(), PackError> + 's;

/// Hands each entry to `sink`, parents before what is in them, names of one directory sorted as
/// bytes. That is the order of Go's `filepath.Walk`, and so of containerd's layers. Names begin
/// with `prefix`.
///
/// * A whiteout stands where the name that it hides would; an opaque directory's mark stands first
///   in it. What a layer only gives other names ([`Node::Relink`]) is not in it, and neither is what
///   it has for steps to come alone ([`Node::Unlisted`]).
/// * Of several names of one file the first is the file, the others are hard links to it.
/// * Times are whole seconds, owners have no names, and attributes that belong to a host are left
///   out. Sockets are left out: tar cannot hold them.
pub fn walk(
    store: &dyn Source,
    root: &RootId,
    form: Form,
    prefix: &[u8],
    sink: &mut Sink<'_>,
) -> Result<(), PackError> {
    let root = read_root(store, root)?;
    if root.dir.summary.entries > limit::LAYER_ENTRIES_MAX {
        return Err(PackError::TooMuch { entries: root.dir.summary.entries });
    }
    let mut walk = Walk { form, path: prefix.to_vec(), links: HashMap::new(), sink };
    if form == Form::Layer {
        match root.presence {
            Presence::Merge => walk.put_dir(b"./", &root.meta)?,
            Presence::Opaque => {
                walk.put_dir(b"./", &root.meta)?;
                walk.put_mark(b".wh..opq")?;
            }
            Presence::Implicit | Presence::Unlisted => {}
        }
    } else if !prefix.is_empty() {
        walk.put_dir(prefix, &root.meta)?;
    }
    walk.all(store, root.dir.tree)
}

struct Walk<'w> {
    form: Form,
    path: Vec<u8>,
    /// The first name of each file with several.
    links: HashMap<OneFile, Vec<u8>>,
    sink: &'w mut Sink<'w>,
}

struct Frame {
    node: Arc<AnyNode>,
    next: usize,
    path: usize,
}

impl<'w> Walk<'w> {
    fn all(&mut self, store: &dyn Source, tree: TreeId) -> Result<(), PackError> {
        let frame = |tree: &TreeId, path| {
            Ok::<_, StoreError>(Frame { node: store.node(tree)?, next: 0, path })
        };
        let mut stack = vec![frame(&tree, self.path.len())?];
        while let Some(top) = stack.last_mut() {
            let AnyNode::Dir(dir) = &*top.node else { return Err(wrong_kind(&tree).into()) };
            self.path.truncate(top.path);
            let Some(entry) = dir.entries().get(top.next) else {
                stack.pop();
                continue;
            };
            top.next += 1;
            if let Some(below) = self.entry(entry)? {
                if stack.len() >= limit::TREE_DEPTH_MAX {
                    return Err(PackError::Name { path: self.shown(), why: "it is too deep" });
                }
                stack.push(frame(&below, self.path.len())?);
            }
        }
        Ok(())
    }

    /// Hands over one entry. Answers the directory to go on with; the path is its then.
    fn entry(&mut self, entry: &Entry) -> Result<Option<TreeId>, PackError> {
        if entry.node == Node::Whiteout {
            if self.form == Form::Layer {
                self.put_mark(entry.name.as_bytes())?;
            }
            return Ok(None);
        }
        // The file is in a layer below.
        if matches!(entry.node, Node::Relink(_) | Node::Unlisted(_)) {
            return Ok(None);
        }
        self.path.extend_from_slice(entry.name.as_bytes());
        if self.form == Form::Layer && entry.name.as_bytes().starts_with(b".wh.") {
            let why = "in a layer, a name that begins with `.wh.` takes a file away";
            return Err(PackError::Name { path: self.shown(), why });
        }
        let mut head = self.head(&entry.meta)?;
        if self.keeps_names(&entry.node)
            && let Some(first) = self.first_name(entry)
        {
            (head.kind, head.link) = (Kind::HardLink, first);
            (self.sink)(&head, None)?;
            return Ok(None);
        }
        match &entry.node.clone().with_link(None) {
            Node::Dir(dir, presence) => {
                self.path.push(b'/');
                let is_listed = matches!(presence, Presence::Merge | Presence::Opaque);
                if self.form != Form::Layer || is_listed {
                    let path = self.path.clone();
                    self.put_dir(&path, &entry.meta)?;
                }
                if self.form == Form::Layer && *presence == Presence::Opaque {
                    self.put_mark(b".wh..opq")?;
                }
                return Ok(Some(dir.tree));
            }
            Node::File { blob, size, .. } => {
                head.size = *size;
                (self.sink)(&head, Some((*blob, *size)))?;
                return Ok(None);
            }
            Node::Symlink(target) => (head.kind, head.link) = (Kind::Symlink, target.clone()),
            Node::Char(major, minor) => (head.kind, head.device) = (Kind::Char, (*major, *minor)),
            Node::Block(major, minor) => (head.kind, head.device) = (Kind::Block, (*major, *minor)),
            Node::Fifo => head.kind = Kind::Fifo,
            // In a tar of files a socket is an empty one, as BuildKit's exporters write it.
            Node::Socket if self.form != Form::Layer => {
                (self.sink)(&head, Some((BlobId::of(b""), 0)))?;
                return Ok(None);
            }
            Node::Socket => return Ok(None),
            Node::Whiteout | Node::Relink(_) | Node::Unlisted(_) | Node::Linked(..) => {
                unreachable!("handled above")
            }
        }
        if head.device.0.max(head.device.1) > DEVICE_MAX {
            let why = "tar cannot hold its device number";
            return Err(PackError::Name { path: self.shown(), why });
        }
        (self.sink)(&head, None)?;
        Ok(None)
    }

    /// Whether several names of such a thing are one in the archive: what layers hold is; in archives of
    /// files BuildKit writes each symlink by itself.
    fn keeps_names(&self, node: &Node) -> bool {
        match self.form {
            Form::Layer => !node.is_socket(),
            Form::Plain { .. } => node.symlink().is_none(),
        }
    }

    /// The first name of this file, unless this is the first.
    fn first_name(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        match self.links.entry(entry.one_file()?) {
            Slot::Occupied(first) => Some(first.get().clone()),
            Slot::Vacant(slot) => {
                slot.insert(self.path.clone());
                None
            }
        }
    }

    fn put_dir(&mut self, path: &[u8], meta: &Meta) -> Result<(), PackError> {
        let head = Head { kind: Kind::Dir, path: path.to_vec(), ..self.head(meta)? };
        (self.sink)(&head, None)
    }

    /// The mark `.wh.NAME` in the directory of the present path.
    fn put_mark(&mut self, name: &[u8]) -> Result<(), PackError> {
        let head = Head {
            path: [&self.path[..], b".wh.", name].concat(),
            ..self.head(&Meta::root_owned(0, Mtime::default()))?
        };
        (self.sink)(&head, Some((BlobId::of(b""), 0)))
    }

    /// The head of a file at the present path.
    fn head(&self, meta: &Meta) -> Result<Head, PackError> {
        let kept = meta.xattrs.iter().filter(|(name, _)| match self.form {
            Form::Layer => *name == CAPABILITY,
            Form::Plain { .. } => !is_host_xattr(name),
        });
        let xattrs: Vec<_> = kept.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        if xattrs.iter().any(|(name, _)| name.contains(&b'=')) {
            let why = "tar cannot hold an extended attribute with `=` in its name";
            return Err(PackError::Name { path: self.shown(), why });
        }
        let seconds = match self.form {
            Form::Plain { time: Some(seconds) } => seconds,
            // Go's tar writer rounds the times of files; those of layers are cut off before.
            Form::Plain { time: None } => rounded(meta.mtime),
            Form::Layer => meta.mtime.seconds,
        };
        Ok(Head {
            path: self.path.clone(),
            kind: Kind::File,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: Mtime { seconds, nanos: 0 },
            link: Vec::new(),
            size: 0,
            device: (0, 0),
            xattrs,
        })
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// To the nearest second; half of one counts as one more.
fn rounded(time: Mtime) -> i64 {
    time.seconds.saturating_add(i64::from(time.nanos >= 500_000_000))
}

fn read_root(store: &dyn Source, id: &RootId) -> Result<Root, StoreError> {
    match &*store.node(&id.0)? {
        AnyNode::Root(root) => Ok(root.clone()),
        AnyNode::Dir(_) => Err(wrong_kind(&id.0)),
    }
}

fn wrong_kind(tree: &TreeId) -> StoreError {
    let why = "it is a root where a directory should be, or the other way round";
    StoreError::Incomplete { tree: *tree, why: why.to_owned() }
}

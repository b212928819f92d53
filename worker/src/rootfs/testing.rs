//! Trees written down in a test.

use cache::store::Store;
use proto::id::{BlobId, RootId};
use proto::path::FileName;
use proto::tree::{
    Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Root, Unlisted, Xattrs, empty_dir,
};

/// One entry, with all below it.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub name: String,
    pub mode: u16,
    pub owner: (u32, u32),
    pub mtime: i64,
    pub nanos: u32,
    pub xattrs: Vec<(&'static str, Vec<u8>)>,
    pub what: What,
    pub presence: Presence,
    pub children: Vec<Spec>,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Dir,
    File(Vec<u8>),
    /// A file with several names: those of one group share an inode.
    Linked(Vec<u8>, &'static str),
    Symlink(&'static str),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    /// One of several names of what is no file: those of one group share an inode.
    Twin(Box<What>, &'static str),
    Whiteout,
    /// A file below, of this group from now on.
    Relink(&'static str),
    /// A file for steps to come.
    Unlisted(Vec<u8>),
}

fn spec(name: &str, mode: u16, what: What) -> Spec {
    Spec {
        name: name.to_owned(),
        mode,
        owner: (0, 0),
        mtime: 1_000_000_000,
        nanos: 0,
        xattrs: Vec::new(),
        what,
        presence: Presence::Merge,
        children: Vec::new(),
    }
}

pub(crate) fn dir(name: &str, mode: u16, children: Vec<Spec>) -> Spec {
    Spec { children, ..spec(name, mode, What::Dir) }
}

pub(crate) fn file(name: &str, data: &[u8], mode: u16) -> Spec {
    spec(name, mode, What::File(data.to_vec()))
}

pub(crate) fn linked(name: &str, data: &[u8], group: &'static str) -> Spec {
    spec(name, 0o644, What::Linked(data.to_vec(), group))
}

pub(crate) fn symlink(name: &str, target: &'static str) -> Spec {
    spec(name, 0o777, What::Symlink(target))
}

pub(crate) fn special(name: &str, what: What) -> Spec {
    spec(name, 0o640, what)
}

/// One of several names of a symbolic link.
pub(crate) fn symlink_name(name: &str, target: &'static str, group: &'static str) -> Spec {
    spec(name, 0o777, What::Twin(Box::new(What::Symlink(target)), group))
}

pub(crate) fn whiteout(name: &str) -> Spec {
    Spec { mtime: 0, ..spec(name, 0, What::Whiteout) }
}

fn put_dir(store: &dyn Store, children: &[Spec]) -> DirRef {
    let sealed = Dir::new(children.iter().map(|c| put(store, c)).collect()).seal();
    store.put_nodes(&[sealed.bytes]).unwrap();
    sealed.dir
}

/// What it is, if it is no directory.
fn leaf(store: &dyn Store, what: &What) -> Node {
    let blob = |data: &[u8]| {
        let id = BlobId::of(data);
        store.put_blobs(&[(id, bytes::Bytes::copy_from_slice(data))]).unwrap();
        (id, data.len() as u64)
    };
    match what {
        What::Dir => panic!("a directory among what is none"),
        What::File(data) => {
            let (blob, size) = blob(data);
            Node::File { blob, size, link: None }
        }
        What::Linked(data, group) => {
            let (blob, size) = blob(data);
            Node::File { blob, size, link: Some(LinkId::of(&[group.as_bytes()])) }
        }
        What::Symlink(target) => Node::Symlink(target.as_bytes().to_vec()),
        What::Char(major, minor) => Node::Char(*major, *minor),
        What::Block(major, minor) => Node::Block(*major, *minor),
        What::Fifo => Node::Fifo,
        What::Socket => Node::Socket,
        What::Twin(what, group) => {
            leaf(store, what).with_link(Some(LinkId::of(&[group.as_bytes()])))
        }
        What::Whiteout => Node::Whiteout,
        What::Relink(group) => Node::Relink(Some(LinkId::of(&[group.as_bytes()]))),
        What::Unlisted(data) => {
            let (blob, size) = blob(data);
            Node::Unlisted(Unlisted::File { blob, size, link: None })
        }
    }
}

fn put(store: &dyn Store, spec: &Spec) -> Entry {
    let node = match &spec.what {
        What::Dir => Node::Dir(put_dir(store, &spec.children), spec.presence),
        what => leaf(store, what),
    };
    let xattrs = spec.xattrs.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.clone()));
    Entry {
        name: FileName::new(spec.name.as_bytes()).unwrap(),
        meta: Meta {
            mode: spec.mode,
            uid: spec.owner.0,
            gid: spec.owner.1,
            mtime: Mtime { seconds: spec.mtime, nanos: spec.nanos },
            xattrs: Xattrs::new(xattrs),
        },
        node,
    }
}

/// A diff or a merged root with these entries.
pub(crate) fn root(store: &dyn Store, children: Vec<Spec>) -> RootId {
    let dir = put_dir(store, &children);
    let meta = Meta::root_owned(0o755, Mtime { seconds: 1_000_000_000, nanos: 0 });
    put_root(store, Root { meta, dir, presence: Presence::Merge })
}

/// The root of `FROM scratch`.
pub(crate) fn scratch(store: &dyn Store) -> RootId {
    let empty = empty_dir();
    store.put_nodes(&[empty.bytes]).unwrap();
    let meta = Meta::root_owned(0o755, Mtime::default());
    put_root(store, Root { meta, dir: empty.dir, presence: Presence::Merge })
}

fn put_root(store: &dyn Store, root: Root) -> RootId {
    let (id, bytes) = root.seal();
    store.put_nodes(&[bytes]).unwrap();
    id
}

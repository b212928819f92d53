//! COPY, ADD and WORKDIR: files of one tree put into another.
//!
//! The rules are those of BuildKit (`solver/llbsolver/file` and `fsutil/copy`):
//!
//! * A directory gives its content, not itself. A file goes into the destination when that is a
//!   directory or is written with a slash at the end, else it becomes the destination.
//! * Missing directories on the way are made 0755 (with an octal `--chmod`, in that mode) and owned
//!   as `--chown` says. The destination directory keeps its owner and mode; directories below it
//!   get those of the source.
//! * Directories that are made in a set-group-id directory have its group, unless `--chown` says
//!   another one, and are set-group-id.
//! * Symlinks of the destination's path are followed inside the root, the last one too.
//! * A block device becomes a character device of its number, but for one in an unpacked archive;
//!   a socket becomes a file without bytes.
//! * A file does not replace a directory, nor a directory a file. An unpacked archive has rules of
//!   its own (`archive.rs`).

use super::archive;
use super::edit::{Change, EditDir, Editor, Found, show};
use super::mode::ModeChange;
use super::nodes::{Made, Nodes, TreeError, Work};
use super::owner::{self, Owner};
use super::select::{Item, Picked, Selection};
use proto::id::RootId;
use proto::path::FileName;
use proto::tree::{Dir, DirRef, Entry, LinkId, Meta, Mtime, Node, Presence, Xattrs};
use std::collections::BTreeMap;

/// Where to and how.
#[derive(Debug, Clone)]
pub struct CopyRules<'a> {
    /// The destination: absolute; with a slash at the end when it must be a directory.
    pub dest: &'a [u8],
    /// `user[:group]` for all that is copied.
    pub chown: Option<&'a str>,
    /// The mode of all that is copied.
    pub chmod: Option<&'a str>,
    /// The time of directories that are made on the way.
    pub now: Mtime,
}

/// The tree that `base` becomes when the selections are copied into it, one after the other.
pub fn copy(
    nodes: &dyn Nodes,
    base: &RootId,
    selections: Vec<Selection>,
    rules: &CopyRules<'_>,
) -> Result<Change, TreeError> {
    let mut editor = Editor::open(nodes, base)?;
    let owner = rules.chown.map(|text| owner::lookup(&mut editor, text)).transpose()?;
    let mode = rules.chmod.map(ModeChange::parse).transpose()?;
    editor.inherits_group = owner.is_none();
    let rewrite = Rewrite { owner, mode };
    let mut index = 0u64;
    for Selection { items, made } in selections {
        editor.work.made.absorb(made);
        for item in items {
            let salt = [&index.to_le_bytes()[..], rules.dest].concat();
            place(&mut editor, &item, rules, &rewrite, &salt)?;
            index += 1;
        }
    }
    Ok(editor.finish())
}

/// The tree that `base` becomes when an archive is unpacked into its root.
pub fn unpack(nodes: &dyn Nodes, base: &RootId, archive: &RootId) -> Result<Change, TreeError> {
    let mut editor = Editor::open(nodes, base)?;
    archive::unpack(&mut editor, &[], archive, &Rewrite { owner: None, mode: None }, b"")?;
    Ok(editor.finish())
}

/// The tree that `base` becomes when a directory is made in it, unless it is there.
pub fn mkdir(
    nodes: &dyn Nodes,
    base: &RootId,
    path: &[u8],
    owner: &str,
    now: Mtime,
) -> Result<Change, TreeError> {
    let mut editor = Editor::open(nodes, base)?;
    let mut meta = Meta::root_owned(0o755, now);
    if !owner.is_empty() {
        let Owner { uid, gid } = owner::lookup(&mut editor, owner)?;
        (meta.uid, meta.gid) = (uid, gid);
        editor.inherits_group = false;
    }
    let at = editor.resolve(path)?;
    editor.mkdir_all(&at, &meta)?;
    Ok(editor.finish())
}

/// What `--chown` and `--chmod` do to each file.
pub(super) struct Rewrite {
    pub owner: Option<Owner>,
    pub mode: Option<ModeChange>,
}

impl Rewrite {
    /// The metadata with the owner that was asked for.
    pub fn owned(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some(Owner { uid, gid }) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        meta
    }

    pub fn meta(&self, meta: &Meta, node: &Node) -> Meta {
        let mut meta = self.owned(meta);
        if let (Some(change), false) = (&self.mode, node.symlink().is_some()) {
            meta.mode = change.apply(meta.mode, matches!(node, Node::Dir(..)));
        }
        meta
    }

    /// The metadata of directories that are made on the way.
    fn parents(&self, now: Mtime) -> Meta {
        let mode = self.mode.as_ref().map_or(0o755, ModeChange::of_parents);
        let Owner { uid, gid } = self.owner.unwrap_or(Owner { uid: 0, gid: 0 });
        Meta { mode, uid, gid, mtime: now, xattrs: Xattrs::default() }
    }

    fn is_none(&self) -> bool {
        self.owner.is_none() && self.mode.is_none()
    }
}

fn place(
    editor: &mut Editor<'_>,
    item: &Item,
    rules: &CopyRules<'_>,
    rewrite: &Rewrite,
    salt: &[u8],
) -> Result<(), TreeError> {
    let parents = rewrite.parents(rules.now);
    if let Some(archive) = item.archive {
        let at = editor.resolve(rules.dest)?;
        editor.mkdir_all(&at, &Meta { mode: 0o755, ..parents })?;
        // Modes come from the archive: `--chmod` is for files that are copied.
        let rewrite = Rewrite { owner: rewrite.owner, mode: None };
        return archive::unpack(editor, &at, &archive, &rewrite, salt);
    }
    let ensured = match rules.dest.iter().rposition(|b| *b == b'/') {
        Some(slash) if !matches!(&rules.dest[slash + 1..], b"" | b".") => &rules.dest[..=slash],
        _ => rules.dest,
    };
    let at = editor.resolve(ensured)?;
    editor.mkdir_all(&at, &parents)?;
    let mut target = editor.resolve(rules.dest)?;
    match &item.picked {
        Picked::Leaf(meta, node) => {
            if let (Found::Dir, Some(name)) = (editor.look(&target)?, item.name()) {
                target.push(name.clone());
            }
            place_leaf(editor, &target, rewrite.meta(meta, node), node, &parents)
        }
        Picked::Dir(meta, source) => {
            match editor.look(&target)? {
                Found::Dir => {}
                Found::Nothing => editor.mkdir_all(&target, &parents)?,
                Found::Other(_) => return Err(TreeError::DirectoryOverFile(show(&target))),
            }
            let links = Links::of(&editor.work, source, salt)?;
            editor.meta_mut(&target)?.mtime = meta.mtime;
            let (dir, work) = editor.open_dir(&target)?;
            let taken = Taken { rewrite, links: &links, devices: false };
            Merge { taken }.dir(work, dir, source, &mut target)
        }
    }
}

fn place_leaf(
    editor: &mut Editor<'_>,
    target: &[FileName],
    meta: Meta,
    node: &Node,
    parents: &Meta,
) -> Result<(), TreeError> {
    let Some((name, above)) = target.split_last() else {
        return Err(TreeError::FileOverDirectory("/".to_owned()));
    };
    editor.mkdir_all(above, parents)?;
    if let Found::Dir = editor.look(target)? {
        return Err(TreeError::FileOverDirectory(show(target)));
    }
    let node = copied(&mut editor.work.made, Links::default().renamed(node));
    editor.put(above, Entry { name: name.clone(), meta, node })
}

/// What a copy of something is. BuildKit makes special files anew, with the bits of a socket's type
/// taken out of theirs: which leaves a character device of a block device, and a file of a socket.
fn copied(made: &mut Made, node: Node) -> Node {
    match node {
        // Of several names only those of regular files stay one thing.
        Node::Linked(_, what) => copied(made, what.alone()),
        Node::Block(major, minor) => Node::Char(major, minor),
        Node::Socket => made.empty_file(),
        other => other,
    }
}

/// The hard links of what is copied: groups are named anew, so that two copies of one tree are not
/// links of each other, and a name that is left alone is no link any more.
#[derive(Default)]
pub(super) struct Links {
    groups: BTreeMap<LinkId, LinkId>,
}

impl Links {
    pub fn of(work: &Work<'_>, source: &DirRef, salt: &[u8]) -> Result<Self, TreeError> {
        let mut counts = BTreeMap::new();
        count_links(work, source, &mut counts)?;
        let new = |id: LinkId| LinkId::of(&[salt, &id.get().to_le_bytes()]);
        let several = counts.into_iter().filter(|(_, n)| *n > 1).map(|(id, _)| (id, new(id)));
        Ok(Self { groups: several.collect() })
    }

    fn renamed(&self, node: &Node) -> Node {
        match node.link() {
            Some(link) => node.clone().with_link(self.groups.get(&link).copied()),
            None => node.clone(),
        }
    }
}

fn count_links(
    work: &Work<'_>,
    source: &DirRef,
    counts: &mut BTreeMap<LinkId, u32>,
) -> Result<(), TreeError> {
    if !source.summary.remade {
        return Ok(());
    }
    for entry in work.dir(&source.tree)?.entries() {
        match &entry.node {
            Node::Dir(dir, _) => count_links(work, dir, counts)?,
            node => {
                if let Some(link) = node.link() {
                    *counts.entry(link).or_default() += 1;
                }
            }
        }
    }
    Ok(())
}

/// How a file is taken from one tree into another.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    pub rewrite: &'a Rewrite,
    pub links: &'a Links,
    /// Whether devices stay what they are.
    pub devices: bool,
}

impl Taken<'_> {
    pub fn leaf(&self, made: &mut Made, entry: &Entry) -> Entry {
        let node = self.links.renamed(&entry.node);
        Entry {
            name: entry.name.clone(),
            meta: self.rewrite.meta(&entry.meta, &entry.node),
            node: if self.devices { node } else { copied(made, node) },
        }
    }

    /// A directory for a place where nothing is: taken as it is where nothing in it changes.
    pub fn whole(&self, work: &mut Work<'_>, source: &DirRef) -> Result<DirRef, TreeError> {
        if self.rewrite.is_none() && !source.summary.remade {
            return Ok(*source);
        }
        let mut entries = Vec::new();
        for entry in work.dir(&source.tree)?.entries() {
            let mut new = self.leaf(&mut work.made, entry);
            if let Node::Dir(dir, presence) = entry.node {
                new.node = Node::Dir(self.whole(work, &dir)?, presence);
            }
            entries.push(new);
        }
        Ok(work.made.dir(Dir::new(entries)))
    }
}

/// How one directory is merged into another.
struct Merge<'a> {
    taken: Taken<'a>,
}

impl Merge<'_> {
    fn dir(
        &self,
        work: &mut Work<'_>,
        into: &mut EditDir,
        source: &DirRef,
        path: &mut Vec<FileName>,
    ) -> Result<(), TreeError> {
        let source = work.dir(&source.tree)?;
        for entry in source.entries() {
            path.push(entry.name.clone());
            self.entry(work, into, entry, path)?;
            path.pop();
        }
        Ok(())
    }

    fn entry(
        &self,
        work: &mut Work<'_>,
        into: &mut EditDir,
        entry: &Entry,
        path: &mut Vec<FileName>,
    ) -> Result<(), TreeError> {
        let name = entry.name.as_bytes();
        let found = into.get(name);
        let Node::Dir(source, presence) = &entry.node else {
            if matches!(found, Found::Dir) {
                return Err(TreeError::FileOverDirectory(show(path)));
            }
            into.put(self.taken.leaf(&mut work.made, entry));
            return Ok(());
        };
        match found {
            Found::Other(_) => return Err(TreeError::DirectoryOverFile(show(path))),
            Found::Nothing => {
                let meta = self.taken.rewrite.meta(&entry.meta, &entry.node);
                if !source.summary.marks {
                    let dir = self.taken.whole(work, source)?;
                    let node = Node::Dir(dir, Presence::Merge);
                    into.put(Entry { name: entry.name.clone(), meta, node });
                    return Ok(());
                }
                into.put_dir(entry.name.clone(), meta);
            }
            Found::Dir => {
                let Some(dir) = into.child(work, name)? else { return Ok(()) };
                match presence {
                    // Only on the way to something: the mode is taken, as BuildKit does.
                    Presence::Implicit => {
                        dir.touched |= dir.meta.mode != entry.meta.mode;
                        dir.meta.mode = entry.meta.mode;
                    }
                    _ => {
                        dir.meta = self.taken.rewrite.meta(&entry.meta, &entry.node);
                        dir.touched = true;
                    }
                }
            }
        }
        match into.child(work, name)? {
            Some(dir) => self.dir(work, dir, source, path),
            None => Ok(()),
        }
    }
}

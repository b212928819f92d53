//! ADD of an archive: what it unpacks to, put into a directory of a tree.
//!
//! The rules are those of BuildKit, which unpacks with the destination as the root of all paths
//! (`github.com/moby/go-archive`, `chrootarchive`):
//!
//! * Files and directories take the place of what has their name; a directory is merged with one.
//! * A directory without an entry of its own takes no place: where there is a symlink, what is in it
//!   goes where that leads, inside the destination. When it leads to no directory, or a file is
//!   there, nothing can be unpacked. One that is made is root's, whatever `--chown` says, and
//!   set-group-id where the one above it is.
//! * A hard link gives its metadata to the file that it is a name of. When that is an older file,
//!   its other names stay with the file as it was, as overlayfs leaves them.

use super::apply::implied_meta;
use super::edit::{EditDir, Editor, Found, resolve, show};
use super::graft::{Links, Rewrite, Taken};
use super::mode::SET_GID;
use super::nodes::{TreeError, Work};
use super::parts::{self, HardLink, Part};
use proto::id::RootId;
use proto::limit;
use proto::path::{FileName, clamp};
use proto::tree::{DirRef, Entry, LinkId, Meta, Node, Presence, Xattrs};
use std::collections::VecDeque;

/// Puts an archive into the directory at `base`. `salt` names this unpacking among all of the step.
pub(super) fn unpack(
    editor: &mut Editor<'_>,
    base: &[FileName],
    archive: &RootId,
    rewrite: &Rewrite,
    salt: &[u8],
) -> Result<(), TreeError> {
    let parts = parts::parts(&editor.work, archive)?;
    let waiting = VecDeque::new();
    let mut unpacking = Unpacking { editor, base, rewrite, waiting, looks: LOOKS_MAX };
    for (number, part) in parts.into_iter().enumerate() {
        let salt = [salt, &(number as u64).to_le_bytes()].concat();
        match part {
            Part::Tree(meta, dir) => unpacking.tree(meta, &dir, &salt)?,
            Part::Link(dir) => {
                let link = parts::hard_link(&unpacking.editor.work, &dir)?;
                unpacking.hard_link(&link, &salt)?;
            }
        }
    }
    Ok(())
}

/// An archive on its way into a tree. Paths count from `base`, and have no symlinks in them.
struct Unpacking<'a, 'n> {
    editor: &'a mut Editor<'n>,
    base: &'a [FileName],
    rewrite: &'a Rewrite,
    waiting: VecDeque<ThroughLink>,
    /// How many names may still be looked at for what leads through links.
    looks: u64,
}

/// Names that are looked at for the links of one archive, soft and hard. Each of many links may lead
/// through many directories; no archive that somebody needs comes near.
const LOOKS_MAX: u64 = 100_000_000;

/// A place that no path of the kernel's could name is an error: what walks the tree relies on it.
fn check_depth(path: &[FileName]) -> Result<(), TreeError> {
    if path.len() > limit::TREE_DEPTH_MAX {
        return Err(TreeError::BadPath(show(path), "it is too deep".to_owned()));
    }
    Ok(())
}

/// A directory of the archive with a symlink in its place. It waits until the rest is there: the
/// link may lead to a directory of the archive.
struct ThroughLink {
    at: Vec<FileName>,
    source: DirRef,
    /// The directory's own metadata, when it takes the link's place after all.
    meta: Option<Meta>,
}

impl Unpacking<'_, '_> {
    fn full(&self, path: &[FileName]) -> Vec<FileName> {
        [self.base, path].concat()
    }

    fn tree(&mut self, meta: Option<Meta>, source: &DirRef, salt: &[u8]) -> Result<(), TreeError> {
        let links = Links::of(&self.editor.work, source, salt)?;
        if let Some(meta) = meta {
            *self.editor.meta_mut(self.base)? = self.rewrite.owned(&meta);
        }
        self.merge(&[], source, &links)?;
        while let Some(ThroughLink { at, source, meta }) = self.waiting.pop_front() {
            let to = self.through(&at)?;
            self.merge(&to, &source, &links)?;
            if let (Some(meta), Some((name, above))) = (meta, at.split_last()) {
                let above = self.full(above);
                self.editor.open_dir(&above)?.0.put_dir(name.clone(), meta);
            }
        }
        Ok(())
    }

    fn merge(&mut self, to: &[FileName], source: &DirRef, links: &Links) -> Result<(), TreeError> {
        let taken = Taken { rewrite: self.rewrite, links, devices: true };
        let full = self.full(to);
        check_depth(&full)?;
        let (dir, work) = self.editor.open_dir(&full)?;
        let mut merge = Merge { taken, base: self.base, waiting: &mut self.waiting };
        merge.dir(work, dir, source, &mut to.to_vec())
    }

    /// The directory that a path with a symlink at its end leads to.
    fn through(&mut self, path: &[FileName]) -> Result<Vec<FileName>, TreeError> {
        let shown = show(&self.full(path));
        self.enter(path)?.ok_or(TreeError::BelowLink(shown))
    }

    /// The directory that a path leads to, as a system call finds it: `..` out of what is no
    /// directory leads nowhere. None when there is none.
    fn enter(&mut self, path: &[FileName]) -> Result<Option<Vec<FileName>>, TreeError> {
        let (base, editor, looks) = (self.base, &mut *self.editor, &mut self.looks);
        let mut lost = false;
        let text = path.iter().map(FileName::as_bytes).collect::<Vec<_>>().join(&b'/');
        let found = resolve(&text, |above, name| {
            let full = [base, above, std::slice::from_ref(name)].concat();
            check_depth(&full)?;
            look_at(looks, full.len())?;
            Ok(match editor.look(&full)? {
                Found::Dir => None,
                Found::Nothing => {
                    lost = true;
                    None
                }
                Found::Other(Entry { node, .. }) => {
                    let target = node.symlink().map(<[u8]>::to_vec);
                    lost |= target.is_none();
                    target
                }
            })
        })?;
        Ok((!lost).then_some(found))
    }

    /// The directory for something at this place. What is missing of it is made.
    fn make(&mut self, path: &[FileName]) -> Result<Vec<FileName>, TreeError> {
        let mut at = Vec::new();
        for name in path {
            let above = self.full(&at);
            at.push(name.clone());
            let full = self.full(&at);
            check_depth(&full)?;
            look_at(&mut self.looks, full.len())?;
            match self.editor.look(&full)? {
                Found::Dir => {}
                Found::Nothing => {
                    let (dir, _) = self.editor.open_dir(&above)?;
                    let meta = implied_in(&dir.meta);
                    dir.put_dir(name.clone(), meta);
                }
                Found::Other(Entry { node, .. }) if node.symlink().is_some() => {
                    at = self.through(&at)?
                }
                Found::Other(_) => return Err(TreeError::BelowFile(show(&full))),
            }
        }
        Ok(at)
    }

    fn hard_link(&mut self, link: &HardLink, salt: &[u8]) -> Result<(), TreeError> {
        let bad = |why| {
            let target = String::from_utf8_lossy(&link.target).into_owned();
            let path = show(&link.names).trim_start_matches('/').to_owned();
            TreeError::HardLink { path, target, why }
        };
        let Some((name, above)) = link.names.split_last() else {
            return Err(bad("is a directory"));
        };
        let place = [self.make(above)?, vec![name.clone()]].concat();
        let Some(target) = self.target(&link.target)? else {
            return Err(bad("is neither in the archive before it nor in the destination"));
        };
        if target.starts_with(&place) {
            return Err(bad("it takes the place of"));
        }
        match self.editor.look(&self.full(&target))? {
            Found::Other(file) => self.put_link(&place, &target, &file, &link.meta, salt),
            Found::Dir => Err(bad("is a directory")),
            Found::Nothing => {
                Err(bad("is neither in the archive before it nor in the destination"))
            }
        }
    }

    /// Where a hard link's file is. A link at the end is not followed.
    fn target(&mut self, path: &[u8]) -> Result<Option<Vec<FileName>>, TreeError> {
        let bad = |e: proto::path::NameError| {
            TreeError::BadPath(String::from_utf8_lossy(path).into_owned(), e.to_string())
        };
        let names = clamp(path).into_iter().map(FileName::new);
        let names = names.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let Some((name, above)) = names.split_last() else { return Ok(Some(names)) };
        let above = self.enter(above)?;
        Ok(above.map(|above| [above, vec![name.clone()]].concat()))
    }

    /// Makes one more name of a file. It joins the layer with its other name: both are a new inode.
    fn put_link(
        &mut self,
        place: &[FileName],
        target: &[FileName],
        file: &Entry,
        header: &Meta,
        salt: &[u8],
    ) -> Result<(), TreeError> {
        let meta = linked(file, &self.rewrite.owned(header));
        if meta.xattrs.len() > limit::XATTRS_MAX {
            let what = "it would have too many extended attributes".to_owned();
            return Err(TreeError::BadPath(show(&self.full(place)), what));
        }
        let (Some((name, into)), Some((_, from))) = (place.split_last(), target.split_last())
        else {
            return Ok(());
        };
        let (into, from) = (self.full(into), self.full(from));
        let mut node = file.node.clone();
        let is_new = self.editor.open_dir(&from)?.0.is_new(file.name.as_bytes());
        match node.link() {
            Some(names) if is_new => {
                if meta != file.meta {
                    let (root, work) = self.editor.open_dir(&[])?;
                    let looks = &mut self.looks;
                    root.describe_links(work, names, &meta, &mut |n| look_at(looks, n))?;
                }
            }
            _ => node = node.with_link(Some(LinkId::of(&[salt]))),
        }
        let older = Entry { name: file.name.clone(), meta: meta.clone(), node: node.clone() };
        self.editor.put(&from, older)?;
        self.editor.put(&into, Entry { name: name.clone(), meta, node })
    }
}

/// The metadata of a file that got one more name with `header`. A symlink gets the owner alone.
fn linked(file: &Entry, header: &Meta) -> Meta {
    if file.node.symlink().is_some() {
        return Meta { uid: header.uid, gid: header.gid, ..file.meta.clone() };
    }
    let both = file.meta.xattrs.iter().chain(header.xattrs.iter());
    let xattrs = Xattrs::new(both.map(|(name, value)| (name.to_vec(), value.to_vec())));
    Meta { xattrs, ..header.clone() }
}

/// Takes so many names out of what may still be looked at.
fn look_at(looks: &mut u64, names: usize) -> Result<(), TreeError> {
    *looks = looks.checked_sub(names as u64).ok_or(TreeError::TooManyLooks)?;
    Ok(())
}

/// The metadata of a directory that is made in another one because something lies in it.
fn implied_in(above: &Meta) -> Meta {
    let meta = implied_meta();
    Meta { mode: meta.mode | above.mode & SET_GID, ..meta }
}

/// How one tree of an archive is put into a directory.
struct Merge<'a> {
    taken: Taken<'a>,
    base: &'a [FileName],
    waiting: &'a mut VecDeque<ThroughLink>,
}

impl Merge<'_> {
    fn dir(
        &mut self,
        work: &mut Work<'_>,
        into: &mut EditDir,
        source: &DirRef,
        path: &mut Vec<FileName>,
    ) -> Result<(), TreeError> {
        let source = work.dir(&source.tree)?;
        for entry in source.entries() {
            path.push(entry.name.clone());
            match &entry.node {
                Node::Dir(source, presence) => {
                    self.sub_dir(work, into, entry, source, *presence, path)?;
                }
                _ => into.put(self.taken.leaf(&mut work.made, entry)),
            }
            path.pop();
        }
        Ok(())
    }

    fn sub_dir(
        &mut self,
        work: &mut Work<'_>,
        into: &mut EditDir,
        entry: &Entry,
        source: &DirRef,
        presence: Presence,
        path: &mut Vec<FileName>,
    ) -> Result<(), TreeError> {
        if self.base.len() + path.len() > limit::TREE_DEPTH_MAX {
            check_depth(&[self.base, path].concat())?;
        }
        let meta = (presence != Presence::Implicit)
            .then(|| self.taken.rewrite.meta(&entry.meta, &entry.node));
        match into.get(entry.name.as_bytes()) {
            Found::Other(there) if presence != Presence::Merge => {
                let Some(_) = there.node.symlink() else {
                    return Err(TreeError::BelowFile(show(&[self.base, path].concat())));
                };
                self.waiting.push_back(ThroughLink { at: path.clone(), source: *source, meta });
                return Ok(());
            }
            Found::Nothing | Found::Other(_) => {
                let meta = meta.unwrap_or_else(|| implied_in(&into.meta));
                if !source.summary.marks {
                    let dir = self.taken.whole(work, source)?;
                    let node = Node::Dir(dir, Presence::Merge);
                    into.put(Entry { name: entry.name.clone(), meta, node });
                    return Ok(());
                }
                into.put_dir(entry.name.clone(), meta);
            }
            Found::Dir => {
                let Some(dir) = into.child(work, entry.name.as_bytes())? else { return Ok(()) };
                if let Some(meta) = meta {
                    (dir.meta, dir.touched) = (meta, true);
                }
            }
        }
        match into.child(work, entry.name.as_bytes())? {
            Some(dir) => self.dir(work, dir, source, path),
            None => Ok(()),
        }
    }
}

//! What a COPY, an ADD or a bind mount takes from a tree.

use super::edit::resolve;
use super::glob::{self, Glob};
use super::nodes::{DirNode, Made, Nodes, TreeError, Work, dir, root};
use super::pattern::{Level, Patterns};
use proto::canon;
use proto::id::{ContentDigest, RootId};
use proto::path::FileName;
use proto::step::{CopySource, Unpack};
use proto::tree::{Dir, DirRef, Entry, Meta, Mtime, Node, Presence, Root, content_digest};

/// What was selected, in order, and the nodes that had to be made for it.
#[derive(Debug, Default)]
pub struct Selection {
    /// The files and directories.
    pub items: Vec<Item>,
    /// Nodes of directories of which only a part was selected.
    pub made: Made,
}

/// One selected file or directory.
#[derive(Debug)]
pub struct Item {
    /// The path that led to it; links on it are not followed. Empty for the root.
    pub path: Vec<FileName>,
    /// What it is.
    pub picked: Picked,
    /// What it unpacks to, when it is an archive that is to be unpacked.
    pub archive: Option<RootId>,
}

impl Item {
    /// The name that it gets inside a directory. None for the root.
    pub fn name(&self) -> Option<&FileName> {
        self.path.last()
    }
}

/// A selected thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picked {
    /// A directory.
    Dir(Meta, DirRef),
    /// Anything else.
    Leaf(Meta, Node),
}

impl Picked {
    fn digest(&self) -> ContentDigest {
        match self {
            Self::Dir(meta, dir) => content_digest(meta, &Node::Dir(*dir, Presence::Merge)),
            Self::Leaf(meta, node) => content_digest(meta, node),
        }
    }
}

impl Selection {
    /// What stands for the selection in keys: names, owners, modes and bytes, but no times.
    pub fn digest(&self) -> ContentDigest {
        ContentDigest::from_bytes(canon::hash("slipway 2026-11 selection", |c| {
            c.list(self.items.iter(), |c, item| {
                c.option(item.name(), |c, name| {
                    c.bytes(name.as_bytes());
                });
                c.bool(item.archive.is_some()).hash32(item.picked.digest().as_bytes());
            });
        }))
    }
}

/// A tree that is only read.
struct View<'n> {
    nodes: &'n dyn Nodes,
    root: Root,
}

impl View<'_> {
    fn look(&self, path: &[FileName]) -> Result<Option<Picked>, TreeError> {
        let mut at = Picked::Dir(self.root.meta.clone(), self.root.dir);
        for name in path {
            let Picked::Dir(_, here) = at else { return Ok(None) };
            let here = dir(self.nodes, &here.tree)?;
            let Some(entry) = here.get(name.as_bytes()) else { return Ok(None) };
            at = match entry.node {
                Node::Dir(dir, _) => Picked::Dir(entry.meta.clone(), dir),
                ref node => Picked::Leaf(entry.meta.clone(), node.clone()),
            };
        }
        Ok(Some(at))
    }

    /// Follows all symlinks inside the root, the last one too.
    fn follow(&self, path: &[u8]) -> Result<Vec<FileName>, TreeError> {
        resolve(path, |at, name| {
            let mut full = at.to_vec();
            full.push(name.clone());
            Ok(match self.look(&full)? {
                Some(Picked::Leaf(_, node)) => node.symlink().map(<[u8]>::to_vec),
                _ => None,
            })
        })
    }

    /// Makes sure that `path`, which is kept below `pivot`, is there, and that neither the pivot nor a
    /// directory of the path is a symlink: there would be nothing to keep behind it. The path may end
    /// with one, wherever it leads, and above the pivot links are followed.
    fn is_there(&self, pivot: &[u8], path: &[u8]) -> Result<(), TreeError> {
        let (before, names) = (self::names(pivot), names(path));
        let shown = |names: &[FileName]| {
            let all = before.iter().chain(names);
            all.map(FileName::to_string).collect::<Vec<_>>().join("/")
        };
        let mut at = Vec::new();
        if let Some((last, above)) = before.split_last() {
            let above: Vec<&[u8]> = above.iter().map(FileName::as_bytes).collect();
            at = self.follow(&join(&above))?;
            at.push(last.clone());
            if let Some(Picked::Leaf(_, node)) = self.look(&at)?
                && node.symlink().is_some()
            {
                return Err(TreeError::BehindLink { path: shown(&names), link: shown(&[]) });
            }
        }
        for (depth, name) in names.iter().enumerate() {
            at.push(name.clone());
            let last = depth + 1 == names.len();
            match self.look(&at)? {
                Some(Picked::Leaf(_, node)) if !last && node.symlink().is_some() => {
                    let (path, link) = (shown(&names), shown(&names[..=depth]));
                    return Err(TreeError::BehindLink { path, link });
                }
                Some(Picked::Leaf(..)) if !last => {
                    return Err(TreeError::NotADirectory(shown(&names[..=depth])));
                }
                Some(_) => {}
                None => return Err(TreeError::NotFound(shown(&names))),
            }
        }
        Ok(())
    }

    /// Makes sure that no link of a directory that is part of the root leads nowhere.
    fn links_lead_somewhere(&self, work: &Work<'_>, dir: &DirRef) -> Result<(), TreeError> {
        for entry in work.dir(&dir.tree)?.entries() {
            if entry.node.symlink().is_some()
                && self.look(&self.follow(entry.name.as_bytes())?)?.is_none()
            {
                return Err(TreeError::Dangling(entry.name.to_string()));
            }
        }
        Ok(())
    }

    /// What the path leads to.
    fn pick(&self, path: &[u8]) -> Result<Picked, TreeError> {
        let not_found = || TreeError::NotFound(String::from_utf8_lossy(path).into_owned());
        self.look(&self.follow(path)?)?.ok_or_else(not_found)
    }

    /// The paths that a pattern stands for, in the order of a walk. A path without wildcards
    /// stands for itself, whether it is there or not. What is no pattern is an error, or when that
    /// is not checked it stands for nothing.
    fn expand(&self, path: &[u8], checked: bool) -> Result<Vec<Vec<u8>>, TreeError> {
        let (base, pattern) = glob::split(path);
        let Some(pattern) = pattern else { return Ok(vec![[b"/", base.as_slice()].concat()]) };
        let glob = match Glob::new(&pattern) {
            Ok(glob) => Some(glob),
            Err(why) if checked => {
                let shown = String::from_utf8_lossy(path).into_owned();
                return Err(TreeError::BadPattern(shown, why.to_string()));
            }
            Err(_) => None,
        };
        let at = self.follow(&base)?;
        let start = match self.look(&at)? {
            Some(Picked::Dir(_, start)) => dir(self.nodes, &start.tree)?,
            Some(Picked::Leaf(..)) => return Ok(Vec::new()),
            None => {
                return Err(TreeError::NotFound(String::from_utf8_lossy(&base).into_owned()));
            }
        };
        let Some(glob) = glob else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        self.walk(&start, &glob, &mut Vec::new(), &mut found)?;
        Ok(found.into_iter().map(|path| [b"/", base.as_slice(), b"/", &path].concat()).collect())
    }

    fn walk(
        &self,
        here: &DirNode,
        glob: &Glob,
        path: &mut Vec<u8>,
        found: &mut Vec<Vec<u8>>,
    ) -> Result<(), TreeError> {
        for entry in here.entries() {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            if glob.matches(path) {
                found.push(path.clone());
            } else if let Some(sub) = entry.as_dir().filter(|_| glob.may_match_below(path)) {
                self.walk(&dir(self.nodes, &sub.tree)?, glob, path, found)?;
            }
            path.truncate(length);
        }
        Ok(())
    }
}

/// The names of a path that leads somewhere.
fn names(path: &[u8]) -> Vec<FileName> {
    let parts = proto::path::clamp(path).into_iter();
    parts.filter_map(|name| FileName::new(name).ok()).collect()
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// What a source of COPY or ADD stands for in a tree. Empty when a pattern matches nothing, or when
/// what is named is not there and that is not checked.
pub fn select(
    nodes: &dyn Nodes,
    source: &RootId,
    what: &CopySource,
    parents: bool,
    exclude: &[String],
) -> Result<Selection, TreeError> {
    let view = View { nodes, root: root(nodes, source)? };
    let mut filter = Filter { include: None, exclude: patterns(exclude)? };
    let mut path = what.path.as_bytes().to_vec();
    let mut named = Vec::new();
    if parents {
        let (pivot, pattern) = split_pivot(&path);
        let pattern = join(&proto::path::clamp(pattern));
        if what.checked && !glob::has_wildcards(pivot) && !glob::has_wildcards(&pattern) {
            view.is_there(pivot, &pattern)?;
            named = names(&pattern);
            if named.is_empty() {
                return Err(TreeError::NothingNamed(what.path.clone()));
            }
        }
        filter.include = patterns(&[String::from_utf8_lossy(&pattern[1..]).into_owned()])?;
        path = pivot.to_vec();
    }
    let paths = if what.pattern { view.expand(&path, what.checked)? } else { vec![path] };
    let mut work = Work::new(nodes);
    let mut items = Vec::new();
    for path in paths {
        let mut picked = view.pick(&path)?;
        let mut archive = None;
        if let (Picked::Leaf(_, Node::File { blob, .. }), Unpack::IfArchive) =
            (&picked, what.unpack)
        {
            archive = nodes.archive(blob)?;
        }
        if let (Picked::Dir(_, dir), false) = (&mut picked, filter.is_none()) {
            *dir = filter.root(&mut work, dir)?;
            if !is_in(&work, dir, &named)? {
                let path = what.path.clone();
                return Err(TreeError::Excluded(path));
            }
            if what.checked && what.pattern && names(&path).is_empty() {
                view.links_lead_somewhere(&work, dir)?;
            }
        }
        items.push(Item { path: names(&path), picked, archive });
    }
    Ok(Selection { items, made: work.made })
}

/// Whether a directory has something at a path.
fn is_in(work: &Work<'_>, dir: &DirRef, path: &[FileName]) -> Result<bool, TreeError> {
    let mut at = Some(*dir);
    for name in path {
        let Some(here) = at else { return Ok(false) };
        match work.dir(&here.tree)?.get(name.as_bytes()) {
            Some(entry) => at = entry.as_dir().copied(),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// `a/./b` is split at the dot; without one all of the path is kept.
fn split_pivot(path: &[u8]) -> (&[u8], &[u8]) {
    match path.windows(3).position(|w| w == b"/./") {
        Some(at) => (&path[..at.max(1)], &path[at + 3..]),
        None => (b"/", path),
    }
}

/// What a bind mount shows: a root of its own with just that, and the digest that stands for it.
pub fn bind(
    nodes: &dyn Nodes,
    source: &RootId,
    path: &[u8],
) -> Result<(Bound, ContentDigest, Made), TreeError> {
    let view = View { nodes, root: root(nodes, source)? };
    let picked = view.pick(path)?;
    let digest = picked.digest();
    let mut made = Made::default();
    let bound = match picked {
        Picked::Dir(meta, dir) => {
            Bound::Dir(made.root(&Root { meta, dir, presence: Presence::Merge }))
        }
        Picked::Leaf(meta, node) => {
            let name = FileName::new(b"file").expect("a plain name");
            let dir = made.dir(Dir::new(vec![Entry { name, meta, node }]));
            let meta = Meta::root_owned(0o755, Mtime::default());
            Bound::File(made.root(&Root { meta, dir, presence: Presence::Merge }))
        }
    };
    Ok((bound, digest, made))
}

/// A tree that holds just what a bind mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The root itself.
    Dir(RootId),
    /// The one entry of the root, named `file`.
    File(RootId),
}

fn patterns(texts: &[String]) -> Result<Option<Patterns>, TreeError> {
    if texts.is_empty() {
        return Ok(None);
    }
    let bad =
        |e: super::pattern::PatternError| TreeError::BadPattern(texts.join(" "), e.to_string());
    Patterns::new(texts).map(Some).map_err(bad)
}

/// Takes a part of a directory.
struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

/// How far the patterns have come in the directory that is walked.
struct Above {
    include: Option<Level>,
    exclude: Option<Level>,
}

impl Filter {
    fn is_none(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    fn root(&self, work: &mut Work<'_>, source: &DirRef) -> Result<DirRef, TreeError> {
        let above = Above {
            include: self.include.as_ref().map(Patterns::root),
            exclude: self.exclude.as_ref().map(Patterns::root),
        };
        let kept = self.dir(work, source, &above)?;
        Ok(kept.unwrap_or_else(|| work.made.dir(Dir::default())))
    }

    /// What is kept of a directory; `None` when nothing is.
    fn dir(
        &self,
        work: &mut Work<'_>,
        source: &DirRef,
        above: &Above,
    ) -> Result<Option<DirRef>, TreeError> {
        let mut kept = Vec::new();
        for entry in work.dir(&source.tree)?.entries() {
            kept.extend(self.entry(work, entry, above)?);
        }
        Ok((!kept.is_empty()).then(|| work.made.dir(Dir::new(kept))))
    }

    fn entry(
        &self,
        work: &mut Work<'_>,
        entry: &Entry,
        above: &Above,
    ) -> Result<Option<Entry>, TreeError> {
        let name = entry.name.as_bytes();
        let include = self.include.as_ref().zip(above.include.as_ref());
        let exclude = self.exclude.as_ref().zip(above.exclude.as_ref());
        let Some(source) = entry.as_dir() else {
            let included = include.is_none_or(|(patterns, above)| patterns.file(above, name));
            let excluded = exclude.is_some_and(|(patterns, above)| patterns.file(above, name));
            return Ok((included && !excluded).then(|| entry.clone()));
        };
        let include = include.map(|(patterns, above)| patterns.directory(above, name));
        let exclude = exclude.map(|(patterns, above)| patterns.directory(above, name));
        let excluded = exclude.as_ref().is_some_and(Level::is_match);
        let keep = include.as_ref().is_none_or(Level::is_match) && !excluded;
        let exceptions = self.exclude.as_ref().is_some_and(Patterns::has_exceptions);
        let inside = if excluded && !exceptions {
            None
        } else {
            self.dir(work, source, &Above { include, exclude })?
        };
        // A directory that is only on the way to something is made when it is not there, but does
        // not change one that is.
        let (dir, presence) = match (inside, keep) {
            (Some(dir), true) => (dir, Presence::Merge),
            (Some(dir), false) => (dir, Presence::Implicit),
            (None, true) => (work.made.dir(Dir::default()), Presence::Merge),
            (None, false) => return Ok(None),
        };
        Ok(Some(Entry { node: Node::Dir(dir, presence), ..entry.clone() }))
    }
}

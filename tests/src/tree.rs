//! Directory trees as values: of a directory, or of an image's layers. Times are left out.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Marks a deleted entry in a layer (OCI image specification, "Whiteouts").
const WHITEOUT: &str = ".wh.";
/// Marks a directory whose entries in lower layers are hidden.
const OPAQUE: &str = ".wh..wh..opq";
/// What an extended attribute is called in an archive.
const XATTR: &str = "SCHILY.xattr.";

/// What something in a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its size in bytes.
        size: u64,
        /// The SHA-256 of its content, in hexadecimal.
        sha256: String,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        to: String,
    },
    /// A character or block device, by what it is and its numbers.
    Device(char, u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Something in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permissions and the set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Extended attributes, in hexadecimal.
    pub xattrs: BTreeMap<String, String>,
}

/// Everything below a root, by its path without a leading `/`. The root itself is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(pub BTreeMap<String, Entry>);

impl Tree {
    /// What is below a directory. Extended attributes are not read.
    pub fn of_directory(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut next = vec![root.to_owned()];
        while let Some(directory) = next.pop() {
            let entries = fs::read_dir(&directory)
                .unwrap_or_else(|e| panic!("reading {}: {e}", directory.display()));
            for entry in entries.map(|entry| entry.expect("reading a directory")) {
                let path = entry.path();
                let found = on_disk(&path);
                if found.kind == Kind::Directory {
                    next.push(path.clone());
                }
                let name = path.strip_prefix(root).expect("a path below the root");
                tree.0.insert(text(name.as_os_str().as_bytes()), found);
            }
        }
        tree
    }

    /// What a plain archive holds: nothing in it stands for a deletion.
    pub fn of_archive(archive: impl Read) -> Self {
        let mut tree = Self::default();
        tree.add(archive, false);
        tree
    }

    /// Lays a layer over the tree.
    pub fn apply(&mut self, layer: impl Read) {
        self.add(layer, true);
    }

    fn add(&mut self, archive: impl Read, whiteouts: bool) {
        let mut archive = tar::Archive::new(archive);
        let mut added = BTreeMap::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry of an archive");
            let path = text(&entry.path_bytes());
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() || path == "." {
                continue;
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if whiteouts && name == OPAQUE {
                self.clear(parent);
            } else if let (true, Some(gone)) = (whiteouts, name.strip_prefix(WHITEOUT)) {
                self.remove(&join(parent, gone));
            } else {
                let found =
                    in_archive(&mut entry, |to| added.get(to).or_else(|| self.0.get(to)).cloned());
                if found.kind != Kind::Directory {
                    self.clear(&path);
                }
                added.insert(path, found);
            }
        }
        self.0.append(&mut added);
    }

    fn clear(&mut self, directory: &str) {
        let below = format!("{directory}/");
        self.0.retain(|path, _| !path.starts_with(&below) && !directory.is_empty());
    }

    fn remove(&mut self, path: &str) {
        self.clear(path);
        self.0.remove(path);
    }

    /// What is at a path. Panics when there is nothing.
    #[track_caller]
    pub fn entry(&self, path: &str) -> &Entry {
        let near = || self.0.keys().filter(|p| p.contains(path)).take(5).cloned().collect();
        self.0.get(path).unwrap_or_else(|| {
            let near: Vec<String> = near();
            panic!("there is no `{path}` among {} entries; near: {near:?}", self.0.len())
        })
    }

    /// Whether there is something at a path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        let size = |entry: &Entry| match &entry.kind {
            Kind::File { size, .. } => *size,
            _ => 0,
        };
        self.0.values().map(size).sum()
    }

    /// The part below a directory, as if that was the root.
    pub fn below(&self, directory: &str) -> Self {
        let prefix = format!("{directory}/");
        let inside = |(path, entry): (&String, &Entry)| {
            Some((path.strip_prefix(&prefix)?.to_owned(), entry.clone()))
        };
        Self(self.0.iter().filter_map(inside).collect())
    }

    /// The same with everything owned by root: what outputs that keep no owners compare as.
    pub fn without_owners(mut self) -> Self {
        self.0.values_mut().for_each(|entry| (entry.uid, entry.gid) = (0, 0));
        self
    }

    /// What differs from another tree, for people; empty when nothing does.
    pub fn differences(&self, other: &Self) -> String {
        const SHOWN: usize = 12;
        let mut out = String::new();
        let paths = self.0.keys().chain(other.0.keys().filter(|path| !self.has(path)));
        let differ: Vec<_> = paths.filter(|p| self.0.get(*p) != other.0.get(*p)).collect();
        for path in differ.iter().take(SHOWN) {
            let (one, two) = (self.0.get(*path), other.0.get(*path));
            let _ = writeln!(out, "{path}:\n  {}\n  {}", show(one), show(two));
        }
        if differ.len() > SHOWN {
            let _ = writeln!(out, "and {} more", differ.len() - SHOWN);
        }
        out
    }

    /// Fails the test when another tree is not the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        let differences = self.differences(other);
        assert!(differences.is_empty(), "{what} differ:\n{differences}");
    }
}

fn show(entry: Option<&Entry>) -> String {
    entry.map_or("absent".to_owned(), |entry| format!("{entry:?}"))
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn on_disk(path: &Path) -> Entry {
    let about = fs::symlink_metadata(path).expect("something that was just listed");
    let kind = about.file_type();
    let numbers = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Kind::File { size: about.len(), sha256: sha256(file) }
    } else if kind.is_symlink() {
        let to = fs::read_link(path).expect("a symbolic link");
        Kind::Symlink { to: text(&to.into_os_string().into_vec()) }
    } else if kind.is_char_device() {
        Kind::Device('c', numbers.0, numbers.1)
    } else if kind.is_block_device() {
        Kind::Device('b', numbers.0, numbers.1)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    };
    let mode = about.mode() & 0o7777;
    Entry { kind, mode, uid: about.uid(), gid: about.gid(), xattrs: BTreeMap::new() }
}

fn in_archive(
    entry: &mut tar::Entry<'_, impl Read>,
    find: impl Fn(&str) -> Option<Entry>,
) -> Entry {
    let header = entry.header().clone();
    let link = entry.link_name_bytes().map(|link| text(&link)).unwrap_or_default();
    let numbers = (
        header.device_major().ok().flatten().unwrap_or_default(),
        header.device_minor().ok().flatten().unwrap_or_default(),
    );
    let mut xattrs = BTreeMap::new();
    for extension in entry.pax_extensions().ok().flatten().into_iter().flatten() {
        let extension = extension.expect("a valid extended header");
        let name = extension.key().expect("a name in UTF-8").strip_prefix(XATTR);
        if let Some(name) = name {
            xattrs.insert(name.to_owned(), hex(extension.value_bytes()));
        }
    }
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink { to: link },
        tar::EntryType::Char => Kind::Device('c', numbers.0, numbers.1),
        tar::EntryType::Block => Kind::Device('b', numbers.0, numbers.1),
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Link => {
            let to = link.trim_start_matches("./").trim_matches('/');
            return find(to).unwrap_or_else(|| panic!("a hard link to `{to}`, which is not there"));
        }
        _ => Kind::File { size: entry.size(), sha256: sha256(&mut *entry) },
    };
    let mode = header.mode().expect("a mode") & 0o7777;
    let owner = |id: std::io::Result<u64>| id.expect("an owner") as u32;
    Entry { kind, mode, uid: owner(header.uid()), gid: owner(header.gid()), xattrs }
}

/// The SHA-256 of all that can be read, in hexadecimal.
pub fn sha256(mut from: impl Read) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer).expect("reading something to hash") {
            0 => return hex(&hash.finalize()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

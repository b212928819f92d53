//! What of a step's change the archive of its layer lists, as BuildKit does.
//!
//! BuildKit compares what a step left with what was there by metadata, as `sameDirent` in its
//! `util/overlay` does: kind, mode, owner, group, capabilities, and for what is no directory size and
//! time. Bytes it compares only when the times are in whole seconds, for then they may have been cut
//! off. What is the same by that is not in the archive, whatever its bytes are; steps to come on the
//! same machine see it all the same. Such changes are [unlisted](proto::tree::Node::Unlisted).

use proto::path::FileName;
use proto::tree::{CAPABILITY, Entry, LinkId, Meta, Mtime, Node, Presence, Unlisted};

/// What something that is no directory does to what is below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is the same file, with these other names.
    Names(Option<LinkId>),
    /// It takes its place, but not in the archive of the layer.
    Unlisted(Unlisted),
    /// It takes its place.
    All,
}

/// What an entry does to the one below.
pub fn change(entry: &Entry, below_meta: &Meta, below: &Node) -> Change {
    let same_meta = entry.meta == *below_meta;
    match (&entry.node, below) {
        (Node::Dir(..) | Node::Whiteout | Node::Relink(_) | Node::Unlisted(_), _) => Change::All,
        (node, below) if same_meta && alone(node) == alone(below) => {
            match (node.link(), below.link()) {
                (None, None) => Change::None,
                // The same group too: those of its names that were elsewhere are here now.
                (link, _) => Change::Names(link),
            }
        }
        (Node::File { blob, size, link }, Node::File { blob: old, size: old_size, .. })
            if size == old_size =>
        {
            if is_taken_for_same(&entry.meta, below_meta, blob == old) {
                Change::Unlisted(Unlisted::File { blob: *blob, size: *size, link: *link })
            } else {
                Change::All
            }
        }
        (node, below) => match (node.symlink(), below.symlink()) {
            (Some(target), Some(old))
                if target.len() == old.len()
                    && is_taken_for_same(&entry.meta, below_meta, target == old) =>
            {
                Change::Unlisted(Unlisted::Symlink(target.to_vec()))
            }
            _ => Change::All,
        },
    }
}

fn alone(node: &Node) -> Node {
    node.clone().with_link(None)
}

/// Whether bytes are lost to images when a change is unlisted, and not an attribute alone.
pub fn is_lost(what: &Unlisted, below: &Node) -> bool {
    match (what, below) {
        (Unlisted::File { blob, .. }, Node::File { blob: old, .. }) => blob != old,
        (Unlisted::Symlink(target), below) => below.symlink() != Some(target),
        _ => true,
    }
}

/// The entry of a file that only gets other names.
pub fn relink(name: FileName, link: Option<LinkId>) -> Entry {
    Entry { name, meta: Meta::root_owned(0, Mtime::default()), node: Node::Relink(link) }
}

/// How a layer names a directory that lies upon one, with `entries` changed in it; none when it
/// changes nothing.
pub fn presence(meta: &Meta, below: &Meta, entries: &[Entry]) -> Option<Presence> {
    if !is_alike(meta, below) || entries.iter().any(is_listed) {
        Some(Presence::Merge)
    } else if meta != below {
        Some(Presence::Unlisted)
    } else {
        (!entries.is_empty()).then_some(Presence::Implicit)
    }
}

/// Whether the archive of a layer holds anything of an entry that [`change`] and [`presence`] made.
fn is_listed(entry: &Entry) -> bool {
    match &entry.node {
        Node::Relink(_) | Node::Unlisted(_) => false,
        node if node.is_socket() => false,
        Node::Dir(_, presence) => matches!(presence, Presence::Merge | Presence::Opaque),
        _ => true,
    }
}

fn is_taken_for_same(meta: &Meta, below: &Meta, same_bytes: bool) -> bool {
    let is_cut_off = meta.mtime.nanos == 0;
    is_alike(meta, below) && meta.mtime == below.mtime && (same_bytes || !is_cut_off)
}

fn is_alike(a: &Meta, b: &Meta) -> bool {
    let capability = |meta: &Meta| {
        meta.xattrs.iter().find(|(name, _)| *name == CAPABILITY).map(|(_, v)| v.to_vec())
    };
    (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && capability(a) == capability(b)
}

/// How many files are named of those whose change no image gets.
const NAMED: usize = 10;

/// Files and links that a step changed without their change being in any image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    count: usize,
    /// The first ones by name; more of them than are named for a while.
    first: Vec<Vec<u8>>,
}

impl Missed {
    /// Adds one, by its path from `/` on.
    pub fn add(&mut self, path: Vec<u8>) {
        self.count += 1;
        self.first.push(path);
        if self.first.len() > 2 * NAMED {
            self.first.sort_unstable();
            self.first.truncate(NAMED);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the person is told; nothing when there are none. `mask` takes secrets out of a path.
    pub fn warning(mut self, mask: impl Fn(&[u8]) -> Vec<u8>) -> Option<String> {
        self.first.sort_unstable();
        let shown = |path: &Vec<u8>| {
            let path = String::from_utf8_lossy(&mask(path)).into_owned();
            let escaped = |c: char| match c.is_control() {
                true => c.escape_default().collect(),
                false => String::from(c),
            };
            path.chars().map(escaped).collect()
        };
        let named: Vec<String> = self.first.iter().take(NAMED).map(shown).collect();
        let others = match self.count.checked_sub(named.len())? {
            0 if named.is_empty() => return None,
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = named.join(", ");
        Some(format!(
            "warning: images are made without this step's change of {named}{others}: neither size nor \
             time changed, and BuildKit leaves such changes out of layers. Only later steps of this \
             build see it. Let the time change too (touch).\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::BlobId;
    use proto::tree::{Xattrs, empty_dir};

    fn meta(nanos: u32) -> Meta {
        Meta::root_owned(0o644, Mtime { seconds: 5, nanos })
    }

    fn file(text: &str) -> Node {
        Node::File { blob: BlobId::of(text.as_bytes()), size: text.len() as u64, link: None }
    }

    fn entry(meta: Meta, node: Node) -> Entry {
        Entry { name: FileName::new(b"f").unwrap(), meta, node }
    }

    fn with(meta: Meta, name: &[u8]) -> Meta {
        Meta { xattrs: Xattrs::new([(name.to_vec(), b"v".to_vec())]), ..meta }
    }

    #[test]
    fn bytes_count_when_size_or_time_differ_or_the_time_is_cut_off() {
        let unlisted = |text| match file(text) {
            Node::File { blob, size, link } => {
                Change::Unlisted(Unlisted::File { blob, size, link })
            }
            _ => unreachable!("a file"),
        };
        let symlink = |target: &str| Node::Symlink(target.into());
        let kept = Change::Unlisted(Unlisted::Symlink(b"bb".to_vec()));
        let group = LinkId::of(&[b"g"]);
        let linked = |node: Node| node.with_link(Some(group));
        let attribute = with(meta(0), b"user.x");
        let capable = with(meta(7), CAPABILITY);
        let other_mode = Meta { mode: 0o600, ..meta(7) };
        for (case, now, below, want) in [
            ("socket", (meta(7), Node::Socket), (meta(8), Node::Socket), Change::All),
            ("equal", (meta(7), file("aa")), (meta(7), file("aa")), Change::None),
            ("bytes", (meta(7), file("bb")), (meta(7), file("aa")), unlisted("bb")),
            ("cut off", (meta(0), file("bb")), (meta(0), file("aa")), Change::All),
            ("time", (meta(8), file("bb")), (meta(7), file("aa")), Change::All),
            ("time alone", (meta(8), file("aa")), (meta(7), file("aa")), Change::All),
            ("size", (meta(7), file("b")), (meta(7), file("aa")), Change::All),
            ("mode", (other_mode, file("bb")), (meta(7), file("aa")), Change::All),
            ("capability", (capable, file("aa")), (meta(7), file("aa")), Change::All),
            ("attribute", (attribute, file("aa")), (meta(0), file("aa")), unlisted("aa")),
            ("target", (meta(7), symlink("bb")), (meta(7), symlink("aa")), kept.clone()),
            ("cut target", (meta(0), symlink("bb")), (meta(0), symlink("aa")), Change::All),
            ("kind", (meta(7), symlink("aa")), (meta(7), file("aa")), Change::All),
            (
                "named",
                (meta(7), linked(Node::Fifo)),
                (meta(7), Node::Fifo),
                Change::Names(Some(group)),
            ),
            ("no other", (meta(7), Node::Fifo), (meta(7), linked(Node::Fifo)), Change::Names(None)),
            ("cut link", (meta(7), linked(symlink("bb"))), (meta(7), symlink("aa")), kept.clone()),
            ("pipe", (meta(7), Node::Fifo), (meta(7), Node::Fifo), Change::None),
            ("device", (meta(7), Node::Char(1, 3)), (meta(7), Node::Char(1, 5)), Change::All),
        ] {
            assert_eq!(change(&entry(now.0, now.1), &below.0, &below.1), want, "{case}");
        }
    }

    #[test]
    fn of_many_the_first_are_named() {
        assert_eq!(Missed::default().warning(<[u8]>::to_vec), None);
        let mut odd = Missed::default();
        odd.add("/ü\n\x1b[31m hunter2".into());
        let masked = |path: &[u8]| String::from_utf8_lossy(path).replace("hunter2", "****").into();
        let said = odd.warning(masked).unwrap();
        assert!(said.contains(r" of /ü\n\u{1b}[31m ****: neither"), "{said}");
        let warning = |count: u32| {
            let mut missed = Missed::default();
            (0..count).rev().for_each(|n| missed.add(format!("/f{n:04}").into_bytes()));
            missed.warning(<[u8]>::to_vec).unwrap()
        };
        assert!(warning(1).contains(" of /f0000: neither"), "{}", warning(1));
        let named =
            "/f0000, /f0001, /f0002, /f0003, /f0004, /f0005, /f0006, /f0007, /f0008, /f0009";
        assert!(warning(10).contains(&format!(" of {named}: neither")), "{}", warning(10));
        assert!(
            warning(1000).contains(&format!(" of {named} and 990 more: ")),
            "{}",
            warning(1000)
        );
    }

    #[test]
    fn directories_are_listed_for_what_they_are_or_hold() {
        let dir = |presence| entry(meta(0), Node::Dir(empty_dir().dir, presence));
        let kept = entry(meta(7), Node::Unlisted(Unlisted::Symlink(b"x".to_vec())));
        let names = entry(meta(0), Node::Relink(None));
        let socket = entry(meta(7), Node::Socket);
        let quiet = [dir(Presence::Implicit), dir(Presence::Unlisted), kept, names, socket];
        let later = meta(9);
        assert_eq!(presence(&meta(7), &meta(7), &[]), None);
        assert_eq!(presence(&meta(7), &meta(7), &quiet), Some(Presence::Implicit));
        assert_eq!(presence(&later, &meta(7), &[]), Some(Presence::Unlisted));
        assert_eq!(presence(&later, &meta(7), &quiet), Some(Presence::Unlisted));
        let attribute = with(meta(7), b"user.x");
        assert_eq!(presence(&attribute, &meta(7), &[]), Some(Presence::Unlisted));
        let loud =
            [entry(meta(7), file("a")), dir(Presence::Merge), entry(meta(0), Node::Whiteout)];
        for one in loud {
            assert_eq!(presence(&later, &meta(7), &[one]), Some(Presence::Merge));
        }
        let other = Meta { gid: 5, ..meta(7) };
        assert_eq!(presence(&other, &meta(7), &[]), Some(Presence::Merge));
    }
}

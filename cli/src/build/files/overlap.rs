//! Several platforms in one directory: no file of one may take the place of another's.

use super::{nodes, top};
use cache::cluster::Cluster;
use proto::error::{Class, Failure};
use proto::id::TreeId;
use proto::platform::Platform;
use proto::tree::{AnyNode, DirRef, Node};
use proto::wire::build::FilesRoot;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// What a name is in one of the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    Other,
}

/// Refuses trees that have files of the same name, be they the same or not: before anything is
/// written.
pub(super) async fn check(
    blobs: &Arc<Cluster>,
    roots: &[FilesRoot],
    dest: &Path,
) -> Result<(), Failure> {
    let mut found = Names::default();
    for FilesRoot { platform, root, .. } in roots {
        let dir = top(blobs, root).await?.dir;
        let names = names(&nodes(blobs, dir).await?, dir);
        found.add(platform, names).map_err(|clash| clash.failure(dest))?;
    }
    Ok(())
}

/// All names of a tree, sorted.
fn names(nodes: &HashMap<TreeId, Arc<AnyNode>>, top: DirRef) -> Vec<(Vec<u8>, What)> {
    let mut names = Vec::new();
    let mut dirs = vec![(Vec::new(), top)];
    while let Some((above, dir)) = dirs.pop() {
        let Some(AnyNode::Dir(entries)) = nodes.get(&dir.tree).map(|node| &**node) else {
            continue;
        };
        for entry in entries.entries() {
            let path = [&above[..], entry.name.as_bytes()].concat();
            match &entry.node {
                Node::Dir(dir, _) => {
                    dirs.push(([&path[..], b"/"].concat(), *dir));
                    names.push((path, What::Directory));
                }
                Node::Whiteout | Node::Relink(_) | Node::Unlisted(_) => {}
                _ => names.push((path, What::Other)),
            }
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    names
}

/// The names of the trees so far, with the platform that each came from first.
#[derive(Default)]
struct Names<'p>(HashMap<Vec<u8>, (What, &'p Platform)>);

impl<'p> Names<'p> {
    fn add(&mut self, platform: &'p Platform, names: Vec<(Vec<u8>, What)>) -> Result<(), Clash> {
        for (path, what) in names {
            let (known, first) = *self.0.entry(path.clone()).or_insert((what, platform));
            if first != platform && (known, what) != (What::Directory, What::Directory) {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Err(Clash { path, first: first.to_string(), second: platform.to_string() });
            }
        }
        Ok(())
    }
}

/// A name that two platforms have.
#[derive(Debug, PartialEq, Eq)]
struct Clash {
    path: String,
    first: String,
    second: String,
}

impl Clash {
    fn failure(self, dest: &Path) -> Failure {
        let Self { path, first, second } = self;
        let message = format!(
            "Writing {} failed: `{path}` of {first} and `{path}` of {second} would be one file, as \
             platform-split=false gives all platforms one directory",
            dest.display()
        );
        Failure::new(Class::User, message)
            .hint("Take platform-split=false away, or give the files names of their own.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_shared_and_files_are_not() {
        let [amd, arm] = ["linux/amd64", "linux/arm64"].map(|p| Platform::parse(p).unwrap());
        let names = |list: &[(&str, What)]| -> Vec<_> {
            list.iter().map(|(path, what)| (path.as_bytes().to_vec(), *what)).collect()
        };
        let clash = |one: &[(&str, What)], two: &[(&str, What)]| {
            let mut all = Names::default();
            all.add(&amd, names(one)).unwrap();
            all.add(&arm, names(two)).err().map(|clash| clash.path)
        };
        use What::{Directory, Other};
        assert_eq!(clash(&[("d", Directory)], &[("d", Directory), ("d/a", Other)]), None);
        assert_eq!(clash(&[("a", Other)], &[("b", Other)]), None);
        assert_eq!(clash(&[("a", Other)], &[("a", Other)]).as_deref(), Some("a"));
        assert_eq!(clash(&[("d", Directory)], &[("d", Other)]).as_deref(), Some("d"));
        assert_eq!(clash(&[("d", Other)], &[("d", Directory)]).as_deref(), Some("d"));
    }
}

//! COPY of one source by the rules alone, over a plain map.

use super::Model;

fn is_dir(tree: &Model, path: &str) -> bool {
    path.is_empty() || tree.contains_key(&format!("{path}/"))
}

/// A path with all links followed, also the last one; `None` when they go round in circles. What
/// is not there stays as it is written.
fn resolve(tree: &Model, path: &str) -> Option<String> {
    let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let (mut at, mut followed) = (Vec::<String>::new(), 0);
    while let Some(name) = left.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                at.pop();
                continue;
            }
            _ => at.push(name),
        }
        if let Some((_, target)) = tree.get(&at.join("/")).and_then(|w| w.split_once(" -> ")) {
            followed += 1;
            if followed > 255 {
                return None;
            }
            at.pop();
            if target.starts_with('/') {
                at.clear();
            }
            left.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    Some(at.join("/"))
}

fn mkdir_all(tree: &mut Model, path: &str) -> Option<()> {
    let mut at = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        if tree.contains_key(&at) {
            return None;
        }
        tree.entry(format!("{at}/")).or_insert_with(|| "755".to_owned());
    }
    Some(())
}

/// The tree after the copy; `None` when it fails.
pub fn copy(from: &Model, mut to: Model, source: &str, dest: &str) -> Option<Model> {
    let what = resolve(from, source)?;
    let inside = dest.ends_with('/') || dest.ends_with("/.");
    let ensured = if inside { dest } else { &dest[..dest.rfind('/')?] };
    let ensured = resolve(&to, ensured)?;
    mkdir_all(&mut to, &ensured)?;
    let mut target = resolve(&to, dest)?;
    if let Some(file) = from.get(&what) {
        if is_dir(&to, &target) {
            let name = source.split('/').rfind(|name| !matches!(*name, "" | "."))?;
            target = if target.is_empty() { name.to_owned() } else { format!("{target}/{name}") };
        }
        let above = target.rfind('/').map_or("", |at| &target[..at]).to_owned();
        mkdir_all(&mut to, &above)?;
        if is_dir(&to, &target) {
            return None;
        }
        to.insert(target, file.clone());
        return Some(to);
    }
    if !is_dir(from, &what) {
        return None;
    }
    mkdir_all(&mut to, &target)?;
    let below = |root: &str| if root.is_empty() { String::new() } else { format!("{root}/") };
    for (path, file) in from {
        let Some(name) = path.strip_prefix(&below(&what)).filter(|n| !n.is_empty()) else {
            continue;
        };
        let new = format!("{}{name}", below(&target));
        let (bare, is_new_dir) = (new.trim_end_matches('/').to_owned(), new.ends_with('/'));
        let is_other_kind = match is_new_dir {
            true => to.contains_key(&bare),
            false => is_dir(&to, &bare),
        };
        if is_other_kind {
            return None;
        }
        to.insert(new, file.clone());
    }
    Some(to)
}

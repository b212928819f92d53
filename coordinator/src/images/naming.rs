//! Which image has which name, and what becomes of one whose name goes to another. As in Docker.

use cache::store::Image;
use proto::id::Millis;

/// A row of the image store, of one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// A full reference; the image id for an image without a name.
    pub key: String,
    /// The image.
    pub image: Image,
}

impl Known {
    /// The row of an image without a name.
    pub fn unnamed(image: &Image) -> Self {
        Self { key: image.id.to_string(), image: image.clone() }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        (!self.key.starts_with("sha256:")).then_some(self.key.as_str())
    }
}

/// What is to be done to the rows of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Rows that are set.
    pub set: Vec<Known>,
    /// Rows that go.
    pub delete: Vec<String>,
}

/// What somebody sees who has rows of his own: those, and of the others what he has not himself.
pub fn seen(own: Vec<Known>, trusted: Vec<Known>) -> Vec<Known> {
    let mut all = own;
    let new = |all: &[Known], known: &Known| !all.iter().any(|own| own.key == known.key);
    let others: Vec<Known> = trusted.into_iter().filter(|known| new(&all, known)).collect();
    all.extend(others);
    all
}

/// What giving an image a name does, or keeping it without one. `all` are the rows of the scope.
///
/// An image that had the name before stays, without a name if it had no other. The image's own row
/// without a name goes when it gets one.
pub fn name(all: &[Known], image: &Image, full: Option<&str>, now: Millis) -> Change {
    let mut change = Change::default();
    let image = Image { tagged_ms: now.0, ..image.clone() };
    let Some(full) = full else {
        if !all.iter().any(|known| known.image.id == image.id) {
            change.set.push(Known::unnamed(&image));
        }
        return change;
    };
    let before = all.iter().find(|known| known.key == full).map(|known| &known.image);
    if let Some(before) = before.filter(|before| before.id != image.id) {
        let is_other = |known: &Known| known.image.id == before.id && known.key != full;
        if !all.iter().any(is_other) {
            change.set.push(Known::unnamed(before));
        }
    }
    let unnamed = image.id.to_string();
    if all.iter().any(|known| known.key == unnamed) {
        change.delete.push(unnamed);
    }
    change.set.push(Known { key: full.to_owned(), image });
    change
}

#[cfg(test)]
mod tests {
    use super::super::meant::image;
    use super::*;

    /// Does what giving names does, and answers the rows.
    fn keep(all: &mut Vec<Known>, image: &Image, names: &[&str]) -> Vec<(String, u8)> {
        let mut one = |full: Option<&str>| {
            let change = name(all, image, full, Millis(7));
            for known in change.set {
                all.retain(|old| old.key != known.key);
                all.push(known);
            }
            all.retain(|old| !change.delete.contains(&old.key));
        };
        match names {
            [] => one(None),
            names => names.iter().for_each(|full| one(Some(full))),
        }
        let mut rows: Vec<_> =
            all.iter().map(|k| (k.key.clone(), k.image.id.as_bytes()[0])).collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_name_moves_and_leaves_what_it_named() {
        let (mut all, a, b) = (Vec::new(), image(0xaa), image(0xbb));
        keep(&mut all, &a, &["r/x:1", "r/x:2"]);
        let rows = keep(&mut all, &b, &["r/x:1"]);
        assert_eq!(rows, [("r/x:1".into(), 0xbb), ("r/x:2".into(), 0xaa)]);
        let rows = keep(&mut all, &b, &["r/x:2"]);
        let named = [("r/x:1".into(), 0xbb), ("r/x:2".into(), 0xbb)];
        assert_eq!(rows, [&named[..], &[(a.id.to_string(), 0xaa)]].concat());
        let rows = keep(&mut all, &a, &["r/y:1"]);
        assert_eq!(
            (rows.len(), rows[2].clone()),
            (3, ("r/y:1".into(), 0xaa)),
            "it has a name again"
        );
    }

    #[test]
    fn without_a_name_an_image_is_kept_by_its_id_once() {
        let (mut all, a) = (Vec::new(), image(0xaa));
        keep(&mut all, &a, &[]);
        assert_eq!(keep(&mut all, &a, &[]), [(a.id.to_string(), 0xaa)]);
        keep(&mut all, &a, &["r/y:1"]);
        assert_eq!(keep(&mut all, &a, &[]), [("r/y:1".into(), 0xaa)]);
    }

    #[test]
    fn own_names_hide_those_of_others() {
        let (mut own, mut trusted) = (Vec::new(), Vec::new());
        keep(&mut trusted, &image(0xaa), &["r/x:1", "r/x:2"]);
        keep(&mut own, &image(0xbb), &["r/x:1"]);
        let mut rows: Vec<_> =
            seen(own, trusted).into_iter().map(|k| (k.key, k.image.id.as_bytes()[0])).collect();
        rows.sort();
        assert_eq!(rows, [("r/x:1".into(), 0xbb), ("r/x:2".into(), 0xaa)]);
    }
}

//! The names of the local image store: which image has which, and what becomes of one whose name
//! goes to another. As in Docker.

use cache::store::{Image, Persisted, Store, StoreError, Table};
use proto::id::Millis;
use std::sync::{Mutex, PoisonError};

/// A row of the table of images.
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

/// What is to be done to the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Rows that are set.
    pub set: Vec<Known>,
    /// Rows that go.
    pub delete: Vec<String>,
}

/// What giving an image a name does, or keeping it without one. Pure.
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

/// All rows. One of another version is one that is not there.
pub fn all(store: &dyn Store) -> Result<Vec<Known>, StoreError> {
    let known = |(key, value): (Vec<u8>, Vec<u8>)| {
        Some(Known { key: String::from_utf8(key).ok()?, image: Image::from_bytes(&value)? })
    };
    Ok(store.rows(Table::Image, b"")?.into_iter().filter_map(known).collect())
}

/// Held by whoever changes the table: what it decides by must not change meanwhile.
static TURN: Mutex<()> = Mutex::new(());

/// Decides by what is there, and does it. Visible then, and durable after the store's barrier.
pub fn alter<T, E: From<StoreError>>(
    store: &dyn Store,
    decide: impl FnOnce(&[Known]) -> Result<(Change, T), E>,
) -> Result<T, E> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (change, answer) = decide(&all(store)?)?;
    // What is set first makes that no image is without a row in between.
    for known in &change.set {
        store.put_row(Table::Image, known.key.as_bytes(), &known.image.to_bytes())?;
    }
    for key in &change.delete {
        store.delete_row(Table::Image, key.as_bytes())?;
    }
    Ok(answer)
}

/// Keeps an image under these names, or without one.
pub fn keep(
    store: &dyn Store,
    image: &Image,
    names: &[String],
    now: Millis,
) -> Result<(), StoreError> {
    let one = |full: Option<&str>| alter(store, |all| Ok((name(all, image, full, now), ())));
    match names {
        [] => one(None),
        names => names.iter().try_for_each(|full| one(Some(full))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::store::memory::MemoryStore;
    use proto::id::{BlobId, OciDigest};
    use proto::platform::Platform;

    fn image(store: &MemoryStore, id: u8) -> Image {
        let config = bytes::Bytes::copy_from_slice(&[id]);
        store.put_blobs(&[(BlobId::of(&config), config.clone())]).unwrap();
        Image {
            id: OciDigest::from_bytes([id; 32]),
            platform: Platform::parse("linux/amd64").unwrap(),
            config: BlobId::of(&config),
            layers: Vec::new(),
            tagged_ms: 1,
            created_ms: 1,
            size: 0,
        }
    }

    fn keys(store: &MemoryStore) -> Vec<(String, u8)> {
        let row = |known: Known| (known.key, known.image.id.as_bytes()[0]);
        all(store).unwrap().into_iter().map(row).collect()
    }

    #[test]
    fn a_name_moves_and_leaves_what_it_named() {
        let store = MemoryStore::new();
        let (a, b) = (image(&store, 0xaa), image(&store, 0xbb));
        let names = ["r/x:1".to_owned(), "r/x:2".to_owned()];
        keep(&store, &a, &names, Millis(7)).unwrap();
        keep(&store, &b, &names[..1], Millis(8)).unwrap();
        assert_eq!(keys(&store), [("r/x:1".into(), 0xbb), ("r/x:2".into(), 0xaa)]);
        keep(&store, &b, &names[1..], Millis(9)).unwrap();
        let unnamed = (a.id.to_string(), 0xaa);
        let named = [("r/x:1".into(), 0xbb), ("r/x:2".into(), 0xbb)];
        assert_eq!(keys(&store), [&named[..], &[unnamed]].concat());
        keep(&store, &a, &["r/y:1".to_owned()], Millis(9)).unwrap();
        assert_eq!(keys(&store)[2], ("r/y:1".into(), 0xaa), "it has a name again");
        assert_eq!(keys(&store).len(), 3);
    }

    #[test]
    fn without_a_name_an_image_is_kept_by_its_id_once() {
        let store = MemoryStore::new();
        let a = image(&store, 0xaa);
        keep(&store, &a, &[], Millis(7)).unwrap();
        keep(&store, &a, &[], Millis(8)).unwrap();
        assert_eq!(keys(&store), [(a.id.to_string(), 0xaa)]);
        keep(&store, &a, &["r/y:1".to_owned()], Millis(9)).unwrap();
        keep(&store, &a, &[], Millis(9)).unwrap();
        assert_eq!(keys(&store), [("r/y:1".into(), 0xaa)]);
    }
}

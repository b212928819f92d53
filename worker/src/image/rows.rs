//! Typed access to the rows of the store that images use.

use cache::store::{LayerBlob, OciBlob, Persisted, Store, StoreError, Table};
use proto::id::{OciDigest, RootId, TreeId};

/// The blob that registries know by this digest, if its bytes are here.
pub fn oci_blob(store: &dyn Store, digest: &OciDigest) -> Result<Option<OciBlob>, StoreError> {
    let row = store.row(Table::OciBlob, digest.as_bytes())?;
    let Some(row) = row.and_then(|bytes| OciBlob::from_bytes(&bytes)) else { return Ok(None) };
    Ok(store.missing_blobs(&[row.blob])?.is_empty().then_some(row))
}

/// Remembers under which digest registries know a blob. The repository of an earlier row stays,
/// when the new one names none.
pub fn put_oci_blob(store: &dyn Store, id: &OciDigest, mut row: OciBlob) -> Result<(), StoreError> {
    if row.repository.is_none() {
        let old = store.row(Table::OciBlob, id.as_bytes())?;
        row.repository = old.and_then(|b| OciBlob::from_bytes(&b)).and_then(|old| old.repository);
    }
    store.put_row(Table::OciBlob, id.as_bytes(), &row.to_bytes())
}

/// The diff tree that the layer with this diff id unpacked to, if it is here.
pub fn unpacked(store: &dyn Store, diff_id: &OciDigest) -> Result<Option<RootId>, StoreError> {
    let Some(row) = store.row(Table::Unpacked, diff_id.as_bytes())? else { return Ok(None) };
    let Ok(bytes) = <[u8; 32]>::try_from(row.as_slice()) else { return Ok(None) };
    let root = RootId(TreeId::from_bytes(bytes));
    Ok(store.missing_trees(&[root.0])?.is_empty().then_some(root))
}

/// Remembers what a layer unpacked to.
pub fn put_unpacked(store: &dyn Store, id: &OciDigest, root: RootId) -> Result<(), StoreError> {
    store.put_row(Table::Unpacked, id.as_bytes(), root.0.as_bytes())
}

/// The layer under this key. A packed form whose bytes are gone is left out.
pub fn layer(store: &dyn Store, key: &[u8]) -> Result<Option<LayerBlob>, StoreError> {
    let row = store.row(Table::Layer, key)?;
    let Some(mut row) = row.and_then(|bytes| LayerBlob::from_bytes(&bytes)) else {
        return Ok(None);
    };
    if let Some(packed) = &row.packed
        && !store.missing_blobs(&[packed.blob])?.is_empty()
    {
        row.packed = None;
    }
    Ok(Some(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::store::memory::MemoryStore;
    use proto::id::BlobId;

    #[test]
    fn a_later_row_keeps_the_repository_of_the_earlier() {
        let store = MemoryStore::new();
        let digest = crate::image::sha::sha256(b"x");
        let row = OciBlob { blob: BlobId::of(b"x"), size: 1, repository: Some("a/b".into()) };
        assert!(put_oci_blob(&store, &digest, row.clone()).is_err(), "its bytes are not here");
        assert_eq!(oci_blob(&store, &digest).unwrap(), None);
        store.put_blobs(&[(row.blob, "x".into())]).unwrap();
        put_oci_blob(&store, &digest, row.clone()).unwrap();
        put_oci_blob(&store, &digest, OciBlob { repository: None, ..row.clone() }).unwrap();
        assert_eq!(oci_blob(&store, &digest).unwrap(), Some(row));
    }
}

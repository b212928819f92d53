//! What is no image: manifests of other things, and small blobs that they name. The registry itself
//! is asked, not its mirrors: they may be behind what was pushed a moment ago.

use super::call::{Access, Target};
use super::manifest::named;
use super::{Reference, RegistryError, Session};
use bytes::Bytes;
use proto::id::OciDigest;

impl Session {
    /// The manifest or index that a reference stands for, whatever it is of.
    pub async fn document(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let endpoint = self.itself(reference);
        let target = Target::new(&endpoint, reference, Access::Pull, reference.to_string());
        let (name, digest) = named(reference)?;
        Ok(self.manifest(&target, &name, digest.as_ref()).await?.bytes)
    }

    /// A blob that fits in memory, of at most `limit` bytes.
    pub async fn small_blob(
        &self,
        reference: &Reference,
        digest: &OciDigest,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let endpoint = self.itself(reference);
        let what = format!("blob {} of {reference}", digest.short());
        let target = Target::new(&endpoint, reference, Access::Pull, what);
        self.blob_in_memory(&target, digest, limit).await
    }
}

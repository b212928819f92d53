//! What is no image: manifests of other things, and small blobs that they name. The registry itself
//! is asked, not its mirrors: they may be behind what was pushed a moment ago.

use super::call::{Access, Call, Target};
use super::document::Part;
use super::{Reference, RegistryError, Session};
use crate::image::sha::sha256;
use bytes::Bytes;
use proto::id::OciDigest;
use reqwest::Method;

impl Session {
    /// The manifest or index that a reference stands for, whatever it is of.
    pub async fn document(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let endpoint = self.itself(reference);
        let target = Target::new(&endpoint, reference, Access::Pull, reference.to_string());
        let digest = reference.digest().and_then(|digest| OciDigest::parse(digest).ok());
        let name = match (&digest, reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        Ok(self.manifest(&target, &name, digest.as_ref()).await?.bytes)
    }

    /// A blob that fits in memory, of at most `limit` bytes.
    pub async fn small_blob(
        &self,
        reference: &Reference,
        part: &Part,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let endpoint = self.itself(reference);
        let what = format!("blob {} of {reference}", part.digest.short());
        let target = Target::new(&endpoint, reference, Access::Pull, what);
        let call = Call::new(Method::GET, target.url(&format!("blobs/{}", part.digest))?);
        let (_, bytes) = self.small(&target, &call, limit).await?;
        let actual = sha256(&bytes);
        if actual != part.digest {
            return Err(target.wrong_bytes(format!("expected {}, got {actual}", part.digest)));
        }
        Ok(bytes)
    }
}

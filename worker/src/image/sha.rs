//! SHA-256, as OCI names things.

use proto::id::OciDigest;
use sha2::{Digest, Sha256};

/// Hashes bytes as they pass.
#[derive(Clone, Default)]
pub struct Sha(Sha256);

impl Sha {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> OciDigest {
        OciDigest::from_bytes(self.0.finalize().into())
    }
}

/// The digest of these bytes.
pub fn sha256(bytes: &[u8]) -> OciDigest {
    let mut sha = Sha::new();
    sha.update(bytes);
    sha.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha256() {
        // FIPS 180-4, the example of one block.
        let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").to_string(), digest);
    }
}

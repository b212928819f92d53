//! SHA-256, as OCI names things.

use proto::id::OciDigest;
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// Bytes that are read and hashed at once.
const PIECE: usize = 256 << 10;

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

/// The digest of all that is read, and how many bytes that was. `told` hears of them as they come.
pub fn sha256_of(
    mut content: impl Read,
    mut told: impl FnMut(u64),
) -> io::Result<(OciDigest, u64)> {
    let (mut sha, mut piece, mut size) = (Sha::new(), vec![0; PIECE], 0);
    loop {
        match content.read(&mut piece) {
            Ok(0) => return Ok((sha.finish(), size)),
            Ok(read) => {
                sha.update(&piece[..read]);
                size += read as u64;
                told(size);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
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

    #[test]
    fn what_is_read_has_the_digest_of_its_bytes() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|n| n as u8).collect();
        let mut told = Vec::new();
        let read = sha256_of(&bytes[..], |size| told.push(size)).unwrap();
        assert_eq!(read, (sha256(&bytes), bytes.len() as u64));
        assert_eq!((told.len(), told.last()), (4, Some(&read.1)));
    }
}

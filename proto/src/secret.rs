//! Bytes that nobody is shown.

use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroize;

/// Bytes of which no text shows any, and that are wiped from memory when they are dropped: of a
/// secret, or of what is said to an ssh agent and by it.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// The bytes. Copies of them are not wiped.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::Answer;

    #[test]
    fn no_text_shows_a_secret() {
        let answer = Answer::Secret(Some(SecretBytes::from(b"k3y".to_vec())));
        assert_eq!(format!("{answer:?}"), "Secret(Some(SecretBytes(3 bytes)))");
    }
}

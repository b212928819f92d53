//! How values lie on disk: one byte of version, then rkyv.
//!
//! Reading is checked: bytes that are of another version, or no such value at all, are `None`,
//! which counts as missing everywhere.

use super::meta::{Image, LayerBlob, OciBlob, PackedBlock};
use crate::mounts::Generation;
use proto::record::{Alias, Record};
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;

/// A value that is kept in a store.
pub trait Persisted: Sized {
    /// Its bytes: a byte of version, then rkyv.
    fn to_bytes(&self) -> Vec<u8>;

    /// The value that these bytes are, if they are one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// The version of all encodings so far.
pub(super) const VERSION: u8 = 1;

/// The part behind the version, where rkyv can read it: rkyv wants aligned bytes.
pub(super) fn aligned(bytes: &[u8]) -> Option<AlignedVec<16>> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut aligned = AlignedVec::with_capacity(rest.len());
    aligned.extend_from_slice(rest);
    Some(aligned)
}

/// Puts the version in front.
pub(super) fn versioned(value: Result<AlignedVec, Error>) -> Vec<u8> {
    let value = value.expect("a value that has neither maps nor cycles can be encoded");
    let mut bytes = Vec::with_capacity(value.len() + 1);
    bytes.push(VERSION);
    bytes.extend_from_slice(&value);
    bytes
}

macro_rules! persisted {
    ($($kind:ty),* $(,)?) => {$(
        impl $crate::store::persist::Persisted for $kind {
            fn to_bytes(&self) -> Vec<u8> {
                $crate::store::persist::versioned(rkyv::to_bytes::<rkyv::rancor::Error>(self))
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let bytes = $crate::store::persist::aligned(bytes)?;
                rkyv::from_bytes::<Self, rkyv::rancor::Error>(&bytes).ok()
            }
        }
    )*};
}
pub(super) use persisted;

persisted!(Record, Alias, Image, OciBlob, LayerBlob, PackedBlock, Generation);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::id::{ContentKey, DefKey};

    fn alias() -> Alias {
        Alias {
            key: ContentKey::from_bytes([1; 32]),
            version: 7,
            inputs: vec![(DefKey::from_bytes([2; 32]), 3), (DefKey::from_bytes([4; 32]), 5)],
        }
    }

    #[test]
    fn another_version_is_no_value() {
        let mut bytes = alias().to_bytes();
        assert_eq!(Alias::from_bytes(&bytes), Some(alias()));
        bytes[0] += 1;
        assert_eq!(Alias::from_bytes(&bytes), None);
        assert_eq!(Alias::from_bytes(&[]), None);
        assert_eq!(Alias::from_bytes(&[VERSION]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes: Vec<u8> = [VERSION].into_iter().chain(bytes).collect();
            let _ = Record::from_bytes(&bytes);
            let _ = Image::from_bytes(&bytes);
        }

        #[test]
        fn a_flipped_bit_does_not_panic(at in any::<usize>(), bit in 0u8..8) {
            let mut bytes = alias().to_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = Alias::from_bytes(&bytes);
        }
    }
}

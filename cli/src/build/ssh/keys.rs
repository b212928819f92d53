//! An ssh agent of our own, which holds the keys of files and signs with them. Pure, but for the
//! chance in signatures.

use super::{LIST, LISTED, SIGN, SIGNED};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use ssh_key::PrivateKey;
use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};
use worker::agent::ssh::REFUSED;

/// Bytes of a file with a key. BuildKit's own bound.
pub const FILE_BYTES_MAX: usize = 100 << 10;

/// What stands in a file of PEM whose key has a passphrase.
const LOCKED: &[u8] = b"ENCRYPTED";

/// Which hash a signature by an RSA key is asked for with (`SSH_AGENT_RSA_SHA2_256` and so on).
const SHA2_256: u32 = 2;
const SHA2_512: u32 = 4;

/// Why a file is no key for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no key at all, or of a form that is not known.
    #[error("it holds no private key that can be read")]
    NoKey,
    /// It has a passphrase.
    #[error("it is protected by a passphrase")]
    Locked,
    /// It is a key that cannot be signed with here.
    #[error("keys of the type {0} cannot be used from a file")]
    Type(String),
    /// Its numbers do not fit together, or are too small.
    #[error("the key is broken or too short: {0}")]
    Broken(String),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Locked | Self::Type(_) => {
                Some("Give it to an agent (ssh-add KEY), and the agent to the build: --ssh default")
            }
            Self::NoKey | Self::Broken(_) => None,
        }
    }
}

/// A key.
pub struct Key {
    /// The public half, as it is named by.
    public: Vec<u8>,
    comment: String,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    /// Reads OpenSSH's form of a key, or an RSA key in PEM.
    pub fn read(text: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = PrivateKey::from_openssh(text) {
            return Self::of_openssh(&key);
        }
        let key = match PrivateKeyDer::from_pem_slice(text) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => match RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()) {
                Err(e) if e.to_string() == "WrongAlgorithm" => {
                    return Err(KeyError::Type("Ed25519 or ECDSA in PKCS #8".to_owned()));
                }
                key => key,
            },
            Ok(_) => return Err(KeyError::Type("ECDSA in PEM".to_owned())),
            Err(_) if text.windows(LOCKED.len()).any(|some| some == LOCKED) => {
                return Err(KeyError::Locked);
            }
            Err(_) => return Err(KeyError::NoKey),
        };
        let pair = key.map_err(broken)?;
        let numbers = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let mut public = Vec::new();
        put(&mut public, b"ssh-rsa");
        put_number(&mut public, &numbers.e);
        put_number(&mut public, &numbers.n);
        Ok(Self { public, comment: String::new(), pair: Pair::Rsa(Box::new(pair)) })
    }

    fn of_openssh(key: &PrivateKey) -> Result<Self, KeyError> {
        let pair = match key.key_data() {
            KeypairData::Ed25519(pair) => {
                let (seed, public) = (pair.private.to_bytes(), &pair.public.0);
                let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, public);
                Pair::Ed25519(pair.map_err(broken)?)
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                let form = &ECDSA_P256_SHA256_FIXED_SIGNING;
                Pair::Ecdsa(ecdsa(form, private.as_slice(), public.as_bytes())?)
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP384 { public, private }) => {
                let form = &ECDSA_P384_SHA384_FIXED_SIGNING;
                Pair::Ecdsa(ecdsa(form, private.as_slice(), public.as_bytes())?)
            }
            KeypairData::Rsa(pair) => Pair::Rsa(Box::new(rsa(pair)?)),
            KeypairData::Encrypted(_) => return Err(KeyError::Locked),
            _ => return Err(KeyError::Type(key.algorithm().to_string())),
        };
        let public = key.public_key().to_bytes().map_err(|_| KeyError::NoKey)?;
        Ok(Self { public, comment: key.comment().to_owned(), pair })
    }

    /// A signature as the protocol has it; none when it is not to be had.
    fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let mut out = Vec::new();
        match &self.pair {
            Pair::Ed25519(pair) => {
                put(&mut out, b"ssh-ed25519");
                put(&mut out, pair.sign(data).as_ref());
            }
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                let mut numbers = Vec::new();
                put_number(&mut numbers, r);
                put_number(&mut numbers, s);
                // The type's name is the first thing in the public half.
                put(&mut out, take(&mut self.public.as_slice())?);
                put(&mut out, &numbers);
            }
            Pair::Rsa(pair) => {
                // Without a flag SHA-1 is meant, which nobody takes any more.
                let (name, form) = match flags {
                    flags if flags & SHA2_256 != 0 => (&b"rsa-sha2-256"[..], &RSA_PKCS1_SHA256),
                    flags if flags & SHA2_512 != 0 => (&b"rsa-sha2-512"[..], &RSA_PKCS1_SHA512),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(form, &random, data, &mut signature).ok()?;
                put(&mut out, name);
                put(&mut out, &signature);
            }
        }
        Some(out)
    }
}

fn broken(error: ring::error::KeyRejected) -> KeyError {
    KeyError::Broken(error.to_string())
}

fn ecdsa(
    form: &'static EcdsaSigningAlgorithm,
    private: &[u8],
    public: &[u8],
) -> Result<EcdsaKeyPair, KeyError> {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(form, private, public, &random).map_err(broken)
}

/// OpenSSH leaves out two of the numbers that an RSA key is used by.
fn rsa(pair: &RsaKeypair) -> Result<RsaKeyPair, KeyError> {
    let number = |number: &ssh_key::Mpint| {
        let bytes = number.as_positive_bytes().filter(|bytes| !bytes.is_empty());
        bytes.map(<[u8]>::to_vec).ok_or(KeyError::NoKey)
    };
    let (d, p, q) = (number(&pair.private.d)?, number(&pair.private.p)?, number(&pair.private.q)?);
    let numbers = KeyPairComponents {
        public_key: PublicKeyComponents { n: number(&pair.public.n)?, e: number(&pair.public.e)? },
        dP: remainder_of_less_one(&d, &p),
        dQ: remainder_of_less_one(&d, &q),
        qInv: number(&pair.private.iqmp)?,
        d,
        p,
        q,
    };
    RsaKeyPair::from_components(&numbers).map_err(broken)
}

/// `number` modulo `odd - 1`, of numbers with the most significant byte first. By long division, bit
/// by bit: it is done twice for a key.
fn remainder_of_less_one(number: &[u8], odd: &[u8]) -> Vec<u8> {
    let mut modulus = odd.to_vec();
    *modulus.last_mut().expect("a number that is not zero") &= !1;
    // A bit more than the modulus: what is left is doubled before it is made smaller.
    let mut left = vec![0u8; modulus.len() + 1];
    modulus.insert(0, 0);
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in left.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if left >= modulus {
            let mut borrow = false;
            for (byte, less) in left.iter_mut().zip(&modulus).rev() {
                let (once, first) = byte.overflowing_sub(*less);
                let (twice, second) = once.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (twice, first || second);
            }
        }
    }
    let zeros = left.iter().take_while(|byte| **byte == 0).count();
    left.split_off(zeros)
}

/// What an agent with these keys says.
pub fn answer(keys: &[Key], request: &[u8]) -> Vec<u8> {
    let said = match request.split_first() {
        Some((&LIST, [])) => Some(list(keys)),
        Some((&SIGN, rest)) => sign(keys, rest),
        _ => None,
    };
    said.unwrap_or_else(|| REFUSED.to_owned())
}

fn list(keys: &[Key]) -> Vec<u8> {
    let mut out = vec![LISTED];
    out.extend_from_slice(&(keys.len() as u32).to_be_bytes());
    for key in keys {
        put(&mut out, &key.public);
        put(&mut out, key.comment.as_bytes());
    }
    out
}

fn sign(keys: &[Key], mut request: &[u8]) -> Option<Vec<u8>> {
    let (public, data) = (take(&mut request)?, take(&mut request)?);
    let flags = u32::from_be_bytes(request.try_into().ok()?);
    let key = keys.iter().find(|key| key.public == public)?;
    let mut out = vec![SIGNED];
    put(&mut out, &key.sign(data, flags)?);
    Some(out)
}

/// A text of the protocol: its length, then its bytes.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A number of the protocol: without zeros before it, but for one that says that it is positive.
fn put_number(out: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    let sign: &[u8] = if bytes.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    put(out, &[sign, bytes].concat());
}

/// Reads a text of the protocol.
fn take<'r>(rest: &mut &'r [u8]) -> Option<&'r [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
    };

    const DATA: &[u8] = b"what is signed";

    fn key(text: &str) -> Key {
        Key::read(text.as_bytes()).expect("a key")
    }

    /// The public half as `ssh-keygen` wrote it.
    fn public(text: &str) -> Vec<u8> {
        BASE64_STANDARD.decode(text.split(' ').nth(1).expect("a key")).expect("base64")
    }

    fn ask_to_sign(key: &[u8], flags: u32) -> Vec<u8> {
        let mut request = vec![SIGN];
        put(&mut request, key);
        put(&mut request, DATA);
        request.extend_from_slice(&flags.to_be_bytes());
        request
    }

    /// The name and the bytes of a signature that the agent gives.
    fn signed(key: Key, flags: u32) -> (String, Vec<u8>) {
        let request = ask_to_sign(&key.public.clone(), flags);
        let said = answer(&[key], &request);
        let (kind, mut rest) = said.split_first().expect("an answer");
        assert_eq!(*kind, SIGNED);
        let mut signature = take(&mut rest).expect("a signature");
        assert!(rest.is_empty());
        let name = String::from_utf8(take(&mut signature).unwrap().to_vec()).unwrap();
        (name, take(&mut signature).unwrap().to_vec())
    }

    fn verify(how: &'static dyn VerificationAlgorithm, public: &[u8], signature: &[u8]) {
        UnparsedPublicKey::new(how, public).verify(DATA, signature).expect("a right signature");
    }

    #[test]
    fn keys_are_listed_with_their_comments() {
        let said = answer(&[key(include_str!("testdata/ed25519"))], &[LIST]);
        let mut expected = vec![LISTED, 0, 0, 0, 1];
        put(&mut expected, &public(include_str!("testdata/ed25519.pub")));
        put(&mut expected, b"ann@example.com");
        assert_eq!(said, expected);
        assert_eq!(answer(&[], &[LIST]), [LISTED, 0, 0, 0, 0]);
    }

    #[test]
    fn ed25519_signs() {
        let (name, signature) = signed(key(include_str!("testdata/ed25519")), 0);
        let public = public(include_str!("testdata/ed25519.pub"));
        verify(&ED25519, &public[public.len() - 32..], &signature);
        assert_eq!(name, "ssh-ed25519");
    }

    #[test]
    fn ecdsa_signs() {
        let keys: [(&str, &str, &str, usize, &'static dyn VerificationAlgorithm); 2] = [
            (
                "ecdsa-sha2-nistp256",
                include_str!("testdata/p256"),
                include_str!("testdata/p256.pub"),
                32,
                &ECDSA_P256_SHA256_FIXED,
            ),
            (
                "ecdsa-sha2-nistp384",
                include_str!("testdata/p384"),
                include_str!("testdata/p384.pub"),
                48,
                &ECDSA_P384_SHA384_FIXED,
            ),
        ];
        for (expected, private, known, size, how) in keys {
            let (name, numbers) = signed(key(private), 0);
            let mut rest = numbers.as_slice();
            let mut fixed = Vec::new();
            for _ in 0..2 {
                let number = take(&mut rest).unwrap();
                let number = number.strip_prefix(&[0]).unwrap_or(number);
                fixed.extend(vec![0; size - number.len()]);
                fixed.extend_from_slice(number);
            }
            let known = public(known);
            verify(how, &known[known.len() - 2 * size - 1..], &fixed);
            assert_eq!((name.as_str(), rest), (expected, &[][..]));
        }
    }

    #[test]
    fn rsa_signs_with_the_hash_that_is_asked_for() {
        let known = public(include_str!("testdata/rsa.pub"));
        let mut rest = known.as_slice();
        let [_, e, n] = [(); 3].map(|()| take(&mut rest).unwrap());
        let numbers = PublicKeyComponents { n: &n[1..], e };
        for text in [
            include_str!("testdata/rsa"),
            include_str!("testdata/rsa.pem"),
            include_str!("testdata/rsa.pk8"),
        ] {
            assert_eq!(key(text).public, known);
            let (name, signature) = signed(key(text), SHA2_256);
            numbers.verify(&RSA_PKCS1_2048_8192_SHA256, DATA, &signature).unwrap();
            assert_eq!(name, "rsa-sha2-256");
            let (name, signature) = signed(key(text), SHA2_512);
            numbers.verify(&RSA_PKCS1_2048_8192_SHA512, DATA, &signature).unwrap();
            assert_eq!(name, "rsa-sha2-512");
            assert_eq!(answer(&[key(text)], &ask_to_sign(&known, 0)), REFUSED);
        }
    }

    #[test]
    fn other_requests_and_other_keys_are_refused() {
        let keys = [key(include_str!("testdata/ed25519"))];
        let other = public(include_str!("testdata/rsa.pub"));
        let right = ask_to_sign(&keys[0].public, 0);
        for wrong in [&ask_to_sign(&other, 2), &right[..right.len() - 1], &[LIST, 0], &[19], &[]] {
            assert_eq!(answer(&keys, wrong), REFUSED, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_key_for_us_says_why() {
        let why = |text: &str| Key::read(text.as_bytes()).err().expect("an error");
        assert_eq!(why(include_str!("testdata/locked")), KeyError::Locked);
        assert!(
            matches!(why(include_str!("testdata/p521")), KeyError::Type(t) if t.contains("521"))
        );
        assert_eq!(why(include_str!("testdata/rsa.pub")), KeyError::NoKey);
        assert_eq!(why(""), KeyError::NoKey);
    }

    proptest! {
        #[test]
        fn remainders_are_right(number in any::<u128>(), odd in 3u64..) {
            let odd = odd | 1;
            let left = remainder_of_less_one(&number.to_be_bytes(), &odd.to_be_bytes());
            let expected = number % u128::from(odd - 1);
            let bytes = expected.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            prop_assert_eq!(left, &bytes[zeros..]);
        }
    }
}

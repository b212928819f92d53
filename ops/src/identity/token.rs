//! What one joins a cluster with: a short text that works for a while, for one role.
//!
//! `slipway-ROLE-` and 96 characters of base32: the fingerprint of the cluster's authority (32
//! bytes), so that whoever joins knows the right cluster from a false one before it has said
//! anything; the token's id (8) and secret (16); and a checksum (4), so that a typo is told from a
//! token that is not valid.
//!
//! The cluster keeps a [`TokenRecord`], in which there is only the secret's hash.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::subject::{Grant, Role, RolesError, Subject};
use crate::names::{ClusterId, NodeName};
use data_encoding::BASE32_DNSSEC;
use proto::id::Millis;
use rkyv::{Archive, Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// Random bytes that a token is made of: its id and its secret.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
const BODY_BYTES: usize = FINGERPRINT_BYTES + RANDOM_BYTES + CHECKSUM_BYTES;

/// Characters of the part after the role: base32 has eight for five bytes.
const BODY_CHARS: usize = BODY_BYTES / 5 * 8;

/// How every token begins.
const PREFIX: &str = "slipway-";

/// SHA-256 of an authority's certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A token's name: what lists show and revoking takes. It gives nobody anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct TokenId([u8; ID_BYTES]);

impl TokenId {
    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// What a token is exchanged for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Right {
    /// A coordinator's certificate.
    Coordinator,
    /// A worker's.
    Worker,
    /// A cache node's.
    Cache,
    /// A client's, with this grant.
    Client(Grant),
}

impl Right {
    /// The role.
    pub const fn role(&self) -> Role {
        match self {
            Right::Coordinator => Role::Coordinator,
            Right::Worker => Role::Worker,
            Right::Cache => Role::Cache,
            Right::Client(_) => Role::Client,
        }
    }
}

/// A token, with its secret. There is no `Display`: writing the secret is [`Token::expose`].
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub struct Token {
    role: Role,
    fingerprint: Fingerprint,
    id: TokenId,
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {})", self.role, self.id)
    }
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenParseError {
    /// It does not begin as one.
    #[error("This is not a token: one begins with `slipway-` and a role")]
    NotOne,
    /// It is cut off, or something is added.
    #[error(
        "The token has {found} characters after the role instead of {BODY_CHARS}: copy all of it"
    )]
    Length {
        /// How many there are.
        found: usize,
    },
    /// One of its characters is wrong.
    #[error("The token is mistyped: its checksum is not right. Copy it again")]
    Typo,
}

impl Token {
    /// A new token and what the cluster keeps of it. `random` is from the system's generator, and
    /// used for nothing else; `uses` is how often the token may be used before `expires`, none for
    /// as often as one likes.
    pub fn mint(
        right: Right,
        fingerprint: Fingerprint,
        random: [u8; RANDOM_BYTES],
        expires: Millis,
        uses: Option<u32>,
    ) -> (Self, TokenRecord) {
        let (id, secret) = halves(random);
        let record = TokenRecord {
            id: TokenId(id),
            secret_hash: hash(&secret),
            right: right.clone(),
            expires,
            uses_left: uses,
            revoked: false,
        };
        (Self { role: right.role(), fingerprint, id: TokenId(id), secret }, record)
    }

    /// The role that it is for.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Which authority vouches for the cluster.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its name.
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The whole text, secret included: for the one who is to join, and for no log.
    pub fn expose(&self) -> String {
        let mut body = Vec::with_capacity(BODY_BYTES);
        body.extend_from_slice(&self.fingerprint.0);
        body.extend_from_slice(&self.id.0);
        body.extend_from_slice(&self.secret);
        body.extend_from_slice(&checksum(self.role, &body));
        format!("{PREFIX}{}-{}", self.role, BASE32_DNSSEC.encode(&body))
    }

    /// Reads what [`Token::expose`] writes; capitals are read as small letters.
    pub fn parse(text: &str) -> Result<Self, TokenParseError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TokenParseError::NotOne)?;
        let (role, body) = rest.split_once('-').ok_or(TokenParseError::NotOne)?;
        let role = Role::parse(role).ok_or(TokenParseError::NotOne)?;
        let found = body.chars().count();
        if found != BODY_CHARS {
            return Err(TokenParseError::Length { found });
        }
        let bytes = BASE32_DNSSEC.decode(body.as_bytes()).map_err(|_| TokenParseError::Typo)?;
        let (said, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if checksum(role, said) != sum {
            return Err(TokenParseError::Typo);
        }
        let (fingerprint, random) = said.split_at(FINGERPRINT_BYTES);
        let fingerprint = Fingerprint(fingerprint.try_into().map_err(|_| TokenParseError::Typo)?);
        let (id, secret) = halves(random.try_into().map_err(|_| TokenParseError::Typo)?);
        Ok(Self { role, fingerprint, id: TokenId(id), secret })
    }
}

fn halves(random: [u8; RANDOM_BYTES]) -> ([u8; ID_BYTES], [u8; SECRET_BYTES]) {
    let mut id = [0; ID_BYTES];
    let mut secret = [0; SECRET_BYTES];
    id.copy_from_slice(&random[..ID_BYTES]);
    secret.copy_from_slice(&random[ID_BYTES..]);
    (id, secret)
}

/// The role is part of it: a token whose role was changed is a typo too.
fn checksum(role: Role, said: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(role.as_str());
    hasher.update(said);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize()[..CHECKSUM_BYTES]);
    sum
}

/// 128 random bits need no slow hash: nobody guesses them.
fn hash(secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Why a token gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not this cluster's. Also said of ids that are not known: nobody learns which are.
    #[error("The token is not one of this cluster")]
    Wrong,
    /// Somebody took it back.
    #[error("The token was revoked; ask for a new one (`slipway token create`)")]
    Revoked,
    /// Its time is over.
    #[error("The token has expired; ask for a new one (`slipway token create`)")]
    Expired,
    /// It was used as often as it may be.
    #[error("The token was used up; ask for a new one (`slipway token create`)")]
    UsedUp,
}

/// What a cluster keeps of a token.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// What it is exchanged for.
    pub right: Right,
    /// From when on it gives nothing.
    pub expires: Millis,
    /// How often it may still be used; none for as often as one likes.
    pub uses_left: Option<u32>,
    /// Whether it was taken back.
    pub revoked: bool,
}

impl TokenRecord {
    /// Whether a token gives what this record says. Takes as long for a wrong secret as for the
    /// right one; how the record stands is told only to who has the secret.
    pub fn admits(&self, token: &Token, now: Millis) -> Result<(), TokenError> {
        let is_right = hash(&token.secret).ct_eq(&self.secret_hash);
        if token.id != self.id || token.role != self.right.role() || !bool::from(is_right) {
            return Err(TokenError::Wrong);
        }
        if self.revoked {
            return Err(TokenError::Revoked);
        }
        if now >= self.expires {
            return Err(TokenError::Expired);
        }
        if self.uses_left == Some(0) {
            return Err(TokenError::UsedUp);
        }
        Ok(())
    }

    /// Counts one use.
    pub fn spend(&mut self) {
        self.uses_left = self.uses_left.map(|n| n.saturating_sub(1));
    }

    /// Who one becomes by it.
    pub fn subject(&self, cluster: ClusterId, name: NodeName) -> Result<Subject, RolesError> {
        match &self.right {
            Right::Client(grant) => Ok(Subject::client(cluster, name, grant.clone())),
            node => Subject::node(cluster, name, [node.role()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Project;
    use proptest::prelude::*;
    use proto::id::Scope;

    const HOUR: Millis = Millis(3_600_000);

    fn mint(right: Right) -> (Token, TokenRecord) {
        let random = std::array::from_fn(|i| i as u8 * 37);
        Token::mint(right, Fingerprint::of(b"ca"), random, HOUR, Some(2))
    }

    fn client() -> Right {
        Right::Client(Grant {
            project: Project::parse("shop").unwrap(),
            scope: Scope::trusted(),
            priority_max: 5,
            admin: true,
        })
    }

    #[test]
    fn tokens_are_read_as_they_are_written() {
        for right in [Right::Coordinator, Right::Worker, Right::Cache, client()] {
            let (token, record) = mint(right.clone());
            let text = token.expose();
            assert!(text.starts_with(&format!("slipway-{}-", right.role())));
            let again = Token::parse(&text).unwrap();
            assert_eq!(again, token);
            assert_eq!(again.fingerprint(), Fingerprint::of(b"ca"));
            assert_eq!(record.admits(&again, Millis(0)), Ok(()));
        }
    }

    #[test]
    fn each_flipped_character_is_a_typo() {
        let text = mint(Right::Worker).0.expose();
        let others = "abcdefghijklmnopqrstuvwxyz0123456789-ABXZ _/\u{e4}";
        for (at, old) in text.char_indices() {
            for new in others.chars().filter(|c| *c != old) {
                let mut flipped = text.clone();
                flipped.replace_range(at..at + old.len_utf8(), &new.to_string());
                if flipped.eq_ignore_ascii_case(&text) {
                    continue;
                }
                let error = Token::parse(&flipped).unwrap_err();
                let is_body = at >= "slipway-worker-".len();
                assert_eq!(error == TokenParseError::Typo, is_body, "{flipped}: {error}");
            }
        }
    }

    #[test]
    fn cut_or_foreign_texts_are_no_tokens() {
        let text = mint(Right::Worker).0.expose();
        for end in 0..text.len() {
            assert!(Token::parse(&text[..end]).is_err());
        }
        let length = TokenParseError::Length { found: BODY_CHARS + 1 };
        assert_eq!(Token::parse(&format!("{text}0")), Err(length));
        let other_role = text.replace("worker", "cache");
        assert_eq!(Token::parse(&other_role), Err(TokenParseError::Typo));
        assert_eq!(Token::parse("ghp_abc"), Err(TokenParseError::NotOne));
        assert_eq!(Token::parse(&text.to_uppercase()), Err(TokenParseError::NotOne));
    }

    #[test]
    fn a_record_admits_its_token_while_it_may() {
        let (token, mut record) = mint(Right::Cache);
        assert_eq!(record.admits(&token, Millis(HOUR.0 - 1)), Ok(()));
        assert_eq!(record.admits(&token, HOUR), Err(TokenError::Expired));
        record.spend();
        assert_eq!(record.admits(&token, Millis(0)), Ok(()));
        record.spend();
        assert_eq!(record.admits(&token, Millis(0)), Err(TokenError::UsedUp));
        record.spend();
        record.uses_left = None;
        record.spend();
        assert_eq!(record.admits(&token, Millis(0)), Ok(()));
        record.revoked = true;
        assert_eq!(record.admits(&token, Millis(0)), Err(TokenError::Revoked));
    }

    #[test]
    fn a_wrong_token_learns_nothing() {
        let (token, mut record) = mint(Right::Worker);
        record.revoked = true;
        let wrong = |change: fn(&mut Token)| {
            let mut other = token.clone();
            change(&mut other);
            assert_eq!(record.admits(&other, HOUR), Err(TokenError::Wrong));
        };
        wrong(|t| t.secret[15] ^= 1);
        wrong(|t| t.id.0[0] ^= 1);
        wrong(|t| t.role = Role::Coordinator);
    }

    #[test]
    fn the_secret_is_in_no_debug_text() {
        let (token, record) = mint(Right::Worker);
        let shown = format!("{token:?} {record:?}");
        let secret = data_encoding::HEXLOWER.encode(&token.secret);
        assert!(!shown.contains(&format!("{:?}", token.secret)));
        assert!(!shown.contains(&secret) && !shown.contains(&token.expose()));
        assert!(shown.contains(&token.id().to_string()));
        assert_eq!(TokenId::parse(&token.id().to_string()), Some(token.id()));
        assert_eq!(TokenId::parse("xyz"), None);
    }

    #[test]
    fn records_travel_in_the_log() {
        let (token, record) = mint(client());
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&record).unwrap();
        let again = rkyv::from_bytes::<TokenRecord, rkyv::rancor::Error>(&bytes).unwrap();
        assert_eq!(again, record);
        let name = NodeName::parse("ann").unwrap();
        let subject = again.subject(ClusterId::parse("acme").unwrap(), name).unwrap();
        assert!(subject.has(Role::Client) && subject.grant().unwrap().admin);
        assert_eq!(token.role(), Role::Client);
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_by_chance(text in "slipway-(worker|cache)-[0-9a-v]{96}") {
            prop_assert_eq!(Token::parse(&text), Err(TokenParseError::Typo));
        }
    }
}

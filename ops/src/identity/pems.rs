//! A key and its certificates in one file, so that there is no moment in which they do not fit.

use crate::files;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use std::io;
use std::path::{Path, PathBuf};

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

/// Why an identity or an authority is not kept, or not found again.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is not there.
    #[error("There is no {}: {hint}", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The file cannot be read.
    #[error("Reading {} failed: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("Writing {} failed: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in the file is not what was written.
    #[error("{} is damaged: {detail}. {hint}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Where a key is kept with its certificates.
pub struct Keep {
    /// The file's name.
    pub name: &'static str,
    /// How many certificates are in it.
    pub certificates: usize,
    /// What to do when it is not there.
    pub missing: &'static str,
    /// What to do when it is damaged.
    pub damaged: &'static str,
}

impl Keep {
    /// Writes the file into a directory, which is made when it is not there.
    pub fn save(
        &self,
        dir: &Path,
        key: &KeyPair,
        certificates: &[&CertificateDer<'_>],
    ) -> Result<(), KeepError> {
        let mut parts = vec![Pem::new(KEY, key.serialized_der())];
        parts.extend(certificates.iter().map(|c| Pem::new(CERTIFICATE, c.as_ref())));
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        let text = pem::encode_many_config(&parts, config);
        files::make_dir(dir)
            .and_then(|()| files::write(dir, self.name, text.as_bytes()))
            .map_err(|source| KeepError::Write { path: dir.join(self.name), source })
    }

    /// Reads the file of a directory, and gives its parts to `check`.
    pub fn load<T>(
        &self,
        dir: &Path,
        check: impl FnOnce(KeyPair, Vec<CertificateDer<'static>>) -> Result<T, String>,
    ) -> Result<T, KeepError> {
        let path = dir.join(self.name);
        let text = files::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                KeepError::Missing { path: path.clone(), hint: self.missing }
            }
            _ => KeepError::Read { path: path.clone(), source },
        })?;
        let whole = self.parts(&text).and_then(|(key, certificates)| check(key, certificates));
        whole.map_err(|detail| KeepError::Damaged { path, detail, hint: self.damaged })
    }

    fn parts(&self, text: &str) -> Result<(KeyPair, Vec<CertificateDer<'static>>), String> {
        let parts = pem::parse_many(text).map_err(|e| e.to_string())?;
        let tags: Vec<&str> = parts.iter().map(Pem::tag).collect();
        let (expected, count) = (CERTIFICATE, self.certificates);
        match &tags[..] {
            [KEY, rest @ ..] if rest.len() == count && rest.iter().all(|t| *t == expected) => {}
            _ => return Err(format!("expected one key and {count} certificate(s)")),
        }
        let mut parts = parts.into_iter().map(Pem::into_contents);
        let key = parts.next().unwrap_or_default();
        let key = KeyPair::try_from(key).map_err(|e| format!("the key cannot be read ({e})"))?;
        Ok((key, parts.map(CertificateDer::from).collect()))
    }
}

/// Whether a key is the one that a certificate is for.
pub fn fits(key: &KeyPair, public_key: &[u8]) -> bool {
    key.subject_public_key_info() == public_key
}

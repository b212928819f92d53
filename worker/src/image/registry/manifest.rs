//! Manifests and indexes: asked for, and given.

use super::call::{Body, Call, Target, read_body};
use super::document::DOCUMENTS;
use super::{Reference, RegistryError, Session};
use crate::image::sha::sha256;
use bytes::Bytes;
use proto::id::OciDigest;
use proto::limit;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response};

const DIGEST: &str = "docker-content-digest";

/// A manifest or index as it came.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub bytes: Bytes,
    pub digest: OciDigest,
    pub media_type: String,
}

/// What a reference is asked for by, and the digest that must come when it says one.
pub(super) fn named(reference: &Reference) -> Result<(String, Option<OciDigest>), RegistryError> {
    let Some(digest) = reference.digest() else {
        return Ok((reference.tag().unwrap_or("latest").to_owned(), None));
    };
    let digest = OciDigest::parse(digest).map_err(|e| RegistryError::Reference {
        text: reference.to_string(),
        why: e.to_string(),
    })?;
    Ok((digest.to_string(), Some(digest)))
}

impl Session {
    /// The digest of what is there under a tag or digest; None when the registry does not say
    /// without sending it all.
    pub(super) async fn manifest_digest(
        &self,
        target: &Target<'_>,
        name: &str,
    ) -> Result<Option<OciDigest>, RegistryError> {
        let url = target.url(&format!("manifests/{name}"))?;
        let call = Call::new(Method::HEAD, url).header(ACCEPT, DOCUMENTS.join(", "));
        let response = self.send(target, &call).await?;
        match response.status().as_u16() {
            200..=299 => Ok(digest_of(response.headers())),
            401 | 403 | 404 => Err(self.refused(target, response).await),
            // Not everything that answers GET answers HEAD; and if it refuses, it says why.
            _ => Ok(None),
        }
    }

    /// What is there under a tag or digest. `expected` is the digest that it must have.
    pub(super) async fn manifest(
        &self,
        target: &Target<'_>,
        name: &str,
        expected: Option<&OciDigest>,
    ) -> Result<Fetched, RegistryError> {
        let url = target.url(&format!("manifests/{name}"))?;
        let call = Call::new(Method::GET, url).header(ACCEPT, DOCUMENTS.join(", "));
        let (headers, bytes) = self.small(target, &call, limit::MANIFEST_BYTES_MAX).await?;
        let digest = sha256(&bytes);
        let said = digest_of(&headers);
        if let Some(wrong) = expected.into_iter().chain(&said).find(|d| **d != digest) {
            return Err(target.wrong_bytes(format!("expected {wrong}, got {digest}")));
        }
        let media_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        Ok(Fetched { bytes, digest, media_type: media_type.trim().to_owned() })
    }

    /// A response whose body fits in memory. A connection that breaks is tried again.
    pub(super) async fn small(
        &self,
        target: &Target<'_>,
        call: &Call<'_>,
        limit: usize,
    ) -> Result<(HeaderMap, Bytes), RegistryError> {
        let retry = self.registry.0.config.retry;
        let mut failures = 0;
        loop {
            let response = self.send(target, call).await?;
            if !response.status().is_success() {
                return Err(self.refused(target, response).await);
            }
            let headers = response.headers().clone();
            match read_body(response, limit + 1).await {
                Ok(bytes) if bytes.len() > limit => return Err(target.too_large(limit as u64)),
                Ok(bytes) => return Ok((headers, bytes)),
                Err(e) => {
                    failures += 1;
                    if failures >= retry.attempts {
                        return Err(target.unreachable(e));
                    }
                    tokio::time::sleep(retry.wait(failures, super::call::chance(), None)).await;
                }
            }
        }
    }

    /// Puts a manifest or index under a tag or its digest.
    pub(super) async fn put_manifest(
        &self,
        target: &Target<'_>,
        name: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let url = target.url(&format!("manifests/{name}"))?;
        let digest = sha256(&bytes);
        let call = Call::new(Method::PUT, url).header(CONTENT_TYPE, media_type);
        let response: Response = self.send(target, &call.body(Body::Bytes(bytes))).await?;
        if !response.status().is_success() {
            return Err(self.refused(target, response).await);
        }
        match digest_of(response.headers()) {
            Some(other) if other != digest => {
                Err(target.wrong_bytes(format!("we sent {digest}, and it keeps {other}")))
            }
            _ => Ok(()),
        }
    }
}

/// The digest that the registry says, if it is a SHA-256.
fn digest_of(headers: &HeaderMap) -> Option<OciDigest> {
    OciDigest::parse(headers.get(DIGEST)?.to_str().ok()?).ok()
}

//! Blobs: asked for, from any byte on.

use super::call::{Access, Call, Target, causes};
use super::{Reference, RegistryError, Session};
use crate::image::sha::sha256;
use bytes::Bytes;
use cache::meter::{self, Kind};
use proto::id::OciDigest;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};

/// A blob on its way. It goes on after broken connections, by itself; what it gives is not verified
/// yet.
pub struct Download<'s> {
    session: &'s Session,
    target: Target<'s>,
    digest: OciDigest,
    response: Option<Response>,
    /// Bytes given so far.
    at: u64,
    /// Bytes of the present response that were given before.
    skip: u64,
    failures: u32,
}

impl Session {
    /// Begins to download a blob from one host.
    pub(crate) fn download<'s>(
        &'s self,
        endpoint: &'s super::Endpoint,
        reference: &Reference,
        digest: OciDigest,
        what: String,
    ) -> Download<'s> {
        let target = Target::new(endpoint, reference, Access::Pull, what);
        Download { session: self, target, digest, response: None, at: 0, skip: 0, failures: 0 }
    }

    /// A blob that fits in memory, of at most `limit` bytes.
    pub(super) async fn blob_in_memory(
        &self,
        target: &Target<'_>,
        digest: &OciDigest,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let call = Call::new(Method::GET, target.url(&format!("blobs/{digest}"))?);
        let (_, bytes) = self.small(target, &call, limit).await?;
        let actual = sha256(&bytes);
        if actual != *digest {
            return Err(target.wrong_bytes(format!("expected {digest}, got {actual}")));
        }
        Ok(bytes)
    }

    /// Whether the registry has the blob.
    pub(super) async fn has_blob(
        &self,
        target: &Target<'_>,
        digest: &OciDigest,
    ) -> Result<bool, RegistryError> {
        let call = Call::new(Method::HEAD, target.url(&format!("blobs/{digest}"))?);
        let response = self.send(target, &call).await?;
        match response.status().as_u16() {
            200..=299 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused(target, response).await),
        }
    }
}

impl Download<'_> {
    /// The next bytes; None at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let response = match &mut self.response {
                Some(response) => response,
                None => self.request().await?,
            };
            match response.chunk().await {
                Ok(Some(mut bytes)) => {
                    let known = self.skip.min(bytes.len() as u64);
                    self.skip -= known;
                    let _ = bytes.split_to(known as usize);
                    if bytes.is_empty() {
                        continue;
                    }
                    self.at += bytes.len() as u64;
                    meter::add(Kind::Pulled, bytes.len() as u64);
                    // What counts are failures without any progress between them.
                    self.failures = 0;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(e) => self.broken(causes(&e)).await?,
            }
        }
    }

    /// That the bytes end too early: the connection was closed as if they had all come.
    pub async fn broken(&mut self, why: String) -> Result<(), RegistryError> {
        let retry = self.session.registry.0.config.retry;
        self.failures += 1;
        if self.failures >= retry.attempts {
            let detail = format!("the connection broke after {} bytes: {why}", self.at);
            return Err(self.target.unreachable(detail));
        }
        self.response = None;
        tokio::time::sleep(retry.wait(self.failures, super::call::chance(), None)).await;
        Ok(())
    }

    /// The error of bytes that are not what was asked for.
    pub fn wrong(&self, detail: String) -> RegistryError {
        self.target.wrong_bytes(detail)
    }

    async fn request(&mut self) -> Result<&mut Response, RegistryError> {
        let url = self.target.url(&format!("blobs/{}", self.digest))?;
        let mut call = Call::new(Method::GET, url);
        if self.at > 0 {
            call = call.header(RANGE, format!("bytes={}-", self.at));
        }
        let response = self.session.send(&self.target, &call).await?;
        // Who does not know ranges sends all of it again.
        self.skip = match response.status().as_u16() {
            206 if begins_at(&response) == Some(self.at) => 0,
            200 => self.at,
            206 => {
                let detail = format!("asked for bytes from {} on, got others", self.at);
                return Err(self.target.wrong_bytes(detail));
            }
            _ => return Err(self.session.refused(&self.target, response).await),
        };
        Ok(self.response.insert(response))
    }
}

/// Where a partial response begins: `bytes 100-199/200`.
fn begins_at(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

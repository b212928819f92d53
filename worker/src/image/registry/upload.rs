//! Blobs and manifests: given.

use super::call::{Access, Body, Call, Target};
use super::{Reference, RegistryError, Session};
use bytes::Bytes;
use proto::id::OciDigest;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

/// The bytes of a blob, as often as they are needed.
pub struct Content<'c> {
    /// How many.
    pub size: u64,
    /// Makes a stream of them.
    pub stream: &'c (dyn Fn() -> reqwest::Body + Send + Sync),
}

/// How a blob came to be at the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Present,
    /// It was mounted from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

impl Session {
    /// Sees to it that the reference's repository has a blob: by looking, unless it `is_absent` for
    /// sure, by mounting it from `other` (a repository of the same registry), by sending it.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        digest: &OciDigest,
        other: Option<&str>,
        is_absent: bool,
        content: Content<'_>,
    ) -> Result<Uploaded, RegistryError> {
        let endpoint = self.itself(reference);
        let what = format!("blob {} of {reference}", digest.short());
        let target = Target::new(&endpoint, reference, Access::Push, what);
        if !is_absent && self.has_blob(&target, digest).await? {
            return Ok(Uploaded::Present);
        }
        let mut begun = match other {
            Some(from) => match self.mount(&target, digest, from).await? {
                Mount::Done => return Ok(Uploaded::Mounted),
                Mount::Begun(upload) => Some(upload),
                Mount::Refused => None,
            },
            None => None,
        };
        let retry = self.registry.0.config.retry;
        let mut failures = 0;
        loop {
            let upload = match begun.take() {
                Some(upload) => upload,
                None => self.begin_plain(&target).await?,
            };
            match self.finish(&target, upload, digest, &content).await? {
                Done::Stored => return Ok(Uploaded::Sent),
                // The upload was forgotten (a registry was restarted): a new one is begun.
                Done::Lost(error) => {
                    failures += 1;
                    if failures >= retry.attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(retry.wait(failures, super::call::chance(), None)).await;
                }
            }
        }
    }

    /// Whether the reference's repository has a blob, if need be mounted from `other`.
    pub async fn holds_blob(
        &self,
        reference: &Reference,
        digest: &OciDigest,
        other: Option<&str>,
    ) -> Result<bool, RegistryError> {
        let endpoint = self.itself(reference);
        let what = format!("blob {} of {reference}", digest.short());
        let target = Target::new(&endpoint, reference, Access::Push, what);
        if self.has_blob(&target, digest).await? {
            return Ok(true);
        }
        let Some(from) = other else { return Ok(false) };
        match self.mount(&target, digest, from).await? {
            Mount::Done => Ok(true),
            Mount::Begun(upload) => {
                self.cancel(&target, upload).await;
                Ok(false)
            }
            Mount::Refused => Ok(false),
        }
    }

    /// Puts a manifest or index under the reference's tag, or under its digest when there is no
    /// tag or `by_digest` says so.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        by_digest: bool,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let endpoint = self.itself(reference);
        let target = Target::new(&endpoint, reference, Access::Push, reference.to_string());
        let name = match reference.tag().filter(|_| !by_digest) {
            Some(tag) => tag.to_owned(),
            None => crate::image::sha::sha256(&bytes).to_string(),
        };
        self.put_manifest(&target, &name, media_type, bytes).await
    }

    /// Asks for a blob of another repository.
    async fn mount(
        &self,
        target: &Target<'_>,
        digest: &OciDigest,
        from: &str,
    ) -> Result<Mount, RegistryError> {
        let target = Target { access: Access::Mount(from.to_owned()), ..target.clone() };
        match self.begin(&target, Some((digest, from))).await {
            Ok(None) => Ok(Mount::Done),
            Ok(Some(upload)) => Ok(Mount::Begun(upload)),
            // The login may not see the other repository; it can send the blob yet.
            Err(RegistryError::Unauthorised { .. } | RegistryError::NotFound { .. }) => {
                Ok(Mount::Refused)
            }
            Err(e) => Err(e),
        }
    }

    /// Gives up an upload that is not needed. A registry that does not let us forgets it some time.
    async fn cancel(&self, target: &Target<'_>, upload: Url) {
        match self.send(target, &Call::new(Method::DELETE, upload)).await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => {
                tracing::debug!(status = %response.status(), "an upload stays open: {}", target.what);
            }
            Err(e) => tracing::debug!("an upload stays open: {e}"),
        }
    }

    async fn begin_plain(&self, target: &Target<'_>) -> Result<Url, RegistryError> {
        let begun = self.begin(target, None).await?;
        begun.ok_or_else(|| target.unreachable("it mounts what nobody asked for".into()))
    }

    /// Begins an upload. None when the blob was mounted.
    async fn begin(
        &self,
        target: &Target<'_>,
        mount: Option<(&OciDigest, &str)>,
    ) -> Result<Option<Url>, RegistryError> {
        let mut url = target.url("blobs/uploads/")?;
        if let Some((digest, from)) = mount {
            let mut query = url.query_pairs_mut();
            query.append_pair("mount", &digest.to_string()).append_pair("from", from);
        }
        let call = Call::new(Method::POST, url);
        let response = self.send(target, &call).await?;
        match response.status() {
            StatusCode::CREATED if mount.is_some() => Ok(None),
            StatusCode::ACCEPTED => location(target, &response).map(Some),
            _ => Err(self.refused(target, response).await),
        }
    }

    async fn finish(
        &self,
        target: &Target<'_>,
        mut upload: Url,
        digest: &OciDigest,
        content: &Content<'_>,
    ) -> Result<Done, RegistryError> {
        upload.query_pairs_mut().append_pair("digest", &digest.to_string());
        let call = Call::new(Method::PUT, upload)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(Body::Stream(content.size, content.stream));
        let response = self.send(target, &call).await?;
        match response.status().as_u16() {
            200..=299 => Ok(Done::Stored),
            // Sent twice, because the first answer was lost: it may be there all the same.
            404 | 416 if self.has_blob(target, digest).await? => Ok(Done::Stored),
            404 | 416 => Ok(Done::Lost(self.refused(target, response).await)),
            _ => Err(self.refused(target, response).await),
        }
    }
}

/// What a registry says when it is asked for a blob of another repository.
enum Mount {
    Done,
    /// Nothing but an upload, as if it had not been asked for one.
    Begun(Url),
    /// This login may not.
    Refused,
}

enum Done {
    Stored,
    Lost(RegistryError),
}

/// Where an upload goes on: absolute, or relative to what was asked.
fn location(target: &Target<'_>, response: &Response) -> Result<Url, RegistryError> {
    let text = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    let joined = text.and_then(|text| response.url().join(text).ok());
    joined.ok_or_else(|| target.unreachable("it begins an upload, and does not say where".into()))
}

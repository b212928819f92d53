//! Files from web servers: `ADD https://…`.

mod body;

use super::Machine;
use super::images::{registry_failure, store_failure};
use super::link::moved;
use crate::image::registry::causes;
use crate::image::sha::Sha;
use crate::image::unpack::newest_file;
use crate::image::{blocking, rows};
use body::Body;
use cache::meter::{self, Kind};
use cache::store::{OciBlob, Store, StoreError};
use flate2::bufread::MultiGzDecoder;
use proto::error::{Class, Failure};
use proto::id::{BlobId, OciDigest, RootId};
use proto::path::FileName;
use proto::step::HttpOp;
use proto::tree::{Dir, Entry, Meta, Mtime, Node, Presence, Root};
use proto::wire::worker::Moved;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_DISPOSITION, CONTENT_ENCODING, ETAG, HeaderMap, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use reqwest::{Response, StatusCode, Url};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::{Arc, Mutex};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::mpsc;

/// Pieces that wait between a connection and the store.
const PIECES: usize = 16;

/// URLs whose answers are remembered.
const KNOWN_MAX: usize = 1024;

/// What was found at URLs, so that a server can say that nothing changed.
#[derive(Default)]
pub struct Web(Mutex<HashMap<String, Known>>);

#[derive(Clone)]
struct Known {
    etag: String,
    file: Found,
}

/// What is at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// SHA-256 of its bytes.
    pub digest: OciDigest,
    /// The name that the server gives it.
    pub name: Option<String>,
    /// When it was changed last: seconds since 1970.
    pub modified: Option<i64>,
}

fn failed(url: &Url, why: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Unavailable, format!("Downloading {url} failed: {why}"))
}

/// Downloads what is at a URL, unless it is here and the server says that it is the same.
pub async fn find(
    machine: &Arc<Machine>,
    url: &str,
    told: impl Fn(Moved),
) -> Result<Found, Failure> {
    let parsed = Url::parse(url)
        .map_err(|e| Failure::new(Class::User, format!("`{url}` is not a URL: {e}")))?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let client = machine.registry.client(&host).map_err(|e| registry_failure(&e))?;
    let known = machine.web.known(url).filter(|known| is_here(machine, &known.file.digest));
    // As BuildKit's client does: it asks for gzip, and what counts is what comes out of it.
    let mut request = client.get(parsed.clone()).header(ACCEPT_ENCODING, "gzip");
    if let Some(known) = &known {
        request = request.header(IF_NONE_MATCH, &known.etag);
    }
    let answer = request.send().await.map_err(|e| failed(&parsed, causes(&e.without_url())))?;
    match (answer.status(), known) {
        (StatusCode::NOT_MODIFIED, Some(known)) => return Ok(known.file),
        (status, _) if status.is_success() => {}
        (status, _) => {
            let failure = failed(&parsed, format!("the server answered {status}"));
            return Err(match status.as_u16() {
                404 | 410 => failure.hint("Check the URL."),
                401 | 403 => failure.hint("The server asks for a login, which ADD has none of."),
                _ => failure,
            });
        }
    }
    let headers = answer.headers().clone();
    let (digest, row) = keep(machine, &parsed, answer, told).await?;
    let store = machine.store.clone();
    let put = blocking(move || rows::put_oci_blob(&*store, &digest, row)).await;
    put.map_err(|e| store_failure(&e))?;
    let file = Found { digest, name: given_name(&headers), modified: modified(&headers) };
    if let Some(etag) = text(&headers, ETAG.as_str()) {
        machine.web.learn(url, Known { etag: etag.to_owned(), file: file.clone() });
    }
    Ok(file)
}

fn is_here(machine: &Machine, digest: &OciDigest) -> bool {
    matches!(rows::oci_blob(&*machine.store, digest), Ok(Some(_)))
}

async fn keep(
    machine: &Machine,
    url: &Url,
    mut answer: Response,
    told: impl Fn(Moved),
) -> Result<(OciDigest, OciBlob), Failure> {
    let total = answer.content_length().unwrap_or(0);
    let encoding = text(answer.headers(), CONTENT_ENCODING.as_str());
    let gzip = encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip"));
    let (pieces, to_write) = mpsc::channel(PIECES);
    let store = machine.store.clone();
    let writing = tokio::task::spawn_blocking(move || write(&*store, Body::new(to_write), gzip));
    let mut at = 0;
    while let Some(piece) =
        answer.chunk().await.map_err(|e| failed(url, causes(&e.without_url())))?
    {
        at += piece.len() as u64;
        meter::add(Kind::Pulled, piece.len() as u64);
        told(moved(url.to_string(), at, total.max(at)));
        if pieces.send(Some(piece)).await.is_err() {
            break;
        }
    }
    // Only who says so has written all of it: a download that is given up just goes away.
    let _ = pieces.send(None).await;
    drop(pieces);
    let written = writing.await.map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
    let (digest, blob, size) = written.map_err(|error| match error {
        WriteError::Store(e) => store_failure(&e),
        WriteError::Body(e) => failed(url, e),
    })?;
    Ok((digest, OciBlob { blob, size, repository: None }))
}

/// Why a file was not written.
enum WriteError {
    /// The store did not take it.
    Store(StoreError),
    /// It did not come whole, or is not encoded as the server says.
    Body(std::io::Error),
}

/// Writes what comes, unpacked if the server packed it for the way.
fn write(
    store: &dyn Store,
    mut body: Body,
    gzip: bool,
) -> Result<(OciDigest, BlobId, u64), WriteError> {
    let (mut writer, mut sha) = (store.writer().map_err(WriteError::Store)?, Sha::new());
    // Nothing at all is no gzip, and yet not wrong: a body of nothing is not packed.
    let is_empty = body.fill_buf().map_err(WriteError::Body)?.is_empty();
    let mut bytes: Box<dyn BufRead> = match gzip && !is_empty {
        true => Box::new(BufReader::with_capacity(64 << 10, MultiGzDecoder::new(body))),
        false => Box::new(body),
    };
    loop {
        let piece = bytes.fill_buf().map_err(WriteError::Body)?;
        if piece.is_empty() {
            let (blob, size) = writer.finish(None).map_err(WriteError::Store)?;
            return Ok((sha.finish(), blob, size));
        }
        sha.update(piece);
        let written = writer.write_all(piece);
        written.map_err(|e| WriteError::Store(crate::image::unpack::write_error(e)))?;
        let length = piece.len();
        bytes.consume(length);
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// `Content-Disposition: attachment; filename="x.tar"` (RFC 6266).
fn given_name(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, CONTENT_DISPOSITION.as_str())?;
    let name = value.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    let name = name.trim_matches('"').rsplit(['/', '\\']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// When the server says that a file was changed last, in seconds since 1970.
pub fn modified(headers: &HeaderMap) -> Option<i64> {
    let value = text(headers, LAST_MODIFIED.as_str())?;
    // RFC 9110 writes `GMT` where RFC 2822 has `+0000`; both are the same.
    let value = value.replace("GMT", "+0000");
    OffsetDateTime::parse(&value, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

impl Web {
    fn known(&self, url: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).get(url).cloned()
    }

    fn learn(&self, url: &str, known: Known) {
        let mut all = self.0.lock().unwrap_or_else(|p| p.into_inner());
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(url.to_owned(), known);
    }
}

fn mismatch(url: &str, expected: &OciDigest, actual: &OciDigest) -> Failure {
    let message = format!("{url} has the digest {actual}, and {expected} was expected");
    Failure::new(Class::User, message)
}

/// Downloads what was found at a URL, unless it is here.
async fn bring(
    machine: &Arc<Machine>,
    url: &str,
    resolved: &OciDigest,
    told: impl Fn(Moved),
) -> Result<(), Failure> {
    if is_here(machine, resolved) {
        return Ok(());
    }
    let found = find(machine, url, told).await?;
    if found.digest != *resolved {
        return Err(mismatch(url, resolved, &found.digest)
            .hint("It changed while the build ran; build again."));
    }
    Ok(())
}

/// The time of the newest file in the archive that was found at a URL, in seconds since 1970; none
/// when it is no archive.
pub async fn newest(
    machine: &Arc<Machine>,
    url: &str,
    digest: &OciDigest,
    told: impl Fn(Moved),
) -> Result<Option<i64>, Failure> {
    bring(machine, url, digest, told).await?;
    let (store, url, digest) = (machine.store.clone(), url.to_owned(), *digest);
    let _one = machine.puller.processor().await;
    blocking(move || {
        let row = row(&*store, &url, &digest)?;
        let file = store.open(&row.blob, 0).map_err(|e| store_failure(&e))?;
        newest_file(file).map_err(|e| {
            let message = format!("Reading what {url} gave, from the store, failed: {e}");
            Failure::new(Class::Unavailable, message)
        })
    })
    .await
}

fn row(store: &dyn Store, url: &str, digest: &OciDigest) -> Result<OciBlob, Failure> {
    let gone = || Failure::new(Class::Unavailable, format!("{url} is gone from the store"));
    rows::oci_blob(store, digest).map_err(|e| store_failure(&e))?.ok_or_else(gone)
}

/// The file as a tree of its own, which holds nothing else.
pub async fn file(
    machine: &Arc<Machine>,
    op: &HttpOp,
    told: impl Fn(Moved),
) -> Result<RootId, Failure> {
    if let Some(checksum) = op.checksum.filter(|checksum| *checksum != op.resolved) {
        return Err(mismatch(&op.url, &checksum, &op.resolved)
            .hint("Check the URL, or put the new digest into --checksum."));
    }
    bring(machine, &op.url, &op.resolved, told).await?;
    let (store, op) = (machine.store.clone(), op.clone());
    blocking(move || tree(&*store, &op)).await
}

fn tree(store: &dyn Store, op: &HttpOp) -> Result<RootId, Failure> {
    let row = row(store, &op.url, &op.resolved)?;
    let name = FileName::new(op.name.as_bytes()).map_err(|e| {
        Failure::new(Class::User, format!("The name of what is at {}: {e}", op.url))
    })?;
    // As BuildKit's `source/http`: nobody else may read it, and a server that gives no time gives 0.
    let mtime = Mtime { seconds: op.modified.unwrap_or(0), nanos: 0 };
    let node = Node::File { blob: row.blob, size: row.size, link: None };
    let entry = Entry { name, meta: Meta::root_owned(0o600, mtime), node };
    let dir = Dir::new(vec![entry]).seal();
    let meta = Meta::root_owned(0o755, Mtime::default());
    let (root, bytes) = Root { meta, dir: dir.dir, presence: Presence::Merge }.seal();
    store.put_nodes(&[dir.bytes, bytes]).map_err(|e| store_failure(&e))?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::store::memory::MemoryStore;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use reqwest::header::HeaderValue;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    }

    /// What is written of a body that comes in pieces of five bytes.
    fn written(bytes: &[u8], gzip: bool) -> Result<Vec<u8>, String> {
        let store = MemoryStore::new();
        let (pieces, body) = mpsc::channel(bytes.len() + 1);
        for piece in bytes.chunks(5) {
            pieces.try_send(Some(bytes::Bytes::copy_from_slice(piece))).unwrap();
        }
        pieces.try_send(None).unwrap();
        match write(&store, Body::new(body), gzip) {
            Ok((digest, blob, size)) => {
                let bytes = store.read(&blob).unwrap().to_vec();
                assert_eq!(
                    (size as usize, digest),
                    (bytes.len(), crate::image::sha::sha256(&bytes))
                );
                Ok(bytes)
            }
            Err(WriteError::Body(e)) => Err(e.to_string()),
            Err(WriteError::Store(e)) => panic!("{e}"),
        }
    }

    #[test]
    fn what_a_server_packs_for_the_way_is_unpacked() {
        let (text, more) = (b"some text, some text".as_slice(), b"and more".as_slice());
        assert_eq!(written(text, false).unwrap(), text);
        assert_eq!(written(&packed(text), false).unwrap(), packed(text));
        assert_eq!(written(&packed(text), true).unwrap(), text);
        let two = [packed(text), packed(more)].concat();
        assert_eq!(written(&two, true).unwrap(), [text, more].concat());
        assert_eq!(written(b"", true).unwrap(), b"");
        let whole = packed(text);
        for bad in [text, &whole[..whole.len() - 1], &whole[..5], &[&whole[..], text].concat()] {
            assert!(written(bad, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_servers_say_of_a_file() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static("attachment; filename=\"../x.tar\"");
        headers.insert(CONTENT_DISPOSITION, value);
        let value = HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT");
        headers.insert(LAST_MODIFIED, value);
        assert_eq!(given_name(&headers).as_deref(), Some("x.tar"));
        assert_eq!(modified(&headers), Some(1_445_412_480));
        assert_eq!((given_name(&HeaderMap::new()), modified(&HeaderMap::new())), (None, None));
    }
}

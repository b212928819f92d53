//! Pushing to a real registry.

use crate::sample::{image, layer, tar_of_all_kinds};
use crate::server::{Reply, Server};
use crate::setup::{DockerRegistry, amd64, config, quiet, reference, session, store};
use proto::platform::Platform;
use proto::wire::build::MediaTypes;
use std::collections::{BTreeMap, BTreeSet};
use worker::image::manifest::{Annotations, Assembled, ImageSet};
use worker::image::pull::Puller;
use worker::image::push::{self, Source, push};
use worker::image::registry::{Freshness, RegistryError, Uploaded};

const ASK: Freshness = Freshness::Ask;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_comes_back() {
    let registry = DockerRegistry::start();
    let (store, session) = (store(), session(config()));
    let diff = layer(&*store, &tar_of_all_kinds());
    for (media, name) in [(MediaTypes::Oci, "team/oci:1"), (MediaTypes::Docker, "docker:latest")] {
        let set = ImageSet::single(image(&store, &[diff], media));
        let name = reference(&format!("{}/{name}", registry.host));
        let pushed = push(&store, &session, &name, &set, false, &quiet()).await.unwrap();
        assert_eq!(pushed.digest, set.top().digest);
        let other = crate::setup::store();
        let resolved = session.resolve(&other, &name, &amd64(), ASK).await.unwrap();
        assert_eq!((resolved.top, resolved.config), (pushed.digest, set.images[0].config.digest));
        let puller = Puller::new(other.clone(), 2);
        let layers = puller.layers(&session, &resolved, &quiet()).await.unwrap();
        let (back, sent) = (&layers[0], &diff);
        let list = |s, r| crate::sample::list(s, r);
        assert_eq!(list(&*other, back), list(&*store, sent));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_sent_again() {
    let registry = DockerRegistry::start();
    let (store, session) = (store(), session(config()));
    let set =
        ImageSet::single(image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci));
    let layer = set.images[0].layers[0].part.digest;
    let to = async |name: &str| {
        let name = reference(&format!("{}/{name}", registry.host));
        push(&store, &session, &name, &set, false, &quiet()).await.unwrap().blobs[&layer]
    };
    assert_eq!(to("one:1").await, Uploaded::Sent);
    assert_eq!(to("one:2").await, Uploaded::Present);
    assert_eq!(to("two:1").await, Uploaded::Mounted);
    assert_eq!(to("two:1").await, Uploaded::Present);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_and_digests() {
    let registry = DockerRegistry::start();
    let (store, session) = (store(), session(config()));
    let one = image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci);
    let arm = Assembled { platform: Platform::parse("linux/arm64").unwrap(), ..one.clone() };
    let notes = Annotations::from([("who".to_owned(), "us".to_owned())]);
    let set = ImageSet::indexed(vec![one.clone(), arm], MediaTypes::Oci, &notes).unwrap();
    let name = reference(&format!("{}/multi:1", registry.host));
    let pushed = push(&store, &session, &name, &set, false, &quiet()).await.unwrap();
    let resolved = session.resolve(&store, &name, &amd64(), ASK).await.unwrap();
    assert_eq!((resolved.top, resolved.manifest), (pushed.digest, one.manifest.digest));
    // By digest, without a tag.
    let name = reference(&format!("{}/untagged:1", registry.host));
    let set = ImageSet::single(one);
    let pushed = push(&store, &session, &name, &set, true, &quiet()).await.unwrap();
    let error = session.resolve(&store, &name, &amd64(), ASK).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }));
    let pinned = reference(&format!("{}/untagged@{}", registry.host, pushed.digest));
    session.resolve(&store, &pinned, &amd64(), ASK).await.unwrap();
}

/// A registry that is in trouble for a while, and loses an upload.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_begun_again() {
    let store = store();
    let set =
        ImageSet::single(image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci));
    let layer = set.images[0].layers[0].part.clone();
    let times = std::sync::atomic::AtomicU32::new(0);
    let size = layer.size;
    let server = Server::start(move |request| {
        let large = request.header("content-length") == size.to_string();
        match request.method.as_str() {
            "HEAD" => Reply::new(404),
            "POST" => Reply::new(202).header("Location", "/v2/app/blobs/uploads/1?state=x"),
            "PUT" if request.path.contains("/manifests/") => Reply::new(201),
            "PUT" if large => match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Reply::new(503),
                1 => Reply::new(404),
                _ => Reply::new(201),
            },
            _ => Reply::new(201),
        }
    });
    let name = reference(&format!("{}/app:1", server.host));
    let session = session(config());
    let pushed = push(&store, &session, &name, &set, false, &quiet()).await.unwrap();
    assert_eq!(pushed.blobs[&layer.digest], Uploaded::Sent);
    let puts: Vec<_> = server.requests().into_iter().filter(|r| r.method == "PUT").collect();
    let bodies: Vec<_> = puts.iter().filter(|r| r.body.len() as u64 == size).collect();
    assert_eq!(bodies.len(), 3);
    for put in bodies {
        assert_eq!(worker::image::sha::sha256(&put.body), layer.digest);
        let query = format!("?state=x&digest=sha256%3A{}", layer.digest.hex());
        assert!(put.path.ends_with(&query), "{}", put.path);
    }
    assert!(puts.last().unwrap().path.contains("/manifests/1"), "the manifest comes last");
}

/// A registry that mounts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_has_not_is_asked_for_once_and_leaves_no_upload() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/v2/app/blobs/uploads/1?state=x"),
        "DELETE" => Reply::new(204),
        _ => Reply::new(201),
    });
    let name = reference(&format!("{}/app:1", server.host));
    let session = session(config());
    let digest = worker::image::sha::sha256(b"a blob");
    assert!(!session.holds_blob(&name, &digest, Some("other")).await.unwrap());
    let mount = format!("/v2/app/blobs/uploads/?mount=sha256%3A{}&from=other", digest.hex());
    let asked = [
        format!("HEAD /v2/app/blobs/{digest}"),
        format!("POST {mount}"),
        "DELETE /v2/app/blobs/uploads/1?state=x".to_owned(),
    ];
    assert_eq!(server.lines(), asked);
    let wanted = BTreeMap::from([(digest, Source::Here("a blob".into()))]);
    let absent = BTreeSet::from([digest]);
    let pushed = push::blobs(&store(), &session, &name, wanted, &absent, &quiet()).await.unwrap();
    assert_eq!(pushed[&digest], Uploaded::Sent);
    let sent = [
        "POST /v2/app/blobs/uploads/".to_owned(),
        format!("PUT /v2/app/blobs/uploads/1?state=x&digest=sha256%3A{}", digest.hex()),
    ];
    assert_eq!(server.lines()[3..], sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_push_is_told() {
    let store = store();
    let set =
        ImageSet::single(image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci));
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        _ => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"read only"}]}"#),
    });
    let name = reference(&format!("{}/app:1", server.host));
    let error = push(&store, &session(config()), &name, &set, false, &quiet()).await.unwrap_err();
    assert_eq!(error.class(), proto::error::Class::Denied);
    let text = error.to_string();
    assert!(text.contains("read only (DENIED)") && text.contains("without a login"), "{text}");
    assert!(error.hint().unwrap().contains("docker login"));
}

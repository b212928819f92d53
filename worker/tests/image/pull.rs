//! Pulling from a real registry.

use crate::sample::{answer, content, image, layer, list, served, tar_of_all_kinds};
use crate::server::{Reply, Server};
use crate::setup::{
    self, DockerRegistry, amd64, config, free_port, quiet, reference, session, store,
};
use cache::store::Compression;
use proto::platform::Platform;
use proto::step::PackedRef;
use proto::wire::build::MediaTypes;
use std::sync::{Arc, Mutex};
use worker::image::Progress;
use worker::image::manifest::{self, Annotations, ImageSet, PackedPart, layer_media};
use worker::image::pull::Puller;
use worker::image::push::push;
use worker::image::registry::{Freshness, RegistryError};

const ASK: Freshness = Freshness::Ask;

#[tokio::test(flavor = "multi_thread")]
async fn all_images_of_the_corpus() {
    let registry = DockerRegistry::start().with_images();
    let (store, session) = (store(), session(config()));
    let puller = Puller::new(store.clone(), 2);
    let pull = async |name: &str| {
        let reference = reference(&format!("{}/conf/{name}", registry.host));
        let resolved = session.resolve(&store, &reference, &amd64(), ASK).await.unwrap();
        puller.layers(&session, &resolved, &quiet()).await.unwrap()
    };
    let busybox = pull("busybox:1").await;
    assert_eq!(busybox.len(), 1);
    assert!(list(&*store, &busybox[0]).contains(&"/bin/sh -> busybox".to_owned()));
    let zstd = pull("zstd:1").await;
    assert_eq!(content(&*store, &zstd[1], "z/one").unwrap(), b"compressed with zstd\n");
    assert_eq!(zstd[0], busybox[0], "the same files, packed otherwise");
    let plain = pull("plain:1").await;
    assert_eq!(content(&*store, &plain[1], "plain/one").unwrap(), b"not compressed\n");
    let docker = pull("docker:1").await;
    assert_eq!(content(&*store, &docker[1], "etc/format").unwrap(), b"docker media types\n");
    let layers = pull("layers:1").await;
    let third = list(&*store, &layers[2]);
    assert!(third.contains(&"/l/b Whiteout".to_owned()), "{third:?}");
    let links = pull("links:1").await;
    let (a, b) = ("srv/data/a", "srv/data/b");
    assert_eq!(content(&*store, &links[0], a), content(&*store, &links[0], b));
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms() {
    let registry = DockerRegistry::start().with_images();
    let (store, session) = (store(), session(config()));
    let puller = Puller::new(store.clone(), 2);
    let multi = reference(&format!("{}/conf/multi:1", registry.host));
    for (wanted, marker) in [("linux/amd64", "linux/amd64\n"), ("linux/arm/v8", "linux/arm\n")] {
        let platform = Platform::parse(wanted).unwrap();
        let resolved = session.resolve(&store, &multi, &platform, ASK).await.unwrap();
        assert_ne!(resolved.top, resolved.manifest);
        let layers = puller.layers(&session, &resolved, &quiet()).await.unwrap();
        assert_eq!(content(&*store, &layers[1], "etc/marker").unwrap(), marker.as_bytes());
        // By the digest of the index, and by that of the manifest.
        for digest in [resolved.top, resolved.manifest] {
            let pinned = reference(&format!("{}/conf/multi@{digest}", registry.host));
            let again = session.resolve(&store, &pinned, &platform, ASK).await.unwrap();
            assert_eq!((again.config, again.manifest), (resolved.config, resolved.manifest));
        }
    }
    let riscv = Platform::parse("linux/riscv64").unwrap();
    let error = session.resolve(&store, &multi, &riscv, ASK).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("not there for linux/riscv64"), "{text}");
    assert!(text.contains("linux/amd64, linux/arm64, linux/arm/v7"), "{text}");
    // An image without an index is for whatever it is for.
    let single = reference(&format!("{}/conf/busybox:1", registry.host));
    let resolved = session.resolve(&store, &single, &riscv, ASK).await.unwrap();
    assert_eq!(resolved.platform, amd64());
    for missing in ["conf/busybox:9", "conf/nothing:1"] {
        let missing = reference(&format!("{}/{missing}", registry.host));
        let error = session.resolve(&store, &missing, &amd64(), ASK).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(&missing.to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_one_download_for_many() {
    let registry = DockerRegistry::start().with_images();
    let (store, session) = (store(), Arc::new(session(config())));
    let puller = Arc::new(Puller::new(store.clone(), 2));
    let name = reference(&format!("{}/conf/busybox:1", registry.host));
    let resolved = session.resolve(&store, &name, &amd64(), ASK).await.unwrap();
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let watch = seen.clone();
    let progress: Progress = Arc::new(move |_, at, all| watch.lock().unwrap().push((at, all)));
    let pulls = (0..6).map(|_| {
        let (puller, session) = (puller.clone(), session.clone());
        let (resolved, progress) = (resolved.clone(), progress.clone());
        tokio::spawn(async move { puller.layers(&session, &resolved, &progress).await.unwrap() })
    });
    let mut results = Vec::new();
    for pull in pulls.collect::<Vec<_>>() {
        results.push(pull.await.unwrap());
    }
    assert!(results.iter().all(|r| *r == results[0]));
    let seen = seen.lock().unwrap().clone();
    let size = resolved.layers[0].part.size;
    assert!(seen.iter().all(|(at, all)| at <= all && *all == size));
    assert_eq!(seen.iter().filter(|(at, _)| *at == 0).count(), 1, "one download began");
    assert_eq!(seen.last(), Some(&(size, size)));
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors() {
    let registry = DockerRegistry::start();
    let (store, here) = (store(), &registry.host);
    let image = image(&store, &[layer(&*store, &tar_of_all_kinds())], MediaTypes::Oci);
    let set = ImageSet::single(image.clone());
    for name in ["pre/library/app:1", "team/app:1"] {
        let name = reference(&format!("{here}/{name}"));
        push(&store, &session(config()), &name, &set, false, &quiet()).await.unwrap();
    }
    let dead = Server::start(|_| Reply::new(404));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut config = config();
    let mut mirror = |host: &str, list: &[String]| config.mirrors.insert(host.into(), list.into());
    mirror("docker.io", &[format!("http://{}", dead.host), format!("http://{here}/pre")]);
    mirror("*", &[nobody.clone(), here.clone()]);
    // One that has mirrors, none of which works, is asked itself.
    mirror(here, &[nobody]);
    for name in ["app:1", "quay.io/team/app:1", &format!("{here}/team/app:1")] {
        let (fresh, session) = (setup::store(), session(config.clone()));
        let puller = Puller::new(fresh.clone(), 2);
        let name = reference(name);
        let resolved = session.resolve(&fresh, &name, &amd64(), ASK).await.unwrap();
        assert_eq!(resolved.config, image.config.digest, "{name}");
        let layers = puller.layers(&session, &resolved, &quiet()).await.unwrap();
        assert_eq!(content(&*fresh, &layers[0], "etc/motd").unwrap(), b"hello\n");
    }
    let asked = dead.lines();
    assert_eq!(asked[0], "HEAD /v2/library/app/manifests/1?ns=docker.io", "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_costs_one_request() {
    let origin = store();
    let image = image(&origin, &[layer(&*origin, &tar_of_all_kinds())], MediaTypes::Oci);
    let files = served(&*origin, &image);
    let server = Server::start(move |request| answer(&files, request));
    let (store, session) = (store(), session(config()));
    let puller = Puller::new(store.clone(), 2);
    let name = reference(&format!("{}/app:1", server.host));
    let first = session.resolve(&store, &name, &amd64(), ASK).await.unwrap();
    puller.layers(&session, &first, &quiet()).await.unwrap();
    assert_eq!(server.lines().len(), 4, "digest, manifest, config, layer: {:?}", server.lines());
    let second = session.resolve(&store, &name, &amd64(), ASK).await.unwrap();
    puller.layers(&session, &second, &quiet()).await.unwrap();
    assert_eq!(second, first);
    assert_eq!(server.lines()[4..], ["HEAD /v2/app/manifests/1"]);
    let pinned = reference(&format!("{}/app@{}", server.host, first.manifest));
    let mine = Freshness::PinnedFromStore;
    let third = session.resolve(&store, &pinned, &amd64(), mine).await.unwrap();
    assert_eq!((third.manifest_bytes, third.config), (first.manifest_bytes, first.config));
    assert_eq!(server.lines().len(), 5, "no request at all");
    session.resolve(&store, &pinned, &amd64(), ASK).await.unwrap();
    assert_eq!(server.lines().len(), 6, "asked whether we may still see it");
}

/// A layer with a hard link to a file of the layer below.
#[tokio::test(flavor = "multi_thread")]
async fn links_to_layers_below() {
    let origin = store();
    let lower = layer(&*origin, &tar_of_all_kinds());
    let first = image(&origin, &[lower], MediaTypes::Oci);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(0o644);
    tar.append_link(&mut header, "linked", "etc/motd").unwrap();
    let tar = tar.into_inner().unwrap();
    let diff_id = worker::image::sha::sha256(&tar);
    let blob = proto::id::BlobId::of(&tar);
    origin.put_blobs(&[(blob, tar.clone().into())]).unwrap();
    let media_type = layer_media(MediaTypes::Oci, Compression::None).to_owned();
    let part = PackedRef { media_type, digest: diff_id, size: tar.len() as u64 };
    let parts = vec![first.layers[0].clone(), PackedPart { part, blob, diff_id }];
    let ids: Vec<_> = parts.iter().map(|p| p.diff_id).collect();
    let base = br#"{"os":"linux","architecture":"amd64"}"#;
    let config = manifest::config(MediaTypes::Oci, base, None, &[], &ids).unwrap();
    let none = Annotations::new();
    let image = manifest::assemble(MediaTypes::Oci, amd64(), config, parts, &none).unwrap();
    let files = served(&*origin, &image);
    let server = Server::start(move |request| answer(&files, request));
    let (store, session) = (store(), session(setup::config()));
    let puller = Puller::new(store.clone(), 2);
    let name = reference(&format!("{}/app:1", server.host));
    for _ in 0..2 {
        let resolved = session.resolve(&store, &name, &amd64(), ASK).await.unwrap();
        let layers = puller.layers(&session, &resolved, &quiet()).await.unwrap();
        assert_eq!(list(&*store, &layers[1]), ["/etc/", "/etc/motd 6", "/linked 6"]);
    }
}

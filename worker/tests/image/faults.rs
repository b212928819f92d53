//! A registry that misbehaves.

use crate::sample::{answer, image, layer, served, tar_of_all_kinds};
use crate::server::{Reply, Request, Server};
use crate::setup::{amd64, config, free_port, quiet, reference, session, store};
use cache::store::{Store, Table};
use proto::error::Class;
use proto::id::RootId;
use proto::wire::build::MediaTypes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use worker::image::manifest::Assembled;
use worker::image::pull::{PullError, Puller};
use worker::image::registry::{Freshness, RegistryConfig, RegistryError};

/// An image, and a server of it that does what `fault` says: it gets the right answer, and how often
/// the same was asked before.
fn serve(
    fault: impl Fn(&Request, Reply, u32) -> Reply + Send + Sync + 'static,
) -> (Assembled, Server) {
    let origin = store();
    let image = image(&origin, &[layer(&*origin, &tar_of_all_kinds())], MediaTypes::Oci);
    let files = served(&*origin, &image);
    let seen = std::sync::Mutex::new(std::collections::HashMap::<String, u32>::new());
    let server = Server::start(move |request| {
        let before = {
            let mut seen = seen.lock().unwrap();
            let times = seen.entry(format!("{} {}", request.method, request.path)).or_default();
            *times += 1;
            *times - 1
        };
        fault(request, answer(&files, request), before)
    });
    (image, server)
}

async fn pull_into(
    store: &Arc<dyn Store>,
    server: &Server,
    config: RegistryConfig,
) -> Result<Vec<RootId>, PullError> {
    let session = session(config);
    let name = reference(&format!("{}/app:1", server.host));
    let resolved = session.resolve(store, &name, &amd64(), Freshness::Ask).await?;
    Puller::new(store.clone(), 2).layers(&session, &resolved, &quiet()).await
}

async fn pull(server: &Server) -> Result<Vec<RootId>, PullError> {
    pull_into(&store(), server, config()).await
}

/// The error of a pull, which must be one, and must leave nothing behind under a name.
async fn refused(server: &Server) -> RegistryError {
    let store = store();
    let error = match pull_into(&store, server, config()).await {
        Err(PullError::Registry(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(store.rows(Table::Unpacked, b"").unwrap().is_empty());
    error
}

fn is_blob(request: &Request, image_layer: bool) -> bool {
    request.path.contains("/blobs/") && (image_layer == (request.header("accept") == "*/*"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_goes_on_where_it_was() {
    let (image, server) = serve(|request, reply, before| {
        let cut = (is_blob(request, true) && reply.body.len() > 1_000_000 && before < 2)
            .then_some(700_000);
        Reply { cut, ..reply }
    });
    pull(&server).await.unwrap();
    let layer = image.layers[0].part.digest.to_string();
    let asked: Vec<_> = server.requests().into_iter().filter(|r| r.path.contains(&layer)).collect();
    let ranges: Vec<&str> = asked.iter().map(|r| r.header("range")).collect();
    assert_eq!(ranges, ["", "bytes=700000-", "bytes=1400000-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_no_ranges_sends_all_again() {
    let (_, server) = serve(|request, reply, before| {
        let mut plain = reply.clone();
        if request.headers.contains_key("range") {
            // All of it, whatever was asked for.
            plain.status = 200;
            plain.headers.retain(|(name, _)| name != "Content-Range");
        }
        let large = plain.body.len() > 1_000_000;
        Reply { cut: (large && before == 0).then_some(700_000), ..plain }
    });
    // The body of the second answer lacks its beginning, so that the digest does not fit: the
    // server lies, and is found out.
    let error = refused(&server).await;
    assert!(
        matches!(error, RegistryError::WrongBytes { .. } | RegistryError::Unreachable { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_to_a_range_is_taken_from_the_right_byte() {
    let origin = store();
    let image = image(&origin, &[layer(&*origin, &tar_of_all_kinds())], MediaTypes::Oci);
    let files = served(&*origin, &image);
    let first = AtomicU32::new(0);
    let server = Server::start(move |request| {
        let mut request = request.clone();
        request.headers.remove("range");
        let reply = answer(&files, &request);
        let large = reply.body.len() > 1_000_000;
        let cut = (large && first.fetch_add(1, SeqCst) == 0).then_some(700_000);
        Reply { cut, ..reply }
    });
    pull(&server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_always_breaks_is_an_error() {
    let (_, server) = serve(|_, reply, _| {
        let cut = (reply.body.len() > 1_000_000).then_some(0);
        Reply { cut, ..reply }
    });
    let error = refused(&server).await;
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("broke after 0 bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_trouble_is_asked_again() {
    let (_, server) = serve(|_, reply, before| match before {
        0 => Reply::new(500).body("oops"),
        1 => Reply::new(429).header("Retry-After", "0"),
        _ => reply,
    });
    pull(&server).await.unwrap();
    let (_, server) = serve(|_, _, _| Reply::new(503).body("closed for today"));
    let error = refused(&server).await;
    assert!(error.to_string().ends_with(": 503 Service Unavailable"), "{error}");
    assert_eq!(server.requests().len(), 3, "as often as configured");
    let (_, server) = serve(|_, _, _| Reply::new(429).body("slow down"));
    let error = refused(&server).await;
    assert!(matches!(error, RegistryError::Busy { .. }), "{error}");
    assert!(error.hint().unwrap().contains("mirror"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_not_tried_again() {
    for (status, class) in [(401, Class::Denied), (403, Class::Denied), (404, Class::User)] {
        let (_, server) = serve(move |_, _, _| Reply::new(status));
        let error = refused(&server).await;
        assert_eq!(error.class(), class, "{error}");
        assert_eq!(server.requests().len(), 1, "{status}");
        assert!(error.to_string().contains(&server.host), "{error}");
    }
    let (_, server) = serve(|_, _, _| Reply::new(418).body("teapot"));
    let error = refused(&server).await;
    assert!(error.to_string().contains("status 418: teapot"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_kept() {
    let what = ["/manifests/sha256", "config", "layer"];
    for wrong in what {
        let (image, server) = serve(move |request, mut reply, _| {
            let large = reply.body.len() > 1_000_000;
            let config = request.path.contains("/blobs/") && !large;
            let hit = match wrong {
                "config" => config,
                "layer" => large,
                path => request.path.contains(path) || request.path.ends_with("/manifests/1"),
            };
            if hit && request.method == "GET" {
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 1;
            }
            reply
        });
        let store = store();
        let error = pull_into(&store, &server, config()).await.unwrap_err();
        assert!(matches!(error, PullError::Registry(RegistryError::WrongBytes { .. })), "{error}");
        assert_eq!(error.class(), Class::Corrupt);
        let digest = match wrong {
            "config" => image.config.digest,
            "layer" => image.layers[0].part.digest,
            _ => image.manifest.digest,
        };
        assert!(error.to_string().contains(&format!("expected {digest}, got sha256:")), "{error}");
        assert_eq!(store.row(Table::OciBlob, digest.as_bytes()).unwrap(), None, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sizes_are_refused() {
    let (_, server) = serve(|_, mut reply, _| {
        if reply.body.len() > 1_000_000 {
            reply.body.extend(b"more");
        }
        reply
    });
    let error = refused(&server).await;
    assert!(error.to_string().contains("bytes, more came"), "{error}");
    // Too short, and said to be whole.
    let (_, server) = serve(|request, mut reply, _| {
        if request.headers.contains_key("range") {
            return Reply::new(416);
        }
        reply.body.truncate(1_000_000);
        reply
    });
    let error = refused(&server).await;
    assert!(matches!(error, RegistryError::Refused { status: 416, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_are_cut_off() {
    for status in [200, 404] {
        let (_, server) = serve(move |request, _, _| match request.method.as_str() {
            "HEAD" => Reply::new(405),
            _ => Reply { endless: true, ..Reply::new(status).body(vec![b' '; 1 << 20]) },
        });
        let error = refused(&server).await;
        match status {
            200 => assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}"),
            _ => assert!(matches!(error, RegistryError::NotFound { .. }), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up_and_asked_again() {
    let (_, server) = serve(|_, reply, before| {
        let large = reply.body.len() > 1_000_000;
        let silence = (large && before == 0).then_some(Duration::from_secs(30));
        Reply { silence, ..reply }
    });
    let mut config = config();
    config.retry.silence_s = 1;
    pull_into(&store(), &server, config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let name = reference(&format!("127.0.0.1:{}/app:1", free_port()));
    let error = session(config()).resolve(&store(), &name, &amd64(), Freshness::Ask).await;
    let error = error.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cannot be reached for 127.0.0.1:"), "{text}");
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_said() {
    let cases: [(&str, &str, &str); 5] = [
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            r#"{"schemaVersion":1}"#,
            "schema 1",
        ),
        ("text/html", "<html>login here</html>", "broken"),
        ("application/json", "{}", "no image manifest"),
        (
            "application/vnd.oci.image.index.v1+json",
            r#"{"schemaVersion":2,"manifests":[]}"#,
            "names no image",
        ),
        (
            "application/vnd.oci.image.manifest.v1+json",
            r#"{"schemaVersion":2,"layers":[]}"#,
            "broken",
        ),
    ];
    for (media_type, body, says) in cases {
        let server =
            Server::start(move |_| Reply::new(200).header("Content-Type", media_type).body(body));
        let error = refused(&server).await;
        assert!(matches!(error, RegistryError::BadManifest { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

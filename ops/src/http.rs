//! A small web server for what watches a process: health, readiness, metrics.
//!
//! It answers GET for the pages that it is given, over HTTP/1.1 without TLS, one request a
//! connection. Connections, their time and the size of a request are bounded.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once; others wait.
const CONNECTIONS_MAX: usize = 32;

/// How long a request may take to come, and a connection in all.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(30);

/// Bytes of a request.
const REQUEST_BYTES: usize = 16 << 10;

/// The types of pages.
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    status: StatusCode,
    content_type: &'static str,
    text: String,
}

impl Page {
    /// All is well.
    pub fn good(text: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content_type: TEXT, text: text.into() }
    }

    /// Something is not well.
    pub fn bad(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, content_type: TEXT, text: text.into() }
    }

    /// Metrics, as OpenMetrics has them.
    pub fn metrics(text: String) -> Self {
        Self { status: StatusCode::OK, content_type: OPEN_METRICS, text }
    }
}

/// What there is to see.
pub trait Pages: Send + Sync + 'static {
    /// The page at a path, if there is one.
    fn page(&self, path: &str) -> impl Future<Output = Option<Page>> + Send;
}

/// Serves all who come, for as long as it is asked to.
pub async fn serve<P: Pages>(listener: TcpListener, pages: Arc<P>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Too many open files, mostly: it passes.
                tracing::warn!("who asks for health or metrics could not connect: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = pages.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let pages = pages.clone();
                async move { Ok::<_, Infallible>(answer(&*pages, request).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_WAIT)
                .max_buf_size(REQUEST_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(CONNECTION_TIME, serving).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::debug!("a request for health or metrics broke: {e}"),
                Err(_) => tracing::debug!("a request for health or metrics took too long"),
            }
            drop(place);
        });
    }
}

async fn answer<P: Pages>(pages: &P, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let page = match *request.method() {
        Method::GET | Method::HEAD => pages.page(request.uri().path()).await,
        _ => {
            let text = "Only GET is answered here.\n".to_owned();
            Some(Page { status: StatusCode::METHOD_NOT_ALLOWED, content_type: TEXT, text })
        }
    };
    let page = page.unwrap_or_else(|| {
        let text = "There is /healthz, /readyz and /metrics.\n".to_owned();
        Page { status: StatusCode::NOT_FOUND, content_type: TEXT, text }
    });
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    if page.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct One;

    impl Pages for One {
        async fn page(&self, path: &str) -> Option<Page> {
            match path {
                "/good" => Some(Page::good("good\n")),
                "/bad" => Some(Page::bad("bad\n")),
                "/metrics" => Some(Page::metrics("# EOF\n".to_owned())),
                _ => None,
            }
        }
    }

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(One)));
        address
    }

    /// What is answered to some bytes.
    async fn say(to: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A server that does not like what it read may close the connection at once.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn ask(to: SocketAddr, what: &str) -> String {
        say(to, format!("{what} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn pages_are_served_with_their_types() {
        let to = start().await;
        let good = ask(to, "GET /good").await;
        assert!(
            good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\ngood\n"),
            "{good}"
        );
        assert!(ask(to, "GET /bad").await.starts_with("HTTP/1.1 503 "));
        assert!(
            ask(to, "GET /metrics").await.contains("content-type: application/openmetrics-text")
        );
        let head = ask(to, "HEAD /good").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(to, "GET /other").await.starts_with("HTTP/1.1 404 "));
        let post = ask(to, "POST /good").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_and_the_next_one_is_answered() {
        let to = start().await;
        assert!(say(to, b"\x00\x01\x02 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let long =
            [b"GET /".as_slice(), &vec![b'x'; 2 * REQUEST_BYTES], b" HTTP/1.1\r\n\r\n"].concat();
        let refused = say(to, &long).await;
        assert!(!refused.contains(" 200 "), "{refused}");
        assert!(ask(to, "GET /good").await.starts_with("HTTP/1.1 200 "));
    }
}

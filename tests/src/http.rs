//! A small web server, on the loopback or in a host (RFC 9112, as much of it as clients here need),
//! which counts what it is asked, and can misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD` …
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// Headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers; the length of the body is added.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// After so many bytes of the body the connection breaks.
    pub cut_after: Option<usize>,
}

impl Response {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut_after: None }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A web server that runs until it is dropped.
pub struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one that answers by a function.
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on the loopback");
        let address = listener.local_addr().expect("a bound socket").to_string();
        Self::on(listener, address, answer)
    }

    /// One that takes its connections from a socket, which others reach at this address.
    pub(crate) fn on(
        listener: TcpListener,
        address: String,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Handler> = Arc::new(answer);
        let (incoming, log) = (listener.try_clone().expect("a socket"), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            for stream in incoming.incoming() {
                let Ok(stream) = stream else { return };
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Self { address, seen, listener, thread: Some(thread) }
    }

    /// One that says "ok" to everything: what counts is how often it was asked.
    pub fn counting() -> Self {
        Self::start(|_| Response::new(200, "ok\n"))
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many requests there were whose path contains a text.
    pub fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.path.contains(part)).count()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no one panics with it").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread that accepts: its call then fails.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers the requests of one connection until the client ends it.
fn serve(stream: TcpStream, answer: &Handler, log: &Mutex<Vec<Request>>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        log.lock().expect("no one panics with it").push(request.clone());
        let response = answer(&request);
        let with_body = request.method != "HEAD";
        if write(&mut writer, &response, with_body).is_err() || response.cut_after.is_some() {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    Some(Request { method, path, headers })
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut text = String::new();
    let read = reader.read_line(&mut text).ok()?;
    (read > 0).then(|| text.trim_end().to_owned())
}

fn write(writer: &mut TcpStream, response: &Response, with_body: bool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Answer\r\n", response.status);
    let has_length = response.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    if !has_length {
        head += &format!("Content-Length: {}\r\n", response.body.len());
    }
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    writer.write_all(format!("{head}\r\n").as_bytes())?;
    if with_body {
        let end = response.cut_after.unwrap_or(usize::MAX).min(response.body.len());
        writer.write_all(&response.body[..end])?;
    }
    writer.flush()
}

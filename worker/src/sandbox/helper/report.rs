//! Collects what `libcontainer` logs as errors: its error values keep only the outermost reason.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// Where the lines go: a pipe that the job's children have too. -1: nowhere.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 2000;

/// Begins to collect, in this process and its children.
pub(super) fn install() {
    // It fails when there is a subscriber already: then the reasons go there.
    let _ = tracing::subscriber::set_global_default(Errors);
}

/// The pipe's reading side. Lines of this process and of its children go into the other.
pub(super) fn open() -> io::Result<OwnedFd> {
    use rustix::pipe::PipeFlags;
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Out of the way of the numbers that the container gets.
    let write = rustix::io::fcntl_dupfd_cloexec(&write, 100)?;
    use std::os::fd::IntoRawFd;
    PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
    Ok(read)
}

/// Adds a line.
pub(super) fn line(text: &str) {
    let fd = PIPE.load(Ordering::Relaxed);
    if fd < 0 {
        return;
    }
    // SAFETY: the pipe stays open until the process ends or runs the container's program.
    let pipe = unsafe { BorrowedFd::borrow_raw(fd) };
    let text = text.replace('\n', " ");
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at > LINE_BYTES_MAX);
    // A full pipe loses lines: the first ones are the ones that matter.
    let line = format!("{}\n", &text[..end.unwrap_or(text.len())]);
    let _ = rustix::io::write(pipe, line.as_bytes());
}

/// The lines so far.
pub(super) fn lines(read: impl AsFd) -> Vec<String> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = rustix::io::read(&read, &mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).lines().map(str::to_owned).collect()
}

struct Errors;

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        line(&format!("{}{}", text.message, text.fields));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}

//! What Slipway says of itself while it works: to its log, never between its answers.

use crate::config::{Log, LogFormat};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What kind of process it is, and so what it says where the settings are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// A command, or this machine's own farm: warnings and errors.
    Own,
    /// A role of a cluster: what an operator follows, too.
    Role,
}

impl Process {
    const fn level(self) -> &'static str {
        match self {
            Process::Own => "warn",
            Process::Role => "info",
        }
    }
}

/// Writes remarks to standard error, as the settings say.
pub fn init(log: &Log, process: Process) {
    // A second start in one process (a test) keeps the first one's settings.
    let _ = dispatch(log, process, std::io::stderr).try_init();
    if log.format == LogFormat::Json {
        // Each line is an object, also the last one.
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!(%backtrace, "{panic}");
        }));
    }
}

/// What takes remarks and writes them.
fn dispatch<W>(log: &Log, process: Process, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = log.level.as_deref().unwrap_or(process.level());
    // Settings have been checked when they were read.
    let filter = EnvFilter::builder().parse_lossy(level);
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match log.format {
        LogFormat::Text => format.with_ansi(false).finish().with(Count).into(),
        LogFormat::Json => format.json().flatten_event(true).finish().with(Count).into(),
    }
}

/// Remarks that were written to the log since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remarks {
    /// Errors: something does not work.
    pub errors: u64,
    /// Warnings: something may be wrong.
    pub warnings: u64,
}

static ERRORS: AtomicU64 = AtomicU64::new(0);
static WARNINGS: AtomicU64 = AtomicU64::new(0);

/// How many remarks this process has written so far.
pub fn remarks() -> Remarks {
    Remarks { errors: ERRORS.load(Relaxed), warnings: WARNINGS.load(Relaxed) }
}

/// Counts what is written.
struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => ERRORS.fetch_add(1, Relaxed),
            Level::WARN => WARNINGS.fetch_add(1, Relaxed),
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of three remarks.
    fn said(format: LogFormat, level: Option<&str>, process: Process) -> Vec<String> {
        let page = Page::default();
        let log = Log { format, level: level.map(str::to_owned) };
        let copy = page.clone();
        let dispatch = dispatch(&log, process, move || copy.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::warn!(node = "box-1", "lost");
            tracing::info!("joined");
            tracing::debug!("looked");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_process_decides_where_the_settings_are_silent() {
        assert_eq!(said(LogFormat::Text, None, Process::Own).len(), 1);
        assert_eq!(said(LogFormat::Text, None, Process::Role).len(), 2);
        assert_eq!(said(LogFormat::Text, Some("debug"), Process::Own).len(), 3);
        assert_eq!(said(LogFormat::Text, Some("error"), Process::Role).len(), 0);
        assert_eq!(said(LogFormat::Text, Some("error,ops=info"), Process::Role).len(), 2);
    }

    #[test]
    fn warnings_that_are_written_are_counted() {
        let before = remarks();
        said(LogFormat::Json, None, Process::Role);
        let after = remarks();
        assert!(after.warnings > before.warnings);
    }

    #[test]
    fn texts_are_for_people_and_json_is_for_programs() {
        let text = said(LogFormat::Text, None, Process::Own).remove(0);
        assert!(text.contains("WARN") && text.contains("lost node=\"box-1\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let json = said(LogFormat::Json, None, Process::Own).remove(0);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["level"], &value["message"]), (&"WARN".into(), &"lost".into()));
        assert_eq!(value["node"], "box-1");
    }
}

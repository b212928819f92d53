//! What raft tells, to `tracing`. Raft tells it by `slog`.

use slog::{Drain, Level, Never, OwnedKVList, Record, o};

/// A logger whose records become events of `tracing`.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        // Put together only when somebody listens.
        let text = record.msg();
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{text}"),
            Level::Warning => tracing::warn!(target: "raft", "{text}"),
            // It finds every vote worth knowing.
            Level::Info => tracing::debug!(target: "raft", "{text}"),
            // It prints whole messages, with what the entries say: which may be secret.
            Level::Debug | Level::Trace => {}
        }
        Ok(())
    }
}

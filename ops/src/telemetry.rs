//! What Slipway says of itself while it works: to its log, never between its answers.

use tracing_subscriber::EnvFilter;

/// Writes remarks to standard error. `SLIPWAY_LOG` says which (`debug`, `worker=trace`); by default
/// warnings and errors.
pub fn init() {
    let filter = EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (a test) keeps the first one's settings.
    let _ = format.with_ansi(false).try_init();
}

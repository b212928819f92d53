//! Answers on standard output, and remarks on standard error.

use std::io::{ErrorKind, Write};

/// The exit code of a program that `SIGPIPE` ended, as shells have it.
const NOBODY_READS: i32 = 128 + 13;

/// Writes text to standard output. When nobody reads it any more (`| head`), the process ends, as
/// other programs do.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(NOBODY_READS),
        Err(e) => {
            remark(&format!("ERROR: Writing to standard output failed: {e}\n"));
            std::process::exit(1);
        }
    }
}

/// Writes a line to standard output, as `println!` would.
macro_rules! say {
    ($($arg:tt)*) => {{
        let mut line = format!($($arg)*);
        line.push('\n');
        $crate::print::text(&line);
    }};
}
pub(crate) use say;

/// Writes text to standard error. If nobody reads it there is nobody to tell, and no reason to end:
/// the exit code still says how it went.
pub fn remark(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a line to standard error, as `eprintln!` would if it never panicked.
macro_rules! tell {
    ($($arg:tt)*) => {{
        let mut line = format!($($arg)*);
        line.push('\n');
        $crate::print::remark(&line);
    }};
}
pub(crate) use tell;

//! The helper that makes containers, as a program of its own: for tests of this crate. The
//! `slipway` program contains it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::sandbox::helper_main()
}

//! The `slipway` command.

// Its user is `slipway build`.
#[allow(dead_code, unused_imports)]
mod progress;

fn main() {}

//! `soak SECONDS [SEED]`: builds on a farm whose machines fail, for so long.

use std::time::{Duration, Instant};

fn main() {
    let number = |text: String| text.parse::<u64>().ok();
    let numbers: Option<Vec<u64>> = std::env::args().skip(1).map(number).collect();
    let (seconds, seed) = match numbers.as_deref() {
        Some([seconds]) => (*seconds, 1),
        Some([seconds, seed]) => (*seconds, *seed),
        _ => {
            eprintln!("usage: soak SECONDS [SEED]");
            std::process::exit(2);
        }
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    tests::soak::soak(seed, |_| Instant::now() < end);
}

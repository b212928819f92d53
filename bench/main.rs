//! Slipway beside BuildKit and buildah, in one run on one machine: whole commands, medians, ratios.
//! A row counts only when both sides made the same tree.
//!
//! `bench [--write] [ROW...]`; the rows are those of [`ROWS`].

mod context;
mod copies;
mod crowd;
mod exports;
mod farm;
mod memory;
mod runs;
mod scans;
mod side;
mod stages;
mod table;
mod warm;
mod wire;

use std::path::Path;
use table::Table;

/// What measures some rows of the table.
type Measure = fn(&mut Table);

/// All that can be measured, by name.
const ROWS: [(&str, Measure); 10] = [
    ("runs", runs::measure),
    ("scans", scans::measure),
    ("copies", copies::measure),
    ("exports", exports::measure),
    ("memory", memory::measure),
    ("stages", stages::measure),
    ("wire", wire::measure),
    ("crowd", crowd::measure),
    ("farm", farm::measure),
    ("warm", warm::measure),
];

fn main() {
    let (flags, names): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let known = |name: &String| ROWS.iter().any(|(row, _)| row == name);
    if !flags.iter().all(|flag| flag == "--write") || !names.iter().all(known) {
        let rows: Vec<_> = ROWS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: bench [--write] [{}]...", rows.join("|"));
        std::process::exit(2);
    }
    let mut table = Table::default();
    for (name, measure) in ROWS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("# {name}");
            measure(&mut table);
        }
    }
    let text = table.markdown();
    println!("{text}");
    if !flags.is_empty() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        table::put_into(&home, &text);
    }
}

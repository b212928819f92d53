//! Unpacks a layer into a store in memory, packs it again in several ways, and says what each took:
//! `cargo run --release -p worker --example layer -- layer.tar[.gz]`.

use cache::store::memory::MemoryStore;
use cache::store::{Compression, Store};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;
use worker::image::pack::{Packer, gzip, zstd};
use worker::image::unpack::{Reading, unpack};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a layer's file")?;
    let threads = std::thread::available_parallelism()?.get();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let start = Instant::now();
    let reading = Reading::Layer { diff_id: None, lower: None };
    let done = unpack(&*store, &path, File::open(&path)?, reading)?;
    println!("unpack   {:.3} s  {} entries", start.elapsed().as_secs_f64(), done.entries);
    let start = Instant::now();
    Packer::new(store.clone(), threads).diff_id(&done.root)?;
    println!("diff id  {:.3} s", start.elapsed().as_secs_f64());
    let ways = [Compression::None, gzip(1)?, gzip(6)?, gzip(9)?, zstd(1)?, zstd(3)?, zstd(9)?];
    for way in ways {
        let start = Instant::now();
        let layer = Packer::new(store.clone(), threads).layer(&done.root, way)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{way:<9} {seconds:.3} s  {} bytes", layer.packed.size, way = format!("{way:?}"));
        let start = Instant::now();
        let packed = store.open(&layer.packed.blob, 0)?;
        unpack(&*store, "the layer", packed, reading)?;
        println!("  unpack {:.3} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

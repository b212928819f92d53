//! Compression of blocks, each for itself, so that any number of processors gives the same bytes.
//!
//! gzip: each block is a member of its own (RFC 1952, 2.2: “a gzip file consists of a series of
//! members”), made by libdeflate. zstd: each block is a frame of its own (RFC 8878, 3). Both are
//! what eStargz and zstd:chunked layers look like, which all engines read.

use cache::store::Compression;
use libdeflater::{CompressionLvl, Compressor};
use zstd_safe::{CCtx, CParameter};

/// The level of `gzip` when none is named: Docker's own default.
pub const GZIP_DEFAULT: u8 = 6;

/// The level of `zstd` when none is named: zstd's own default.
pub const ZSTD_DEFAULT: u8 = 3;

/// libdeflate's level for each of gzip's (1 to 9). Up to 6, the fastest whose output is at most 5 %
/// larger than that of Go's gzip at that level, which makes the layers of Docker, BuildKit and
/// buildah; but 3 at the default, where 2 is within 5 %, too, and hardly faster. From 7 on, where size
/// is what is asked for, one that packs as well. Measured on Go source code, `/usr/lib` and
/// `/usr/share`: at the default the sizes are +2.3 %, −1.8 % and −0.9 % of Go's.
const DEFLATE_LEVELS: [i32; 9] = [1, 1, 1, 1, 2, 3, 5, 6, 7];

/// A level that the compression does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} has no compression level {level}: it has 1 to {max}")]
pub struct BadLevel {
    /// gzip or zstd.
    pub name: &'static str,
    /// The level.
    pub level: u8,
    /// The highest.
    pub max: u8,
}

/// gzip at this level; 0 is the default.
pub fn gzip(level: u8) -> Result<Compression, BadLevel> {
    match level {
        0 => Ok(Compression::Gzip(GZIP_DEFAULT)),
        1..=9 => Ok(Compression::Gzip(level)),
        level => Err(BadLevel { name: "gzip", level, max: 9 }),
    }
}

/// zstd at this level; 0 is the default.
pub fn zstd(level: u8) -> Result<Compression, BadLevel> {
    match level {
        0 => Ok(Compression::Zstd(ZSTD_DEFAULT)),
        1..=19 => Ok(Compression::Zstd(level)),
        level => Err(BadLevel { name: "zstd", level, max: 19 }),
    }
}

/// Bytes of a block on average. Larger blocks pack better and need more memory: gzip looks back 32 KiB only,
/// so that 1 MiB costs it 0.2 %; zstd at level 3 looks back 2 MiB, and 4 MiB cost it 1 to 3 %.
pub fn block_bytes(compression: Compression) -> usize {
    match compression {
        Compression::None | Compression::Gzip(_) => 1 << 20,
        Compression::Zstd(_) => 4 << 20,
    }
}

/// One thread's compressor.
pub enum Worker {
    /// Leaves blocks as they are.
    None,
    /// Makes gzip members.
    Gzip(Compressor),
    /// Makes zstd frames.
    Zstd(CCtx<'static>),
}

impl Worker {
    /// Levels beyond the highest are taken as the highest.
    pub fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip(level) => {
                let level = DEFLATE_LEVELS[usize::from(level.clamp(1, 9)) - 1];
                let level = CompressionLvl::new(level).expect("libdeflate has levels 0 to 12");
                Self::Gzip(Compressor::new(level))
            }
            Compression::Zstd(level) => {
                let mut context = CCtx::create();
                let level = CParameter::CompressionLevel(level.clamp(1, 19).into());
                context.set_parameter(level).expect("zstd has levels 1 to 22");
                Self::Zstd(context)
            }
        }
    }

    /// One block, compressed.
    pub fn compress(&mut self, block: Vec<u8>) -> Vec<u8> {
        match self {
            Self::None => block,
            Self::Gzip(compressor) => {
                let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
                let length = compressor.gzip_compress(&block, &mut out);
                out.truncate(length.expect("the bound is enough for any block"));
                out
            }
            Self::Zstd(context) => {
                let mut out = Vec::with_capacity(zstd_safe::compress_bound(block.len()));
                context.compress2(&mut out, &block).expect("the bound is enough for any block");
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::decoder;
    use std::io::Read;

    #[test]
    fn each_level_gives_what_it_got() {
        let block: Vec<u8> = (0..300_000u32).flat_map(|i| (i * i / 7).to_le_bytes()).collect();
        let mut sizes = Vec::new();
        for compression in (1..=9).map(Compression::Gzip).chain((1..=19).map(Compression::Zstd)) {
            let packed = Worker::new(compression).compress(block.clone());
            let mut plain = Vec::new();
            decoder(&packed[..]).unwrap().1.read_to_end(&mut plain).unwrap();
            assert!(plain == block, "{compression:?}");
            sizes.push(packed.len());
        }
        assert!(sizes[8] < sizes[0] && sizes[9 + 18] < sizes[9], "higher levels pack better");
    }

    #[test]
    fn levels_are_checked() {
        assert_eq!(gzip(0), Ok(Compression::Gzip(6)));
        assert_eq!(zstd(19), Ok(Compression::Zstd(19)));
        let error = gzip(10).unwrap_err().to_string();
        assert_eq!(error, "gzip has no compression level 10: it has 1 to 9");
    }
}

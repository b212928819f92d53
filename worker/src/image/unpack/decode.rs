//! Decompression, by what the bytes are, whatever a media type says.

use std::fmt;
use std::io::{self, BufRead, Read};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

/// Bytes of memory that one xz stream may ask for. `xz -9` asks for 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// gzip, one or more members (RFC 1952).
    Gzip,
    /// zstd, one or more frames (RFC 8878).
    Zstd,
    /// xz, one or more streams.
    Xz,
    /// bzip2, one or more streams.
    Bzip2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}

impl Format {
    /// The format of something that begins so. Six bytes are enough.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

/// The uncompressed bytes of `input`, and how they were compressed.
pub fn decoder<'a>(
    mut input: impl BufRead + Send + 'a,
) -> io::Result<(Format, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(6);
    // A pipe may give less than six bytes at once.
    input.by_ref().take(6).read_to_end(&mut start)?;
    let format = Format::of(&start);
    let input = io::Cursor::new(start).chain(input);
    Ok((
        format,
        match format {
            Format::Plain => Box::new(input),
            Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Format::Zstd => Box::new(Zstd { context: DCtx::create(), input, inside: false }),
            Format::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, flags)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        },
    ))
}

/// zstd frames, one after the other. Windows above 128 MiB are refused (the library's default).
struct Zstd<R> {
    context: DCtx<'static>,
    input: R,
    /// In the middle of a frame.
    inside: bool,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let available = self.input.fill_buf()?;
            let ended = available.is_empty();
            if ended && !self.inside {
                return Ok(0);
            }
            let mut from = InBuffer::around(available);
            let mut to = OutBuffer::around(&mut *buffer);
            let hint = self.context.decompress_stream(&mut to, &mut from).map_err(|code| {
                io::Error::new(io::ErrorKind::InvalidData, zstd_safe::get_error_name(code))
            })?;
            let (read, written) = (from.pos(), to.pos());
            self.input.consume(read);
            self.inside = hint != 0;
            if written > 0 {
                return Ok(written);
            }
            if ended && self.inside {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed() -> Vec<(Format, Vec<u8>)> {
        let text = b"some text, some text, some text".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        gzip.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&text).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(6));
        bzip2.write_all(&text).unwrap();
        let mut zstd = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
        zstd_safe::compress(&mut zstd, &text, 3).unwrap();
        vec![
            (Format::Plain, text),
            (Format::Gzip, gzip.finish().unwrap()),
            (Format::Xz, xz.finish().unwrap()),
            (Format::Bzip2, bzip2.finish().unwrap()),
            (Format::Zstd, zstd),
        ]
    }

    fn unpack(bytes: &[u8]) -> io::Result<(Format, Vec<u8>)> {
        let (format, mut read) = decoder(bytes)?;
        let mut out = Vec::new();
        read.read_to_end(&mut out)?;
        Ok((format, out))
    }

    #[test]
    fn each_format_is_known_and_read_even_in_several_parts() {
        let packed = packed();
        for (format, bytes) in &packed {
            let (found, out) = unpack(bytes).unwrap();
            assert_eq!((found, &out), (*format, &packed[0].1));
            let (_, twice) = unpack(&bytes.repeat(2)).unwrap();
            assert_eq!(twice, packed[0].1.repeat(2), "{format}");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for (format, bytes) in &packed()[1..] {
            for length in [7, bytes.len() / 2, bytes.len() - 1] {
                assert!(unpack(&bytes[..length]).is_err(), "{format} cut at {length}");
            }
        }
    }

    #[test]
    fn a_skippable_frame_is_skipped() {
        let (_, zstd) = packed().pop().unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd].concat();
        let (format, out) = unpack(&skippable).unwrap();
        assert_eq!((format, out), (Format::Zstd, packed()[0].1.clone()));
    }
}

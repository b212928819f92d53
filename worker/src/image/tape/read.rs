//! Reads an archive, entry by entry.

use super::field::{number, text};
use super::pax::Pax;
use super::sparse::{self, Map};
use super::{BLOCK, EXTENDED_BYTES_MAX, Head, Kind, TapeError};
use proto::tree::Mtime;
use std::io::{self, Read};
use tar::Header;

/// Reads an archive. After [`Reader::next_head`] has answered a file's head, the reader itself
/// reads the file's content, holes included.
pub struct Reader<R> {
    input: R,
    position: u64,
    content: Content,
    ended: bool,
}

/// What is left of the current entry's content.
#[derive(Default)]
struct Content {
    /// Bytes in the archive, not read yet.
    stored: u64,
    /// Bytes after them, up to the end of the block.
    padding: u64,
    /// Where the stored bytes belong, in a sparse file.
    sparse: Option<Holes>,
}

struct Holes {
    map: Map,
    next: usize,
    at: u64,
}

/// What extended headers said about the entry that follows them.
#[derive(Default)]
struct Extended {
    pax: Pax,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads the archive that `input` gives.
    pub fn new(input: R) -> Self {
        Self { input, position: 0, content: Content::default(), ended: false }
    }

    /// Where the archive is read from.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// What is left of the input: after the last entry, what stands behind the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Whether the archive's own end was read: what follows it does not belong to it.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Goes to the next entry. None at the end of the archive, which is two blocks of zeros or the
    /// end of the input.
    pub fn next_head(&mut self) -> Result<Option<Head>, TapeError> {
        let mut extended = Extended::default();
        loop {
            self.skip_content()?;
            let at = self.position;
            let Some(block) = self.block()? else { return Ok(None) };
            if is_zero(&block) {
                return self.end().map(|()| None);
            }
            let header = Header::from_byte_slice(&block);
            check(header, at)?;
            let flag = header.as_old().linkflag[0];
            match flag {
                b'x' => {
                    let records = self.extended(header, at)?;
                    let bad = |field| TapeError::Field { field, at };
                    extended.pax.read(&records).map_err(bad)?;
                }
                b'L' => extended.path = Some(text(&self.extended(header, at)?).to_vec()),
                b'K' => extended.link = Some(text(&self.extended(header, at)?).to_vec()),
                // Global records change nothing in containerd and Docker either.
                b'g' => self.begin(size_of(header, at)?),
                _ => return self.head(header, extended, at).map(Some),
            }
        }
    }

    /// What stands behind the first block of zeros: a second one, or nothing.
    fn end(&mut self) -> Result<(), TapeError> {
        let at = self.position;
        match self.block()? {
            None => Ok(()),
            Some(block) if is_zero(&block) => {
                self.ended = true;
                Ok(())
            }
            Some(_) => Err(TapeError::NoHeader(at)),
        }
    }

    fn head(&mut self, header: &Header, ext: Extended, at: u64) -> Result<Head, TapeError> {
        let bad = |field| TapeError::Field { field, at };
        let old = header.as_old();
        let pax = ext.pax;
        let kind =
            kind_of(header, &ext.path).ok_or(TapeError::Kind { kind: old.linkflag[0], at })?;
        let id = |pax: Option<u64>, field: &[u8], what| {
            let value = pax.map(i128::from).or_else(|| number(field).map(i128::from));
            value.and_then(|v| u32::try_from(v).ok()).ok_or(bad(what))
        };
        let mut head = Head {
            path: pax.path.or(ext.path).unwrap_or_else(|| header.path_bytes().into_owned()),
            kind,
            mode: (number(&old.mode).ok_or(bad("mode"))? & 0o7777) as u16,
            uid: id(pax.uid, &old.uid, "uid")?,
            gid: id(pax.gid, &old.gid, "gid")?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Mtime { seconds: number(&old.mtime).ok_or(bad("mtime"))?, nanos: 0 },
            },
            link: Vec::new(),
            size: 0,
            device: (0, 0),
            xattrs: pax.xattrs,
        };
        match kind {
            Kind::File => {
                self.begin(pax.size.map_or_else(|| size_of(header, at), Ok)?);
                if header.as_old().linkflag[0] == b'S' {
                    self.begin_old_sparse(header, at)?;
                } else if pax.sparse.found() {
                    self.begin_pax_sparse(&pax.sparse, at)?;
                    head.path = pax.sparse.name.unwrap_or(head.path);
                }
                head.size = self.content.size();
            }
            Kind::HardLink | Kind::Symlink => {
                head.link = pax.link.or(ext.link).unwrap_or_else(|| text(&old.linkname).to_vec());
            }
            Kind::Char | Kind::Block => {
                let bytes = header.as_bytes();
                let part = |range: &[u8]| number(range).and_then(|n| u32::try_from(n).ok());
                let major = part(&bytes[329..337]).ok_or(bad("device number"))?;
                let minor = part(&bytes[337..345]).ok_or(bad("device number"))?;
                head.device = (major, minor);
            }
            Kind::Dir | Kind::Fifo => {}
        }
        Ok(head)
    }

    fn begin(&mut self, stored: u64) {
        let padding = stored.wrapping_neg() % BLOCK as u64;
        self.content = Content { stored, padding, sparse: None };
    }

    fn begin_old_sparse(&mut self, header: &Header, at: u64) -> Result<(), TapeError> {
        let bad = || TapeError::Field { field: "map of a sparse file", at };
        let bytes = header.as_bytes();
        let mut parts = Vec::new();
        sparse::old_parts(&bytes[386..482], &mut parts).ok_or_else(bad)?;
        let mut more = bytes[482] != 0;
        while more {
            let block = self.block()?.ok_or(TapeError::Truncated("a sparse file"))?;
            sparse::old_parts(&block[..504], &mut parts).ok_or_else(bad)?;
            more = block[504] != 0;
        }
        let size = number(&bytes[483..495]).and_then(|n| u64::try_from(n).ok()).ok_or_else(bad)?;
        // GNU tar ends the list with an empty part at the file's end.
        parts.retain(|(_, length)| *length > 0);
        let map = Map::new(parts, size, self.content.stored).ok_or_else(bad)?;
        self.content.sparse = Some(Holes { map, next: 0, at: 0 });
        Ok(())
    }

    fn begin_pax_sparse(&mut self, said: &sparse::Sparse, at: u64) -> Result<(), TapeError> {
        let bad = || TapeError::Field { field: "map of a sparse file", at };
        let map = if said.map_in_content {
            let before = self.content.stored;
            let parts = sparse::lines(|| self.line())?.ok_or_else(bad)?;
            // The list is filled up to a whole block.
            let fill = (before - self.content.stored).wrapping_neg() % BLOCK as u64;
            if self.content.stored < fill {
                return Err(bad());
            }
            let mut rest = [0; BLOCK];
            self.read_exact_or(&mut rest[..fill as usize], "a sparse file")?;
            self.content.stored -= fill;
            Map::new(parts, said.size.ok_or_else(bad)?, self.content.stored)
        } else {
            said.map(self.content.stored)
        };
        self.content.sparse = Some(Holes { map: map.ok_or_else(bad)?, next: 0, at: 0 });
        Ok(())
    }

    /// One short line of the content.
    fn line(&mut self) -> Result<Vec<u8>, TapeError> {
        let mut line = Vec::new();
        while self.content.stored > 0 && line.len() < 24 {
            let mut byte = [0];
            self.read_exact_or(&mut byte, "a sparse file")?;
            self.content.stored -= 1;
            if byte[0] == b'\n' {
                return Ok(line);
            }
            line.push(byte[0]);
        }
        Ok(Vec::new())
    }

    /// The whole content of an extended header.
    fn extended(&mut self, header: &Header, at: u64) -> Result<Vec<u8>, TapeError> {
        let size = size_of(header, at)?;
        if size > EXTENDED_BYTES_MAX {
            return Err(TapeError::TooLong { at, size });
        }
        let mut bytes = vec![0; size as usize];
        self.read_exact_or(&mut bytes, "an extended header")?;
        self.content =
            Content { padding: size.wrapping_neg() % BLOCK as u64, ..Content::default() };
        Ok(bytes)
    }

    fn skip_content(&mut self) -> Result<(), TapeError> {
        let Content { stored, padding, .. } = std::mem::take(&mut self.content);
        let Some(mut left) = stored.checked_add(padding) else {
            return Err(TapeError::Truncated("a file"));
        };
        let mut sink = [0; 8 << 10];
        while left > 0 {
            let part = left.min(sink.len() as u64) as usize;
            self.read_exact_or(&mut sink[..part], "a file")?;
            left -= part as u64;
        }
        Ok(())
    }

    /// The next block; None at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TapeError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TapeError::Truncated("a header")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    fn read_exact_or(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), TapeError> {
        self.input.read_exact(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => TapeError::Truncated(what),
            _ => TapeError::Io(e),
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Reads stored bytes of the content.
    fn read_stored(&mut self, buffer: &mut [u8], up_to: u64) -> io::Result<usize> {
        let part = up_to.min(self.content.stored).min(buffer.len() as u64) as usize;
        if part == 0 {
            return Ok(0);
        }
        let n = self.input.read(&mut buffer[..part])?;
        if n == 0 {
            let why = "it ends in the middle of a file";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.content.stored -= n as u64;
        self.position += n as u64;
        Ok(n)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(holes) = &mut self.content.sparse else {
            return self.read_stored(buffer, u64::MAX);
        };
        while holes.map.parts.get(holes.next).is_some_and(|(start, len)| holes.at == start + len) {
            holes.next += 1;
        }
        let (start, length) = *holes.map.parts.get(holes.next).unwrap_or(&(holes.map.size, 0));
        let n = if holes.at < start {
            let n = (start - holes.at).min(buffer.len() as u64) as usize;
            buffer[..n].fill(0);
            n
        } else {
            let left = start + length - holes.at;
            self.read_stored(buffer, left)?
        };
        if let Some(holes) = &mut self.content.sparse {
            holes.at += n as u64;
        }
        Ok(n)
    }
}

impl Content {
    fn size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |holes| holes.map.size)
    }
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|b| *b == 0)
}

/// Compares the checksum: the sum of all bytes with the field itself as blanks, unsigned; old
/// programs summed signed bytes.
fn check(header: &Header, at: u64) -> Result<(), TapeError> {
    let bytes = header.as_bytes();
    let field = 148..156;
    let unsigned: i64 = bytes
        .iter()
        .enumerate()
        .map(|(i, b)| if field.contains(&i) { 32 } else { *b as i64 })
        .sum();
    let high = bytes.iter().enumerate().filter(|(i, b)| !field.contains(i) && **b >= 128).count();
    let said = number(&bytes[field]);
    if said == Some(unsigned) || said == Some(unsigned - 256 * high as i64) {
        Ok(())
    } else {
        Err(TapeError::NoHeader(at))
    }
}

fn size_of(header: &Header, at: u64) -> Result<u64, TapeError> {
    let size = number(&header.as_old().size).and_then(|n| u64::try_from(n).ok());
    size.ok_or(TapeError::Field { field: "size", at })
}

fn kind_of(header: &Header, long: &Option<Vec<u8>>) -> Option<Kind> {
    Some(match header.as_old().linkflag[0] {
        // Programs older than POSIX marked a directory by its name only.
        0 => {
            let path = long.clone().unwrap_or_else(|| header.path_bytes().into_owned());
            if path.ends_with(b"/") { Kind::Dir } else { Kind::File }
        }
        b'0' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

//! Which parts of a sparse file stand in the archive: GNU's old form and the pax forms 0.0, 0.1
//! and 1.0. Pure.

use super::field::{decimal, number};

/// Parts of one file. Real files have a few thousand at most.
const PARTS_MAX: usize = 1 << 17;

/// What pax records say about a sparse file.
#[derive(Debug, Default)]
pub struct Sparse {
    /// The file's real name (forms 0.1 and 1.0).
    pub name: Option<Vec<u8>>,
    /// The file's real size.
    pub size: Option<u64>,
    /// Whether the parts stand before the content (form 1.0).
    pub map_in_content: bool,
    parts: Vec<u64>,
    found: bool,
}

impl Sparse {
    /// Takes one record; the key is without its `GNU.sparse.`. None when its value is bad.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"major" => self.map_in_content = decimal(value)? == 1,
            b"minor" | b"numblocks" => {
                decimal(value)?;
            }
            b"offset" | b"numbytes" => self.push(decimal(value)?)?,
            b"map" => {
                for part in value.split(|b| *b == b',').filter(|p| !p.is_empty()) {
                    self.push(decimal(part)?)?;
                }
            }
            _ => return None,
        }
        self.found = true;
        Some(())
    }

    fn push(&mut self, number: u64) -> Option<()> {
        (self.parts.len() < 2 * PARTS_MAX).then(|| self.parts.push(number))
    }

    /// Whether the file is sparse at all.
    pub fn found(&self) -> bool {
        self.found
    }

    /// The parts that the records name, and the real size.
    pub fn map(&self, stored: u64) -> Option<Map> {
        let parts = self.parts.chunks_exact(2).map(|p| (p[0], p[1])).collect();
        if !self.parts.len().is_multiple_of(2) {
            return None;
        }
        Map::new(parts, self.size?, stored)
    }
}

/// The parts of a sparse file.
#[derive(Debug, PartialEq, Eq)]
pub struct Map {
    /// Offset and length of each part, in order, without overlap.
    pub parts: Vec<(u64, u64)>,
    /// The file's size.
    pub size: u64,
}

impl Map {
    /// Checks the parts: in order, inside the file, and together as long as what is stored.
    pub fn new(parts: Vec<(u64, u64)>, size: u64, stored: u64) -> Option<Self> {
        let (mut at, mut sum) = (0u64, 0u64);
        for (offset, length) in &parts {
            if *offset < at {
                return None;
            }
            at = offset.checked_add(*length)?;
            sum = sum.checked_add(*length)?;
        }
        (at <= size && sum == stored).then_some(Self { parts, size })
    }
}

/// Takes the parts of one header of GNU's old form (24 bytes each); an empty one ends the list.
pub fn old_parts(fields: &[u8], parts: &mut Vec<(u64, u64)>) -> Option<()> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            return Some(());
        }
        let offset = u64::try_from(number(&field[..12])?).ok()?;
        let length = u64::try_from(number(&field[12..])?).ok()?;
        if parts.len() >= PARTS_MAX {
            return None;
        }
        parts.push((offset, length));
    }
    Some(())
}

/// Reads the list of form 1.0, one decimal number a line, from `next_line`.
pub fn lines<E>(
    mut next_line: impl FnMut() -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<(u64, u64)>>, E> {
    let Some(count) = decimal(&next_line()?).filter(|n| *n <= PARTS_MAX as u64) else {
        return Ok(None);
    };
    let mut parts = Vec::new();
    for _ in 0..count {
        let (Some(offset), Some(length)) = (decimal(&next_line()?), decimal(&next_line()?)) else {
            return Ok(None);
        };
        parts.push((offset, length));
    }
    Ok(Some(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_checked() {
        assert!(Map::new(vec![(0, 5), (10, 5)], 20, 10).is_some());
        assert!(Map::new(vec![], 20, 0).is_some());
        assert!(Map::new(vec![(0, 5), (3, 5)], 20, 10).is_none(), "overlap");
        assert!(Map::new(vec![(0, 5)], 4, 5).is_none(), "beyond the end");
        assert!(Map::new(vec![(0, 5)], 9, 6).is_none(), "other length than what is stored");
        assert!(Map::new(vec![(u64::MAX, 2)], u64::MAX, 2).is_none(), "overflow");
    }
}

//! Files of packed blobs.
//!
//! A segment is blobs one behind the other, nothing else: what is where is in the index. Bytes are
//! only ever added at the end of the newest one, by whoever holds its [`Tail`]. What a crash leaves
//! behind the last blob that the index knows is dead weight, until the segment is written anew.

use super::lock;
use super::value::Span;
use crate::store::StoreError;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Open segments that are kept for reading.
const HANDLES_MAX: usize = 128;

/// Pieces of one write. Linux takes 1024 (`UIO_MAXIOV`).
const WRITE_PIECES_MAX: usize = 1024;

/// How much of a segment there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of the file.
    pub len: u64,
    /// How many of them a loss of power can't take away.
    pub synced: u64,
}

/// All segments.
pub(super) struct Segments {
    dir: PathBuf,
    roll_at: u64,
    tail: Mutex<Tail>,
    extents: Mutex<BTreeMap<u32, Extent>>,
    handles: Mutex<HashMap<u32, Arc<File>>>,
}

/// The right to add to the newest segment.
pub(super) struct Tail {
    current: Option<(u32, Arc<File>)>,
    len: u64,
    next: u32,
}

impl Segments {
    /// The segments in `dir` that the index knows. The newest is written on, if it has room.
    pub fn new(dir: PathBuf, roll_at: u64, extents: BTreeMap<u32, Extent>) -> Self {
        let next = extents.last_key_value().map_or(0, |(id, _)| id + 1);
        let segments = Self {
            dir,
            roll_at,
            tail: Mutex::new(Tail { current: None, len: 0, next }),
            extents: Mutex::new(extents),
            handles: Mutex::default(),
        };
        segments.resume();
        segments
    }

    /// Goes on with the newest segment; where that can't be opened, the next write begins another.
    fn resume(&self) {
        let newest = lock(&self.extents).last_key_value().map(|(id, extent)| (*id, extent.len));
        if let Some((id, len)) = newest.filter(|(_, len)| *len < self.roll_at)
            && let Ok(file) = OpenOptions::new().read(true).write(true).open(self.path(id))
        {
            let mut tail = lock(&self.tail);
            tail.current = Some((id, Arc::new(file)));
            tail.len = len;
        }
    }

    pub fn path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id:08}.seg"))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which segment a file's name says that it is.
    pub fn parse_name(name: &str) -> Option<u32> {
        let digits = name.strip_suffix(".seg")?;
        (digits.len() >= 8).then(|| digits.parse().ok())?
    }

    /// Waits for the right to add.
    pub fn tail(&self) -> MutexGuard<'_, Tail> {
        lock(&self.tail)
    }

    /// Adds blobs, and answers where they are. `begun` is told of each segment that is begun, before
    /// its file is made.
    pub fn append(
        &self,
        tail: &mut Tail,
        blobs: &[&[u8]],
        mut begun: impl FnMut(u32) -> Result<(), StoreError>,
    ) -> Result<Vec<Span>, StoreError> {
        let mut spans = Vec::with_capacity(blobs.len());
        let mut rest = blobs;
        while !rest.is_empty() {
            let (id, file) = self.room(tail, rest[0].len() as u64, &mut begun)?;
            let count = fitting(rest, self.roll_at.saturating_sub(tail.len));
            let (now, later) = rest.split_at(count);
            let start = tail.len;
            let written = write_all_at(&file, now, start);
            if let Err(error) = written {
                // Nothing points there; what was written is in the way of nobody.
                let _ = file.set_len(start);
                return Err(StoreError::io("Writing", &self.path(id))(error));
            }
            for blob in now {
                let (offset, len) = (tail.len as u32, blob.len() as u32);
                spans.push(Span { segment: id, offset, len });
                tail.len += u64::from(len);
            }
            if let Some(extent) = lock(&self.extents).get_mut(&id) {
                extent.len = tail.len;
            }
            rest = later;
        }
        Ok(spans)
    }

    /// The segment to add `len` bytes to.
    fn room(
        &self,
        tail: &mut Tail,
        len: u64,
        begun: &mut impl FnMut(u32) -> Result<(), StoreError>,
    ) -> Result<(u32, Arc<File>), StoreError> {
        if let Some((id, file)) = &tail.current
            && (tail.len == 0 || tail.len + len <= self.roll_at)
        {
            return Ok((*id, file.clone()));
        }
        let id = tail.next;
        begun(id)?;
        let path = self.path(id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = Arc::new(options.open(&path).map_err(StoreError::io("Making", &path))?);
        *tail = Tail { current: Some((id, file.clone())), len: 0, next: id + 1 };
        lock(&self.extents).insert(id, Extent { len: 0, synced: 0 });
        Ok((id, file))
    }

    /// Ends the newest segment, so that all of them can be written anew.
    pub fn roll(&self, tail: &mut Tail) {
        tail.current = None;
        tail.len = 0;
    }

    /// The newest segment, which is still written.
    pub fn current(&self) -> Option<u32> {
        lock(&self.tail).current.as_ref().map(|(id, _)| *id)
    }

    /// A segment's file.
    pub fn file(&self, id: u32) -> io::Result<Arc<File>> {
        if let Some(file) = lock(&self.handles).get(&id) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.path(id))?);
        let mut handles = lock(&self.handles);
        if handles.len() >= HANDLES_MAX
            && let Some(any) = handles.keys().next().copied()
        {
            handles.remove(&any);
        }
        handles.insert(id, file.clone());
        Ok(file)
    }

    /// Reads a blob. Not verified.
    pub fn read(&self, span: &Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.len as usize];
        self.file(span.segment)?.read_exact_at(&mut bytes, span.offset.into())?;
        Ok(bytes)
    }

    pub fn extents(&self) -> BTreeMap<u32, Extent> {
        lock(&self.extents).clone()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        lock(&self.extents).values().map(|extent| extent.len).sum()
    }

    /// Segments that end behind what was synced.
    pub fn unsynced(&self) -> Vec<(u32, u64)> {
        let extents = lock(&self.extents);
        extents.iter().filter(|(_, e)| e.synced < e.len).map(|(id, e)| (*id, e.len)).collect()
    }

    /// Notes that a segment is safe up to `len`; answers whether it still exists.
    pub fn mark_synced(&self, id: u32, len: u64) -> bool {
        match lock(&self.extents).get_mut(&id) {
            Some(extent) => {
                extent.synced = extent.synced.max(len);
                true
            }
            None => false,
        }
    }

    /// Forgets a segment and deletes its file.
    pub fn remove(&self, id: u32) -> io::Result<()> {
        lock(&self.extents).remove(&id);
        lock(&self.handles).remove(&id);
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// How many of `blobs` go into `room` bytes: at least one.
fn fitting(blobs: &[&[u8]], room: u64) -> usize {
    let mut used = 0;
    let fits = |blob: &&&[u8]| {
        used += blob.len() as u64;
        used <= room
    };
    blobs.iter().take_while(fits).count().max(1)
}

fn write_all_at(file: &File, blobs: &[&[u8]], mut at: u64) -> io::Result<()> {
    for some in blobs.chunks(WRITE_PIECES_MAX) {
        let mut pieces: Vec<_> = some.iter().map(|b| IoSlice::new(b)).collect();
        let mut left = &mut pieces[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut left, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(dir: &Path, roll_at: u64) -> Segments {
        Segments::new(dir.to_owned(), roll_at, BTreeMap::new())
    }

    #[test]
    fn blobs_come_back_and_segments_roll() {
        let dir = tempfile::tempdir().unwrap();
        let segments = segments(dir.path(), 100);
        let blobs: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; usize::from(i) % 37]).collect();
        let slices: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        let mut begun = Vec::new();
        let spans = segments
            .append(&mut segments.tail(), &slices, |id| {
                begun.push(id);
                Ok(())
            })
            .unwrap();
        assert!(begun.len() > 4, "{begun:?}");
        for (span, blob) in spans.iter().zip(&blobs) {
            assert_eq!(segments.read(span).unwrap(), *blob);
        }
        for (id, extent) in segments.extents() {
            assert!(extent.len <= 100);
            assert_eq!(std::fs::metadata(segments.path(id)).unwrap().len(), extent.len);
        }
    }

    #[test]
    fn a_blob_larger_than_a_segment_has_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let segments = segments(dir.path(), 10);
        let large = vec![7; 50];
        let spans =
            segments.append(&mut segments.tail(), &[b"a", &large, b"b"], |_| Ok(())).unwrap();
        assert_eq!(spans.iter().map(|s| s.segment).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(segments.read(&spans[1]).unwrap(), large);
    }

    #[test]
    fn the_newest_segment_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let first = segments(dir.path(), 100);
        first.append(&mut first.tail(), &[b"abc"], |_| Ok(())).unwrap();
        let again = Segments::new(dir.path().to_owned(), 100, first.extents());
        let spans = again.append(&mut again.tail(), &[b"de"], |_| Ok(())).unwrap();
        assert_eq!(spans, [Span { segment: 0, offset: 3, len: 2 }]);
        assert_eq!(again.unsynced(), [(0, 5)]);
    }

    #[test]
    fn names_of_segments_are_read() {
        assert_eq!(Segments::parse_name("00000012.seg"), Some(12));
        assert_eq!(Segments::parse_name("12.seg"), None);
        assert_eq!(Segments::parse_name("00000012.tmp"), None);
    }
}

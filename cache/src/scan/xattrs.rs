//! Extended attributes of what is scanned.
//!
//! Those are kept that are still there when BuildKit has written a context down: `user.*`, and
//! `trusted.*`, which only root sees. What belongs to the host is left out, and so is what a program
//! may do without being root: the file gets another owner, and loses that with it.

use proto::limit;
use proto::tree::{CAPABILITY, is_host_xattr};
use rustix::fd::AsFd;
use rustix::io::Errno;

/// Names and values.
pub(super) type List = Vec<(Vec<u8>, Vec<u8>)>;

/// Room for the names of a file with few attributes, and for a short value.
const ROOM: usize = 256;

/// The attributes that are kept of an open file. One that goes away meanwhile is left out.
pub(super) fn read(fd: impl AsFd) -> Result<List, Errno> {
    let names = match whole(|room| rustix::fs::flistxattr(&fd, room)) {
        Ok(names) => names,
        // The file system has none.
        Err(Errno::NOTSUP) => return Ok(List::new()),
        Err(e) => return Err(e),
    };
    let kept = names.split(|b| *b == 0).filter(|name| is_kept(name));
    let value = |name: &[u8]| whole(|room| rustix::fs::fgetxattr(&fd, name, room)).ok();
    Ok(kept.filter_map(|name| Some((name.to_vec(), value(name)?))).collect())
}

fn is_kept(name: &[u8]) -> bool {
    !name.is_empty() && !is_host_xattr(name) && name != CAPABILITY
}

/// All bytes that a call gives: few as a rule, and never more than Linux takes of a value or of all
/// names together.
fn whole(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut room = [0; ROOM];
    match call(&mut room) {
        Ok(length) => return Ok(room[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut room = vec![0; limit::XATTR_BYTES_MAX];
    let length = call(&mut room)?;
    room.truncate(length);
    Ok(room)
}

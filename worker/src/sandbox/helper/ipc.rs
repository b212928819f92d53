//! Messages between the worker and a helper, over a socket that keeps them apart
//! (`SOCK_SEQPACKET`), with open files along with them.
//!
//! Orders can be large (a process's environment, secrets), so their bytes go in a sealed memory
//! file; answers are small and go as they are.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Files that go along with one message. The kernel takes 253 (`SCM_MAX_FD`).
pub(crate) const FILES_MAX: usize = 250;

/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 32 << 10;

/// Bytes of one order: an environment (Linux takes `ARG_MAX`, some megabytes) and all secrets.
const ORDER_BYTES_MAX: u64 = 256 << 20;

fn send(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fits = files.is_empty()
        || files.len() <= FILES_MAX && ancillary.push(SendAncillaryMessage::ScmRights(files));
    if !fits {
        let why = format!("{} files do not fit into one message", files.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let parts = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// One message and its files; none at the other side's end.
fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; ANSWER_BYTES_MAX];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, flags)
    });
    let got = match got {
        // The other side ended before it had read everything.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut short"));
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(got.bytes);
    Ok(Some((bytes, files)))
}

/// Sends an answer.
pub(crate) fn answer(
    socket: impl AsFd,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send(socket, &serde_json::to_vec(message)?, files)
}

/// Waits for an answer.
pub(crate) fn receive_answer<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    match receive(socket, RecvFlags::empty())? {
        Some((bytes, files)) => Ok(Some((serde_json::from_slice(&bytes)?, files))),
        None => Ok(None),
    }
}

/// Waits for a message with one file, such as a runtime sends a terminal with.
pub(crate) fn receive_file(socket: impl AsFd) -> io::Result<OwnedFd> {
    let received = receive(socket, RecvFlags::empty())?;
    let file = received.and_then(|(_, mut files)| files.pop());
    file.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no file came"))
}

/// Bytes inside of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Part {
    start: u64,
    len: u64,
}

/// An order in the making: a message, bytes besides it, and files.
#[derive(Default)]
pub(crate) struct Order<'a> {
    bytes: Vec<u8>,
    files: Vec<BorrowedFd<'a>>,
}

impl<'a> Order<'a> {
    /// Takes bytes along; the message names them by what this answers.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Part {
        let start = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        Part { start, len: bytes.len() as u64 }
    }

    /// Takes a file along; the message names it by what this answers.
    pub(crate) fn file(&mut self, file: BorrowedFd<'a>) -> usize {
        // The first one is the memory file.
        self.files.push(file);
        self.files.len()
    }

    /// Sends all of it.
    pub(crate) fn send(self, socket: impl AsFd, message: &impl Serialize) -> io::Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(rustix::fs::memfd_create("order", flags)?);
        let text = serde_json::to_vec(message)?;
        memory.write_all(&(text.len() as u64).to_ne_bytes())?;
        memory.write_all(&text)?;
        memory.write_all(&self.bytes)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        let mut files = vec![memory.as_fd()];
        files.extend(self.files);
        send(socket, b"order", &files)
    }
}

/// An order that came in.
pub(crate) struct Received<T> {
    pub message: T,
    memory: File,
    base: u64,
    files: Vec<Option<OwnedFd>>,
}

/// Waits for an order; none at the other side's end.
pub(crate) fn receive_order<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<Received<T>>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let Some((_, mut files)) = receive(socket, RecvFlags::empty())? else { return Ok(None) };
    if files.is_empty() {
        return Err(bad("an order came without its bytes"));
    }
    let memory = File::from(files.remove(0));
    if memory.metadata()?.len() > ORDER_BYTES_MAX {
        return Err(bad("an order is too long"));
    }
    let mut len = [0; 8];
    memory.read_exact_at(&mut len, 0)?;
    let len = u64::from_ne_bytes(len);
    if len > ORDER_BYTES_MAX {
        return Err(bad("an order's length is wrong"));
    }
    let mut text = vec![0; len as usize];
    memory.read_exact_at(&mut text, 8)?;
    let message = serde_json::from_slice(&text)?;
    let files = files.into_iter().map(Some).collect();
    Ok(Some(Received { message, memory, base: 8 + len, files }))
}

impl<T> Received<T> {
    /// The bytes that a part names.
    pub(crate) fn bytes(&self, part: Part) -> io::Result<Vec<u8>> {
        if part.len > ORDER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a part is too long"));
        }
        let mut bytes = vec![0; part.len as usize];
        self.memory.read_exact_at(&mut bytes, self.base + part.start)?;
        Ok(bytes)
    }

    /// The file that a number names; each can be taken once.
    pub(crate) fn take(&mut self, number: usize) -> io::Result<OwnedFd> {
        let slot = number.checked_sub(1).and_then(|index| self.files.get_mut(index));
        slot.and_then(Option::take).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "an order names a file that it lacks")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn orders_arrive_with_bytes_and_files() {
        let (here, there) = pair();
        let null = File::open("/dev/null").unwrap();
        let mut order = Order::default();
        let large = vec![7; 3 << 20];
        let parts = (order.put(b"one"), order.put(&large), order.put(b""));
        let file = order.file(null.as_fd());
        order.send(&here, &("hello", parts, file)).unwrap();
        drop(here);
        let mut got =
            receive_order::<(String, (Part, Part, Part), usize)>(&there).unwrap().unwrap();
        let (hello, parts, file) = got.message.clone();
        assert_eq!(hello, "hello");
        assert_eq!(got.bytes(parts.0).unwrap(), b"one");
        assert_eq!(got.bytes(parts.1).unwrap(), large);
        assert_eq!(got.bytes(parts.2).unwrap(), b"");
        got.take(file).unwrap();
        assert!(got.take(file).is_err() && got.take(0).is_err() && got.take(9).is_err());
        assert!(receive_order::<u8>(&there).unwrap().is_none());
    }

    #[test]
    fn answers_arrive() {
        let (here, there) = pair();
        let null = File::open("/dev/null").unwrap();
        answer(&here, &"yes", &[null.as_fd()]).unwrap();
        let (text, files) = receive_answer::<String>(&there).unwrap().unwrap();
        assert_eq!((text.as_str(), files.len()), ("yes", 1));
        send(&here, b"not json", &[]).unwrap();
        assert!(receive_answer::<String>(&there).is_err());
        send(&here, b"order", &[]).unwrap();
        assert!(receive_order::<String>(&there).is_err());
    }

    #[test]
    fn too_many_files_are_refused() {
        let (here, _there) = pair();
        let null = File::open("/dev/null").unwrap();
        let mut order = Order::default();
        for _ in 0..FILES_MAX {
            order.file(null.as_fd());
        }
        assert!(order.send(&here, &()).is_err());
    }
}

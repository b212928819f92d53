//! Network namespaces that hang on a file, without a name and without a process.

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The calling thread's network namespace, and its counters of packets.
const OWN: &str = "/proc/thread-self/ns/net";
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// Bytes of the counters: some hundred for each of a handful of interfaces.
const COUNTERS_BYTES_MAX: usize = 4096;

/// Makes a namespace in which only the loopback is, and is up.
pub(super) fn make() -> io::Result<(OwnedFd, Counters)> {
    in_thread(|| {
        // SAFETY: only this thread's network changes; it ends with this function.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
        loopback_up()?;
        let file = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((file, Counters(File::open(COUNTERS)?)))
    })
}

/// How many packets left each interface of a namespace; the file stays the namespace's.
pub(super) struct Counters(File);

impl Counters {
    pub(super) fn of(namespace: impl AsFd + Sync) -> io::Result<Self> {
        inside(namespace, || Ok(Self(File::open(COUNTERS)?)))
    }

    /// As they are now.
    pub(super) fn read(&self) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; COUNTERS_BYTES_MAX];
        let count = self.0.read_at(&mut bytes, 0)?;
        Ok(sent(&String::from_utf8_lossy(&bytes[..count])))
    }
}

/// Packets sent, by interface: the tenth number after the name.
fn sent(text: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter_map(|(_, numbers)| numbers.split_whitespace().nth(9)?.parse().ok()).collect()
}

/// Runs `work` with that namespace's network.
pub(super) fn inside<T: Send>(
    namespace: impl AsFd + Sync,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    in_thread(|| {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
        work()
    })
}

/// Runs `work` in a thread of its own, whose namespaces nobody else sees.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(work);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    name[0] = b'l' as libc::c_char;
    name[1] = b'o' as libc::c_char;
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    };
    use std::os::fd::AsRawFd;
    // SAFETY: the request is a whole `ifreq`, and the call only reads it.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_new_namespace_has_its_own_loopback() {
        let (made, counters) = make().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = host.local_addr().unwrap();
        assert!(TcpStream::connect(address).is_ok());
        let before = counters.read().unwrap();
        assert_eq!(before, [0]);
        let names = inside(&made, || {
            assert!(TcpStream::connect(address).is_err());
            let own = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(own.local_addr()?)?;
            std::fs::read_to_string(COUNTERS)
        });
        assert_eq!(sent(&names.unwrap()).len(), 1);
        assert_ne!(counters.read().unwrap(), before);
        assert_eq!(Counters::of(&made).unwrap().read().unwrap(), counters.read().unwrap());
    }

    #[test]
    fn counters_are_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n    \
            lo:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 0 0 0 0 0 0 0 0 7 70 0 0 0 0 0 0\n";
        assert_eq!(sent(text), [10, 70]);
    }
}

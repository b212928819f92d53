//! Network namespaces that hang on a file, without a name and without a process.

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The calling thread's network namespace, and its counters of packets: by interface, and by kind.
const OWN: &str = "/proc/thread-self/ns/net";
const COUNTERS: &str = "/proc/thread-self/net/dev";
const KINDS: &str = "/proc/thread-self/net/snmp6";

/// Bytes of each of the counters' files: a few thousand are usual.
const COUNTERS_BYTES_MAX: usize = 16 << 10;

/// Makes a namespace in which only the loopback is, and is up.
pub(super) fn make() -> io::Result<(OwnedFd, Counters)> {
    in_thread(|| {
        // SAFETY: only this thread's network changes; it ends with this function.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
        loopback_up()?;
        let file = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((file, Counters::open()?))
    })
}

/// How many packets were sent in a namespace. The files stay the namespace's.
pub(super) struct Counters {
    interfaces: File,
    /// None on a kernel without IPv6.
    kinds: Option<File>,
}

impl Counters {
    pub(super) fn of(namespace: impl AsFd + Sync) -> io::Result<Self> {
        inside(namespace, Self::open)
    }

    /// Those of the calling thread's namespace.
    fn open() -> io::Result<Self> {
        Ok(Self { interfaces: File::open(COUNTERS)?, kinds: File::open(KINDS).ok() })
    }

    /// How many until now, without those that the kernel sends when it finds its place in a network
    /// (a new interface does so for some seconds).
    pub(super) fn read(&self) -> io::Result<u64> {
        let own = self.kinds.as_ref().map(text).transpose()?.map_or(0, |text| kernels(&text));
        Ok(sent(&text(&self.interfaces)?).wrapping_sub(own))
    }
}

fn text(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; COUNTERS_BYTES_MAX];
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Packets sent, on all interfaces: the tenth number after each name.
fn sent(text: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let count = |(_, numbers): (&str, &str)| numbers.split_whitespace().nth(9)?.parse::<u64>().ok();
    lines.filter_map(count).sum()
}

/// Packets that the kernel sends unasked (RFC 4861, RFC 3810).
const UNASKED: [&str; 4] = [
    "Icmp6OutRouterSolicits",
    "Icmp6OutNeighborSolicits",
    "Icmp6OutNeighborAdvertisements",
    "Icmp6OutMLDv2Reports",
];

fn kernels(text: &str) -> u64 {
    let words = text.lines().map(|line| line.split_whitespace());
    let pairs = words.filter_map(|mut words| Some((words.next()?, words.next()?)));
    let ours = pairs.filter(|(name, _)| UNASKED.contains(name));
    ours.filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
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
        assert_eq!(before, 0);
        inside(&made, || {
            assert!(TcpStream::connect(address).is_err());
            let own = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(own.local_addr()?).map(drop)
        })
        .unwrap();
        assert_ne!(counters.read().unwrap(), before);
        assert_eq!(Counters::of(&made).unwrap().read().unwrap(), counters.read().unwrap());
    }

    #[test]
    fn counters_are_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n    \
            lo:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 0 0 0 0 0 0 0 0 7 70 0 0 0 0 0 0\n";
        assert_eq!(sent(text), 80);
        let kinds = "Ip6OutRequests \t5\nIcmp6OutMsgs 9\nIcmp6OutRouterSolicits   \t3\n\
            Icmp6OutMLDv2Reports 4\nIcmp6OutEchos 1\n";
        assert_eq!(kernels(kinds), 7);
    }
}

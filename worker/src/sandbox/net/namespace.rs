//! Network namespaces that hang on a file, without a name and without a process.

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Makes a namespace in which only the loopback is, and is up.
pub(super) fn make() -> io::Result<OwnedFd> {
    in_thread(|| {
        // SAFETY: only this thread's network changes; it ends with this function.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
        loopback_up()?;
        Ok(rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    })
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

/// What tells one namespace from another.
pub(super) fn id(namespace: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The namespace of this process.
pub(super) fn own() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/self/ns/net")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_new_namespace_has_its_own_loopback() {
        let made = make().unwrap();
        assert_ne!(id(&made).unwrap(), id(own().unwrap()).unwrap());
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = host.local_addr().unwrap();
        assert!(TcpStream::connect(address).is_ok());
        let names = inside(&made, || {
            assert!(TcpStream::connect(address).is_err());
            let own = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(own.local_addr()?)?;
            std::fs::read_to_string("/proc/thread-self/net/dev")
        });
        let interfaces = names.unwrap().lines().filter(|l| l.contains(':')).count();
        assert_eq!(interfaces, 1);
    }
}

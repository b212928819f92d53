//! A link with properties: two devices of the site's, between which this process carries the
//! frames. It does what `tc netem` does, on kernels without it, too.

use super::inside::Inside;
use super::link::{Lane, Link};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Setter, ioctl};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most bytes of a frame: these devices have no offloads, so none is longer than the MTU and
/// a header.
const FRAME: usize = 2048;
/// How many frames are taken from a device before the other one has its turn.
const TURN: usize = 256;

/// The relay. It ends, and its devices are gone, when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    link: Arc<Mutex<Link>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Makes two devices of these names where `inside` is, and carries frames between them.
    pub(super) fn new(inside: &Inside, names: [String; 2], link: Link, seed: u64) -> Self {
        let devices = inside.call(move || names.map(|name| device(&name)));
        let (reader, writer) = std::io::pipe().expect("making a pipe");
        let link = Arc::new(Mutex::new(link));
        let shared = Arc::clone(&link);
        let thread = std::thread::spawn(move || carry(&devices, &reader, &shared, seed));
        Self { link, stop: Some(writer), thread: Some(thread) }
    }

    /// Changes the properties for the frames that come from now on.
    pub(super) fn change(&self, link: Link) {
        *self.link.lock().expect("no one panics with it") = link;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `TUNSETIFF`, `IFF_TAP` and `IFF_NO_PI` (`include/uapi/linux/if_tun.h`).
const SET_INTERFACE: u32 = 0x4004_54ca;
const TAP: u16 = 0x0002;
const NO_PACKET_INFORMATION: u16 = 0x1000;

/// As much of `struct ifreq` (netdevice(7)) as is read here.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a device that gives this process the frames that are sent to it.
fn device(name: &str) -> File {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty());
    let file = file.unwrap_or_else(|e| panic!("opening /dev/net/tun: {e}"));
    let mut request =
        InterfaceRequest { name: [0; 16], flags: TAP | NO_PACKET_INFORMATION, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: this call reads a `struct ifreq`, which the type is as long as.
    let made = unsafe { ioctl(&file, Setter::<SET_INTERFACE, _>::new(request)) };
    made.unwrap_or_else(|e| panic!("making the device {name}: {e}"));
    file.into()
}

/// Carries frames until the other end of the pipe is closed.
fn carry(devices: &[File; 2], stop: &PipeReader, link: &Mutex<Link>, seed: u64) {
    let began = Instant::now();
    let mut lanes = [Lane::new(seed), Lane::new(!seed)];
    loop {
        let next = lanes.iter().filter_map(Lane::next).min();
        let wait = next.map(|arrives| arrives.saturating_sub(began.elapsed()));
        if stopped(devices, stop, wait) {
            return;
        }
        let link = *link.lock().expect("no one panics with it");
        for (lane, from, to) in [(0, 0, 1), (1, 1, 0)] {
            let lane = &mut lanes[lane];
            take_in(lane, &devices[from], &link, began);
            while let Some(frame) = lane.take(began.elapsed()) {
                // A device that is down or full drops it.
                let _ = (&devices[to]).write(&frame);
            }
        }
    }
}

/// Waits until a frame comes, or a time has passed. Answers whether it is time to end.
fn stopped(devices: &[File; 2], stop: &PipeReader, wait: Option<Duration>) -> bool {
    let mut wanted = [
        PollFd::new(stop, PollFlags::IN),
        PollFd::new(&devices[0], PollFlags::IN),
        PollFd::new(&devices[1], PollFlags::IN),
    ];
    let wait = wait.map(|wait| Timespec::try_from(wait).expect("a delay of seconds"));
    match rustix::event::poll(&mut wanted, wait.as_ref()) {
        Ok(_) => !wanted[0].revents().is_empty(),
        Err(e) => e != rustix::io::Errno::INTR,
    }
}

fn take_in(lane: &mut Lane, mut from: &File, link: &Link, began: Instant) {
    let mut buffer = [0; FRAME];
    for _ in 0..TURN {
        let Ok(length) = from.read(&mut buffer) else { return };
        lane.offer(link, buffer[..length].to_vec(), began.elapsed());
    }
}

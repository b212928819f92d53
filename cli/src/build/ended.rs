//! Work that is given up when the person ends the build, before there is one to cancel: what was
//! fetched or unpacked so far is taken away.

use proto::error::{Class, Failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a read waits for bytes before it looks whether it should go on, in nanoseconds.
const LOOK: i64 = 50_000_000;

/// Does something until Ctrl-C or SIGTERM.
pub async fn unless_ended<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = told_to_end() => Err(cancelled()),
    }
}

/// Does something that blocks and reads a file, until Ctrl-C or SIGTERM: from then on there is
/// nothing to be read, and this returns when the work has.
pub async fn blocking<T: Send + 'static>(
    input: File,
    work: impl FnOnce(Input) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    let input = Input { file: input, ended: ended.clone() };
    let told = told_to_end();
    let mut working = tokio::task::spawn_blocking(move || work(input));
    let (done, is_ended) = tokio::select! {
        done = &mut working => (done, false),
        () = told => {
            ended.store(true, Ordering::SeqCst);
            (working.await, true)
        }
    };
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    if is_ended { Err(cancelled()) } else { done }
}

/// Standard input, without a buffer of the process: who waits for it sees all that there is.
pub fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// A file that fails to be read once the build was ended.
pub struct Input {
    file: File,
    ended: Arc<AtomicBool>,
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wait = Timespec { tv_sec: 0, tv_nsec: LOOK };
        loop {
            if self.ended.load(Ordering::SeqCst) {
                return Err(io::Error::other("the build was cancelled"));
            }
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // What is wrong with it the read tells.
                Ok(_) | Err(_) => return self.file.read(into),
            }
        }
    }
}

fn cancelled() -> Failure {
    Failure::new(Class::Cancelled, "The build was cancelled")
}

/// Waits for the next Ctrl-C or SIGTERM from here on.
fn told_to_end() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async {
        let [Ok(mut int), Ok(mut term)] = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
    }
}

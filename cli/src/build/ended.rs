//! Ctrl-C and SIGTERM: what a build does about them, and work that is given up before there is a build
//! to cancel, so that what was fetched or unpacked so far is taken away.

use crate::error::exit_code;
use proto::error::{Class, Failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// How long a read waits for bytes before it looks whether it should go on, in nanoseconds.
const LOOK: i64 = 50_000_000;

/// Does something until Ctrl-C or SIGTERM.
pub async fn unless_ended<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = told(1) => Err(cancelled()),
    }
}

/// Does something that blocks and reads a file, until Ctrl-C or SIGTERM: from then on there is
/// nothing to be read, and this returns when the work has. A second signal does not wait for that.
pub async fn blocking<T: Send + 'static>(
    input: File,
    work: impl FnOnce(Input) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    let input = Input { file: input, ended: ended.clone() };
    let told_once = told(1);
    let mut working = tokio::task::spawn_blocking(move || work(input));
    let done = tokio::select! {
        done = &mut working => done,
        () = told_once => {
            ended.store(true, Ordering::SeqCst);
            tokio::select! {
                _ = working => return Err(cancelled()),
                () = told(2) => std::process::exit(exit_code(&cancelled()).into()),
            }
        }
    };
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Waits until Ctrl-C or SIGTERM came so many times since this was called for the first time: from
/// then on they do not end the process, and so none of them may be missed.
pub fn told(times: u32) -> impl Future<Output = ()> {
    static TOLD: OnceLock<watch::Receiver<u32>> = OnceLock::new();
    let mut told = TOLD.get_or_init(count).clone();
    async move {
        if told.wait_for(|came| *came >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Counts the signals from here on.
fn count() -> watch::Receiver<u32> {
    use tokio::signal::unix::{SignalKind, signal};
    let (count, told) = watch::channel(0);
    if let [Ok(mut int), Ok(mut term)] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
    {
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                count.send_modify(|came| *came += 1);
            }
        });
    }
    told
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

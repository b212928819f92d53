//! A thread that lives in namespaces of its own, and does there what others ask of it.
//!
//! Namespaces belong to threads, not to programs (namespaces(7)): what this thread opens is opened
//! inside, and what it starts is a child of the test like any other, but lives inside.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped; then its namespaces are gone, if nothing else is in
/// them.
#[derive(Debug)]
pub(super) struct Inside {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Inside {
    /// Starts the thread, which is where this process is until a job moves it.
    pub(super) fn new(name: &str) -> Self {
        let (jobs, waiting) = channel::<Job>();
        let work = move || waiting.into_iter().for_each(|job| job());
        let thread = Builder::new().name(name.to_owned()).spawn(work).expect("starting a thread");
        let mut this = Self { jobs: Some(jobs), thread: Some(thread), tid: 0 };
        this.tid = this.call(|| rustix::thread::gettid().as_raw_nonzero().get());
        this
    }

    /// Its number, as `/proc/self/task` has it.
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// Has the thread do something, and waits for it. If that panics, the caller does.
    pub(super) fn call<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, answer) = channel();
        let job = move || {
            let _ = sender.send(catch_unwind(AssertUnwindSafe(job)));
        };
        let jobs = self.jobs.as_ref().expect("it is there until it is dropped");
        jobs.send(Box::new(job)).expect("the thread outlives its jobs");
        let answer = answer.recv().expect("the thread outlives its jobs");
        answer.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Walks a tree with several threads: down to find what there is, up to sum it up.
//!
//! The walk keeps its own stack, so that a deep tree costs memory and never a thread's stack; it
//! takes the newest job first, so that few directories are open at once.

use super::RootfsError;
use cache::meter::Carried;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// So many jobs must wait before a second thread is worth starting.
const THREADS_FROM: usize = 4;

/// What is done at each node of a tree.
pub(crate) trait Fold: Sync {
    /// What to look at.
    type Job: Send;
    /// What is kept of a node until all below it is done.
    type Frame: Send;
    /// What comes out of a node.
    type Out: Send;

    /// Looks at a node: what to keep of it, and what lies below.
    fn enter(&self, job: Self::Job) -> Result<(Self::Frame, Vec<Self::Job>), RootfsError>;

    /// Sums a node up, with what came out of the jobs that [`Fold::enter`] gave, in their order.
    fn leave(&self, frame: Self::Frame, outs: Vec<Self::Out>) -> Result<Self::Out, RootfsError>;
}

/// How many threads are worth having on this machine.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8))
}

/// Walks the tree under `root`. The first error ends it.
pub(crate) fn fold<F: Fold>(work: &F, root: F::Job, threads: usize) -> Result<F::Out, RootfsError> {
    let walk = Walk {
        work,
        queue: Mutex::new(Queue { jobs: vec![(root, None)], result: None }),
        changed: Condvar::new(),
    };
    let started = AtomicBool::new(false);
    let counted = Carried::here();
    std::thread::scope(|scope| {
        walk.run(&mut || {
            if threads > 1 && !started.swap(true, Ordering::Relaxed) {
                for _ in 1..threads {
                    let (walk, counted) = (&walk, counted.clone());
                    scope.spawn(move || counted.within(|| walk.run(&mut || {})));
                }
            }
        });
    });
    let queue = walk.queue.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    queue.result.expect("a walk ends with a result")
}

type Place<F> = Option<(Arc<Node<F>>, usize)>;

/// A node whose children are not all done.
struct Node<F: Fold> {
    state: Mutex<(Option<F::Frame>, Vec<Option<F::Out>>)>,
    left: AtomicUsize,
    parent: Place<F>,
}

impl<F: Fold> Drop for Node<F> {
    /// Lets go of the nodes above one by one: a deep chain must not be dropped by recursion.
    fn drop(&mut self) {
        let mut place = self.parent.take();
        while let Some((node, _)) = place {
            place = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

struct Queue<F: Fold> {
    jobs: Vec<(F::Job, Place<F>)>,
    result: Option<Result<F::Out, RootfsError>>,
}

/// Ends the walk when a thread panics, so that the others do not wait for it.
struct OnPanic<'a, 'b, F: Fold>(&'a Walk<'b, F>);

impl<F: Fold> Drop for OnPanic<'_, '_, F> {
    fn drop(&mut self) {
        self.0.queue().result.get_or_insert(Err(RootfsError::Panicked));
        self.0.changed.notify_all();
    }
}

struct Walk<'a, F: Fold> {
    work: &'a F,
    queue: Mutex<Queue<F>>,
    changed: Condvar,
}

impl<F: Fold> Walk<'_, F> {
    fn queue(&self) -> MutexGuard<'_, Queue<F>> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn run(&self, more: &mut dyn FnMut()) {
        while let Some((job, place)) = self.next() {
            let panicked = OnPanic(self);
            let done = self.step(job, place);
            std::mem::forget(panicked);
            let mut queue = self.queue();
            match done {
                Ok(None) => {}
                Ok(Some(out)) => queue.result = Some(Ok(out)),
                Err(e) => {
                    queue.result.get_or_insert(Err(e));
                }
            }
            let (waiting, over) = (queue.jobs.len(), queue.result.is_some());
            drop(queue);
            if over {
                self.changed.notify_all();
            }
            if waiting >= THREADS_FROM {
                more();
            }
        }
    }

    fn next(&self) -> Option<(F::Job, Place<F>)> {
        let mut queue = self.queue();
        loop {
            if queue.result.is_some() {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                return Some(job);
            }
            queue = self.changed.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Does one job; answers the whole walk's outcome when it was the last.
    fn step(&self, job: F::Job, place: Place<F>) -> Result<Option<F::Out>, RootfsError> {
        let (frame, below) = self.work.enter(job)?;
        if below.is_empty() {
            let out = self.work.leave(frame, Vec::new())?;
            return self.hand_up(out, place);
        }
        let count = below.len();
        let node = Arc::new(Node {
            state: Mutex::new((Some(frame), (0..count).map(|_| None).collect())),
            left: AtomicUsize::new(count),
            parent: place,
        });
        let jobs = below.into_iter().enumerate().rev();
        let jobs = jobs.map(|(i, job)| (job, Some((node.clone(), i))));
        self.queue().jobs.extend(jobs);
        self.changed.notify_all();
        Ok(None)
    }

    fn hand_up(&self, mut out: F::Out, mut place: Place<F>) -> Result<Option<F::Out>, RootfsError> {
        while let Some((node, index)) = place {
            let mut state = node.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            state.1[index] = Some(out);
            if node.left.fetch_sub(1, Ordering::AcqRel) > 1 {
                return Ok(None);
            }
            let frame = state.0.take().expect("a node is left once");
            let outs = std::mem::take(&mut state.1);
            drop(state);
            let outs = outs.into_iter().map(|o| o.expect("every child is done")).collect();
            out = self.work.leave(frame, outs)?;
            place = node.parent.as_ref().map(|(parent, i)| (parent.clone(), *i));
        }
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the numbers of a tree in which each node `(depth, width)` has `width` children.
    struct Count {
        fail_at: Option<usize>,
    }

    impl Fold for Count {
        type Job = (usize, usize);
        type Frame = usize;
        type Out = usize;

        fn enter(&self, job: Self::Job) -> Result<(usize, Vec<Self::Job>), RootfsError> {
            let (depth, width) = job;
            if self.fail_at == Some(depth) {
                return Err(RootfsError::TooDeep { path: "x".into() });
            }
            let below = if depth == 0 { Vec::new() } else { vec![(depth - 1, width); width] };
            Ok((depth, below))
        }

        fn leave(&self, _: usize, outs: Vec<usize>) -> Result<usize, RootfsError> {
            Ok(1 + outs.iter().sum::<usize>())
        }
    }

    #[test]
    fn every_node_is_left_once() {
        for threads in [1, 4] {
            assert_eq!(fold(&Count { fail_at: None }, (3, 10), threads).unwrap(), 1111);
            assert_eq!(fold(&Count { fail_at: None }, (0, 0), threads).unwrap(), 1);
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        assert_eq!(fold(&Count { fail_at: None }, (100_000, 1), 2).unwrap(), 100_001);
    }

    #[test]
    fn an_error_ends_the_walk() {
        for threads in [1, 4] {
            assert!(fold(&Count { fail_at: Some(0) }, (3, 10), threads).is_err());
            assert!(fold(&Count { fail_at: Some(0) }, (100_000, 2), threads).is_err());
        }
    }

    /// Panics at its third level, in whichever thread comes there first.
    struct Panics;

    impl Fold for Panics {
        type Job = usize;
        type Frame = ();
        type Out = ();

        fn enter(&self, depth: usize) -> Result<((), Vec<usize>), RootfsError> {
            assert!(depth < 3, "as it should");
            Ok(((), vec![depth + 1; 10]))
        }

        fn leave(&self, (): (), _: Vec<()>) -> Result<(), RootfsError> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_ends_the_walk() {
        for threads in [1, 4] {
            assert!(std::panic::catch_unwind(|| fold(&Panics, 0, threads)).is_err());
        }
    }

    /// Answers its path from the root, to see the order of the outs.
    struct Order;

    impl Fold for Order {
        type Job = (usize, String);
        type Frame = String;
        type Out = String;

        fn enter(&self, job: Self::Job) -> Result<(String, Vec<Self::Job>), RootfsError> {
            let (depth, name) = job;
            let below = (0..if depth == 0 { 0 } else { 3 }).map(|i| (depth - 1, i.to_string()));
            Ok((name, below.collect()))
        }

        fn leave(&self, name: String, outs: Vec<String>) -> Result<String, RootfsError> {
            Ok(format!("{name}({})", outs.concat()))
        }
    }

    #[test]
    fn outs_come_in_the_order_of_the_jobs() {
        let want = "r(0(0()1()2())1(0()1()2())2(0()1()2()))";
        assert_eq!(fold(&Order, (2, "r".into()), 4).unwrap(), want);
    }
}

//! The shell around the display: a thread, a clock and standard error.

use super::backlog::Backlog;
use super::session::{Outcome, Session};
use super::settings::{Mode, Settings, StartError};
use super::tty::Size;
use proto::error::Failure;
use proto::id::Millis;
use proto::wire::build::{BuildResult, Event};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// At most ten frames in a second.
const FRAME: Duration = Duration::from_millis(100);
/// Events that wait for the terminal have so many bytes at most.
const BACKLOG_BYTES_MAX: usize = 4 << 20;
/// Whoever brings an event waits for the terminal no longer than this.
const ROOM_WAIT: Duration = Duration::from_millis(250);

/// The progress display of one build.
///
/// Events may come from any thread. The display is over with [`Display::finish`], or without a
/// word of the result when it is dropped.
pub struct Display {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where a display writes to.
pub struct Output {
    /// Takes the text. When it fails, the display says no more and the build goes on.
    pub writer: Box<dyn Write + Send>,
    /// Tells the size of the terminal, if there is a terminal. It is asked before each frame.
    pub size: Option<Box<dyn Fn() -> Size + Send>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do for the display.
    work: Condvar,
    /// The display has taken the events.
    room: Condvar,
}

struct State {
    backlog: Backlog,
    outcome: Option<Outcome>,
}

impl Display {
    /// Starts the display of a build at standard error.
    pub fn start(mode: Mode, settings: &Settings) -> Result<Self, StartError> {
        Self::start_at(Output::stderr(), mode, settings)
    }

    /// Starts the display of a build.
    pub fn start_at(output: Output, mode: Mode, settings: &Settings) -> Result<Self, StartError> {
        let look = settings.look(mode, output.size.is_some())?;
        let session = Session::new(now(), look);
        let shared = Arc::new(Shared::new());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || theirs.run(session, output))
            .map_err(StartError::Thread)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Shows an event, soon. Waits a moment when the terminal is far behind.
    pub fn event(&self, event: Event) {
        self.shared.event(event);
    }

    /// Shows how the build has ended, and returns when all is written. Nothing is shown after it.
    pub fn finish(&self, result: &Result<BuildResult, Failure>) {
        self.end(match result {
            Ok(result) => Outcome::Built(result.summary),
            Err(failure) => Outcome::Failed(failure.clone()),
        });
    }

    fn end(&self, outcome: Outcome) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        self.shared.lock().outcome = Some(outcome);
        self.shared.work.notify_one();
        if let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned);
    }
}

impl Shared {
    fn new() -> Self {
        let state = State { backlog: Backlog::new(BACKLOG_BYTES_MAX), outcome: None };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    /// Events are whole or absent, so a panic elsewhere leaves nothing half-done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, event: Event) {
        let mut state = self.lock();
        let was_empty = state.backlog.is_empty();
        let mut refused = state.backlog.offer(event).err();
        let until = Instant::now() + ROOM_WAIT;
        while let Some(event) = refused.take() {
            let left = until.saturating_duration_since(Instant::now());
            if state.backlog.is_stalled() || left.is_zero() {
                state.backlog.lose(event);
                break;
            }
            state = match self.room.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            refused = state.backlog.offer(event).err();
        }
        // In between the display rests until the next frame.
        if was_empty || state.backlog.is_half_full() {
            self.work.notify_one();
        }
    }

    /// The display's thread.
    fn run(&self, mut session: Session, mut output: Output) {
        let mut broken = false;
        let mut write = |text: String| {
            if !broken && !text.is_empty() {
                // A reader that has gone, such as a pager, does not stop the build.
                let written = output.writer.write_all(text.as_bytes());
                broken = written.and_then(|()| output.writer.flush()).is_err();
            }
        };
        let size = || output.size.as_ref().map_or(Size::UNKNOWN, |size| size());
        loop {
            let began = Instant::now();
            let (events, outcome) = self.take(session.moves());
            write(session.events(now(), size(), &events));
            if let Some(outcome) = outcome {
                return write(session.finish(now(), size(), &outcome));
            }
            self.rest(began + FRAME);
        }
    }

    /// Waits for events, or for the time of a frame if the display `moves` by itself.
    fn take(&self, moves: bool) -> (Vec<Event>, Option<Outcome>) {
        let mut state = self.lock();
        while !moves && state.backlog.is_empty() && state.outcome.is_none() {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = (state.backlog.take(), state.outcome.take());
        self.room.notify_all();
        taken
    }

    /// Waits for the time of the next frame, unless there is a lot to do.
    fn rest(&self, until: Instant) {
        let mut state = self.lock();
        while state.outcome.is_none() && !state.backlog.is_half_full() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = match self.work.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Output {
    /// Standard error.
    pub fn stderr() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let size: Option<Box<dyn Fn() -> Size + Send>> =
            if is_terminal { Some(Box::new(stderr_size)) } else { None };
        Self { writer: Box::new(std::io::stderr()), size }
    }
}

fn stderr_size() -> Size {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { width: size.ws_col.into(), height: size.ws_row.into() }
        }
        _ => Size::UNKNOWN,
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

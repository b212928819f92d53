//! The whole terminal: its other screen, keys without Enter, its size.
//!
//! Sequences are xterm's (private mode 1049, the other screen; 25, the cursor) and those of ECMA-48.
//! The terminal is as it was when this is dropped.

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::io::{self, Read, Write};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Ctrl-C and Ctrl-D, where the terminal does not make signals of them.
const ENDS: [u8; 4] = [b'q', b'Q', 3, 4];

/// What happened while one waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Nothing,
    /// The window has another size.
    Resized,
    /// The person wants to end.
    End,
}

/// The terminal, taken over.
pub struct Screen {
    before: Termios,
    keys: mpsc::Receiver<u8>,
    resized: Signal,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Screen {
    /// Takes the terminal of standard input and output.
    pub fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // Stopped in the middle it would leave the terminal as it is now.
        modes.special_codes[SpecialCodeIndex::VSUSP] = 0;
        let screen = Self {
            before,
            keys: keys(),
            resized: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        };
        tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                (usize::from(size.ws_row), usize::from(size.ws_col))
            }
            _ => (24, 80),
        }
    }

    /// Shows these lines, which fit.
    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        // One write, and nothing is cleared before it is written anew: so nothing flickers.
        let body = lines.join("\x1b[K\r\n");
        write(&format!("\x1b[H{body}\x1b[K\x1b[J"))
    }

    /// Waits for something to happen.
    pub async fn wait(&mut self, time: Duration) -> Input {
        let time = tokio::time::sleep(time);
        tokio::pin!(time);
        loop {
            tokio::select! {
                () = &mut time => return Input::Nothing,
                _ = self.resized.recv() => return Input::Resized,
                _ = self.interrupt.recv() => return Input::End,
                _ = self.terminate.recv() => return Input::End,
                _ = self.hangup.recv() => return Input::End,
                key = self.keys.recv() => match key {
                    Some(key) if !ENDS.contains(&key) => {}
                    _ => return Input::End,
                },
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The keys that are pressed. Reads of a terminal cannot be interrupted: the thread ends with the
/// process.
fn keys() -> mpsc::Receiver<u8> {
    let (pressed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut key = [0];
        while let Ok(1) = io::stdin().read(&mut key) {
            if pressed.blocking_send(key[0]).is_err() {
                return;
            }
        }
    });
    keys
}

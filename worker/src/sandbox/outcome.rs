//! How a container ended. Pure.

use std::time::Duration;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its program ended with this code.
    Exited(i32),
    /// Its program was ended by this signal.
    Signaled(i32),
    /// The kernel ended a process of it because its memory limit was reached, and its program
    /// failed.
    OutOfMemory,
    /// It was stopped because its time was up.
    TimedOut(Duration),
    /// It was stopped because somebody asked for it.
    Cancelled,
}

/// Why it was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Timeout(Duration),
    Cancel,
}

impl Outcome {
    /// Whether the program did what it should.
    pub fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The exit code as a shell has it: 128 and the signal's number after a signal. Docker's 137
    /// for what was killed.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exited(code) => *code,
            Self::Signaled(signal) => 128 + signal,
            Self::OutOfMemory | Self::TimedOut(_) | Self::Cancelled => 137,
        }
    }

    /// What became of it, from what is known: why it was stopped, how its first process ended (as
    /// waitpid(2) has it), whether the kernel killed for memory meanwhile.
    pub(crate) fn new(stopped: Option<Stop>, status: Option<i32>, oom_kills: u64) -> Self {
        let ended = status.map(|status| match status & 0x7f {
            0 => Self::Exited(status >> 8 & 0xff),
            signal => Self::Signaled(signal),
        });
        match (stopped, ended) {
            (_, Some(Self::Exited(0))) => Self::Exited(0),
            (Some(Stop::Timeout(after)), _) => Self::TimedOut(after),
            (Some(Stop::Cancel), _) => Self::Cancelled,
            (None, _) if oom_kills > 0 => Self::OutOfMemory,
            (None, Some(ended)) => ended,
            (None, None) => Self::Signaled(9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_it() {
        let time = Duration::from_secs(1);
        for (stopped, status, kills, want, code) in [
            (None, Some(0), 0, Outcome::Exited(0), 0),
            (None, Some(3 << 8), 0, Outcome::Exited(3), 3),
            (None, Some(15), 0, Outcome::Signaled(15), 143),
            (None, Some(9), 1, Outcome::OutOfMemory, 137),
            (None, Some(1 << 8), 2, Outcome::OutOfMemory, 137),
            // A killed child that the program did without.
            (None, Some(0), 1, Outcome::Exited(0), 0),
            (None, None, 0, Outcome::Signaled(9), 137),
            (Some(Stop::Timeout(time)), Some(9), 0, Outcome::TimedOut(time), 137),
            (Some(Stop::Cancel), None, 0, Outcome::Cancelled, 137),
            // It had ended before it could be stopped.
            (Some(Stop::Cancel), Some(0), 0, Outcome::Exited(0), 0),
        ] {
            let got = Outcome::new(stopped, status, kills);
            assert_eq!((got, got.exit_code()), (want, code));
            assert_eq!(got.is_success(), code == 0);
        }
    }
}

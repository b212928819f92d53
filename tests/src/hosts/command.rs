//! A command that runs in a host.

use super::host::Host;
use super::machine::entering;
use crate::command::{DEADLINE, Outcome, Running, command, line};
use crate::service::Service;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// A command that runs in a host, once it is told to.
#[derive(Debug)]
pub struct HostCommand {
    host: Host,
    command: Command,
}

impl HostCommand {
    pub(super) fn new<A: AsRef<OsStr>>(
        host: Host,
        program: &OsStr,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = command(program);
        command.env("HOME", "/root").current_dir("/root").args(args);
        Self { host, command }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The directory of the host's that it works in, instead of `/root`.
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.start().finish(DEADLINE)
    }

    /// Runs it with something on its standard input.
    #[track_caller]
    pub fn run_with(self, input: &[u8]) -> Outcome {
        self.start_with(input).finish(DEADLINE)
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Running {
        self.start_with(&[])
    }

    /// Starts it with something on its standard input.
    #[track_caller]
    pub fn start_with(self, input: &[u8]) -> Running {
        let spawn = |command| self.host.spawn(command);
        let said = format!("{}# {}", self.host.name(), line(&self.command));
        Running::start_by(entering(&self.command), input, spawn).named(said)
    }

    /// Starts it as a service, with a log of that name.
    #[track_caller]
    pub fn serve(self, name: &str) -> Service {
        let log = self.host.log(name);
        Service::start_by(entering(&self.command), &log, |command| self.host.spawn(command))
    }
}

//! The last steps before the container's program runs: the filter of system calls, the capability
//! that installing it took, and finding the program.

use super::report;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::process::Signal;
use rustix::thread::CapabilitySet;
use std::collections::HashMap;
use std::ffi::CString;
use std::io;

/// What the line in the report begins with when the program could not be run.
pub(super) const NO_PROGRAM: &str = "\u{1}no program ";

/// Runs the spec's program.
#[derive(Clone)]
pub(super) struct Program {
    /// The filter; with it goes the capability that installs it.
    pub filter: Option<Vec<u8>>,
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failed = |e: io::Error| ExecutorError::Other(e.to_string());
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let env = process.env().as_ref().map_or(&[][..], Vec::as_slice);
        let (args, env) = (strings(args)?, strings(env)?);
        // When the job dies, so does the container.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| failed(e.into()))?;
        if let Some(filter) = &self.filter {
            install(filter).map_err(failed)?;
            drop_admin().map_err(failed)?;
        }
        default_signals();
        let errno = run(&args, &env);
        report::line(&format!("{NO_PROGRAM}{errno}"));
        Err(ExecutorError::Other(io::Error::from_raw_os_error(errno).to_string()))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The program gets the spec's own list, in its order.
        Ok(())
    }
}

fn strings(list: &[String]) -> Result<Vec<CString>, ExecutorError> {
    let string = |text: &String| CString::new(text.as_str());
    list.iter().map(string).collect::<Result<_, _>>().map_err(|_| ExecutorError::InvalidArg)
}

/// `SECCOMP_SET_MODE_FILTER`
const SET_FILTER: i32 = 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no slower than without a filter, as in runc.
const SPEC_ALLOW: u32 = 4;

fn install(filter: &[u8]) -> io::Result<()> {
    let code: Vec<libc::sock_filter> = filter
        .chunks_exact(8)
        .map(|insn| libc::sock_filter {
            code: u16::from_ne_bytes([insn[0], insn[1]]),
            jt: insn[2],
            jf: insn[3],
            k: u32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_ptr().cast_mut() };
    // SAFETY: the program points to that many instructions, which the kernel copies.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, SPEC_ALLOW, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn drop_admin() -> io::Result<()> {
    let admin = CapabilitySet::SYS_ADMIN;
    rustix::thread::remove_capability_from_bounding_set(admin)?;
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(admin);
    sets.permitted.remove(admin);
    sets.inheritable.remove(admin);
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// A program begins with the default for each signal: what is ignored would stay so, and SIGPIPE is
/// ignored by Rust's runtime. Those that the C library keeps for itself are reached by the system call only.
fn default_signals() {
    const SIGNALS: i32 = 64;
    /// `struct sigaction` of the kernel: no flags, no mask, and `SIG_DFL`.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=SIGNALS {
        let old = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads no more than its structure, and writes nothing. It refuses SIGKILL
        // and SIGSTOP, which have no other action anyway.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, MASK_BYTES);
        }
    }
}

/// Runs the program, looked for in `PATH` as execvp(3) does, but for its guess that a file without
/// a known format is a shell script: the kernel's answer counts, as in runc. Returns the reason why
/// it did not.
fn run(args: &[CString], env: &[CString]) -> i32 {
    let Some(program) = args.first() else { return libc::ENOENT };
    let list = |strings: &[CString]| {
        let pointers = strings.iter().map(|s| s.as_ptr());
        pointers.chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (list(args), list(env));
    let execute = |path: &CString| {
        // SAFETY: both lists end with a null pointer, and their strings outlive the call.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
    };
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return execute(program);
    }
    let path = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let mut worst = libc::ENOENT;
    for folder in path.unwrap_or_default().split(|b| *b == b':') {
        let folder = if folder.is_empty() { b"." } else { folder };
        let Ok(path) = CString::new([folder, b"/", name].concat()) else { continue };
        match execute(&path) {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return other,
        }
    }
    worst
}

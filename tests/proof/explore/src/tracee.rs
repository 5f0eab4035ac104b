//! One operation in a process of its own, stopped before every system call.
//!
//! ptrace(2) shows the registers and the memory, and lets a call be changed, skipped, or its result be
//! replaced. No seccomp filter chooses the calls: nearly all of an operation's are wanted anyway, and a
//! filter for each process, thousands a minute, stopped a Linux 6.18 for good. The kernel frees compiled
//! filters on its `events` queue; 2,047 of them waited there for `bpf_prog_pack_free`'s mutex, whose owner
//! waited in `__purge_vmap_area_lazy` for work that it had put into the same queue.
//!
//! The only `unsafe` of this package is here: `fork` and `_exit`.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

pub struct Tracee {
    pub pid: Pid,
    result: std::fs::File,
    is_gone: bool,
    /// Stopped before a call, not after it.
    in_call: bool,
}

/// What the tracee has come to.
pub enum Stop {
    /// Before a call.
    Call(Box<user_regs_struct>),
    Ended,
}

impl Tracee {
    /// Forks instead of executing: that takes a tenth of the time, and what a library finds out once
    /// for each process is known already (see `main::warm_up`).
    pub fn start(operation: impl FnOnce() -> String) -> Result<Tracee> {
        let (read, write) = pipe()?;
        // SAFETY: this process has one thread, so the child finds every lock free.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                drop(write);
                let tracee =
                    Tracee { pid: child, result: read.into(), is_gone: false, in_call: false };
                waitpid(child, None)?;
                let options =
                    ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(child, options)?;
                Ok(tracee)
            }
            ForkResult::Child => {
                drop(read);
                let status = child(write, operation).is_err();
                // Neither destructors nor what is buffered: they are the parent's.
                unsafe { libc::_exit(status.into()) }
            }
        }
    }

    /// Goes on from where it is stopped, until the next call.
    pub fn go_on(&mut self) -> Result<()> {
        Ok(ptrace::syscall(self.pid, None)?)
    }

    /// Waits until it stops before a call, or ends.
    pub fn wait(&mut self) -> Result<Stop> {
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
                WaitStatus::PtraceSyscall(_) => {
                    self.in_call = !self.in_call;
                    if self.in_call {
                        return Ok(Stop::Call(Box::new(ptrace::getregs(self.pid)?)));
                    }
                    ptrace::syscall(self.pid, None)?;
                }
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    self.is_gone = true;
                    return Ok(Stop::Ended);
                }
                WaitStatus::Stopped(_, signal) => ptrace::syscall(self.pid, signal)?,
                other => bail!("unexpected stop: {other:?}"),
            }
        }
    }

    /// Has the call executed, and stops after it.
    pub fn execute(&mut self) -> Result<user_regs_struct> {
        ptrace::syscall(self.pid, None)?;
        match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(_) => {
                self.in_call = false;
                Ok(ptrace::getregs(self.pid)?)
            }
            other => bail!("unexpected stop after a call: {other:?}"),
        }
    }

    /// The call before which it is stopped is not executed; this is what it is told.
    pub fn answer(&self, mut registers: user_regs_struct, result: i64) -> Result<()> {
        registers.orig_rax = u64::MAX;
        registers.rax = result as u64;
        self.set(registers)
    }

    pub fn set(&self, registers: user_regs_struct) -> Result<()> {
        Ok(ptrace::setregs(self.pid, registers)?)
    }

    pub fn kill(&mut self) -> Result<()> {
        kill(self.pid, Signal::SIGKILL)?;
        while !self.is_gone {
            match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => self.is_gone = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// What the operation returned; `None` if it was killed.
    pub fn result(&mut self) -> Result<Option<String>> {
        let mut text = String::new();
        self.result.read_to_string(&mut text)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    pub fn read(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        let from = [RemoteIoVec { base: usize::try_from(address)?, len: length }];
        let mut into = [std::io::IoSliceMut::new(&mut buffer)];
        let count = process_vm_readv(self.pid, &mut into, &from)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let into = [RemoteIoVec { base: usize::try_from(address)?, len: bytes.len() }];
        process_vm_writev(self.pid, &[std::io::IoSlice::new(bytes)], &into)
            .context("writing the tracee's memory")?;
        Ok(())
    }

    /// A path, up to its zero. It may end just before a page that is not there.
    pub fn read_path(&self, address: u64) -> Result<String> {
        let mut path = Vec::new();
        let mut address = address;
        while path.len() < 4096 {
            let to_page_end = 4096 - usize::try_from(address % 4096)?;
            let chunk = self.read(address, to_page_end.min(256))?;
            if let Some(end) = chunk.iter().position(|&byte| byte == 0) {
                path.extend_from_slice(&chunk[..end]);
                break;
            }
            address += chunk.len() as u64;
            path.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&path).into_owned())
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.is_gone {
            let _ = self.kill();
        }
    }
}

fn child(write: OwnedFd, operation: impl FnOnce() -> String) -> Result<()> {
    ptrace::traceme()?;
    raise(Signal::SIGSTOP)?;
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(operation));
    let text = result.unwrap_or_else(|_| "panic".into());
    Ok(std::fs::File::from(write).write_all(text.as_bytes())?)
}

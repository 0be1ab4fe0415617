//! A forked child that can be stopped and killed between any two instructions. What it does, and what
//! its death means, is not known here.

use std::io;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::scene::Death;

/// The child's exit code when it may not be traced.
const DENIED: i32 = 77;
/// When it panicked.
const PANICKED: i32 = 101;

/// In the child: marks what is to be stepped through.
pub struct Knife(());

impl Knife {
    /// The verb begins with the next instruction, more or less.
    pub fn begin(&self) {
        stop();
    }

    /// The verb is over.
    pub fn end(&self) {
        stop();
    }
}

fn stop() {
    // SAFETY: raise takes no pointers; the tracer goes on from here.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// How a start went.
pub enum Start {
    Ready(Victim),
    Denied,
}

/// Where a child came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Where it was wanted.
    Point,
    /// Just before a system call, which came first.
    Call,
    /// [`Knife::end`].
    End,
}

/// The child, as its parent sees it.
pub struct Victim {
    pid: libc::pid_t,
    steps: u64,
    is_gone: bool,
}

impl Victim {
    /// Forks a child that runs `act`, up to [`Knife::begin`]. The calling process must have no other
    /// thread that holds a lock.
    pub fn start(act: impl FnOnce(&Knife)) -> Start {
        // SAFETY: no other thread of this process does anything that matters here (libtest's waits),
        // so that the child may go on as if nothing had happened.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            be_victim(act);
        }
        let mut victim = Self { pid, steps: 0, is_gone: false };
        let mut stop = victim.wait();
        if let Stop::Foreign = stop {
            stop = victim.go_on(libc::PTRACE_CONT);
        }
        match stop {
            Stop::Mark => {
                let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
                victim.trace(libc::PTRACE_SETOPTIONS, options as usize);
                Start::Ready(victim)
            }
            Stop::Exit(DENIED) => Start::Denied,
            other => panic!("the child did not begin: {other:?}"),
        }
    }

    /// Runs through so many system calls, and steps over so many instructions after that, but not
    /// into the next system call.
    pub fn run(&mut self, calls: u64, steps: u64) -> Reached {
        // Each call is seen at its beginning and at its end.
        for _ in 0..2 * calls {
            match self.go_on(libc::PTRACE_SYSCALL) {
                Stop::Call => {}
                Stop::Mark => return Reached::End,
                other => panic!("the child stopped in a verb: {other:?}"),
            }
        }
        for _ in 0..steps {
            if self.is_at_system_call() {
                return Reached::Call;
            }
            self.steps += 1;
            match self.go_on(libc::PTRACE_SINGLESTEP) {
                Stop::Step => {}
                Stop::Mark => return Reached::End,
                other => panic!("the child stopped in a verb: {other:?}"),
            }
        }
        Reached::Point
    }

    /// Kills it, and returns when it is dead. Also how many instructions it was stepped over.
    pub fn kill(mut self, at: String, is_finished: bool) -> (Death, u64) {
        self.end();
        (Death { pid: self.pid.cast_unsigned(), is_finished, at }, self.steps)
    }

    fn is_at_system_call(&self) -> bool {
        const RIP: usize = offset_of!(libc::user_regs_struct, rip);
        // SAFETY: a stopped child; reads a register.
        let rip = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.pid, RIP, 0) };
        // SAFETY: the child is a fork, so that this process has the same code at the same address.
        let code = unsafe { (rip as usize as *const [u8; 2]).read() };
        code == [0x0f, 0x05]
    }

    fn trace(&self, request: libc::c_uint, data: usize) {
        // SAFETY: requests that go on with a stopped child or set its options; nothing of this
        // process is written.
        let result = unsafe { libc::ptrace(request, self.pid, 0, data) };
        assert!(result >= 0, "ptrace request {request}: {}", io::Error::last_os_error());
    }

    /// On to the next stop that is not somebody else's doing.
    fn go_on(&mut self, request: libc::c_uint) -> Stop {
        loop {
            self.trace(request, 0);
            match self.wait() {
                Stop::Foreign => {}
                stop => return stop,
            }
        }
    }

    fn wait(&mut self) -> Stop {
        let mut status = 0;
        // SAFETY: `status` may be written.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.pid, "waitpid: {}", io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return match libc::WSTOPSIG(status) {
                libc::SIGTRAP => Stop::Step,
                libc::SIGSTOP if self.has_signalled_itself() => Stop::Mark,
                libc::SIGSTOP | libc::SIGCONT => Stop::Foreign,
                signal if signal == libc::SIGTRAP | 0x80 => Stop::Call,
                signal => Stop::Signal(signal),
            };
        }
        self.is_gone = true;
        if libc::WIFSIGNALED(status) {
            Stop::Killed(libc::WTERMSIG(status))
        } else {
            Stop::Exit(libc::WEXITSTATUS(status))
        }
    }

    /// Whether the signal at which it stopped is its own.
    fn has_signalled_itself(&self) -> bool {
        // SAFETY: a siginfo of zeros is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: a stopped child; `info` may be written.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, self.pid, 0, &raw mut info) };
        // SAFETY: SIGSTOP comes from kill or tgkill only, and for those the sender is filled in.
        result == 0 && unsafe { info.si_pid() } == self.pid
    }

    fn end(&mut self) {
        // SAFETY: kill takes no pointers; the child is not reaped, so the number is still its.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        while !self.is_gone {
            self.wait();
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if !self.is_gone {
            self.end();
        }
    }
}

#[derive(Debug)]
#[allow(dead_code, reason = "the numbers are for panics, by Debug")]
enum Stop {
    Step,
    /// The beginning or the end of the verb.
    Mark,
    /// The beginning or the end of a system call.
    Call,
    /// Somebody stops and continues whole groups of processes, to measure in peace, say.
    Foreign,
    Signal(i32),
    Killed(i32),
    Exit(i32),
}

fn be_victim(act: impl FnOnce(&Knife)) -> ! {
    // SAFETY: numbers only. The child must not outlive the thread that plays with it.
    let permitted = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0
    };
    let code = if !permitted {
        DENIED
    } else if catch_unwind(AssertUnwindSafe(|| act(&Knife(())))).is_ok() {
        0
    } else {
        PANICKED
    };
    // SAFETY: ends the process without running anything that belongs to the parent.
    unsafe { libc::_exit(code) }
}

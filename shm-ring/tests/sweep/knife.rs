//! A forked child that can be stopped and killed between any two instructions. What it does, and what
//! its death means, is not known here.

use std::io;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::path::{Anchor, Path};
use crate::scene::Death;

/// The instruction.
const SYSTEM_CALL: [u8; 2] = [0x0f, 0x05];
/// Debug registers 0 and 7, as ptrace numbers them.
const DEBUG_ADDRESS: usize = offset_of!(libc::user, u_debugreg);
const DEBUG_CONTROL: usize = DEBUG_ADDRESS + 7 * size_of::<u64>();
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

pub type Registers = [u64; 18];

/// Where a child came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Where it was wanted.
    Point,
    /// Just before a system call, which came first.
    Call,
    /// [`Knife::end`].
    End,
    /// Wherever it went when it did not come by where it was to run to.
    Elsewhere,
}

/// The child, as its parent sees it.
pub struct Victim {
    pid: libc::pid_t,
    steps: u64,
    is_finished: bool,
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
        let mut victim = Self { pid, steps: 0, is_finished: false, is_gone: false };
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

    /// Runs through so many system calls, and then over so many instructions, but not into the next
    /// system call. `path` is that of the victims before, from the same system call on.
    pub fn run(&mut self, calls: u64, steps: u64, path: &mut Path) -> Reached {
        // Each call is seen at its beginning and at its end.
        for _ in 0..2 * calls {
            if self.go_on_in_verb(libc::PTRACE_SYSCALL).is_none() {
                return Reached::End;
            }
        }
        let mut walked = 0;
        if let Some(anchor) = path.anchor(steps) {
            match self.run_to(anchor) {
                Some(true) => walked = anchor.steps,
                Some(false) => return Reached::Elsewhere,
                // Breakpoints are not to be had here.
                None => {}
            }
        }
        loop {
            let address = self.address();
            path.note(walked, address);
            if walked == steps {
                return Reached::Point;
            }
            // SAFETY: the child is a fork, so that this process has the same code at the same address.
            if unsafe { (address as usize as *const [u8; 2]).read() } == SYSTEM_CALL {
                return Reached::Call;
            }
            self.steps += 1;
            if self.go_on_in_verb(libc::PTRACE_SINGLESTEP).is_none() {
                return Reached::End;
            }
            walked += 1;
        }
    }

    /// Whether it came there; if not, it is at the next system call, or at the end. `None`: it has not
    /// moved.
    fn run_to(&mut self, anchor: Anchor) -> Option<bool> {
        // An address, and the bit that has the processor look for its execution. Reset before steps, which
        // may come by again.
        let is_set = self.set(DEBUG_ADDRESS, anchor.address) && self.set(DEBUG_CONTROL, 1);
        if !is_set {
            return None;
        }
        for _ in 0..anchor.times {
            self.steps += 1;
            if self.go_on_in_verb(libc::PTRACE_SYSCALL) != Some(Pause::Trap) {
                return Some(false);
            }
            assert_eq!(self.address(), anchor.address);
        }
        assert!(self.set(DEBUG_CONTROL, 0));
        Some(true)
    }

    /// Kills it, and returns when it is dead. Also at how many instructions it was stopped.
    pub fn kill(mut self, at: String) -> (Death, u64) {
        self.end();
        let Self { pid, is_finished, steps, .. } = self;
        (Death { pid: pid.cast_unsigned(), is_finished, at }, steps)
    }

    /// Of the instruction that comes next.
    fn address(&self) -> u64 {
        const RIP: usize = offset_of!(libc::user_regs_struct, rip);
        // SAFETY: a stopped child; reads a register.
        unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.pid, RIP, 0).cast_unsigned() }
    }

    /// All registers that the next instruction may see.
    pub fn registers(&self) -> Registers {
        // SAFETY: a value of zeros is valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: a stopped child; `registers` may be written.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.pid, 0, &raw mut registers) };
        assert!(result >= 0, "ptrace: {}", io::Error::last_os_error());
        // The processor's note to itself that it has told of this breakpoint.
        const RESUMES: u64 = 1 << 16;
        let libc::user_regs_struct { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, rip, .. } = registers;
        let libc::user_regs_struct { r8, r9, r10, r11, r12, r13, r14, r15, .. } = registers;
        let flags = registers.eflags & !RESUMES;
        [rip, flags, rsp, rbp, rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
    }

    /// Sets one of its debug registers. `false`: that is refused.
    fn set(&self, register: usize, value: u64) -> bool {
        // SAFETY: a stopped child; nothing of this process is written.
        unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.pid, register, value) == 0 }
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

    /// As `go_on`, to a stop that belongs to the verb; `None`: to its end.
    fn go_on_in_verb(&mut self, request: libc::c_uint) -> Option<Pause> {
        match self.go_on(request) {
            Stop::Trap => Some(Pause::Trap),
            Stop::Call => Some(Pause::Call),
            Stop::Mark => {
                self.is_finished = true;
                None
            }
            other => panic!("the child stopped in a verb: {other:?}"),
        }
    }

    fn wait(&mut self) -> Stop {
        let mut status = 0;
        // SAFETY: `status` may be written.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.pid, "waitpid: {}", io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return match libc::WSTOPSIG(status) {
                libc::SIGTRAP => Stop::Trap,
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

/// Where it stopped in a verb.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    Trap,
    Call,
}

#[derive(Debug)]
#[allow(dead_code, reason = "the numbers are for panics, by Debug")]
enum Stop {
    /// A step, or a breakpoint.
    Trap,
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

//! This test's binary, started again as a process that io_uring is denied to, or that is otherwise
//! changed for good.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// What the child is to do.
const ROLE: &str = "RINGWAY_TEST_ROLE";

/// Runs the test `name` again in a process of its own, in that role, and returns what it said. It
/// must succeed.
pub fn run(name: &str, role: &str) -> Output {
    run_with(name, role, Stdio::piped())
}

/// The same, with a standard error that takes nothing: a pipe whose reader is gone.
pub fn run_unheard(name: &str, role: &str) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    run_with(name, role, writer.into());
}

fn run_with(name: &str, role: &str, stderr: Stdio) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr);
    // SAFETY: both calls may be made between fork and exec; no pointers. The child dies with the
    // thread that started it, and by itself if it hangs.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(120);
            Ok(())
        });
    }
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{role}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// In a child: its role.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Has the calling thread, and all that it starts, be told `errno` by these system calls.
pub fn deny(calls: &[libc::c_long], errno: i32) {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    // Which call it is; if it is one of these, the error; else it is allowed.
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        let number = u32::try_from(*call).unwrap();
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number));
        let answer = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, answer));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: a live program of as many instructions as it says.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter), 0);
    }
}

/// Descriptors of this process that are completion rings.
pub fn rings() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("io_uring")).count()
}

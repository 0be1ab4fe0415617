//! Other processes: the test's own binary, started again in a role. The peer talks in lines on its
//! standard output, the test in lines on the peer's standard input.
//!
//! A peer dies with the test that started it, and a test ends no process but its own children.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use crate::{PATIENCE, wait_until};

/// Role and arguments, separated by blanks.
const ROLE: &str = "RINGWAY_TEST_PEER";
/// Who started the peer.
const STARTER: &str = "RINGWAY_TEST_STARTER";
/// What a line of the peer's begins with, to tell it from those of the test harness.
const MARK: &str = "@peer ";

/// A running peer. Dropping it kills and reaps it.
pub struct PeerProcess {
    role: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    ended: Option<ExitStatus>,
}

impl PeerProcess {
    /// Starts a peer. Call from the test's own thread: the peer dies with the thread.
    pub fn start(role: &str, arguments: &[&str]) -> Self {
        Self::start_with_fault(role, arguments, None)
    }

    /// As [`Self::start`], and the peer kills itself at a named fault point, such as `MidBatch:3`.
    pub fn start_with_fault(role: &str, arguments: &[&str], fault: Option<&str>) -> Self {
        let mut words = vec![role];
        words.extend(arguments);
        assert!(words.iter().all(|word| !word.contains(' ')), "{words:?}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "peer", "--nocapture", "--test-threads=1"])
            .env(ROLE, words.join(" "))
            .env(STARTER, std::process::id().to_string())
            .env_remove("RINGWAY_FAULT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(fault) = fault {
            command.env("RINGWAY_FAULT", fault);
        }
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness leaves its own "test peer ... " in front of the first line.
                if let Some((_, text)) = line.split_once(MARK)
                    && sender.send(text.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { role: words.join(" "), child, input, lines, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line. `None`: it has ended.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing for {PATIENCE:?}", self.role),
        }
    }

    /// Its next line, which must be there.
    pub fn line(&mut self) -> String {
        match self.next_line() {
            Some(line) => line,
            None => panic!("{} ended, {:?}, when it should speak", self.role, self.child.wait()),
        }
    }

    /// Its next line, if it has said one.
    pub fn line_now(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Waits for a line that must be `word`.
    pub fn expect(&mut self, word: &str) {
        assert_eq!(self.line(), word, "{}", self.role);
    }

    /// Sends it a line.
    pub fn tell(&mut self, text: &str) {
        // A peer that has died can't listen; whoever needs it to will find out.
        let _ = writeln!(self.input, "{text}");
    }

    /// Sends it a signal. It is this process's own child and not reaped yet, so the id is its own.
    pub fn signal(&self, signal: i32) {
        assert!(self.ended.is_none(), "{} was reaped", self.role);
        let pid = libc::pid_t::try_from(self.pid()).unwrap();
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Stops it, and waits until it is.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        wait_until("a peer to stop", || self.state() == Some('T'));
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Kills it by SIGKILL and waits until it is gone. It must not have ended in another way before.
    pub fn kill(&mut self) {
        self.end();
        self.wait_killed();
    }

    /// Waits until it has died of SIGKILL, that of its fault point, say.
    pub fn wait_killed(&mut self) {
        let status = self.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{}: {status}", self.role);
    }

    /// Waits until it has ended by itself, and well.
    pub fn wait_exited(&mut self) {
        let status = self.wait();
        assert!(status.success(), "{}: {status}", self.role);
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            // Fails only when it has been reaped, which `ended` excludes.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    fn wait(&mut self) -> ExitStatus {
        if self.ended.is_none() {
            let child = &mut self.child;
            let ended = &mut self.ended;
            wait_until(&format!("the end of {}", self.role), || {
                *ended = child.try_wait().unwrap();
                ended.is_some()
            });
        }
        self.ended.unwrap()
    }

    /// The letter that /proc has for what it is doing.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// In a peer: its role and arguments. `None`: this process is no peer but a test run by hand.
pub fn role() -> Option<Vec<String>> {
    let words = std::env::var(ROLE).ok()?;
    // SAFETY: no pointers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    // The starter may have died before that.
    let starter: u32 = std::env::var(STARTER).unwrap().parse().unwrap();
    assert_eq!(std::os::unix::process::parent_id(), starter, "the test is gone");
    Some(words.split(' ').map(str::to_owned).collect())
}

/// In a peer: a line to the test.
pub fn say(text: impl Display) {
    println!("{MARK}{text}");
}

/// In a peer: waits for a line from the test.
pub fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

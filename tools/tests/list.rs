//! `ringway ls`, `stat` and `rm --dead` as a user runs them, beside processes that have something open.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringway::Builder;

const PATIENCE: Duration = Duration::from_secs(30);

struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let base = PathBuf::from("/dev/shm");
        let base = if base.is_dir() { base } else { std::env::temp_dir() };
        let path = base.join(format!("ringway-test-list-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn ringway(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(args)
            .env("RINGWAY_DIR", &self.0)
            .output()
            .unwrap()
    }

    /// Runs it until what it prints is as wanted.
    fn until(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = String::from_utf8(self.ringway(args).stdout).unwrap();
            if wanted(&text) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "ringway {args:?} prints:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ledgers(&self) -> usize {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".ledger-")).count()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process with an end of a channel between hosts.
struct Other {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Other {
    /// And the first line that it says.
    fn start(directory: &Path, what: &str, port: &str) -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_process", "--nocapture", "--test-threads=1"])
            .env("RINGWAY_TEST_OTHER", what)
            .env("RINGWAY_TEST_PORT", port)
            .env("RINGWAY_DIR", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self { child, out };
        let said = other.hear();
        (other, said)
    }

    /// The next line that begins with `other:`.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "it has ended");
            if let Some((_, said)) = line.split_once("other: ") {
                return said.trim().to_owned();
            }
        }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end by itself. What it said on standard error.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).unwrap();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}{said}");
        said
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`Other`] runs; nothing as a test.
#[test]
fn other_process() {
    let Ok(what) = std::env::var("RINGWAY_TEST_OTHER") else { return };
    let port = std::env::var("RINGWAY_TEST_PORT").unwrap();
    let say = |what: &dyn std::fmt::Display| {
        println!("\nother: {what}");
        std::io::stdout().flush().unwrap();
    };
    let ended = std::thread::spawn(|| std::io::stdin().read_line(&mut String::new()));
    if what == "receives" {
        let address = format!("tcp://127.0.0.1:{port}/ticks?side=bind&backend=epoll&io=thread");
        let mut rx = ringway::receiver::<[u8]>(&address).unwrap();
        say(&rx.local_addr().unwrap().port());
        while !ended.is_finished() {
            let _ = rx.recv_timeout(Duration::from_millis(20));
        }
    } else {
        let address = format!("tcp://127.0.0.1:{port}/ticks?side=connect&backend=epoll");
        let mut tx = ringway::sender::<[u8]>(&address).unwrap();
        for _ in 0..10 {
            tx.send(b"twelve bytes").unwrap();
        }
        say(&"sent");
        while !ended.is_finished() {
            tx.flush().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn line<'a>(text: &'a str, of: &str) -> Option<&'a str> {
    text.lines().find(|line| line.contains(of))
}

#[test]
fn ends_of_other_processes_are_listed_and_what_the_dead_left_is_removed() {
    let home = Home::new("processes");
    // Beside a channel in shared memory.
    let channel = Builder::new("shm://quotes").unwrap().directory(&home.0);
    let mut quotes = channel.sender::<[u8]>().unwrap();
    quotes.send(b"hello").unwrap();

    let (mut rx, port) = Other::start(&home.0, "receives", "0");
    let (mut tx, _) = Other::start(&home.0, "sends", &port);
    let sends =
        format!("tcp://127.0.0.1:{port}/ticks spsc sends epoll/inline up 10 messages 120 bytes");
    let text = home.until(&["ls"], |text| {
        line(text, " sends ").is_some_and(|line| line.contains(" up 10 messages "))
            && line(text, " receives ").is_some_and(|line| line.contains("/thread up 10 messages "))
    });
    let line_of_sender = line(&text, " sends ").unwrap();
    assert!(line_of_sender.starts_with(&sends), "{text}");
    assert!(line_of_sender.contains(&format!("process {} (`", tx.pid())), "{text}");
    assert!(line(&text, " receives ").unwrap().contains(&format!("process {} (`", rx.pid())));
    let pid = std::process::id();
    let shm =
        format!("shm://quotes spsc sent 1 received 0 waiting 1, from process {pid} to nobody");
    assert_eq!(line(&text, "shm://"), Some(shm.as_str()), "{text}");

    let text = home.until(&["stat", "ticks"], |text| text.contains("behind_bytes         0"));
    for expected in
        ["state                up", "sends ", "wire_bytes_sent", "side                 binds"]
    {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    assert!(!text.contains("quotes"), "{text}");
    assert_eq!(home.ringway(&["stat", "shm://nothing"]).stdout, b"");
    // Each name is answered for, whatever becomes of the others.
    let some = home.ringway(&["stat", "shm://quotes", "tocks", "ticks"]);
    assert_eq!(some.status.code(), Some(1));
    let said = String::from_utf8(some.stderr).unwrap();
    assert!(said.contains("the name of tocks;"), "{said}");
    let shown = String::from_utf8(some.stdout).unwrap();
    assert!(line(&shown, "shm://quotes").is_some() && line(&shown, "/ticks").is_some(), "{shown}");
    let stat = String::from_utf8(home.ringway(&["stat", "shm://quotes"]).stdout).unwrap();
    assert!(stat.contains("sent                 1\n"), "{stat}");

    // Nothing of the living is removed.
    assert!(home.ringway(&["rm", "--dead"]).stdout.is_empty());
    tx.kill();
    let text = home.until(&["ls"], |text| text.contains(" DEAD"));
    assert!(line(&text, " DEAD").unwrap().starts_with(&sends), "{text}");
    let dead = format!("process {} (`", tx.pid());
    assert!(line(&text, "is dead").unwrap().starts_with(&dead), "{text}");
    assert!(!line(&text, " receives ").unwrap().contains("DEAD"));
    // Where nothing that it showed is asked for, its death is no answer.
    assert!(home.until(&["ls", "ticks"], |_| true).contains("is dead"));
    let text = home.until(&["ls", "quotes"], |_| true);
    assert_eq!((text.lines().count(), line(&text, "is dead")), (1, None), "{text}");
    // The other end's owner knows that its connection is gone, and says since when.
    home.until(&["ls"], |text| line(text, " receives ").unwrap().contains(" down "));
    assert_eq!(home.ledgers(), 2);
    let removed = String::from_utf8(home.ringway(&["rm", "--dead"]).stdout).unwrap();
    assert!(removed.contains(&format!(".ledger-{}.0", tx.pid())), "{removed}");
    assert_eq!(home.ledgers(), 1);
    let text = home.until(&["ls"], |_| true);
    assert!(!text.contains("DEAD") && line(&text, " receives ").is_some(), "{text}");

    // Bad ones are left out with a line that says why, and do not hide the others.
    fs::write(home.0.join(".ledger-1.0"), b"not a ledger").unwrap();
    let output = home.ringway(&["ls"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(".ledger-1.0") && said.contains("truncated"), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains(" receives "));
    assert!(!home.ringway(&["rm", "--dead"]).stdout.is_empty());
    assert_eq!(home.ringway(&["ls"]).status.code(), Some(0));

    rx.kill();
}

#[test]
fn an_end_that_closes_is_listed_no_more() {
    let home = Home::new("closes");
    let (rx, _) = Other::start(&home.0, "receives", "0");
    home.until(&["ls"], |text| text.contains("/ticks spsc receives "));
    assert_eq!(rx.end(), "");
    assert_eq!(home.ledgers(), 0);
    assert!(home.ringway(&["ls"]).stdout.is_empty());
}

#[test]
fn ends_that_a_ledger_has_no_room_for_are_told_to_who_may_mean_them() {
    let home = Home::new("hidden");
    // One more than a ledger shows; each is of its own name.
    let ends: Vec<_> = (0..64)
        .map(|number| {
            let address = format!("tcp://127.0.0.1:0/many-{number}?side=bind&backend=epoll");
            let builder = Builder::new(&address).unwrap().directory(&home.0);
            builder.receiver::<[u8]>().unwrap()
        })
        .collect();
    let hides = |args: &[&str]| {
        let output = home.ringway(args);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), line(&text, " has 1 more ends ").is_some())
    };
    assert_eq!(hides(&["ls"]), (Some(0), true));
    assert_eq!(hides(&["ls", "many-0"]), (Some(0), true));
    assert_eq!(hides(&["ls", "many-63"]), (Some(1), true));
    // This is all there is of that name.
    let quotes = Builder::new("shm://quotes").unwrap().directory(&home.0);
    let quotes = quotes.sender::<[u8]>().unwrap();
    assert_eq!(hides(&["ls", "quotes"]), (Some(0), false));
    drop((ends, quotes));
}

#[test]
fn where_nothing_can_be_shown_the_ends_work_and_it_is_said_once() {
    let home = Home::new("nowhere");
    let nowhere = home.0.join("nowhere");
    let (rx, port) = Other::start(&nowhere, "receives", "0");
    let (tx, said) = Other::start(&nowhere, "sends", &port);
    assert_eq!(said, "sent");
    let said = tx.end();
    assert_eq!(said.matches("tools are not shown their counters").count(), 1, "{said}");
    assert!(said.contains("mkdir"), "what to do about it: {said}");
    rx.end();
    assert!(!nowhere.exists());
}

//! The built program run as a user runs it: real processes, real rings, and what is left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// For events that take milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own for one test's channels, which fails the test if one is left.
struct Home {
    root: PathBuf,
}

impl Home {
    fn new(test: &str) -> Self {
        let base = if Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        let root = base.join(format!("ringway-test-{test}-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        fs::create_dir(root.join("channels")).unwrap();
        Self { root }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(arguments).env("RINGWAY_DIR", self.root.join("channels"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// A path for a file of the test's own.
    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn channels(&self) -> Vec<String> {
        fs::read_dir(self.root.join("channels"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Whoever is killed with an end between hosts leaves a ledger, for people to look at.
    fn clear_the_dead(&self) {
        let output = self.run(&["rm", "--dead"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn assert_no_channel(&self) {
        assert_eq!(self.channels(), [] as [String; 0], "a channel was left behind");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A demo that is going on, in a process group of its own as a shell would start it. Dropped, it
/// is killed.
struct Running {
    demo: Child,
    output: BufReader<std::process::ChildStdout>,
    publisher: u32,
    subscriber: u32,
}

impl Running {
    /// Starts it and waits until messages flow.
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut demo = home
            .command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(demo.stdout.take().unwrap());
        let mut running = Self { demo, output, publisher: 0, subscriber: 0 };
        loop {
            let mut line = String::new();
            let length = running.output.read_line(&mut line).unwrap();
            assert!(length > 0, "the demo ended before any message was received");
            if let Some(pids) = line.strip_prefix("publisher pid ") {
                let (publisher, subscriber) = pids.trim().split_once(", subscriber pid ").unwrap();
                running.publisher = publisher.parse().unwrap();
                running.subscriber = subscriber.parse().unwrap();
            }
            if line.contains("msg/s") {
                return running;
            }
        }
    }

    /// Waits for another line that tells how many came.
    fn wait_for_news(&mut self) {
        let mut line = String::new();
        while !line.contains("msg/s") {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the demo ended");
        }
    }

    /// The exit status, what came on standard output since the start, and standard error.
    fn wait(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.output.read_to_string(&mut out).unwrap();
        self.demo.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.demo.wait().unwrap().code(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

/// A target is a pid, or a process group with a minus before it. One shell signals them all, faster
/// than the first can end.
fn signal(name: &str, targets: &[i64]) {
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$@\"", "sh", name, "--"])
        .args(targets.iter().map(i64::to_string))
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {name} {targets:?}");
}

/// Whether it runs: a process that nobody has waited for yet is dead nevertheless.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The reports of a run: of shared memory, and of TCP by whatever moved the bytes.
fn reports_of(path: &Path) -> serde_json::Map<String, Value> {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The first report of a run over `shm` or `tcp`.
fn report_of(path: &Path, over: &str) -> Value {
    let reports = reports_of(path);
    let (_, report) = reports.into_iter().find(|(key, _)| key.starts_with(over)).unwrap();
    report
}

/// The reports of a run over all paths. Where io_uring is denied there is one less, as it says.
fn all_reports_of(path: &Path, shown: &str) -> Vec<Value> {
    let reports = reports_of(path);
    let is_skipped = shown.contains("-- tcp by io_uring: skipped. ");
    for (key, missing) in [("shm", false), ("tcp-uring", is_skipped), ("tcp-epoll", false)] {
        assert_eq!(reports.contains_key(key), !missing, "{key}: {shown}");
    }
    reports.into_iter().map(|(_, report)| report).collect()
}

/// All that a good run promises, of its JSON report.
fn assert_all_there(report: &Value) {
    assert_eq!(report["sent"], report["received"], "{report:#}");
    for none in ["lost", "altered", "repeated"] {
        assert_eq!(report[none], 0, "{report:#}");
    }
    assert_eq!(report["problems"], serde_json::json!([]), "{report:#}");
    // All but the first message.
    let measured = report["latency_messages"].as_u64().unwrap();
    assert_eq!(measured + 1, report["received"].as_u64().unwrap(), "{report:#}");
}

/// A feed with the sizes of a real one, mostly small and now and then large, and its length in
/// messages.
fn generated_feed() -> (String, u64) {
    let mut feed = String::from("wss://feed.test <-> 1600000000.5\n");
    let messages = 5_000;
    for index in 0..messages {
        let size = if index % 1_000 == 999 { 40_000 } else { 20 + index * 7 % 200 };
        let filler: String = (0..size).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        let (seconds, micros) = (1_600_000_000 + index / 1_000, index % 1_000 * 1_000);
        feed.push_str(&format!(
            "{seconds}.{micros:06}: {{\"id\":{index},\"data\":\"{filler}\"}}\n"
        ));
    }
    (feed, messages)
}

#[test]
fn several_subscribers_get_every_message() {
    let home = Home::new("several");
    let report = home.file("report.json");
    let output = home.run(&[
        "demo",
        "--seconds",
        "1",
        "--subscribers",
        "3",
        "--json",
        report.to_str().unwrap(),
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report = report_of(&report, "shm");
    let sent = report["sent"].as_u64().unwrap();
    assert!(sent > 0);
    assert_eq!(report["received"], sent);
    let others = report["others"].as_array().unwrap();
    assert_eq!(others.len(), 2);
    for other in others {
        assert_eq!((&other["received"], &other["lost"]), (&sent.into(), &0.into()));
    }
    assert!(text.contains("subscriber 3 received"), "{text}");
    home.assert_no_channel();
}

#[test]
fn telemetry_arrives_whole() {
    let home = Home::new("telemetry");
    let json = home.file("report.json");
    let output =
        home.run(&["demo", "--seconds", "1.5", "--json", json.to_str().unwrap(), "--speed", "2"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{}", text(&output.stderr));
    for part in [
        "playing telemetry of this host",
        "p50",
        "p90",
        "p99 ",
        "p99.9 ",
        "p99.99 ",
        "max",
        "throughput",
        "lost 0, altered 0",
        "because the time was over",
        "-- shared memory",
        "-- tcp by io_uring",
        "-- tcp by epoll",
        "-- side by side",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    for report in all_reports_of(&json, &shown) {
        assert_all_there(&report);
        assert_eq!(report["ending"], "time_over");
    }
    home.assert_no_channel();
}

#[test]
fn every_way_to_wait_and_the_smallest_rings_work() {
    let home = Home::new("waits");
    let json = home.file("report.json");
    for wait in ["spin", "adaptive", "park"] {
        let output = home.run(&[
            "demo",
            "--seconds",
            "0.3",
            "--speed",
            "max",
            "--wait",
            wait,
            "--capacity",
            "4KiB",
            "--json",
            json.to_str().unwrap(),
        ]);
        assert_eq!(output.status.code(), Some(0), "{wait}: {}", text(&output.stderr));
        for report in all_reports_of(&json, &text(&output.stdout)) {
            assert_all_there(&report);
            assert!(report["received"].as_u64().unwrap() > 10, "{wait}: {report:#}");
        }
    }
    home.assert_no_channel();
}

#[test]
fn a_feed_at_full_speed_is_sent_once() {
    let home = Home::new("feed");
    let (feed, messages) = generated_feed();
    let (path, json) = (home.file("feed.txt"), home.file("report.json"));
    fs::write(&path, feed).unwrap();
    let arguments = ["demo", "--speed", "max", "--seconds", "60", "--feed", path.to_str().unwrap()];
    let output = home.run(&[&arguments[..], &["--json", json.to_str().unwrap()]].concat());
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{}", text(&output.stderr));
    assert!(shown.contains("recording client (wss://): 1"), "{shown}");
    for report in all_reports_of(&json, &shown) {
        assert_all_there(&report);
        assert_eq!(report["received"], messages + 1);
        assert_eq!(report["ending"], "source_over");
    }
    home.assert_no_channel();
}

#[test]
fn a_feed_keeps_its_pace() {
    let home = Home::new("pace");
    let (path, json) = (home.file("feed.txt"), home.file("report.json"));
    fs::write(&path, "100.0: {}\n101.5: {}\n103.0: {}\n").unwrap();
    let arguments = ["demo", "--speed", "2", "--seconds", "60", "--feed", path.to_str().unwrap()];
    let start = Instant::now();
    let output = home.run(&[&arguments[..], &["--json", json.to_str().unwrap()]].concat());
    let passed = start.elapsed();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let reports = all_reports_of(&json, &text(&output.stdout));
    for report in &reports {
        assert_all_there(report);
        assert_eq!(report["received"], 4);
    }
    // Three seconds of feed at twice its pace, for each. A busy machine may take longer, never less; the
    // time between two messages alone is less where the first was late.
    assert!(passed >= Duration::from_millis(1500) * reports.len() as u32, "{passed:?}");
}

#[test]
fn a_malformed_feed_is_refused_with_its_line() {
    let home = Home::new("malformed");
    let path = home.file("feed.txt");
    fs::write(&path, "1.0: {}\n2.0: {]\n").unwrap();
    let output = home.run(&["demo", "--feed", path.to_str().unwrap()]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("{}:2: expected JSON", path.display())), "{told}");
    assert!(told.contains("{]"), "{told}");
    assert_eq!(told.lines().count(), 1, "one reason is enough: {told}");
    home.assert_no_channel();
}

#[test]
fn a_feed_that_is_no_file_is_refused_and_one_by_another_name_is_read() {
    let home = Home::new("stdin");
    let path = home.file("feed.txt");
    fs::write(&path, "1.0: {}\n").unwrap();
    let arguments = ["demo", "--speed", "max", "--seconds", "60", "--feed", "/dev/stdin"];
    // Open for as long as this runs, so that a demo that reads it never ends.
    let (read, _write) = std::io::pipe().unwrap();
    let mut piped = home.command(&arguments);
    piped.stdin(read).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = piped.spawn().unwrap();
    let output = BufReader::new(demo.stdout.take().unwrap());
    let piped = Running { demo, output, publisher: 0, subscriber: 0 };
    wait_until("the demo refuses a pipe", || !is_alive(piped.demo.id()));
    let (code, out, told) = piped.wait();
    assert_eq!((code, out.as_str()), (Some(1), ""), "{told}");
    assert!(told.contains("`cat /dev/stdin > feed.txt`") && told.lines().count() == 1, "{told}");

    // What is standard input here is another one in the publisher.
    let file = fs::File::open(&path).unwrap();
    let output = home.command(&arguments).stdin(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    home.assert_no_channel();
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let home = Home::new("options");
    for (arguments, told) in [
        (["demo", "--speed", "0"], "above 0"),
        (["demo", "--seconds", "-1"], "seconds"),
        (["demo", "--wait", "nap"], "park"),
        (["demo", "--capacity", "5KiB"], "capacity"),
    ] {
        let output = home.run(&arguments);
        assert!(!output.status.success());
        let error = text(&output.stderr);
        assert!(error.contains(told), "{told} is not in {error}");
    }
    home.assert_no_channel();
}

#[test]
fn a_message_that_no_ring_takes_is_told() {
    let home = Home::new("large");
    let path = home.file("feed.txt");
    fs::write(&path, format!("1.0: \"{}\"\n", "x".repeat(10_000))).unwrap();
    let output = home.run(&["demo", "--capacity", "4KiB", "--feed", path.to_str().unwrap()]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot send message 1") && told.contains("capacity"), "{told}");
    home.assert_no_channel();
}

#[test]
fn ctrl_c_ends_the_stream_in_order() {
    let home = Home::new("ctrl-c");
    for (over, targets) in [("shm", &[1, -1][..]), ("shm", &[1]), ("tcp", &[1, -1]), ("both", &[1])]
    {
        let json = home.file("report.json");
        let arguments = ["demo", "--over", over, "--seconds", "600", "--json"];
        let running = Running::start(&home, &[&arguments[..], &[json.to_str().unwrap()]].concat());
        let (publisher, subscriber) = (running.publisher, running.subscriber);
        let pid = i64::from(running.demo.id());
        // The first way is that of `timeout`: to the process and then to all of them.
        signal("INT", &targets.iter().map(|sign| sign * pid).collect::<Vec<_>>());
        let (code, out, err) = running.wait();
        assert_eq!(code, Some(0), "{out}\n{err}");
        assert!(out.contains("because it was interrupted"), "{out}");
        // Nor does another path begin then.
        let report = report_of(&json, if over == "tcp" { "tcp" } else { "shm" });
        assert!(over != "both" || !out.contains("-- tcp"), "{out}");
        assert_all_there(&report);
        assert_eq!(report["ending"], "stopped");
        assert!(!is_alive(publisher) && !is_alive(subscriber));
        home.assert_no_channel();
    }
}

#[test]
fn a_stalled_subscriber_is_in_the_report_though_few_messages_waited_for_it() {
    const STALL: Duration = Duration::from_millis(500);
    let home = Home::new("stall");
    let json = home.file("report.json");
    let arguments = ["demo", "--over", "shm", "--capacity", "4KiB", "--seconds", "600", "--json"];
    let mut running = Running::start(&home, &[&arguments[..], &[json.to_str().unwrap()]].concat());
    let (demo, subscriber) = (i64::from(running.demo.id()), i64::from(running.subscriber));
    signal("STOP", &[subscriber]);
    thread::sleep(STALL);
    signal("CONT", &[subscriber]);
    // One may have been on its way since before.
    running.wait_for_news();
    running.wait_for_news();
    signal("INT", &[demo]);
    let (code, out, err) = running.wait();
    assert_eq!(code, Some(0), "{out}\n{err}");
    let report = report_of(&json, "shm");
    assert_all_there(&report);
    // Half of it: the ring takes a little first, and who waits looks now and then.
    let late = Duration::from_nanos(report["late_max_ns"].as_u64().unwrap());
    assert!(late > STALL / 2, "{report:#}");
    assert!(out.contains("  late "), "{out}");
}

#[test]
fn a_killed_subscriber_is_told_and_leaves_nothing() {
    let home = Home::new("subscriber");
    for path in [&["shm"][..], &["tcp", "--backend", "auto"], &["tcp", "--backend", "epoll"]] {
        let arguments = [&["demo", "--seconds", "600", "--over"], path].concat();
        let running = Running::start(&home, &arguments);
        let (publisher, subscriber) = (running.publisher, running.subscriber);
        signal("KILL", &[i64::from(subscriber)]);
        let (code, out, err) = running.wait();
        assert_eq!(code, Some(1), "{out}\n{err}");
        assert!(
            err.contains(&format!("subscriber (pid {subscriber}) was killed by signal 9")),
            "{err}"
        );
        assert!(out.contains("lost unknown"), "{out}");
        assert!(!is_alive(publisher));
        home.clear_the_dead();
        home.assert_no_channel();
    }
}

#[test]
fn a_killed_publisher_is_told_and_leaves_nothing() {
    let home = Home::new("publisher");
    for over in ["shm", "tcp"] {
        let arguments = ["demo", "--over", over, "--seconds", "600", "--speed", "max"];
        let running = Running::start(&home, &arguments);
        let (publisher, subscriber) = (running.publisher, running.subscriber);
        signal("KILL", &[i64::from(publisher)]);
        let (code, out, err) = running.wait();
        assert_eq!(code, Some(1), "{out}\n{err}");
        assert!(
            err.contains(&format!("publisher (pid {publisher}) was killed by signal 9")),
            "{err}"
        );
        assert!(err.contains(&format!("subscriber (pid {subscriber}): ")), "{err}");
        assert!(!is_alive(subscriber));
        home.clear_the_dead();
        home.assert_no_channel();
    }
}

#[test]
fn children_whose_parent_was_killed_end_and_clean_up() {
    let home = Home::new("parent");
    for over in ["shm", "tcp"] {
        let running = Running::start(&home, &["demo", "--over", over, "--seconds", "600"]);
        let (publisher, subscriber) = (running.publisher, running.subscriber);
        signal("KILL", &[i64::from(running.demo.id())]);
        wait_until("the children end", || !is_alive(publisher) && !is_alive(subscriber));
        home.assert_no_channel();
    }
}

#[test]
fn nothing_is_lost_while_the_connection_is_cut() {
    let home = Home::new("cuts");
    let (feed, messages) = generated_feed();
    let (path, json) = (home.file("feed.txt"), home.file("report.json"));
    fs::write(&path, feed).unwrap();
    // A small ring, so that a part of the feed is in it when the connection breaks.
    let output = home.run(&[
        "demo",
        "--over",
        "tcp",
        "--cuts",
        "10",
        "--speed",
        "max",
        "--seconds",
        "60",
        "--capacity",
        "128KiB",
        "--feed",
        path.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{}", text(&output.stderr));
    assert!(shown.contains("connection  cut 10 times"), "{shown}");
    let report = report_of(&json, "tcp");
    assert_all_there(&report);
    assert_eq!((&report["received"], &report["cuts"]), (&(messages + 1).into(), &10.into()));
    assert!(report["resumes"].as_u64().unwrap() > 0, "{report:#}");
    home.assert_no_channel();
}

#[test]
fn paths_that_do_not_fit_the_other_options_are_refused() {
    let home = Home::new("paths");
    for (arguments, told) in [
        (&["demo", "--over", "tcp", "--subscribers", "2"][..], "--over shm"),
        (&["demo", "--over", "shm", "--cuts", "1"], "--over tcp"),
        (&["demo", "--subscribers", "2", "--cuts", "1"], "--cuts"),
        (&["demo", "--over", "shm", "--backend", "uring"], "--over tcp"),
        (&["demo", "--subscribers", "2", "--backend", "both"], "--backend"),
        (&["demo", "--over", "udp"], "both"),
        (&["demo", "--backend", "select"], "epoll"),
    ] {
        let output = home.run(arguments);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
}

#[test]
fn the_recorded_feed_arrives_whole() {
    let feed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/coinbase-2021-04-17.ws.txt");
    let Ok(lines) = fs::read_to_string(&feed) else {
        println!("skipped: {} is not there", feed.display());
        return;
    };
    let is_message = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    let messages = lines.lines().filter(is_message).count() as u64;
    let home = Home::new("recorded");
    let json = home.file("report.json");
    // Its own pace is 31 s long; the shape of its bursts stays at ten times that.
    for (speed, cuts) in [("max", "0"), ("10", "10")] {
        let output = home.run(&[
            "demo",
            "--seconds",
            "600",
            "--cuts",
            cuts,
            "--speed",
            speed,
            "--feed",
            feed.to_str().unwrap(),
            "--json",
            json.to_str().unwrap(),
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        for report in all_reports_of(&json, &text(&output.stdout)) {
            assert_all_there(&report);
            assert_eq!(report["received"], messages + 1);
        }
        assert_eq!(
            report_of(&json, "tcp")["cuts"],
            if speed == "10" { 10.into() } else { Value::Null }
        );
    }
    home.assert_no_channel();
}

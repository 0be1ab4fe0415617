//! Runs the program as a user does, with rounds of a few milliseconds, and looks at the shape of what
//! comes out and at the counts; never at the figures.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// Runs with `--json` and returns what was written there.
fn measured(name: &str, arguments: &[&str]) -> Value {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}.json", std::process::id()));
    let path_text = path.to_str().expect("a path of plain characters");
    let output = bench(&[arguments, &["--json", path_text]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let text = fs::read_to_string(&path).expect("the result was written");
    fs::remove_file(&path).expect("ours to remove");
    serde_json::from_str(&text).expect("the result is JSON")
}

fn rows(result: &Value) -> &[Value] {
    result["rows"].as_array().expect("rows")
}

fn assert_nothing_lost(row: &Value) {
    assert!(row["sent"].as_u64().expect("sent") > 0, "{row}");
    assert_eq!(row["sent"], row["received"], "{row}");
    assert_eq!((&row["lost"], &row["altered"]), (&0.into(), &0.into()), "{row}");
}

/// Every message came, or its receiver was told that it would not.
fn assert_all_accounted_for(row: &Value) {
    let [sent, received, missed] =
        ["sent", "received", "missed"].map(|count| row[count].as_u64().expect("a count"));
    assert!(sent > 0 && sent == received + missed, "{row}");
    assert_eq!((&row["lost"], &row["altered"]), (&0.into(), &0.into()), "{row}");
}

/// Rounds that a system played, over all placements.
fn rounds(result: &Value, system: &str, size: u64) -> u64 {
    let own = rows(result).iter().filter(|row| row["system"] == system && row["size"] == size);
    own.map(|row| row["rounds"].as_u64().expect("rounds")).sum()
}

#[test]
fn ping_pongs_of_all_spinning_references() {
    let result =
        measured("pingpong", &["pingpong", "--size", "8,1024", "--rounds", "2", "--round-ms", "3"]);
    assert_eq!(result["schema"], 1);
    assert!(result["host"]["clock_cost_ns"].as_f64().expect("a cost") > 0.0);
    assert_eq!(result["host"]["jitter"].as_array().expect("one for each party").len(), 2);
    assert!(result["floor_ring"].is_object());
    for system in
        ["floor-cacheline", "floor-cacheline-pause", "floor-ring", "floor-ring-tight", "rtrb"]
    {
        assert_eq!(rounds(&result, system, 8), 2, "{system}");
        assert_eq!(rounds(&result, system, 1024), 2, "{system}");
    }
    for row in rows(&result) {
        assert_nothing_lost(row);
        for figure in ["bracket_ns", "block_rtt_ns", "p50_ns", "p99_ns", "max_ns"] {
            assert!(row[figure].as_f64().is_some_and(|ns| ns > 0.0), "{figure} of {row}");
        }
        // Rounds as short as these may have too few trips for it.
        assert!(row["p999_ns"].is_null() || row["p999_ns"].as_f64() > Some(0.0), "{row}");
        assert!(row["msgs_per_s"].is_null() && row["bytes_per_s"].is_null(), "{row}");
    }
}

#[test]
fn streams_of_all_references() {
    let result =
        measured("stream", &["stream", "--size", "8,65536", "--rounds", "2", "--round-ms", "3"]);
    assert_eq!(rounds(&result, "floor-ring", 65536), 2);
    assert_eq!(rounds(&result, "rtrb", 8), 2);
    assert_eq!(rounds(&result, "rtrb", 65536), 0, "rtrb carries small messages only");
    assert_eq!(rounds(&result, "floor-cacheline", 8), 0, "a line is no stream");
    for row in rows(&result) {
        let overwrites = row["system"] == "ringway-broadcast-overwrite";
        if overwrites {
            assert_all_accounted_for(row)
        } else {
            assert_nothing_lost(row)
        }
        for figure in ["msgs_per_s", "bytes_per_s"] {
            // All that was to be timed may be overwritten before it is read.
            let none = overwrites && row[figure].is_null();
            let some = row[figure].as_f64().is_some_and(|rate| rate > 0.0);
            assert!(none || some, "{figure} of {row}");
        }
        assert!(row["block_rtt_ns"].is_null() && row["p50_ns"].is_null(), "{row}");
    }
}

#[test]
fn the_sleeping_reference() {
    let result = measured(
        "futex",
        &["pingpong", "--wait", "park", "--systems", "floor-futex", "--rounds", "1"],
    );
    assert_eq!(rounds(&result, "floor-futex", 8), 1);
    rows(&result).iter().for_each(assert_nothing_lost);
}

#[test]
fn ping_pongs_of_ringway_with_every_wait() {
    let arguments = [
        "pingpong",
        "--systems",
        "ringway-shm-raw,ringway-shm-typed",
        "--size",
        "8,48",
        "--wait",
        "spin,adaptive,park",
        "--rounds",
        "1",
        "--round-ms",
        "3",
    ];
    let result = measured("ringway-pingpong", &arguments);
    rows(&result).iter().for_each(assert_nothing_lost);
    assert_eq!(rounds(&result, "ringway-shm-raw", 8), 3);
    assert_eq!(rounds(&result, "ringway-shm-typed", 48), 3);
}

#[test]
fn streams_of_ringway() {
    let arguments = [
        "stream",
        "--systems",
        "ringway-shm-raw,ringway-shm-typed,ringway-shm-batch,ringway-shm-typed-batch",
        "--size",
        "8,64,1024",
        "--rounds",
        "1",
        "--round-ms",
        "3",
        "--capacity",
        "64KiB",
        "--channel-options",
        "align=16",
    ];
    let result = measured("ringway-stream", &arguments);
    rows(&result).iter().for_each(assert_nothing_lost);
    assert_eq!(rounds(&result, "ringway-shm-batch", 1024), 1);
    assert_eq!(rounds(&result, "ringway-shm-typed-batch", 64), 1);
    assert_eq!(rounds(&result, "ringway-shm-typed-batch", 1024), 0);
}

/// Rows of io_uring are there only where it is to be had, and where not the program says so.
fn assert_over_tcp(result: &Value, systems: &[&str], size: u64, each: u64) {
    rows(result).iter().for_each(assert_nothing_lost);
    for system in systems {
        let played = rounds(result, system, size);
        let missing = system.contains("uring") && played == 0;
        if missing {
            let output = bench(&["pingpong", "--over", "tcp", "--rounds", "1", "--round-ms", "1"]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(told.contains("left out") && told.contains("io_uring"), "{told}");
            println!("skipped: {system}");
            continue;
        }
        assert_eq!(played, each, "{system} of {size} B");
    }
}

#[test]
fn ping_pongs_over_tcp() {
    let arguments = ["pingpong", "--over", "tcp", "--size", "64,65536", "--wait"];
    let more = ["spin,adaptive,park", "--rounds", "1", "--round-ms", "3"];
    let result = measured("tcp-pingpong", &[&arguments[..], &more].concat());
    for size in [64, 65536] {
        assert_over_tcp(&result, &["floor-tcp-spin", "floor-tcp-block"], size, 1);
        assert_over_tcp(&result, &["floor-tcp-epoll"], size, 2);
        assert_over_tcp(&result, &["ringway-tcp-uring", "ringway-tcp-epoll"], size, 3);
    }
}

#[test]
fn streams_over_tcp() {
    let arguments = ["stream", "--over", "tcp", "--size", "64,1024,65536", "--rounds", "2"];
    let more = ["--round-ms", "3", "--wait", "spin,park"];
    let result = measured("tcp-stream", &[&arguments[..], &more].concat());
    for size in [64, 1024, 65536] {
        assert_over_tcp(&result, &["floor-tcp-stream", "floor-tcp-send"], size, 2);
        let systems = ["ringway-tcp-uring", "ringway-tcp-epoll"];
        assert_over_tcp(&result, &systems, size, 4);
        let systems = ["ringway-tcp-uring-batch", "ringway-tcp-epoll-batch"];
        assert_over_tcp(&result, &systems, size, 4);
        let systems = ["ringway-tcp-uring-thread", "ringway-tcp-epoll-thread"];
        assert_over_tcp(&result, &systems, size, 4);
    }
    for row in rows(&result) {
        let threads = row["system"].as_str().is_some_and(|name| name.ends_with("-thread"));
        assert_eq!(row["io_thread"].is_object(), threads, "{row}");
        // Where there is one CPU, nobody is pinned.
        if threads && result["host"]["cpus"].as_array().is_some_and(|cpus| cpus.len() == 2) {
            assert!(row["io_thread"]["cpu"].is_u64(), "{row}");
        }
    }
}

#[test]
fn a_small_flush_loses_nothing() {
    let arguments =
        ["stream", "--over", "tcp", "--size", "64,65536", "--flush", "4KiB", "--rounds"];
    let more = ["1", "--round-ms", "3", "--systems", "ringway-tcp-epoll-batch"];
    let result = measured("tcp-flush", &[&arguments[..], &more].concat());
    assert_over_tcp(&result, &["ringway-tcp-epoll-batch"], 64, 1);
    assert_over_tcp(&result, &["ringway-tcp-epoll-batch"], 65536, 1);
}

#[test]
fn cores_are_kept_awake_where_that_may_be_and_it_is_told_where_not() {
    let arguments =
        ["pingpong", "--over", "tcp", "--size", "64", "--wait", "park", "--rounds", "2"];
    let more = ["--round-ms", "3", "--cpu-latency", "plain,held"];
    let arguments = [&arguments[..], &more].concat();
    let result = measured("held", &arguments);
    let may = fs::OpenOptions::new().write(true).open("/dev/cpu_dma_latency").is_ok();
    let states = if may { 2 } else { 1 };
    for system in ["floor-tcp-block", "ringway-tcp-epoll"] {
        let asleep = |row: &&Value| row["system"] == system && row["wait"] == "park";
        let rounds = rows(&result).iter().filter(asleep).map(|row| row["rounds"].as_u64());
        assert_eq!(rounds.sum::<Option<u64>>(), Some(2 * states), "{system}");
    }
    rows(&result).iter().for_each(assert_nothing_lost);
    let held = |row: &&Value| row["cpu_latency"] == "held";
    assert_eq!(rows(&result).iter().any(|row| held(&row)), may);
    if !may {
        let told = bench(&arguments);
        let told = String::from_utf8_lossy(&told.stderr);
        assert!(told.contains("/dev/cpu_dma_latency"), "{told}");
        println!("skipped: {told}");
    }
}

/// Whether two network namespaces can be had; if not, the program says why.
fn has_namespaces() -> bool {
    let one =
        ["pingpong", "--over", "tcp", "--netns", "--systems", "floor-tcp-spin", "--size", "8"];
    let output = bench(&[&one[..], &["--rounds", "1", "--round-ms", "1"]].concat());
    if output.status.success() {
        return true;
    }
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("--netns is skipped"), "{told}");
    println!("skipped: {told}");
    false
}

#[test]
fn between_two_network_namespaces() {
    if !has_namespaces() {
        return;
    }
    for scenario in ["pingpong", "stream"] {
        let arguments =
            [scenario, "--over", "tcp", "--netns", "--size", "64,65536", "--rounds", "1"];
        let more = ["--round-ms", "3", "--wait", "spin,park"];
        let result = measured(&format!("netns-{scenario}"), &[&arguments[..], &more].concat());
        assert_eq!(result["netns"], true);
        let systems: &[&str] = if scenario == "pingpong" {
            &["ringway-tcp-uring", "ringway-tcp-epoll", "floor-tcp-epoll"]
        } else {
            &["ringway-tcp-uring-batch", "ringway-tcp-epoll-batch", "ringway-tcp-epoll-thread"]
        };
        for size in [64, 65536] {
            assert_over_tcp(&result, systems, size, 2);
        }
    }
}

/// The network namespace of every process that has one, as far as this process may ask.
fn namespaces() -> Vec<(u32, PathBuf)> {
    let processes = fs::read_dir("/proc").expect("it is there").flatten();
    let of = |pid: u32| Some((pid, fs::read_link(format!("/proc/{pid}/ns/net")).ok()?));
    processes.filter_map(|entry| of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

#[test]
fn a_killed_run_leaves_no_network_namespace() {
    if !has_namespaces() {
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
        .args([
            "pingpong",
            "--over",
            "tcp",
            "--netns",
            "--systems",
            "floor-tcp-spin",
            "--size",
            "8",
        ])
        .args(["--rounds", "2", "--round-ms", "60000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let own = fs::read_link("/proc/self/ns/net").expect("it is told");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Both processes of the crew, each somewhere else.
    let made = loop {
        let children = fs::read_to_string(&path).unwrap_or_default();
        let children: Vec<u32> = children.split_whitespace().flat_map(str::parse).collect();
        let mut made: Vec<_> = namespaces();
        made.retain(|(pid, namespace)| children.contains(pid) && *namespace != own);
        if let [(_, one), (_, other)] = &made[..]
            && one != other
        {
            break [one.clone(), other.clone()];
        }
        assert!(Instant::now() < deadline, "{made:?}");
        std::thread::sleep(Duration::from_millis(2));
    };
    signal(&child, "-KILL");
    wait_for_all(&mut child);
    assert!(!child.wait().expect("it ends").success());
    while namespaces().iter().any(|(_, namespace)| made.contains(namespace)) {
        assert!(Instant::now() < deadline, "somebody is still there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn queues_of_many_in_one_process() {
    let systems = ["crossbeam-array-queue", "crossbeam-channel", "kanal"];
    let arguments = [
        "mpmc",
        "--systems",
        &systems.join(","),
        "--size",
        "8,64",
        "--parties",
        "1P1C,2P2C,4P4C",
        "--rounds",
        "2",
        "--round-ms",
        "6",
    ];
    let result = measured("mpmc", &arguments);
    rows(&result).iter().for_each(assert_nothing_lost);
    for system in systems {
        for parties in ["1P1C", "2P2C", "4P4C"] {
            let own: Vec<_> = rows(&result)
                .iter()
                .filter(|row| row["system"] == system && row["parties"] == parties)
                .collect();
            let rounds: u64 = own.iter().map(|row| row["rounds"].as_u64().expect("rounds")).sum();
            assert_eq!(rounds, 4, "two of each size: {system} {parties}");
            for row in own {
                assert_shares(row, parties[..1].parse().expect("a digit"));
            }
        }
    }
}

/// Figures of a row of many, with `count` parties on either side.
fn assert_shares(row: &Value, count: usize) {
    let many = &row["many"];
    for figure in ["total_per_s", "receiver_most_per_s", "sender_least_per_s", "sender_most_per_s"]
    {
        assert!(many[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} of {row}");
    }
    assert!(many["unfairness"].as_f64().is_some_and(|figure| figure >= 1.0), "{row}");
    // Rounds as short as these may have too few sends for it.
    assert!(many["op_p999_ns"].is_null() || many["op_p999_ns"].as_f64() > Some(0.0), "{row}");
    // Where there is one CPU, nobody has one of its own.
    if !many["cpus"].is_null() {
        for side in ["senders", "receivers"] {
            assert_eq!(many["cpus"][side].as_array().map(Vec::len), Some(count), "{side} of {row}");
        }
    }
}

#[test]
fn a_channel_of_two_in_the_scenarios_of_many() {
    for (scenario, parties) in [("fanout", "1P1S"), ("mpmc", "1P1C")] {
        let arguments = [
            scenario,
            "--systems",
            "ringway-shm-raw,ringway-shm-batch",
            "--size",
            "8,1024",
            "--parties",
            parties,
            "--wait",
            "spin,park",
            "--rounds",
            "2",
            "--round-ms",
            "6",
        ];
        let result = measured(&format!("two-{scenario}"), &arguments);
        rows(&result).iter().for_each(assert_nothing_lost);
        assert_eq!(rounds(&result, "ringway-shm-raw", 8), 4);
        assert_eq!(rounds(&result, "ringway-shm-batch", 1024), 4);
        for row in rows(&result) {
            assert_eq!(row["parties"], parties);
            assert!(row["msgs_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
            assert_shares(row, 1);
        }
    }
}

#[test]
fn every_subscriber_in_a_process_of_its_own() {
    let arguments = ["fanout", "--systems", "ringway-shm-each", "--size", "8,64", "--wait"];
    let more = ["spin,adaptive", "--rounds", "2", "--round-ms", "6", "--seating", "mixed"];
    let result = measured("fanout", &[&arguments[..], &more[..]].concat());
    rows(&result).iter().for_each(assert_nothing_lost);
    for (parties, count) in [("1P1S", 1), ("1P2S", 2), ("1P4S", 4)] {
        let own = rows(&result).iter().filter(|row| row["parties"] == parties);
        let mut rounds = 0;
        for row in own {
            rounds += row["rounds"].as_u64().expect("rounds");
            if let Some(receivers) = row["many"]["cpus"]["receivers"].as_array() {
                assert_eq!(receivers.len(), count, "{row}");
            }
            let each = row["msgs_per_s"].as_f64().expect("a rate");
            let least = row["many"]["receiver_least_per_s"].as_f64().expect("a rate");
            let most = row["many"]["receiver_most_per_s"].as_f64().expect("a rate");
            assert!(0.0 < each && least <= most, "{row}");
        }
        assert_eq!(rounds, 8, "two of each size and wait: {parties}");
    }
}

#[test]
fn a_stopped_subscriber_is_overwritten() {
    let arguments = ["fanout", "--parties", "1P1S,1P1S+1", "--size", "64", "--rounds", "2"];
    let systems = ["--systems", "ringway-broadcast-overwrite,ringway-broadcast-block"];
    let all = [&arguments[..], &systems[..], &["--round-ms", "6"]].concat();
    let result = measured("stopped", &all);
    for (parties, systems) in [("1P1S", 2), ("1P1S+1", 1)] {
        let own = rows(&result).iter().filter(|row| row["parties"] == parties);
        let own = own.inspect(|row| assert_all_accounted_for(row));
        let rounds: u64 = own.map(|row| row["rounds"].as_u64().expect("rounds")).sum();
        assert_eq!(rounds, 2 * systems, "a lossless sender waits for the stopped: {parties}");
    }
}

#[test]
fn a_death_holds_nobody_up_for_long() {
    let result = measured("recovery", &["recovery", "--kills", "2", "--wait", "spin,park"]);
    let rows = result["recovery"].as_array().expect("rows");
    let kinds: Vec<_> = rows.iter().map(|row| (&row["killed"], &row["parties"])).collect();
    let kinds = serde_json::to_string(&kinds).expect("it serialises");
    let all = [("subscriber", "1P2S"), ("claimer", "2P1C"), ("reader", "1P2C")];
    let twice: Vec<_> = all.into_iter().flat_map(|kind| [kind, kind]).collect();
    assert_eq!(kinds, serde_json::to_string(&twice).expect("it serialises"));
    for row in rows {
        assert_eq!(row["kills"], 2);
        let [median, most] = ["median_ms", "max_ms"].map(|key| row[key].as_f64().expect("a time"));
        assert!(0.0 < median && median <= most, "{row}");
    }
}

#[test]
fn queues_of_many_between_two() {
    let arguments = ["--systems", "kanal,crossbeam-array-queue", "--size", "64", "--rounds", "1"];
    for scenario in ["pingpong", "stream"] {
        let all = [&[scenario, "--round-ms", "3"][..], &arguments[..]].concat();
        let result = measured(&format!("queues-{scenario}"), &all);
        rows(&result).iter().for_each(assert_nothing_lost);
        assert_eq!(rounds(&result, "kanal", 64), 1);
    }
}

/// A directory of the test's own for the program's channels; must be empty in the end.
struct Channels(PathBuf);

impl Channels {
    fn new(name: &str) -> Channels {
        let path = PathBuf::from(format!("/dev/shm/bench-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Channels(path)
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).expect("it is there").count()
    }

    fn start(&self, round_ms: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
            .args(["pingpong", "--systems", "ringway-shm-raw", "--size", "8"])
            .args(["--rounds", "2", "--round-ms", round_ms])
            .env("RINGWAY_DIR", &self.0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    /// Waits until a run has made its channels, which is when its processes are at work.
    fn wait_for_channels(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let any = |path: &Path| fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_some());
        while !fs::read_dir(&self.0).expect("it is there").flatten().any(|e| any(&e.path())) {
            assert!(Instant::now() < deadline, "no channel was made");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        // Left behind by a failed test only.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Until the program and every process it started have closed their standard error.
fn wait_for_all(child: &mut Child) {
    let mut text = String::new();
    let errors = child.stderr.as_mut().expect("piped");
    errors.read_to_string(&mut text).expect("it ends");
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(done.expect("kill runs").success());
}

#[test]
fn a_run_leaves_no_channels() {
    let channels = Channels::new("whole");
    let mut child = channels.start("3");
    wait_for_all(&mut child);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(channels.entries(), 0);
}

#[test]
fn a_run_that_is_told_to_end_leaves_no_channels_and_no_processes() {
    let channels = Channels::new("term");
    let mut child = channels.start("60000");
    channels.wait_for_channels();
    signal(&child, "-TERM");
    wait_for_all(&mut child);
    assert_eq!(child.wait().expect("it ends").code(), Some(128 + 15));
    assert_eq!(channels.entries(), 0);
}

#[test]
fn a_run_that_is_killed_leaves_no_processes_and_the_next_run_cleans_up() {
    let channels = Channels::new("kill");
    let mut child = channels.start("60000");
    channels.wait_for_channels();
    signal(&child, "-KILL");
    wait_for_all(&mut child);
    assert!(!child.wait().expect("it ends").success());
    assert_eq!(channels.entries(), 1, "the killed run's");
    let mut child = channels.start("3");
    wait_for_all(&mut child);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(channels.entries(), 0);
}

#[test]
fn a_small_ring_wraps_and_loses_nothing() {
    let arguments = [
        "stream",
        "--systems",
        "floor-ring,rtrb",
        "--size",
        "48,256",
        "--capacity",
        "4KiB",
        "--rounds",
        "1",
        "--round-ms",
        "3",
    ];
    rows(&measured("small", &arguments)).iter().for_each(assert_nothing_lost);
}

#[test]
fn a_run_on_one_cpu_says_so_and_ends() {
    let one = format!(
        "exec taskset -c \"$(taskset -cp $$ | sed 's/.*[ ]//; s/[,-].*//')\" {} pingpong \
         --systems floor-ring --size 8 --rounds 1 --round-ms 2",
        env!("CARGO_BIN_EXE_ringway-bench")
    );
    let output = Command::new("sh").args(["-c", &one]).output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("only one CPU"), "{errors}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("unpinned"));
}

#[test]
fn what_cannot_be_run_is_refused_with_what_can() {
    let cases: [(&[&str], &str); 10] = [
        (&["pingpong", "--systems", "nonesuch"], "floor-cacheline-pause"),
        (&["stream", "--systems", "floor-futex"], "floor-ring"),
        (&["pingpong", "--size", "9"], "65536"),
        (&["pingpong", "--cpus", "0,100000"], "these may"),
        (&["stream", "--over", "tcp", "--io-cpu", "100000"], "these may"),
        (&["pingpong", "--netns"], "--over tcp"),
        (&["fanout", "--parties", "2P2S"], "1P1S,1P2S,1P4S"),
        (&["mpmc", "--parties", "2P2S"], "1P1C,2P2C,4P4C"),
        (&["mpmc", "--parties", "2P2C", "--systems", "ringway-shm-raw"], "not for 2P2C"),
        (&["pingpong", "--json", "/nonesuch/result.json"], "/nonesuch/result.json"),
    ];
    for (arguments, remedy) in cases {
        let output = bench(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(remedy), "{arguments:?}: {errors}");
    }
}

//! Names, sizes and places that no channel can have.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringway_shm::{Consumer, ErrorKind, Kind, MpmcSender, Options, Producer, Schema};

use crate::scratch::{CAPACITY, Scratch, assert_error, options_in, send};

/// Set in a child: the small file system in which it opens a channel.
const SMALL: &str = "RINGWAY_HOSTILE_SMALL";
/// Set in a child that closes its standard streams: where it opens a channel.
const STREAMLESS: &str = "RINGWAY_HOSTILE_STREAMLESS";
/// Set in a child whose standard error takes nothing: where it opens a channel.
const UNHEARD: &str = "RINGWAY_HOSTILE_UNHEARD";
const SMALL_BYTES: u64 = 64 << 10;

#[test]
fn names() {
    let scratch = Scratch::new();
    let long = "x".repeat(300);
    for name in
        ["", ".", "..", "a/b", "/", "/dev/shm/x", "../x", ".hidden", "a b", "a\0b", "ä", &long]
    {
        let options = Options { name: name.into(), ..scratch.options() };
        let remedy = ["Use 1 to 128 of the characters A-Z a-z 0-9 . _ -"];
        assert_error(Producer::open(&options), ErrorKind::BadName, &remedy);
        assert_error(Consumer::open(&options), ErrorKind::BadName, &remedy);
        assert_error(ringway_shm::remove(&options), ErrorKind::BadName, &remedy);
    }
    assert!(scratch.is_empty());
    drop(Producer::open(&Options { name: "x".repeat(128), ..scratch.options() }).unwrap());
    assert!(scratch.is_empty());
}

#[test]
fn capacities_and_alignments() {
    let scratch = Scratch::new();
    for (capacity, nearest) in [
        (0, "4KiB"),
        (3, "4KiB"),
        (2048, "4KiB"),
        (4097, "8KiB"),
        (3 << 20, "4MiB"),
        (1 << 33, "4GiB"),
        (u64::MAX, "4GiB"),
    ] {
        let options = Options { capacity: Some(capacity), ..scratch.options() };
        let pieces = ["not a power of two from 4 KiB to 4 GiB", &format!("capacity={nearest}")];
        assert_error(Producer::open(&options), ErrorKind::BadOption, &pieces);
        assert_error(Consumer::open(&options), ErrorKind::BadOption, &pieces);
    }
    for align in [0, 1, 8, 17, 32, 128, u32::MAX] {
        let options = Options { record_align: Some(align), ..scratch.options() };
        assert_error(Producer::open(&options), ErrorKind::BadOption, &["`align=16` or `align=64`"]);
    }
    let schema = Schema { fingerprint: 1, text: "x".repeat((1 << 16) + 1), payload_align: 8 };
    let options = Options { schema, ..scratch.options() };
    assert_error(Producer::open(&options), ErrorKind::BadOption, &["at most 65536 bytes"]);
    assert!(scratch.is_empty());
}

#[test]
fn no_such_directory() {
    let scratch = Scratch::new();
    let missing = scratch.directory.join("missing");
    let open = || Producer::open(&options_in(&missing));
    let pieces = ["Create it: mkdir -m 700 ", missing.to_str().unwrap()];
    assert_error(open(), ErrorKind::NoDirectory, &pieces);
    fs::write(&missing, "").unwrap();
    assert_error(open(), ErrorKind::NoDirectory, &["it is not a directory", "Name a directory"]);
}

#[test]
fn a_directory_without_permission() {
    let scratch = Scratch::new();
    fs::set_permissions(&scratch.directory, fs::Permissions::from_mode(0o555)).unwrap();
    let pieces = ["Permission denied", "Run as the user that owns the directory", "RINGWAY_DIR"];
    as_nobody(|| assert_error(scratch.open_both(), ErrorKind::Permission, &pieces));
    fs::set_permissions(&scratch.directory, fs::Permissions::from_mode(0o755)).unwrap();

    // Somebody else's channel. Without a user to change to, the owner takes the right from itself.
    let producer = scratch.producer();
    // SAFETY: geteuid takes nothing and never fails.
    if unsafe { libc::geteuid() } != 0 {
        fs::set_permissions(scratch.channel(), fs::Permissions::from_mode(0o000)).unwrap();
    }
    as_nobody(|| assert_error(scratch.open_both(), ErrorKind::Permission, &pieces));
    fs::set_permissions(scratch.channel(), fs::Permissions::from_mode(0o700)).unwrap();
    drop(producer);
    assert!(scratch.is_empty());
}

impl Scratch {
    fn open_both(&self) -> Result<(), ringway_shm::Error> {
        let consumer = Consumer::open(&self.options());
        assert_eq!(
            consumer.as_ref().map_err(ringway_shm::Error::kind).err(),
            Producer::open(&self.options()).map_err(|error| error.kind()).err()
        );
        consumer.map(drop)
    }
}

/// Runs `body` in a thread that, if this is root, has the file system rights of nobody in
/// particular: that is a property of the thread, and ends with it.
fn as_nobody(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: setfsuid takes a number; without privilege it does nothing.
            unsafe { libc::setfsuid(65534) };
            body();
        });
    });
}

/// A file system of 64 KiB, in a mount namespace of a child's own.
#[test]
fn less_space_than_needed() {
    let scratch = Scratch::new();
    let directory = scratch.directory.clone();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "options::a_child_in_a_small_file_system", "--nocapture"])
        .env(SMALL, &directory);
    // SAFETY: between fork and exec the closure makes system calls only, on memory from before.
    unsafe { child.pre_exec(mount_small(&directory)) };
    let output = match child.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: no file system can be mounted here, even in a namespace: {error}");
            return;
        }
    };
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(scratch.is_empty(), "the file system was the child's alone");
}

/// Not a test of its own: the part of the child in the one above.
#[test]
fn a_child_in_a_small_file_system() {
    let Some(directory) = std::env::var_os(SMALL) else { return };
    let directory = Path::new(&directory);
    let is_empty = || fs::read_dir(directory).unwrap().count() == 0;
    let options = |capacity: u64| Options { capacity: Some(capacity), ..options_in(directory) };

    for capacity in [64 << 10, 1 << 20, 1 << 32] {
        let needed = capacity + 3 * 4096;
        assert_error(
            Producer::open(&options(capacity)),
            ErrorKind::NoSpace,
            &[
                &format!("{needed} are needed"),
                " bytes free",
                directory.to_str().unwrap(),
                "Shrink `capacity`",
                "remount",
                "--shm-size",
            ],
        );
        assert!(is_empty(), "a channel that could not be opened is left");
    }
    let queue = Options {
        kind: Some(Kind::Mpmc),
        slots: Some(1 << 20),
        capacity: None,
        record_align: None,
        ..options(0)
    };
    for _ in 0..2 {
        let opened = MpmcSender::open(&queue);
        assert_error(opened, ErrorKind::NoSpace, &["`slots` or `slot`", "--shm-size"]);
        assert!(is_empty(), "a queue that could not be opened is left");
    }
    // What is there can be used to the end, and a new incarnation that finds no room does no harm.
    let mut consumer = Consumer::open(&options(4096)).unwrap();
    let mut producer = Producer::open(&options(4096)).unwrap();
    send(&mut producer, b"fits");
    drop(producer);
    let ballast = directory.join("ballast");
    while fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&ballast)
        .and_then(|mut file| io::Write::write_all(&mut file, &[1; 4096]))
        .is_ok()
    {}
    assert_error(
        Producer::open(&options(4096)),
        ErrorKind::NoSpace,
        &[" has 0 bytes free, 16384 are needed"],
    );
    assert_eq!(*consumer.try_recv().unwrap(), *b"fits");
    fs::remove_file(&ballast).unwrap();
    send(&mut Producer::open(&options(4096)).unwrap(), b"again");
    while consumer.try_recv().map_or(true, |message| *message != *b"again") {}
    drop(consumer);
    assert!(is_empty());
}

/// A channel's file by the number of a stream that the program has closed would get what it prints.
#[test]
fn closed_standard_streams() {
    let scratch = Scratch::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "options::a_child_without_standard_streams", "--nocapture"])
        .env(STREAMLESS, &scratch.directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
}

/// Not a test of its own: the part of the child in the one above.
#[test]
fn a_child_without_standard_streams() {
    let Some(directory) = std::env::var_os(STREAMLESS) else { return };
    let options = options_in(Path::new(&directory));
    for stream in 0..3 {
        // SAFETY: no pointers; from here on nothing is printed.
        unsafe { libc::close(stream) };
    }
    let producer = Producer::open(&options).unwrap();
    let consumer = Consumer::open(&options).unwrap();
    let is_taken = (0..3).any(|stream| fs::read_link(format!("/proc/self/fd/{stream}")).is_ok());
    drop((producer, consumer));
    std::process::exit(is_taken.into());
}

/// A channel on a disk, of which people are warned, works where the warning can't be written.
#[test]
fn warnings_that_nobody_hears() {
    // Not in `Scratch`, which is on a tmpfs. It goes away with the test, however it ends.
    struct Disk(PathBuf);
    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
    let name = format!("unheard-{}", std::process::id());
    let disk = Disk(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    fs::create_dir(&disk.0).unwrap();
    let child = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "options::a_child_that_nobody_hears", "--nocapture"]);
        child.env(UNHEARD, &disk.0);
        child
    };
    let heard = child().output().unwrap();
    assert!(heard.status.success(), "{heard:?}");
    let said = String::from_utf8_lossy(&heard.stderr).matches("is not on a tmpfs").count();
    if said == 0 {
        println!(
            "skipped: {} is on a tmpfs, of which nobody is warned, or takes no channels",
            disk.0.display()
        );
        return;
    }
    assert_eq!(said, 1, "said once: {heard:?}");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let unheard = child().stderr(writer).status().unwrap();
    assert!(unheard.success(), "{unheard}");
}

/// Not a test of its own: the part of the child in the one above.
#[test]
fn a_child_that_nobody_hears() {
    let Some(directory) = std::env::var_os(UNHEARD) else { return };
    let options = options_in(Path::new(&directory));
    for _ in 0..2 {
        let mut producer = match Producer::open(&options) {
            // Some file systems have no nameless files.
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            producer => producer.unwrap(),
        };
        send(&mut producer, b"heard");
        assert_eq!(*Consumer::open(&options).unwrap().recv().unwrap(), *b"heard");
    }
}

/// What the child does between fork and exec: takes a mount namespace of its own, in a user
/// namespace of its own where that is needed for it, and mounts the file system there.
fn mount_small(directory: &Path) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    let target = [directory.as_os_str().as_bytes(), b"\0"].concat();
    let data = format!("size={SMALL_BYTES},mode=700\0");
    // SAFETY: geteuid and getegid take nothing and never fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let (uid_map, gid_map) = (format!("{uid} {uid} 1"), format!("{gid} {gid} 1"));
    let check = |result: libc::c_int| {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    move || {
        // SAFETY: numbers, and strings that end in NUL and live in this closure.
        unsafe {
            if libc::unshare(libc::CLONE_NEWNS) != 0 {
                check(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUSER))?;
                fs::write("/proc/self/setgroups", "deny")?;
                fs::write("/proc/self/uid_map", &uid_map)?;
                fs::write("/proc/self/gid_map", &gid_map)?;
            }
            let none = std::ptr::null();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            let tmpfs = c"tmpfs".as_ptr();
            check(libc::mount(tmpfs, target.as_ptr().cast(), tmpfs, 0, data.as_ptr().cast()))
        }
    }
}

#[test]
fn options_of_the_first_comer() {
    let scratch = Scratch::new();
    let _producer = scratch.producer();
    let options = Options { capacity: Some(2 * CAPACITY as u64), ..scratch.options() };
    assert_error(
        Consumer::open(&options),
        ErrorKind::OptionMismatch,
        &[
            "the channel has capacity=4KiB",
            "this program asks for capacity=8KiB",
            "leave the option out",
        ],
    );
}

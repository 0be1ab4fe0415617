//! While messages flow, nothing is allocated and the kernel is called only to sleep and to wake.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::{Command, Stdio};

use common::{Book, Home, Tick, WAITS};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counter is a plain Cell without a
// destructor, so it neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn nothing_is_allocated() {
    assert!(allocations(|| drop(Box::new([0_u8; 64]))) > 0, "the counter does not count");
    for wait in WAITS {
        let home = Home::new();
        let channel = home.channel("shm://steady?capacity=16KiB").wait(wait);
        let mut tx = channel.sender::<Book>().unwrap();
        let mut rx = channel.receiver::<Book>().unwrap();
        let books: Vec<Book> = (0..40).map(Book::number).collect();
        // Until the longest message has passed, scratch memory may grow.
        let mut pass = || {
            for book in &books {
                tx.send(book).unwrap();
                assert_eq!(rx.recv().unwrap().product, *book.product);
                tx.queue(book).unwrap();
                tx.flush().unwrap();
                assert_eq!(rx.recv_copy().unwrap().product, *book.product);
            }
            tx.send_batch(&books[..8]).unwrap();
            let mut batch = rx.recv_batch(100).unwrap();
            while batch.next().unwrap().is_some() {}
        };
        pass();
        assert_eq!(allocations(pass), 0, "wait={wait}");
        // Errors, too.
        while tx.try_send(&books[39]).is_ok() {}
        assert_eq!(allocations(|| assert!(tx.try_send(&books[39]).is_err())), 0);
    }
}

/// The traced process: opens a channel, says so by a system call that is easy to find, passes
/// messages, and says so again.
#[test]
fn traced() {
    if std::env::var_os("RINGWAY_TEST_TRACED").is_none() {
        return;
    }
    let home = Home::new();
    let channel = home.channel("shm://traced?wait=adaptive");
    let mut tx = channel.sender::<Tick>().unwrap();
    let mut rx = channel.receiver::<Tick>().unwrap();
    let mark = |name: &str| assert!(!std::path::Path::new(name).exists());
    mark("/ringway-begin");
    for n in 0..100_000 {
        tx.send(&Tick::number(n)).unwrap();
        assert_eq!(rx.recv().unwrap().quantity.to_native(), n);
    }
    mark("/ringway-end");
}

#[test]
fn the_kernel_is_not_called() {
    let traced = Command::new("strace")
        .args(["-f", "-o", "/dev/stdout"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced", "--test-threads=1"])
        .env("RINGWAY_TEST_TRACED", "1")
        .stderr(Stdio::null())
        .output();
    let output = match traced {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        Ok(output) => {
            println!("skipped: strace can't trace here ({})", output.status);
            return;
        }
        Err(error) => {
            println!("skipped: no strace to look with ({error})");
            return;
        }
    };
    // Only the thread that passes messages: the test's main thread sleeps beside it.
    let begin = output.lines().find(|line| line.contains("/ringway-begin")).unwrap();
    let thread = begin.split_whitespace().next().unwrap();
    let calls: Vec<&str> = output
        .lines()
        .filter(|line| line.split_whitespace().next() == Some(thread))
        .skip_while(|line| !line.contains("/ringway-begin"))
        .skip(1)
        .take_while(|line| !line.contains("/ringway-end"))
        .collect();
    assert!(calls.is_empty(), "100,000 messages took these system calls:\n{}", calls.join("\n"));
}

//! While messages flow nothing is allocated, and the kernel is called once for a message sent alone,
//! once for a batch, and not at all for messages that came together with others.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringway_net::backend::Chosen;
use ringway_net::session::Format;
use ringway_net::{Backend, NetReceiver, NetSender, Options, RecvError, Side, Wait};

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

const PATIENCE: Duration = Duration::from_secs(30);

/// The backends that this system has.
fn backends() -> impl Iterator<Item = Backend> {
    [Backend::Epoll, Backend::Uring].into_iter().filter(|backend| {
        let missing = Chosen::open(*backend).err();
        missing.inspect(|error| println!("skipped: {error}")).is_none()
    })
}

fn ends(backend: Backend, wait: Wait) -> (NetSender, NetReceiver) {
    let format = Format { endian: 1, pointer: 4, align: 8 };
    let mut options = Options::new("127.0.0.1", 0, "ticks", 7, format);
    options.capacity = 64 << 10;
    options.wait = wait;
    options.backend = backend;
    let mut tx = NetSender::open(&options).unwrap();
    let port = tx.local_addr().unwrap().port();
    let mut rx = NetReceiver::open(&Options { port, side: Side::Connect, ..options }).unwrap();
    while rx.peer().is_none() {
        tx.flush().unwrap();
        let _ = rx.try_recv().err();
    }
    (tx, rx)
}

#[test]
fn nothing_is_allocated() {
    assert!(allocations(|| drop(Box::new([0_u8; 64]))) > 0, "the counter does not count");
    let waits = [Wait::Spin, Wait::Adaptive, Wait::Park];
    for (backend, wait) in backends().flat_map(|backend| waits.map(|wait| (backend, wait))) {
        let (mut tx, mut rx) = ends(backend, wait);
        let mut pass = || {
            for index in 0..2000 {
                let len = 1 + index * 37 % 3000;
                let mut claim = tx.claim(len).unwrap();
                claim.fill(index as u8);
                claim.commit().unwrap();
                assert_eq!(rx.recv_timeout(PATIENCE).unwrap().len(), len);
                // And the misses.
                assert_eq!(rx.try_recv().unwrap_err(), RecvError::Empty);
            }
            for _ in 0..20 {
                tx.try_claim(100).unwrap().queue().unwrap();
            }
            tx.flush().unwrap();
            let mut left = 20;
            while left > 0 {
                let mut batch = rx.recv_batch(20, Some(PATIENCE)).unwrap();
                while batch.next().unwrap().is_some() {
                    left -= 1;
                }
            }
            let short = Duration::from_micros(10);
            assert_eq!(rx.recv_timeout(short).unwrap_err(), RecvError::Timeout);
            while tx.try_claim(3000).map(|claim| claim.commit().unwrap()).is_ok() {}
            while rx.try_recv().is_ok() {}
            // What was released is known after a moment, of this end's clock and the other's.
            while tx.unacknowledged().messages > 0 {
                tx.flush().unwrap();
                let _ = rx.try_recv().err();
            }
        };
        pass();
        assert_eq!(allocations(pass), 0, "{backend}, wait={wait:?}");
    }
}

#[test]
fn no_needless_system_call() {
    backends().for_each(few_system_calls);
}

fn few_system_calls(backend: Backend) {
    let (mut tx, mut rx) = ends(backend, Wait::Spin);
    let before = (tx.stats(), rx.stats());
    for _ in 0..1000 {
        tx.claim(64).unwrap().commit().unwrap();
        drop(rx.recv_timeout(PATIENCE).unwrap());
    }
    let alone = (tx.stats(), rx.stats());
    // One send a message; of the coarse clock's ticks and quarters of the ring, a few looks more.
    let sends = alone.0.sends - before.0.sends;
    assert!((1000..1100).contains(&sends), "{sends}");
    let receives = alone.1.receives - before.1.receives;
    assert!((1000..1100).contains(&receives), "{receives}");
    for _ in 0..100 {
        for _ in 0..100 {
            tx.try_claim(64).unwrap().queue().unwrap();
        }
        tx.flush().unwrap();
        for _ in 0..100 {
            drop(rx.recv_timeout(PATIENCE).unwrap());
        }
        while tx.unacknowledged().messages > 1000 - 600 {
            tx.flush().unwrap();
            let _ = rx.try_recv().err();
        }
    }
    let batched = (tx.stats(), rx.stats());
    let sends = batched.0.sends - alone.0.sends;
    assert!((100..130).contains(&sends), "{sends} sends for 100 batches");
    let receives = batched.1.receives - alone.1.receives;
    assert!((100..130).contains(&receives), "{receives} receives for 100 batches");
    assert_eq!((batched.0.connections, batched.1.violations), (1, 0));
}

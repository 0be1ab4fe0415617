//! `hold_cpu_latency`: the wish is held for as long as the channel is open, and where that may not be,
//! opening says why and what to do.

mod common;

use std::fs;
use std::path::Path;

use ringway::{ErrorKind, Receiver};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// Descriptors of this process for the device.
fn held() -> usize {
    let own = fs::read_dir("/proc/self/fd").expect("it is there").flatten();
    own.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(DEVICE))).count()
}

/// One test, as what a process holds is the process's.
#[test]
fn it_is_held_while_the_channel_is_open_or_refused_with_a_remedy() {
    let may = fs::OpenOptions::new().write(true).open(DEVICE).is_ok();
    let home = common::Home::new();
    for address in ["shm://quotes", "tcp://127.0.0.1:0/quotes?side=bind"] {
        for hold in [false, true] {
            let channel = home.channel(address).hold_cpu_latency(hold);
            let opened: Result<Receiver<[u8]>, _> = channel.receiver();
            match opened {
                Ok(rx) => {
                    assert!(may || !hold, "{address}");
                    assert_eq!(held(), usize::from(hold), "{address}");
                    drop(rx);
                }
                Err(error) => {
                    assert!(hold && !may, "{address}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Permission);
                    let text = error.to_string();
                    assert!(text.contains(DEVICE) && text.contains("udev"), "{text}");
                }
            }
            assert_eq!(held(), 0, "{address}");
        }
    }
}

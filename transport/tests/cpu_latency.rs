//! `hold_cpu_latency`: the wish is held for as long as the channel is open, and where that may not be,
//! opening says why and what to do.

mod common;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use ringway::{Builder, ErrorKind, Receiver};

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
                    let (kind, remedy) = match Path::new(DEVICE).exists() {
                        true => (ErrorKind::Permission, "udev"),
                        false => (ErrorKind::Unsupported, "--device"),
                    };
                    let text = error.to_string();
                    assert_eq!(error.kind(), kind, "{text}");
                    assert!(text.contains(DEVICE) && text.contains(remedy), "{text}");
                }
            }
            assert_eq!(held(), 0, "{address}");
        }
    }
    if may {
        by_clones_and_not_by_children(&home.channel("shm://many?kind=mpmc").hold_cpu_latency(true));
    }
}

fn by_clones_and_not_by_children(channel: &Builder) {
    let (tx, rx) = (channel.sender::<[u8]>().unwrap(), channel.receiver::<[u8]>().unwrap());
    assert_eq!(held(), 2);
    let clones = (tx.try_clone().unwrap(), rx.try_clone().unwrap());
    drop((tx, rx));
    assert_eq!(held(), 2, "the channel is open still");
    let mut child = Command::new("true");
    // SAFETY: runs between fork and exec in this thread alone; the others of this process, the test harness's,
    // only wait, so no lock is held that it may want.
    unsafe {
        child.pre_exec(|| match held() {
            0 => Ok(()),
            _ => Err(io::ErrorKind::ResourceBusy.into()),
        });
    }
    let status = child.status();
    assert!(status.as_ref().is_ok_and(ExitStatus::success), "held by a forked child: {status:?}");
    assert_eq!(held(), 2, "the child's copies were copies");
    drop(clones);
    assert_eq!(held(), 0);
}

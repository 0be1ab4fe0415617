//! `ringway rm` as a user runs it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use ringway::Builder;

struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let base = PathBuf::from("/dev/shm");
        let base = if base.is_dir() { base } else { std::env::temp_dir() };
        let path = base.join(format!("ringway-test-remove-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn remove(&self, addresses: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringway"))
            .arg("rm")
            .args(addresses)
            .env("RINGWAY_DIR", &self.0)
            .output()
            .unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_a_channel_that_nobody_has_open_is_removed() {
    let home = Home::new();
    let builder = Builder::new("shm://left").unwrap().directory(&home.0);
    let mut sender = builder.sender::<[u8]>().unwrap();
    sender.send(b"nobody receives this").unwrap();

    let refused = home.remove(&["shm://left"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains(&std::process::id().to_string()), "who has it open? {told}");
    assert!(home.0.join("left").exists());

    drop(sender);
    assert!(home.0.join("left").exists(), "the message is still to be received");
    // The first one isn't there, which doesn't keep the second from being removed.
    let mixed = home.remove(&["shm://never", "shm://left"]);
    assert_eq!(mixed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&mixed.stderr).contains("no channel shm://never"));
    assert_eq!(String::from_utf8_lossy(&mixed.stdout), "removed shm://left\n");
    assert!(!home.0.join("left").exists());

    // Between hosts there is never anything to remove, wherever channels live.
    let between = home.remove(&["tcp://127.0.0.1:7000/ticks"]);
    assert_eq!(between.status.code(), Some(1));
    let told = String::from_utf8_lossy(&between.stderr).into_owned();
    assert!(told.contains("between hosts") && told.contains("rm --dead"), "{told}");
    assert!(!told.contains("RINGWAY_DIR"), "{told}");
}

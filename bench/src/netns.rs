//! Two network namespaces with a veth pair between them, so that what is measured takes the way that it
//! takes between containers: no loopback. They have no names: they live by this process's descriptors and
//! by who is in them, so nothing is left behind, however this process ends.

use crate::plan::{Fault, Hosts, Role};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

/// One for each side.
pub(crate) struct Namespaces {
    active: File,
    passive: File,
}

impl Namespaces {
    /// Addresses of the two ends: of a network that is for documentation, and seen by nobody else.
    pub(crate) const HOSTS: Hosts = Hosts {
        active: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        passive: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    };

    /// Makes both, and connects them.
    pub(crate) fn create() -> Result<Namespaces, Fault> {
        let (active, passive) = (empty()?, empty()?);
        let there = format!("/proc/{}/fd/{}", std::process::id(), passive.as_raw_fd());
        let Hosts { active: near, passive: far } = Self::HOSTS;
        let pair = ["link", "add", "rw0", "type", "veth", "peer", "name", "rw1", "netns", &there];
        ip(&active, &pair)?;
        for (namespace, device, host) in [(&active, "rw0", near), (&passive, "rw1", far)] {
            ip(namespace, &["address", "add", &format!("{host}/30"), "dev", device])?;
            ip(namespace, &["link", "set", device, "up"])?;
            ip(namespace, &["link", "set", "lo", "up"])?;
        }
        Ok(Namespaces { active, passive })
    }

    /// Where the processes of a side belong.
    pub(crate) fn of(&self, role: Role) -> RawFd {
        match role {
            Role::Active => self.active.as_raw_fd(),
            Role::Passive | Role::Stopped => self.passive.as_raw_fd(),
        }
    }
}

/// Between fork and exec: the process goes there. One system call.
pub(crate) fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A namespace without anything, by a thread that moves there and ends.
fn empty() -> Result<File, Fault> {
    let make = || {
        // SAFETY: takes a plain number, and concerns the calling thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net")
    };
    let made = thread::spawn(make).join();
    let made = made.unwrap_or_else(|_| Err(io::Error::other("the thread that does has panicked")));
    made.map_err(|e| {
        skipped(&format!(
            "making a network namespace: {e}; run as root, or under `unshare --user --map-root-user`"
        ))
    })
}

fn ip(namespace: &File, arguments: &[&str]) -> Result<(), Fault> {
    let namespace = namespace.as_raw_fd();
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null());
    // SAFETY: between fork and exec one system call is made, which is async-signal-safe.
    unsafe { command.pre_exec(move || enter(namespace)) };
    let tried = format!("`ip {}`", arguments.join(" "));
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            let needs = "it needs CAP_NET_ADMIN and a kernel with veth";
            Err(skipped(&format!("{tried} in a new namespace: {}; {needs}", why.trim())))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(skipped("there is no `ip`; install iproute2"))
        }
        Err(e) => Err(skipped(&format!("{tried} in a new namespace: {e}"))),
    }
}

fn skipped(why: &str) -> Fault {
    Fault::new(format!("--netns is skipped, as there can't be two network namespaces here: {why}"))
}

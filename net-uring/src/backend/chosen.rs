//! Which backend an endpoint gets: what its options ask for, as far as the system allows.
//!
//! Not a trait object: a call is a predicted branch in front of code that is inlined.

use std::fs;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Backend, Completion, Epoll, Errno, Kind, Leak, Uring, Watch};
use crate::error::{Error, ErrorKind};
use crate::fork::OwnSocket;
use crate::mirror::Span;
use crate::options;
use crate::say::Remark;

/// One of the backends that real endpoints have.
#[derive(Debug)]
pub enum Chosen {
    /// Plain calls and epoll.
    Epoll(Epoll),
    /// Plain calls and a completion ring.
    Uring(Uring),
}

impl Chosen {
    /// As the options say. [`options::Backend::Auto`] takes io_uring where the system has it and
    /// allows it, and says once per process where it does not.
    ///
    /// # Errors
    /// `Uring`: that it is not to be had, why, and what to type. All: lack of descriptors or memory.
    pub fn open(which: options::Backend) -> Result<Self, Error> {
        match which {
            options::Backend::Epoll => epoll(),
            options::Backend::Uring => {
                Uring::new().map(Self::Uring).map_err(|errno| denied(errno, &disabled()))
            }
            options::Backend::Auto => match Uring::new() {
                Ok(uring) => Ok(Self::Uring(uring)),
                Err(errno) if is_absence(errno) => {
                    say_fallback(errno);
                    epoll()
                }
                Err(errno) => Err(denied(errno, &disabled())),
            },
        }
    }
}

fn epoll() -> Result<Chosen, Error> {
    match Epoll::new() {
        Ok(epoll) => Ok(Chosen::Epoll(epoll)),
        Err(errno) => Err(Error::io("opening epoll", std::io::Error::from_raw_os_error(errno.0))),
    }
}

/// Whether it says that there is no io_uring for this process: no such call, no such flags, or not
/// allowed. Anything else is trouble that epoll would have as well.
fn is_absence(errno: Errno) -> bool {
    matches!(errno.0, libc::EPERM | libc::ENOSYS | libc::EINVAL)
}

/// Where an administrator turns io_uring off.
const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// What is in there: 0, 1 (for the unprivileged) or 2 (for all). Empty: a kernel without it.
fn disabled() -> String {
    fs::read_to_string(SYSCTL).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cold]
fn say_fallback(errno: Errno) {
    static FALLBACK: Remark = Remark::new();
    FALLBACK.say(|| {
        let error = denied(errno, &disabled());
        format!("connections use epoll, because io_uring is not to be had. {error}")
    });
}

/// Why there is no io_uring, from the system's number and the sysctl's value.
fn denied(errno: Errno, disabled: &str) -> Error {
    let (kind, remedy) = match (errno.0, disabled) {
        (libc::EPERM, "2") => {
            (ErrorKind::Permission, "Type `sysctl -w kernel.io_uring_disabled=0` as root")
        }
        (libc::EPERM, "1") => (
            ErrorKind::Permission,
            "Type `sysctl -w kernel.io_uring_disabled=0` as root, or run with CAP_SYS_ADMIN or in \
             the group that `sysctl kernel.io_uring_group` names",
        ),
        (libc::EPERM, _) => (
            ErrorKind::Permission,
            "A seccomp profile denies it, as Docker's default does: start the container with \
             `--security-opt seccomp=<a profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register>`",
        ),
        (libc::ENOSYS, _) => (
            ErrorKind::Unsupported,
            "This kernel was built without io_uring, or a seccomp profile hides it: `zgrep \
             CONFIG_IO_URING /proc/config.gz` tells",
        ),
        (libc::EINVAL, _) => (
            ErrorKind::Unsupported,
            "Use Linux 6.1 or newer (`uname -r`): older ones lack single-issuer rings",
        ),
        (libc::ENOMEM, _) => (
            ErrorKind::NoSpace,
            "Free some memory, or raise the limit of locked memory (`ulimit -l`)",
        ),
        (libc::EMFILE | libc::ENFILE, _) => {
            (ErrorKind::NoSpace, "Raise the limit of open files (`ulimit -n`)")
        }
        _ => (ErrorKind::Io, "Look the error up in `man io_uring_setup`"),
    };
    let value = match disabled {
        "" => format!("{SYSCTL} does not exist"),
        value => format!("{SYSCTL} is {value}"),
    };
    Error::new(
        kind,
        "setting up io_uring (backend=uring)",
        format!("{errno}; {value}"),
        format!("{remedy}; or choose backend=epoll"),
    )
}

/// The same for each of them.
macro_rules! of {
    ($chosen:expr, $backend:ident => $call:expr) => {
        match $chosen {
            Chosen::Epoll($backend) => $call,
            Chosen::Uring($backend) => $call,
        }
    };
}

impl Backend for Chosen {
    fn name(&self) -> &'static str {
        of!(self, backend => backend.name())
    }

    fn attach(&mut self, socket: OwnSocket) {
        of!(self, backend => backend.attach(socket));
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        of!(self, backend => backend.socket())
    }

    fn detach(&mut self) -> Result<Option<OwnSocket>, Leak> {
        of!(self, backend => backend.detach())
    }

    #[inline(always)]
    unsafe fn submit(&mut self, kind: Kind, span: Span) {
        // SAFETY: the caller's promise.
        of!(self, backend => unsafe { backend.submit(kind, span) });
    }

    #[inline(always)]
    fn is_outstanding(&self, kind: Kind) -> bool {
        of!(self, backend => backend.is_outstanding(kind))
    }

    #[inline(always)]
    fn recall(&mut self, kind: Kind) -> bool {
        of!(self, backend => backend.recall(kind))
    }

    #[inline(always)]
    fn turn(&mut self) {
        of!(self, backend => backend.turn());
    }

    #[inline(always)]
    fn complete(&mut self) -> Option<Completion> {
        of!(self, backend => backend.complete())
    }

    fn park(&mut self, timeout: Duration) {
        of!(self, backend => backend.park(timeout));
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, what: Watch) {
        of!(self, backend => backend.watch(fd, what));
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, ErrorKind, denied, is_absence};

    #[test]
    fn errors_name_the_sysctl_and_what_to_type() {
        for (errno, disabled, kind, words) in [
            (libc::EPERM, "2", ErrorKind::Permission, "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "1", ErrorKind::Permission, "kernel.io_uring_group"),
            (libc::EPERM, "0", ErrorKind::Permission, "--security-opt seccomp="),
            (libc::EPERM, "", ErrorKind::Permission, "--security-opt seccomp="),
            (libc::ENOSYS, "", ErrorKind::Unsupported, "CONFIG_IO_URING"),
            (libc::EINVAL, "0", ErrorKind::Unsupported, "6.1"),
            (libc::ENOMEM, "0", ErrorKind::NoSpace, "ulimit -l"),
            (libc::EMFILE, "0", ErrorKind::NoSpace, "ulimit -n"),
        ] {
            let error = denied(Errno(errno), disabled);
            let text = error.to_string();
            assert_eq!(error.kind(), kind, "{text}");
            for word in [words, "backend=epoll", "io_uring_disabled", &format!("os error {errno}")]
            {
                assert!(text.contains(word), "{word:?} is not in {text:?}");
            }
        }
    }

    #[test]
    fn only_absence_is_fallen_back_from() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL] {
            assert!(is_absence(Errno(errno)));
        }
        for errno in [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EACCES, libc::EAGAIN] {
            assert!(!is_absence(Errno(errno)));
        }
    }
}

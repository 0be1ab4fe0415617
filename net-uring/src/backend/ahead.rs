//! Receiving small messages before they are taken from the kernel. Whoever takes a small segment that
//! waits to be acknowledged sends an acknowledgement before the call returns, with every other one: a
//! packet of its own, some two microseconds in the way of whatever answers the message. To look
//! (`MSG_PEEK`) costs nothing of the kind; so what is small is looked at, one after the other
//! (`SO_PEEK_OFF`), and taken, without being copied again, in an idle moment and several at once. A round
//! trip of 64 bytes over two sockets went from 8.9 us to 5.2 us.
//!
//! Bytes that were looked at are received; that the kernel has them still is known here alone. They must
//! be taken before anybody else receives from the socket, and before it is closed: unread bytes would
//! make that a reset.

use std::os::fd::{AsFd, AsRawFd};

use super::Errno;
use crate::fork::OwnSocket;
use crate::mirror::Span;

/// Only receives of fewer bytes, two in a row, are followed by a look: larger segments are acknowledged as
/// they come, in their sender's time. One alone may be the rest of a larger message, and a look at the next
/// of those would copy it twice: round trips of 64 KiB whose last bytes came by themselves took 1.6 times
/// as long.
const SMALL: usize = 256;
/// So many are worth a call in an idle moment.
const LEAST: usize = 1 << 10;
/// More are taken at once, idle or not.
const MOST: usize = 16 << 10;
/// Looks in vain after which the rest is taken, however little, so that no window stays closed for it: some
/// 50 us of a caller that spins.
const VAIN: u32 = 256;

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Whether the socket takes looks one after the other.
    possible: bool,
    /// The last receive brought few bytes.
    small: bool,
    /// The next receive is a look.
    looks: bool,
    /// That were looked at and not taken.
    bytes: usize,
    vain: u32,
}

/// Has a socket take looks one after the other. Where the kernel can't (before Linux 6.9), receives stay
/// what they were.
pub(crate) fn allow(socket: &impl AsFd) {
    let start: libc::c_int = 0;
    // SAFETY: an open socket and a live value of the length told.
    unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const start).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

fn is_allowed(socket: &OwnSocket) -> bool {
    let mut offset: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: an open socket and live values to write to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw mut offset).cast(),
            &raw mut len,
        )
    };
    result == 0 && offset >= 0
}

impl Ahead {
    pub fn of(socket: &OwnSocket) -> Self {
        Self { possible: is_allowed(socket), ..Self::default() }
    }

    /// Whether bytes were looked at that the kernel still has.
    #[inline(always)]
    pub fn has_some(&self) -> bool {
        self.bytes > 0
    }

    /// One `recv(2)` that does not wait.
    ///
    /// # Safety
    /// The span is mapped and nobody else touches it meanwhile.
    #[inline(always)]
    pub unsafe fn receive(&mut self, socket: &OwnSocket, span: Span) -> Result<usize, Errno> {
        let flags = libc::MSG_DONTWAIT | if self.looks { libc::MSG_PEEK } else { 0 };
        // SAFETY: the caller's promise.
        let came = unsafe { libc::recv(socket.as_raw_fd(), span.start.cast(), span.len, flags) };
        let result = usize::try_from(came).map_err(|_| Errno::last());
        if self.looks {
            return self.looked(socket, result);
        }
        if let Ok(came) = result {
            let was_small = std::mem::replace(&mut self.small, (1..SMALL).contains(&came));
            self.looks = self.possible && self.small && was_small;
        }
        result
    }

    #[inline(always)]
    fn looked(&mut self, socket: &OwnSocket, result: Result<usize, Errno>) -> Result<usize, Errno> {
        match result {
            Ok(came) => {
                self.bytes += came;
                self.vain = 0;
                if came >= SMALL || self.bytes >= MOST {
                    self.looks = false;
                    self.small = came < SMALL;
                    self.take(socket)?;
                }
            }
            Err(_) => {
                self.vain = self.vain.saturating_add(1);
                if self.bytes >= LEAST || self.vain == VAIN {
                    self.take(socket)?;
                }
            }
        }
        result
    }

    /// Takes what was looked at. After an error the connection is of no use any more.
    #[cold]
    pub fn take(&mut self, socket: &OwnSocket) -> Result<(), Errno> {
        while self.bytes > 0 {
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            // SAFETY: with this flag a TCP socket drops so many bytes, and writes nowhere.
            let taken =
                unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), self.bytes, flags) };
            match usize::try_from(taken) {
                // They are there: they were looked at.
                Ok(0) => return Err(Errno(libc::EIO)),
                Ok(taken) => self.bytes = self.bytes.saturating_sub(taken),
                Err(_) => match Errno::last() {
                    errno if errno.0 == libc::EINTR => {}
                    errno if errno.is_later() => return Err(Errno(libc::EIO)),
                    errno => return Err(errno),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use super::{Ahead, LEAST, MOST, SMALL, VAIN, allow};
    use crate::backend::Errno;
    use crate::fork::OwnSocket;
    use crate::mirror::Span;

    /// A connection whose receiving end may look ahead, where the kernel lets it.
    fn pair() -> (TcpStream, OwnSocket, Ahead) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let sends = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        sends.set_nodelay(true).expect("a socket");
        let (socket, _) = listener.accept().expect("who has connected");
        socket.set_nonblocking(true).expect("a socket");
        let socket = OwnSocket::open(|| std::io::Result::Ok(OwnedFd::from(socket))).expect("open");
        allow(&socket);
        let ahead = Ahead::of(&socket);
        if !ahead.possible {
            println!("skipped: this kernel does not take looks one after the other");
        }
        (sends, socket, ahead)
    }

    fn receive(ahead: &mut Ahead, socket: &OwnSocket, room: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: a live array that nobody else touches.
        unsafe { ahead.receive(socket, Span { start: room.as_mut_ptr(), len: room.len() }) }
    }

    /// Receives exactly so many bytes, in however many pieces.
    fn expect(ahead: &mut Ahead, socket: &OwnSocket, bytes: &[u8]) {
        let start = Instant::now();
        let mut came = Vec::new();
        while came.len() < bytes.len() {
            let mut room = [0; 2 * MOST];
            match receive(ahead, socket, &mut room[..bytes.len() - came.len()]) {
                Ok(count) => came.extend_from_slice(&room[..count]),
                Err(errno) => assert!(errno.is_later(), "{errno}"),
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{} came", came.len());
        }
        assert_eq!(came, bytes);
    }

    /// Bytes that the kernel has and nobody took.
    fn unread(socket: &OwnSocket) -> usize {
        use std::os::fd::AsRawFd;
        let mut bytes: libc::c_int = 0;
        // SAFETY: an open socket and a live value to write to.
        assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
        usize::try_from(bytes).expect("no error")
    }

    #[test]
    fn small_ones_come_once_and_in_order_and_stay_with_the_kernel_for_a_while() {
        let (mut sends, socket, mut ahead) = pair();
        let mut most = 0;
        for number in 0..2000_u32 {
            let message = [number.to_le_bytes(); 16];
            sends.write_all(message.as_flattened()).expect("connected");
            expect(&mut ahead, &socket, message.as_flattened());
            most = most.max(unread(&socket));
            assert_eq!(unread(&socket), ahead.bytes);
            if number % 3 == 0 {
                // An idle moment.
                let nothing = receive(&mut ahead, &socket, &mut [0; 64]);
                assert!(matches!(nothing, Err(errno) if errno.is_later()), "{nothing:?}");
                assert!(ahead.bytes < LEAST);
            }
        }
        assert_eq!(most > 0, ahead.possible);
        assert!(most < MOST, "{most}");
    }

    #[test]
    fn large_ones_are_taken_at_once() {
        let (mut sends, socket, mut ahead) = pair();
        for len in [8, 8, SMALL, 5000, 16, 16, 20_000, 1, 1] {
            let message: Vec<u8> = (0..len).map(|at| at as u8).collect();
            sends.write_all(&message).expect("connected");
            expect(&mut ahead, &socket, &message);
            assert!(unread(&socket) < MOST);
        }
        expect_nothing_unread(&mut ahead, &socket);
    }

    #[test]
    fn the_rest_of_a_large_one_is_followed_by_no_look() {
        let (mut sends, socket, mut ahead) = pair();
        let pieces =
            [(5000, false), (16, false), (5000, false), (16, false), (16, true), (5000, false)];
        for (len, looks) in pieces {
            sends.write_all(&vec![7; len]).expect("connected");
            expect(&mut ahead, &socket, &vec![7; len]);
            assert_eq!(ahead.looks, looks && ahead.possible, "after {len} bytes");
        }
    }

    fn expect_nothing_unread(ahead: &mut Ahead, socket: &OwnSocket) {
        for _ in 0..=VAIN {
            let nothing = receive(ahead, socket, &mut [0; 64]);
            assert!(matches!(nothing, Err(errno) if errno.is_later()), "{nothing:?}");
        }
        assert_eq!((unread(socket), ahead.bytes), (0, 0), "however little, after looks in vain");
    }

    #[test]
    fn what_was_taken_is_no_reset() {
        let (mut sends, socket, mut ahead) = pair();
        for _ in 0..3 {
            sends.write_all(b"hello").expect("connected");
            expect(&mut ahead, &socket, b"hello");
        }
        ahead.take(&socket).expect("it is there");
        assert_eq!(unread(&socket), 0);
        drop(socket);
        assert_eq!(sends.read(&mut [0; 8]).expect("an end in good order"), 0);
    }

    #[test]
    fn the_end_is_seen_behind_what_was_looked_at() {
        let (mut sends, socket, mut ahead) = pair();
        for _ in 0..2 {
            sends.write_all(b"hello").expect("connected");
            expect(&mut ahead, &socket, b"hello");
        }
        drop(sends);
        let start = Instant::now();
        loop {
            match receive(&mut ahead, &socket, &mut [0; 8]) {
                Ok(count) => return assert_eq!(count, 0),
                Err(errno) => assert!(errno.is_later(), "{errno}"),
            }
            assert!(start.elapsed() < Duration::from_secs(30));
        }
    }
}

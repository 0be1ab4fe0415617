//! Endpoints over scripted streams, for tests: no sockets, no time, one thread.

use super::{Connection, Inbox, Way};
use crate::backend::{Backend, Fake, fake};
use crate::error::Error;
use crate::fork::Birth;
use crate::frame::Kind;
use crate::link::Inline;
use crate::options::Options;
use crate::receiver::NetReceiver;
use crate::sender::NetSender;
use crate::session::{Greeting, Receiving, Sending, Verdict};

/// A sender over scripted streams.
pub type FakeSender = NetSender<Inline<Sending, Fake>>;
/// A receiver over scripted streams.
pub type FakeReceiver = NetReceiver<Inline<Receiving, Fake>>;

/// Two ends without a connection. The sender is the one that dials.
///
/// # Errors
/// Those of opening an end.
pub fn ends(options: &Options) -> Result<(FakeSender, FakeReceiver), Error> {
    let (one, other) = fake::pair(0);
    let birth = Birth::now();
    let sending = Connection::with_way(options, Way::Given { dials: true }, one, birth)?;
    let receiving = Connection::with_way(options, Way::Given { dials: false }, other, birth)?;
    let (sending, receiving) = (Inline::with(sending), Inline::with(receiving));
    Ok((NetSender::with(sending, options), NetReceiver::with(receiving, options)))
}

/// An end of its own, over some backend.
///
/// # Errors
/// Those of opening an end.
pub fn end<H: Inbox, B: Backend>(options: &Options, backend: B) -> Result<Inline<H, B>, Error> {
    let way = Way::Given { dials: false };
    Ok(Inline::with(Connection::with_way(options, way, backend, Birth::now())?))
}

/// Breaks an end's connection.
pub fn part<H: Inbox, B: Backend>(connection: &mut Connection<H, B>) {
    connection.disconnect();
}

/// Joins them by a stream that holds `room` bytes each way. False: one of them is not ready.
pub fn join(tx: &mut FakeSender, rx: &mut FakeReceiver, room: usize) -> bool {
    let (dialer, binder) = (tx.link_mut().connection_mut(), rx.link_mut().connection_mut());
    for_both(dialer, binder);
    let (one, other) = fake::pair(room);
    (dialer.backend, binder.backend) = (one, other);
    dialer.session.handle_dialed(dialer.now_ns);
    let hello = {
        let transmit = dialer.session.poll_transmit(&*dialer.ring, dialer.now_ns);
        match Greeting::read(Kind::Hello, transmit.control) {
            Ok(Some(hello)) => hello,
            _ => return false,
        }
    };
    dialer.session.handle_sent(crate::frame::CONTROL_MAX, dialer.now_ns);
    let verdict = binder.session.handle_hello(&hello, &*binder.ring, binder.now_ns);
    verdict == Verdict::Welcome
}

/// Whatever is due: dials, hang-ups.
fn for_both<G: Inbox, H: Inbox>(one: &mut Connection<G, Fake>, other: &mut Connection<H, Fake>) {
    one.disconnect();
    other.disconnect();
    one.tend();
    other.tend();
}

/// The backend of an end, to be scripted.
pub fn script_sender(tx: &mut FakeSender) -> &mut Fake {
    &mut tx.link_mut().connection_mut().backend
}

/// The backend of an end, to be scripted.
pub fn script_receiver(rx: &mut FakeReceiver) -> &mut Fake {
    &mut rx.link_mut().connection_mut().backend
}

//! Opens an end of a channel of whatever kind it is: that is known only when it is open.

use crate::consumer::Consumer;
use crate::control::{Control, Role};
use crate::error::Error;
use crate::liveness::Identity;
use crate::options::Options;
use crate::producer::Producer;
use crate::publisher::Publisher;
use crate::subscriber::{Read, Subscriber};

/// A sending end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each channel, and behind no pointer")]
pub enum Sending {
    /// Of a channel whose messages are written where they are read.
    InPlace(Producer),
    /// Of one whose messages are copied in.
    Copied(Publisher),
}

/// A receiving end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each channel, and behind no pointer")]
pub enum Receiving {
    /// Of a channel whose messages are read where they were written.
    InPlace(Consumer),
    /// Of one whose messages are copied out.
    Copied(Subscriber),
}

/// Opens a channel for sending, creating it if need be.
///
/// # Errors
/// As [`Producer::open`].
pub fn sending(options: &Options) -> Result<Sending, Error> {
    let who = Identity::of_this_process();
    let (directory, control) = Control::join(options, Role::Producer, &who)?;
    Ok(if control.is_overwritten() {
        Sending::Copied(Publisher::begin(directory, control, &who)?)
    } else {
        Sending::InPlace(Producer::begin(directory, control, &who)?)
    })
}

/// Opens a channel for receiving, creating it if need be.
///
/// # Errors
/// As [`Consumer::open`]; [`crate::ErrorKind::OptionMismatch`] if only the newest message is wanted of a
/// channel that is no broadcast.
pub fn receiving(options: &Options, read: Read) -> Result<Receiving, Error> {
    let who = Identity::of_this_process();
    let (directory, control) = Control::join(options, Role::Consumer, &who)?;
    Ok(if control.is_overwritten() || read == Read::Newest {
        Receiving::Copied(Subscriber::begin(directory, control, &who, read)?)
    } else {
        Receiving::InPlace(Consumer::begin(directory, control, &who)?)
    })
}

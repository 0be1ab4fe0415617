//! Opens an end of a channel of whatever kind it is: that is known only when it is open.

use crate::consumer::Consumer;
use crate::control::{Control, Role};
use crate::error::{Error, ErrorKind};
use crate::liveness::Identity;
use crate::mpmc_receiver::MpmcReceiver;
use crate::mpmc_sender::MpmcSender;
use crate::options::{Kind, Options};
use crate::producer::Producer;
use crate::publisher::Publisher;
use crate::registry::{self, LockedDirectory};
use crate::subscriber::{Read, Subscriber};

/// A sending end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each channel, and behind no pointer")]
pub enum Sending {
    /// Of a channel whose messages are written where they are read.
    InPlace(Producer),
    /// Of one whose messages are copied in.
    Copied(Publisher),
    /// Of one with any number of senders and receivers.
    Shared(MpmcSender),
}

/// A receiving end.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each channel, and behind no pointer")]
pub enum Receiving {
    /// Of a channel whose messages are read where they were written.
    InPlace(Consumer),
    /// Of one whose messages are copied out.
    Copied(Subscriber),
    /// Of one with any number of senders and receivers.
    Shared(MpmcReceiver),
}

/// Opens a channel for sending, creating it if need be.
///
/// # Errors
/// As [`Producer::open`].
pub fn sending(options: &Options) -> Result<Sending, Error> {
    let who = Identity::of_this_process();
    let Some((directory, control)) = join(options, Role::Producer, &who)? else {
        return MpmcSender::open(options).map(Sending::Shared);
    };
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
    let Some((directory, control)) = join(options, Role::Consumer, &who)? else {
        if read == Read::Newest {
            return Err(Error::new(
                ErrorKind::OptionMismatch,
                format!("opening channel {:?}", options.name),
                "the channel has kind=mpmc, this program asks for the newest message only",
                "Leave `read=newest` out, or use `kind=broadcast`",
            ));
        }
        return MpmcReceiver::open(options).map(Receiving::Shared);
    };
    Ok(if control.is_overwritten() || read == Read::Newest {
        Receiving::Copied(Subscriber::begin(directory, control, &who, read)?)
    } else {
        Receiving::InPlace(Consumer::begin(directory, control, &who)?)
    })
}

/// Takes the role. `None`: the channel is one without, as asked for or as it is there already.
fn join(
    options: &Options,
    role: Role,
    who: &Identity,
) -> Result<Option<(LockedDirectory, Control)>, Error> {
    if options.kind == Some(Kind::Mpmc) {
        return Ok(None);
    }
    match Control::join(options, role, who) {
        // Asked after, and not before: in between somebody might make it.
        Err(refusal) if refusal.kind() == ErrorKind::OptionMismatch && options.kind.is_none() => {
            if is_mpmc(options)? {
                Ok(None)
            } else {
                Err(refusal)
            }
        }
        joined => joined.map(Some),
    }
}

/// Whether the channel that is there is one without roles.
fn is_mpmc(options: &Options) -> Result<bool, Error> {
    let Some(directory) = registry::lock_existing(options)? else { return Ok(false) };
    let control = Control::open(directory.path())?;
    Ok(control.is_some_and(|control| control.kind() == Kind::Mpmc))
}

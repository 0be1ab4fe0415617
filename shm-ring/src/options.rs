//! What a channel can be opened with: ranges, defaults, and the check of what the caller gave.
//!
//! No files here; `control` compares these with what the channel was created with.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::layout::{KIND_BROADCAST, KIND_MPMC, KIND_SPSC};
use crate::mpmc::{LEN_MAX, Redeliver, SLOTS_MAX, SLOTS_MIN};

/// Bytes of ring when nobody says otherwise: 1 MiB. Fits a core's second-level cache, and takes
/// messages of up to 512 KiB.
pub const DEFAULT_CAPACITY: u64 = 1 << 20;
/// Least capacity: one page.
pub const MIN_CAPACITY: u64 = 4096;
/// Most capacity: record lengths are 32 bits.
pub const MAX_CAPACITY: u64 = 1 << 32;
/// Bytes that records are aligned to when nobody says otherwise. 16 carries up to four small messages
/// per cache line.
pub const DEFAULT_RECORD_ALIGN: u32 = 16;
/// Longest schema text, in bytes.
pub const MAX_SCHEMA_LEN: usize = 1 << 16;

/// How a side waits when the other has to act first. Fixed per channel, because the side that need
/// not wait pays for waking the one that sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Polls without end. A core per waiting side; nobody pays for wake-ups. System calls are a look at the peer, at
    /// most every 50 ms, and yields, which leave the core to whoever else wants it: on a core of one's own one of
    /// 0.1 to 0.5 us in about a millisecond of idleness; on a shared core one after about a microsecond of
    /// fruitless polls; and beside a computation, the core is kept for an eighth of the time it was away.
    Spin,
    /// Polls for some 50 us, about what a sleep and a wake-up cost, then sleeps. The other side
    /// pays a fence per publication, and a system call when somebody sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once. For slow streams on busy machines.
    Park,
}

impl Wait {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 3] = [Self::Spin, Self::Adaptive, Self::Park];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
            Self::Park => "park",
        }
    }

    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Spin => 0,
            Self::Adaptive => 1,
            Self::Park => 2,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|wait| wait.code() == code)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a way to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of spin, adaptive, park")]
pub struct UnknownWait;

impl FromStr for Wait {
    type Err = UnknownWait;

    fn from_str(text: &str) -> Result<Self, UnknownWait> {
        Self::ALL.into_iter().find(|wait| wait.name() == text).ok_or(UnknownWait)
    }
}

/// Who gets the messages of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// One producer, one consumer.
    #[default]
    Spsc,
    /// One producer; every subscriber gets every message.
    Broadcast,
    /// Any number of senders and receivers; each message goes to one receiver.
    Mpmc,
}

impl Kind {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 3] = [Self::Spsc, Self::Broadcast, Self::Mpmc];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spsc => "spsc",
            Self::Broadcast => "broadcast",
            Self::Mpmc => "mpmc",
        }
    }

    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Spsc => KIND_SPSC,
            Self::Broadcast => KIND_BROADCAST,
            Self::Mpmc => KIND_MPMC,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether its ends are entries of a table of participants.
    pub(crate) const fn has_participants(self) -> bool {
        match self {
            Self::Spsc => false,
            Self::Broadcast | Self::Mpmc => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the producer of a broadcast does when a subscriber is behind by a whole ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Waits for it: nothing is lost, and the slowest sets the pace.
    #[default]
    Block,
    /// Overwrites what it has not read: the producer never waits, and the subscriber is told how
    /// much it missed.
    Overwrite,
}

impl Overflow {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 2] = [Self::Block, Self::Overwrite];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Overwrite => "overwrite",
        }
    }

    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Block => 0,
            Self::Overwrite => 1,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|overflow| overflow.code() == code)
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When receivers of an MPMC channel are told that it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Until {
    /// Never: there may always come another sender.
    #[default]
    Never,
    /// When the last sender has left, and everything was received.
    Last,
}

impl Until {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 2] = [Self::Never, Self::Last];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Last => "last",
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Redeliver {
    /// All of them, for lists in messages.
    pub const ALL: [Self; 2] = [Self::Again, Self::Drop];

    /// Its name in an address.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for Redeliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Slots of an MPMC channel when nobody says otherwise.
pub const DEFAULT_SLOTS: u64 = 4096;
/// Bytes of a slot when nobody says otherwise.
pub const DEFAULT_SLOT: u32 = 256;
/// Least bytes of a slot: its flag and a word, or the larger header.
pub const MIN_SLOT: u32 = 16;
/// Most bytes of a slot: what a slot's word can count.
pub const MAX_SLOT: u32 = LEN_MAX as u32 / 16 * 16;

/// What the messages of a channel are, for the check that both sides mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Hash of `text`.
    pub fingerprint: u64,
    /// One line per field; kept in the channel, so that tools and error messages can read it. At
    /// most [`MAX_SCHEMA_LEN`] bytes.
    pub text: String,
    /// The largest alignment that any part of a message needs, in bytes. Up to 8, messages lie right
    /// behind their 8-byte headers; above, at multiples of 16, which is the most there is.
    pub payload_align: usize,
}

/// Which channel to open, and how. `None` means: as the channel is, or the default for a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The channel's name: 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
    pub name: String,
    /// Where channels live; `None`: `$RINGWAY_DIR`, or `/dev/shm/ringway-<uid>`.
    pub directory: Option<PathBuf>,
    /// Bytes of ring: a power of two from 4 KiB to 4 GiB. Default 1 MiB.
    pub capacity: Option<u64>,
    /// Bytes that records are aligned to: 16 packs messages, those of more than 56 bytes by 8; 64 gives each
    /// a cache line of its own. Default 16.
    pub record_align: Option<u32>,
    /// How both sides wait. Default adaptive.
    pub wait: Option<Wait>,
    /// Who gets the messages. Default: one consumer.
    pub kind: Option<Kind>,
    /// Of a broadcast: what happens when a subscriber is behind by a whole ring. Default: the
    /// producer waits.
    pub overflow: Option<Overflow>,
    /// Of a broadcast: how many of the latest messages a subscriber gets that comes late, as far as
    /// the ring holds them. Default 0.
    pub history: Option<u64>,
    /// Of an MPMC channel: how many messages it holds, a power of two. Default 4096.
    pub slots: Option<u64>,
    /// Of an MPMC channel: bytes of a slot, a multiple of 8 from 16 on. A message takes one, less its
    /// header of 8 bytes; both are 16 where it has parts that need that alignment. Default 256.
    pub slot: Option<u32>,
    /// Of an MPMC channel: what becomes of a message whose receiver dies with it. Default: another
    /// receiver gets it.
    pub redeliver: Option<Redeliver>,
    /// Of an MPMC channel: when receivers are told that it has ended, once all messages were released.
    /// Default: never.
    pub until: Option<Until>,
    /// What the messages are.
    pub schema: Schema,
}

impl Options {
    /// A channel of that name with every option left open.
    pub fn new(name: impl Into<String>, schema: Schema) -> Self {
        Self {
            name: name.into(),
            directory: None,
            capacity: None,
            record_align: None,
            wait: None,
            kind: None,
            overflow: None,
            history: None,
            slots: None,
            slot: None,
            redeliver: None,
            until: None,
            schema,
        }
    }

    /// Refuses values that no channel can have.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let tried = || format!("opening channel {:?}", shown(&self.name));
        check_name(&self.name)?;
        if let Some(capacity) = self.capacity
            && (!capacity.is_power_of_two() || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity))
        {
            let nearest =
                capacity.clamp(MIN_CAPACITY, MAX_CAPACITY).next_power_of_two().min(MAX_CAPACITY);
            return Err(Error::new(
                ErrorKind::BadOption,
                tried(),
                format!("a capacity of {capacity} bytes is not a power of two from 4 KiB to 4 GiB"),
                format!("Try `capacity={}`", Size(nearest)),
            ));
        }
        if let Some(align) = self.record_align
            && align != 16
            && align != 64
        {
            return Err(Error::new(
                ErrorKind::BadOption,
                tried(),
                format!("records can't be aligned to {align} bytes"),
                "Use `align=16` or `align=64`",
            ));
        }
        self.check_broadcast()?;
        self.check_mpmc()?;
        if self.schema.text.len() > MAX_SCHEMA_LEN {
            return Err(Error::new(
                ErrorKind::BadOption,
                tried(),
                format!("the message's schema has {} bytes of text", self.schema.text.len()),
                format!("Describe at most {MAX_SCHEMA_LEN} bytes: make parts of the type opaque"),
            ));
        }
        Ok(())
    }

    fn check_mpmc(&self) -> Result<(), Error> {
        let tried = || format!("opening channel {:?}", shown(&self.name));
        let refuse = |found: String, remedy: String| {
            Err(Error::new(ErrorKind::BadOption, tried(), found, remedy))
        };
        let of_mpmc = [
            ("slots", self.slots.is_some()),
            ("slot", self.slot.is_some()),
            ("redeliver", self.redeliver.is_some()),
            ("until", self.until.is_some()),
        ];
        let of_rings =
            [("capacity", self.capacity.is_some()), ("align", self.record_align.is_some())];
        let given = |options: &[(&'static str, bool)]| {
            options.iter().find(|(_, given)| *given).map(|(name, _)| *name)
        };
        if self.kind != Some(Kind::Mpmc) {
            return match given(&of_mpmc) {
                None => Ok(()),
                Some(name) => refuse(
                    format!("`{name}` is an option of `kind=mpmc`, which was not asked for"),
                    format!("Add `kind=mpmc`, or leave `{name}` out"),
                ),
            };
        }
        if let Some(name) = given(&of_rings) {
            return refuse(
                format!("`{name}` is no option of `kind=mpmc`"),
                "Say how many messages the channel holds and how large they are: `slots=4096&slot=256`"
                    .into(),
            );
        }
        let slot = self.slot.unwrap_or(DEFAULT_SLOT);
        // Slots adjoin, and each message is to begin where its alignment asks for.
        let unit = if self.schema.payload_align > 8 { 16 } else { 8 };
        if !slot.is_multiple_of(unit) || !(MIN_SLOT..=MAX_SLOT).contains(&slot) {
            let nearest = slot.clamp(MIN_SLOT, MAX_SLOT).div_ceil(unit) * unit;
            return refuse(
                format!(
                    "a slot of {slot} bytes is not a multiple of {unit} from {MIN_SLOT} to {MAX_SLOT}"
                ),
                format!("Try `slot={nearest}`"),
            );
        }
        let slots = self.slots.unwrap_or(DEFAULT_SLOTS);
        if !slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&slots) {
            let nearest = slots.clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
            return refuse(
                format!("{slots} slots are not a power of two from {SLOTS_MIN} to {SLOTS_MAX}"),
                format!("Try `slots={nearest}`"),
            );
        }
        if slots * u64::from(slot) > MAX_CAPACITY {
            return refuse(
                format!("{slots} slots of {slot} bytes are more than {}", Size(MAX_CAPACITY)),
                format!("Try `slots={}`", 1 << (MAX_CAPACITY / u64::from(slot)).ilog2()),
            );
        }
        Ok(())
    }

    fn check_broadcast(&self) -> Result<(), Error> {
        let tried = || format!("opening channel {:?}", shown(&self.name));
        let given = if self.overflow.is_some() { "overflow" } else { "history" };
        if (self.overflow.is_some() || self.history.is_some()) && self.kind != Some(Kind::Broadcast)
        {
            let kind = self.kind.map_or("left open".to_owned(), |kind| format!("`kind={kind}`"));
            return Err(Error::new(
                ErrorKind::BadOption,
                tried(),
                format!("`{given}` is an option of broadcasts, and the kind is {kind}"),
                format!("Add `kind=broadcast`, or leave `{given}` out"),
            ));
        }
        match self.capacity {
            Some(capacity) => self.check_history(capacity),
            None => Ok(()),
        }
    }

    /// Refuses a history that no ring of that capacity holds.
    pub(crate) fn check_history(&self, capacity: u64) -> Result<(), Error> {
        let align = u64::from(self.record_align.unwrap_or(DEFAULT_RECORD_ALIGN));
        let most = max_history(capacity, align);
        let Some(history) = self.history.filter(|history| *history > most) else { return Ok(()) };
        let larger = match history.saturating_mul(2 * align).checked_next_power_of_two() {
            Some(needed) if needed <= MAX_CAPACITY => {
                format!(", or a larger `capacity`, from {} on", Size(needed))
            }
            _ => String::new(),
        };
        Err(Error::new(
            ErrorKind::BadOption,
            format!("opening channel {:?}", shown(&self.name)),
            format!(
                "a history of {history} messages is larger than a ring of {} holds: at most \
                 {most}, with `align={align}`",
                Size(capacity)
            ),
            format!("Use `history={most}` or less{larger}"),
        ))
    }
}

/// Most messages of history in a ring: each takes at least one unit of alignment, and half of the
/// ring stays free for what is new.
pub(crate) const fn max_history(capacity: u64, record_align: u64) -> u64 {
    capacity / 2 / record_align
}

/// Refuses names that are no plain file names, or too long for one.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    const MAX: usize = 128;
    let found = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > MAX {
        format!("the name has {} bytes", name.len())
    } else if name.starts_with('.') {
        "the name starts with a dot".to_owned()
    } else if let Some(bad) =
        name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'))
    {
        format!("the name has a {bad:?} in it")
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::BadName,
        format!("opening channel {:?}", shown(name)),
        found,
        format!("Use 1 to {MAX} of the characters A-Z a-z 0-9 . _ - and no dot in front"),
    ))
}

fn shown(name: &str) -> String {
    if name.chars().count() <= 64 {
        name.to_owned()
    } else {
        name.chars().take(61).chain("...".chars()).collect()
    }
}

/// A number of bytes, printed with the largest unit that leaves it whole.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str) -> Options {
        Options::new(name, Schema { fingerprint: 1, text: "bytes\n".into(), payload_align: 8 })
    }

    #[test]
    fn names_are_plain() {
        for name in ["ticks", "a", "A.b_c-9", &"x".repeat(128)] {
            options(name).check().unwrap();
        }
        for name in ["", ".", "..", ".hidden", "a/b", "../x", "a b", "ü", &"x".repeat(300)] {
            let error = options(name).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadName, "{name}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn a_wrong_capacity_names_a_right_one() {
        for (capacity, remedy) in
            [(0, "4KiB"), (3, "4KiB"), (5000, "8KiB"), (3 << 20, "4MiB"), (u64::MAX, "4GiB")]
        {
            let error = Options { capacity: Some(capacity), ..options("x") }.check().unwrap_err();
            assert!(error.to_string().contains(&format!("capacity={remedy}")), "{error}");
        }
    }
}

//! What can be wrong with an address, in words: what was tried, what was found, what to type.

use std::fmt;

use thiserror::Error;

use super::shown::Shown;
use super::size::SizeError;
use super::{HOST_BYTES_MAX, NAME_BYTES_MAX, Scheme};

/// An address that can't be used. Its text repeats the address, cut if it is long.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("address {}: {problem}", Shown(address))]
pub struct AddressError {
    address: String,
    problem: AddressProblem,
}

impl AddressError {
    pub(super) fn new(address: &str, problem: AddressProblem) -> Self {
        Self { address: address.to_owned(), problem }
    }

    /// The address as it was typed, in full.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &AddressProblem {
        &self.problem
    }
}

/// What is wrong with an address, or with the value of an option.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// There is no `://`.
    #[error("it has no scheme: type {remedy}")]
    NoScheme {
        /// An address that resembles what was typed.
        remedy: String,
    },
    /// Something else than `shm` or `tcp` stands before `://`.
    #[error("{} is no scheme{}: type one of {}", Shown(found), Guess(nearest), Prefixed("", valid))]
    UnknownScheme {
        /// What stood there.
        found: String,
        /// A scheme that resembles it.
        nearest: Option<&'static str>,
        /// All schemes.
        valid: Vec<&'static str>,
    },
    /// Between `tcp://` and the name there is no `HOST:PORT/`.
    #[error(
        "it names no host and port: type {scheme}://HOST:PORT/NAME, {scheme}://10.0.0.2:7000/ticks, say \
         (IPv6 in brackets: {scheme}://[fd00::2]:7000/ticks)"
    )]
    NoHost {
        /// The scheme that was found.
        scheme: Scheme,
    },
    /// What stands before the port is no host.
    #[error(
        "{} is no host: type a name (1 to {HOST_BYTES_MAX} of A-Z a-z 0-9 . _ -), an IPv4 address, or an IPv6 \
         address in brackets, {scheme}://[fd00::2]:7000/ticks, say",
        Shown(found)
    )]
    BadHost {
        /// What stood there.
        found: String,
        /// The scheme that was found.
        scheme: Scheme,
    },
    /// What stands behind the host's colon is no port.
    #[error("{} is no port: type a number from 0 to 65535, 7000, say", Shown(found))]
    BadPort {
        /// What stood there.
        found: String,
    },
    /// No name stands before the end or the options.
    #[error("it names no channel: type {remedy}, say, if your channel is called ticks")]
    NoName {
        /// An address with a name.
        remedy: String,
    },
    /// A character that names don't have.
    #[error(
        "found {found:?} at byte {at} of the name, where only A-Z a-z 0-9 . _ - are allowed: type \
         {remedy}"
    )]
    NameCharacter {
        /// The character.
        found: char,
        /// Where, in bytes from the start of the name.
        at: usize,
        /// An address whose name resembles what was typed.
        remedy: String,
    },
    /// The name starts with a dot, as `..` does.
    #[error("the name {} starts with a dot, which no name may: type {remedy}", Shown(found))]
    NameDot {
        /// The name.
        found: String,
        /// An address whose name resembles it.
        remedy: String,
    },
    /// The name is longer than 128 bytes.
    #[error("its name has {bytes} bytes, and {NAME_BYTES_MAX} are allowed: type a shorter name")]
    NameTooLong {
        /// The length of the name in bytes.
        bytes: usize,
    },
    /// A `%` in the name or behind it.
    #[error(
        "found '%' at byte {at}, but percent-encoding is not supported: type the character itself \
         (a name takes A-Z a-z 0-9 . _ - and nothing else)"
    )]
    Percent {
        /// Where, in bytes from the start of the address.
        at: usize,
    },
    /// Nothing stands after a `?` or `&`.
    #[error("an option is missing after '?' or '&': type key=value there, or remove the sign")]
    EmptyOption,
    /// An option that doesn't exist.
    #[error(
        "{} is no option of {scheme}{}: type one of {}",
        Shown(found),
        Guess(nearest),
        Prefixed("", valid)
    )]
    UnknownOption {
        /// What stood before the `=`.
        found: String,
        /// The scheme that was found.
        scheme: Scheme,
        /// An option that resembles it.
        nearest: Option<&'static str>,
        /// All options of the scheme.
        valid: Vec<&'static str>,
    },
    /// An option without `=`.
    #[error("the option {option} has no value: type {option}={example}")]
    NoValue {
        /// The option.
        option: &'static str,
        /// A value that it takes.
        example: &'static str,
    },
    /// An option that stands twice, be it with equal values.
    #[error(
        "the option {option} is given twice, as {} and as {}: keep one",
        Shown(first),
        Shown(second)
    )]
    OptionTwice {
        /// The option.
        option: &'static str,
        /// Its first value.
        first: String,
        /// Its second value.
        second: String,
    },
    /// A value that isn't one of the option's words.
    #[error(
        "{option} can't be {}{}: type one of {}",
        Shown(found),
        Guess(nearest),
        Prefixed(option, valid)
    )]
    BadValue {
        /// The option.
        option: &'static str,
        /// The value that was found.
        found: String,
        /// A value that resembles it.
        nearest: Option<&'static str>,
        /// All values that the option takes.
        valid: Vec<&'static str>,
    },
    /// A value that is no number.
    #[error("{option} is {what}, and {} is none: type {option}={example}, say", Shown(found))]
    BadCount {
        /// The option.
        option: &'static str,
        /// What it is.
        what: &'static str,
        /// One that is.
        example: &'static str,
        /// The value that was found.
        found: String,
    },
    /// A value that can't name a congestion control.
    #[error(
        "{option} is the name of a congestion control (1 to 15 of a-z 0-9 _ -), and {} is none: type \
         {option}=cubic, say",
        Shown(found)
    )]
    BadCongestion {
        /// The option.
        option: &'static str,
        /// The value that was found.
        found: String,
    },
    /// A value that is no size.
    #[error("{option} is a size, and {error}")]
    BadSize {
        /// The option.
        option: &'static str,
        /// What is wrong with its value.
        error: SizeError,
    },
}

/// "did you mean", if there is a guess.
struct Guess<'a>(&'a Option<&'static str>);

impl fmt::Display for Guess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(guess) => write!(f, " (did you mean {guess}?)"),
            None => Ok(()),
        }
    }
}

/// Words with commas between them, each as the value of a key if the key isn't empty.
struct Prefixed<'a>(&'a str, &'a [&'static str]);

impl fmt::Display for Prefixed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, words) = self;
        let equals = if key.is_empty() { "" } else { "=" };
        for (index, word) in words.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{key}{equals}{word}")?;
        }
        Ok(())
    }
}

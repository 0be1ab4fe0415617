//! What every Ringway row needs: its channel's address, and its errors as faults.

use crate::plan::Fault;
use crate::side::{Lane, Place};

/// Ringway brings its own memory.
pub(crate) fn arena_len(_size: usize, _capacity: usize) -> usize {
    0
}

/// The address of one lane. The channel's directory is the run's own, so that names need not be.
pub(crate) fn address(place: &Place<'_>, lane: Lane) -> String {
    let seat = place.seat;
    let lane = match lane {
        Lane::There => "there",
        Lane::Back => "back",
    };
    let more = match seat.channel_options.as_str() {
        "" => String::new(),
        options => format!("&{options}"),
    };
    format!("shm://{}-{lane}?capacity={}&wait={}{more}", seat.channel, seat.capacity, seat.wait)
}

#[cold]
pub(crate) fn fault(error: impl std::error::Error) -> Fault {
    Fault::new(error.to_string())
}

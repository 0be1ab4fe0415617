//! What every Ringway row needs: its channel's address, and its errors as faults.

use super::ringway_many::kind;
use crate::plan::Fault;
use crate::side::{Lane, Place};

/// Ringway brings its own memory.
pub(crate) fn arena_len(_size: usize, _capacity: usize) -> usize {
    0
}

/// The address of one lane, of the kind that the system stands for. The channel's directory is the
/// run's own, so that names need not be.
pub(crate) fn address(place: &Place<'_>, lane: Lane) -> String {
    let seat = place.seat;
    let lane = match lane {
        Lane::There => "there",
        Lane::Back => "back",
    };
    let kind = kind(&seat.system, seat.size).unwrap_or_default();
    let capacity = format!("capacity={}", seat.capacity);
    // A channel of slots has none.
    let capacity = if kind.contains("slots=") { "" } else { &capacity };
    let wait = format!("wait={}", seat.wait);
    let options = [&kind, capacity, &wait, &seat.channel_options];
    let options: Vec<&str> = options.into_iter().filter(|option| !option.is_empty()).collect();
    format!("shm://{}-{lane}?{}", seat.channel, options.join("&"))
}

#[cold]
pub(crate) fn fault(error: impl std::error::Error) -> Fault {
    Fault::new(error.to_string())
}

//! Ringway over TCP with messages of plain bytes, written in place: one call per message. A channel,
//! and so a connection, for each way; the receivers bind.

use super::floor_tcp::{hear_port, tell_port};
use super::ringway_channel::fault;
use super::ringway_raw::Ends;
use crate::plan::Fault;
use crate::side::{Lane, Link, Place, Side, sized};
use ringway::{Receiver, Sender};

/// `claim` and `commit` for each message.
pub(crate) fn open(place: &Place<'_>) -> Result<Box<dyn Side>, Fault> {
    sized!(place, N => Raw<N>)
}

struct Raw<const N: usize>;

impl<const N: usize> Link for Raw<N> {
    type Tx = Ends<Sender<[u8]>, N, 1>;
    type Rx = Ends<Receiver<[u8]>, N, 1>;

    fn tx(place: &Place<'_>, lane: Lane) -> Result<Self::Tx, Fault> {
        let port = hear_port(place, lane)?;
        Ok(Ends(ringway::sender(&address(place, port, "connect")).map_err(fault)?))
    }

    fn rx(place: &Place<'_>, lane: Lane) -> Result<Self::Rx, Fault> {
        let receiver: Receiver<[u8]> =
            ringway::receiver(&address(place, 0, "bind")).map_err(fault)?;
        let bound = receiver.local_addr().ok_or_else(|| Fault::new("it is bound nowhere"))?;
        tell_port(place, lane, bound.port());
        Ok(Ends(receiver))
    }
}

fn address(place: &Place<'_>, port: u16, side: &str) -> String {
    let seat = place.seat;
    let more = match seat.channel_options.as_str() {
        "" => String::new(),
        options => format!("&{options}"),
    };
    format!(
        "tcp://127.0.0.1:{port}/{}?capacity={}&wait={}&side={side}{more}",
        seat.channel, seat.capacity, seat.wait
    )
}

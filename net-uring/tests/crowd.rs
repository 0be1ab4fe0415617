//! Ends with many on the other side, in processes of their own: who floods, who is killed, who takes and
//! never gives back.

#[path = "crowd/fan.rs"]
mod fan;
#[path = "crowd/spread.rs"]
mod spread;
#[path = "crowd/support.rs"]
mod support;

/// The test harness runs this in a peer, which then plays its role.
#[test]
fn peer() {
    let Some(words) = ringway_testing::peer::role() else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    support::play(&words);
}

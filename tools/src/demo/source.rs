//! What a publisher can play: something that gives bodies in order, each with its time. Pacing
//! and sending never live here.

use super::message::Body;

/// Bodies in order.
pub(super) trait Source {
    /// When the next body is due at the source's own pace: nanoseconds after its start. `None`
    /// at its end.
    fn due_ns(&self) -> Option<u64>;

    /// The next body; `None` at the end. An error ends the source too.
    fn take(&mut self) -> Result<Option<Body>, String>;
}

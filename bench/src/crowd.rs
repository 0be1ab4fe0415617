//! What the accounts of many parties say together: rates, fairness, and whether what was received is
//! what was sent. Arithmetic only.

use crate::plan::{Outcome, Parties, Role, Share};

/// One round of many, in messages a second and ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Crowd {
    /// What the scenario is about: the mean of the receivers' rates where every receiver gets every
    /// message, else the total.
    pub(crate) msgs_per_s: f64,
    /// Messages received by all together.
    pub(crate) total_per_s: f64,
    pub(crate) receiver_least_per_s: f64,
    pub(crate) receiver_most_per_s: f64,
    pub(crate) sender_least_per_s: f64,
    pub(crate) sender_most_per_s: f64,
    /// The fastest sender's rate over the slowest's: 1 is fair.
    pub(crate) unfairness: f64,
    /// 99.9 % of the sends of every sender took at most this. None if that can't be told of every one.
    pub(crate) op_p999_ns: Option<u64>,
}

impl Crowd {
    /// None for a round of two, and for one too short to tell.
    pub(crate) fn of(outcome: &Outcome, parties: Parties) -> Option<Crowd> {
        let rates = |role| of(outcome, role).filter_map(rate);
        let least = |role| rates(role).reduce(f64::min);
        let most = |role| rates(role).reduce(f64::max);
        // Over the time of them all: the sum of the parties' own rates would count times in which
        // one waited for the other's turn on a core as if both had worked.
        let receivers = || of(outcome, Role::Passive).filter(|share| share.messages > 0);
        let from_ns = receivers().map(|share| share.from_ns).min()?;
        let to_ns = receivers().map(|share| share.to_ns).max()?;
        let messages: u64 = receivers().map(|share| share.messages).sum();
        let total_per_s = messages as f64 * 1e9 / to_ns.saturating_sub(from_ns).max(1) as f64;
        let mean = rates(Role::Passive).sum::<f64>() / parties.receivers as f64;
        let (sender_least_per_s, sender_most_per_s) = (least(Role::Active)?, most(Role::Active)?);
        Some(Crowd {
            msgs_per_s: if parties.to_all { mean } else { total_per_s },
            total_per_s,
            receiver_least_per_s: least(Role::Passive)?,
            receiver_most_per_s: most(Role::Passive)?,
            sender_least_per_s,
            sender_most_per_s,
            unfairness: sender_most_per_s / sender_least_per_s,
            op_p999_ns: of(outcome, Role::Active)
                .map(|share| share.op_p999_ns)
                .reduce(|one, other| Some(one?.max(other?)))
                .flatten(),
        })
    }
}

/// Compares sums where numbers alone prove nothing: of messages that each go to one of many, one may
/// have come twice and another not at all.
pub(crate) fn audit(mut outcome: Outcome, parties: Parties) -> Outcome {
    if parties.to_all || outcome.shares.is_empty() {
        // A single sender's order at each receiver proves everything.
        return outcome;
    }
    let sum = |role| of(&outcome, role).fold(0, |sum: u64, share| sum.wrapping_add(share.sum));
    let excess = outcome.received.saturating_sub(outcome.sent);
    let swapped = outcome.received == outcome.sent && sum(Role::Active) != sum(Role::Passive);
    if outcome.altered == 0 {
        outcome.altered = excess + u64::from(swapped);
    }
    outcome
}

fn of(outcome: &Outcome, role: Role) -> impl Iterator<Item = &Share> {
    outcome.shares.iter().filter(move |share| share.party.role == role)
}

/// A party that did nothing has a rate, too: none.
fn rate(share: &Share) -> Option<f64> {
    let ns = share.to_ns.checked_sub(share.from_ns)?;
    Some(if ns == 0 { 0.0 } else { share.messages as f64 * 1e9 / ns as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Party;

    fn share(role: Role, index: usize, messages: u64, from_ns: u64, to_ns: u64, sum: u64) -> Share {
        let op_p999_ns = (role == Role::Active).then_some(100 + index as u64);
        Share { party: Party { role, index }, messages, from_ns, to_ns, sum, op_p999_ns }
    }

    fn outcome() -> Outcome {
        Outcome {
            sent: 30,
            received: 30,
            shares: vec![
                share(Role::Active, 0, 20, 0, 1_000, 210),
                share(Role::Active, 1, 10, 0, 1_000, 55),
                share(Role::Passive, 0, 15, 0, 600, 200),
                share(Role::Passive, 1, 15, 400, 1_000, 65),
            ],
            ..Outcome::default()
        }
    }

    #[test]
    fn the_total_is_over_the_time_of_all() {
        let parties = "2P2C".parse().expect("legal");
        let crowd = Crowd::of(&outcome(), parties).expect("long enough");
        assert_eq!(crowd.msgs_per_s, crowd.total_per_s);
        assert_eq!(crowd.total_per_s, 3e7);
        assert_eq!((crowd.receiver_least_per_s, crowd.receiver_most_per_s), (2.5e7, 2.5e7));
        assert_eq!((crowd.unfairness, crowd.op_p999_ns), (2.0, Some(101)));
        assert_eq!(Crowd::of(&Outcome::default(), parties), None);
        let to_all = Parties { to_all: true, ..parties };
        assert_eq!(Crowd::of(&outcome(), to_all).map(|crowd| crowd.msgs_per_s), Some(2.5e7));
    }

    #[test]
    fn one_sender_of_too_few_sends_leaves_the_rates_and_takes_the_tail() {
        let parties = "2P2C".parse().expect("legal");
        let mut few = outcome();
        few.shares[0].op_p999_ns = None;
        let [few, enough] =
            [few, outcome()].map(|outcome| Crowd::of(&outcome, parties).expect("long enough"));
        assert_eq!(few, Crowd { op_p999_ns: None, ..enough });
    }

    #[test]
    fn one_message_twice_and_another_never_is_found() {
        let parties = "2P2C".parse().expect("legal");
        assert_eq!(audit(outcome(), parties).altered, 0);
        let mut swapped = outcome();
        swapped.shares[3].sum += 1;
        assert_eq!(audit(swapped, parties).altered, 1);
        let doubled = Outcome { received: 32, ..outcome() };
        assert_eq!(audit(doubled, parties).altered, 2);
        let lost = audit(Outcome { received: 29, ..outcome() }, parties);
        assert_eq!((lost.altered, lost.lost()), (0, 1));
    }
}

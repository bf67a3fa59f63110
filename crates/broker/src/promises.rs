//! What a broker keeps of the contract where another system lies behind it.

/// Which of the contract's promises hold. A broker of this crate keeps all; one in front of another system says what that cannot do, and the
/// contract suite asks of it what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promises {
    /// A step, and a batch, happens as a whole or not at all. Without it the outputs are there before the inputs are settled, so that after a
    /// crash outputs may come twice, with the same ids, and nothing is lost.
    pub atomic_step: bool,
    /// [`Broker::account`](crate::Broker::account) and [`Broker::root_outcome`](crate::Broker::root_outcome) answer. Without it they are refused.
    pub accounts: bool,
    /// Steps write keyed state. Without it a step with state is refused.
    pub state: bool,
    /// A message waits for a consumer that asks, and a key is free for any of them as soon as its message is settled. Without it messages are
    /// dealt to those who are connected, a key stays with one of them, and who follows on a failover subscription is not the next that came.
    pub on_demand: bool,
    /// Positions count from 0 without gaps. Without it they only rise.
    pub counted_positions: bool,
    /// What is settled everywhere and not retained is gone at once, and a time is found however the times lie. Without it what is settled may be
    /// there for longer, and times must rise.
    pub exact_retention: bool,
    /// What is left of a delay is kept when the consumer that gave the message back ends. Without it that holds on shared subscriptions only.
    pub lasting_delays: bool,
    /// What is settled of a batch is seen by everybody who looks. Without it others see it when the whole batch is settled; a consumer never gets
    /// it again where the service keeps it, and else it may come again to another process.
    pub parts_of_batches: bool,
    /// The largest sequence of a named producer.
    pub sequence_max: u64,
}

impl Default for Promises {
    /// Everything that the contract says.
    fn default() -> Self {
        Self {
            atomic_step: true,
            accounts: true,
            state: true,
            on_demand: true,
            counted_positions: true,
            exact_retention: true,
            lasting_delays: true,
            parts_of_batches: true,
            sequence_max: u64::MAX,
        }
    }
}

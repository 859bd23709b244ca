//! How the watchdog reaches a source: through the queue on which the source's own loop waits for acknowledgements.
//!
//! A loop that hangs takes nothing from its queue, so its tick stays unanswered. One that is idle, or whose broker, port or
//! Kafka is away, still waits on it, and answers at once.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::oneshot;

use super::AckQueue;

/// Lies beside a source's counters, which both sides have.
#[derive(Debug, Default)]
pub struct Pulse(OnceLock<Weak<AckQueue>>);

impl Pulse {
    /// The source has begun and waits on this queue.
    pub fn begin(&self, queue: &Arc<AckQueue>) {
        // A second one would be a second source with the same counters: there is none.
        let _ = self.0.set(Arc::downgrade(queue));
    }

    /// `None`: the source has not begun, or has ended.
    pub fn tick(&self) -> Option<oneshot::Receiver<()>> {
        Some(self.0.get()?.upgrade()?.tick())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_takes_from_the_queue_answers() {
        let pulse = Pulse::default();
        assert!(pulse.tick().is_none(), "nobody has begun");
        let queue = Arc::new(AckQueue::default());
        pulse.begin(&queue);
        let mut tick = pulse.tick().expect("it has begun");
        queue.wait().await;
        assert!(tick.try_recv().is_err(), "to be woken is not to answer");
        queue.take(&mut Vec::new());
        assert_eq!(tick.await, Ok(()));
        drop(queue);
        assert!(pulse.tick().is_none(), "it has ended");
    }

    #[tokio::test]
    async fn a_wait_answers_and_leaves_the_acks() {
        let queue = Arc::new(AckQueue::default());
        let ack = super::super::Ack { generation: 1, number: 7 };
        super::super::AckTicket { queue: Arc::clone(&queue), ack }.fire();
        let tick = queue.tick();
        tokio::select! {
            never = queue.answer_ticks() => match never {},
            answered = tick => assert_eq!(answered, Ok(())),
        }
        let mut fired = Vec::new();
        queue.take(&mut fired);
        assert_eq!(fired, [ack]);
    }
}

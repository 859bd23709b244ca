//! From a frame to a delivery (steps 1 and 2) for sources whose senders expect no answer: serial lines, Modbus.
//!
//! Such a reading counts as accepted when it is committed or acknowledged by Kafka. Until then it is counted here, and a
//! gate decides whether more may be read: closed at the bound, open again at half of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mqtt::SourceCounters;
use super::{Ack, AckQueue, AckTicket, Deliver, Delivery, Fate, Route, Routed};
use crate::record::{Arrival, Properties, Reading};

/// Memory of a reading beside its bytes: delivery, ticket, slot, allocations. It bounds how many tiny readings fit.
const OVERHEAD_BYTES: u64 = 128;

/// What a source hands its readings to.
#[derive(Clone)]
pub struct Outlet {
    pub route: Arc<dyn Route>,
    pub deliver: Arc<dyn Deliver>,
    pub counters: Arc<SourceCounters>,
}

/// A reading before it is routed.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub content_type: Option<&'static str>,
    pub arrival: Arrival,
    /// Into the dead letters, for this cause.
    pub unfit: Option<&'a str>,
}

/// Delivers the readings of one source and counts those that are not accepted yet.
pub struct Feeder {
    source: String,
    outlet: Outlet,
    bytes_max: u64,
    queue: Arc<AckQueue>,
    fired: Vec<Ack>,
    unsettled: Unsettled,
    closed: bool,
    batch: Vec<Delivery>,
    scratch: Vec<u8>,
}

impl Feeder {
    /// At most `bytes_max` wait, and one more read of the line.
    pub fn new(source: &str, outlet: Outlet, bytes_max: u64) -> Self {
        let queue = Arc::default();
        outlet.counters.pulse.begin(&queue);
        Feeder {
            source: source.to_owned(),
            outlet,
            bytes_max,
            queue,
            fired: Vec::new(),
            unsettled: Unsettled::default(),
            closed: false,
            batch: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Routes a reading into the present batch.
    pub fn take(&mut self, taken: Taken<'_>) {
        let properties = Properties { content_type: taken.content_type.map(str::to_owned), ..Properties::default() };
        let reading = Reading {
            source: &self.source,
            topic: taken.topic,
            payload: taken.payload,
            qos: 0,
            retain: false,
            dup: false,
            properties: &properties,
            arrival: taken.arrival,
        };
        add(&self.outlet.counters.readings, 1);
        add(&self.outlet.counters.payload_bytes, taken.payload.len() as u64);
        if let Routed::Deliver { lane, body, fate } = self.outlet.route.route(&reading, &mut self.scratch) {
            let number = self.unsettled.open(body.len() as u64 + OVERHEAD_BYTES);
            let fate = taken.unfit.map_or(fate, |cause| Fate::DeadLetter(cause.to_owned()));
            let ticket = AckTicket { queue: Arc::clone(&self.queue), ack: Ack { generation: 0, number } };
            self.batch.push(Delivery { lane, body, fate, ack: Some(ticket), extra: None });
        }
    }

    /// Step 2: hands the batch over.
    pub fn hand_over(&mut self) {
        if !self.batch.is_empty() {
            self.outlet.deliver.deliver(&mut self.batch);
        }
        if !self.closed && self.unsettled.bytes >= self.bytes_max {
            self.closed = true;
            add(&self.outlet.counters.gate_closed, 1);
        }
        if self.closed {
            self.outlet.deliver.urge();
        }
        self.show();
    }

    /// Whether the line may be read.
    pub fn is_open(&self) -> bool {
        !self.closed
    }

    pub fn is_settled(&self) -> bool {
        self.unsettled.bytes == 0
    }

    /// Waits until readings have been accepted, and takes note of them. Cancel safe.
    pub async fn settle(&mut self) {
        self.queue.wait().await;
        self.note();
    }

    /// Takes note of what has been accepted so far, and answers the watchdog: for those who do something for long.
    pub fn note(&mut self) {
        self.queue.take(&mut self.fired);
        for ack in self.fired.drain(..) {
            self.unsettled.close(ack.number);
        }
        self.closed = self.closed && self.unsettled.bytes > self.bytes_max / 2;
        self.show();
    }

    fn show(&self) {
        self.outlet.counters.unacked.store(self.unsettled.count, Ordering::Relaxed);
        self.outlet.counters.unacked_bytes.store(self.unsettled.bytes, Ordering::Relaxed);
    }
}

pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Readings on their way, in order; they may be settled in any order.
#[derive(Debug, Default)]
struct Unsettled {
    /// Number of the first slot.
    first: u64,
    /// Bytes; `None`: settled.
    slots: VecDeque<Option<u64>>,
    count: u64,
    bytes: u64,
}

impl Unsettled {
    fn open(&mut self, bytes: u64) -> u64 {
        self.slots.push_back(Some(bytes));
        self.count += 1;
        self.bytes += bytes;
        self.first + self.slots.len() as u64 - 1
    }

    /// A number counts once.
    fn close(&mut self, number: u64) {
        let slot = number.checked_sub(self.first).and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?));
        if let Some(bytes) = slot.and_then(Option::take) {
            self.count -= 1;
            self.bytes -= bytes;
        }
        while self.slots.front().is_some_and(Option::is_none) {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::intake::Change;
    use crate::record::RecordView;

    struct ToLaneOne;
    impl Route for ToLaneOne {
        fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
            let key = Some(reading.topic.as_bytes());
            let record =
                RecordView { topic: "t", key, timestamp_ms: reading.arrival.wall_ms, ..RecordView::plain(reading) };
            Routed::Deliver { lane: 1, body: record.encode(scratch), fate: Fate::Forward }
        }
    }

    #[derive(Default)]
    struct Hub(Mutex<(Vec<Delivery>, usize)>);
    impl Deliver for Hub {
        fn deliver(&self, batch: &mut Vec<Delivery>) {
            self.0.lock().expect("no panic").0.append(batch);
        }
        fn urge(&self) {
            self.0.lock().expect("no panic").1 += 1;
        }
        fn keep(&self, _: Vec<Change>, ack: AckTicket) {
            ack.fire();
        }
    }

    fn taken<'a>(payload: &'a [u8], unfit: Option<&'a str>) -> Taken<'a> {
        Taken { topic: "line/1", payload, content_type: None, arrival: Arrival::default(), unfit }
    }

    #[tokio::test]
    async fn the_gate_closes_at_the_bound_and_opens_at_half() {
        let hub = Arc::new(Hub::default());
        let counters = Arc::new(SourceCounters::default());
        let outlet = Outlet { route: Arc::new(ToLaneOne), deliver: Arc::clone(&hub) as _, counters };
        let mut feeder = Feeder::new("scale", outlet, 4 * 200);
        for _ in 0..6 {
            feeder.take(taken(&[7; 50], None));
        }
        feeder.take(taken(b"?", Some("decode the frame: it is not UTF-8")));
        feeder.hand_over();
        assert!(!feeder.is_open());
        let mut out = std::mem::take(&mut hub.0.lock().expect("no panic").0);
        assert_eq!(out[6].fate, Fate::DeadLetter("decode the frame: it is not UTF-8".to_owned()));
        assert_eq!(hub.0.lock().expect("no panic").1, 1, "nobody will come to share the commit");
        for delivery in out.drain(1..4) {
            delivery.ack.expect("each has a ticket").fire();
        }
        feeder.settle().await;
        assert!(!feeder.is_open(), "more than half is still out");
        for delivery in out.drain(..) {
            delivery.ack.expect("each has a ticket").fire();
        }
        feeder.settle().await;
        assert!(feeder.is_open() && feeder.is_settled());
    }

    proptest! {
        #[test]
        fn what_is_settled_in_any_order_is_settled_once(order in Just((0..50u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut unsettled = Unsettled::default();
            let numbers: Vec<u64> = (1..=50).map(|bytes| unsettled.open(bytes)).collect();
            prop_assert_eq!(&numbers, &(0..50).collect::<Vec<u64>>());
            let mut left = unsettled.bytes;
            for number in order {
                unsettled.close(number);
                unsettled.close(number);
                left -= number + 1;
                prop_assert_eq!(unsettled.bytes, left);
            }
            prop_assert_eq!((unsettled.count, unsettled.slots.len(), unsettled.first), (0, 0, 50));
        }
    }
}

//! Rate mode: numbered messages as fast as asked. [`LoadFeed`] is pure.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Moment;
use super::devices::share_of;
use super::feed::{Feed, Message, Next, Place};
use super::payload::NumberedPayload;
use super::topic::{self, TopicTemplate};

/// Messages per second over all connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    PerSecond(f64),
    /// As fast as acknowledgements come back.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let valid = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite());
        valid.map(Self::PerSecond).ok_or_else(|| "a rate is a positive number of messages per second, or max".into())
    }
}

impl Rate {
    /// Whether it is faster than this many messages per second.
    pub fn exceeds(self, per_second: f64) -> bool {
        match self {
            Self::PerSecond(rate) => rate > per_second,
            Self::Max => true,
        }
    }
}

/// What all connections of a load have in common.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub rate: Rate,
    /// Messages of all connections together; `None`: until stopped.
    pub count: Option<u64>,
    pub connections: u32,
    /// Topics each connection goes through in turn.
    pub equipments: u32,
    /// Of a whole payload.
    pub size_bytes: usize,
    pub topic: TopicTemplate,
}

/// At high rates one wake-up sends this many messages in one write: the loader shares its machine with what it tests.
const MESSAGES_PER_TICK: f64 = 8.0;
/// But none waits longer than this for the others, unless the rate itself is lower.
const TICK_MAX: Duration = Duration::from_millis(5);

/// One connection's part of the load.
pub struct LoadFeed {
    places: Vec<Arc<Place>>,
    payload: NumberedPayload,
    pace: Option<Pace>,
    count: Option<u64>,
    next_number: u64,
}

impl LoadFeed {
    pub fn new(options: &LoadOptions, instance: &str, connection: u32) -> Self {
        let place = |number| {
            let topic = options.topic.fill(instance, connection, number);
            Arc::new(Place { topic, equipment: topic::equipment_name(connection, number) })
        };
        Self {
            places: (0..options.equipments.max(1)).map(place).collect(),
            payload: NumberedPayload::new(instance, connection, options.size_bytes),
            pace: Pace::new(options, connection),
            count: options.count.map(|count| share_of(count, connection, options.connections)),
            next_number: 0,
        }
    }
}

impl Feed for LoadFeed {
    fn next(&mut self, now: Moment) -> Next {
        if self.count == Some(self.next_number) {
            return Next::Finished;
        }
        if let Some(at) = self.pace.as_mut().and_then(|pace| pace.wait_for(self.next_number, now.since_start)) {
            return Next::At(at);
        }
        let number = self.next_number;
        self.next_number += 1;
        let place = Arc::clone(&self.places[(number % self.places.len() as u64) as usize]);
        Next::Message(Message { number, place, payload: self.payload.write(number, now.wall_ns) })
    }

    fn id(&self, number: u64) -> String {
        self.payload.id(number)
    }
}

/// When each message of one connection is due. Time is cut into ticks; what is due within a tick goes out at its start.
#[derive(Debug)]
struct Pace {
    /// Between two messages of this connection.
    period_s: f64,
    tick_s: f64,
    /// Of this connection's schedule against the others', so that all together are smooth.
    phase: Duration,
    /// When the connection was first ready to send: a slow start of the connections is not caught up with in a burst.
    zero: Option<Duration>,
}

impl Pace {
    fn new(options: &LoadOptions, connection: u32) -> Option<Self> {
        let Rate::PerSecond(rate) = options.rate else { return None };
        let period_s = f64::from(options.connections) / rate;
        let tick_s = (period_s * MESSAGES_PER_TICK).min(TICK_MAX.as_secs_f64()).max(period_s);
        let phase_s = tick_s * f64::from(connection) / f64::from(options.connections);
        Some(Self { period_s, tick_s, phase: Duration::from_secs_f64(phase_s), zero: None })
    }

    /// `None` when message `number` may go now, else the start of its tick.
    fn wait_for(&mut self, number: u64, now: Duration) -> Option<Duration> {
        let zero = *self.zero.get_or_insert(now + self.phase);
        let tick = (number as f64 * self.period_s / self.tick_s + 1e-9).floor();
        let at = zero + Duration::from_secs_f64(tick * self.tick_s);
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn options(rate: Rate, connections: u32, count: u64) -> LoadOptions {
        let topic = "load/{equipment}".parse().unwrap();
        LoadOptions { rate, count: Some(count), connections, equipments: 2, size_bytes: 100, topic }
    }

    /// When each message goes out if the feed is asked exactly when it wants to be.
    fn schedule(options: &LoadOptions, connection: u32) -> Vec<Duration> {
        let mut feed = LoadFeed::new(options, "4f1c", connection);
        let (mut sent, mut now) = (Vec::new(), Duration::ZERO);
        loop {
            match feed.next(Moment { since_start: now, wall_ns: 0 }) {
                Next::Message(message) => {
                    assert_eq!(message.number, sent.len() as u64);
                    sent.push(now);
                }
                Next::At(at) => now = at,
                Next::Finished => return sent,
                Next::Die { .. } => unreachable!("a load does not die"),
            }
        }
    }

    #[test]
    fn reads_rates() {
        assert_eq!("2000".parse(), Ok(Rate::PerSecond(2000.0)));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for bad in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(schedule(&options(Rate::Max, 1, 500), 0), vec![Duration::ZERO; 500]);
    }

    #[test]
    fn topics_take_turns_and_ids_are_unique() {
        let mut feed = LoadFeed::new(&options(Rate::Max, 1, 4), "4f1c", 0);
        let mut seen = Vec::new();
        while let Next::Message(message) = feed.next(Moment::default()) {
            seen.push((message.place.topic.clone(), feed.id(message.number)));
        }
        let topic = |n| format!("load/equipment-0001-0{n}");
        let expected = [(1, "4f1c-0-0"), (2, "4f1c-0-1"), (1, "4f1c-0-2"), (2, "4f1c-0-3")];
        assert_eq!(seen, expected.map(|(n, id)| (topic(n), id.to_owned())));
    }

    proptest! {
        #[test]
        fn the_rate_is_kept_over_all_connections(rate in 1.0_f64..200_000.0, connections in 1_u32..60) {
            let options = options(Rate::PerSecond(rate), connections, 3000);
            let mut sent: Vec<Duration> = (0..connections).flat_map(|n| schedule(&options, n)).collect();
            sent.sort_unstable();
            prop_assert_eq!(sent.len(), 3000);
            let took = sent[2999].as_secs_f64();
            let wanted = 3000.0 / rate;
            // The last message may be early or late by a tick of its connection.
            let tick = (f64::from(connections) / rate).max(0.005) + f64::from(connections) / rate;
            prop_assert!((took - wanted).abs() <= tick, "{took} s for {wanted} s");
        }
    }
}

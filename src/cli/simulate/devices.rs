//! Edge devices: each has one connection and one or many equipments, and publishes their statuses at an interval.
//! [`DeviceFeed`] is pure; the connection that asks it is elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::clock::Moment;
use super::dice::Dice;
use super::faults::{FaultRates, Plan};
use super::feed::{Feed, Message, Next, Place};
use super::job::Job;
use super::payload::{self, Field};
use super::tally::Tally;
use super::topic::{self, TopicTemplate};

/// What all devices of a run have in common.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    pub devices: u32,
    /// On each device.
    pub equipments: u32,
    /// Between two statuses of one equipment.
    pub interval: Duration,
    pub topic: TopicTemplate,
    /// In every status, after the three of the sample.
    pub fields: Vec<Field>,
    pub faults: FaultRates,
    pub seed: u64,
    /// The readings of all devices together, doubles not counted; `None`: until stopped.
    pub count: Option<u64>,
}

impl Default for DeviceOptions {
    /// One device with one equipment, a status a second, no faults.
    fn default() -> Self {
        Self {
            devices: 1,
            equipments: 1,
            interval: Duration::from_secs(1),
            topic: TopicTemplate::default(),
            fields: Vec::new(),
            faults: FaultRates::default(),
            seed: 1,
            count: None,
        }
    }
}

/// A dead device comes back after this many intervals.
const DEAD_INTERVALS: (u64, u64) = (3, 30);

/// One device.
pub struct DeviceFeed {
    options: Arc<DeviceOptions>,
    name: String,
    equipments: Vec<Equipment>,
    tally: Arc<Tally>,
    next_tick: Duration,
    /// What one tick brought. Only an empty queue lets the next tick happen: that is its bound.
    queue: VecDeque<Outgoing>,
    readings_left: Option<u64>,
    next_number: u64,
}

struct Equipment {
    place: Arc<Place>,
    job: Job,
    dice: Dice,
    /// Apart from `dice`, so that faults do not change what the equipment does.
    fault_dice: Dice,
    /// A reading that waits to be overtaken.
    held: Option<Bytes>,
}

enum Outgoing {
    Publish(Arc<Place>, Bytes),
    Die(Duration),
}

impl DeviceFeed {
    pub fn new(options: &Arc<DeviceOptions>, instance: &str, device: u32, tally: &Arc<Tally>) -> Self {
        let share = options.count.map(|count| share_of(count, device, options.devices));
        Self {
            name: format!("{instance}-{}", topic::device_name(device)),
            equipments: (0..options.equipments).map(|n| Equipment::new(options, instance, device, n)).collect(),
            tally: Arc::clone(tally),
            // Spread over the interval, as devices that were switched on by hand would be.
            next_tick: options.interval * device / options.devices.max(1),
            queue: VecDeque::new(),
            readings_left: share,
            next_number: 0,
            options: Arc::clone(options),
        }
    }

    fn tick(&mut self, now: Moment) {
        self.skip_missed(now.since_start);
        let mut dies = false;
        for index in 0..self.equipments.len() {
            dies |= self.status(index, now);
        }
        self.next_tick += self.options.interval;
        if dies {
            self.die();
        }
    }

    /// A status that could not be made in its time is never made: a real device states the present.
    fn skip_missed(&mut self, now: Duration) {
        let late = now.saturating_sub(self.next_tick).as_nanos();
        let missed = u32::try_from(late / self.options.interval.as_nanos().max(1)).unwrap_or(u32::MAX);
        if missed > 0 {
            self.next_tick = self.next_tick.saturating_add(self.options.interval.saturating_mul(missed));
            let skipped = u64::from(missed) * self.equipments.len() as u64;
            self.tally.add(|counts| counts.skipped += skipped);
        }
    }

    /// The status of one equipment, with what a fault makes of it. Answers whether the device dies of it.
    fn status(&mut self, index: usize, now: Moment) -> bool {
        let plan = self.options.faults.plan(&mut self.equipments[index].fault_dice);
        for extra in 0..=plan.extra_readings {
            if self.readings_left == Some(0) {
                return false;
            }
            self.readings_left = self.readings_left.map(|left| left - 1);
            let plan = if extra == 0 { plan } else { Plan::default() };
            let (options, equipment) = (&self.options, &mut self.equipments[index]);
            let reading = equipment.reading(options, plan, now);
            equipment.publish(reading, plan, &mut self.queue);
        }
        self.note_faults(plan);
        plan.dies
    }

    fn note_faults(&self, plan: Plan) {
        self.tally.add(|counts| {
            let faults = &mut counts.faults;
            faults.doubles += u64::from(plan.doubled);
            faults.disorder += u64::from(plan.held);
            faults.late += u64::from(plan.late_by.is_some());
            faults.malformed += u64::from(plan.damage.is_some());
            faults.burst += u64::from(plan.extra_readings > 0);
            faults.die += u64::from(plan.dies);
        });
    }

    fn die(&mut self) {
        let Some(first) = self.equipments.first_mut() else { return };
        let intervals = first.fault_dice.between(DEAD_INTERVALS.0, DEAD_INTERVALS.1) as u32;
        self.queue.push_back(Outgoing::Die(self.options.interval * intervals));
    }

    /// The end: nothing is held back any longer.
    fn release_held(&mut self) {
        for equipment in &mut self.equipments {
            if let Some(reading) = equipment.held.take() {
                self.queue.push_back(Outgoing::Publish(Arc::clone(&equipment.place), reading));
            }
        }
    }

    fn number(&mut self, place: Arc<Place>, payload: Bytes) -> Message {
        self.next_number += 1;
        Message { number: self.next_number - 1, place, payload }
    }
}

impl Feed for DeviceFeed {
    fn next(&mut self, now: Moment) -> Next {
        if self.queue.is_empty() && self.readings_left == Some(0) {
            self.release_held();
        } else if self.queue.is_empty() && now.since_start >= self.next_tick {
            self.tick(now);
        }
        match self.queue.pop_front() {
            Some(Outgoing::Publish(place, payload)) => Next::Message(self.number(place, payload)),
            Some(Outgoing::Die(silent)) => Next::Die { silent },
            None if self.readings_left == Some(0) => Next::Finished,
            None => Next::At(self.next_tick),
        }
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.name)
    }
}

impl Equipment {
    fn new(options: &DeviceOptions, instance: &str, device: u32, number: u32) -> Self {
        let mut dice = Dice::of(options.seed, device, number);
        let topic = options.topic.fill(instance, device, number);
        Self {
            place: Arc::new(Place { topic, equipment: topic::equipment_name(device, number) }),
            job: Job::new(&mut dice),
            fault_dice: Dice::of(!options.seed, device, number),
            dice,
            held: None,
        }
    }

    fn reading(&mut self, options: &DeviceOptions, plan: Plan, now: Moment) -> Bytes {
        let status = self.job.step(&mut self.dice);
        let late_ms = plan.late_by.map_or(0, |by| by.as_millis() as i64);
        let timestamp_ms = now.wall_ns / 1_000_000 - late_ms;
        let mut payload = payload::status_payload(status, timestamp_ms, &options.fields, &mut self.dice);
        if let Some(damage) = plan.damage {
            damage.apply(&mut payload);
        }
        payload.into()
    }

    fn publish(&mut self, reading: Bytes, plan: Plan, queue: &mut VecDeque<Outgoing>) {
        let mut push = |reading: Bytes| queue.push_back(Outgoing::Publish(Arc::clone(&self.place), reading));
        if plan.doubled {
            push(reading.clone());
        }
        if plan.held && self.held.is_none() {
            self.held = Some(reading);
            return;
        }
        push(reading);
        if let Some(overtaken) = self.held.take() {
            push(overtaken);
        }
    }
}

/// What one of `parts` gets of `count`: as even as whole numbers allow, the first ones get the rest.
pub fn share_of(count: u64, part: u32, parts: u32) -> u64 {
    let parts = u64::from(parts.max(1));
    count / parts + u64::from(u64::from(part) < count % parts)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    /// Runs one device over its whole count, a tick after the other: (topic, payload) of each message, and the counts.
    fn play(options: DeviceOptions) -> (Vec<(String, Bytes)>, super::super::tally::Counts) {
        let (options, tally) = (Arc::new(options), Arc::new(Tally::default()));
        let mut feed = DeviceFeed::new(&options, "4f1c", 0, &tally);
        let (mut messages, mut now) = (Vec::new(), Moment::default());
        loop {
            match feed.next(now) {
                Next::Message(message) => {
                    assert_eq!(message.number, messages.len() as u64);
                    messages.push((message.place.topic.clone(), message.payload));
                }
                Next::At(at) => now = Moment { since_start: at, wall_ns: at.as_nanos() as i64 },
                Next::Die { .. } => {}
                Next::Finished => return (messages, tally.counts()),
            }
        }
    }

    fn options(faults: &str, seed: u64) -> DeviceOptions {
        let faults = faults.parse().unwrap();
        DeviceOptions { equipments: 3, faults, seed, count: Some(600), ..DeviceOptions::default() }
    }

    #[test]
    fn without_faults_each_reading_is_published_once_in_order_of_time() {
        let (messages, counts) = play(options("", 5));
        assert_eq!((messages.len(), counts.faults.total(), counts.skipped), (600, 0, 0));
        let timestamps = |topic: &str| -> Vec<String> {
            let of_topic = messages.iter().filter(|(name, _)| name == topic);
            let json = of_topic.map(|(_, payload)| serde_json::from_slice::<serde_json::Value>(payload).unwrap());
            json.map(|value| value["timestamp"].as_str().unwrap().to_owned()).collect()
        };
        for number in 1..=3 {
            let told = timestamps(&format!("plant/line-1/equipment-0001-0{number}/status"));
            assert_eq!(told.len(), 200);
            assert!(told.is_sorted_by(|earlier, later| earlier < later));
        }
    }

    #[test]
    fn doubles_and_disorder_lose_nothing() {
        let (messages, counts) = play(options("doubles=0.2,disorder=0.3", 5));
        assert!(counts.faults.doubles > 50 && counts.faults.disorder > 50);
        assert_eq!(messages.len() as u64, 600 + counts.faults.doubles);
    }

    #[test]
    fn a_device_that_was_away_goes_on_with_the_present() {
        let (options, tally) = (Arc::new(DeviceOptions::default()), Arc::new(Tally::default()));
        let mut feed = DeviceFeed::new(&options, "4f1c", 0, &tally);
        let after = |ms| Moment { since_start: Duration::from_millis(ms), wall_ns: 0 };
        assert!(matches!(feed.next(after(0)), Next::Message(_)));
        assert!(matches!(feed.next(after(10_500)), Next::Message(_)));
        assert!(matches!(feed.next(after(10_500)), Next::At(at) if at == Duration::from_secs(11)));
        assert_eq!(tally.counts().skipped, 9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn same_seed_same_stream(seed: u64) {
            let all = "doubles=0.1,disorder=0.1,late=0.1,malformed=0.1,burst=0.01,die=0.01";
            prop_assert_eq!(play(options(all, seed)).0, play(options(all, seed)).0);
        }

        #[test]
        fn shares_add_up(count in 0_u64..100_000, parts in 1_u32..200) {
            let shares: Vec<u64> = (0..parts).map(|part| share_of(count, part, parts)).collect();
            prop_assert_eq!(shares.iter().sum::<u64>(), count);
            prop_assert!(shares[0] - shares[shares.len() - 1] <= 1);
        }
    }
}

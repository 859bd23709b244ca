#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

const MS: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(86_400);

fn report(deadband: Deadband, min_interval: Duration, max_interval: Duration) -> Report {
    Report {
        rule: Rule { deadband, min_interval },
        fields: BTreeMap::new(),
        ignore: Vec::new(),
        per: Vec::new(),
        max_interval,
        bytes_max: 64 << 10,
    }
}

fn exact(min_interval: Duration, max_interval: Duration) -> Report {
    report(Deadband::Absolute(0.0), min_interval, max_interval)
}

/// A stage, what it has sent, and what it found to say nothing new.
struct World {
    stage: Exceptions<String>,
    sent: Vec<String>,
    suppressed: u64,
}

impl World {
    fn new(report: Report) -> Self {
        World { stage: Exceptions::new(report), sent: Vec::new(), suppressed: 0 }
    }

    fn offer(&mut self, ms: u32, topic: &str, quality: &str, content: Content) {
        let item = match &content {
            Content::Fields(fields) => Value::Object(fields.clone()).to_string(),
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        let offer = Offer { topic, quality, content, bytes: item.len(), item };
        self.suppressed += self.stage.offer(ms * MS, offer, &mut self.sent);
    }

    fn say(&mut self, ms: u32, fields: Value) {
        let Value::Object(fields) = fields else { panic!("{fields}") };
        self.offer(ms, "t", "", Content::Fields(fields));
    }

    /// What was sent since the last look.
    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    fn due(&mut self, ms: u32) -> Vec<String> {
        self.stage.take_due(ms * MS, &mut self.sent);
        self.sent()
    }
}

#[test]
fn a_value_that_creeps_is_sent_once_it_has_crept_far_enough() {
    let mut world = World::new(report(Deadband::Absolute(0.5), Duration::ZERO, NEVER));
    for (n, tenths) in (200..220).enumerate() {
        world.say(n as u32, json!({"t": f64::from(tenths) / 10.0}));
    }
    assert_eq!(world.sent(), [r#"{"t":20.0}"#, r#"{"t":20.6}"#, r#"{"t":21.2}"#, r#"{"t":21.8}"#]);
    assert_eq!(world.suppressed, 16);
}

#[test]
fn a_percentage_is_of_what_was_sent_and_each_field_has_its_own() {
    let mut rules = report(Deadband::Absolute(0.0), Duration::ZERO, NEVER);
    rules.fields.insert("p".into(), Rule { deadband: Deadband::Percent(10.0), min_interval: Duration::ZERO });
    let mut world = World::new(rules);
    for (n, (p, state)) in [(-100, "on"), (-109, "on"), (-91, "on"), (-109, "off"), (-120, "off")].iter().enumerate() {
        world.say(n as u32, json!({"p": p, "state": state}));
    }
    let wanted = [r#"{"p":-100,"state":"on"}"#, r#"{"p":-109,"state":"off"}"#, r#"{"p":-120,"state":"off"}"#];
    assert_eq!(world.sent(), wanted);
    world.say(9, json!({"p": 0, "state": "off"}));
    world.say(10, json!({"p": 1, "state": "off"}));
    assert_eq!(world.sent().len(), 2, "no part of nothing is anything");
}

#[test]
fn a_counter_beyond_what_a_float_can_show_still_counts() {
    let mut world = World::new(exact(Duration::ZERO, NEVER));
    world.say(0, json!({"n": u64::MAX - 1}));
    world.say(1, json!({"n": u64::MAX}));
    world.say(2, json!({"n": u64::MAX}));
    assert_eq!((world.sent().len(), world.suppressed), (2, 1));
}

#[test]
fn whatever_is_no_number_has_changed_when_it_is_not_the_same() {
    let mut world = World::new(report(Deadband::Absolute(100.0), Duration::ZERO, NEVER));
    let says = [
        (json!({"t": 1}), true),
        (json!({"t": 2}), false),
        (json!({"t": null}), true),
        (json!({"t": null}), false),
        (json!({"t": 2}), true),
        (json!({"t": 2, "door": true}), true),
        (json!({"t": 2, "door": false}), true),
        (json!({"t": 2}), true),
        (json!({"t": "2"}), true),
        (json!({"t": ["a"]}), true),
        (json!({"t": ["a"]}), false),
    ];
    for (n, (fields, is_news)) in says.into_iter().enumerate() {
        world.say(n as u32, fields.clone());
        assert_eq!(world.sent().len(), usize::from(is_news), "{n}: {fields}");
    }
}

#[test]
fn raw_frames_are_compared_byte_by_byte() {
    let mut world = World::new(exact(100 * MS, NEVER));
    for (ms, bytes) in [(0, "a"), (10, "a"), (20, "b"), (30, "c")] {
        world.offer(ms, "t", "", Content::Bytes(bytes.into()));
    }
    assert_eq!(world.sent(), ["a"]);
    assert_eq!(world.stage.due_at(), Some(100 * MS));
    assert_eq!(world.due(99), Vec::<String>::new());
    assert_eq!(world.due(100), ["c"], "the newest, when the interval ends");
    assert_eq!((world.suppressed, world.stage.due_at()), (2, None));
}

#[test]
fn what_came_back_to_where_it_was_need_not_be_said() {
    let mut world = World::new(exact(100 * MS, NEVER));
    for (ms, t) in [(0, 1), (10, 5), (20, 1)] {
        world.say(ms, json!({ "t": t }));
    }
    assert_eq!((world.sent().len(), world.due(500).len(), world.suppressed), (1, 0, 2));
    world.say(501, json!({"t": 5}));
    assert_eq!(world.sent().len(), 1, "late enough: at once");
}

#[test]
fn an_urgent_field_does_not_wait_for_a_lively_one() {
    let mut rules = exact(1_000 * MS, NEVER);
    rules.fields.insert("alarm".into(), Rule { deadband: Deadband::Absolute(0.0), min_interval: Duration::ZERO });
    let mut world = World::new(rules);
    world.say(0, json!({"t": 1, "alarm": false}));
    world.say(10, json!({"t": 2, "alarm": false}));
    assert_eq!(world.sent().len(), 1);
    world.say(20, json!({"t": 3, "alarm": true}));
    assert_eq!(world.sent(), [r#"{"alarm":true,"t":3}"#]);
    assert_eq!(world.stage.due_at(), None, "what waited was older and says less");
}

#[test]
fn the_longest_interval_sends_what_says_nothing_new() {
    let mut world = World::new(exact(Duration::ZERO, 1_000 * MS));
    for ms in (0..3_500).step_by(100) {
        world.say(ms, json!({"t": 1}));
    }
    assert_eq!((world.sent().len(), world.suppressed), (4, 31));
}

#[test]
fn clocks_do_not_count_and_sentences_are_series_of_their_own() {
    let mut rules = exact(Duration::ZERO, NEVER);
    (rules.ignore, rules.per) = (vec!["time".into()], vec!["sentence".into()]);
    let mut world = World::new(rules);
    for time in 0..3 {
        world.say(time, json!({"sentence": "GGA", "time": time, "altitude": 5}));
        world.say(time, json!({"sentence": "RMC", "time": time, "course": 7}));
    }
    assert_eq!((world.sent().len(), world.suppressed), (2, 4));
}

#[test]
fn a_change_of_quality_is_sent_at_once_and_what_waited_goes_before_it() {
    let mut world = World::new(exact(1_000 * MS, NEVER));
    let fields = |t: i32| Content::Fields(Map::from_iter([("t".to_owned(), json!(t))]));
    world.offer(0, "t", "good", fields(1));
    world.offer(10, "t", "good", fields(2));
    world.offer(20, "t", "bad", fields(2));
    world.offer(30, "t", "bad", fields(2));
    world.offer(40, "t", "good", fields(2));
    assert_eq!(world.sent(), [r#"{"t":1}"#, r#"{"t":2}"#, r#"{"t":2}"#, r#"{"t":2}"#]);
    assert_eq!(world.suppressed, 1);
}

#[test]
fn beyond_the_bound_the_series_that_was_silent_longest_is_forgotten() {
    let mut world = World::new(exact(1_000 * MS, NEVER));
    let name = |n: usize| format!("topic {n}");
    let fields = |t: i32| Content::Fields(Map::from_iter([("t".to_owned(), json!(t))]));
    for n in 0..SERIES_MAX {
        world.offer(n as u32, &name(n), "", fields(1));
    }
    world.offer(500, &name(0), "", fields(2));
    world.offer(501, &name(1), "", fields(1));
    assert_eq!(world.sent().len(), SERIES_MAX, "one waits, one says nothing new");
    world.offer(502, "one more", "", fields(1));
    assert_eq!((world.stage.series.len(), world.sent().len()), (SERIES_MAX, 1));
    world.offer(503, &name(0), "", fields(2));
    world.offer(504, &name(2), "", fields(1));
    assert_eq!(world.sent(), [r#"{"t":1}"#], "the third was forgotten, the first is still known");
    world.stage.take_all(600 * MS, &mut world.sent);
    assert_eq!(world.sent(), [r#"{"t":2}"#]);
}

#[test]
fn memory_is_bounded_by_bytes_too_and_what_waits_is_not_lost_by_it() {
    let mut rules = exact(1_000 * MS, NEVER);
    rules.bytes_max = 10_000;
    let mut world = World::new(rules);
    for n in 0..20 {
        world.offer(n, &format!("topic {n}"), "", Content::Bytes(vec![b'a'; 400]));
        world.offer(n, &format!("topic {n}"), "", Content::Bytes(vec![b'b'; 400]));
        assert!(world.stage.bytes <= 10_000, "{}", world.stage.bytes);
    }
    world.offer(30, "giant", "", Content::Bytes(vec![b'c'; 20_000]));
    assert_eq!((world.stage.series.len(), world.stage.bytes), (0, 0), "too large to be watched: sent as it is");
    let sent = world.sent();
    assert_eq!(sent.iter().filter(|text| text.starts_with('b')).count(), 20, "each change was sent");
    assert_eq!(sent.len(), 41);
}

/// Readings of three series with a field, at steps of time.
fn says() -> impl Strategy<Value = Vec<(u32, usize, i32)>> {
    prop::collection::vec((0u32..80, 0usize..3, -3i32..4), 1..200)
}

proptest! {
    /// Whatever is said: sent in order, never two of a series too close, never one withheld too long; once all
    /// intervals have ended, whoever reads knows where each value stands; and every reading is accounted for.
    #[test]
    fn whoever_reads_knows_where_the_values_stand(says in says(), band in 0u8..3, min in 0u32..200, max in 200u32..600) {
        let mut stage = Exceptions::new(report(Deadband::Absolute(band.into()), min * MS, max * MS));
        let (mut now, mut suppressed, mut offered) = (0, 0, 0u64);
        // When, of which series, the number of the reading, its value.
        let mut sent: Vec<(u32, usize, u64, i32)> = Vec::new();
        let mut latest = [None; 3];
        let mut out = Vec::new();
        for (step, of, value) in says {
            // Whatever falls due on the way is taken at its time, as a timer does.
            while let Some(due) = stage.due_at().filter(|due| *due <= (now + step) * MS) {
                stage.take_due(due, &mut out);
                sent.extend(out.drain(..).map(|(of, n, value)| (due.as_millis() as u32, of, n, value)));
            }
            now += step;
            let content = Content::Fields(Map::from_iter([("v".to_owned(), json!(value))]));
            let topic = format!("series {of}");
            let item = (of, offered, value);
            suppressed += stage.offer(now * MS, Offer { topic: &topic, quality: "", content, item, bytes: 24 }, &mut out);
            sent.extend(out.drain(..).map(|(of, n, value)| (now, of, n, value)));
            offered += 1;
            latest[of] = Some(value);
        }
        while let Some(due) = stage.due_at() {
            stage.take_due(due, &mut out);
            sent.extend(out.drain(..).map(|(of, n, value)| (due.as_millis() as u32, of, n, value)));
        }
        prop_assert_eq!(sent.len() as u64 + suppressed, offered);
        for (of, latest) in latest.iter().enumerate() {
            let mine: Vec<_> = sent.iter().filter(|(_, other, ..)| *other == of).collect();
            let Some(latest) = latest else { continue };
            let last = mine.last().unwrap();
            prop_assert!((latest - last.3).abs() <= i32::from(band), "stands at {latest}, told {}", last.3);
            prop_assert!(mine.windows(2).all(|pair| pair[0].2 < pair[1].2), "in order");
            prop_assert!(mine.windows(2).all(|pair| pair[1].0 - pair[0].0 >= min), "too close: {mine:?}");
        }
    }
}

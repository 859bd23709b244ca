//! Whole readings through whole routers.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::record::{Arrival, Body, Properties};
use crate::route::spec::{Collisions, TimestampFormat, TimestampSpec};

const ARRIVAL: Arrival = Arrival { wall_ms: 1_700_000_000_000, boot_ms: 77 };

fn spec(filter: &str, kafka_topic: &str, key: &str) -> RouteSpec {
    RouteSpec {
        name: format!("r {filter}"),
        sources: Vec::new(),
        filter: filter.to_owned(),
        lane: 3,
        kafka_topic: kafka_topic.to_owned(),
        key: key.to_owned(),
        headers: Vec::new(),
        timestamp: None,
        on_error: OnError::DeadLetter,
    }
}

fn policy(max_topics: usize) -> TopicPolicy {
    TopicPolicy { allow: Vec::new(), max_topics, collisions: Collisions::DeadLetter }
}

fn router(routes: &[RouteSpec]) -> Router {
    Router::new(routes, &UnmatchedSpec::DeadLetter { lane: 9 }, &policy(1000)).unwrap()
}

fn send(router: &Router, topic: &str, payload: &[u8]) -> Routed {
    let properties = Properties::default();
    let reading = Reading {
        source: "line-a",
        topic,
        payload,
        qos: 1,
        retain: false,
        dup: false,
        properties: &properties,
        arrival: ARRIVAL,
    };
    router.route(&reading, &mut Vec::new())
}

fn forwarded(routed: Routed) -> (usize, Body) {
    match routed {
        Routed::Deliver { lane, body, fate: Fate::Forward } => (lane, body),
        other => panic!("not forwarded: {other:?}"),
    }
}

fn dead(routed: Routed) -> (usize, Body, String) {
    match routed {
        Routed::Deliver { lane, body, fate: Fate::DeadLetter(cause) } => (lane, body, cause),
        other => panic!("no dead letter: {other:?}"),
    }
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    bytes.map(|bytes| std::str::from_utf8(bytes).unwrap())
}

#[test]
fn a_reading_becomes_a_record() {
    let mut route = spec("plant/{line}/{device}/telemetry", "edge.{line}", "{device}");
    route.headers = vec![("unit".to_owned(), "{/unit}".to_owned())];
    route.timestamp = Some(TimestampSpec { pointer: "/at".to_owned(), format: TimestampFormat::Seconds });
    let payload = br#"{"unit":"bar","at":1769860800.5}"#;
    let (lane, body) = forwarded(send(&router(&[route]), "plant/l1/pump/telemetry", payload));
    let record = body.view().unwrap();
    assert_eq!((lane, record.topic, text(record.key)), (3, "edge.l1", Some("pump")));
    assert_eq!(record.headers, [("unit", &b"bar"[..]), ("mqtt.topic", b"plant/l1/pump/telemetry")]);
    assert_eq!((record.timestamp_ms, record.timestamp_kind), (1_769_860_800_500, TimestampKind::Payload));
    assert_eq!((record.payload, record.arrival), (&payload[..], ARRIVAL));
}

#[test]
fn payloads_pass_byte_for_byte() {
    let router = router(&[spec("#", "t", "{mqtt.topic}")]);
    for payload in [&b""[..], b"x", b"\xff\xfe{\0", b"\x1f\x8b\x08", &vec![0xa5; 1 << 20]] {
        let (_, body) = forwarded(send(&router, "a", payload));
        let record = body.view().unwrap();
        assert_eq!((record.payload, record.timestamp_kind), (payload, TimestampKind::Arrival));
        assert_eq!((text(record.key), record.headers.len()), (Some("a"), 0));
    }
}

#[test]
fn the_first_route_that_matches_wins_also_across_the_index() {
    let mut other_source = spec("#", "not-mine", "k");
    other_source.sources = vec!["line-b".to_owned()];
    let router = router(&[
        other_source,
        spec("a/x", "first", "k"),
        spec("+/y", "second", "k"),
        spec("a/#", "third", "k"),
        spec("{any}/x", "fourth", "k"),
    ]);
    for (topic, expected) in
        [("a/x", "first"), ("a/y", "second"), ("a/z", "third"), ("b/x", "fourth"), ("b/y", "second")]
    {
        assert_eq!(forwarded(send(&router, topic, b"")).1.topic().unwrap(), expected, "{topic}");
    }
    dead(send(&router, "b/z", b""));
    let matched: Vec<u64> = router.counters().matched.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(matched, [0, 1, 2, 1, 1]);
    assert_eq!(router.route_names().nth(1), Some("r a/x"));
}

#[test]
fn the_unmatched_follow_their_rule() {
    let (lane, body, cause) = dead(send(&router(&[]), "plant/a b", b"p"));
    let record = body.view().unwrap();
    assert_eq!((lane, record.topic, record.payload), (9, "plant.a_b", &b"p"[..]));
    assert_eq!(record.headers, [("mqtt.topic", &b"plant/a b"[..])]);
    assert_eq!((text(record.key), cause.as_str()), (Some("plant/a b"), "no route matches this topic"));

    let dropping = Router::new(&[], &UnmatchedSpec::Drop, &policy(1)).unwrap();
    assert!(matches!(send(&dropping, "a", b""), Routed::Drop));
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&dropping.counters().unmatched), count(&dropping.counters().dropped)), (1, 1));

    let route = UnmatchedSpec::Route { kafka_topic: "rest.{mqtt.source}".to_owned(), key: String::new(), lane: 5 };
    let catching = Router::new(&[], &route, &policy(1)).unwrap();
    for topic in ["x/y", "$SYS/x"] {
        let (lane, body) = forwarded(send(&catching, topic, b""));
        let record = body.view().unwrap();
        assert_eq!((lane, record.topic, record.key), (5, "rest.line-a", None));
    }
    assert_eq!(count(&catching.counters().unmatched), 2);
}

#[test]
fn what_cannot_be_made_is_a_dead_letter_with_its_cause() {
    let mut timed = spec("time", "t", "k");
    timed.timestamp = Some(TimestampSpec { pointer: "/at".to_owned(), format: TimestampFormat::Rfc3339 });
    let mut labelled = spec("label", "t", "k");
    labelled.headers = vec![("unit".to_owned(), "{/unit}".to_owned())];
    let router = router(&[
        timed,
        labelled,
        spec("user", "t", "{mqtt.user.id}"),
        spec("json", "t", "{/id}"),
        spec("rest/{r...}", "t", "{r}"),
        spec("topic/{x}", "{x}", "k"),
    ]);
    let long = format!("topic/{}", "x".repeat(250));
    for (topic, payload, best_topic, words) in [
        ("time", &br#"{"at":17}"#[..], "t", "route \"r time\": timestamp: the value is not an RFC 3339 time"),
        ("time", b"", "t", "timestamp: the payload is empty"),
        ("label", b"{}", "t", "header \"unit\": the payload has no \"/unit\""),
        ("user", b"", "t", "key: the reading has no `mqtt.user.id`"),
        ("json", br#"{"id":""}"#, "t", "key: it is empty after rendering"),
        ("json", br#"{"id":[]}"#, "t", "\"/id\" in the payload is an array"),
        ("json", b"\xff", "t", "not valid JSON (line 1"),
        ("rest", b"", "t", "key: the reading has no `r`"),
        ("rest/", b"", "t", "key: it is empty after rendering"),
        ("topic/.", b"", "topic..", "the name \".\" is not possible"),
        ("topic/..", b"", "topic...", "the name \"..\" is not possible"),
        ("topic/", b"", "topic.", "the name is empty"),
        (&long, b"", &long.replace('/', ".")[..249], "250 characters is longer than 249"),
    ] {
        let (lane, body, cause) = dead(send(&router, topic, payload));
        let record = body.view().unwrap();
        assert!(cause.contains(words), "{topic}: {cause}");
        assert_eq!((lane, record.topic, record.payload), (3, best_topic, payload), "{topic}");
        assert!(record.headers.contains(&("mqtt.topic", topic.as_bytes())));
    }
    assert_eq!(router.counters().dead_lettered.load(Ordering::Relaxed), 13);
}

#[test]
fn on_error_drop_is_counted() {
    let mut route = spec("#", "t", "{/id}");
    route.on_error = OnError::Drop;
    let router = router(&[route]);
    assert!(matches!(send(&router, "a", b""), Routed::Drop));
    assert_eq!(router.counters().dropped.load(Ordering::Relaxed), 1);
    assert_eq!(router.counters().dead_lettered.load(Ordering::Relaxed), 0);
}

/// Annex A, "Names and keys": what each topic becomes under the most open route.
#[test]
fn bad_names_have_an_answer() {
    let router = router(&[spec("#", "{mqtt.topic}", "{mqtt.topic}"), spec("$SYS/#", "sys", "{mqtt.topic}")]);
    let longest = "x".repeat(65_535);
    let levels = vec!["a"; 1000].join("/");
    for (topic, expected) in [
        ("a+b", Ok("a_b")),
        ("c#", Ok("c_")),
        ("line\nbreak", Ok("line_break")),
        ("tab\there", Ok("tab_here")),
        ("rtl\u{202e}x", Ok("rtl_x")),
        ("e\u{301}", Ok("e_")),
        ("\u{e9}", Ok("_")),
        ("$SYS/x", Ok("sys")),
        ("plant/../../etc/passwd", Ok("plant.......etc.passwd")),
        ("%s", Ok("_s")),
        ("{{x}}", Ok("__x__")),
        ("{mqtt.topic}", Ok("_mqtt.topic_")),
        ("${jndi:ldap://x}", Err("no route matches")),
        ("x/${jndi:ldap://x}", Ok("x.__jndi_ldap_..x_")),
        ("sp ace", Ok("sp_ace")),
        ("", Err("no route matches")),
        ("/", Err("the name \".\" is not possible")),
        ("//", Err("the name \"..\" is not possible")),
        ("nul\0", Err("characters other than")),
        (&longest, Err("longer than 249")),
        (&levels, Err("longer than 249")),
    ] {
        match (send(&router, topic, b"p"), expected) {
            (Routed::Deliver { body, fate: Fate::Forward, .. }, Ok(name)) => {
                let record = body.view().unwrap();
                assert_eq!((record.topic, text(record.key)), (name, Some(topic)));
            }
            (Routed::Deliver { body, fate: Fate::DeadLetter(cause), .. }, Err(words)) => {
                assert!(cause.contains(words), "{topic:.40}: {cause}");
                assert_eq!(kafka_name::check(body.topic().unwrap()), Ok(()), "{topic:.40}");
            }
            (other, _) => panic!("{topic:.40}: {other:?}"),
        }
    }
}

#[test]
fn keys_at_their_bounds() {
    let router = router(&[spec("k", "t", "{/id}"), spec("null", "t", ""), spec("{a}/{b}", "t", "{a}:{b}")]);
    let key = |routed| text(forwarded(routed).1.view().unwrap().key).map(str::to_owned);
    let payload = |len: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(len)).into_bytes();
    assert_eq!(key(send(&router, "k", &payload(65_535))).unwrap().len(), 65_535);
    for len in [65_536, 1 << 20] {
        assert!(dead(send(&router, "k", &payload(len))).2.contains("longer than 65535 bytes"));
    }
    assert_eq!(key(send(&router, "null", b"")), None);
    // A separator that may stand in a device id makes equal keys of different devices; `/` never can in one level.
    assert_eq!(key(send(&router, "x:y/z", b"")).as_deref(), Some("x:y:z"));
    assert_eq!(key(send(&router, "x/y:z|é", b"")).as_deref(), Some("x:y:z|é"));
}

#[test]
fn two_topics_on_one_kafka_name_are_never_silent() {
    let routes =
        [spec("p/{x}", "edge.{x}", "k"), spec("q/{x}/{y}", "{x}.{y}", "k"), spec("r/{rest...}", "{rest}", "k")];
    let router = router(&routes);
    for (topic, accepted) in [
        ("p/a b", true),
        ("p/a_b", false),
        ("p/a b", true),
        ("q/x.y/z", true),
        ("q/x/y.z", false),
        ("q/x.y/z", true),
        ("r/m/n", true),
        ("r/m.n", false),
    ] {
        let routed = send(&router, topic, b"");
        assert_eq!(matches!(routed, Routed::Deliver { fate: Fate::Forward, .. }), accepted, "{topic}");
    }
    assert_eq!((router.collisions(), router.kafka_topics()), (3, 3));
    let merging = TopicPolicy { collisions: Collisions::Merge, ..policy(10) };
    let router = Router::new(&routes, &UnmatchedSpec::Drop, &merging).unwrap();
    for topic in ["p/a b", "p/a_b"] {
        forwarded(send(&router, topic, b""));
    }
    assert_eq!(router.collisions(), 1);
}

#[test]
fn topics_beyond_the_policy_are_dead_letters() {
    let policy = TopicPolicy { allow: vec!["edge.*".to_owned()], ..policy(2) };
    let router = Router::new(&[spec("{x}", "{x}", "k")], &UnmatchedSpec::Drop, &policy).unwrap();
    forwarded(send(&router, "edge.1", b""));
    forwarded(send(&router, "edge.2", b""));
    assert!(dead(send(&router, "edge.3", b"")).2.contains("`max_topics` is 2"));
    assert!(dead(send(&router, "other", b"")).2.contains("matches no pattern"));
    forwarded(send(&router, "edge.1", b""));
}

#[test]
fn a_bad_route_is_refused_with_its_place() {
    let with = |change: fn(&mut RouteSpec)| {
        let mut route = spec("a/{x}", "t.{x}", "{x}");
        change(&mut route);
        Router::new(&[route], &UnmatchedSpec::Drop, &policy(1)).unwrap_err().to_string()
    };
    for (change, words) in [
        (
            (|r| r.filter = "a/#/b".to_owned()) as fn(&mut RouteSpec),
            "compile `filter` of route \"r a/{x}\": `#` stands",
        ),
        (|r| r.kafka_topic = "t.{y}".to_owned(), "compile `kafka_topic`"),
        (|r| r.kafka_topic = "t t".to_owned(), "the character ' '"),
        (|r| r.kafka_topic = "..".to_owned(), "not possible in Kafka"),
        (|r| r.key = "{y}".to_owned(), "compile `key` of route \"r a/{x}\": the filter has no capture `{y}`"),
        (|r| r.headers = vec![("h".to_owned(), "{".to_owned())], "compile `headers.h`"),
        (
            |r| r.timestamp = Some(TimestampSpec { pointer: "at".to_owned(), format: TimestampFormat::Millis }),
            "compile `timestamp.pointer`",
        ),
    ] {
        let message = with(change);
        assert!(message.contains(words), "{message}");
    }
    let none_allowed = TopicPolicy { allow: vec!["a b".to_owned()], ..policy(1) };
    assert!(matches!(Router::new(&[], &UnmatchedSpec::Drop, &none_allowed), Err(RouterError::Pattern { .. })));
    let two = [spec("a", "t1", "k"), spec("b", "t2", "k")];
    let error = Router::new(&two, &UnmatchedSpec::Drop, &policy(1)).unwrap_err();
    assert!(error.to_string().contains("`max_topics` is 1"), "{error}");
    let many = vec![spec("a", "t", "k"); ROUTES_MAX + 1];
    assert!(matches!(Router::new(&many, &UnmatchedSpec::Drop, &policy(1)), Err(RouterError::TooManyRoutes { .. })));
}

proptest! {
    #[test]
    fn any_topic_and_payload_end_somewhere_with_a_legal_name(
        topic in any::<String>(),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let router = router(&[
            spec("{a}", "one.{a}", "{a}|{mqtt.topic}"),
            spec("{a}/{b}/{c...}", "{a}-{c}", "{c}"),
            spec("+/#", "{mqtt.topic}", "{/id}"),
        ]);
        match send(&router, &topic, &payload) {
            Routed::Deliver { body, .. } => {
                let record = body.view().unwrap();
                prop_assert_eq!(kafka_name::check(record.topic), Ok(()));
                prop_assert_eq!(record.payload, &payload[..]);
                prop_assert!(record.key.is_none_or(|key| !key.is_empty() || topic.is_empty()));
            }
            Routed::Drop => prop_assert!(false, "nothing asked for a drop"),
        }
    }
}

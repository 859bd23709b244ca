//! A session against a broker that does what the test says, good and bad.

use std::time::Duration;

use super::support::{Running, Scripted, frame, publish};
use crate::config::MqttVersion::{self, V5, V311};
use crate::config::Subscription;
use crate::intake::{AckTicket, Fate, SourceEvent};

const BOTH: [MqttVersion; 2] = [V311, V5];
const PUBACK: u8 = 4;
const PINGREQ: u8 = 12;

fn subscription(filter: &str) -> Subscription {
    Subscription { filter: filter.to_owned(), qos: 1 }
}

fn conflict(event: &SourceEvent) -> Option<u32> {
    match event {
        SourceEvent::IdentityConflict { takeovers } => Some(*takeovers),
        _ => None,
    }
}

#[tokio::test]
async fn pubacks_leave_in_order_of_arrival_however_the_tickets_are_fired() {
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let run = Running::start(broker.config());
        let mut peer = broker.welcome(false).await;
        for pkid in [7, 3, 9] {
            peer.publish(1, pkid, b"t/a", b"x").await;
        }
        run.hub.has(3).await;
        run.hub.tickets().into_iter().rev().for_each(AckTicket::fire);
        for pkid in [7, 3, 9] {
            assert_eq!(peer.id_of(PUBACK).await, pkid);
        }
        assert_eq!(Running::read(&run.counters.pubacks), 3);
    }
}

#[tokio::test]
async fn no_puback_leaves_before_its_ticket_is_fired() {
    let broker = Scripted::new(V311).await;
    let run = Running::start(broker.config());
    let mut peer = broker.welcome(false).await;
    peer.publish(1, 1, b"t/a", b"x").await;
    run.hub.has(1).await;
    let ticket = run.hub.tickets();
    peer.publish(1, 2, b"t/a", b"y").await;
    run.hub.has(2).await;
    run.hub.fire_all();
    // An answer that nothing holds back, as a marker: it may overtake no PUBACK, so none has been sent.
    peer.send(&[0x62, 2, 0, 5]).await;
    assert_eq!(peer.id_of(7).await, 5);
    ticket.into_iter().for_each(AckTicket::fire);
    assert_eq!(peer.id_of(PUBACK).await, 1);
    assert_eq!(peer.id_of(PUBACK).await, 2);
}

#[tokio::test]
async fn an_ack_of_an_old_connection_is_never_sent_on_a_new_one() {
    let broker = Scripted::new(V311).await;
    let run = Running::start(broker.config());
    let mut peer = broker.welcome(false).await;
    peer.publish(1, 1, b"t/a", b"old").await;
    run.hub.has(1).await;
    let old = run.hub.tickets();
    drop(peer);
    let mut peer = broker.welcome(true).await;
    // The same packet id, another message: the old ack must not answer it.
    peer.publish(1, 1, b"t/a", b"new").await;
    peer.publish(1, 2, b"t/a", b"newer").await;
    run.hub.has(3).await;
    old.into_iter().for_each(AckTicket::fire);
    peer.send(&[0x62, 2, 0, 5]).await;
    assert_eq!(peer.id_of(7).await, 5, "no PUBACK before the marker");
    run.hub.fire_all();
    assert_eq!(peer.id_of(PUBACK).await, 1);
    assert_eq!(peer.id_of(PUBACK).await, 2);
    assert_eq!(Running::read(&run.counters.acks_stale), 1);
    assert_eq!(Running::read(&run.counters.reconnects), 1);
}

#[tokio::test]
async fn the_gate_bounds_what_a_broker_sends_that_ignores_its_window() {
    for version in BOTH {
        for qos in [0, 1] {
            let broker = Scripted::new(version).await;
            let mut config = broker.config();
            config.receive_maximum = 10;
            let run = Running::start(config);
            let mut peer = broker.welcome(false).await;
            for n in 1..=1000u16 {
                peer.publish(qos, n, b"t/a", &n.to_be_bytes()).await;
            }
            run.hub.commit_until(|hub| hub.count() == 1000).await;
            assert_eq!(run.hub.held_most(), 10);
            assert!(Running::read(&run.counters.gate_closed) > 10);
            let order =
                run.hub.taken().iter().map(|t| u16::from_be_bytes([t.payload[0], t.payload[1]])).collect::<Vec<_>>();
            assert_eq!(order, (1..=1000).collect::<Vec<u16>>());
            drop(peer);
            run.stop().await;
        }
    }
}

#[tokio::test]
async fn the_gate_bounds_bytes_too() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.unacked_bytes_max = 40_000;
    let run = Running::start(config);
    let mut peer = broker.welcome(false).await;
    for n in 1..=40u16 {
        peer.publish(1, n, b"t/a", &[0; 10_000]).await;
    }
    run.hub.commit_until(|hub| hub.count() == 40).await;
    assert_eq!(run.hub.held_most(), 3);
}

#[tokio::test]
async fn reconnecting_does_not_get_around_the_gate() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.receive_maximum = 4;
    // Behind the closed gate nothing is read: it is a ping that finds the connection gone.
    config.keep_alive = Duration::from_millis(50);
    let run = Running::start(config);
    for _ in 0..3 {
        let mut peer = broker.welcome(true).await;
        for n in 1..=4 {
            peer.publish(1, n, b"t/a", b"x").await;
        }
        run.hub.has(4).await;
    }
    assert_eq!(run.hub.count(), 4);
    let mut peer = broker.welcome(true).await;
    peer.publish(1, 9, b"t/a", b"x").await;
    run.hub.fire_all();
    run.hub.has(5).await;
}

#[tokio::test]
async fn an_oversize_packet_is_answered_after_its_dead_letter_is_accepted() {
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let mut config = broker.config();
        config.packet_size_max = 1000;
        let mut run = Running::start(config);
        let mut peer = broker.welcome(false).await;
        peer.publish(1, 1, b"t/big", &[b'x'; 300_000]).await;
        peer.publish(1, 2, b"t/small", b"y").await;
        run.hub.has(2).await;
        let taken = run.hub.taken();
        let bytes = publish(version, 1, 1, b"t/big", &[b'x'; 300_000]).len();
        assert_eq!(taken[0].topic, "t/big");
        assert_eq!(taken[0].payload, [b'x'; 4096]);
        assert_eq!(taken[0].fate, Fate::DeadLetter(format!("packet of {bytes} bytes exceeds packet_size_max 1000")));
        assert_eq!((taken[1].topic.as_str(), &taken[1].fate), ("t/small", &Fate::Forward));
        peer.send(&[0x62, 2, 0, 5]).await;
        assert_eq!(peer.id_of(7).await, 5, "no PUBACK before the marker");
        run.hub.fire_all();
        assert_eq!(peer.id_of(PUBACK).await, 1);
        assert_eq!(peer.id_of(PUBACK).await, 2);
        assert_eq!(Running::read(&run.counters.oversize), 1);
        let told = |event: &SourceEvent| match event {
            SourceEvent::Oversize { topic, bytes } => Some((topic.clone(), *bytes)),
            _ => None,
        };
        assert_eq!(run.event("oversize", told).await, ("t/big".to_owned(), bytes as u64));
    }
}

#[tokio::test]
async fn the_size_limit_is_exact() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.packet_size_max = publish(V311, 1, 1, b"t", &[0; 5000]).len() as u32;
    let run = Running::start(config);
    let mut peer = broker.welcome(false).await;
    peer.publish(1, 1, b"t", &[0; 5000]).await;
    peer.publish(1, 2, b"t", &[0; 5001]).await;
    run.hub.has(2).await;
    let forwarded: Vec<bool> = run.hub.taken().iter().map(|taken| taken.fate == Fate::Forward).collect();
    assert_eq!(forwarded, [true, false]);
}

#[tokio::test]
async fn a_broken_packet_ends_the_connection_and_the_session_comes_back() {
    let both: Vec<Vec<u8>> = vec![
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x36, 5, 0, 1, b't', 0, 9],
        vec![0x32, 5, 0, 1, b't', 0, 0],
        vec![0x32, 4, 0, 9, b't', b't'],
        vec![0x00, 0],
        vec![0xf0, 0],
        vec![0x20, 3, 0, 0, 0],
        vec![0x90, 3, 0xff, 0xff, 1],
        vec![0x90, 1, 0],
        vec![0xb0, 0],
        vec![0x60, 1, 0],
        frame(0x10, b"\0\x04MQTT\x04\0\0\0\0\0").to_vec(),
        vec![0x82, 6, 0, 1, 0, 1, b'a', 0],
        // An oversize packet that is no PUBLISH.
        vec![0x90, 0xff, 0xff, 0xff, 0x7f],
    ];
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let run = Running::start(broker.config());
        let mut peer = broker.welcome(false).await;
        for (n, packet) in both.iter().enumerate() {
            // What came before the broken packet in the same read is delivered.
            let mut bytes = publish(version, 1, 1, b"t/a", b"before").to_vec();
            bytes.extend_from_slice(packet);
            peer.send(&bytes).await;
            while peer.packet_or_close().await.is_some() {}
            assert_eq!(run.hub.count(), n + 1, "{version:?} {packet:?}");
            assert_eq!(Running::read(&run.counters.malformed), n as u64 + 1, "{version:?} {packet:?}");
            run.hub.fire_all();
            peer = broker.welcome(true).await;
        }
        drop(peer);
        run.stop().await;
    }
}

#[tokio::test]
async fn a_topic_that_is_none_goes_to_the_dead_letters_and_the_connection_goes_on() {
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let run = Running::start(broker.config());
        let mut peer = broker.welcome(false).await;
        for (pkid, topic) in [&b"a/+"[..], b"", b"a\0", b"\xff"].into_iter().enumerate() {
            peer.publish(1, pkid as u16 + 1, topic, b"x").await;
        }
        peer.publish(1, 9, b"t/good", b"x").await;
        run.hub.has(5).await;
        let dead = run.hub.taken().iter().filter(|taken| taken.fate != Fate::Forward).count();
        assert_eq!((dead, Running::read(&run.counters.violations)), (4, 4));
        run.hub.fire_all();
        for pkid in [1, 2, 3, 4, 9] {
            assert_eq!(peer.id_of(PUBACK).await, pkid);
        }
    }
}

#[tokio::test]
async fn how_the_bytes_arrive_makes_no_difference() {
    let broker = Scripted::new(V5).await;
    let run = Running::start(broker.config());
    let mut peer = broker.welcome(false).await;
    for byte in publish(V5, 1, 1, b"t/slow", b"one byte at a time") {
        peer.send(&[byte]).await;
    }
    let mut segment = Vec::new();
    for n in 2..=90 {
        segment.extend_from_slice(&publish(V5, 1, n, b"t/fast", b"x"));
    }
    peer.send(&segment).await;
    run.hub.has(90).await;
    assert_eq!(run.hub.taken()[0].payload, b"one byte at a time");
}

#[tokio::test]
async fn a_repeated_packet_id_is_stored_and_answered_once() {
    let broker = Scripted::new(V311).await;
    let run = Running::start(broker.config());
    let mut peer = broker.welcome(false).await;
    peer.publish(1, 5, b"t/a", b"one").await;
    peer.publish(1, 5, b"t/a", b"two").await;
    run.hub.has(2).await;
    run.hub.fire_all();
    assert_eq!(peer.id_of(PUBACK).await, 5);
    peer.publish(1, 6, b"t/a", b"three").await;
    run.hub.has(3).await;
    run.hub.fire_all();
    assert_eq!(peer.id_of(PUBACK).await, 6);
    assert_eq!(Running::read(&run.counters.violations), 1);
}

#[tokio::test]
async fn what_the_routes_drop_is_answered_in_its_turn() {
    let broker = Scripted::new(V311).await;
    let run = Running::start(broker.config());
    let mut peer = broker.welcome(false).await;
    peer.publish(1, 1, b"t/a", b"x").await;
    peer.publish(1, 2, b"drop", b"x").await;
    run.hub.has(1).await;
    run.hub.fire_all();
    assert_eq!(peer.id_of(PUBACK).await, 1);
    assert_eq!(peer.id_of(PUBACK).await, 2);
}

#[tokio::test]
async fn a_message_of_qos_2_left_in_the_session_does_not_loop() {
    let broker = Scripted::new(V311).await;
    let run = Running::start(broker.config());
    let mut peer = broker.welcome(true).await;
    peer.publish(2, 8, b"t/a", b"x").await;
    run.hub.has(1).await;
    run.hub.fire_all();
    assert_eq!(peer.id_of(5).await, 8, "PUBREC");
    peer.send(&[0x62, 2, 0, 8]).await;
    assert_eq!(peer.id_of(7).await, 8, "PUBCOMP");
}

#[tokio::test]
async fn a_fourth_take_over_is_an_identity_conflict() {
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let mut run = Running::start(broker.config());
        for _ in 0..4 {
            let mut peer = broker.welcome(true).await;
            if version == V5 {
                peer.send(&[0xe0, 1, 0x8e]).await;
                while peer.packet_or_close().await.is_some() {}
            }
        }
        assert_eq!(run.event("conflict", conflict).await, 4);
        assert_eq!(Running::read(&run.counters.takeovers), 4);
    }
}

#[tokio::test]
async fn the_reason_of_a_take_over_is_found_behind_a_closed_gate() {
    let broker = Scripted::new(V5).await;
    let mut config = broker.config();
    config.receive_maximum = 1;
    config.keep_alive = Duration::from_millis(50);
    let mut run = Running::start(config);
    let mut peer = broker.welcome(false).await;
    for pkid in 1..=3 {
        peer.publish(1, pkid, b"t/a", b"x").await;
    }
    peer.send(&[0xe0, 1, 0x8e]).await;
    drop(peer);
    let reason = |event: &SourceEvent| match event {
        SourceEvent::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    };
    let reason = run.event("end", reason).await;
    assert_eq!(reason, "keep the connection: the broker sent DISCONNECT with reason 0x8e");
    assert_eq!(run.hub.count(), 1);
}

#[tokio::test]
async fn a_silent_broker_is_pinged_and_left() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.keep_alive = Duration::from_millis(200);
    let mut run = Running::start(config);
    let mut peer = broker.welcome(false).await;
    assert_eq!(peer.packet().await[0] >> 4, PINGREQ);
    assert!(peer.packet_or_close().await.is_none(), "closed after one unanswered ping");
    let reason = |event: &SourceEvent| match event {
        SourceEvent::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    };
    assert_eq!(run.event("end", reason).await, "hear from the broker within two keep-alive intervals");
    broker.welcome(true).await;
}

#[tokio::test]
async fn behind_a_closed_gate_pings_go_on_and_nobody_is_called_silent() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.receive_maximum = 1;
    config.keep_alive = Duration::from_millis(100);
    let run = Running::start(config);
    let mut peer = broker.welcome(false).await;
    peer.publish(1, 1, b"t/a", b"x").await;
    peer.publish(1, 2, b"t/a", b"y").await;
    for _ in 0..5 {
        assert_eq!(peer.packet().await[0] >> 4, PINGREQ);
    }
    run.hub.fire_all();
    run.hub.has(2).await;
    assert_eq!(Running::read(&run.counters.reconnects), 0);
}

#[tokio::test]
async fn a_broker_that_never_answers_connect_is_left() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.connect_timeout = Duration::from_millis(100);
    let run = Running::start(config);
    let mut peer = broker.accept().await;
    assert!(peer.packet_or_close().await.is_none());
    // Now one byte of a CONNACK, and nothing more.
    let mut peer = broker.accept().await;
    peer.send(&[0x20]).await;
    assert!(peer.packet_or_close().await.is_none());
    run.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    for (version, connack) in [(V311, &[0x20, 2, 0, 5][..]), (V5, &[0x20, 3, 0, 0x87, 0])] {
        let broker = Scripted::new(version).await;
        let mut run = Running::start(broker.config());
        broker.accept().await.send(connack).await;
        let reason = |event: &SourceEvent| match event {
            SourceEvent::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        };
        assert_eq!(run.event("refusal", reason).await, "be accepted by the broker: NotAuthorized");
        broker.welcome(false).await;
    }
}

#[tokio::test]
async fn a_lost_session_is_told_only_when_one_was_expected() {
    let lost = |event: &SourceEvent| (*event == SourceEvent::SessionLost).then_some(());
    let broker = Scripted::new(V311).await;
    let mut run = Running::start(broker.config());
    drop(broker.welcome(false).await);
    drop(broker.welcome(true).await);
    let peer = broker.welcome(false).await;
    run.event("loss", lost).await;
    assert_eq!(Running::read(&run.counters.sessions_lost), 1);
    drop(peer);

    let broker = Scripted::new(V311).await;
    let mut run = Running::start_after(broker.config(), vec![subscription("t/#")]);
    let _peer = broker.welcome(false).await;
    run.event("loss", lost).await;
}

#[tokio::test]
async fn filters_of_the_previous_config_are_unsubscribed() {
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let mut run = Running::start_after(broker.config(), vec![subscription("t/#"), subscription("old/#")]);
        let mut peer = broker.accept().await;
        peer.connack(true).await;
        let unsubscribe = peer.packet().await;
        assert_eq!(unsubscribe[0], 0xa2);
        assert!(unsubscribe.ends_with(b"\0\x05old/#"));
        match version {
            V311 => peer.send(&[0xb0, 2, unsubscribe[2], unsubscribe[3]]).await,
            V5 => peer.send(&[0xb0, 4, unsubscribe[2], unsubscribe[3], 0, 0]).await,
        }
        peer.answer_subscribe(1).await;
        let told = |event: &SourceEvent| match event {
            SourceEvent::Subscribed { subscriptions } => Some(subscriptions.clone()),
            _ => None,
        };
        assert_eq!(run.event("subscribed", told).await, [subscription("t/#")]);
    }
}

#[tokio::test]
async fn a_refused_subscription_is_told_and_asked_again() {
    let broker = Scripted::new(V5).await;
    let mut run = Running::start(broker.config());
    let mut peer = broker.accept().await;
    peer.connack(false).await;
    peer.answer_subscribe(0x87).await;
    peer.answer_subscribe(0x87).await;
    peer.answer_subscribe(1).await;
    let told = |event: &SourceEvent| match event {
        SourceEvent::SubscriptionRefused { filter, reason } => Some((filter.clone(), reason.clone())),
        _ => None,
    };
    assert_eq!(run.event("refusal", told).await, ("t/#".to_owned(), "NotAuthorized".to_owned()));
    run.subscribed().await;
}

#[tokio::test]
async fn an_unanswered_subscribe_ends_the_connection() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.connect_timeout = Duration::from_millis(200);
    let _run = Running::start(config);
    let mut peer = broker.accept().await;
    peer.connack(false).await;
    peer.id_of(8).await;
    assert!(peer.packet_or_close().await.is_none());
    broker.welcome(true).await;
}

#[tokio::test]
async fn a_stop_waits_for_acks_then_says_goodbye_and_waits_for_the_close() {
    for version in BOTH {
        let broker = Scripted::new(version).await;
        let run = Running::start(broker.config());
        let mut peer = broker.welcome(false).await;
        peer.publish(1, 1, b"t/a", b"x").await;
        peer.publish(1, 2, b"t/a", b"y").await;
        run.hub.has(2).await;
        run.ask_to_stop();
        run.hub.fire_all();
        assert_eq!(peer.id_of(PUBACK).await, 1);
        assert_eq!(peer.id_of(PUBACK).await, 2);
        assert_eq!(peer.packet().await[..], [0xe0, 0]);
        drop(peer);
        run.ended().await;
    }
}

#[tokio::test]
async fn a_stop_is_heard_while_there_is_no_broker() {
    let mut config = Scripted::new(V311).await.config();
    config.backoff_min = Duration::from_secs(3600);
    config.backoff_max = Duration::from_secs(3600);
    let mut run = Running::start(config);
    run.event("failure", |event| matches!(event, SourceEvent::Disconnected { .. }).then_some(())).await;
    run.stop().await;
}

#[tokio::test]
async fn the_rate_limit_slows_the_broker_down() {
    let broker = Scripted::new(V311).await;
    let mut config = broker.config();
    config.rate_limit = Some(100);
    let run = Running::start(config);
    let mut peer = broker.welcome(false).await;
    let began = tokio::time::Instant::now();
    for n in 1..=40 {
        peer.publish(1, n, b"t/a", b"x").await;
    }
    run.hub.has(40).await;
    // 10 at once, 30 at 100 a second.
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
}

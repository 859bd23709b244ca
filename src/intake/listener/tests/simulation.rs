//! Seeded simulations: honest devices over lines that break, a hub that commits when it likes, kill -9; and noise.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::bench::{Bench, Device};
use super::client::{Got, Hello, ack, publish_with};
use crate::intake::Kind;
use crate::intake::listener::packet::Version::{self, V5, V311};

/// A device that keeps its own state through everything, as the standard asks of it.
struct Honest {
    version: Version,
    device: Option<Device>,
    /// By packet id: payload, QoS, PUBREC has come.
    open: BTreeMap<u16, (String, u8, bool)>,
    last_id: u16,
    sent: u32,
    acknowledged: Vec<String>,
}

impl Honest {
    fn new(version: Version) -> Self {
        Honest { version, device: None, open: BTreeMap::new(), last_id: 0, sent: 0, acknowledged: Vec::new() }
    }

    fn connect(&mut self, bench: &mut Bench) {
        if self.device.is_none() {
            self.device = Some(bench.connect(&Hello::kept(self.version, "d", 3600)));
        }
        self.read(bench);
    }

    fn send(&mut self, bench: &mut Bench, bytes: &[u8]) {
        if let Some(device) = &mut self.device {
            bench.send(device, bytes);
        }
    }

    /// Publishes something new; ids are reused quickly, as small devices do.
    fn publish(&mut self, bench: &mut Bench, qos: u8) {
        let free = (1..=4).map(|step| (self.last_id + step - 1) % 4 + 1).find(|id| !self.open.contains_key(id));
        let (Some(id), true) = (free, self.is_up()) else { return };
        self.last_id = id;
        self.sent += 1;
        let payload = format!("{}", self.sent);
        self.open.insert(id, (payload.clone(), qos, false));
        self.send(bench, &publish_with(self.version, "t", payload.as_bytes(), qos, id, 0, &[]));
        self.read(bench);
    }

    fn is_up(&self) -> bool {
        self.device.as_ref().is_some_and(|device| !device.closed)
    }

    fn read(&mut self, bench: &mut Bench) {
        loop {
            let Some(device) = &mut self.device else { return };
            bench.run(device);
            let got = device.got();
            if got.is_empty() {
                return;
            }
            for got in got {
                self.take(bench, got);
            }
        }
    }

    fn take(&mut self, bench: &mut Bench, got: Got) {
        match got {
            Got::ConnAck { code: 0, .. } => {
                for (id, (payload, qos, received)) in self.open.clone() {
                    if received {
                        self.send(bench, &ack(6, id));
                    } else {
                        self.send(bench, &publish_with(self.version, "t", payload.as_bytes(), qos, id, 8, &[]));
                    }
                }
            }
            Got::Ack { kind: 4, id, code: 0 } => {
                let (payload, ..) = self.open.remove(&id).expect("PUBACK for a message of QoS 1");
                self.acknowledged.push(payload);
            }
            Got::Ack { kind: 5, id, code: 0 } => {
                let open = self.open.get_mut(&id).expect("PUBREC for an open message");
                if !std::mem::replace(&mut open.2, true) {
                    self.acknowledged.push(open.0.clone());
                }
                self.send(bench, &ack(6, id));
            }
            Got::Ack { kind: 7, id, .. } => {
                self.open.remove(&id);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(u8),
    Commit,
    CommitAll,
    Cut,
    Connect,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..=2).prop_map(Step::Publish),
        6 => Just(Step::Commit),
        2 => Just(Step::CommitAll),
        2 => Just(Step::Cut),
        4 => Just(Step::Connect),
        1 => Just(Step::Crash),
    ]
}

fn check(bench: &Bench, device: &Honest, qos2_only: bool) {
    let stored = bench.hub.payloads();
    for payload in &device.acknowledged {
        assert!(stored.contains(payload), "{payload} was acknowledged and is not stored");
    }
    if qos2_only {
        let mut once = stored.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), stored.len(), "stored twice: {stored:?}");
    }
}

fn simulate(version: Version, steps: &[Step], qos2_only: bool) {
    let mut bench = Bench::held();
    let mut device = Honest::new(version);
    // Connections that ended while something was on its way.
    let mut ended: Vec<Device> = Vec::new();
    for step in steps {
        match *step {
            Step::Publish(qos) => device.publish(&mut bench, if qos2_only { 2 } else { qos }),
            Step::Commit => drop(bench.hub.commit_one()),
            Step::CommitAll => bench.hub.commit_all(),
            Step::Connect => device.connect(&mut bench),
            Step::Cut => {
                if let Some(mut old) = device.device.take() {
                    bench.cut(&mut old);
                    ended.push(old);
                }
            }
            Step::Crash => {
                device.device = None;
                ended.clear();
                bench = bench.crash();
            }
        }
        for old in &mut ended {
            bench.run(old);
        }
        device.read(&mut bench);
        check(&bench, &device, qos2_only);
    }
    // In the end everything arrives.
    if device.device.as_ref().is_some_and(|device| device.closed) {
        device.device = None;
    }
    device.connect(&mut bench);
    for _ in 0..50 {
        bench.hub.commit_all();
        for old in &mut ended {
            bench.run(old);
        }
        device.read(&mut bench);
    }
    check(&bench, &device, qos2_only);
    assert_eq!(device.acknowledged.len(), device.sent as usize, "{:?}", device.open);
    assert!(device.open.is_empty(), "{:?}", device.open);
    assert_eq!((bench.hub.rows(Kind::Qos2), bench.exchange.gate.bytes()), (0, 0));
    assert_eq!(bench.count(|c| &c.qos2_open), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn qos_2_is_exactly_once_whatever_breaks(steps in prop::collection::vec(step(), 1..80), v5 in any::<bool>()) {
        simulate(if v5 { V5 } else { V311 }, &steps, true);
    }

    #[test]
    fn what_is_acknowledged_is_stored_whatever_breaks(steps in prop::collection::vec(step(), 1..80), v5 in any::<bool>()) {
        simulate(if v5 { V5 } else { V311 }, &steps, false);
    }

    /// Valid packets with bytes changed, taken out and put in: no panic, no hang, and the others are served.
    #[test]
    fn noise_disturbs_nobody(
        picks in prop::collection::vec((0usize..12, any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..40),
        v5 in any::<bool>(),
        split in 1usize..50,
    ) {
        let version = if v5 { V5 } else { V311 };
        let mut bench = Bench::new();
        let mut device = bench.open(&Hello::new(version, "noise"));
        let mut witness = bench.open(&Hello::new(V5, "witness"));
        let mut all = Vec::new();
        for (pick, at, value, how) in picks {
            let mut bytes = sample(version, pick);
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = value,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, value),
                _ => {}
            }
            all.extend(bytes);
        }
        for part in all.chunks(split) {
            bench.send(&mut device, part);
        }
        bench.send(&mut witness, &publish_with(V5, "witness", b"1", 1, 1, 0, &[]));
        let got = witness.got();
        prop_assert!(got.contains(&super::client::puback(1)), "{:?}", got);
        bench.cut(&mut device);
        prop_assert_eq!(bench.exchange.gate.bytes(), 0);
        prop_assert_eq!(bench.exchange.input_bytes, 0);
    }
}

fn sample(version: Version, pick: usize) -> Vec<u8> {
    use super::client::{DISCONNECT, PINGREQ, publish, subscribe, unsubscribe};
    match pick {
        0 => publish(version, "a/b", b"payload", 0, 0),
        1 => publish(version, "a/b", b"payload", 1, 1),
        2 => publish(version, "a/b", b"payload", 2, 2),
        3 => publish_with(version, "a", b"x", 1, 3, 1, &[1, 1, 35, 0, 1]),
        4 => subscribe(version, 4, &[("a/#", 2), ("$share/g/+", 1)]),
        5 => unsubscribe(version, 5, &["a/#"]),
        6 => ack(4, 1),
        7 => ack(5, 1),
        8 => ack(6, 2),
        9 => ack(7, 1),
        10 => PINGREQ.to_vec(),
        _ => [&DISCONNECT[..], &Hello::new(version, "x").encode()].concat(),
    }
}

//! Devices on serial lines, the gateway that reads them, and what arrives in Kafka.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::harness::gateway::{Gateway, metric};
use crate::harness::jobs::{self, Job};
use crate::harness::kafka::{Consumed, KafkaServer};

/// A cable: two pseudo terminals that socat joins. One end is the device's, the other the gateway's port.
pub struct Cable {
    dir: PathBuf,
    name: String,
    job: Option<Job>,
}

impl Cable {
    pub fn plug(dir: &Path, name: &str) -> Cable {
        let mut cable = Cable { dir: dir.to_owned(), name: name.to_owned(), job: None };
        cable.replug();
        cable
    }

    /// The port's name, which stays the same, as below /dev/serial/by-id; the device behind it is a new one.
    pub fn replug(&mut self) {
        self.unplug();
        let mut socat = jobs::leashed(&jobs::tool("socat", "socat"));
        for end in [self.port(), self.end()] {
            socat.arg(format!("pty,raw,echo=0,link={}", end.display()));
        }
        self.job = Some(Job::start("socat", socat, &self.dir.join(format!("{}.log", self.name))));
        let (port, end) = (self.port(), self.end());
        jobs::wait_until("the cable is plugged in", || (port.exists() && end.exists()).then_some(()));
    }

    pub fn unplug(&mut self) {
        if let Some(mut job) = self.job.take() {
            job.kill();
            // As udev does: a name that stays behind would lead to whatever gets the number next.
            [self.port(), self.end()].iter().for_each(|end| drop(std::fs::remove_file(end)));
        }
    }

    pub fn port(&self) -> PathBuf {
        self.dir.join(format!("{}-port", self.name))
    }

    /// What the system calls the port at this moment.
    pub fn number(&self) -> PathBuf {
        self.port().canonicalize().unwrap()
    }

    /// The device's end.
    pub fn end(&self) -> PathBuf {
        self.dir.join(format!("{}-device", self.name))
    }

    /// The same, to write to.
    pub fn device(&self) -> File {
        OpenOptions::new().write(true).open(self.end()).unwrap()
    }

    pub fn send(&self, bytes: &[u8]) {
        self.device().write_all(bytes).unwrap();
    }
}

pub struct Rig {
    pub kafka: Arc<KafkaServer>,
    pub gateway: Gateway,
    pub cables: Vec<Cable>,
    prefix: String,
    _dir: TempDir,
}

impl Rig {
    /// A gateway, not started, with one source `line<n>` for each of `cables`; `lines` goes into each of their tables.
    pub fn build(cables: usize, lines: &str) -> Rig {
        let dir = jobs::scratch("lines");
        let cables: Vec<Cable> = (0..cables).map(|n| Cable::plug(dir.path(), &format!("line{n}"))).collect();
        let table = |(n, cable): (usize, &Cable)| {
            let port = cable.port();
            ("[[source.serial]]".to_owned(), format!("name = \"line{n}\"\nport = {port:?}\nbaud = 115200\n{lines}"))
        };
        let tables: Vec<(String, String)> = cables.iter().enumerate().map(table).collect();
        Rig::of(dir, cables, &tables)
    }

    /// A gateway, not started, with these sources.
    pub fn of(dir: TempDir, cables: Vec<Cable>, sources: &[(String, String)]) -> Rig {
        static RIGS: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("serial{}", RIGS.fetch_add(1, Ordering::Relaxed));
        let kafka = KafkaServer::shared();
        let builder = Gateway::builder()
            .kafka(&kafka.bootstrap_servers())
            .lane("telemetry", "")
            .table("[events]", &format!("topic = \"{prefix}.events\""))
            .table("[dead_letters]", &format!("topic = \"{prefix}.dead\""))
            .route("#", &format!("{prefix}.readings"), "telemetry");
        let builder = sources.iter().fold(builder, |builder, (head, lines)| builder.table(head, lines));
        for topic in ["readings", "events", "dead"] {
            kafka.create_topic(&format!("{prefix}.{topic}"), 1, &[]);
        }
        Rig { kafka, gateway: builder.build(), cables, prefix, _dir: dir }
    }

    pub fn start(cables: usize, lines: &str) -> Rig {
        let mut rig = Rig::build(cables, lines);
        rig.gateway.start();
        rig.wait_open(cables);
        rig
    }

    /// Waits until so many ports are open.
    pub fn wait_open(&self, ports: usize) {
        let open = || self.gateway.metric("forebay_source_connected") as usize == ports;
        jobs::wait_until("the ports are open", || open().then_some(()));
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// What was told of this kind on the events topic. The gateway has stopped, so that all of it is there.
    pub fn told(&self, event: &str) -> Vec<String> {
        let needle = format!("\"{event}\"");
        let events = self.kafka.consume_all(&self.topic("events")).into_iter();
        let texts = events.map(|record| String::from_utf8_lossy(&record.payload).into_owned());
        texts.filter(|text| text.contains(&needle)).collect()
    }

    /// Starts the gateway and kills it at the `passage`th passage of a fault point. Returns what its spool then holds.
    pub fn kill_at(&mut self, point: &str, passage: usize) -> usize {
        self.gateway.start_with_fault(&format!("{point}:{passage}"));
        self.gateway.wait_for_fault(point);
        self.gateway.kill9();
        let status = self.gateway.command(&["status", "--json"]).document();
        let lanes = status["lanes"].as_array().unwrap();
        let lane = lanes.iter().find(|lane| lane["name"] == "telemetry");
        lane.and_then(|lane| lane["records"].as_u64()).unwrap_or(0) as usize
    }

    pub fn drain_and_stop(&mut self) {
        jobs::wait_until("the spool is empty", || (self.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
        self.gateway.stop();
    }

    /// How often that was told.
    pub fn told_times(&self, event: &str) -> usize {
        self.told(event).len()
    }

    /// Waits for so many distinct readings, then all that is there.
    pub fn readings(&self, count: usize) -> Vec<Consumed> {
        let mut seen = std::collections::HashSet::new();
        self.kafka.consume_until(&[&self.topic("readings")], |record| {
            seen.insert((record.key.clone(), record.payload.clone()));
            seen.len() >= count
        })
    }
}

/// First arrivals of each key, in order; a repeat must carry the id of the first.
pub fn by_key(records: &[Consumed]) -> BTreeMap<String, Vec<String>> {
    let mut ids: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (key, payload) = (text(record.key.as_deref().unwrap_or_default()), text(&record.payload));
        let id = record.forebay_id().expect("every record has an id");
        match ids.get(&(key.clone(), payload.clone())) {
            Some(first) => assert_eq!(*first, id, "{key} {payload} came twice under two ids"),
            None => {
                lists.entry(key.clone()).or_default().push(payload.clone());
                ids.insert((key, payload), id);
            }
        }
    }
    lists
}

/// Readings that are numbered from `first` on, after a kill with `committed` of them in the spool: they come in order, and
/// until the kill nothing was lost, so that what was committed or delivered is an unbroken run.
pub fn check_unbroken(numbers: &[u64], first: u64, committed: usize) {
    assert!(numbers.is_sorted(), "in order of acceptance");
    let unbroken = (first..).zip(numbers).take_while(|(wanted, number)| wanted == *number).count();
    assert!(committed > 0, "the kill came before the first commit");
    assert!(unbroken >= committed, "{committed} were in the spool, only {unbroken} arrived unbroken");
}

//! `forebay demo` as a newcomer starts it: the real binary, alone, to its last line.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::mosquitto::{Mosquitto, Options};

/// Far beyond its half a minute: the machine may be building something else as well.
const PATIENCE: Duration = Duration::from_secs(150);
const LINES_MAX: usize = 1_000;

/// A running demo and what it says. Killed when dropped.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    until: Instant,
    /// `tmp`, where it makes its own directory, and `log`, what it says on stderr.
    dir: TempDir,
}

/// All that a demo said on stdout, how it ended, and what it left behind.
struct Ended {
    lines: Vec<String>,
    status: ExitStatus,
    dir: TempDir,
}

impl Demo {
    fn start(options: &[&str]) -> Demo {
        let dir = jobs::scratch("demo");
        let mut command = jobs::leashed(Path::new(env!("CARGO_BIN_EXE_forebay")));
        let (tmp, log) = (dir.path().join("tmp"), dir.path().join("log"));
        fs::create_dir(&tmp).unwrap();
        command.arg("demo").args(options).env("TMPDIR", tmp).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::File::create(log).unwrap());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Demo { child, lines, heard: Vec::new(), until: Instant::now() + PATIENCE, dir }
    }

    /// The next line, `None` after the last.
    fn line(&mut self) -> Option<String> {
        let left = self.until.saturating_duration_since(Instant::now());
        let line = match self.lines.recv_timeout(left) {
            Ok(line) => line,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it takes too long: {:#?}", self.heard),
        };
        self.heard.push(line.clone());
        Some(line)
    }

    fn wait_for(&mut self, what: &str) {
        while !self.line().unwrap_or_else(|| panic!("{what:?} was never said: {:#?}", self.heard)).contains(what) {}
    }

    fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn finish(mut self) -> Ended {
        while self.line().is_some() {}
        let status = self.child.wait().unwrap();
        let dir = std::mem::replace(&mut self.dir, jobs::scratch("done"));
        Ended { lines: std::mem::take(&mut self.heard), status, dir }
    }
}

impl Ended {
    /// The directories of demos that are still there.
    fn left(&self) -> Vec<std::path::PathBuf> {
        fs::read_dir(self.dir.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn assert_success(&self) {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        assert!(self.status.success(), "{}: {:#?}\n{log}", self.status, self.lines);
    }

    /// How many readings were acknowledged. All of them are in Kafka.
    fn acknowledged(&self) -> u64 {
        self.assert_success();
        let [acknowledged, in_kafka, lost] = verdict(&self.lines);
        assert_eq!((in_kafka, lost), (acknowledged, 0), "{:#?}", self.lines);
        acknowledged
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers of the last line: acknowledged, in Kafka, lost. A record may be repeated after an outage.
fn verdict(lines: &[String]) -> [u64; 3] {
    let last = lines.last().unwrap();
    let words: Vec<&str> = last.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let ["acknowledged", acknowledged, "in", "Kafka", in_kafka, "lost", lost, "repeated", repeated] = words[..] else {
        panic!("not the expected last line: {last:?}");
    };
    assert!(repeated.parse::<u64>().is_ok(), "{last:?}");
    [acknowledged, in_kafka, lost].map(|number| number.parse().unwrap())
}

/// In spool, in Kafka and mode of a line of numbers.
fn moment(line: &str) -> Option<(u64, u64, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "s", _, _, in_spool, in_kafka, mode] = words[..] else { return None };
    Some((in_spool.parse().ok()?, in_kafka.parse().ok()?, mode))
}

/// The moments between two headlines; at least one.
fn moments(lines: &[String], from: &str, to: &str) -> Vec<(u64, u64, String)> {
    let phase = lines.iter().skip_while(|line| !line.contains(from)).take_while(|line| !line.contains(to));
    let found: Vec<_> = phase.filter_map(|line| moment(line)).map(|(s, k, mode)| (s, k, mode.to_owned())).collect();
    assert!(!found.is_empty(), "no numbers from {from:?} to {to:?}: {lines:#?}");
    found
}

#[test]
fn the_demo_loses_nothing_in_its_outage_and_shows_it() {
    let ended = Demo::start(&["--seconds", "3", "--rate", "100"]).finish();
    let acknowledged = ended.acknowledged();
    // Nine tenths of two phases: a busy machine may make the devices skip some.
    assert!(acknowledged >= 540, "{:#?}", ended.lines);
    let lines = &ended.lines;
    assert!(lines.iter().any(|line| line.contains("3 devices --MQTT--> Forebay")), "{lines:#?}");
    let well = moments(lines, "1. All is well", "2. Kafka is taken away");
    assert!(well.iter().all(|(spool, in_kafka, mode)| *spool == 0 && *in_kafka > 0 && mode == "direct"), "{well:?}");
    let away = moments(lines, "2. Kafka is taken away", "3. Kafka is back");
    let (first, last) = (away.first().unwrap(), away.last().unwrap());
    assert!(last.2 == "spooling" && last.0 > first.0 && last.1 == first.1, "{away:?}");
    let back = moments(lines, "3. Kafka is back", "4. The devices stop");
    assert_eq!((back.last().unwrap().0, back.last().unwrap().2.as_str()), (0, "direct"), "{back:?}");
    assert_eq!(ended.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn an_interruption_in_the_outage_brings_kafka_back_and_counts() {
    let mut demo = Demo::start(&["--seconds", "5", "--rate", "100"]);
    demo.wait_for("2. Kafka is taken away");
    demo.wait_for(" spooling");
    demo.signal(Signal::SIGINT);
    let ended = demo.finish();
    assert!(ended.acknowledged() > 0);
    assert!(!ended.lines.iter().any(|line| line.contains("Kafka is back")), "{:#?}", ended.lines);
}

#[test]
fn devices_on_serial_lines_lose_nothing_in_the_outage_either() {
    let ended = Demo::start(&["--serial", "--seconds", "3", "--rate", "100"]).finish();
    let acknowledged = ended.acknowledged();
    assert!(acknowledged >= 540, "{:#?}", ended.lines);
    let lines = &ended.lines;
    assert!(lines.iter().any(|line| line.contains("3 devices --serial--> Forebay ---> spool")), "{lines:#?}");
    let well = moments(lines, "1. All is well", "2. Kafka is taken away");
    let away = moments(lines, "2. Kafka is taken away", "3. Kafka is back");
    assert!(well.last().unwrap().1 > 0, "on the way to Kafka all the time: {well:?}");
    let (first, last) = (away.first().unwrap(), away.last().unwrap());
    assert!(last.2 == "spooling" && last.0 > first.0 && last.1 == first.1, "{away:?}");
    assert_eq!(ended.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_script_gets_one_document_and_the_directory_stays_if_asked() {
    let ended = Demo::start(&["--seconds", "1", "--json", "--keep"]).finish();
    ended.assert_success();
    let [document] = &ended.lines[..] else { panic!("not one line: {:#?}", ended.lines) };
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    assert!(document["acknowledged"].as_u64().unwrap() > 0, "{document}");
    assert_eq!((&document["inKafka"], document["lost"].as_u64()), (&document["acknowledged"], Some(0)));
    assert_eq!(document["published"], document["acknowledged"], "each device waits for its last PUBACK");
    let [kept] = &ended.left()[..] else { panic!("not one directory: {:?}", ended.left()) };
    let config = fs::read_to_string(kept.join("gateway.toml")).unwrap();
    assert!(config.contains("[[source.listener]]") && kept.join("spool.db").is_file(), "{config}");
}

#[test]
fn a_broker_of_ones_own_stands_between_and_a_kafka_takes_the_place_of_the_embedded_one() {
    let (broker, kafka) = (Mosquitto::start(&Options::default()), KafkaServer::start());
    let (mqtt, servers) = (format!("127.0.0.1:{}", broker.port()), kafka.bootstrap_servers());
    let mut demo = Demo::start(&["--mqtt", &mqtt, "--kafka", &servers, "--seconds", "6", "--rate", "100"]);
    demo.wait_for("--MQTT--> broker --MQTT--> Forebay");
    demo.wait_for(&format!("Broker: {mqtt}"));
    demo.wait_for("take your Kafka away");
    kafka.stop();
    demo.wait_for("Bring your Kafka back");
    kafka.restart();
    let ended = demo.finish();
    assert!(ended.acknowledged() > 0);
    let away = moments(&ended.lines, "take your Kafka away", "Bring your Kafka back");
    assert!(away.last().unwrap().0 > 0, "the spool held nothing: {away:?}");
    let topics = kafka.topics();
    assert!(topics.contains("EquipmentStatus") && topics.contains("forebay.events"), "{topics:?}");
}

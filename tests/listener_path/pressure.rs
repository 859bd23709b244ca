//! Everything is full: PUBACKs wait, pings are answered, QoS 0 is dropped and counted, memory stays within its budget, and
//! nothing that was acknowledged is lost. And what waiting costs a device that waits for each PUBACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device::{Device, Manner};
use super::plant::{Builder, Plant};
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::readings::{Reading, id_of};
use crate::harness::small_disk::SmallDisk;
use crate::main_path::bursts::assert_within_budget;

const SMALL_SPOOL: &str = "max_bytes = \"4MiB\"";
const DISK_BYTES: u64 = 16 << 20;
const QOS0_DROPPED: &str = "forebay_listener_qos0_dropped_total";
const QOS0_DEVICE: usize = 900;
const QOS0_SENT: usize = 2_000;
const QOS0: Manner = Manner { qos: 0, ..Manner::QOS1 };
/// It waits for each answer.
const PATIENT: usize = 1;

/// Devices that send all they have as fast as they are let.
struct Flood {
    threads: Vec<JoinHandle<()>>,
    readings: usize,
}

impl Flood {
    fn start(plant: &Plant, devices: usize, each: usize) -> Flood {
        let connected = Arc::new(AtomicUsize::new(0));
        let start_one = |device: usize| {
            let (port, witness, connected) = (plant.port, Arc::clone(&plant.witness), Arc::clone(&connected));
            let manner = if device.is_multiple_of(4) { Manner::QOS2_V311 } else { Manner::QOS1 };
            std::thread::spawn(move || {
                let manner = Manner { window: 100, ..manner };
                let mut line = Device::connect(port, &format!("flood-{device}"), manner, &witness);
                connected.fetch_add(1, Ordering::Relaxed);
                (0..each).for_each(|number| line.publish_patiently(&Reading::padded(device, number, 4_000)));
                line.finish_patiently();
                line.leave();
            })
        };
        let threads = (100..100 + devices).map(start_one).collect();
        jobs::wait_until("the flood has come in", || (connected.load(Ordering::Relaxed) == devices).then_some(()));
        Flood { threads, readings: devices * each }
    }

    fn finish(self) -> usize {
        self.threads.into_iter().for_each(|thread| thread.join().expect("the device's own failure is above"));
        self.readings
    }
}

/// Kafka is away by `begin` and comes back by `end`; the spool is full long before the flood has ended.
fn pushed_back(builder: Builder, begin: fn(&KafkaServer), end: fn(&KafkaServer)) -> Plant {
    let mut plant =
        builder.own_kafka().memory("producer = \"1MiB\"").lane("when = \"always\"\nwhen_full = \"refuse\"").start();
    let mut calm = [Manner::QOS1, Manner::QOS2].map(|manner| Manner { window: PATIENT, ..manner });
    let mut calm = calm.each_mut().map(|manner| plant.device(&format!("calm-{}", manner.qos), *manner));
    calm.iter_mut().zip(0..).for_each(|(device, n)| device.publish(&Reading::new(800 + n, 0)));
    calm.iter_mut().for_each(Device::finish);
    let mut qos0 = plant.device("qos0", QOS0);
    let idle = plant.gateway.memory_kib();
    begin(&plant.kafka);
    let flood = Flood::start(&plant, 20, 250);
    let accepted = plant.witness.wait_quiet(Duration::from_secs(4));
    assert!(accepted > 300, "the spool takes what fits: {accepted}");
    let waiting = plant.witness.lock().offered.len() - accepted;
    plant.saw("readings that wait", waiting);

    // Whoever has nothing unanswered is still taken in, and hears that the gateway lives while its PUBACK waits.
    for (device, n) in calm.iter_mut().zip(0..) {
        device.publish(&Reading::new(800 + n, 1));
        (0..3).for_each(|_| device.ping());
        assert_eq!(device.open(), 1, "nothing is acknowledged that is not stored");
    }
    let sent = drop_some(&mut qos0);
    let dropped = plant.count(QOS0_DROPPED) as usize;
    assert!(dropped > 0 && dropped < sent, "{dropped} of {sent} dropped");
    // What it has not waited for is taken or counted all the same.
    qos0.leave();
    end(&plant.kafka);
    calm.iter_mut().for_each(Device::finish_patiently);
    let flooded = flood.finish();
    assert_within_budget("listener under pressure", idle, plant.gateway.memory_kib());
    assert_eq!(plant.witness.accepted(), flooded + 4);
    plant.saw("kept of QoS 0", sent - dropped);
    plant
}

/// A device of QoS 0 sends more than there is room for. The PINGRESP behind it says that it has been read.
fn drop_some(device: &mut Device) -> usize {
    (0..QOS0_SENT).for_each(|number| device.publish(&Reading::padded(QOS0_DEVICE, number, 4_000)));
    device.ping();
    QOS0_SENT
}

/// Every reading of QoS 0 has arrived or is counted as dropped.
fn close_books_with_qos_0(plant: Plant) {
    let dropped = plant.count(QOS0_DROPPED) as usize;
    let (kafka, topic) = (Arc::clone(&plant.kafka), plant.topic("readings"));
    plant.close_books();
    let of_qos_0 = |id: &String| id.starts_with(&format!("d{QOS0_DEVICE}-"));
    let ids = kafka.consume_all(&topic).into_iter().filter_map(|record| id_of(&record.payload)).filter(of_qos_0);
    let arrived = ids.collect::<std::collections::HashSet<_>>().len();
    assert_eq!(arrived + dropped, QOS0_SENT, "each reading of QoS 0 has arrived or is counted");
}

#[test]
fn a_full_spool_while_kafka_is_stopped() {
    let plant = pushed_back(Plant::builder().spool(SMALL_SPOOL), KafkaServer::stop, KafkaServer::restart);
    close_books_with_qos_0(plant);
}

#[test]
fn a_full_spool_while_kafka_hangs() {
    let plant = pushed_back(Plant::builder().spool(SMALL_SPOOL), KafkaServer::pause, KafkaServer::resume);
    close_books_with_qos_0(plant);
}

#[test]
fn a_full_disk() {
    let disk = SmallDisk::mount(DISK_BYTES);
    let spool = match &disk {
        Some(disk) => {
            let path = disk.path().join("spool.db");
            format!("path = {path:?}\nreserve_bytes = \"0B\"\nballast_bytes = \"5MiB\"\n")
        }
        None => "max_bytes = \"8MiB\"".to_owned(),
    };
    let mut plant = pushed_back(Plant::builder().spool(&spool), KafkaServer::stop, KafkaServer::restart);
    if disk.is_some() {
        plant.saw("commit that found no room", plant.count("forebay_spool_commit_failures_total") as usize);
    } else {
        let instead = "the limit of the file stood in for it";
        jobs::skipped(&format!("listener_path::pressure::a_full_disk, for want of root; {instead}"));
    }
    close_books_with_qos_0(plant);
}

/// With an `ack_delay` of half a second, a device that pauses pays it for every reading. One that waits for each PUBACK
/// with the next reading in its hand does not: nobody else's reading would come to share the commit.
#[test]
fn a_device_with_a_window_of_one_keeps_its_rate() {
    const ACK_DELAY: Duration = Duration::from_millis(500);
    /// Longer than the gateway takes for a reading that was waiting for its answer.
    const PAUSE: Duration = Duration::from_millis(100);
    let plant = Plant::builder().lane("when = \"always\"").spool("ack_delay = \"500ms\"").start();
    let manner = Manner { window: PATIENT, ..Manner::QOS1 };
    let mut pausing = plant.device("pausing", manner);
    for number in 0..6 {
        pausing.publish(&Reading::new(1, number));
        pausing.finish();
        // The pause is the point: what comes at once after an answer has been waiting for it.
        std::thread::sleep(PAUSE);
    }
    let mut prompt = plant.device("prompt", manner);
    for number in 0..60 {
        prompt.publish(&Reading::new(2, number));
    }
    prompt.finish();
    let (paused, kept) = (median(pausing.latencies()), median(prompt.latencies()));
    eprintln!("PUBACK after {paused:?} with pauses, after {kept:?} without");
    assert!(paused >= ACK_DELAY, "alone and in no hurry, it waits for company: {paused:?}");
    assert!(kept * 3 < paused, "{kept:?} against {paused:?}");
    pausing.leave();
    prompt.leave();
    plant.close_books();
}

pub fn median(latencies: &[Duration]) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

impl Device {
    /// Like `publish`, for devices that may have to wait as long as the scenario takes.
    fn publish_patiently(&mut self, reading: &Reading) {
        self.wait_patiently(Device::has_room);
        self.publish(reading);
    }

    fn finish_patiently(&mut self) {
        self.wait_patiently(|device| device.open() == 0);
    }

    fn wait_patiently(&mut self, done: impl Fn(&Device) -> bool) {
        let deadline = Instant::now() + 4 * jobs::PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{} messages stay open", self.open());
            self.listen(Instant::now() + Duration::from_secs(1));
        }
    }
}

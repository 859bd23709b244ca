//! One greedy device does not slow the others: with and without two floods beside them, in the same run, ten modest
//! devices get their PUBACKs at their own pace, while the limits of one client hold the floods.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device::Manner;
use super::fleet::Fleet;
use super::packets::{self, Hello, V311};
use super::plant::Plant;
use super::pressure::median;
use super::script::{Act, Script};
use super::witness::Promise;
use crate::harness::jobs;
use crate::harness::readings::Reading;

const MODEST: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// Readings of each modest device in each phase.
const EACH: usize = 60;
const MESSAGE_RATE: u32 = 400;
const BYTE_RATE: u64 = 256 * 1024;
const PADDING: usize = 4_000;
const TAKEN: &str = "forebay_source_readings_total";

/// What the modest devices have had in one phase.
struct Phase {
    took: Duration,
    median: Duration,
}

fn modest(plant: &Plant, devices: std::ops::Range<usize>) -> Phase {
    let begin = Instant::now();
    let prefixes: Vec<String> = devices.clone().map(|device| format!("plant/d{device}/")).collect();
    let fleet = Fleet::start(plant, devices, PAUSE, |_| Manner::QOS1);
    plant.witness.wait_for("each modest device's share", |record| {
        let of = |prefix: &String| record.accepted.iter().filter(|p| p.stream.starts_with(prefix)).count();
        prefixes.iter().all(|prefix| of(prefix) >= EACH)
    });
    let took = begin.elapsed();
    Phase { took, median: median(&fleet.stop()) }
}

/// As fast as the gateway reads, until told otherwise; QoS 0 and QoS 1 each hit another limit. It leaves without a word
/// about what is still on its way.
fn flood(plant: &Plant, device: usize, manner: Manner, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let mut line = plant.device(&format!("greedy-{device}"), manner);
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let padding = if manner.qos == 0 { 0 } else { PADDING };
        for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
            line.publish(&Reading::padded(device, number, padding));
        }
    })
}

#[test]
fn two_floods_beside_ten_modest_devices() {
    let limits = format!("message_rate = {MESSAGE_RATE}\nbyte_rate = \"{}KiB/s\"", BYTE_RATE / 1024);
    let plant = Plant::builder().lane("when = \"always\"").limits(&limits).start();
    let calm = modest(&plant, 0..MODEST);

    let stop = Arc::new(AtomicBool::new(false));
    let qos0 = Manner { qos: 0, ..Manner::QOS1 };
    let qos1 = Manner { window: 100, ..Manner::QOS1 };
    let began = Instant::now();
    let taken_before = plant.count(TAKEN);
    let floods = [flood(&plant, 901, qos0, &stop), flood(&plant, 902, qos1, &stop)];
    plant.wait_counted("forebay_listener_slowed_total");
    let flooded = modest(&plant, 100..100 + MODEST);
    let all = plant.count(TAKEN) - taken_before;
    let lasted = began.elapsed();
    let modest = plant.witness.lock().accepted.iter().filter(|p| p.stream.starts_with("plant/d10")).count() as u64;
    let taken = all.saturating_sub(modest);
    stop.store(true, Ordering::Relaxed);
    // A take-over ends what of them lies in the system's buffers, which would last for a minute at their rate.
    [901, 902].into_iter().for_each(|device| plant.device(&format!("greedy-{device}"), qos1).leave());
    floods.into_iter().for_each(|flood| flood.join().expect("the flood's own failure is above"));

    let (alone, beside) = (&calm, &flooded);
    eprintln!(
        "alone {:?}, PUBACK after {:?}; beside the floods {:?}, {:?}",
        alone.took, alone.median, beside.took, beside.median
    );
    eprintln!("{taken} readings of the floods taken in {lasted:?}, {modest} of the modest devices");
    // Their pace is their own: alone it takes EACH pauses, and beside the floods not three times that.
    assert!(beside.took < alone.took * 3, "{:?} against {:?}", beside.took, alone.took);
    // A PUBACK may wait for some of the flood's bytes in the same commit, no longer.
    assert!(beside.median < alone.median * 10 + PAUSE, "{:?} against {:?}", beside.median, alone.median);
    // The limits act on both floods: together they get what their limits let through, a second's worth on top at most.
    let limit = (f64::from(MESSAGE_RATE) + BYTE_RATE as f64 / PADDING as f64) * (lasted.as_secs_f64() + 2.0);
    assert!((taken as f64) < limit, "{taken} readings of the floods in {lasted:?}");
    assert!(taken > modest, "these were floods: {taken} against {modest}");
    plant.close_books();
}

/// A device that is read from more slowly says all it has to say, says good-bye and closes. Its good-bye is heard, and
/// so is everything before it.
#[test]
fn what_a_slowed_device_said_before_it_left_is_taken() {
    const SENT: usize = 60;
    let plant = Plant::builder().limits("message_rate = 20").start();
    let will = Some(("plant/d7/will".to_owned(), b"gone".to_vec()));
    let hello = Hello { level: V311, client_id: "hasty".to_owned(), clean: true, will };
    let mut device = Script::connect_as(&plant, hello);
    for number in 0..SENT {
        let reading = Reading::new(7, number);
        let (qos, promise) = (0, Promise::AtLeastOnce);
        device.publish(Act { reading: &reading, packet_id: 0, qos, dup: false, message_id: None, promise });
        // Nobody acknowledges it, and all the same it has to arrive.
        plant.witness.accept(&reading);
    }
    device.say(&packets::disconnect());
    drop(device);
    let said = "\"event\":\"device-disconnected\"";
    let gone = jobs::wait_until("the device's end is told", || {
        let records = plant.kafka.consume_all(&plant.topic("events"));
        let events = records.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned());
        events.into_iter().find(|event| event.contains(said))
    });
    assert!(gone.contains("\"clean\":true"), "{gone}");
    assert!(plant.count("forebay_listener_slowed_total") > 0);
    assert_eq!(plant.count("forebay_listener_wills_total"), 0, "whoever says good-bye has no will");
    plant.close_books();
}

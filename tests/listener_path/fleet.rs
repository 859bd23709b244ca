//! Many devices that publish in the background at a steady pace while the scenario does its worst.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device::{Device, Manner};
use super::plant::Plant;
use crate::harness::readings::Reading;

pub struct Fleet {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Duration>>>,
    /// Before their first readings: all have a session.
    connected: usize,
}

impl Fleet {
    /// Each of `devices` publishes a reading every `pause`, in its own manner, until [`Fleet::stop`].
    pub fn start(plant: &Plant, devices: Range<usize>, pause: Duration, manner: fn(usize) -> Manner) -> Fleet {
        let stopping = Arc::new(AtomicBool::new(false));
        let count = devices.len() as u32;
        let start_one = |device: usize| {
            let (port, witness, stopping) = (plant.port, Arc::clone(&plant.witness), Arc::clone(&stopping));
            // Not all in the same instant.
            let first = Instant::now() + pause * (device as u32 % count) / count;
            std::thread::spawn(move || {
                let mut line = Device::connect(port, &format!("device-{device}"), manner(device), &witness);
                let mut due = first;
                for number in 0.. {
                    // The pace is the point here: it keeps the load going on while the scenario acts.
                    while Instant::now() < due && !stopping.load(Ordering::Relaxed) {
                        line.listen(due);
                    }
                    if stopping.load(Ordering::Relaxed) {
                        break;
                    }
                    line.publish(&Reading::new(device, number));
                    due = (due + pause).max(Instant::now());
                }
                line.finish();
                let latencies = line.latencies().to_vec();
                line.leave();
                latencies
            })
        };
        let connected = plant.witness.lock().connects;
        let threads = devices.map(start_one).collect();
        Fleet { stopping, threads, connected }
    }

    /// Connections since the start beyond the first of each device.
    pub fn reconnects(&self, plant: &Plant) -> usize {
        plant.witness.lock().connects.saturating_sub(self.connected + self.threads.len())
    }

    /// No new readings; waits until each device has its last answer. Returns the latencies of all acknowledgements.
    pub fn stop(self) -> Vec<Duration> {
        self.stopping.store(true, Ordering::Relaxed);
        let join = |thread: JoinHandle<Vec<Duration>>| thread.join().expect("the device's own failure is above");
        self.threads.into_iter().flat_map(join).collect()
    }
}

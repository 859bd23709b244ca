//! Modbus devices, the gateway that asks them, and what arrives in Kafka.

use std::path::Path;

use serde_json::Value;

use crate::harness::jobs::{self, Job};
use crate::harness::kafka::Consumed;
use crate::interop;
use crate::serial::rig::{Cable, Rig};

/// pymodbus, with some units.
pub struct Slave {
    way: Vec<String>,
    units: Vec<u8>,
    log: std::path::PathBuf,
    job: Option<Job>,
}

impl Slave {
    pub fn by_tcp(dir: &Path, port: u16, units: &[u8]) -> Slave {
        Slave::start(dir, vec!["--tcp".to_owned(), port.to_string()], units)
    }

    /// At the devices' end of a cable.
    pub fn on_line(dir: &Path, cable: &Cable, units: &[u8]) -> Slave {
        Slave::start(dir, vec!["--serial".to_owned(), cable.end().display().to_string()], units)
    }

    fn start(dir: &Path, way: Vec<String>, units: &[u8]) -> Slave {
        let mut slave = Slave { way, units: units.to_vec(), log: dir.join("slave.log"), job: None };
        slave.restart();
        slave
    }

    pub fn restart(&mut self) {
        self.kill();
        let mut command = interop::python("modbus", "slave.py");
        command.args(&self.way);
        command.args(self.units.iter().flat_map(|unit| ["--unit".to_owned(), unit.to_string()]));
        let job = Job::start_watched("slave", command, &self.log);
        job.wait_for_line("ready");
        self.job = Some(job);
    }

    pub fn kill(&mut self) {
        if let Some(mut job) = self.job.take() {
            job.kill();
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        self.job.as_ref().expect("it runs").signal(signal);
    }
}

/// A gateway that asks devices by TCP, and the port where they are to be. `lines` go into the source's table.
pub fn rig_by_tcp(lines: &str) -> (Rig, u16, tempfile::TempDir) {
    let port = jobs::free_port();
    let table = format!("name = \"plc\"\ntcp = \"127.0.0.1:{port}\"\n{lines}");
    let rig = Rig::of(jobs::scratch("modbus"), Vec::new(), &[("[[source.modbus]]".to_owned(), table)]);
    (rig, port, jobs::scratch("slave"))
}

/// A gateway that asks devices on a cable.
pub fn rig_on_line(lines: &str) -> (Rig, tempfile::TempDir) {
    let dir = jobs::scratch("modbus");
    let cable = Cable::plug(dir.path(), "bus");
    let table = format!("name = \"plc\"\nport = {:?}\nbaud = 115200\n{lines}", cable.port());
    let rig = Rig::of(dir, vec![cable], &[("[[source.modbus]]".to_owned(), table)]);
    (rig, jobs::scratch("slave"))
}

pub fn json(record: &Consumed) -> Value {
    serde_json::from_slice(&record.payload).unwrap()
}

/// Waits until a reading is there for which `wanted` holds.
pub fn wait_for(rig: &Rig, mut wanted: impl FnMut(&Value) -> bool) -> Value {
    json(&rig.kafka.find(&rig.topic("readings"), |record| wanted(&json(record))))
}

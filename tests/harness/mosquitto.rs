//! A real Mosquitto between the devices and the gateway.
//!
//! Owns the broker's process, port and session file. The window is not held by versions before 2.0.13 (Debian 12 has
//! 2.0.11): a scenario must not rely on it.

use std::fs;
use std::sync::Mutex;

use nix::sys::signal::Signal;
use rustix::process::geteuid;
use tempfile::TempDir;

use super::jobs::{self, Job};
use super::mqtt::{Client, Login};

pub struct Mosquitto {
    port: u16,
    login: Option<Login>,
    job: Mutex<Option<Job>>,
    dir: TempDir,
}

#[derive(Default)]
pub struct Options {
    pub login: Option<Login>,
    /// Unacknowledged messages per client; `None`: Mosquitto's 20.
    pub max_inflight_messages: Option<u16>,
    /// Without a session file: what Mosquitto has acknowledged is in its memory alone.
    pub forgetful: bool,
}

impl Mosquitto {
    pub fn start(options: &Options) -> Mosquitto {
        let dir = jobs::scratch("mosquitto");
        let port = jobs::free_port();
        let broker = Mosquitto { port, login: options.login.clone(), job: Mutex::new(None), dir };
        broker.write_config(options);
        broker.restart();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    #[allow(dead_code, reason = "the benchmark measures it; the tests do not")]
    pub fn pid(&self) -> u32 {
        self.job.lock().unwrap().as_ref().expect("the broker runs").pid()
    }

    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// SIGTERM: sessions and their queues are written to the session file.
    pub fn stop(&self) {
        self.take_job().stop();
    }

    /// SIGKILL: whatever the session file did not have yet is lost, though Mosquitto has acknowledged it.
    pub fn kill(&self) {
        self.take_job().kill();
    }

    pub fn pause(&self) {
        self.job.lock().unwrap().as_ref().expect("the broker runs").signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.job.lock().unwrap().as_ref().expect("the broker runs").signal(Signal::SIGCONT);
    }

    /// Starts with the sessions of the session file, and waits until a client is accepted.
    pub fn restart(&self) {
        let mut command = jobs::leashed(&jobs::tool("mosquitto", "mosquitto"));
        command.arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        *self.job.lock().unwrap() = Some(Job::start("mosquitto", command, &self.dir.path().join("log")));
        Client::connect(self.port, "rig-ready", self.login());
    }

    /// Starts as after the loss of its disk: no session, no queue.
    pub fn restart_without_sessions(&self) {
        fs::remove_file(self.dir.path().join("mosquitto.db")).expect("stop() has written the session file");
        self.restart();
    }

    fn take_job(&self) -> Job {
        self.job.lock().unwrap().take().expect("the broker runs")
    }

    fn write_config(&self, options: &Options) {
        let dir = self.dir.path();
        let mut lines = vec![
            format!("listener {} 127.0.0.1", self.port),
            format!("persistence {}", !options.forgetful),
            format!("persistence_location {}/", dir.display()),
            // Unlimited: nothing that Mosquitto has acknowledged may vanish in its queue, or the count would not close.
            "max_queued_messages 0".to_owned(),
            "set_tcp_nodelay true".to_owned(),
        ];
        lines.extend(options.max_inflight_messages.map(|max| format!("max_inflight_messages {max}")));
        if geteuid().is_root() {
            // Otherwise it becomes the user `mosquitto`, who may not write here.
            lines.push("user root".to_owned());
        }
        match &options.login {
            None => lines.push("allow_anonymous true".to_owned()),
            Some(login) => {
                let file = dir.join("passwords");
                write_password_file(&file, login);
                lines.push(format!("password_file {}", file.display()));
            }
        }
        fs::write(dir.join("mosquitto.conf"), lines.join("\n") + "\n").unwrap();
    }
}

fn write_password_file(file: &std::path::Path, login: &Login) {
    let mut command = std::process::Command::new(jobs::tool("mosquitto_passwd", "mosquitto"));
    let status = command.args(["-b", "-c"]).arg(file).args([&login.user, &login.password]).status().unwrap();
    assert!(status.success(), "mosquitto_passwd: {status}");
}

#[cfg(test)]
mod tests {
    use super::super::mqtt::{Publisher, Subscriber};
    use super::super::readings::Reading;
    use super::*;

    fn publish(broker: &Mosquitto, numbers: std::ops::Range<usize>) {
        let mut publisher = Publisher::connect(broker.port(), "dev", broker.login());
        for number in numbers {
            publisher.publish(&Reading::new(1, number));
        }
        publisher.finish();
    }

    #[test]
    fn a_restart_keeps_the_session_and_its_queue() {
        let broker = Mosquitto::start(&Options::default());
        drop(Subscriber::connect(broker.port(), "sub", broker.login(), "plant/#"));
        publish(&broker, 0..300);
        broker.stop();
        broker.restart();
        let mut subscriber = Subscriber::connect(broker.port(), "sub", broker.login(), "plant/#");
        assert!(subscriber.session_present());
        let numbers: Vec<_> = subscriber.take(300).iter().map(|message| message.1.clone()).collect();
        assert_eq!(numbers, (0..300).map(|number| Reading::new(1, number).payload).collect::<Vec<_>>());
    }

    #[test]
    fn a_restart_without_sessions_loses_them() {
        let broker = Mosquitto::start(&Options::default());
        drop(Subscriber::connect(broker.port(), "sub", broker.login(), "plant/#"));
        publish(&broker, 0..10);
        broker.stop();
        broker.restart_without_sessions();
        assert!(!Subscriber::connect(broker.port(), "sub", broker.login(), "plant/#").session_present());
    }

    #[test]
    fn a_publisher_goes_on_after_a_kill_and_a_pause() {
        let login = Login { user: "plant".to_owned(), password: "rig".to_owned() };
        let options = Options { login: Some(login), max_inflight_messages: Some(100), ..Options::default() };
        let broker = Mosquitto::start(&options);
        let mut publisher = Publisher::connect(broker.port(), "dev", broker.login());
        (0..50).for_each(|number| publisher.publish(&Reading::new(1, number)));
        broker.kill();
        broker.restart();
        (50..100).for_each(|number| publisher.publish(&Reading::new(1, number)));
        broker.pause();
        broker.resume();
        let acknowledged = publisher.finish();
        let mut distinct = acknowledged.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((acknowledged.len(), distinct.len()), (100, 100));
    }
}

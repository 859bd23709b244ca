//! The real gateway: the `forebay` binary, its configuration, its answers.
//!
//! Owns the state directory, which survives kills and restarts and goes with the test. All that the rig takes for granted
//! of the binary stands here: the keys, the paths of the HTTP port, the names in [`metric`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::jobs::{self, Job, PATIENCE};
use super::mqtt::Login;

/// Metrics by which the books are closed.
pub mod metric {
    /// Records in the spool that are not settled.
    pub const BACKLOG: &str = "forebay_lane_backlog_records";
    /// Records that the loss ledger accounts for.
    pub const LEDGER: &str = "forebay_lost_total";
}

pub struct Gateway {
    http_port: u16,
    /// Before the directory: a failing test shows the end of its log.
    job: Option<Job>,
    dir: TempDir,
    starts: usize,
    kills: usize,
    environment: Vec<(String, String)>,
}

/// Resident memory of the process, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

/// What a subcommand answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

#[allow(dead_code, reason = "the tests ask; the benchmark does not")]
impl Answer {
    /// What it printed; it must have succeeded.
    pub fn text(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// One JSON value a line.
    pub fn lines(self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// One JSON document.
    pub fn document(self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

/// Writes the configuration, table by table.
pub struct Builder {
    http_port: u16,
    tables: String,
    routes: String,
}

impl Gateway {
    pub fn builder() -> Builder {
        Builder { http_port: jobs::free_port(), tables: String::new(), routes: String::new() }
    }

    /// Starts and waits until it is ready.
    pub fn start(&mut self) {
        self.launch(None);
        self.wait_ready();
    }

    /// A variable of its environment, from the next start on.
    #[allow(dead_code, reason = "the tests set some; the benchmark does not")]
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts and waits until it answers at all: without Kafka or a broker it may not call itself ready.
    pub fn start_alone(&mut self) {
        self.launch(None);
        jobs::wait_until("the gateway answers", || self.get("/healthz"));
    }

    /// Starts with a fault point armed, `<point>` or `<point>:<n>` for its n-th passage. It may stop there at any time,
    /// so there is nothing else to wait for.
    pub fn start_with_fault(&mut self, fault: &str) {
        self.launch(Some(fault));
    }

    /// Waits until the gateway stands still at `point`.
    pub fn wait_for_fault(&self, point: &str) {
        self.job().wait_for_line(&format!("fault point {point} reached"));
    }

    pub fn wait_ready(&mut self) {
        jobs::wait_until("the gateway is ready", || {
            let ended = self.job_mut().ended();
            assert!(ended.is_none(), "the gateway ended: {ended:?}\n{}", self.job().log_end());
            self.get("/readyz").filter(|(status, _)| *status == 200)
        });
    }

    pub fn kill9(&mut self) {
        let status = self.take_job().kill();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "the gateway's end: {status}");
        self.kills += 1;
    }

    /// Times that it died of SIGKILL.
    pub fn kills(&self) -> usize {
        self.kills
    }

    /// SIGTERM; it must leave in good order.
    pub fn stop(&mut self) {
        let mut job = self.take_job();
        let status = job.stop();
        assert!(status.success(), "the gateway's end: {status}\n{}", job.log_end());
    }

    /// SIGHUP: asks for a reload and for no answer.
    #[allow(dead_code, reason = "the tests ask; the benchmark does not")]
    pub fn hang_up(&self) {
        self.job().signal(Signal::SIGHUP);
    }

    pub fn pause(&self) {
        self.job().signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.job().signal(Signal::SIGCONT);
    }

    /// Every sample by its full name, labels included.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, body) = self.get("/metrics").expect("the gateway answers");
        assert_eq!(status, 200, "{body}");
        samples(&body)
    }

    /// The sum of a metric over all labels.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let mut samples = metrics.iter().filter(|(full, _)| full.split('{').next() == Some(name)).peekable();
        assert!(samples.peek().is_some(), "there is no metric {name} among {}", metrics.len());
        samples.map(|(_, value)| value).sum()
    }

    pub fn pid(&self) -> u32 {
        self.job().pid()
    }

    /// Resident memory now and at its peak, in KiB.
    #[allow(dead_code, reason = "the tests watch the memory; the benchmark measures in its own way")]
    pub fn memory_kib(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux counts memory");
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Memory { now: kib("VmRSS:"), peak: kib("VmHWM:") }
    }

    /// Runs a subcommand with this gateway's configuration, beside the running gateway or without it.
    #[allow(dead_code, reason = "the tests ask; the benchmark does not")]
    pub fn command(&self, args: &[&str]) -> Answer {
        let program = under_test();
        let mut command = Command::new(&program[0]);
        let output = command.args(&program[1..]).args(args).arg("--config").arg(self.config()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// All that it has written to stderr in this life, as far as it has come.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join(format!("log-{}", self.starts))).unwrap()
    }

    /// Waits for the first line of this life's log that contains `needle`.
    pub fn wait_for_line(&self, needle: &str) -> String {
        self.job().wait_for_line(needle)
    }

    /// Where the spool lies. It outlives kills and restarts.
    #[allow(dead_code, reason = "the tests look; the benchmark does not")]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    /// Status and body.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        // In one write: a server may answer and close on the first piece of a request in several.
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    fn launch(&mut self, fault: Option<&str>) {
        let program = under_test();
        let mut command = jobs::leashed(Path::new(&program[0]));
        command.args(&program[1..]).args(["run", "--config"]).arg(self.config());
        command.env_remove("FOREBAY_FAULT").envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(fault) = fault {
            command.env("FOREBAY_FAULT", fault);
        }
        self.starts += 1;
        let log = self.dir.path().join(format!("log-{}", self.starts));
        self.job = Some(Job::start_watched("gateway", command, &log));
    }

    fn job(&self) -> &Job {
        self.job.as_ref().expect("the gateway runs")
    }

    fn job_mut(&mut self) -> &mut Job {
        self.job.as_mut().expect("the gateway runs")
    }

    fn take_job(&mut self) -> Job {
        self.job.take().expect("the gateway runs")
    }
}

/// The program that cargo has built; or the one that `FOREBAY_UNDER_TEST` names, with a runner and its options before it
/// (`cross/smoke.sh`: a program for another machine).
fn under_test() -> Vec<String> {
    let named = std::env::var("FOREBAY_UNDER_TEST").ok();
    let named: Vec<String> = named.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect();
    if named.is_empty() { vec![env!("CARGO_BIN_EXE_forebay").to_owned()] } else { named }
}

impl Builder {
    /// A source that takes `plant/#` from the broker on `port`.
    pub fn mqtt(self, port: u16, login: Option<&Login>) -> Builder {
        self.mqtt_with(port, login, "plant/#", "")
    }

    /// The same with another subscription and more lines for the source.
    pub fn mqtt_with(self, port: u16, login: Option<&Login>, filter: &str, lines: &str) -> Builder {
        let login = login.map(|login| format!("user = {:?}\npassword = {:?}\n", login.user, login.password));
        let more = lines;
        let lines =
            format!("name = \"plant\"\nhost = \"127.0.0.1\"\nport = {port}\nclient_id = \"forebay-under-test\"\n");
        // Short pauses: a test that restarts its broker should not wait for a polite back-off.
        let pauses = "backoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n";
        self.table("[[source.mqtt]]", &(lines + pauses + &login.unwrap_or_default() + more))
            .table("[[source.mqtt.subscriptions]]", &format!("filter = {filter:?}\nqos = 1\n"))
    }

    pub fn kafka(self, bootstrap_servers: &str) -> Builder {
        self.table("[kafka.main]", &format!("bootstrap_servers = {bootstrap_servers:?}\n"))
    }

    pub fn lane(self, name: &str, lines: &str) -> Builder {
        self.table("[[lane]]", &format!("name = {name:?}\n{lines}\n"))
    }

    pub fn spool(self, lines: &str) -> Builder {
        self.table("[spool]", lines)
    }

    /// Routes are tried in order.
    pub fn route(mut self, filter: &str, kafka_topic: &str, lane: &str) -> Builder {
        let name = format!("route-{}", self.routes.matches("[[route]]").count());
        self.routes += &format!("[[route]]\nname = {name:?}\nfilter = {filter:?}\n");
        self.routes += &format!("kafka_topic = {kafka_topic:?}\nlane = {lane:?}\n\n");
        self
    }

    /// A route in its own words, before those that are added later.
    pub fn route_table(mut self, lines: &str) -> Builder {
        self.routes += &format!("[[route]]\n{}\n\n", lines.trim_end());
        self
    }

    /// Any other table.
    pub fn table(mut self, head: &str, lines: &str) -> Builder {
        self.tables += &format!("{head}\n{}\n\n", lines.trim_end());
        self
    }

    /// Not started yet.
    pub fn build(self) -> Gateway {
        let dir = jobs::scratch("gw");
        for name in ["state", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("gateway.toml"), self.text(dir.path())).unwrap();
        Gateway { dir, http_port: self.http_port, job: None, starts: 0, kills: 0, environment: Vec::new() }
    }

    fn text(&self, dir: &Path) -> String {
        let gateway = [
            "[gateway]".to_owned(),
            "name = \"forebay-under-test\"".to_owned(),
            format!("state_dir = {:?}", dir.join("state")),
            format!("runtime_dir = {:?}", dir.join("run")),
            String::new(),
            "[http]".to_owned(),
            format!("listen = \"127.0.0.1:{}\"", self.http_port),
        ];
        format!("{}\n\n{}{}", gateway.join("\n"), self.tables, self.routes)
    }
}

/// The Prometheus text format, as far as a name and a number.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).filter_map(|(n, v)| Some((n.to_owned(), v.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_and_says_what_was_asked() {
        let login = Login { user: "u".to_owned(), password: "p".to_owned() };
        let builder = Gateway::builder().mqtt(1883, Some(&login)).kafka("127.0.0.1:9092");
        let gateway = builder.lane("telemetry", "when = \"always\"").route("plant/#", "readings", "telemetry").build();
        let config: toml::Table = fs::read_to_string(gateway.config()).unwrap().parse().unwrap();
        assert_eq!(config["kafka"]["main"]["bootstrap_servers"].as_str(), Some("127.0.0.1:9092"));
        assert_eq!(config["lane"][0]["when"].as_str(), Some("always"));
        assert_eq!(config["route"][0]["kafka_topic"].as_str(), Some("readings"));
        assert_eq!(config["source"]["mqtt"][0]["subscriptions"][0]["filter"].as_str(), Some("plant/#"));
        assert!(Path::new(config["gateway"]["state_dir"].as_str().unwrap()).is_dir());
    }

    #[test]
    fn metrics_are_read_with_their_labels() {
        let text = "# TYPE a counter\na_total{lane=\"x y\"} 3\na_total{lane=\"z\"} 4.5\nb 1\n# EOF\n";
        let read = samples(text);
        assert_eq!(read.len(), 3);
        assert_eq!(read["a_total{lane=\"x y\"}"], 3.0);
    }
}

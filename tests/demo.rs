//! `forebay demo` as a newcomer starts it: the real binary, alone, to its last line.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Far beyond its half a minute: the machine may be building something else as well.
const PATIENCE: Duration = Duration::from_secs(150);
const LINES_MAX: usize = 1_000;

/// A running demo and what it says. Killed when dropped.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    until: Instant,
}

impl Demo {
    fn start(options: &[&str]) -> Demo {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("demo").args(options).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Demo { child, lines, heard: Vec::new(), until: Instant::now() + PATIENCE }
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

    /// All that it said, and how it ended.
    fn finish(mut self) -> (Vec<String>, ExitStatus) {
        while self.line().is_some() {}
        let status = self.child.wait().unwrap();
        (std::mem::take(&mut self.heard), status)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers of the last line: acknowledged, in Kafka, lost, repeated.
fn verdict(lines: &[String]) -> [u64; 4] {
    let last = lines.last().unwrap();
    let words: Vec<&str> = last.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let ["acknowledged", acknowledged, "in", "Kafka", in_kafka, "lost", lost, "repeated", repeated] = words[..] else {
        panic!("not the expected last line: {last:?}");
    };
    [acknowledged, in_kafka, lost, repeated].map(|number| number.parse().unwrap())
}

/// In spool, in Kafka and mode of a line of numbers.
fn moment(line: &str) -> Option<(u64, u64, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "s", _, _, in_spool, in_kafka, mode] = words[..] else { return None };
    Some((in_spool.parse().ok()?, in_kafka.parse().ok()?, mode))
}

#[test]
fn the_demo_loses_nothing_in_its_outage_and_shows_it() {
    let (lines, status) = Demo::start(&["--seconds", "3", "--rate", "100"]).finish();
    let [acknowledged, in_kafka, lost, _] = verdict(&lines);
    assert!(status.success(), "{status}: {lines:#?}");
    assert_eq!((acknowledged, lost), (in_kafka, 0), "{lines:#?}");
    assert!(acknowledged >= 400, "{lines:#?}");

    let text = lines.join("\n");
    let (well, rest) = text.split_once("2. Kafka is taken away").unwrap();
    let (away, back) = rest.split_once("3. Kafka is back").unwrap();
    let moments = |phase: &'static str, text: &str| -> Vec<(u64, u64, String)> {
        let found: Vec<_> = text.lines().filter_map(moment).map(|(s, k, mode)| (s, k, mode.to_owned())).collect();
        assert!(!found.is_empty(), "no numbers while {phase}: {text}");
        found
    };
    assert!(moments("all is well", well).iter().all(|(spool, _, mode)| *spool == 0 && mode == "direct"), "{well}");
    let away = moments("Kafka is away", away);
    let (first, last) = (away.first().unwrap(), away.last().unwrap());
    assert!(last.2 == "spooling" && last.0 > first.0 && last.1 == first.1, "{away:?}");
    assert_eq!(moments("Kafka is back", back).last().unwrap().2, "direct", "{back}");
}

#[test]
fn an_interruption_in_the_outage_still_counts_to_the_end() {
    let mut demo = Demo::start(&["--seconds", "600", "--rate", "100", "--json"]);
    // The story goes to stderr then; the interruption comes at any time of the first phase.
    let pid = Pid::from_raw(i32::try_from(demo.child.id()).unwrap());
    drop(signal::kill(pid, Signal::SIGCONT));
    demo.wait_for("{");
}

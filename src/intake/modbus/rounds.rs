//! Turns: who is asked, and what becomes of the answers (steps 1 and 2).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ModbusLine;
use super::answer::exception;
use super::asking::Asking;
use super::plan::Request;
use super::reading::{Head, Quality, Sheet};
use super::register::{Cells, Register};
use super::wire::{Fault, Wire};
use crate::config::ModbusDevice;
use crate::intake::exception::Content;
use crate::intake::feed::{Feeder, Taken, add};
use crate::intake::line::LineEvent;
use crate::intake::poll::{Turned, Turns};
use crate::intake::report::Reporter;

/// While no device of a line answers, one of them is asked this often: a line that is back is found at once.
const PROBE: Duration = Duration::from_secs(1);
const JSON: &str = "application/json";

/// One group of one device.
struct Job {
    device: usize,
    group: usize,
    topic: String,
    asking: Asking,
    sheet: Sheet,
    tried_at: Option<Duration>,
    /// The last reading of a failed turn: the next one is not told before its interval has passed.
    failed_at: Option<Duration>,
    /// What the device refuses, as it was told last.
    refused: Option<String>,
}

/// How a turn ended.
enum Outcome {
    /// `refused`: not everything, by the device's own word.
    Answered {
        refused: Option<String>,
    },
    Mute(String),
    Gone(String),
    NoLine,
}

pub(super) struct Rounds<'a> {
    line: &'a ModbusLine,
    feeder: Feeder,
    reporter: Reporter,
    turns: Turns,
    jobs: Vec<Job>,
    /// Of each device: whether its silence has been told.
    mute_told: Vec<bool>,
    zero: Instant,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(line: &'a ModbusLine) -> Self {
        let (config, random) = (&line.config, &line.random);
        let pairs = || config.devices.iter().enumerate().flat_map(|(at, d)| (0..d.groups.len()).map(move |g| (at, g)));
        let intervals = pairs().map(|(device, group)| (device, config.devices[device].groups[group].interval));
        Rounds {
            line,
            feeder: Feeder::new(&config.name, line.outlet.clone(), config.unacked_bytes_max),
            reporter: Reporter::new(config.report.clone(), Arc::clone(&line.lines)),
            turns: Turns::of_devices(intervals, Duration::ZERO, || random()).probing(PROBE),
            jobs: pairs().map(|(device, group)| job(line, device, group)).collect(),
            mute_told: vec![false; config.devices.len()],
            zero: Instant::now(),
        }
    }

    /// Whose turn it is, and when. Nobody is asked while the answer could not be taken in.
    pub(super) fn due(&self) -> Option<(usize, Instant)> {
        self.turns.next().filter(|_| self.feeder.is_open()).map(|(at, due)| (at, self.zero + due))
    }

    /// Whether no device answers at present.
    pub(super) fn hears_nobody(&self) -> bool {
        (0..self.jobs.len()).all(|at| self.turns.is_mute(at))
    }

    pub(super) fn opened(&mut self) {
        self.turns.hasten(self.zero.elapsed());
    }

    /// Waits until readings have been accepted, and takes note of them. Cancel safe.
    pub(super) async fn settle(&mut self) {
        self.feeder.settle().await;
    }

    pub(super) async fn settle_all(&mut self) {
        while !self.feeder.is_settled() {
            self.feeder.settle().await;
        }
    }

    /// One turn. Returns why the line is gone, if it is.
    pub(super) async fn play(&mut self, at: usize, wire: Option<&mut Wire>) -> Option<String> {
        self.count_skipped(at);
        self.jobs[at].sheet.begin();
        let outcome = match wire {
            Some(wire) => self.ask_all(at, wire).await,
            None => Outcome::NoLine,
        };
        let job = &mut self.jobs[at];
        match &outcome {
            Outcome::Answered { .. } => {}
            Outcome::Mute(reason) | Outcome::Gone(reason) => job.sheet.fail_rest(reason),
            Outcome::NoLine => job.sheet.fail_rest("the line is gone"),
        }
        self.deliver(at, matches!(outcome, Outcome::Answered { .. }));
        self.turn(at, outcome)
    }

    fn device(&self, at: usize) -> &'a ModbusDevice {
        &self.line.config.devices[self.jobs[at].device]
    }

    fn registers(&self, at: usize) -> &'a [Register] {
        &self.device(at).groups[self.jobs[at].group].registers
    }

    fn count_skipped(&mut self, at: usize) {
        let (now, mute) = (self.zero.elapsed(), self.turns.is_mute(at));
        let interval = self.device(at).groups[self.jobs[at].group].interval;
        if let Some(before) = self.jobs[at].tried_at.replace(now).filter(|_| mute) {
            let missed = (now - before).as_nanos() / interval.as_nanos().max(1);
            add(&self.line.counters.skipped, u64::try_from(missed).unwrap_or(u64::MAX).saturating_sub(1));
        }
    }

    async fn ask_all(&mut self, at: usize, wire: &mut Wire) -> Outcome {
        let (device, registers) = (self.device(at), self.registers(at));
        let tries = if self.turns.is_mute(at) { 1 } else { 1 + self.line.config.retries };
        let mut refused = None;
        for (request, cause) in self.jobs[at].asking.begin(self.zero.elapsed()) {
            self.jobs[at].sheet.fail(registers, &request, &cause);
            refused = Some(cause);
        }
        while let Some(request) = self.jobs[at].asking.next() {
            self.feeder.note();
            let answer = ask(self.line, wire, device.unit, request, tries).await;
            let (now, job) = (self.zero.elapsed(), &mut self.jobs[at]);
            match answer {
                Ok(cells) => {
                    job.asking.granted(request);
                    job.sheet.take(registers, &request, &cells, now);
                }
                Err(Fault::Gone(reason)) => return Outcome::Gone(reason),
                // The gateway before it answers, the device does not.
                Err(Fault::Exception(code @ (10 | 11))) => return Outcome::Mute(exception(code)),
                Err(Fault::Exception(code)) => {
                    let cause = exception(code);
                    if matches!(code, 2 | 3) && job.asking.refused(request, &cause, now) {
                        continue;
                    }
                    job.sheet.fail(registers, &request, &cause);
                    refused.get_or_insert(format!("{cause}: {}", place(&request)));
                }
                Err(Fault::Timeout { noise }) => return Outcome::Mute(self.silence(tries, noise)),
                Err(Fault::Misfit(reason)) => return Outcome::Mute(reason),
            }
        }
        Outcome::Answered { refused }
    }

    fn silence(&self, tries: u32, noise: usize) -> String {
        let within = self.line.config.timeout.as_millis();
        let heard = if noise > 0 { format!("; {noise} bytes came that are none") } else { String::new() };
        let times = if tries == 1 { String::new() } else { format!(", {tries} times") };
        format!("no answer within {within} ms{times}{heard}")
    }

    /// Hands the reading over. One of a failed turn is told at its interval at most.
    fn deliver(&mut self, at: usize, answered: bool) {
        let (device, registers, now) = (self.device(at), self.registers(at), self.zero.elapsed());
        let job = &mut self.jobs[at];
        let group = &device.groups[job.group];
        let quality = job.sheet.close(now);
        let told = job.failed_at.filter(|_| !answered).is_some_and(|before| now - before < group.interval);
        if told {
            return;
        }
        job.failed_at = (!answered).then_some(now);
        match quality {
            Quality::Good => {}
            Quality::Stale => add(&self.line.counters.stale, 1),
            Quality::Bad => add(&self.line.counters.bad, 1),
        }
        let head = Head { device: &device.name, group: group.name.as_deref() };
        let taken = Taken {
            topic: &job.topic,
            payload: &job.sheet.payload(registers, &head, now),
            content_type: Some(JSON),
            arrival: (self.line.clock)(),
            unfit: None,
        };
        let content = Content::Fields(job.sheet.values(registers));
        self.reporter.pass(now, quality.name(), content, taken, &mut self.feeder);
        self.feeder.hand_over();
    }

    /// When a change has waited long enough to be reported.
    pub(super) fn report_due(&self) -> Option<Instant> {
        self.reporter.due_at().filter(|_| self.feeder.is_open()).map(|at| self.zero + at)
    }

    pub(super) fn report(&mut self) {
        self.reporter.send_due(self.zero.elapsed(), &mut self.feeder);
        self.feeder.hand_over();
    }

    /// The line ends: all that waits goes.
    pub(super) fn report_all(&mut self) {
        self.reporter.send_all(self.zero.elapsed(), &mut self.feeder);
        self.feeder.hand_over();
    }

    /// Settles whose turn is next, and tells what has changed.
    fn turn(&mut self, at: usize, outcome: Outcome) -> Option<String> {
        let (now, random) = (self.zero.elapsed(), (self.line.random)());
        let refused = match outcome {
            Outcome::Answered { refused } => refused,
            Outcome::Mute(reason) => {
                self.turns.failed(at, now, random);
                self.tell_mute(at, reason);
                return None;
            }
            Outcome::Gone(reason) => {
                self.turns.failed(at, now, random);
                return Some(reason);
            }
            Outcome::NoLine => {
                self.turns.failed(at, now, random);
                return None;
            }
        };
        let device = self.jobs[at].device;
        if self.turns.answered(at, now, random) == Turned::Answers {
            self.jobs.iter_mut().filter(|job| job.device == device).for_each(|job| job.asking.forget());
        }
        if std::mem::take(&mut self.mute_told[device]) {
            self.line.tell(LineEvent::Answers { device: self.device(at).name.clone() });
        }
        self.tell_refused(at, refused);
        None
    }

    fn tell_mute(&mut self, at: usize, reason: String) {
        let device = self.jobs[at].device;
        if !std::mem::replace(&mut self.mute_told[device], true) {
            self.line.tell(LineEvent::Mute { device: self.device(at).name.clone(), reason });
        }
    }

    fn tell_refused(&mut self, at: usize, refused: Option<String>) {
        let device = self.device(at);
        let job = &mut self.jobs[at];
        let name = match device.groups[job.group].name.as_deref() {
            Some(group) => format!("{}/{group}", device.name),
            None => device.name.clone(),
        };
        match (&job.refused, &refused) {
            (None, Some(reason)) => self.line.tell(LineEvent::Refuses { device: name, reason: reason.clone() }),
            (Some(_), None) => self.line.tell(LineEvent::Answers { device: name }),
            _ => {}
        }
        job.refused = refused;
    }
}

fn job(line: &ModbusLine, device: usize, group: usize) -> Job {
    let config = &line.config;
    let of = &config.devices[device];
    let registers = &of.groups[group].registers;
    Job {
        device,
        group,
        topic: config.topic_of(device, group),
        asking: Asking::new(registers, of.limits),
        sheet: Sheet::new(registers.len(), config.stale_for),
        tried_at: None,
        failed_at: None,
        refused: None,
    }
}

/// Asks up to so many times. A device that is busy is asked again as one that says nothing.
async fn ask(line: &ModbusLine, wire: &mut Wire, unit: u8, request: Request, tries: u32) -> Result<Cells, Fault> {
    let (config, counts) = (&line.config, &line.lines);
    for again in (0..tries).rev() {
        add(&counts.requests, 1);
        let fault = match wire.ask(unit, request, config.timeout).await {
            Ok(cells) => return Ok(cells),
            Err(fault) => fault,
        };
        match &fault {
            Fault::Timeout { .. } => add(&counts.timeouts, 1),
            Fault::Misfit(_) => add(&counts.bad_frames, 1),
            Fault::Exception(code) => {
                add(&counts.exceptions, 1);
                add(line.counters.exception(*code), 1);
            }
            Fault::Gone(_) => {}
        }
        let worth_it = matches!(fault, Fault::Timeout { .. } | Fault::Misfit(_) | Fault::Exception(5 | 6));
        if again == 0 || !worth_it {
            return Err(fault);
        }
    }
    Err(Fault::Timeout { noise: 0 })
}

fn place(request: &Request) -> String {
    let Request { table, address, count } = request;
    match count {
        1 => format!("{} {address}", table.name()),
        _ => format!("{} {address} to {}", table.name(), request.end() - 1),
    }
}

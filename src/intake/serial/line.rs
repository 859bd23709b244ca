//! An open line: bytes in, readings out, queries where the device wants to be asked.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::decode::{DecodeError, Decoded};
use super::frame::{Deframer, Found};
use super::health::Health;
use super::port::Port;
use super::{SerialPort, asked_to_stop};
use crate::config::Poll;
use crate::faults;
use crate::intake::feed::{Feeder, Taken, add};
use crate::intake::line::LineEvent;
use crate::intake::poll::{Turned, Turns};
use crate::intake::report::Reporter;
use crate::record::Arrival;

/// One read: some 180 ms of a line at 115,200 baud. What one read holds is taken in even if the gate closes meanwhile.
const READ_BYTES: usize = 2048;
/// A query that cannot be written for so long is stuck behind flow control.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// How a line came to its end.
pub(super) enum Ended {
    Asked,
    Gone(String),
}

/// A query that waits for its answer.
struct Asked {
    poll: usize,
    tries: u32,
    until: Instant,
}

pub(super) struct Line<'a> {
    source: &'a SerialPort,
    port: Port,
    feeder: &'a mut Feeder,
    reporter: &'a mut Reporter,
    health: &'a mut Health,
    deframer: Deframer,
    /// Of the last byte.
    heard_at: Instant,
    turns: Turns,
    asked: Option<Asked>,
    zero: Instant,
    topics: Vec<String>,
    unasked: String,
}

impl<'a> Line<'a> {
    pub(super) fn new(
        source: &'a SerialPort,
        port: Port,
        feeder: &'a mut Feeder,
        reporter: &'a mut Reporter,
        health: &'a mut Health,
        zero: Instant,
    ) -> Self {
        let config = &source.config;
        let random = &source.random;
        Line {
            source,
            port,
            feeder,
            reporter,
            health,
            deframer: Deframer::new(config.frame.clone()),
            heard_at: Instant::now(),
            turns: Turns::new(config.polls.iter().map(|poll| poll.interval), zero.elapsed(), || random()),
            asked: None,
            zero,
            topics: (0..config.polls.len()).map(|poll| config.topic_of(Some(poll))).collect(),
            unasked: config.topic_of(None),
        }
    }

    pub(super) async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Ended {
        let mut bytes = [0; READ_BYTES];
        loop {
            faults::hang("1-line-hangs").await;
            let open = self.feeder.is_open();
            let due = self.due_at();
            let patience = due.unwrap_or_else(Instant::now);
            let step = tokio::select! {
                biased;
                () = asked_to_stop(stop) => return self.end(Ended::Asked),
                () = self.feeder.settle() => self.reopened(open),
                () = sleep_until(patience), if due.is_some() => self.on_time().await,
                read = self.port.stream.read(&mut bytes), if open => self.on_read(read, &bytes),
            };
            if let Err(error) = step {
                return self.end(Ended::Gone(error.to_string()));
            }
        }
    }

    /// What waits for its interval goes now: nobody knows when the line is back.
    fn end(&mut self, ended: Ended) -> Ended {
        self.interrupt();
        self.reporter.send_all(self.zero.elapsed(), self.feeder);
        self.feeder.hand_over();
        ended
    }

    fn interrupt(&mut self) {
        let lines = &self.source.lines;
        self.deframer.interrupt(&mut |found| {
            if let Found::Noise(bytes) = found {
                add(&lines.noise_bytes, bytes as u64);
            }
        });
    }

    /// The next thing to be done without anything being heard.
    fn due_at(&self) -> Option<Instant> {
        let frame = self.deframer.patience().map(|patience| self.heard_at + patience);
        let silence = self.health.silent_at().map(|at| self.zero + at);
        let late = self.reporter.due_at().filter(|_| self.feeder.is_open()).map(|at| self.zero + at);
        // Nobody is asked while the answer could not be taken in.
        let turn = match &self.asked {
            Some(asked) => Some(asked.until),
            None => self.turns.next().filter(|_| self.feeder.is_open()).map(|(_, due)| self.zero + due),
        };
        [frame, silence, late, turn].into_iter().flatten().min()
    }

    fn reopened(&mut self, was_open: bool) -> io::Result<()> {
        if !was_open && self.feeder.is_open() && self.port.is_overrun() {
            add(&self.source.lines.overruns, 1);
            self.source.tell(LineEvent::Overrun);
        }
        Ok(())
    }

    /// A port that has hung up answers every read at once with nothing, or with an error: both mean that it is gone.
    fn on_read(&mut self, read: io::Result<usize>, bytes: &[u8]) -> io::Result<()> {
        let count = read?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the port has hung up"));
        }
        self.heard_at = Instant::now();
        self.take(Some(&bytes[..count]));
        Ok(())
    }

    /// Steps 1 and 2 for all that these bytes complete, or that a silence ends.
    fn take(&mut self, bytes: Option<&[u8]>) {
        let poll = self.asked.as_ref().map(|asked| asked.poll);
        let mut taker = Taker {
            source: self.source,
            feeder: self.feeder,
            reporter: self.reporter,
            health: self.health,
            topic: poll.map_or(&self.unasked, |poll| &self.topics[poll]),
            arrival: (self.source.clock)(),
            now: self.zero.elapsed(),
            why: "no end of a frame",
            payload: Vec::new(),
            good: 0,
        };
        match bytes {
            Some(bytes) => self.deframer.feed(bytes, &mut |found| taker.found(&found)),
            None => self.deframer.idle(&mut |found| taker.found(&found)),
        }
        let answered = taker.good > 0;
        self.feeder.hand_over();
        if let (true, Some(asked)) = (answered, self.asked.take_if(|_| answered)) {
            let (now, random) = (self.zero.elapsed(), (self.source.random)());
            if self.turns.answered(asked.poll, now, random) == Turned::Answers {
                self.source.tell(LineEvent::Answers { device: self.poll(asked.poll).name.clone() });
            }
        }
    }

    fn poll(&self, poll: usize) -> &Poll {
        &self.source.config.polls[poll]
    }

    async fn on_time(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.deframer.patience().is_some_and(|patience| self.heard_at + patience <= now) {
            // Set anew: with nothing heard in between, what is left waits for another full silence.
            self.heard_at = now;
            self.take(None);
        }
        if self.feeder.is_open() {
            self.reporter.send_due(self.zero.elapsed(), self.feeder);
            self.feeder.hand_over();
        }
        if let Some(event) = self.health.check_silence(self.zero.elapsed()) {
            self.source.tell(event);
        }
        match self.asked.take() {
            Some(asked) if asked.until > now => self.asked = Some(asked),
            Some(asked) => return self.unanswered(asked).await,
            None => {
                let due = self.turns.next().filter(|(_, due)| self.zero + *due <= now && self.feeder.is_open());
                if let Some((poll, _)) = due {
                    return self.ask(poll, 0).await;
                }
            }
        }
        Ok(())
    }

    async fn unanswered(&mut self, asked: Asked) -> io::Result<()> {
        add(&self.source.lines.timeouts, 1);
        let poll = self.poll(asked.poll);
        // One that is known to be mute gets one try, for the sake of the others.
        if asked.tries < poll.retries && !self.turns.is_mute(asked.poll) {
            return self.ask(asked.poll, asked.tries + 1).await;
        }
        let reason = format!("no answer within {} ms, {} times", poll.timeout.as_millis(), asked.tries + 1);
        let (device, now) = (poll.name.clone(), self.zero.elapsed());
        if self.turns.failed(asked.poll, now, (self.source.random)()) == Turned::Mute {
            self.source.tell(LineEvent::Mute { device, reason });
        }
        Ok(())
    }

    async fn ask(&mut self, poll: usize, tries: u32) -> io::Result<()> {
        // A late answer to an earlier query must not be taken for the answer to this one.
        self.port.clear_input();
        self.interrupt();
        let config = self.source.config.polls[poll].clone();
        let written = async {
            self.port.stream.write_all(&config.query).await?;
            self.port.stream.flush().await
        };
        timeout(WRITE_PATIENCE, written).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the query could not be written: flow control holds it"))
        })?;
        add(&self.source.lines.requests, 1);
        self.asked = Some(Asked { poll, tries, until: Instant::now() + config.timeout });
        Ok(())
    }
}

/// Takes what was found in one read.
struct Taker<'t> {
    source: &'t SerialPort,
    feeder: &'t mut Feeder,
    reporter: &'t mut Reporter,
    health: &'t mut Health,
    topic: &'t str,
    arrival: Arrival,
    now: Duration,
    why: &'static str,
    payload: Vec<u8>,
    good: usize,
}

impl Taker<'_> {
    fn found(&mut self, found: &Found<'_>) {
        let (lines, counters) = (&self.source.lines, &self.source.outlet.counters);
        match found {
            Found::Frame(frame) => self.frame(frame),
            Found::Noise(bytes) => {
                add(&lines.noise_bytes, *bytes as u64);
                let event = self.health.noise(*bytes, self.why);
                event.into_iter().for_each(|event| self.source.tell(event));
            }
            Found::Bad(why) => {
                self.why = words(*why);
                if *why == super::frame::Bad::TooLong {
                    add(&counters.oversize, 1);
                } else {
                    add(&lines.bad_frames, 1);
                }
            }
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        match self.source.config.decoder.decode(frame) {
            Ok(decoded) => {
                let event = self.health.good(self.now);
                event.into_iter().for_each(|event| self.source.tell(event));
                self.good += 1;
                self.pass(decoded);
            }
            Err(error) => self.unfit(frame, &error),
        }
    }

    fn pass(&mut self, decoded: Decoded<'_>) {
        decoded.write(&mut self.payload);
        let content_type = self.source.config.decoder.content_type();
        let taken =
            Taken { topic: self.topic, payload: &self.payload, content_type, arrival: self.arrival, unfit: None };
        self.reporter.pass(self.now, "", decoded, taken, self.feeder);
    }

    fn unfit(&mut self, frame: &[u8], error: &DecodeError) {
        add(&self.source.lines.undecoded, 1);
        let event = self.health.noise(frame.len(), "frames that cannot be decoded");
        event.into_iter().for_each(|event| self.source.tell(event));
        let cause = error.to_string();
        let (topic, arrival) = (self.topic, self.arrival);
        self.feeder.take(Taken { topic, payload: frame, content_type: None, arrival, unfit: Some(&cause) });
    }
}

fn words(why: super::frame::Bad) -> &'static str {
    match why {
        super::frame::Bad::Checksum => "wrong checksum",
        super::frame::Bad::TooLong => "longer than `max`",
        super::frame::Bad::Malformed => "malformed",
        super::frame::Bad::Unfinished => "not finished in time",
    }
}

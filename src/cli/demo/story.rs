//! What a person reads: the picture, a line a second, and the verdict. Written for someone who knows machines and has
//! never seen Kafka. Owns where it goes; it takes no numbers itself.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::DemoArgs;
use super::entry::Entry;
use super::play::{DEVICES, EQUIPMENTS};
use super::stage::Stage;
use crate::cli::exit;
use crate::spool::lane::Mode;

/// One moment.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Since the devices began.
    pub seconds: u64,
    /// The devices have sent it; with a broker between, the broker has it.
    pub published: u64,
    /// PUBACKs of the gateway.
    pub acknowledged: u64,
    pub in_spool: u64,
    /// Distinct readings that the witness has read.
    pub in_kafka: u64,
    pub mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Well,
    Away,
    Back,
    Count,
}

/// The end in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Readings that the devices sent; with a broker between, those that it acknowledged to them.
    pub published: u64,
    /// Readings that the gateway acknowledged, to the devices or to the broker between.
    pub acknowledged: u64,
    /// Distinct readings that were found in Kafka.
    pub in_kafka: u64,
    /// Safe and not delivered, because Kafka did not come back in time.
    pub in_spool: u64,
    /// Acknowledged and nowhere to be found.
    pub lost: u64,
    /// Records in Kafka beyond the first of a reading.
    pub repeated: u64,
}

impl Verdict {
    pub fn new(published: u64, acknowledged: u64, in_kafka: u64, in_spool: u64, repeated: u64) -> Self {
        let lost = acknowledged.saturating_sub(in_kafka + in_spool);
        Self { published, acknowledged, in_kafka, in_spool, lost, repeated }
    }

    /// Of [`super`]'s list. A demo in which nothing flowed has shown nothing.
    pub fn exit_code(&self) -> u8 {
        if self.lost > 0 {
            exit::SOFTWARE
        } else if self.acknowledged == 0 {
            exit::UNAVAILABLE
        } else if self.in_spool > 0 || self.acknowledged < self.published {
            exit::TEMPFAIL
        } else {
            exit::OK
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, in_kafka, in_spool, lost, repeated, .. } = self;
        write!(f, "acknowledged {acknowledged}, in Kafka {in_kafka}, ")?;
        if *in_spool > 0 {
            write!(f, "still in the spool {in_spool}, ")?;
        }
        write!(f, "lost {lost}, repeated {repeated}")
    }
}

/// Writes to stdout, or to stderr where stdout is for a script.
pub struct Story {
    out: Box<dyn Write>,
    json: bool,
    way: &'static Way,
}

/// The way of a reading, what the first two columns count, and what a person reads of it.
struct Way {
    picture: &'static str,
    published: &'static str,
    acknowledged: &'static str,
    well: &'static str,
    /// What Forebay does while Kafka is away.
    away: &'static str,
    /// What becomes of the lane when Kafka is back.
    back: &'static str,
    question: &'static str,
    /// Who has what was not acknowledged at the end, and what that means.
    held_back: &'static str,
}

const STRAIGHT: Way = Way {
    picture: "--MQTT--> Forebay ---------> Kafka
                         |             ^
                         +--> spool ---+
                              (a file on this disk)",
    published: "sent",
    acknowledged: "readings that Forebay has confirmed to the device: each is in Kafka or in the spool",
    well: STRAIGHT_TO_KAFKA,
    away: KEEPS_ACKNOWLEDGING,
    back: DIRECT_AGAIN,
    question: ACKNOWLEDGED,
    held_back: "are still with the devices: never acknowledged, never lost by Forebay",
};

const THROUGH_A_BROKER: Way = Way {
    picture: "--MQTT--> broker --MQTT--> Forebay ---------> Kafka
                                          |             ^
                                          +--> spool ---+
                                               (a file on this disk)",
    published: "handed to the broker",
    acknowledged: "readings that Forebay has confirmed to the broker: each is in Kafka or in the spool",
    well: STRAIGHT_TO_KAFKA,
    away: KEEPS_ACKNOWLEDGING,
    back: DIRECT_AGAIN,
    question: ACKNOWLEDGED,
    held_back: "are still with the broker: never acknowledged, never lost by Forebay",
};

const ON_LINES: Way = Way {
    picture: "--serial--> Forebay ---> spool ---> Kafka
                                   (a file on this disk)",
    published: "written on their lines",
    acknowledged: "readings that are safe: each is in Kafka or in the spool. No device on a line hears of it",
    well: "Each reading is written to disk first, since nobody sends it again, and then goes to Kafka.",
    away: "The devices go on, as no serial line can wait. Their readings are safe on disk.",
    back: "The spool drains in order.",
    question: "Is every reading that was accepted in Kafka?",
    held_back: "were on the lines and not accepted: nobody sends them again",
};

const STRAIGHT_TO_KAFKA: &str = "Readings go straight to Kafka; none is written to disk.";
const KEEPS_ACKNOWLEDGING: &str = "Forebay keeps acknowledging, now because the readings are safe on disk.";
const DIRECT_AGAIN: &str = "The spool drains in order; after 10 s without trouble the lane is direct again.";
const ACKNOWLEDGED: &str = "Is every acknowledged reading in Kafka?";

const HEAD: &str = "    time   published   acknowledged   in spool   in Kafka   lane";

impl Story {
    pub fn new(json: bool, entry: &Entry) -> Self {
        let out: Box<dyn Write> = if json { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
        let way = match entry {
            Entry::Listener(_) => &STRAIGHT,
            Entry::Broker(_) => &THROUGH_A_BROKER,
            Entry::Lines(_) => &ON_LINES,
        };
        Self { out, json, way }
    }

    pub fn opening(&mut self, stage: &Stage, args: &DemoArgs) {
        let door = match &stage.entry {
            Entry::Listener(server) => format!("Forebay listens at {}:{}", server.host, server.port),
            Entry::Broker(server) => format!("Broker: {}:{}", server.host, server.port),
            Entry::Lines(ports) => {
                let folder = ports.first().and_then(|port| port.parent()).unwrap_or(Path::new("/"));
                format!("Their ports are in {}", folder.display())
            }
        };
        let kafka = if stage.kafka.is_some() { "inside this program" } else { stage.bootstrap_servers.as_str() };
        let Way { picture, published, acknowledged, .. } = self.way;
        self.say(&format!(
            "
  {DEVICES} devices {picture}

  {DEVICES} devices with {EQUIPMENTS} machines each publish {rate} readings/s. {door}. Kafka: {kafka}.

  published      readings that the devices have {published}
  acknowledged   {acknowledged}
  in spool       readings on disk that are not in Kafka yet
  in Kafka       readings found in Kafka by a reader of its own
  lane           direct: straight to Kafka; spooling: to disk first, and from there to Kafka

  Look inside from a second terminal:  forebay status --config {config}
  Ctrl-C ends the demo and counts.",
            rate = args.rate,
            config = stage.config_path().display(),
        ));
    }

    /// The headline of a phase, and the columns where lines follow.
    pub fn phase(&mut self, phase: Phase, embedded: bool) {
        let Way { well, away, back, question, .. } = self.way;
        let text = match (phase, embedded) {
            (Phase::Well, _) => format!("1. All is well. {well}"),
            (Phase::Away, true) => format!("2. Kafka is taken away. {away}"),
            (Phase::Away, false) => format!("2. Your turn: take your Kafka away. {away}"),
            (Phase::Back, true) => format!("3. Kafka is back. {back}"),
            (Phase::Back, false) => format!("3. Bring your Kafka back. {back}"),
            (Phase::Count, _) => format!("4. The devices stop. {question}"),
        };
        self.say(&format!("\n{text}"));
        if phase != Phase::Count {
            self.say(HEAD);
        }
    }

    pub fn line(&mut self, numbers: &Numbers) {
        self.say(&numbers.to_string());
    }

    /// `readings` waited in the spool when Kafka came back.
    pub fn drained(&mut self, readings: u64, took: Duration) {
        self.say(&format!(
            "           the {readings} readings that waited are in Kafka, after {:.1} s",
            took.as_secs_f64()
        ));
    }

    pub fn kept(&mut self, dir: &Path, config: &Path, in_spool: u64) {
        let (dir, config) = (dir.display(), config.display());
        if in_spool > 0 {
            self.say(&format!(
                "   {in_spool} readings wait in {dir}. Once Kafka is back, this delivers them:\n   forebay run --config {config}"
            ));
        } else {
            self.say(&format!("   kept: {dir}"));
        }
    }

    /// The last line.
    pub fn verdict(&mut self, verdict: &Verdict) {
        let held_back = verdict.published.saturating_sub(verdict.acknowledged);
        if held_back > 0 {
            self.say(&format!("   {held_back} readings {}", self.way.held_back));
        }
        if verdict.repeated > 0 {
            self.say("   A repeated record has the id of the first one (header forebay-id): a consumer can drop it.");
        }
        self.say(&format!("   {verdict}"));
        if let (true, Ok(document)) = (self.json, serde_json::to_string(verdict)) {
            // A reader that has gone away has no use for it.
            let _ = writeln!(std::io::stdout(), "{document}");
        }
    }

    fn say(&mut self, text: &str) {
        // A reader that has gone away has no use for it; the demo counts to the end all the same.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, published, acknowledged, in_spool, in_kafka, mode } = self;
        let lane = match mode {
            Mode::Direct => "direct",
            Mode::Spooling => "spooling",
        };
        write!(f, "{seconds:>6} s {published:>11} {acknowledged:>14} {in_spool:>10} {in_kafka:>10}   {lane}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_adds_up() {
        let check = |(published, acknowledged, in_kafka, in_spool), lost, code| {
            let verdict = Verdict::new(published, acknowledged, in_kafka, in_spool, 0);
            assert_eq!((verdict.lost, verdict.exit_code()), (lost, code), "{verdict:?}");
        };
        check((100, 100, 100, 0), 0, exit::OK);
        check((100, 100, 99, 0), 1, exit::SOFTWARE);
        check((100, 100, 60, 30), 10, exit::SOFTWARE);
        check((100, 100, 60, 40), 0, exit::TEMPFAIL);
        check((100, 90, 90, 0), 0, exit::TEMPFAIL);
        // What was with the producer at the end may be in both places.
        check((100, 100, 70, 40), 0, exit::TEMPFAIL);
        check((0, 0, 0, 0), 0, exit::UNAVAILABLE);
    }

    #[test]
    fn the_last_line_is_short_and_names_the_spool_only_if_something_is_in_it() {
        let line = |in_spool| Verdict::new(9, 9, 9 - in_spool, in_spool, 1).to_string();
        assert_eq!(line(0), "acknowledged 9, in Kafka 9, lost 0, repeated 1");
        assert_eq!(line(4), "acknowledged 9, in Kafka 5, still in the spool 4, lost 0, repeated 1");
    }

    #[test]
    fn numbers_stand_below_their_heads() {
        let numbers = Numbers {
            seconds: 12,
            published: 1360,
            acknowledged: 1359,
            in_spool: 240,
            in_kafka: 1118,
            mode: Mode::Spooling,
        };
        let line = numbers.to_string();
        let ends = |text: &str, what: &str| text.find(what).map(|at| at + what.len());
        for (head, number) in [("published", "1360"), ("acknowledged", "1359"), ("spool", "240"), ("Kafka", "1118")] {
            assert_eq!(ends(HEAD, head), ends(&line, number), "{head}\n{HEAD}\n{line}");
        }
        assert_eq!(HEAD.find("lane"), line.find("spooling"), "\n{HEAD}\n{line}");
    }
}

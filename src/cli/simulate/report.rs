//! What a person or a script reads: progress while it goes on, and the summary at the end.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::run::{Event, Outcome, Run};
use super::tally::{Counts, FaultCounts};

/// Failures and ids beyond these are counted, not listed. The ids that a full window of 50 connections holds fit.
const FAILURES_MAX: usize = 10;
const IDS_MAX: usize = 10_000;

/// The end of a run in numbers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The producer id of the run.
    pub instance: String,
    pub qos: u8,
    pub connections: usize,
    /// Messages, each once however often it was sent again.
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Neither acknowledged nor refused; for QoS 0 nothing is awaited and this is 0.
    pub unacknowledged: u64,
    pub resent: u64,
    pub stray_acknowledgements: u64,
    pub skipped_readings: u64,
    pub disconnects: u64,
    /// From the first sending to the last acknowledgement.
    pub seconds: f64,
    /// Acknowledged (for QoS 0: sent) messages per second.
    pub rate: f64,
    pub latency_ms: LatencyMs,
    pub faults: FaultCounts,
    /// Messages of each connection, in order: with the instance, all ids that were sent.
    pub sent_per_connection: Vec<u64>,
    /// At most 10,000 of them.
    pub unacknowledged_ids: Vec<String>,
    /// At most 10 of them.
    pub failures: Vec<String>,
}

/// From the first sending to the acknowledgement, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyMs {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Summary {
    pub(super) fn new(run: &Run, outcomes: Vec<Outcome>) -> Self {
        let counts = run.tally.counts();
        let qos = run.limits.qos as u8;
        let seconds = counts.busy().as_secs_f64();
        let done = if qos == 0 { counts.sent } else { counts.acknowledged };
        let failures = outcomes.iter().filter_map(|it| Some(format!("{}: {}", it.client_id, it.failure.as_ref()?)));
        Self {
            instance: run.limits.instance.clone(),
            qos,
            connections: outcomes.len(),
            sent: counts.sent,
            acknowledged: counts.acknowledged,
            refused: counts.refused,
            unacknowledged: if qos == 0 { 0 } else { counts.outstanding() },
            resent: counts.resent,
            stray_acknowledgements: counts.stray,
            skipped_readings: counts.skipped,
            disconnects: counts.disconnects,
            seconds,
            rate: if seconds > 0.0 { done as f64 / seconds } else { 0.0 },
            latency_ms: LatencyMs::of(&counts),
            faults: counts.faults,
            sent_per_connection: outcomes.iter().map(|outcome| outcome.sent).collect(),
            failures: failures.take(FAILURES_MAX).collect(),
            unacknowledged_ids: outcomes.into_iter().flat_map(|it| it.unacknowledged).take(IDS_MAX).collect(),
        }
    }

    /// Whether everything that was sent and awaits an acknowledgement has one, and no client failed.
    pub fn is_complete(&self) -> bool {
        self.unacknowledged == 0 && self.refused == 0 && self.failures.is_empty()
    }
}

impl LatencyMs {
    fn of(counts: &Counts) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        let latency = &counts.latency;
        let at = |q| ms(latency.quantile_us(q));
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: ms(latency.max_us()) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, connections, sent, acknowledged, refused, unacknowledged, .. } = self;
        writeln!(f, "instance        {instance}, {connections} connections, QoS {}", self.qos)?;
        writeln!(f, "sent            {sent} ({} again after {} disconnects)", self.resent, self.disconnects)?;
        writeln!(f, "acknowledged    {acknowledged} ({refused} refused, {unacknowledged} open)")?;
        writeln!(f, "rate            {:.0}/s over {:.3} s", self.rate, self.seconds)?;
        let LatencyMs { p50, p99, max, .. } = self.latency_ms;
        writeln!(f, "acknowledgement p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms")?;
        if self.skipped_readings > 0 {
            writeln!(f, "skipped         {} readings whose time passed", self.skipped_readings)?;
        }
        if self.faults.total() > 0 {
            let FaultCounts { doubles, disorder, late, malformed, burst, die } = self.faults;
            write!(f, "faults          doubles {doubles}, disorder {disorder}, late {late}, malformed {malformed}, ")?;
            writeln!(f, "burst {burst}, die {die}")?;
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "failed          {failure}"))
    }
}

/// Prints progress to stderr: a bar on a terminal, a line now and then elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    count: Option<u64>,
    lines: Mutex<Lines>,
}

/// When lines were last printed.
#[derive(Default)]
struct Lines {
    progress: Option<Instant>,
    trouble: Option<Instant>,
    /// Troubles that were not printed because there was one just before.
    untold: u64,
}

const PROGRESS_LINE_INTERVAL: Duration = Duration::from_secs(5);
/// A thousand devices lose one broker at the same moment.
const TROUBLE_LINE_INTERVAL: Duration = Duration::from_secs(1);

impl Progress {
    /// `count` is what the run will send in all, where that is known.
    pub fn new(count: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| new_bar(count));
        Self { bar, count, lines: Mutex::default() }
    }

    pub fn show(&self, event: &Event) {
        match event {
            Event::Progress(counts) => self.show_counts(counts),
            Event::Connected { .. } => {}
            Event::Disconnected { client_id, reason } => self.show_trouble(client_id, "lost its connection", reason),
            Event::CannotConnect { client_id, reason } => self.show_trouble(client_id, "cannot connect", reason),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show_counts(&self, counts: &Counts) {
        let text = format!(
            "{} sent, {} acknowledged, {} connections, p99 {:.1} ms",
            counts.sent,
            counts.acknowledged,
            counts.connected,
            LatencyMs::of(counts).p99
        );
        if let Some(bar) = &self.bar {
            // With QoS 0 nothing is ever acknowledged.
            bar.set_position(if counts.acknowledged == 0 { counts.sent } else { counts.acknowledged });
            bar.set_message(text);
        } else if self.is_due(|lines| &mut lines.progress, PROGRESS_LINE_INTERVAL) {
            let of = self.count.map(|count| format!(" of {count}")).unwrap_or_default();
            say(&format!("{text}{of}"));
        }
    }

    fn show_trouble(&self, client_id: &str, what: &str, reason: &str) {
        if !self.is_due(|lines| &mut lines.trouble, TROUBLE_LINE_INTERVAL) {
            self.lines().untold += 1;
            return;
        }
        let more = match std::mem::take(&mut self.lines().untold) {
            0 => String::new(),
            untold => format!(" ({untold} more like this before)"),
        };
        let text = format!("{client_id} {what}: {reason}{more}");
        match &self.bar {
            Some(bar) => bar.suspend(|| say(&text)),
            None => say(&text),
        }
    }

    fn is_due(&self, line: impl FnOnce(&mut Lines) -> &mut Option<Instant>, interval: Duration) -> bool {
        let mut lines = self.lines();
        let last = line(&mut lines);
        let due = last.is_none_or(|last| last.elapsed() >= interval);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn new_bar(count: Option<u64>) -> ProgressBar {
    let template = match count {
        Some(_) => "{elapsed_precise} {wide_bar} {percent}% {msg}",
        None => "{elapsed_precise} {spinner} {msg}",
    };
    let bar = count.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    // The templates above are fixed; the default style is what a wrong one would fall back to.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A line on stderr. Nobody is left to tell when that fails.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

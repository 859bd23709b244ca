//! `/metrics`: the snapshot and the sources' counters in Prometheus' terms, base units. Encoded only when asked.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::{BOUNDS_US, Histogram};
use super::snapshot::{LaneSnapshot, Shown, Snapshot, SpoolSnapshot};
use crate::intake::Kind;
use crate::spool::Reason;
use crate::spool::lane::{LaneStats, Mode};

/// One more family of numbers, by whoever owns them: name, help, and per label value the number.
pub type Extra = Box<dyn Fn() -> Vec<ExtraMetric> + Send + Sync>;

/// How long the readings of each source waited for their answers (steps 1 to 5).
pub type Answered = Box<dyn Fn() -> Vec<(String, Histogram)> + Send + Sync>;

/// A counter (`total`) or gauge with at most one label.
#[derive(Debug, Clone)]
pub struct ExtraMetric {
    pub name: &'static str,
    pub help: &'static str,
    pub counter: bool,
    pub label: Option<(&'static str, String)>,
    pub value: f64,
}

pub struct Metrics {
    pub shown: Arc<Shown>,
    registry: Registry,
}

impl Metrics {
    pub fn new(shown: Arc<Shown>, extra: Extra, answered: Answered) -> Self {
        let mut registry = Registry::with_prefix("forebay");
        registry.register_collector(Box::new(Numbers { shown: Arc::clone(&shown), extra, answered }));
        Metrics { shown, registry }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(_) => String::from("# EOF\n"),
        }
    }
}

struct Numbers {
    shown: Arc<Shown>,
    extra: Extra,
    answered: Answered,
}

impl std::fmt::Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Numbers")
    }
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let s = self.shown.get();
        let mut out = Out { encoder: &mut encoder };
        lane_counters(&mut out, &s)?;
        lane_gauges(&mut out, &s)?;
        latencies(&mut out, &s)?;
        answers(&mut out, &(self.answered)())?;
        clusters(&mut out, &s)?;
        spool(&mut out, &s)?;
        out.gauge("uptime_seconds", "Time since the start", None, s.uptime_s as f64)?;
        out.gauge("clock_set", "Whether the wall clock can be right", None, f64::from(u8::from(s.clock_set)))?;
        out.extra(&(self.extra)())
    }
}

struct Out<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Out<'_, '_> {
    fn counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl Iterator<Item = (&'l str, u64)>,
    ) -> Encoded {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, n) in rows {
            ConstCounter::new(n).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl Iterator<Item = (&'l str, f64)>,
    ) -> Encoded {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, n) in rows {
            ConstGauge::new(n).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, n: f64) -> Encoded {
        ConstGauge::new(n).encode(self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    fn total(&mut self, name: &str, help: &str, n: u64) -> Encoded {
        ConstCounter::new(n).encode(self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    /// Rows of one name come one after the other.
    fn extra(&mut self, rows: &[ExtraMetric]) -> Encoded {
        for family in rows.chunk_by(|a, b| a.name == b.name) {
            let first = &family[0];
            let kind = if first.counter { MetricType::Counter } else { MetricType::Gauge };
            let mut encoder = self.encoder.encode_descriptor(first.name, first.help, None, kind)?;
            for row in family {
                let labels: Vec<(&str, &str)> = row.label.iter().map(|(k, v)| (*k, v.as_str())).collect();
                let encoder = encoder.encode_family(&labels)?;
                if row.counter {
                    ConstCounter::new(row.value).encode(encoder)?;
                } else {
                    ConstGauge::new(row.value).encode(encoder)?;
                }
            }
        }
        Ok(())
    }

    /// Rows of one family: each its labels and its histogram.
    fn histograms<'h, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = ([(&'h str, &'h str); N], &'h Histogram)>,
    ) -> Encoded {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, h) in rows {
            let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(h.counts).collect();
            family.encode_family(&labels)?.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
                h.sum_us as f64 / 1e6,
                h.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

type LaneCount = (&'static str, &'static str, fn(&LaneSnapshot) -> u64);
type LaneGauge = (&'static str, &'static str, fn(&LaneSnapshot) -> f64);

fn lane_counters(out: &mut Out<'_, '_>, s: &Snapshot) -> Encoded {
    let families: [LaneCount; 10] = [
        ("lane_accepted", "Records taken in (step 3)", |l| l.stats.accepted),
        ("lane_delivered", "Records acknowledged by Kafka (step 8)", |l| l.stats.delivered),
        ("lane_dead_lettered", "Records put into the dead letters", |l| l.stats.dead_lettered),
        ("lane_lost", "Records in the loss ledger", |l| l.stats.lost),
        ("lane_dropped", "Records dropped by an at-most-once lane", |l| l.stats.dropped),
        ("lane_resent", "Records given to a producer again", |l| l.stats.resent),
        ("lane_sent_again", "Records that the broker had acknowledged and lost", |l| l.stats.sent_again),
        ("lane_settled_early", "Chunks that could not be held for spool.settle", |l| l.stats.settled_early),
        ("lane_to_spooling", "Transitions from direct to spooling", |l| l.stats.to_spooling),
        ("lane_to_direct", "Transitions from spooling to direct", |l| l.stats.to_direct),
    ];
    for (name, help, of) in families {
        out.counter(name, help, "lane", s.lanes.iter().map(|l| (l.name.as_str(), of(l))))?;
    }
    // Every reason from the start on: a rate over a series that appears with its first loss would miss it.
    let lost = Reason::ALL.map(|r| (r.as_str(), s.lost.get(r.as_str()).copied().unwrap_or_default()));
    out.counter("lost", "Records in the loss ledger, by reason", "reason", lost.into_iter())
}

fn lane_gauges(out: &mut Out<'_, '_>, s: &Snapshot) -> Encoded {
    let families: [LaneGauge; 10] = [
        ("lane_spooling", "1 while the lane spools, 0 while it is direct", |l| {
            f64::from(u8::from(l.mode == Mode::Spooling))
        }),
        ("lane_backlog_records", "Durable and undelivered records", |l| l.stats.backlog.records as f64),
        ("lane_backlog_bytes", "Their bytes in the spool", |l| l.stats.backlog.bytes as f64),
        ("lane_history_bytes", "Bytes of delivered chunks that are kept", |l| l.stats.backlog.history_bytes as f64),
        ("lane_settling_bytes", "Bytes of delivered chunks held for spool.settle", |l| {
            l.stats.backlog.settling_bytes as f64
        }),
        ("lane_open_records", "Accepted, not durable yet", |l| l.stats.open as f64),
        ("lane_in_flight_records", "With the producer", |l| l.stats.in_flight as f64),
        ("lane_oldest_age_seconds", "Age of the oldest undelivered record", |l| l.oldest_age_s),
        ("lane_parked_topics", "Kafka topics that refuse records", |l| l.stats.parked_topics.len() as f64),
        ("lane_full", "1 while a limit of the lane is reached", |l| f64::from(u8::from(l.stats.full))),
    ];
    for (name, help, of) in families {
        out.gauges(name, help, "lane", s.lanes.iter().map(|l| (l.name.as_str(), of(l))))?;
    }
    Ok(())
}

type StepTime = (&'static str, fn(&LaneStats) -> &Histogram);

/// From which step to which, and where that is counted. One number: the step itself.
const STEPS: [StepTime; 8] = [
    ("2-3", |s| &s.hand_us),
    ("3-4", |s| &s.commit_us),
    ("4", |s| &s.write_us),
    ("3-8", |s| &s.direct_us),
    ("1-8", |s| &s.whole_us),
    ("6", |s| &s.read_us),
    ("7-8", |s| &s.delivery_us),
    ("9", |s| &s.settle_us),
];

fn latencies(out: &mut Out<'_, '_>, s: &Snapshot) -> Encoded {
    let rows = s
        .lanes
        .iter()
        .flat_map(|l| STEPS.iter().map(|(steps, of)| ([("lane", l.name.as_str()), ("steps", *steps)], of(&l.stats))));
    out.histograms("step_seconds", "Time from step to step of a reading's path", rows)
}

fn answers(out: &mut Out<'_, '_>, sources: &[(String, Histogram)]) -> Encoded {
    let rows = sources.iter().map(|(source, h)| ([("source", source.as_str())], h));
    out.histograms("source_answer_seconds", "Steps 1 to 5: arrival to the writing of its answer", rows)
}

fn clusters(out: &mut Out<'_, '_>, s: &Snapshot) -> Encoded {
    let rows = || s.clusters.iter();
    out.gauges(
        "kafka_up",
        "1 when the cluster answered last",
        "cluster",
        rows().map(|c| (c.name.as_str(), f64::from(u8::from(c.up)))),
    )?;
    out.gauges(
        "kafka_in_flight_records",
        "With the producer",
        "cluster",
        rows().map(|c| (c.name.as_str(), c.in_flight as f64)),
    )?;
    out.counter("kafka_producers", "Producers made", "cluster", rows().map(|c| (c.name.as_str(), c.generation)))
}

fn spool(out: &mut Out<'_, '_>, s: &Snapshot) -> Encoded {
    let p = &s.spool;
    out.gauge("spool_used_bytes", "Bytes of the spool file that hold something", None, p.used_bytes as f64)?;
    out.gauge("spool_max_bytes", "Bound of the spool", None, p.max_bytes as f64)?;
    out.gauge("disk_free_bytes", "Free on the spool's file system", None, p.free_disk_bytes as f64)?;
    out.gauge("spool_full", "1 while the spool cannot be written", None, f64::from(u8::from(p.full)))?;
    out.gauge("spool_ballast", "1 while the ballast file is there", None, f64::from(u8::from(p.ballast)))?;
    out.total("spool_commits", "Commits, one fsync each (step 4)", p.commits)?;
    out.total("spool_commit_failures", "Commits that failed", p.commit_failures)?;
    out.total("spool_payload_bytes", "Bytes of records put into chunks", p.payload_bytes)?;
    out.total("spool_chunk_bytes", "Bytes of chunks written", p.chunk_bytes)?;
    out.total("device_written_bytes", "Bytes this process caused to be written to storage", p.device_bytes)?;
    out.gauge("device_written_today_bytes", "The same since midnight UTC", None, p.device_bytes_today as f64)?;
    kept(out, p)
}

fn kept(out: &mut Out<'_, '_>, p: &SpoolSnapshot) -> Encoded {
    let rows = Kind::ALL.map(|kind| (kind.as_str(), p.kept[kind.index()] as f64));
    out.gauges("spool_kept_rows", "Rows that the listeners keep", "kind", rows.into_iter())?;
    let ids = p.message_ids;
    out.gauge("message_ids", "Ids of messages remembered", None, ids.known as f64)?;
    out.total(
        "message_id_duplicates",
        "Messages that came again by their id and were not stored again",
        ids.duplicates,
    )?;
    out.total("message_id_reused", "Messages stored under an id that another payload had", ids.reused)
}

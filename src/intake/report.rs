//! Between what a source has read and its [`Feeder`]: where the configuration asks for it, what says nothing new is left
//! out (`exception.rs` decides), and counted. It was never accepted: no route sees it.

use std::sync::Arc;
use std::time::Duration;

use super::exception::{Content, Exceptions, Offer, Report};
use super::feed::{Feeder, Taken, add};
use super::line::LineCounters;
use crate::record::Arrival;

/// A reading that may have to wait.
#[derive(Debug)]
struct Kept {
    topic: String,
    payload: Vec<u8>,
    content_type: Option<&'static str>,
    /// Its own, however long it waits.
    arrival: Arrival,
}

/// Sends what is to be sent of one source's readings.
pub struct Reporter {
    /// `None`: everything is sent.
    stage: Option<Exceptions<Kept>>,
    lines: Arc<LineCounters>,
    due: Vec<Kept>,
}

impl Reporter {
    pub fn new(report: Option<Report>, lines: Arc<LineCounters>) -> Self {
        Reporter { stage: report.map(Exceptions::new), lines, due: Vec::new() }
    }

    /// Gives a good reading to `feeder`, now or later or not at all. One that is unfit is none of this one's business.
    pub fn pass(
        &mut self,
        now: Duration,
        quality: &str,
        content: impl Into<Content>,
        taken: Taken<'_>,
        feeder: &mut Feeder,
    ) {
        let Some(stage) = &mut self.stage else { return feeder.take(taken) };
        let item = Kept {
            topic: taken.topic.to_owned(),
            payload: taken.payload.to_vec(),
            content_type: taken.content_type,
            arrival: taken.arrival,
        };
        let bytes = size_of::<Kept>() + taken.topic.len() + taken.payload.len();
        let offer = Offer { topic: taken.topic, quality, content: content.into(), item, bytes };
        let suppressed = stage.offer(now, offer, &mut self.due);
        add(&self.lines.suppressed, suppressed);
        self.flush(feeder);
    }

    /// When [`Reporter::send_due`] wants to be called.
    pub fn due_at(&self) -> Option<Duration> {
        self.stage.as_ref()?.due_at()
    }

    /// Changes that have waited long enough.
    pub fn send_due(&mut self, now: Duration, feeder: &mut Feeder) {
        if let Some(stage) = &mut self.stage {
            stage.take_due(now, &mut self.due);
            self.flush(feeder);
        }
    }

    /// All that waits, because the line or the gateway ends.
    pub fn send_all(&mut self, now: Duration, feeder: &mut Feeder) {
        if let Some(stage) = &mut self.stage {
            stage.take_all(now, &mut self.due);
            self.flush(feeder);
        }
    }

    fn flush(&mut self, feeder: &mut Feeder) {
        for kept in self.due.drain(..) {
            feeder.take(Taken {
                topic: &kept.topic,
                payload: &kept.payload,
                content_type: kept.content_type,
                arrival: kept.arrival,
                unfit: None,
            });
        }
    }
}

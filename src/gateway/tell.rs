//! What the hub says of itself: events (each change once), the heartbeat, the snapshot.

use serde_json::{Value, json};

use super::hub::{Hub, SHOW_US};
use crate::clock;
use crate::intake::{Fate, SourceEvent};
use crate::ops::snapshot::{ClusterSnapshot, LaneSnapshot, MessageIdSnapshot, Snapshot};
use crate::spool::Commit;
use crate::spool::disk::device_bytes_written;
use crate::spool::lane::Mode;
use crate::spool::owner::{Request, SetAside};

/// Events are few; more than this waiting means that the spool takes none, and they are counted instead.
const EVENTS_WAITING_MAX: u64 = 1000;
/// Devices may use half of that: ten thousand that come back at once must not hide a loss or a full disk.
const PRESENCE_WAITING_MAX: u64 = EVENTS_WAITING_MAX / 2;
/// Copies of dead letters stop when this much waits in the events lane.
const COPIES_BYTES_MAX: u64 = 2 << 20;
/// Ledger entries told in one commit.
const LOSSES_TOLD_MAX: usize = 200;

impl Hub {
    pub(super) fn begin(&mut self) {
        let s = &mut self.state;
        s.now_us = clock::now_us();
        s.started_us = s.now_us;
        s.heartbeat_at_us = s.now_us + self.config.events.heartbeat.as_micros() as u64;
        s.modes = self.lanes.iter().map(crate::spool::lane::Lane::mode).collect();
        let clusters = self.producers.clusters.len();
        s.producer_retry_at_us = vec![0; clusters];
        s.renewed_for = vec![String::new(); clusters];
        s.reachable = vec![None; clusters];
        s.trouble = vec![String::new(); clusters];
        for i in 0..clusters {
            self.make_producer(i);
        }
        let run = format!("{:016x}", self.state.run);
        self.tell("start", json!({ "version": env!("CARGO_PKG_VERSION"), "config": self.config.hash, "run": run }));
        if let Some(aside) = self.set_aside.take() {
            self.tell_set_aside(&aside);
        }
        self.show();
    }

    pub(super) fn tell_set_aside(&mut self, aside: &SetAside) {
        let file = aside.path.display().to_string();
        self.tell(
            "spool-set-aside",
            json!({ "file": file, "cause": aside.cause, "chunks": aside.chunks, "records": aside.records,
                    "missingAtMost": aside.missing_at_most }),
        );
    }

    /// An event for `forebay.events`.
    pub(super) fn tell(&mut self, event: &str, fields: Value) {
        self.tell_up_to(EVENTS_WAITING_MAX, event, fields);
    }

    fn tell_up_to(&mut self, waiting_max: u64, event: &str, fields: Value) {
        if !self.config.events.enabled {
            return;
        }
        let lane = &mut self.lanes[self.events_lane];
        if lane.stats.open_bytes / 256 > waiting_max {
            lane.stats.dropped += 1;
            return;
        }
        let body = self.events.write(event, fields);
        lane.accept(body, Fate::Forward, None, self.state.now_us, clock::wall_ms());
    }

    pub(super) fn tell_mode(&mut self, lane: usize) {
        let mode = self.lanes[lane].mode();
        if self.state.modes[lane] == mode {
            return;
        }
        self.state.modes[lane] = mode;
        let name = self.lanes[lane].config.name.clone();
        match mode {
            Mode::Direct => tracing::info!(lane = name, "the lane is direct: Kafka answers in time"),
            Mode::Spooling => tracing::info!(lane = name, "the lane is spooling: readings go to disk first"),
        }
        let backlog = self.lanes[lane].stats.backlog.records;
        self.tell("mode", json!({ "lane": name, "mode": mode, "backlog": backlog }));
    }

    pub(super) fn tell_source(&mut self, name: &str, event: &SourceEvent) {
        match event {
            SourceEvent::Line(event) => self.tell_line(name, event),
            SourceEvent::Connected { session_present } => {
                tracing::info!(source = name, session_present, "connected to the MQTT broker");
                self.tell("source-connected", json!({ "source": name, "sessionPresent": session_present }));
            }
            SourceEvent::SessionLost => {
                tracing::warn!(source = name, "the broker has lost our session and what it held for us");
                self.tell("source-session-lost", json!({ "source": name }));
            }
            SourceEvent::Disconnected { reason } => {
                tracing::warn!(source = name, reason, "disconnected from the MQTT broker");
                self.tell("source-disconnected", json!({ "source": name, "reason": reason }));
            }
            SourceEvent::IdentityConflict { takeovers } => {
                tracing::error!(source = name, takeovers, "another client uses our MQTT client id");
                self.tell("identity_conflict", json!({ "source": name, "takeovers": takeovers }));
            }
            SourceEvent::Subscribed { subscriptions } => {
                tracing::info!(source = name, count = subscriptions.len(), "subscribed");
            }
            SourceEvent::Oversize { topic, bytes } => {
                tracing::error!(source = name, topic, bytes, "a packet above packet_size_max went to the dead letters");
                self.tell("oversize", json!({ "source": name, "topic": topic, "bytes": bytes }));
            }
            SourceEvent::SubscriptionRefused { filter, reason } => {
                tracing::error!(source = name, filter, reason, "the broker refuses a subscription");
                self.tell("subscription-refused", json!({ "source": name, "filter": filter, "reason": reason }));
            }
            SourceEvent::ListenerTrouble { reason } => {
                tracing::error!(source = name, reason, "the listener cannot serve as configured");
                self.tell("listener-trouble", json!({ "source": name, "reason": reason }));
            }
            SourceEvent::DeviceConnected { .. }
            | SourceEvent::DeviceDisconnected { .. }
            | SourceEvent::DeviceWill { .. } => self.tell_presence(name, event),
        }
    }

    fn tell_presence(&mut self, name: &str, event: &SourceEvent) {
        let (what, fields) = match event {
            SourceEvent::DeviceConnected { client, user, address, version, session_present } => (
                "device-connected",
                json!({ "source": name, "client": client, "user": user, "address": address, "version": version,
                        "sessionPresent": session_present }),
            ),
            SourceEvent::DeviceDisconnected { client, reason, clean } => {
                ("device-disconnected", json!({ "source": name, "client": client, "reason": reason, "clean": clean }))
            }
            SourceEvent::DeviceWill { client, topic } => {
                ("device-will", json!({ "source": name, "client": client, "topic": topic }))
            }
            _ => return,
        };
        tracing::debug!(source = name, event = what, %fields, "a device");
        self.tell_up_to(PRESENCE_WAITING_MAX, what, fields);
    }

    /// A change of a cluster's reachability, once.
    pub(super) fn reachable(&mut self, cluster: usize, up: bool, cause: &str) {
        if self.state.reachable[cluster] == Some(up) {
            return;
        }
        self.state.reachable[cluster] = Some(up);
        cause.clone_into(&mut self.state.trouble[cluster]);
        let name = self.producers.clusters[cluster].name().to_owned();
        if up {
            tracing::info!(cluster = name, "Kafka answers");
        } else {
            tracing::warn!(cluster = name, cause, "Kafka does not answer; readings are kept");
        }
        self.tell("kafka", json!({ "cluster": name, "up": up, "cause": cause }));
    }

    pub(super) fn disk_is_full(&mut self, full: bool, cause: &str) {
        if self.state.disk_full == full {
            return;
        }
        self.state.disk_full = full;
        self.state.spool.full = full;
        if full {
            tracing::error!(cause, "the spool cannot be written: senders wait, nothing accepted is lost");
        } else {
            tracing::info!("the spool can be written again");
        }
        self.tell("spool-full", json!({ "full": full, "cause": cause }));
    }

    /// Each ledger entry becomes one event, marked as told in the commit that holds the event.
    pub(super) fn tell_losses(&mut self) {
        let room = LOSSES_TOLD_MAX.saturating_sub(self.state.telling.len());
        let count = self.state.untold.len().min(room);
        let roomy = self.lanes[self.events_lane].stats.open_bytes < 256 << 10;
        if count == 0 || !roomy {
            return;
        }
        let losses: Vec<_> = self.state.untold.drain(..count).collect();
        for loss in &losses {
            let mut sequence = 0;
            let lane = self.lanes.iter().find(|l| l.number == loss.lane).map_or("?", |l| l.config.name.as_str());
            if self.config.events.enabled {
                let body = self.events.loss(loss, lane);
                let (now_us, wall_ms) = (self.state.now_us, clock::wall_ms());
                let events = &mut self.lanes[self.events_lane];
                events.accept(body, Fate::Forward, None, now_us, wall_ms);
                sequence = events.last_sequence();
            }
            self.state.telling.push((sequence, loss.id));
        }
    }

    /// Copies for the dead-letter topic, in the commit that buries the originals.
    pub(super) fn copy_dead_letters(&mut self, commit: &Commit) {
        let Some(topic) = self.config.dead_letters.topic.clone() else { return };
        let (now_us, wall_ms) = (self.state.now_us, clock::wall_ms());
        for letter in &commit.dead {
            // After a failed commit the same letters come again; their copies already wait.
            if !self.state.copied.insert((letter.lane, letter.run, letter.sequence)) {
                continue;
            }
            // A copy is a courtesy, the letter itself is in the table: copies never fill the memory.
            if self.lanes[self.events_lane].stats.open_bytes > COPIES_BYTES_MAX {
                self.lanes[self.events_lane].stats.dropped += 1;
                continue;
            }
            if let Some(copy) = self.events.dead_letter(letter, &topic) {
                self.lanes[self.events_lane].accept(copy, Fate::Forward, None, now_us, wall_ms);
            }
        }
    }

    pub(super) fn show(&mut self) {
        self.watch_clock();
        self.watch_wear();
        if self.state.now_us >= self.state.heartbeat_at_us {
            self.state.heartbeat_at_us = self.state.now_us + self.config.events.heartbeat.as_micros() as u64;
            self.heartbeat();
        }
        let snapshot = self.snapshot();
        self.shown.put(snapshot);
    }

    fn heartbeat(&mut self) {
        let wall_ms = clock::wall_ms();
        let lanes: Vec<Value> = self
            .lanes
            .iter()
            .map(|l| {
                let backlog = l.stats.backlog;
                let oldest_age_s = l.oldest_arrival_ms().map_or(0, |at| (wall_ms - at).max(0) / 1000);
                json!({ "lane": l.config.name, "mode": l.mode(), "backlog": backlog.records, "bytes": backlog.bytes,
                        "oldestAgeS": oldest_age_s,
                        "delivered": l.stats.delivered, "lost": l.stats.lost, "dead": l.stats.dead_lettered })
            })
            .collect();
        let s = &self.state;
        let wear = json!({ "deviceBytesToday": s.spool.device_bytes_today, "commits": s.spool.commits });
        let uptime_s = (s.now_us - s.started_us) / 1_000_000;
        let clock_set = s.clock_set;
        let (version, config) = (env!("CARGO_PKG_VERSION"), self.config.hash.clone());
        self.tell(
            "heartbeat",
            json!({ "uptimeS": uptime_s, "version": version, "config": config, "lanes": lanes, "wear": wear,
                    "clockSet": clock_set }),
        );
    }

    /// The wall clock of a box without an RTC is set some time after the start; from then on this boot's offset is known.
    fn watch_clock(&mut self) {
        let wall_ms = clock::wall_ms();
        if !clock::plausible(wall_ms) {
            return;
        }
        let offset = wall_ms - clock::boot_ms() as i64;
        self.producers.times.learn(self.state.run, offset);
        if !self.state.clock_set {
            self.state.clock_set = true;
            let boot_id = clock::boot_id();
            let save = move |store: &mut crate::spool::store::Store| {
                if let Err(error) = store.set_clock_offset(&boot_id, offset) {
                    tracing::warn!(%error, "failed to save the clock's offset");
                }
            };
            // A full queue means that commands wait: the next turn tries again.
            self.state.clock_set = self.owner.ask(Request::Run(Box::new(save))).is_ok();
            if self.state.clock_set && self.state.now_us > self.state.started_us + 2 * SHOW_US {
                tracing::info!("the clock has been set");
                self.tell("clock-set", json!({ "offsetMs": offset }));
            }
        }
    }

    fn watch_wear(&mut self) {
        let budget = self.config.spool.wear_budget_per_day;
        let spool = &mut self.state.spool;
        spool.device_bytes = device_bytes_written();
        let today = self.state.wear.observe(spool.device_bytes, clock::wall_ms(), budget);
        spool.device_bytes_today = today.bytes;
        if today.warn {
            tracing::warn!(bytes = today.bytes, "the flash's daily wear budget is exceeded");
            self.tell("wear", json!({ "deviceBytesToday": today.bytes, "budget": budget }));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let now_us = self.state.now_us;
        let wall_ms = clock::wall_ms();
        let lanes = self
            .lanes
            .iter_mut()
            .map(|l| LaneSnapshot {
                name: l.config.name.clone(),
                mode: l.mode(),
                why: l.config.when_reason.clone(),
                max_bytes: l.config.max_bytes,
                oldest_age_s: l.oldest_arrival_ms().map_or(0.0, |at| (wall_ms - at).max(0) as f64 / 1e3),
                stats: l.snapshot(),
            })
            .collect();
        let s = &self.state;
        let clusters = self.producers.clusters.iter().enumerate().map(|(i, c)| ClusterSnapshot {
            name: c.name().to_owned(),
            up: s.reachable[i] == Some(true),
            in_flight: c.in_flight() as u64,
            generation: c.generation(),
            trouble: s.trouble[i].clone(),
        });
        let mut spool = s.spool.clone();
        spool.max_bytes = self.config.spool.max_bytes;
        let ids = &self.ids.met;
        spool.message_ids =
            MessageIdSnapshot { known: ids.len() as u64, duplicates: ids.duplicates, reused: ids.reused };
        spool.wear_budget_per_day = self.config.spool.wear_budget_per_day;
        Snapshot {
            gateway: self.config.gateway.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            config_hash: self.config.hash.clone(),
            at: wall_ms,
            boot_ms: clock::boot_ms(),
            uptime_s: (now_us - s.started_us) / 1_000_000,
            run: format!("{:016x}", s.run),
            lanes,
            clusters: clusters.collect(),
            spool,
            lost: s.lost.clone(),
            clock_set: s.clock_set,
            events_refused: self.lanes[self.events_lane].stats.dropped,
        }
    }
}

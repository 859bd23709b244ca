//! What a client gets: answers whose turn it is (step 5), and messages that it has subscribed to.

use std::time::Duration;

use super::{Answer, Closing, Machine, READINGS, RELEASES, UNWRITTEN_MAX};
use crate::faults;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::exchange::{Exchange, Release};
use crate::intake::listener::outgoing::Send;
use crate::intake::listener::packet::{self, Outgoing, Refused, kind, reason};
use crate::intake::{Ack, Change};

impl Machine {
    /// Takes fired acks and writes the answers that may leave, in order of arrival [MQTT-4.6.0-2].
    pub(super) fn take_acks(&mut self, exchange: &mut Exchange, now: Duration) {
        let mut fired = Vec::new();
        self.queue.take(&mut fired);
        for ack in fired {
            match ack.generation {
                READINGS => {
                    self.window.fire(ack.number);
                }
                RELEASES => self.take_release(ack.number, exchange),
                _ => {}
            }
        }
        let mut acks = 0;
        while let Some((answer, bytes)) = self.window.take_ready() {
            exchange.gate.free(&mut self.share, bytes);
            acks += self.write_answer(answer, exchange);
            self.answered_at = now;
        }
        if acks > 0 {
            let counters = exchange.counters();
            ListenerCounters::add(&counters.acks, acks);
            self.waits.end(acks, now, &mut counters.answered.lock().expect("no holder of this lock panics"));
        }
        self.window.shrink();
        self.waits.shrink();
        self.pay_owed(exchange);
    }

    /// How many positive answers it was.
    fn write_answer(&mut self, answer: Answer, exchange: &mut Exchange) -> u64 {
        let (kind, packet_id, code) = match answer {
            Answer::Nothing => return 0,
            Answer::PubAck(packet_id) => {
                self.open_count = self.open_count.saturating_sub(1);
                (kind::PUBACK, packet_id, reason::SUCCESS)
            }
            Answer::PubRec(packet_id) => {
                faults::point("q2-before-pubrec");
                exchange.stored(self.session, packet_id, self.connection);
                (kind::PUBREC, packet_id, reason::SUCCESS)
            }
            Answer::PubRecAgain(packet_id) => (kind::PUBREC, packet_id, reason::SUCCESS),
            Answer::Refused { kind, packet_id, code } => {
                self.open_count = self.open_count.saturating_sub(1);
                (kind, packet_id, code)
            }
        };
        packet::write_ack(self.version, kind, packet_id, code, &mut self.out);
        if code != reason::SUCCESS {
            return 0;
        }
        self.share.count -= 1;
        1
    }

    /// The client has our PUBREC: forgets the message, durably, before PUBCOMP [MQTT-4.3.3-11].
    pub(super) fn pubrel(&mut self, packet_id: u16, exchange: &mut Exchange) -> Result<(), Closing> {
        match exchange.release(self.session, packet_id) {
            Release::Delete => {
                faults::point("q2-before-delete");
                self.releasing.push(packet_id);
            }
            Release::Asked if self.releases.iter().any(|(_, ids)| ids.contains(&packet_id)) => {}
            Release::Asked if self.owed.contains(&packet_id) || self.releasing.contains(&packet_id) => {}
            Release::Asked => self.owed.push(packet_id),
            Release::Done => self.write_pubcomp(packet_id, reason::SUCCESS),
            Release::Unknown => self.write_pubcomp(packet_id, reason::ID_NOT_FOUND),
            Release::TooEarly => return Err(Refused::protocol("PUBREL before PUBREC").into()),
        }
        Ok(())
    }

    fn write_pubcomp(&mut self, packet_id: u16, code: u8) {
        self.open_count = self.open_count.saturating_sub(1);
        packet::write_ack(self.version, kind::PUBCOMP, packet_id, code, &mut self.out);
    }

    /// All releases of a turn in one write.
    pub(super) fn ask_for_releases(&mut self, exchange: &mut Exchange) {
        if self.releasing.is_empty() {
            return;
        }
        let ids = std::mem::take(&mut self.releasing);
        let changes: Vec<Change> = ids.iter().filter_map(|&id| exchange.qos2_deletion(self.session, id)).collect();
        if changes.is_empty() {
            return;
        }
        self.last_release += 1;
        self.releases.push_back((self.last_release, ids));
        let ticket = self.ticket(Ack { generation: RELEASES, number: self.last_release });
        exchange.deliver().keep(changes, ticket);
    }

    fn take_release(&mut self, number: u64, exchange: &mut Exchange) {
        let Some(at) = self.releases.iter().position(|(known, _)| *known == number) else { return };
        let Some((_, ids)) = self.releases.remove(at) else { return };
        faults::point("q2-before-pubcomp");
        for packet_id in ids {
            exchange.released(self.session, packet_id, self.connection);
            self.write_pubcomp(packet_id, reason::SUCCESS);
        }
        if self.releases.is_empty() {
            self.releases = Default::default();
        }
    }

    /// PUBCOMPs for what an earlier connection has released.
    fn pay_owed(&mut self, exchange: &Exchange) {
        if self.owed.is_empty() {
            return;
        }
        let (waiting, done) =
            std::mem::take(&mut self.owed).into_iter().partition(|&id| exchange.is_releasing(self.session, id));
        self.owed = waiting;
        let done: Vec<u16> = done;
        for packet_id in done {
            self.write_pubcomp(packet_id, reason::SUCCESS);
        }
    }

    /// SUBACKs and UNSUBACKs whose write is durable.
    pub(super) fn send_replies(&mut self, exchange: &Exchange) {
        while let Some((write, _)) = self.replies.front() {
            if !exchange.is_written(self.session, *write) {
                return;
            }
            if let Some((_, reply)) = self.replies.pop_front() {
                self.out.extend_from_slice(&reply);
            }
        }
    }

    /// Messages for the client, as many as it may get and as fit the buffer.
    pub(super) fn pump(&mut self, exchange: &mut Exchange, now: Duration) {
        while self.out.len() < UNWRITTEN_MAX / 2 {
            match exchange.next_for(self.session, self.send_window, now) {
                None => return,
                Some(Send::PubRel(packet_id)) => {
                    packet::write_ack(self.version, kind::PUBREL, packet_id, reason::SUCCESS, &mut self.out);
                }
                Some(Send::Publish { item, packet_id, dup }) => {
                    let message = Outgoing {
                        topic: &item.message.topic,
                        payload: &item.message.payload,
                        packet_id,
                        qos: item.qos,
                        retain: item.retain,
                        dup,
                        forwarded: &item.message.forwarded,
                        expiry_s: item.message.left_s(now),
                        subscription_ids: &item.ids,
                    };
                    if packet::publish_length(self.version, &message) > self.packet_size_max {
                        // As if it had been sent [MQTT-3.1.2-25].
                        ListenerCounters::add(&exchange.counters().too_large_for_subscriber, 1);
                        exchange.answered(self.session, |outgoing| outgoing.forget(packet_id));
                        continue;
                    }
                    packet::write_publish(self.version, &message, &mut self.out);
                    ListenerCounters::add(&exchange.counters().sent, 1);
                }
            }
        }
    }
}

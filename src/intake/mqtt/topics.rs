//! Which filters the broker's session has, and which it should have. Pure.
//!
//! A persistent session outlives our configuration: filters of an earlier one stay subscribed until somebody
//! unsubscribes them. Every wanted filter is asked for at each connection, because a session may be lost silently and
//! asking again is cheap; a refused one is asked for again with back-off.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Subscription;

/// Filters in one packet: brokers bound the packet, and some the number (AWS: 8).
const FILTERS_PER_PACKET: usize = 8;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Subscribe { pkid: u16, filters: Vec<Subscription> },
    Unsubscribe { pkid: u16, filters: Vec<String> },
}

impl Request {
    fn pkid(&self) -> u16 {
        match self {
            Request::Subscribe { pkid, .. } | Request::Unsubscribe { pkid, .. } => *pkid,
        }
    }
}

/// A filter that the broker did not grant as asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) filter: String,
    pub(super) reason: String,
}

/// An answer to no question of ours, or with another number of results than there were filters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unasked;

#[derive(Debug)]
pub(super) struct Subscriber {
    wanted: Vec<Subscription>,
    /// Filters of the session that are not wanted any more.
    gone: Vec<String>,
    /// Asked and not yet answered, by packet id.
    asked: BTreeMap<u16, Request>,
    refused: Vec<Subscription>,
    /// Refusals that have been told: a lasting condition is told when it begins.
    told: BTreeSet<String>,
    last_pkid: u16,
}

impl Subscriber {
    /// `previous`: all that the session may hold from earlier configurations.
    pub(super) fn new(wanted: &[Subscription], previous: &[Subscription]) -> Self {
        let mut seen = BTreeSet::new();
        let wanted: Vec<Subscription> = wanted.iter().filter(|s| seen.insert(s.filter.clone())).cloned().collect();
        // Entered into `seen` as well, so that a filter listed twice is unsubscribed once.
        let gone = previous.iter().map(|s| s.filter.clone()).filter(|filter| seen.insert(filter.clone())).collect();
        Subscriber { wanted, gone, asked: BTreeMap::new(), refused: Vec::new(), told: BTreeSet::new(), last_pkid: 0 }
    }

    /// A connection is up: what to ask, the unsubscribing first so that less comes in.
    pub(super) fn connected(&mut self, session_present: bool) -> Vec<Request> {
        self.asked.clear();
        self.refused.clear();
        if !session_present {
            self.gone.clear();
        }
        let gone = self.gone.clone();
        let mut requests = Vec::new();
        for filters in gone.chunks(FILTERS_PER_PACKET) {
            requests.push(Request::Unsubscribe { pkid: self.next_pkid(), filters: filters.to_vec() });
        }
        let wanted = self.wanted.clone();
        requests.extend(self.subscribe(&wanted));
        self.asked.extend(requests.iter().map(|request| (request.pkid(), request.clone())));
        requests
    }

    /// Asks again for what was refused.
    pub(super) fn retry(&mut self) -> Vec<Request> {
        let refused = std::mem::take(&mut self.refused);
        let requests = self.subscribe(&refused);
        self.asked.extend(requests.iter().map(|request| (request.pkid(), request.clone())));
        requests
    }

    /// Takes a SUBACK: results are the granted QoS or the reason, in the order of the filters (MQTT-3.9.3-1). Returns
    /// the refusals that have not been told yet. Granted below what was asked counts as granted, but is told: it
    /// means that readings may be lost between the broker and us.
    pub(super) fn suback(&mut self, pkid: u16, results: Vec<Result<u8, String>>) -> Result<Vec<Refusal>, Unasked> {
        let Some(Request::Subscribe { filters, .. }) = self.asked.remove(&pkid) else { return Err(Unasked) };
        if filters.len() != results.len() {
            return Err(Unasked);
        }
        let mut refusals = Vec::new();
        for (subscription, result) in filters.into_iter().zip(results) {
            let reason = match result {
                Ok(qos) if qos >= subscription.qos.min(1) => {
                    self.told.remove(&subscription.filter);
                    continue;
                }
                Ok(qos) => format!("granted at QoS {qos} only"),
                Err(reason) => {
                    self.refused.push(subscription.clone());
                    reason
                }
            };
            if self.told.insert(subscription.filter.clone()) {
                refusals.push(Refusal { filter: subscription.filter, reason });
            }
        }
        Ok(refusals)
    }

    pub(super) fn unsuback(&mut self, pkid: u16) -> Result<(), Unasked> {
        let Some(Request::Unsubscribe { filters, .. }) = self.asked.remove(&pkid) else { return Err(Unasked) };
        self.gone.retain(|filter| !filters.contains(filter));
        Ok(())
    }

    /// Whether answers are outstanding.
    pub(super) fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether the session holds exactly the wanted filters.
    pub(super) fn is_settled(&self) -> bool {
        self.asked.is_empty() && self.refused.is_empty() && self.gone.is_empty()
    }

    pub(super) fn wanted(&self) -> &[Subscription] {
        &self.wanted
    }

    fn subscribe(&mut self, filters: &[Subscription]) -> Vec<Request> {
        let batches = filters.chunks(FILTERS_PER_PACKET);
        batches.map(|batch| Request::Subscribe { pkid: self.next_pkid(), filters: batch.to_vec() }).collect()
    }

    /// Never 0 (MQTT-2.3.1-1).
    fn next_pkid(&mut self) -> u16 {
        self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
        self.last_pkid
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn subscriptions(filters: &[&str]) -> Vec<Subscription> {
        filters.iter().map(|filter| Subscription { filter: (*filter).to_owned(), qos: 1 }).collect()
    }

    fn refused() -> Result<u8, String> {
        Err("no".to_owned())
    }

    #[test]
    fn filters_that_are_gone_are_unsubscribed_until_the_broker_says_so() {
        let mut subscriber = Subscriber::new(&subscriptions(&["a", "b"]), &subscriptions(&["b", "c", "c"]));
        let asked = subscriber.connected(true);
        assert_eq!(
            asked,
            [
                Request::Unsubscribe { pkid: 1, filters: vec!["c".to_owned()] },
                Request::Subscribe { pkid: 2, filters: subscriptions(&["a", "b"]) },
            ]
        );
        subscriber.suback(2, vec![Ok(1), Ok(1)]).unwrap();
        assert!(!subscriber.is_settled());
        // The connection ends before the UNSUBACK: asked again.
        assert_eq!(subscriber.connected(true).len(), 2);
        subscriber.unsuback(3).unwrap();
        subscriber.suback(4, vec![Ok(1), Ok(1)]).unwrap();
        assert!(subscriber.is_settled());
        assert_eq!(subscriber.connected(true).len(), 1);
    }

    #[test]
    fn a_new_session_has_nothing_to_unsubscribe() {
        let mut subscriber = Subscriber::new(&subscriptions(&["a"]), &subscriptions(&["z"]));
        assert_eq!(subscriber.connected(false), [Request::Subscribe { pkid: 1, filters: subscriptions(&["a"]) }]);
    }

    #[test]
    fn a_refusal_is_told_once_and_asked_again_until_granted() {
        let mut subscriber = Subscriber::new(&subscriptions(&["a", "b"]), &[]);
        subscriber.connected(false);
        let told = subscriber.suback(1, vec![Ok(1), refused()]).unwrap();
        assert_eq!(told, [Refusal { filter: "b".to_owned(), reason: "no".to_owned() }]);
        assert_eq!(subscriber.retry(), [Request::Subscribe { pkid: 2, filters: subscriptions(&["b"]) }]);
        assert_eq!(subscriber.suback(2, vec![refused()]).unwrap(), []);
        subscriber.retry();
        assert_eq!(subscriber.suback(3, vec![Ok(1)]).unwrap(), []);
        assert!(subscriber.is_settled());
    }

    #[test]
    fn a_lower_qos_is_granted_but_told() {
        let mut subscriber = Subscriber::new(&subscriptions(&["a"]), &[]);
        subscriber.connected(false);
        assert_eq!(subscriber.suback(1, vec![Ok(0)]).unwrap()[0].reason, "granted at QoS 0 only");
        assert!(subscriber.is_settled());
    }

    #[test]
    fn answers_that_fit_no_question_are_found() {
        let mut subscriber = Subscriber::new(&subscriptions(&["a"]), &[]);
        subscriber.connected(false);
        assert_eq!(subscriber.suback(9, vec![Ok(1)]), Err(Unasked));
        assert_eq!(subscriber.unsuback(1), Err(Unasked));
        subscriber.connected(false);
        assert_eq!(subscriber.suback(2, vec![Ok(1), Ok(1)]), Err(Unasked));
    }

    #[test]
    fn many_filters_are_split_into_packets() {
        let filters: Vec<String> = (0..20).map(|n| format!("t/{n}")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let mut subscriber = Subscriber::new(&subscriptions(&filters), &[]);
        let sizes: Vec<usize> = subscriber
            .connected(false)
            .iter()
            .map(|request| match request {
                Request::Subscribe { filters, .. } => filters.len(),
                Request::Unsubscribe { .. } => 0,
            })
            .collect();
        assert_eq!(sizes, [8, 8, 4]);
    }
}

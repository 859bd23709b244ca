//! Who gets what is published: a tree of filters, a level of a topic for each step. Pure.
//!
//! Its size is bounded by the subscriptions of all sessions; a branch without a subscription is removed.

use std::collections::HashMap;

use super::filter::Parsed;

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    /// Subscription identifier; 0: none.
    pub(super) id: u32,
}

/// One session that gets a message, once, however many of its filters match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) session: u64,
    /// The highest that its matching subscriptions ask for [MQTT-3.3.4-2].
    pub(super) qos: u8,
    pub(super) retain_as_published: bool,
    pub(super) ids: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Router {
    root: Node,
    subscriptions: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    /// Behind `+`.
    any: Option<Box<Node>>,
    /// Whose filter ends here.
    here: Leaf,
    /// Whose filter ends here with `/#`.
    rest: Leaf,
}

#[derive(Debug, Default)]
struct Leaf {
    plain: Vec<(u64, Options)>,
    shares: Vec<Share>,
}

#[derive(Debug)]
struct Share {
    name: Box<str>,
    members: Vec<(u64, Options)>,
    /// Whose turn it is.
    next: usize,
}

impl Router {
    /// `true`: it is new, `false`: it replaces one of the same session and filter.
    pub(super) fn subscribe(&mut self, filter: Parsed<'_>, session: u64, options: Options) -> bool {
        let leaf = self.root.leaf(filter.filter);
        let members = match filter.share {
            None => &mut leaf.plain,
            Some(name) => leaf.share(name),
        };
        let is_new = match members.iter_mut().find(|(member, _)| *member == session) {
            Some((_, known)) => {
                *known = options;
                false
            }
            None => {
                members.push((session, options));
                true
            }
        };
        self.subscriptions += usize::from(is_new);
        is_new
    }

    pub(super) fn unsubscribe(&mut self, filter: Parsed<'_>, session: u64) {
        let levels: Vec<&str> = filter.filter.split('/').collect();
        if self.root.remove(&levels, filter.share, session) {
            self.subscriptions -= 1;
        }
    }

    /// Nobody is there: what is published costs nothing here.
    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions
    }

    /// Who gets a message of `publisher`. Of a share it is the next whose session is connected, else the next.
    pub(super) fn find(
        &mut self,
        topic: &str,
        publisher: u64,
        is_connected: &dyn Fn(u64) -> bool,
        into: &mut Vec<Match>,
    ) {
        into.clear();
        let levels: Vec<&str> = topic.split('/').collect();
        let mut found = Found { publisher, is_connected, into };
        self.root.find(&levels, topic.starts_with('$'), &mut found);
        into.sort_unstable_by_key(|found| found.session);
        into.dedup_by(|again, first| {
            let same = again.session == first.session;
            if same {
                first.qos = first.qos.max(again.qos);
                first.retain_as_published |= again.retain_as_published;
                first.ids.append(&mut again.ids);
            }
            same
        });
    }
}

struct Found<'a> {
    publisher: u64,
    is_connected: &'a dyn Fn(u64) -> bool,
    into: &'a mut Vec<Match>,
}

impl Found<'_> {
    fn add(&mut self, (session, options): (u64, Options)) {
        // [MQTT-3.8.3-3]
        if options.no_local && session == self.publisher {
            return;
        }
        let ids = if options.id == 0 { Vec::new() } else { vec![options.id] };
        let retain_as_published = options.retain_as_published;
        self.into.push(Match { session, qos: options.qos, retain_as_published, ids });
    }

    fn add_all(&mut self, leaf: &mut Leaf) {
        for &member in &leaf.plain {
            self.add(member);
        }
        for share in &mut leaf.shares {
            let count = share.members.len();
            let turns = (0..count).map(|step| (share.next + step) % count);
            let at = turns.clone().find(|&at| (self.is_connected)(share.members[at].0));
            if let Some(at) = at.or_else(|| turns.clone().next()) {
                share.next = (at + 1) % count;
                self.add(share.members[at]);
            }
        }
    }
}

impl Node {
    fn leaf(&mut self, filter: &str) -> &mut Leaf {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return &mut node.rest,
                "+" => node.any.get_or_insert_default(),
                _ => node.children.entry(level.into()).or_default(),
            };
        }
        &mut node.here
    }

    /// Whether it was there. Branches that are empty then are gone.
    fn remove(&mut self, levels: &[&str], share: Option<&str>, session: u64) -> bool {
        let Some((&level, deeper)) = levels.split_first() else { return self.here.remove(share, session) };
        match level {
            "#" => self.rest.remove(share, session),
            "+" => {
                let Some(node) = &mut self.any else { return false };
                let removed = node.remove(deeper, share, session);
                if node.is_empty() {
                    self.any = None;
                }
                removed
            }
            _ => {
                let Some(node) = self.children.get_mut(level) else { return false };
                let removed = node.remove(deeper, share, session);
                if node.is_empty() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// As deep as the tree is: filters have a bounded number of levels.
    fn find(&mut self, levels: &[&str], reserved: bool, found: &mut Found<'_>) {
        // Wildcards at the first level do not match topics that begin with `$` [MQTT-4.7.2-1].
        if !reserved {
            found.add_all(&mut self.rest);
        }
        let Some((&level, deeper)) = levels.split_first() else { return found.add_all(&mut self.here) };
        if let Some(node) = self.any.as_mut().filter(|_| !reserved) {
            node.find(deeper, false, found);
        }
        if let Some(node) = self.children.get_mut(level) {
            node.find(deeper, false, found);
        }
    }
}

impl Leaf {
    fn share(&mut self, name: &str) -> &mut Vec<(u64, Options)> {
        let at = self.shares.iter().position(|share| *share.name == *name).unwrap_or_else(|| {
            self.shares.push(Share { name: name.into(), members: Vec::new(), next: 0 });
            self.shares.len() - 1
        });
        &mut self.shares[at].members
    }

    fn remove(&mut self, share: Option<&str>, session: u64) -> bool {
        let members = match share {
            None => &mut self.plain,
            Some(name) => match self.shares.iter_mut().find(|share| *share.name == *name) {
                Some(share) => &mut share.members,
                None => return false,
            },
        };
        let before = members.len();
        members.retain(|(member, _)| *member != session);
        let removed = members.len() < before;
        self.shares.retain(|share| !share.members.is_empty());
        for share in &mut self.shares {
            share.next %= share.members.len();
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.shares.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::super::filter;
    use super::*;

    fn parsed(text: &str) -> Parsed<'_> {
        filter::parse(text, 32).unwrap()
    }

    fn found(router: &mut Router, topic: &str, publisher: u64) -> Vec<Match> {
        let mut into = Vec::new();
        router.find(topic, publisher, &|session| session < 10, &mut into);
        into
    }

    fn options(qos: u8, id: u32) -> Options {
        Options { qos, id, ..Options::default() }
    }

    #[test]
    fn overlapping_filters_give_one_message_with_all_identifiers() {
        let mut router = Router::default();
        assert!(router.subscribe(parsed("a/#"), 1, options(0, 7)));
        assert!(router.subscribe(parsed("a/+"), 1, options(2, 9)));
        assert!(!router.subscribe(parsed("a/+"), 1, options(1, 8)));
        let all = found(&mut router, "a/b", 0);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].qos, all[0].ids.len()), (1, 2));
        assert!(all[0].ids.contains(&7) && all[0].ids.contains(&8));
    }

    #[test]
    fn no_local_keeps_only_its_own_messages_away() {
        let mut router = Router::default();
        router.subscribe(parsed("a"), 1, Options { no_local: true, ..Options::default() });
        assert!(found(&mut router, "a", 1).is_empty());
        assert_eq!(found(&mut router, "a", 2).len(), 1);
    }

    #[test]
    fn a_share_takes_turns_among_those_who_are_connected() {
        let mut router = Router::default();
        for session in [1, 2, 30] {
            router.subscribe(parsed("$share/g/a/#"), session, Options::default());
        }
        router.subscribe(parsed("$share/h/a/#"), 4, Options::default());
        let turns: Vec<Vec<u64>> =
            (0..4).map(|_| found(&mut router, "a/b", 0).iter().map(|found| found.session).collect()).collect();
        assert_eq!(turns, [[1, 4], [2, 4], [1, 4], [2, 4]]);
        for session in [1, 2] {
            router.unsubscribe(parsed("$share/g/a/#"), session);
        }
        assert_eq!(found(&mut router, "a", 0).len(), 2, "an absent member keeps it in its queue");
        router.unsubscribe(parsed("$share/g/a/#"), 30);
        router.unsubscribe(parsed("$share/h/a/#"), 4);
        assert!(router.is_empty() && router.root.is_empty());
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x", "+"])
    }

    fn filter_text() -> impl Strategy<Value = String> {
        (prop::collection::vec(level(), 1..5), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_each_filter_alone_matches(
            filters in prop::collection::vec(filter_text(), 1..20),
            topics in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!["a", "b", "", "$x"]), 1..6), 1..20),
            removed in prop::collection::vec(any::<bool>(), 20),
        ) {
            let valid: Vec<&String> = filters.iter().filter(|text| filter::parse(text, 32).is_ok()).collect();
            let mut router = Router::default();
            for (session, text) in valid.iter().enumerate() {
                router.subscribe(parsed(text), session as u64, Options::default());
            }
            for (session, text) in valid.iter().enumerate() {
                if removed[session] {
                    router.unsubscribe(parsed(text), session as u64);
                }
            }
            for topic in topics {
                let topic = topic.join("/");
                let expected: Vec<u64> = (0..valid.len())
                    .filter(|&at| !removed[at] && filter::matches(valid[at], &topic))
                    .map(|at| at as u64)
                    .collect();
                let all: Vec<u64> = found(&mut router, &topic, 99).iter().map(|found| found.session).collect();
                prop_assert_eq!(all, expected, "{}", topic);
            }
            for (session, text) in valid.iter().enumerate() {
                router.unsubscribe(parsed(text), session as u64);
            }
            prop_assert!(router.root.is_empty() && router.is_empty());
        }
    }
}

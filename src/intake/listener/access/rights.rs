//! What one client may publish and subscribe to: the listener's rules as they apply to it. Pure.

use std::sync::Arc;

use super::topics;
use crate::config::AclRule;
use crate::route::kafka_name::matches_pattern;

/// Who a client has been found to be.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    pub client_id: &'a str,
    /// Proved by a password or a certificate.
    pub user: Option<&'a str>,
    pub certificate: Option<&'a str>,
}

/// The rights of one client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rights(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    user: Option<String>,
    everything: bool,
    publish: Vec<Box<str>>,
    subscribe: Vec<Box<str>>,
}

impl Rights {
    /// Everything but topics that begin with `$`, for a client without a user.
    pub fn everything() -> Self {
        Self::everything_as(None)
    }

    pub(super) fn everything_as(user: Option<&str>) -> Self {
        let user = user.map(str::to_owned);
        Rights(Arc::new(Inner { user, everything: true, publish: Vec::new(), subscribe: Vec::new() }))
    }

    /// What the rules that apply to `who` allow, all together.
    pub fn of(rules: &[AclRule], who: &Who<'_>) -> Self {
        let fitting = || rules.iter().filter(|rule| applies(rule, who));
        let compile = |filter: &String| topics::substitute(filter, who.user, who.client_id).map(String::into_boxed_str);
        Rights(Arc::new(Inner {
            user: who.user.map(str::to_owned),
            everything: false,
            publish: fitting().flat_map(|rule| &rule.publish).filter_map(compile).collect(),
            subscribe: fitting().flat_map(|rule| &rule.subscribe).filter_map(compile).collect(),
        }))
    }

    /// Topics that begin with `$` are the server's (MQTT-4.7.2-1).
    pub fn may_publish(&self, topic: &str) -> bool {
        if topic.starts_with('$') {
            return false;
        }
        self.0.everything || self.0.publish.iter().any(|filter| topics::matches(filter, topic))
    }

    /// Everything that `filter` can match must be allowed by one rule's filter. Of a shared subscription the filter
    /// counts, not the group.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let Some(filter) = topics::without_share(filter) else { return false };
        self.0.everything || self.0.subscribe.iter().any(|allowed| topics::covers(allowed, filter))
    }

    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// No rule says anything about this client.
    pub fn is_nothing(&self) -> bool {
        !self.0.everything && self.0.publish.is_empty() && self.0.subscribe.is_empty()
    }
}

fn applies(rule: &AclRule, who: &Who<'_>) -> bool {
    let fits = |pattern: &Option<String>, name: Option<&str>| {
        pattern.as_ref().is_none_or(|pattern| name.is_some_and(|name| matches_pattern(pattern, name)))
    };
    fits(&rule.user, who.user) && fits(&rule.client, Some(who.client_id)) && fits(&rule.certificate, who.certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(user: Option<&str>, publish: &[&str], subscribe: &[&str]) -> AclRule {
        let owned = |list: &[&str]| list.iter().map(|&filter| filter.to_owned()).collect();
        AclRule {
            user: user.map(str::to_owned),
            publish: owned(publish),
            subscribe: owned(subscribe),
            ..AclRule::default()
        }
    }

    fn who<'a>(user: Option<&'a str>, client_id: &'a str) -> Who<'a> {
        Who { client_id, user, certificate: None }
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let rules = [rule(Some("press-*"), &["plant/%u/#"], &["cmd/%u/+"]), rule(Some("scada"), &[], &["plant/#"])];
        let press = Rights::of(&rules, &who(Some("press-7"), "c1"));
        assert!(press.may_publish("plant/press-7/temp"));
        assert!(!press.may_publish("plant/press-8/temp"));
        assert!(press.may_subscribe("cmd/press-7/stop"));
        assert!(press.may_subscribe("$share/g/cmd/press-7/+"));
        assert!(!press.may_subscribe("cmd/press-7/#"));
        assert!(!press.may_subscribe("#"));
        let scada = Rights::of(&rules, &who(Some("scada"), "c2"));
        assert!(scada.may_subscribe("plant/+/temp") && !scada.may_publish("plant/x"));
        assert!(Rights::of(&rules, &who(Some("stranger"), "c3")).is_nothing());
        assert!(Rights::of(&rules, &who(None, "c4")).is_nothing());
        assert!(Rights::of(&[], &who(Some("press-7"), "c5")).is_nothing());
    }

    #[test]
    fn rules_add_up() {
        let rules = [rule(None, &["common/%c"], &[]), rule(Some("anna"), &["own/#"], &[])];
        let anna = Rights::of(&rules, &who(Some("anna"), "c1"));
        assert!(anna.may_publish("common/c1") && anna.may_publish("own/x"));
        let nobody = Rights::of(&rules, &who(None, "c2"));
        assert!(nobody.may_publish("common/c2") && !nobody.may_publish("own/x"));
    }

    #[test]
    fn a_rule_for_certificates_needs_one() {
        let mut certified = rule(None, &["#"], &[]);
        certified.certificate = Some("*.plant".to_owned());
        let shown = |certificate| Who { client_id: "c", user: certificate, certificate };
        assert!(Rights::of(&[certified.clone()], &shown(Some("a.plant"))).may_publish("x"));
        assert!(Rights::of(&[certified.clone()], &shown(Some("a.other"))).is_nothing());
        let password_only = Who { client_id: "c", user: Some("a.plant"), certificate: None };
        assert!(Rights::of(&[certified], &password_only).is_nothing());
    }

    #[test]
    fn server_topics_are_never_published() {
        assert!(!Rights::everything().may_publish("$SYS/x"));
        let rules = [rule(None, &["#", "$SYS/#"], &["#"])];
        let rights = Rights::of(&rules, &who(None, "c"));
        assert!(!rights.may_publish("$SYS/x") && rights.may_publish("x"));
        assert!(!rights.may_subscribe("$SYS/#") && rights.may_subscribe("x/#"));
    }
}

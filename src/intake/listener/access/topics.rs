//! Which topics a filter of a rule reaches, and which filters it covers. Pure; allocates nothing.

/// Whether `filter` matches `topic` as MQTT section 4.7 says: `#` takes the parent level too, and a wildcard at the
/// beginning takes no topic that begins with `$` (MQTT-4.7.2-1).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && begins_wild(filter) {
        return false;
    }
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        if part == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if part == "+" || part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether every topic that `wanted` matches is matched by `allowed` too. Says no where it is not sure.
pub fn covers(allowed: &str, wanted: &str) -> bool {
    if wanted.starts_with('$') && begins_wild(allowed) {
        return false;
    }
    let mut levels = wanted.split('/');
    for part in allowed.split('/') {
        if part == "#" {
            return true;
        }
        match levels.next() {
            Some("#") | None => return false,
            Some(level) if part == "+" || part == level => {}
            Some(_) => return false,
        }
    }
    levels.next().is_none()
}

fn begins_wild(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

/// The filter behind `$share/GROUP/`, or the whole (MQTT 5, section 4.8.2). `None`: a group without a filter.
pub fn without_share(filter: &str) -> Option<&str> {
    match filter.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').map(|(_, filter)| filter),
        None => Some(filter),
    }
}

/// A rule's filter for one client: `%u` and `%c` become its user and its client id. `None` where the rule says nothing
/// about this client: it has no user, or a name that is no single level and would reach further than the rule means.
pub fn substitute(filter: &str, user: Option<&str>, client: &str) -> Option<String> {
    let mut whole = String::with_capacity(filter.len());
    let mut rest = filter;
    // One pass: what is put in is not looked at again.
    while let Some(at) = rest.find('%') {
        whole.push_str(&rest[..at]);
        let name = match rest.as_bytes().get(at + 1) {
            Some(b'u') => user?,
            Some(b'c') => client,
            _ => {
                whole.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        };
        if name.is_empty() || name.contains(['/', '+', '#', '\0']) {
            return None;
        }
        // A name at the beginning must not open what belongs to the server.
        if whole.is_empty() && name.starts_with('$') {
            return None;
        }
        whole.push_str(name);
        rest = &rest[at + 2..];
    }
    whole.push_str(rest);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few words, so that filters and topics meet often.
    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")], 1..5).prop_map(|l| l.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn a_covered_filter_matches_no_topic_outside(allowed in filter(), wanted in filter(), topic in topic()) {
            if covers(&allowed, &wanted) && matches(&wanted, &topic) {
                prop_assert!(matches(&allowed, &topic), "{allowed} covers {wanted} but does not match {topic}");
            }
        }

        #[test]
        fn a_filter_covers_itself_and_everything_covers_what_is_no_server_topic(filter in filter()) {
            prop_assert!(covers(&filter, &filter) || filter.starts_with('$'));
            prop_assert!(covers("#", &filter) || filter.starts_with('$'));
        }

        #[test]
        fn a_name_never_widens_a_rule(user in any::<String>(), client in any::<String>(), topic in any::<String>()) {
            let Some(filter) = substitute("own/%u/%c/data", Some(&user), &client) else { return Ok(()) };
            prop_assert_eq!(filter.split('/').count(), 4);
            if matches(&filter, &topic) {
                prop_assert_eq!(topic, format!("own/{user}/{client}/data"));
            }
        }

        #[test]
        fn matching_says_what_the_routes_say(filter in filter(), topic in topic()) {
            // Neither is there in MQTT.
            prop_assume!(!filter.is_empty() && !topic.is_empty());
            let route = crate::route::filter::Filter::parse(&filter).expect("the strategy makes legal filters");
            prop_assert_eq!(matches(&filter, &topic), route.matches(&topic).is_some());
        }
    }

    #[test]
    fn coverage_by_example() {
        for (allowed, wanted, expected) in [
            ("plant/#", "plant", true),
            ("plant/#", "plant/#", true),
            ("plant/+/temp", "plant/7/temp", true),
            ("plant/+/temp", "plant/+/temp", true),
            ("plant/+", "plant/#", false),
            ("plant/+/#", "plant/#", false),
            ("plant/7/#", "plant/+/#", false),
            ("plant/7", "plant/7/x", false),
            ("plant/7/x", "plant/7", false),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/broker", true),
            ("plant/#", "#", false),
        ] {
            assert_eq!(covers(allowed, wanted), expected, "{allowed} {wanted}");
        }
    }

    #[test]
    fn names_that_are_no_level_are_not_put_in() {
        let put = |user, client| substitute("%u/x-%c/%", user, client);
        assert_eq!(put(Some("anna"), "7").as_deref(), Some("anna/x-7/%"));
        assert_eq!(put(Some("%c"), "7").as_deref(), Some("%c/x-7/%"));
        for (user, client) in [
            (None, "7"),
            (Some(""), "7"),
            (Some("+"), "7"),
            (Some("a/b"), "7"),
            (Some("$SYS"), "7"),
            (Some("anna"), "#"),
            (Some("anna"), ""),
        ] {
            assert_eq!(put(user, client), None, "{user:?} {client}");
        }
    }

    #[test]
    fn shared_subscriptions_are_judged_by_their_filter() {
        assert_eq!(without_share("$share/g/plant/#"), Some("plant/#"));
        assert_eq!(without_share("plant/#"), Some("plant/#"));
        assert_eq!(without_share("$share/g"), None);
    }
}

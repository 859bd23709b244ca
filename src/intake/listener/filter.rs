//! Topic filters of subscriptions (4.7, 4.8). Pure.

/// Why a filter is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadFilter;

/// A filter that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    /// Name of the share: one of its subscribers gets each message.
    pub(super) share: Option<&'a str>,
    pub(super) filter: &'a str,
}

/// # Errors
/// [`BadFilter`]: empty [MQTT-4.7.3-1], `#` before other levels [MQTT-4.7.1-1], a wildcard beside other characters
/// [MQTT-4.7.1-2], a share without a name or with a wildcard in it [MQTT-4.8.2-1] [MQTT-4.8.2-2], too many levels.
pub(super) fn parse(text: &str, levels_max: u32) -> Result<Parsed<'_>, BadFilter> {
    let parsed = match text.strip_prefix("$share/") {
        None => Parsed { share: None, filter: text },
        Some(rest) => {
            let (name, filter) = rest.split_once('/').ok_or(BadFilter)?;
            if name.is_empty() || name.contains(['+', '#']) {
                return Err(BadFilter);
            }
            Parsed { share: Some(name), filter }
        }
    };
    if parsed.filter.is_empty() || !has_levels_at_most(parsed.filter, levels_max) {
        return Err(BadFilter);
    }
    let mut levels = parsed.filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if (wild && level.len() > 1) || (level == "#" && levels.peek().is_some()) {
            return Err(BadFilter);
        }
    }
    Ok(parsed)
}

/// Bounds the work of every later match.
pub(super) fn has_levels_at_most(topic: &str, levels_max: u32) -> bool {
    topic.bytes().filter(|&byte| byte == b'/').count() < levels_max.max(1) as usize
}

/// Whether a filter without share matches a topic; the router finds the same for many filters at once.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        if !levels.next().is_some_and(|level| wanted == "+" || wanted == level) {
            return false;
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_filter() {
        let good =
            ["#", "+", "/", "a", "a/#", "+/#", "+/a/+", "a//b", "$SYS/#", "$share/g/a", "$share/g/#", "$share/g//"];
        for text in good {
            assert!(parse(text, 8).is_ok(), "{text}");
        }
        let bad = [
            "",
            "#/a",
            "a#",
            "a+",
            "+a",
            "a/#/b",
            "##",
            "++",
            "+/#/b",
            "$share/",
            "$share/g",
            "$share//x",
            "$share/g/",
            "$share/g+/a",
            "$share/#/a",
            "$share/g/a#",
            "1/2/3/4/5/6/7/8/9",
        ];
        for text in bad {
            assert_eq!(parse(text, 8), Err(BadFilter), "{text}");
        }
        assert_eq!(parse("$share/g/a/b", 8), Ok(Parsed { share: Some("g"), filter: "a/b" }));
    }

    #[test]
    fn what_matches() {
        let yes = [
            ("#", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("+", "a"),
            ("+/+", "/a"),
            ("/+", "/a"),
            ("a/+/c", "a//c"),
            ("$SYS/#", "$SYS/a"),
            ("a/b", "a/b"),
            ("/", "/"),
            ("+/", "a/"),
        ];
        for (filter, topic) in yes {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        let no = [
            ("a", "b"),
            ("+", "a/b"),
            ("+", "/a"),
            ("a/+", "a"),
            ("#", "$SYS/a"),
            ("+/a", "$SYS/a"),
            ("a/b", "a"),
            ("a", "a/"),
            ("a/b/#", "a"),
            ("A", "a"),
        ];
        for (filter, topic) in no {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}

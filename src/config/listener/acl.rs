//! `[[source.listener.acl]]`: who may do what. Pure.

use super::endpoints::{Placed, Proofs};
use super::file::{AclTable, ListenerTable};
use crate::config::fields::Opt;
use crate::config::listener_model::AclRule;
use crate::config::reader::At;
use crate::config::resolve::Resolver;
use crate::config::routes;
use crate::config::scalars::OneOrMany;
use crate::route::filter::Filter;

pub fn resolve(
    at: &At<ListenerTable>,
    endpoints: &[Placed],
    proofs: Proofs,
    certificates: bool,
    r: &mut Resolver<'_>,
) -> Vec<AclRule> {
    let tables = &at.value.acl.0;
    let has_users = proofs.passwords || certificates;
    let asks = endpoints.iter().any(|placed| !placed.endpoint.anonymous);
    if tables.is_empty() && asks && has_users {
        let help = "what no rule allows is denied; add [[source.listener.acl]] with publish = [\"plant/%u/#\"]";
        r.found.error(at.place, "nobody may publish: the listener has no rule").help(help);
    }
    tables.iter().map(|at| rule(at, has_users, certificates, r)).collect()
}

fn rule(at: &At<AclTable>, has_users: bool, certificates: bool, r: &mut Resolver<'_>) -> AclRule {
    let table = &at.value;
    let rule = AclRule {
        user: pattern(&table.user, "user", has_users, r),
        client: pattern(&table.client, "client", true, r),
        certificate: pattern(&table.certificate, "certificate", certificates, r),
        publish: filters(&table.publish, has_users, r),
        subscribe: filters(&table.subscribe, has_users, r),
    };
    let given = |key: &Opt<OneOrMany>| !matches!(key, Opt::Absent);
    if !given(&table.publish) && !given(&table.subscribe) {
        let help = "add publish = [\"...\"] or subscribe = [\"...\"]; there are no rules that deny";
        r.found.error(at.place, "the rule allows nothing").help(help);
    }
    for filter in publish_filters(table).filter(|filter| filter.value.starts_with('$')) {
        let message = format!("no client may publish below {:?}: what begins with `$` is the server's", filter.value);
        r.found.error(filter.place, message).help("remove it");
    }
    rule
}

fn publish_filters(table: &AclTable) -> impl Iterator<Item = &At<String>> {
    table.publish.value().into_iter().flat_map(|list| &list.0)
}

fn pattern(key: &Opt<String>, name: &str, exists: bool, r: &mut Resolver<'_>) -> Option<String> {
    let at = key.get()?;
    if at.value.is_empty() {
        let help = format!("leave `{name}` out: then the rule is for everybody");
        r.found.error(at.place, format!("`{name}` fits nobody: it is empty")).help(help);
    } else if !exists {
        nobody(at, &format!("`{name}`"), r);
    }
    Some(at.value.clone())
}

fn nobody(at: &At<String>, what: &str, r: &mut Resolver<'_>) {
    let message = format!("{what} fits nobody: clients do not prove who they are");
    r.found.warning(at.place, message).help("add `password_file`, or `client_ca_file` below [source.listener.tls]");
}

fn filters(key: &Opt<OneOrMany>, has_users: bool, r: &mut Resolver<'_>) -> Vec<String> {
    let list = key.value().map_or(&[][..], |list| &list.0);
    for at in list {
        check_filter(at, r);
        if at.value.contains("%u") && !has_users {
            nobody(at, "`%u`", r);
        }
    }
    list.iter().map(|at| at.value.clone()).collect()
}

/// `%u` and `%c` are legal text in a filter: they stay one level.
fn check_filter(at: &At<String>, r: &mut Resolver<'_>) {
    if let Some(rest) = at.value.strip_prefix("$share/") {
        let filter = rest.split_once('/').map_or("...", |(_, filter)| filter);
        let message = "a rule names no group: it counts for shared subscriptions as for others";
        r.found.error(at.place, message).help(format!("write {filter:?}"));
        return;
    }
    match Filter::parse(&at.value) {
        Err(error) => routes::report(at, 0, "topic filter", error, r),
        Ok(parsed) if !parsed.captures().is_empty() => {
            let message = format!("a rule has no captures: {:?}", at.value);
            r.found.error(at.place, message).help(format!("write {:?}", parsed.mqtt_filter()));
        }
        Ok(_) => {}
    }
}

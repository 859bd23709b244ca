//! Logins against real password files.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::config::{AclRule, Listener, ListenerLimits};

/// Generous: a busy machine checks a password in a second.
const SOON: Duration = Duration::from_secs(60);

fn listener(password_file: Option<PathBuf>, acl: Vec<AclRule>) -> Arc<Listener> {
    Arc::new(Listener {
        name: "devices".to_owned(),
        endpoints: Vec::new(),
        tls: None,
        password_file,
        acl,
        message_id: None,
        unacked_bytes_max: 1 << 20,
        fan_out_bytes_max: 1 << 20,
        limits: ListenerLimits::default(),
    })
}

fn everything_for(user: Option<&str>) -> AclRule {
    AclRule { user: user.map(str::to_owned), publish: vec!["#".to_owned()], ..AclRule::default() }
}

fn peer(certificate: Option<&str>, anonymous: bool) -> Peer {
    let address = Some("10.0.0.7".parse().unwrap());
    Peer { address, endpoint: "mqtt test".into(), certificate: certificate.map(str::to_owned), anonymous }
}

fn access(config: Arc<Listener>) -> Access {
    Access::new(config, Arc::default())
}

async fn admit(access: &Access, user: Option<&str>, password: Option<&str>, peer: &Peer) -> Result<Rights, Refusal> {
    let login = Login { client_id: "client", user, password: password.map(str::as_bytes), peer };
    tokio::time::timeout(SOON, access.admit(login)).await.unwrap()
}

fn write(path: &Path, users: &[(&str, &str)]) {
    let line = |(user, password): &(&str, &str)| format!("{user}:{}\n", passwords::hash(password.as_bytes()).unwrap());
    let text: String = users.iter().map(line).collect();
    // Another inode: a change shows however fast it comes.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

/// An access with the users anna ("a") and bob ("b"), who may publish everything.
fn with_two_users() -> (tempfile::TempDir, PathBuf, Access) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passwords");
    write(&path, &[("anna", "a"), ("bob", "b")]);
    let access = access(listener(Some(path.clone()), vec![everything_for(None)]));
    (folder, path, access)
}

#[tokio::test]
async fn only_the_right_password_lets_in() {
    let (_folder, _, access) = with_two_users();
    let peer = peer(None, false);
    assert_eq!(admit(&access, Some("anna"), Some("a"), &peer).await.unwrap().user(), Some("anna"));
    for (user, password) in
        [(Some("anna"), Some("b")), (Some("carl"), Some("a")), (Some("anna"), None), (None, Some("a")), (None, None)]
    {
        let refused = admit(&access, user, password, &peer).await.unwrap_err();
        assert_eq!(refused, Refusal::BadCredentials, "{user:?}");
    }
    assert_eq!(access.counters.logins.load(Ordering::Relaxed), 1);
    assert_eq!(access.counters.logins_failed.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_login_that_was_right_once_costs_nothing_more_even_from_an_address_that_guesses() {
    let (_folder, _, access) = with_two_users();
    let peer = peer(None, false);
    admit(&access, Some("anna"), Some("a"), &peer).await.unwrap();
    let verifier = access.passwords.as_ref().unwrap();
    (0..40).for_each(|_| verifier.failed(peer.address));
    // Wrong ones have to wait longer than anybody waits, and take no place of the others.
    assert_eq!(admit(&access, Some("bob"), Some("x"), &peer).await.unwrap_err(), Refusal::Busy);
    assert_eq!(access.counters.logins_slowed.load(Ordering::Relaxed), 1);
    admit(&access, Some("anna"), Some("a"), &peer).await.unwrap();
    let elsewhere = Peer { address: Some("10.0.0.8".parse().unwrap()), ..peer };
    admit(&access, Some("bob"), Some("b"), &elsewhere).await.unwrap();
}

#[tokio::test]
async fn a_changed_file_counts_while_running_and_an_unreadable_one_does_not() {
    let (_folder, path, access) = with_two_users();
    let peer = peer(None, false);
    admit(&access, Some("anna"), Some("a"), &peer).await.unwrap();
    write(&path, &[("anna", "new"), ("bob", "b")]);
    // The old password is remembered as right, but for the old line. Few tries, each from an address of its own.
    let mut n = 0;
    let mut try_anna = async |password| {
        n += 1;
        let peer = Peer { address: Some([10, 1, 0, n].into()), ..peer.clone() };
        admit(&access, Some("anna"), Some(password), &peer).await
    };
    while try_anna("a").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    try_anna("new").await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    while !access.passwords.as_ref().unwrap().is_up_to_date() {
        try_anna("new").await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    try_anna("new").await.unwrap();
}

#[tokio::test]
async fn many_at_once_with_one_password_are_let_in_by_one_check() {
    let (_folder, _, access) = with_two_users();
    let access = Arc::new(access);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let access = Arc::clone(&access);
        tasks.spawn(async move { admit(&access, Some("anna"), Some("a"), &peer(None, false)).await.is_ok() });
    }
    assert!(tasks.join_all().await.into_iter().all(|let_in| let_in));
}

#[tokio::test]
async fn too_many_waiting_are_sent_away() {
    let (_folder, _, access) = with_two_users();
    let access = Arc::new(access);
    // Nobody gets a slot, so that all who come wait.
    let slots = access.passwords.as_ref().unwrap().hold_slots().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300_u32 {
        let access = Arc::clone(&access);
        let peer = Peer { address: Some(n.to_be_bytes().into()), ..peer(None, false) };
        tasks.spawn(async move { admit(&access, Some("anna"), Some("a"), &peer).await.err() });
    }
    while access.counters.logins_busy.load(Ordering::Relaxed) < 300 - 128 {
        tokio::task::yield_now().await;
    }
    drop(slots);
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 128);
    assert!(outcomes.iter().flatten().all(|refusal| *refusal == Refusal::Busy));
}

#[tokio::test]
async fn a_certificate_is_the_user_and_a_password_beside_it_must_fit() {
    let (_folder, _, access) = with_two_users();
    let anna = peer(Some("anna"), false);
    assert_eq!(admit(&access, None, None, &anna).await.unwrap().user(), Some("anna"));
    assert_eq!(admit(&access, Some("whoever"), None, &anna).await.unwrap().user(), Some("anna"));
    admit(&access, Some("anna"), Some("a"), &anna).await.unwrap();
    for (user, password) in [(Some("anna"), "b"), (Some("bob"), "b"), (None, "b")] {
        assert_eq!(admit(&access, user, Some(password), &anna).await.unwrap_err(), Refusal::BadCredentials);
    }
}

#[tokio::test]
async fn anonymous_clients_have_no_user_whatever_they_say() {
    let open = access(listener(None, Vec::new()));
    let rights = admit(&open, Some("admin"), Some("x"), &peer(None, true)).await.unwrap();
    assert!(rights.user().is_none() && rights.may_publish("plant/x") && !rights.may_publish("$SYS/x"));
    assert_eq!(admit(&open, None, None, &peer(None, false)).await.unwrap_err(), Refusal::BadCredentials);
    let ruled = access(listener(None, vec![everything_for(Some("admin"))]));
    assert_eq!(admit(&ruled, Some("admin"), None, &peer(None, true)).await.unwrap_err(), Refusal::NotAuthorized);
    // Without a rule a known user may do nothing.
    let bare = access(listener(None, Vec::new()));
    assert_eq!(admit(&bare, None, None, &peer(Some("anna"), false)).await.unwrap_err(), Refusal::NotAuthorized);
}

#[tokio::test]
async fn one_address_takes_no_more_than_half_of_the_room() {
    let (_folder, _, access) = with_two_users();
    let access = Arc::new(access);
    let slots = access.passwords.as_ref().unwrap().hold_slots().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let access = Arc::clone(&access);
        tasks.spawn(async move { admit(&access, Some("anna"), Some("a"), &peer(None, false)).await.err() });
    }
    while access.counters.logins_busy.load(Ordering::Relaxed) < 100 - 64 {
        tokio::task::yield_now().await;
    }
    let elsewhere = Peer { address: None, ..peer(None, false) };
    let other = tokio::spawn({
        let access = Arc::clone(&access);
        async move { admit(&access, Some("bob"), Some("b"), &elsewhere).await.is_ok() }
    });
    tokio::task::yield_now().await;
    drop(slots);
    assert!(other.await.unwrap());
    assert_eq!(tasks.join_all().await.into_iter().filter(Option::is_none).count(), 64);
    assert_eq!(access.passwords.as_ref().unwrap().waiting(), 0);
}

//! `forebay run`: the service. Loads the config (or goes on with the last good one), starts the gateway, tells systemd,
//! waits for a signal, drains.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{exit, log};
use crate::config::{self, Loaded, Problems};
use crate::gateway::inbox::Ask;
use crate::gateway::{Gateway, GatewayError};
use crate::spool::owner::Request;

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Do not go on with the last good configuration when this one is wrong.
    #[arg(long)]
    strict: bool,
}

/// How long a stage may take to answer a watchdog tick: far beyond any fsync that still comes back.
const TICK_PATIENCE: Duration = Duration::from_secs(60);

pub fn run(path: &Path, args: &RunArgs) -> u8 {
    let loaded = match load(path, args.strict) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return exit::CONFIG;
        }
    };
    die_of_any_panic();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(loaded)),
        Err(error) => {
            eprintln!("failed to start the runtime: {error}");
            exit::OSERR
        }
    }
}

/// Promise 5: an invalid new config does not stop the collecting; the last good one goes on, and that is said loudly.
fn load(path: &Path, strict: bool) -> Result<Loaded, Problems> {
    let problems = match config::load(path) {
        Ok(loaded) => {
            log::init(&loaded.config.log);
            tell_warnings(&loaded);
            if let Err(error) = save(&loaded) {
                tracing::warn!(%error, "failed to keep this configuration as the last good one");
            }
            return Ok(loaded);
        }
        Err(problems) => problems,
    };
    if strict {
        return Err(problems);
    }
    match config::load_last_good(&problems.state_dir) {
        Ok(loaded) => {
            log::init(&loaded.config.log);
            tracing::error!("the configuration is wrong; going on with the last good one. What is wrong:\n{problems}");
            Ok(loaded)
        }
        Err(_) => Err(problems),
    }
}

fn save(loaded: &Loaded) -> Result<(), String> {
    let dir = &loaded.config.gateway.state_dir;
    std::fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
    config::save_last_good(dir, loaded).map_err(|e| e.to_string())
}

fn tell_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}

async fn serve(loaded: Loaded) -> u8 {
    let gateway = match Gateway::start(loaded.config) {
        Ok(gateway) => gateway,
        Err(error) => {
            tracing::error!("failed to {error}");
            return exit::TEMPFAIL;
        }
    };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(wait_for_signal(stop));
    tokio::spawn(feed_watchdog(gateway.inbox(), gateway.requests()));
    match gateway.run(stopped, || drop(sd_notify::notify(&[NotifyState::Ready]))).await {
        Ok(()) => {
            tracing::info!("stopped");
            exit::OK
        }
        Err(error @ (GatewayError::Start(_) | GatewayError::Died(_))) => {
            tracing::error!("failed to {error}");
            exit::SOFTWARE
        }
    }
}

/// A thread that is gone while the others go on would be a gateway that only looks alive: the process ends, systemd
/// starts it again, and nothing acknowledged is lost by that.
fn die_of_any_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        say(info);
        std::process::abort();
    }));
}

async fn wait_for_signal(stop: watch::Sender<bool>) {
    let hangup = signal(SignalKind::hangup());
    let (Ok(mut term), Ok(mut int), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), hangup)
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            // Unhandled it would end the process without a drain.
            _ = hangup.recv() => tracing::warn!("there is no reload; restart the service to use a new configuration"),
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let _ = stop.send(true);
}

/// Each stage answers a tick through its own queue: a stuck one stops the feeding, and systemd restarts us. An idle or
/// offline stage answers at once, and a slow fsync within the patience.
async fn feed_watchdog(
    inbox: std::sync::Arc<crate::gateway::inbox::Inbox>,
    spool: std::sync::mpsc::SyncSender<Request>,
) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    loop {
        let (hub, spool_tick) = (sync_channel(1), sync_channel(1));
        let asked = inbox.ask(Ask::Tick(hub.0)).is_ok() && spool.try_send(Request::Tick(spool_tick.0)).is_ok();
        let answered = tokio::task::spawn_blocking(move || {
            hub.1.recv_timeout(TICK_PATIENCE).is_ok() && spool_tick.1.recv_timeout(TICK_PATIENCE).is_ok()
        });
        if asked && answered.await.unwrap_or(false) {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(interval / 3).await;
    }
}

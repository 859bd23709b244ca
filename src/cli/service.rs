//! The life of the service: a gateway runs until it is asked to stop, or to go on with a new configuration. Then the next
//! one starts in the same process, after the first has drained. systemd hears of each change.

use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::{check, exit, run};
use crate::config::Loaded;
use crate::gateway::watchdog::Watchdog;
use crate::gateway::{Gateway, GatewayError};
use crate::ops::control::{ReloadAsks, Reloaded};

/// How long a stage may take to answer a watchdog tick before the log names it: far beyond any fsync that still comes back.
const TICK_PATIENCE: Duration = Duration::from_secs(60);
/// More asks for a reload than this are refused: one is under way and one waits.
const RELOADS_MAX: usize = 1;

/// A configuration to go on with.
struct Next {
    loaded: Loaded,
    /// What to go back to when nothing can be started with it.
    former: Option<Loaded>,
    /// Who asked for it over the control socket.
    asker: Option<oneshot::Sender<Reloaded>>,
}

/// How the life of a gateway ended.
enum Ended {
    With(u8),
    ForAnother(Box<Next>),
}

/// What comes from outside.
struct Orders {
    stop: watch::Receiver<bool>,
    hangups: mpsc::Receiver<()>,
    reloads: mpsc::Receiver<oneshot::Sender<Reloaded>>,
    asks: ReloadAsks,
}

/// Returns the exit code.
pub async fn serve(path: &Path, loaded: Loaded) -> u8 {
    let mut orders = Orders::listen();
    let mut next = Box::new(Next { loaded, former: None, asker: None });
    loop {
        let Next { loaded, former, asker } = *next;
        let (gateway, loaded, outcome) = match start(loaded, former) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!("failed to {error}");
                return exit::TEMPFAIL;
            }
        };
        let gateway = gateway.reloaded_by(orders.asks.clone());
        let ready = || {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            if let Some(asker) = asker {
                let _ = asker.send(outcome);
            }
        };
        match live(gateway, path, &loaded, ready, &mut orders).await {
            Ended::With(code) => return code,
            Ended::ForAnother(another) => next = another,
        }
    }
}

/// A new configuration can be right and still not work on this machine: another state directory that cannot be made, or
/// whose spool another process holds. Then the former goes on.
fn start(loaded: Loaded, former: Option<Loaded>) -> Result<(Gateway, Loaded, Reloaded), GatewayError> {
    let error = match Gateway::start(loaded.config.clone()) {
        Ok(gateway) => {
            let done = Reloaded::Done(loaded.config.hash.clone());
            if let (true, Err(error)) = (former.is_some(), run::save(&loaded)) {
                tracing::warn!(%error, "failed to keep this configuration as the last good one");
            }
            return Ok((gateway, loaded, done));
        }
        Err(error) => error,
    };
    let Some(former) = former else { return Err(error) };
    tracing::error!("failed to {error}; going on with the former configuration");
    let gateway = Gateway::start(former.config.clone())?;
    Ok((gateway, former, Reloaded::Failed(format!("{error}; the former configuration goes on"))))
}

async fn live(gateway: Gateway, path: &Path, loaded: &Loaded, ready: impl FnOnce(), orders: &mut Orders) -> Ended {
    let (stop, stopped) = watch::channel(false);
    let feeding = tokio::spawn(feed_watchdog(gateway.watchdog(), stopped.clone()));
    let life = gateway.run(stopped, ready);
    tokio::pin!(life);
    let mut next = None;
    let ended = loop {
        let asker = tokio::select! {
            ended = &mut life => break ended,
            () = asked_to_stop(&mut orders.stop), if !*stop.borrow() || next.is_some() => {
                // Also in the middle of a reload: nothing comes after this life any more.
                next = None;
                let _ = sd_notify::notify(&[NotifyState::Stopping]);
                let _ = stop.send(true);
                continue;
            }
            Some(()) = orders.hangups.recv(), if !*stop.borrow() => None,
            Some(asker) = orders.reloads.recv(), if !*stop.borrow() => Some(asker),
        };
        if let Some(another) = another(path, loaded, asker) {
            next = Some(another);
            let _ = sd_notify::notify(&reloading());
            let _ = stop.send(true);
        }
    };
    feeding.abort();
    match (ended, next) {
        (Ok(()), Some(next)) => Ended::ForAnother(next),
        (Ok(()), None) => {
            tracing::info!("stopped");
            Ended::With(exit::OK)
        }
        (Err(error @ (GatewayError::Start(_) | GatewayError::Died(_))), _) => {
            tracing::error!("failed to {error}");
            Ended::With(exit::SOFTWARE)
        }
    }
}

/// Checks the configuration as `check` does. A wrong one changes nothing.
fn another(path: &Path, loaded: &Loaded, asker: Option<oneshot::Sender<Reloaded>>) -> Option<Box<Next>> {
    match check::checked(path) {
        Ok(new) => {
            run::tell_warnings(&new);
            if new.config.log != loaded.config.log {
                tracing::warn!("[log] has changed: that takes a restart");
            }
            if new.config.spool.path != loaded.config.spool.path {
                let left = loaded.config.spool.path.display();
                tracing::warn!(spool = %left, "the spool is another file now; what is undelivered stays in the former");
            }
            tracing::info!(config = new.config.hash, "going on with a new configuration, after a drain");
            Some(Box::new(Next { loaded: new, former: Some(loaded.clone()), asker }))
        }
        Err(problems) => {
            tracing::error!("the new configuration is wrong; the present one goes on. What is wrong:\n{problems}");
            asker.into_iter().for_each(|asker| drop(asker.send(Reloaded::Wrong(problems.to_string()))));
            None
        }
    }
}

fn reloading() -> Vec<NotifyState<'static>> {
    std::iter::once(NotifyState::Reloading).chain(NotifyState::monotonic_usec_now().ok()).collect()
}

async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process.
    let _ = stop.wait_for(|&stop| stop).await;
}

impl Orders {
    fn listen() -> Self {
        let (stop, stopped) = watch::channel(false);
        let (hangup, hangups) = mpsc::channel(1);
        let (asks, reloads) = mpsc::channel(RELOADS_MAX);
        tokio::spawn(wait_for_signals(stop, hangup));
        Orders { stop: stopped, hangups, reloads, asks }
    }
}

async fn wait_for_signals(stop: watch::Sender<bool>, hangups: mpsc::Sender<()>) {
    let hangup = signal(SignalKind::hangup());
    let (Ok(mut term), Ok(mut int), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), hangup)
    else {
        return stop.closed().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => drop(stop.send(true)),
            _ = int.recv() => drop(stop.send(true)),
            // One that waits already will read the configuration as it is then.
            _ = hangup.recv() => drop(hangups.try_send(())),
        }
    }
}

/// A stuck stage stops the feeding, and systemd restarts us.
async fn feed_watchdog(watchdog: Watchdog, stop: watch::Receiver<bool>) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    loop {
        watchdog.all_answer(&stop, TICK_PATIENCE.min(interval / 3)).await;
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(interval / 3).await;
    }
}

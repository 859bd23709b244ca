//! `forebay run`: loads the config, or goes on with the last good one, and hands over to the service.

use std::path::Path;

use super::{exit, log, service};
use crate::config::{self, Loaded, Problems};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Do not go on with the last good configuration when this one is wrong.
    #[arg(long)]
    strict: bool,
}

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
        Ok(runtime) => runtime.block_on(service::serve(path, loaded)),
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

pub(super) fn save(loaded: &Loaded) -> Result<(), String> {
    let dir = &loaded.config.gateway.state_dir;
    std::fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
    config::save_last_good(dir, loaded).map_err(|e| e.to_string())
}

pub(super) fn tell_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
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

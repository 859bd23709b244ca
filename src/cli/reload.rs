//! `forebay reload`: the running gateway checks its configuration and goes on with it, or says what is wrong.

use std::path::Path;

use super::ask::{Access, Failure, print_line};
use super::exit;
use crate::config;
use crate::ops::control::Question;

pub fn run(path: &Path) -> u8 {
    match reload(path) {
        Ok(()) => exit::OK,
        Err(failure) => failure.tell(),
    }
}

/// The gateway's own check is the one that counts: it has the credentials and the environment that this command lacks.
fn reload(path: &Path) -> Result<(), Failure> {
    let runtime_dir = match config::load(path) {
        Ok(loaded) => loaded.config.gateway.runtime_dir,
        Err(problems) => problems.runtime_dir,
    };
    let answer = Access::running(&runtime_dir)?.ask(&Question::Reload)?;
    match answer["problems"].as_str() {
        Some(problems) => {
            Err(Failure::new(exit::CONFIG, format!("reload; the present configuration goes on:\n{problems}")))
        }
        None => {
            print_line(&format!("at work: config {}", answer["config_hash"].as_str().unwrap_or_default()));
            Ok(())
        }
    }
}

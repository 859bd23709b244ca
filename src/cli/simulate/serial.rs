//! `forebay simulate serial`: a device on a serial line, without hardware.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::pty::Pty;
use super::report::say;
use crate::config::units;

/// Plays a device on a serial line: opens a pseudo terminal and speaks, or answers.
#[derive(Args)]
pub struct SerialArgs {
    /// Give the port this name; without it the name is printed only
    #[arg(long, value_name = "PATH")]
    link: Option<PathBuf>,
    /// What it says, in turn; {n} is a number that grows; \r \n \t \\ and \xHH are understood
    #[arg(long, value_name = "TEXT", default_value = "T={n}\\r\\n")]
    say: Vec<String>,
    /// Between two of them
    #[arg(long, default_value = "1s", value_parser = units::duration)]
    interval: Duration,
    /// Say nothing unasked: one each time that this has been heard
    #[arg(long, value_name = "TEXT")]
    answer: Option<String>,
    /// Stop after so many
    #[arg(long)]
    count: Option<u64>,
}

/// Runs until the count is reached or a signal comes.
pub fn run(args: &SerialArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(play(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed to play a serial device: {error}"));
            ExitCode::from(71)
        }
    }
}

async fn play(args: &SerialArgs) -> std::io::Result<()> {
    let mut pty = Pty::open()?;
    if let Some(link) = &args.link {
        pty.link(link)?;
    }
    let name = args.link.as_deref().unwrap_or(pty.port()).display().to_string();
    say(&format!("a device speaks on {name}"));
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        spoken = speak(&pty, args) => spoken?,
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

async fn speak(pty: &Pty, args: &SerialArgs) -> std::io::Result<()> {
    let question = args.answer.as_deref().map(unescaped);
    let (mut heard, mut due) = (Vec::new(), Instant::now());
    for number in 0..args.count.unwrap_or(u64::MAX) {
        match &question {
            Some(question) => hear(pty, question, &mut heard).await,
            None => sleep_until(due).await,
        }
        due = (due + args.interval).max(Instant::now());
        let text = &args.say[(number % args.say.len() as u64) as usize];
        pty.send(&unescaped(&text.replace("{n}", &number.to_string()))).await?;
    }
    // What was sent last must be read before the port goes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// Waits until `question` has been heard; what was heard behind it stays for the next.
async fn hear(pty: &Pty, question: &[u8], heard: &mut Vec<u8>) {
    let mut bytes = [0; 256];
    loop {
        if let Some(at) = heard.windows(question.len().max(1)).position(|window| window == question) {
            heard.drain(..at + question.len());
            return;
        }
        // Only the end can be the beginning of the question.
        let kept = heard.len().saturating_sub(question.len());
        heard.drain(..kept);
        let count = pty.receive(&mut bytes).await;
        heard.extend_from_slice(&bytes[..count]);
    }
}

/// An escape that is none stays as it is.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = if byte == b'\\' { escape(tail) } else { None };
        let (value, used) = escape.map_or((byte, 0), |(value, used)| (value, used));
        out.push(value);
        rest = &tail[used..];
    }
    out
}

/// The byte behind a backslash, and how many characters name it.
fn escape(tail: &[u8]) -> Option<(u8, usize)> {
    Some(match tail.first()? {
        b'r' => (b'\r', 1),
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'\\' => (b'\\', 1),
        b'x' => {
            let digits = std::str::from_utf8(tail.get(1..3)?).ok()?;
            (u8::from_str_radix(digits, 16).ok()?, 3)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_name_bytes() {
        assert_eq!(unescaped(r"\x02T=1\r\n\\\q\x0"), b"\x02T=1\r\n\\\\q\\x0");
    }
}

//! `forebay spool replay`: what a lane has kept as history goes to Kafka once more, from this process with a producer of
//! its own, so that the running gateway only reads pages for it.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ask::{Access, Failure, print_line};
use super::exit;
use crate::clock;
use crate::config::Config;
use crate::forward::replay::kafka::Replayer;
use crate::ops::control::Question;
use crate::record::Body;

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    lane: String,
    /// Records from this time on (RFC 3339).
    #[arg(long, value_parser = moment)]
    from: Option<i64>,
    /// Records up to this time (RFC 3339).
    #[arg(long, value_parser = moment)]
    to: Option<i64>,
    /// Another Kafka topic for all of them.
    #[arg(long)]
    topic: Option<String>,
    /// Name of this replay, the value of the header `forebay-replay`. Default: the time now.
    #[arg(long)]
    job: Option<String>,
}

const PATIENCE: Duration = Duration::from_secs(60);

fn moment(text: &str) -> Result<i64, String> {
    let at =
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "expected a time like 2026-11-21T08:00:00Z".to_owned())?;
    Ok((at.unix_timestamp_nanos() / 1_000_000) as i64)
}

pub fn run(access: &mut Access, config: &Config, args: &ReplayArgs) -> Result<(), Failure> {
    let lane = config.lanes.iter().find(|l| l.name == args.lane);
    let Some(lane) = lane else {
        let known: Vec<_> = config.lanes.iter().map(|l| l.name.as_str()).collect();
        let message = format!("find lane \"{}\"; there are: {}", args.lane, known.join(", "));
        return Err(Failure::new(exit::DATAERR, message));
    };
    if lane.keep.is_none() {
        let message = format!("replay lane \"{}\": it keeps no history; set keep = \"24h\" in its [[lane]]", lane.name);
        return Err(Failure::new(exit::DATAERR, message));
    }
    let number = number_of(access, &lane.name)?;
    let job = args.job.clone().unwrap_or_else(|| clock::wall_ms().to_string());
    let unavailable = |e: String| Failure::new(exit::UNAVAILABLE, format!("replay: {e}"));
    let kafka = &config.kafka[lane.kafka];
    let replayer = Replayer::new(kafka, &config.gateway.name, &job, args.topic.clone()).map_err(unavailable)?;
    let sent = send_pages(access, &replayer, number, args)?;
    replayer.finish(PATIENCE).map_err(unavailable)?;
    print_line(&format!("replayed {sent} records of lane {} as job {job}", lane.name));
    Ok(())
}

fn number_of(access: &mut Access, name: &str) -> Result<u32, Failure> {
    let lanes = access.ask(&Question::Lanes)?;
    let found = lanes["lanes"].as_array().into_iter().flatten().find(|l| l["name"] == name);
    let number = found.and_then(|l| l["lane"].as_u64());
    number.map(|n| n as u32).ok_or_else(|| Failure::new(exit::DATAERR, format!("find lane \"{name}\" in the spool")))
}

fn send_pages(access: &mut Access, replayer: &Replayer, lane: u32, args: &ReplayArgs) -> Result<u64, Failure> {
    let (from, to) = (args.from.unwrap_or(i64::MIN), args.to.unwrap_or(i64::MAX));
    let progress = indicatif::ProgressBar::new_spinner();
    let (mut after, mut sent) = (0, 0);
    loop {
        let page = access.ask(&Question::HistoryPage { lane, after, from, to })?;
        for record in page["records"].as_array().into_iter().flatten() {
            let (run, sequence, body) = decode(record).ok_or_else(|| Failure::new(exit::IOERR, "read a page"))?;
            let failed = |e| Failure::new(exit::UNAVAILABLE, format!("replay after {sent} records: {e}"));
            replayer.send(run, lane, sequence, &body).map_err(failed)?;
            sent += 1;
        }
        progress.set_message(format!("{sent} records"));
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    progress.finish_and_clear();
    Ok(sent)
}

fn decode(record: &Value) -> Option<(u64, u64, Body)> {
    let body = base64::engine::general_purpose::STANDARD.decode(record["body"].as_str()?).ok()?;
    Some((record["run"].as_u64()?, record["sequence"].as_u64()?, Body::from_stored(Bytes::from(body))))
}

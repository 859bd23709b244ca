//! The control socket: commands ask the running gateway, one JSON object a line, one answer each. The socket lies in
//! the runtime directory and is readable for the group alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::snapshot::Shown;
use crate::clock;
use crate::gateway::inbox::{Ask, Inbox};
use crate::record::Body;
use crate::spool::owner::Request;
use crate::spool::queries::{DeadRow, Exported, Which, requeued};
use crate::spool::store::Store;

/// A question is a line of at most this many bytes.
const LINE_MAX: u64 = 1 << 20;
const CONNECTIONS_MAX: usize = 8;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of dead letters that are on their way back at once; one more may go over it.
const SLICE_BYTES: usize = 1 << 20;
/// Records of one page.
pub const PAGE: u32 = 200;

/// What a command can ask. Names are part of the interface between versions: extend, never rename.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    Status,
    Losses,
    DeadPage {
        after: i64,
    },
    DeadShow {
        id: i64,
    },
    DeadRequeue {
        ids: Vec<i64>,
    },
    DeadDrop {
        ids: Vec<i64>,
    },
    ExportPage {
        lane: u32,
        after: i64,
    },
    /// Delivered records that are kept, whole (base64), for `spool replay`.
    HistoryPage {
        lane: u32,
        after: i64,
        from: i64,
        to: i64,
    },
    Lanes,
    Purge {
        lane: String,
    },
    Reload,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// The new configuration is at work; its hash.
    Done(String),
    /// What is wrong with it; the former goes on.
    Wrong(String),
    /// It is right, but nothing can be started with it; the former goes on.
    Failed(String),
}

/// Asks whoever started this gateway to check the configuration anew and to go on with it.
pub type ReloadAsks = mpsc::Sender<oneshot::Sender<Reloaded>>;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    /// What it asks for does not exist: asking again will not help.
    pub unknown: bool,
}

impl Refusal {
    fn unknown(message: String) -> Self {
        Refusal { message, unknown: true }
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Refusal { message, unknown: false }
    }
}

pub fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// Binds the socket, in place of one that a killed gateway left.
///
/// # Errors
/// When the directory or socket cannot be made.
pub fn bind(runtime_dir: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(runtime_dir)?;
    let path = path(runtime_dir);
    // The spool's lock says that no other gateway lives, so the socket is a left-over.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// What answers need.
pub struct Control {
    pub shown: Arc<Shown>,
    pub inbox: Arc<Inbox>,
    pub spool: SyncSender<Request>,
    /// Configured lanes: name to index.
    pub lanes: Vec<String>,
    pub reload: Option<ReloadAsks>,
}

/// Serves until dropped.
pub async fn serve(listener: UnixListener, control: Arc<Control>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(super::http::ACCEPT_PAUSE).await;
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &control).await {
                tracing::debug!(%error, "a control connection ended");
            }
            drop(slot);
        });
    }
}

async fn converse(stream: UnixStream, control: &Control) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut lines).take(LINE_MAX).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str::<Question>(&line) {
            Ok(question) => control.answer(question).await,
            Err(e) => Err(format!("understand the question: {e}").into()),
        };
        let answer = answer.unwrap_or_else(|r| json!({ "error": r.message, "unknown": r.unknown }));
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

impl Control {
    async fn answer(&self, question: Question) -> Result<Value, Refusal> {
        match question {
            Question::Status => serde_json::to_value(self.shown.get()).map_err(|e| e.to_string().into()),
            Question::DeadRequeue { ids } => self.requeue(ids).await,
            Question::Purge { lane } => self.purge(&lane).await,
            Question::Reload => self.reload().await,
            other => self.ask_store(move |store| answer_from_store(store, &other)).await?,
        }
    }

    async fn ask_store<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (back, answer) = oneshot::channel();
        let job = Box::new(move |store: &mut Store| drop(back.send(job(store))));
        self.spool.try_send(Request::Run(job)).map_err(|_| "ask the spool: it is busy, try again".to_owned())?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err("hear from the spool within 30 s".into()),
        }
    }

    /// A slice at a time: the next is read when the last is durable in its lane.
    async fn requeue(&self, mut ids: Vec<i64>) -> Result<Value, Refusal> {
        let mut count = 0;
        while !ids.is_empty() {
            let (rows, rest) = self.ask_store(move |store| dead_slice(store, ids)).await??;
            for rows in rows.chunk_by(|a, b| a.letter.lane == b.letter.lane) {
                let letters = rows.iter().filter_map(|r| requeued(&r.letter).map(|body| (r.id, body))).collect();
                count += self.requeue_slice(rows[0].letter.lane, letters).await?;
            }
            ids = rest;
        }
        Ok(json!({ "requeued": count }))
    }

    async fn requeue_slice(&self, lane: u32, letters: Vec<(i64, Body)>) -> Result<usize, String> {
        let (done, answer) = oneshot::channel();
        let ask = Ask::Requeue { lane, letters, done };
        self.inbox.ask(ask).map_err(|_| "ask the hub: it is busy, try again".to_owned())?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) => Err("requeue: the gateway stops".to_owned()),
            Err(_) => Err("requeue the rest: the lane takes nothing now; what waits goes when it does".to_owned()),
        }
    }

    /// Answered when the gateway that comes after this one is ready, so it may take as long as a stop and a start.
    async fn reload(&self) -> Result<Value, Refusal> {
        let (back, answer) = oneshot::channel();
        let Some(asks) = &self.reload else { return Err("reload: this gateway does not".to_owned().into()) };
        asks.try_send(back).map_err(|_| "reload: it does so already".to_owned())?;
        match answer.await {
            Ok(Reloaded::Done(hash)) => Ok(json!({ "config_hash": hash })),
            Ok(Reloaded::Wrong(problems)) => Ok(json!({ "problems": problems })),
            Ok(Reloaded::Failed(error)) => Err(error.into()),
            Err(_) => Err("reload: the gateway stops".to_owned().into()),
        }
    }

    async fn purge(&self, lane: &str) -> Result<Value, Refusal> {
        let Some(index) = self.lanes.iter().position(|l| l == lane) else {
            return Err(Refusal::unknown(format!(
                "find a lane named \"{lane}\"; there are: {}",
                self.lanes.join(", ")
            )));
        };
        let (done, answer) = oneshot::channel();
        self.inbox
            .ask(Ask::Purge { lane: index, done })
            .map_err(|_| "ask the hub: it is busy, try again".to_owned())?;
        answer.await.map_err(|_| "purge: the gateway stops".to_owned())?;
        Ok(json!({ "purging": lane }))
    }
}

/// The first of these dead letters, up to a bound in bytes, and the numbers of the others.
fn dead_slice(store: &mut Store, mut ids: Vec<i64>) -> Result<(Vec<DeadRow>, Vec<i64>), String> {
    let (mut rows, mut bytes, mut taken) = (Vec::new(), 0, 0);
    for id in &ids {
        if bytes >= SLICE_BYTES {
            break;
        }
        taken += 1;
        if let Some(row) = store.dead_letter(*id).map_err(|e| e.to_string())? {
            bytes += row.letter.body.len();
            rows.push(row);
        }
    }
    let rest = ids.split_off(taken);
    Ok((rows, rest))
}

/// Answers that need the file alone: the running gateway gives them through its owner thread, and a command gives them
/// to itself under the lock when the service is stopped.
///
/// # Errors
/// In words.
pub fn answer_from_store(store: &mut Store, question: &Question) -> Result<Value, Refusal> {
    let text = |e: crate::spool::StoreError| Refusal::from(e.to_string());
    match question {
        Question::Losses => {
            let losses = store.all_losses(10_000).map_err(text)?;
            Ok(json!({ "losses": losses }))
        }
        Question::DeadPage { after } => {
            let page = store.dead_page(*after, PAGE).map_err(text)?;
            Ok(json!({ "letters": page.iter().map(|r| dead_json(r, false)).collect::<Vec<_>>() }))
        }
        Question::DeadShow { id } => match store.dead_letter(*id).map_err(text)? {
            Some(row) => Ok(dead_json(&row, true)),
            None => Err(Refusal::unknown(format!("find a dead letter with number {id}; `dlq list` shows them"))),
        },
        Question::DeadDrop { ids } => {
            let dropped = store.drop_dead(ids, clock::wall_ms()).map_err(text)?;
            Ok(json!({ "dropped": dropped }))
        }
        Question::DeadRequeue { ids } => {
            let (mut ids, mut count) = (ids.clone(), 0);
            while !ids.is_empty() {
                let (rows, rest) = dead_slice(store, ids)?;
                count += store.requeue_offline(&rows, clock::wall_ms()).map_err(text)?;
                ids = rest;
            }
            Ok(json!({ "requeued": count }))
        }
        Question::ExportPage { lane, after } => {
            let (page, next) = store.export_page(*lane, *after, PAGE as usize, Which::Undelivered).map_err(text)?;
            let records: Vec<Value> = page.iter().filter_map(exported_json).collect();
            Ok(json!({ "records": records, "next": next }))
        }
        Question::HistoryPage { lane, after, from, to } => {
            let which = Which::History { from: *from, to: *to };
            let (page, next) = store.export_page(*lane, *after, PAGE as usize, which).map_err(text)?;
            let records: Vec<Value> = page.iter().map(raw_json).collect();
            Ok(json!({ "records": records, "next": next }))
        }
        Question::Lanes | Question::Status => {
            let lanes = store.lane_totals().map_err(text)?;
            let lost: std::collections::BTreeMap<String, u64> =
                store.loss_totals().map_err(text)?.into_iter().collect();
            let dead = store.dead_count().map_err(text)?;
            Ok(json!({ "lanes": lanes, "lost": lost, "dead": dead, "used_bytes": store.used_bytes() }))
        }
        Question::Reload => {
            Err("reload: the gateway is stopped; it reads the configuration when it starts".to_owned().into())
        }
        Question::Purge { lane } => {
            let lost = store.purge_lane(lane, clock::wall_ms()).map_err(text)?;
            lost.map(|lost| json!({ "purged": lost }))
                .ok_or_else(|| Refusal::unknown(format!("find a lane named \"{lane}\" in the spool")))
        }
    }
}

fn dead_json(row: &DeadRow, whole: bool) -> Value {
    let l = &row.letter;
    let mut out = json!({
        "id": row.id, "lane": l.lane, "run": format!("{:016x}", l.run), "sequence": l.sequence, "at": l.at,
        "cause": l.cause, "attempts": l.attempts, "bytes": l.body.len(),
    });
    if let Ok(view) = l.body.view() {
        out["topic"] = view.topic.into();
        out["key"] = view.key.map(String::from_utf8_lossy).into();
        if whole {
            out["headers"] =
                view.headers.iter().map(|(k, v)| json!([k, String::from_utf8_lossy(v)])).collect::<Vec<_>>().into();
            out["payload"] = payload_json(view.payload);
        }
    }
    out
}

fn exported_json(e: &Exported) -> Option<Value> {
    let view = e.body.view().ok()?;
    Some(json!({
        "lane": e.lane, "run": format!("{:016x}", e.run), "sequence": e.sequence, "topic": view.topic,
        "key": view.key.map(String::from_utf8_lossy), "timestamp": view.timestamp_ms,
        "headers": view.headers.iter().map(|(k, v)| json!([k, String::from_utf8_lossy(v)])).collect::<Vec<_>>(),
        "payload": payload_json(view.payload),
    }))
}

fn raw_json(e: &Exported) -> Value {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(e.body.as_bytes());
    json!({ "run": e.run, "sequence": e.sequence, "body": body })
}

/// Text as text, everything else as base64, and told apart.
fn payload_json(payload: &[u8]) -> Value {
    use base64::Engine as _;
    match std::str::from_utf8(payload) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(payload) }),
    }
}

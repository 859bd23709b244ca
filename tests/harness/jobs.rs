//! Jobs: the programs that a test runs beside itself, and the directories they write to.
//!
//! Owns every child process of the rig. Nothing outlives the test run: a [`Job`] ends with its owner, also in a panic;
//! the kernel ends it when the test process is killed (`setpriv --pdeathsig`); and a janitor that waits on a pipe
//! removes the directories after that. A missing tool is a failure that names its Debian package, never a skip.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How long anything may take that should take a moment. Generous: the machine may be building something else as well.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Lines of a watched job that are kept for [`Job::wait_for_line`].
const LINES_MAX: usize = 20_000;

/// Ports below the kernel's ephemeral range: no outgoing connection can take one while its server is down.
const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 32_000;

/// A running program. Killed and reaped when dropped.
pub struct Job {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Option<Arc<Lines>>,
}

/// What a watched job has written to stderr.
#[derive(Default)]
struct Lines {
    seen: Mutex<Seen>,
    news: Condvar,
}

#[derive(Default)]
struct Seen {
    lines: VecDeque<String>,
    ended: bool,
}

impl Job {
    /// Starts `command` with all its output appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Job {
        let out = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Job { name: name.to_owned(), child: spawn(command), log: log.to_owned(), lines: None }
    }

    /// The same, but each line of stderr can also be waited for.
    pub fn start_watched(name: &str, mut command: Command, log: &Path) -> Job {
        let mut out = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(Stdio::piped());
        let mut child = spawn(command);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::new(Lines::default());
        let watched = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                // The log is for people only: the test does not depend on this write.
                drop(writeln!(out, "{line}"));
                watched.add(line);
            }
            watched.end();
        });
        Job { name: name.to_owned(), child, log: log.to_owned(), lines: Some(lines) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line on stderr that contains `needle`.
    pub fn wait_for_line(&self, needle: &str) -> String {
        let lines = self.lines.as_ref().expect("only a watched job has lines");
        let guard = lines.seen.lock().unwrap();
        let waiting = |seen: &mut Seen| !seen.ended && !seen.lines.iter().any(|line| line.contains(needle));
        let (seen, _) = lines.news.wait_timeout_while(guard, PATIENCE, waiting).unwrap();
        match seen.lines.iter().find(|line| line.contains(needle)) {
            Some(line) => line.clone(),
            None => panic!("{} never wrote {needle:?} (ended: {})", self.name, seen.ended),
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        signal::kill(pid, signal).unwrap_or_else(|error| panic!("signal {signal} to {}: {error}", self.name));
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let name = self.name.clone();
        wait_until(&format!("{name} stopped"), || self.ended())
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// The last lines of the log, for a failure message.
    pub fn log_end(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Lines {
    fn add(&self, line: String) {
        let mut seen = self.seen.lock().unwrap();
        if seen.lines.len() == LINES_MAX {
            seen.lines.pop_front();
        }
        seen.lines.push_back(line);
        self.news.notify_all();
    }

    fn end(&self) {
        self.seen.lock().unwrap().ended = true;
        self.news.notify_all();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of {} ---\n{}", self.name, self.log_end());
        }
        // Both fail only when it has already been reaped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command that the kernel kills when the test process dies, whatever kills that.
pub fn leashed(program: &Path) -> Command {
    let mut command = Command::new(tool("setpriv", "util-linux"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    // A Ctrl-C is for the test process alone: the leash does the rest, in order.
    command.process_group(0);
    command
}

/// Finds a program, or fails with the name of the package that holds it.
pub fn tool(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("`{name}` is missing: apt-get install {package} (the tests skip nothing, see CONTRIBUTING.md)")
    })
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let span = u32::from(PORT_LAST - PORT_FIRST);
    let start = || AtomicU16::new(u16::try_from(std::process::id().wrapping_mul(61) % span).unwrap());
    let next = NEXT.get_or_init(start);
    for _ in 0..span {
        let port = PORT_FIRST + next.fetch_add(1, Ordering::Relaxed) % (PORT_LAST - PORT_FIRST);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {PORT_FIRST} and {PORT_LAST}");
}

/// Says what a test leaves out and why, past the capture of the test's output; `.ci/run` repeats it at its end.
#[allow(dead_code, reason = "the tests leave something out; the benchmark does not")]
pub fn skipped(what: &str) {
    let line = format!("skipped: {what}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("FOREBAY_SKIPPED") {
        let list =
            File::options().create(true).append(true).open(list).and_then(|mut file| file.write_all(line.as_bytes()));
        list.expect("the list of what was skipped can be written");
    }
}

/// Asks again and again, for things that have no event to wait for: another process's port or HTTP answer.
pub fn wait_until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_long(what, PATIENCE, ask)
}

/// The same with a patience of its own, for what is long by design.
pub fn wait_long<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory of its own for one job, removed when dropped.
pub fn scratch(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir_in(run_dir()).unwrap()
}

/// The build's target directory.
pub fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent")
}

/// Everything this test run writes. The janitor removes it when the test process has ended, in whatever way.
fn run_dir() -> &'static Path {
    static RUN: OnceLock<(PathBuf, ChildStdin)> = OnceLock::new();
    let (dir, _) = RUN.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let leash = start_janitor(&dir);
        (dir, leash)
    });
    dir
}

/// `read` returns when the write end of the pipe closes, which is when this process ends. The broker may still be dying
/// and writing then, hence the second attempt.
fn start_janitor(dir: &Path) -> ChildStdin {
    let mut janitor = Command::new("sh");
    janitor.args(["-c", r#"read -r _; rm -rf "$1" || { sleep 1; rm -rf "$1"; }"#, "janitor"]).arg(dir);
    janitor.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    janitor.spawn().unwrap().stdin.take().unwrap()
}

type SpawnOrder = (Command, SyncSender<io::Result<Child>>);

/// Spawns from one thread that lives as long as the process. The kernel's death signal follows the *thread* that
/// spawned, and a test's own thread ends with the test: the shared broker would die with the first one.
fn spawn(command: Command) -> Child {
    static SPAWNER: OnceLock<SyncSender<SpawnOrder>> = OnceLock::new();
    let program = command.get_program().to_owned();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<SpawnOrder>(16);
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                drop(answer.send(command.spawn()));
            }
        });
        orders
    });
    let (answer, child) = sync_channel(1);
    spawner.send((command, answer)).unwrap();
    child.recv().unwrap().unwrap_or_else(|error| panic!("start {}: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = leashed(&tool("sh", "dash"));
        command.args(["-c", script]);
        command
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_job_is_gone() {
        let dir = scratch("job");
        let job = Job::start_watched("sleeper", shell("echo up >&2; exec sleep 1000"), &dir.path().join("log"));
        job.wait_for_line("up");
        let pid = job.pid();
        drop(job);
        assert!(!exists(pid));
    }

    #[test]
    fn a_job_outlives_the_thread_that_asked_for_it() {
        let dir = scratch("job");
        let log = dir.path().join("log");
        let start = move || Job::start_watched("sleeper", shell("echo up >&2; exec sleep 1000"), &log);
        let mut job = std::thread::spawn(start).join().unwrap();
        job.wait_for_line("up");
        assert!(job.ended().is_none());
    }

    /// The shell stands for a test process: killed with -9, it must take its leashed child with it.
    #[test]
    fn a_leashed_program_dies_with_its_parent() {
        let dir = scratch("job");
        let script = r#"setpriv --pdeathsig KILL -- sleep 1000 & echo "child $!" >&2; wait"#;
        let mut parent = Job::start_watched("parent", shell(script), &dir.path().join("log"));
        let line = parent.wait_for_line("child");
        let child: u32 = line.trim_start_matches("child ").parse().unwrap();
        wait_until("the child has its leash", || {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim() == "sleep").then_some(())
        });
        parent.kill();
        wait_until("the child is gone", || {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
    }

    #[test]
    #[should_panic(expected = "apt-get install no-such-package")]
    fn a_missing_tool_names_its_package() {
        tool("no-such-tool", "no-such-package");
    }
}

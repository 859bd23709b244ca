//! Named fault points at the numbered steps, so that a test can kill the gateway exactly there, or see it stand still.
//!
//! `FOREBAY_FAULT=4-before-commit:3` makes the third passage of that point print one line to stderr and stop that
//! thread for ever, or that task where the point is one of a task; the test then sends SIGKILL. Builds without debug
//! assertions have no fault points.

#[cfg(debug_assertions)]
fn is_reached(name: &str) -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("FOREBAY_FAULT").ok()?;
        let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), count.parse().ok()?))
    });
    let Some((point, count)) = wanted else { return false };
    let reached = point == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count;
    if reached {
        // Straight to stderr, unbuffered: the harness waits for this line, and no logger may swallow it.
        eprintln!("fault point {name} reached");
    }
    reached
}

/// Stops this thread.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    if is_reached(name) {
        loop {
            std::thread::park();
        }
    }
}

/// Stops this task and none of its neighbours.
#[cfg(debug_assertions)]
pub async fn hang(name: &str) {
    if is_reached(name) {
        std::future::pending::<()>().await;
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub async fn hang(_name: &str) {}

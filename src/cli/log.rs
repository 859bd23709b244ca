//! Logs to stderr: text or JSON, with journald's level prefix when systemd reads them.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogFormat};

/// Installs the logger, once per process.
pub fn init(log: &Log) {
    let level = log.level.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false);
    // systemd sets this when stderr goes to the journal, which keeps the time itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second logger in one process (tests, demo) is not worth a failure.
    let _ = match (log.format, journal) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => {
            builder.event_format(Journal(tracing_subscriber::fmt::format().without_time().with_level(false))).try_init()
        }
        (LogFormat::Text, false) => builder.try_init(),
    };
}

/// `<4>message`: the kernel's levels as sd-daemon(3) has them.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(to, "<{level}>")?;
        self.0.format_event(ctx, to, event)
    }
}

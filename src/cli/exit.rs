//! Exit codes, as `sysexits.h` numbers them, so that scripts and systemd (`RestartPreventExitStatus=`) can tell
//! failures apart.

/// Done.
pub const OK: u8 = 0;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// Data given to the command is wrong.
pub const DATAERR: u8 = 65;
/// A named file does not exist.
pub const NOINPUT: u8 = 66;
/// A service that is needed does not answer.
pub const UNAVAILABLE: u8 = 69;
/// A mistake in Forebay itself.
pub const SOFTWARE: u8 = 70;
/// The operating system refused something that should work.
pub const OSERR: u8 = 71;
/// A file cannot be made, or is there already.
pub const CANTCREAT: u8 = 73;
/// Reading or writing failed.
pub const IOERR: u8 = 74;
/// It may work when tried again.
pub const TEMPFAIL: u8 = 75;
/// This user may not do that.
pub const NOPERM: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

//! How the command fails.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The command as given cannot be carried out here; the text says why and what to change. Exit status 2.
#[derive(Debug)]
pub(crate) struct Unusable(pub(crate) String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Ends the process with status 1 after printing `message`, from whichever thread found the reason first.
///
/// Others that find it too wait here: none of them may go on to a page that will never come.
pub(crate) fn end(message: &str) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Relaxed) {
        loop {
            std::thread::park();
        }
    }
    // Over the progress bar, where there may be one.
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    eprintln!("{clear}userfault: {message}");
    std::process::exit(1)
}

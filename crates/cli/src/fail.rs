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

/// An error with its causes, of which many name theirs themselves: each is said once.
pub(crate) fn said(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said += ": ";
            said += &cause;
        }
    }
    said
}

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

#[cfg(test)]
mod tests {
    use super::said;
    use anyhow::{Context as _, anyhow};

    #[test]
    fn a_cause_is_said_once_whether_its_effect_names_it_or_not() {
        let of = |error: anyhow::Error, then: &'static str| said(&error.context(then));
        assert_eq!(said(&anyhow!("no file")), "no file");
        assert_eq!(of(anyhow!("no file"), "not mapped"), "not mapped: no file");
        assert_eq!(of(anyhow!("no file"), "not mapped: no file; make one"), "not mapped: no file; make one");
        let three = Err::<(), _>(anyhow!("EPERM")).context("no thread: EPERM; allow it").context("not served");
        assert_eq!(said(&three.unwrap_err()), "not served: no thread: EPERM; allow it");
    }
}

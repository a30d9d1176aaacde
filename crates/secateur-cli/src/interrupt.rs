//! Ctrl-C, and what else asks a process to end: the run stops after the step at hand, and can go on.

use crate::progress::line;
use anyhow::{Context, Result};
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Exit status of what was interrupted, as shells have it: 128 and the number of SIGINT.
pub const STATUS: u8 = 130;

/// One request can come as two signals, to a process and to its group: what comes sooner is no second one.
const SECOND_AFTER: Duration = Duration::from_millis(500);

static WANTED: AtomicBool = AtomicBool::new(false);

/// From here on the first signal only asks for an end; the second ends the process.
///
/// # Errors
/// Where the system takes no handler.
pub fn listen() -> Result<()> {
    let mut signals = Signals::new(TERM_SIGNALS).context("cannot listen for Ctrl-C")?;
    std::thread::spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            match first {
                None => {
                    WANTED.store(true, Ordering::Relaxed);
                    line("stopping after this step; Ctrl-C once more ends at once");
                    first = Some(Instant::now());
                }
                Some(first) if first.elapsed() >= SECOND_AFTER => {
                    // The process ends here; where it cannot, it goes on to its next step.
                    let _ = emulate_default_handler(signal);
                }
                Some(_) => {}
            }
        }
    });
    Ok(())
}

/// Whether the user asked for an end.
pub fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

//! Ctrl-C, and what else asks a process to end: the run stops after the step at hand, and can go on.

use anyhow::{Context, Result};
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Exit status of what was interrupted, as shells have it: 128 and the number of SIGINT.
pub const STATUS: u8 = 130;

static WANTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on the first signal only asks for an end; the second ends the process.
///
/// # Errors
/// Where the system takes no handler.
pub fn listen() -> Result<()> {
    let wanted = WANTED.get_or_init(Arc::default);
    for &signal in TERM_SIGNALS {
        // In this order: what the first sets, the second finds.
        flag::register_conditional_shutdown(signal, STATUS.into(), Arc::clone(wanted))
            .and_then(|_| flag::register(signal, Arc::clone(wanted)))
            .context("cannot listen for Ctrl-C")?;
    }
    Ok(())
}

/// Whether the user asked for an end.
pub fn is_wanted() -> bool {
    WANTED
        .get()
        .is_some_and(|wanted| wanted.load(Ordering::Relaxed))
}

//! How long work tells that it goes on: the library reports, the terminal draws.

/// Receives the progress of long work. All methods do nothing by default.
pub trait Progress: Send + Sync {
    /// A piece of work with `total` steps begins; it replaces the one before.
    fn begin(&self, what: &str, total: u64) {
        let _ = (what, total);
    }
    /// `steps` more steps are done.
    fn advance(&self, steps: u64) {
        let _ = steps;
    }
    /// The current piece of work has ended.
    fn end(&self) {}
    /// Whether the user wants the work to stop.
    fn is_stopped(&self) -> bool {
        false
    }
    /// To be asked between two steps of long work.
    ///
    /// # Errors
    /// [`Stopped`] where the work is to end here.
    fn go_on(&self) -> Result<(), Stopped> {
        match self.is_stopped() {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
    /// Something the user should know, one sentence, no final period.
    fn note(&self, message: &str) {
        let _ = message;
    }
}

/// Work that ended early because the user wanted it to; what it had is kept where it keeps anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped: the same command with `--resume` goes on from here")]
pub struct Stopped;

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Says nothing of work inside other work, which the user can stop all the same.
#[derive(Clone, Copy)]
pub struct Within<'p>(pub &'p dyn Progress);

impl Progress for Within<'_> {
    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

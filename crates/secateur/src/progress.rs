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
    /// Something the user should know, one sentence, no final period.
    fn note(&self, message: &str) {
        let _ = message;
    }
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

//! Progress and messages on stderr: a bar in a terminal, plain lines elsewhere.

use crate::interrupt;
use crate::output::printable;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secateur::progress::Progress;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Work that is done sooner shows no bar.
const SHOW_AFTER: Duration = Duration::from_secs(2);
/// Time between two lines where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Draws the library's progress.
pub struct Terminal {
    quiet: bool,
    is_terminal: bool,
    work: Mutex<Option<Work>>,
}

/// The piece of work at hand.
struct Work {
    what: String,
    total: u64,
    done: u64,
    start: Instant,
    /// When the last plain line was written, from the start.
    line: Duration,
    bar: Option<ProgressBar>,
}

impl Terminal {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            is_terminal: std::io::stderr().is_terminal(),
            work: Mutex::new(None),
        }
    }

    fn with_work(&self, act: impl FnOnce(&mut Option<Work>)) {
        if !self.quiet {
            act(&mut self.work.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Progress for Terminal {
    fn begin(&self, what: &str, total: u64) {
        self.with_work(|work| {
            finish(work);
            *work = Some(Work {
                what: what.to_owned(),
                total,
                done: 0,
                start: Instant::now(),
                line: Duration::ZERO,
                bar: None,
            });
        });
    }

    fn advance(&self, steps: u64) {
        self.with_work(|work| {
            let Some(work) = work else { return };
            work.done += steps;
            let elapsed = work.start.elapsed();
            if let Some(bar) = &work.bar {
                bar.set_position(work.done);
            } else if elapsed < SHOW_AFTER {
            } else if self.is_terminal {
                work.bar = Some(bar(work));
            } else if work.line.is_zero() || elapsed - work.line >= LINE_EVERY {
                work.line = elapsed;
                line(&work.line_text(elapsed));
            }
        });
    }

    fn end(&self) {
        self.with_work(finish);
    }

    fn is_stopped(&self) -> bool {
        interrupt::is_wanted()
    }

    fn note(&self, message: &str) {
        self.with_work(
            |work| match work.as_ref().and_then(|work| work.bar.as_ref()) {
                Some(bar) => bar.suspend(|| line(message)),
                None => line(message),
            },
        );
    }
}

impl Work {
    /// `train: 120 of 400, 35 s left`.
    fn line_text(&self, elapsed: Duration) -> String {
        let left = self.total.saturating_sub(self.done);
        let seconds = elapsed.as_secs_f64() * left as f64 / self.done.max(1) as f64;
        format!(
            "{}: {} of {}, {} left",
            self.what,
            self.done,
            self.total,
            duration(seconds)
        )
    }
}

/// `35 s`, `12 min`, `3 h 20 min`.
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 | 1 => format!("{} s", seconds.ceil()),
        2..=119 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn bar(work: &Work) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(work.total), ProgressDrawTarget::stderr())
        .with_elapsed(work.start.elapsed())
        .with_message(printable(&work.what));
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_position(work.done);
    bar
}

fn finish(work: &mut Option<Work>) {
    if let Some(Work { bar: Some(bar), .. }) = work.take() {
        bar.finish_and_clear();
    }
}

/// One line on stderr; nobody to read it is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_pace_so_far() {
        let work = Work {
            what: "train".to_owned(),
            total: 400,
            done: 100,
            start: Instant::now(),
            line: Duration::ZERO,
            bar: None,
        };
        assert_eq!(
            work.line_text(Duration::from_secs(10)),
            "train: 100 of 400, 30 s left"
        );
        assert_eq!(duration(0.2), "1 s");
        assert_eq!(duration(600.0), "10 min");
        assert_eq!(duration(3.0 * 3600.0 + 1200.0), "3 h 20 min");
    }
}

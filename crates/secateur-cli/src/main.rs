//! The command `secateur`: arguments, progress, tables, exit status. What is computed is the
//! library's business.

mod args;
mod commands;
mod failure;
mod interrupt;
mod output;
mod progress;

use args::{Cli, Command};
use clap::Parser;
use progress::Terminal;
use std::process::ExitCode;

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All that was asked for is done.
    Done,
    /// It ran, but a goal was missed.
    Missed,
}

impl Outcome {
    /// What a command came to that had a goal.
    fn of(goal_met: bool) -> Self {
        match goal_met {
            true => Self::Done,
            false => Self::Missed,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Missed) => ExitCode::from(1),
        Err(error) => {
            failure::print(&error);
            ExitCode::from(if interrupt::is_wanted() {
                interrupt::STATUS
            } else {
                2
            })
        }
    }
}

fn run(command: &Command) -> anyhow::Result<Outcome> {
    let global = command.global();
    if let Some(threads) = global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()?;
    }
    let progress = Terminal::new(global.quiet);
    match command {
        Command::Demo(args) => commands::demo::run(args, &progress),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Compress(args) => commands::compress::run(args, &progress),
        Command::Transfer(args) => commands::transfer::run(args, &progress),
        Command::Decompose(args) => commands::decompose::run(args, &progress),
        Command::Prune(args) => commands::prune::run(args, &progress),
        Command::Fold(args) => commands::fold::run(args),
        Command::Evaluate(args) => commands::evaluate::run(args, &progress),
        Command::Verify(args) => commands::verify::run(args, &progress),
        Command::Bench(args) => commands::bench::run(args, &progress),
        Command::Report(args) => commands::report::run(args),
        Command::Study(args) => commands::study::run(args, &progress),
    }
}

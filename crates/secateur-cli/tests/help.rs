//! `docs/cli.md` is the help of every command, as the command prints it.

#![allow(clippy::unwrap_used)]

mod command;

use command::{Place, assert_committed};
use std::path::Path;

const COMMANDS: [&str; 12] = [
    "demo",
    "inspect",
    "compress",
    "transfer",
    "decompose",
    "prune",
    "fold",
    "evaluate",
    "verify",
    "bench",
    "report",
    "study",
];

#[test]
fn the_documentation_is_what_help_prints() {
    let place = Place::new();
    let mut page = "# Command line\n\nThe help of every command, written by a test \
                    (`SECATEUR_UPDATE=1 cargo test -p secateur-cli --test help`).\n"
        .to_owned();
    let mut section = |title: &str, arguments: &[&str]| {
        let help = place.succeed(arguments).stdout;
        page.push_str(&format!(
            "\n## {title}\n\n```text\n{}\n```\n",
            help.trim_end()
        ));
    };
    section("secateur", &["--help"]);
    for command in COMMANDS {
        section(&format!("secateur {command}"), &[command, "--help"]);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    assert_committed(&docs, &page);
}

#[test]
fn every_command_is_documented() {
    let help = Place::new().succeed(&["--help"]).stdout;
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Deeper lines go on with the text of the one above.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert_eq!(listed, COMMANDS);
}

#[test]
fn help_states_the_defaults_of_the_settings() {
    let help = Place::new().succeed(&["compress", "--help"]).stdout;
    let settings = secateur::pipeline::Settings::default();
    let text: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (option, default) in [
        ("--batch-size <N>", settings.data.batch_size.to_string()),
        (
            "--statistics-images <N>",
            settings.prune.statistics_images.to_string(),
        ),
        ("--basis <NAME>", settings.prune.basis.name().to_owned()),
        (
            "--target <NAME=AMOUNT>",
            settings.prune.targets[0].to_string(),
        ),
        ("--augment <HOW>", "crop".to_owned()),
        ("--runtime <NAME>", "tract".to_owned()),
    ] {
        let from = text.find(option).unwrap();
        let stated = text[from..].find(&format!("[default: {default}]")).unwrap();
        let next = text[from + 2..].find(" --").unwrap_or(usize::MAX);
        assert!(stated < next + 60, "{option} {default}");
    }
}

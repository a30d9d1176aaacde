//! A run that is killed goes on with `--resume` and ends with the bytes of an uninterrupted one.

#![allow(clippy::unwrap_used)]

mod command;

use command::Place;
use std::process::{Command, Stdio};
use std::time::Duration;

const ARGUMENTS: [&str; 26] = [
    "compress",
    "model.onnx",
    "-o",
    "out.onnx",
    "--run",
    "run",
    "--head",
    "new",
    "--data-kind",
    "digits",
    "--preprocess",
    "unit",
    "--limit",
    "400",
    "--epochs",
    "6",
    "--window-steps",
    "20",
    "--recovery-epochs",
    "2",
    "--finetune-epochs",
    "4",
    "--target",
    "params=40%",
    "--target",
    "acc-drop=90pp",
];

/// Starts the run and kills it (SIGKILL) as soon as `file` is there. `false` where it ended before.
fn kill_at(place: &Place, file: &str) -> bool {
    let file = place.path().join("run").join(file);
    let mut child = Command::new(env!("CARGO_BIN_EXE_secateur"))
        .current_dir(place.path())
        .args(ARGUMENTS)
        .arg("--resume")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return false;
        }
        if file.exists() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_run_killed_in_any_stage_ends_with_the_same_bytes() {
    let network = std::fs::read(command::fixture("small.onnx")).unwrap();
    let straight = Place::new();
    straight.write("model.onnx", &network);
    straight.succeed(&ARGUMENTS);
    let wanted = std::fs::read(straight.path().join("out.onnx")).unwrap();
    let history = std::fs::read(straight.path().join("run/history.jsonl")).unwrap();
    let rounds = String::from_utf8(history.clone()).unwrap().lines().count();
    assert!(rounds >= 3, "two cuts and the start, not {rounds}");

    // The file that marks the end of one stage is the start of the next.
    let mut moments = vec![
        ("before the transfer", "config.toml".to_owned()),
        (
            "inside the transfer",
            "checkpoints/transfer.safetensors".to_owned(),
        ),
        (
            "between graph and summary",
            "checkpoints/transfer.onnx".to_owned(),
        ),
        ("while decomposing", "checkpoints/transfer.json".to_owned()),
        ("while scoring", "checkpoints/decompose.json".to_owned()),
        (
            "inside the fine-tuning",
            "checkpoints/finetune.safetensors".to_owned(),
        ),
        ("while verifying", "checkpoints/finetune.json".to_owned()),
        ("before the output", "model.onnx".to_owned()),
    ];
    for round in 0..rounds {
        moments.push(("after a cut", format!("checkpoints/round-{round:02}.json")));
    }
    let mut killed = 0;
    for (when, file) in &moments {
        let place = Place::new();
        place.write("model.onnx", &network);
        if kill_at(&place, file) {
            killed += 1;
        }
        let mut resumed = ARGUMENTS.to_vec();
        resumed.push("--resume");
        place.succeed(&resumed);
        for (name, wanted) in [("out.onnx", &wanted), ("run/history.jsonl", &history)] {
            let found = std::fs::read(place.path().join(name)).unwrap();
            assert!(found == *wanted, "killed {when}: `{name}` differs");
        }
        let left: Vec<String> = place.files();
        assert!(
            left.iter().all(|file| !file.ends_with(".tmp")),
            "killed {when}: {left:?}"
        );
    }
    // The last moments may come too late for a kill; all others must not.
    assert!(killed + 1 >= moments.len(), "{killed} of {}", moments.len());
}

//! Grids of runs: random weights beside those of the file, over seeds, on the digits that come with the command.

#![allow(clippy::unwrap_used)]

mod command;

use command::Place;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

const STUDY: &str = r#"
model = "small.onnx"
seeds = [0, 1]
targets = ["params=60%", "acc-drop=20pp"]

[settings.data]
kind = "digits"
preprocess = "unit"
limit = 400
[settings.transfer]
head = "new"
trainable = "all"
epochs = 1
[settings.prune]
statistics-images = 64
refit-images = 64
recovery-epochs = 0
finetune-epochs = 0
halvings = 0
step = 0.5

[arms.given]

[arms.channels]
prune = { removes = "channels" }

[arms.random]
transfer = { weights = "random" }
"#;

fn place() -> Place {
    let place = Place::new();
    place.fixture("small.onnx");
    place.write("study.toml", STUDY.as_bytes());
    place
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read(place: &Place, name: &str) -> Vec<u8> {
    std::fs::read(place.path().join(name)).unwrap()
}

#[test]
fn every_arm_is_cut_with_every_seed_to_every_target() {
    let place = place();
    let ran = place.succeed(&["study", "study.toml", "--format", "json"]);
    let report = json(&ran.stdout);
    let points = report["points"].as_array().unwrap();
    assert_eq!(points.len(), 3 * 2 * 2);
    assert_eq!(report["rows"].as_array().unwrap().len(), 3 * 2);
    for point in points {
        // Each point is what the report of its run says.
        let run = point["run"].as_str().unwrap();
        let own = json(&place.run(&["report", run, "--format", "json"]).stdout);
        for name in ["before", "after", "goal_met", "n_test"] {
            assert_eq!(point[name], own[name], "{run}: {name}");
        }
        if point["target"] == "params=60%" {
            let params = |name: &str| point[name]["params"].as_f64().unwrap();
            assert!(params("after") <= 0.6 * params("before"), "{point}");
        }
    }
    // Directions and channels are cut from the same networks; random weights make others.
    let network = |arm: &str, seed: usize| {
        std::fs::read(
            place
                .path()
                .join(format!("runs/study/{arm}/seed-{seed}/network.onnx")),
        )
        .ok()
    };
    let arms =
        |name: &str| points.iter().find(|point| point["arm"] == name).unwrap()["before"].clone();
    // In the order of names, `channels` comes before `given` and makes the networks of both.
    assert!(network("channels", 0).is_some() && network("given", 0) == network("channels", 0));
    let transfer = |arm: &str| {
        place
            .path()
            .join(format!("runs/study/{arm}/seed-0/transfer"))
    };
    assert!(transfer("channels").exists() && !transfer("given").exists());
    assert_eq!(arms("given")["top1"], arms("channels")["top1"]);
    assert_ne!(network("random", 0), network("channels", 0));
    assert_ne!(network("random", 0), network("random", 1));
    for name in ["study.json", "study.md", "study.html"] {
        let text = String::from_utf8(read(&place, &format!("runs/study/{name}"))).unwrap();
        assert!(text.contains("random"), "{name}");
    }

    let shown = place.succeed(&["report", "runs/study", "--format", "json"]);
    assert_eq!(json(&shown.stdout), report);

    // It is not lost by accident. What is finished stays: the same result, and no run is computed again.
    let refused = place.run(&["study", "study.toml"]);
    assert!(refused.error().contains("`--anew`"), "{}", refused.stderr);
    let before = read(&place, "runs/study/study.json");
    let resumed = place.succeed(&["study", "study.toml", "--resume"]);
    assert_eq!(resumed.stderr.matches("the run is finished").count(), 12);
    assert_eq!(read(&place, "runs/study/study.json"), before);
}

#[test]
fn an_arm_can_be_added_to_a_finished_study() {
    let place = place();
    let (start, channels) = STUDY.split_once("[arms.channels]").unwrap();
    let one = start.replace("[0, 1]", "[0]");
    place.write("study.toml", one.as_bytes());
    place.succeed(&["study", "study.toml"]);
    let network = read(&place, "runs/study/given/seed-0/network.onnx");
    let (channels, _) = channels.split_once("[arms.random]").unwrap();
    let two = format!("{one}\n[arms.channels]{channels}");
    place.write("study.toml", two.as_bytes());
    // Another way to write the folder is no other study.
    let ran = place.succeed(&["study", "study.toml", "--resume", "--run", "./runs/study"]);
    assert_eq!(
        ran.stderr.matches("the run is finished").count(),
        2,
        "{}",
        ran.stderr
    );
    // The new arm takes the network that is there, though its own name comes first.
    let path = |name: &str| place.path().join("runs/study").join(name);
    assert!(!path("channels/seed-0/transfer").exists());
    assert!(read(&place, "runs/study/channels/seed-0/network.onnx") == network);
    // Begun anew, nothing of it is left.
    let changed = two.replace("limit = 400", "limit = 300");
    place.write("study.toml", changed.as_bytes());
    let refused = place.run(&["study", "study.toml", "--resume"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.error().contains("`data.limit`"),
        "{}",
        refused.stderr
    );
    let ran = place.succeed(&["study", "study.toml", "--anew"]);
    assert!(
        !ran.stderr.contains("the run is finished"),
        "{}",
        ran.stderr
    );
    assert!(read(&place, "runs/study/given/seed-0/network.onnx") != network);
}

#[test]
fn a_run_that_fails_is_told_of_and_the_others_are_done() {
    let place = place();
    // Training by such a rate ends in no numbers.
    let diverging = "[arms.random]\ntransfer = { weights = \"random\", lr = 1e30 }";
    let study = STUDY.replace(
        "[arms.random]\ntransfer = { weights = \"random\" }",
        diverging,
    );
    place.write("study.toml", study.replace("[0, 1]", "[0]").as_bytes());
    let ran = place.run(&["study", "study.toml", "--format", "json"]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let report = json(&ran.stdout);
    assert_eq!(report["points"].as_array().unwrap().len(), 4);
    let [failure] = &report["failures"].as_array().unwrap()[..] else {
        panic!("{report}");
    };
    assert_eq!(
        (&failure["arm"], &failure["what"]),
        (&"random".into(), &"transfer".into())
    );
    let shown = place.run(&["report", "runs/study"]);
    assert_eq!(shown.status, 1);
    assert!(shown.stdout.contains("transfer failed"), "{}", shown.stdout);
}

#[test]
fn a_study_that_was_killed_goes_on_and_ends_with_the_same_results() {
    let straight = place();
    straight.succeed(&["study", "study.toml"]);
    let place = place();
    let mut child = Command::new(env!("CARGO_BIN_EXE_secateur"))
        .current_dir(place.path())
        .args(["study", "study.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let marker = place
        .path()
        .join("runs/study/channels/seed-1/params=60%/config.toml");
    while !marker.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before the kill"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = place.run(&["study", "study.toml"]);
    assert_eq!(refused.status, 2);
    assert!(refused.error().contains("`--resume`"), "{}", refused.stderr);
    place.succeed(&["study", "study.toml", "--resume"]);
    for name in ["study.json", "study.md", "study.html"] {
        let name = format!("runs/study/{name}");
        assert!(
            read(&place, &name) == read(&straight, &name),
            "`{name}` differs"
        );
    }
}

#[test]
fn random_weights_know_nothing_of_the_file() {
    let place = place();
    let transfer = |model: &str, output: &str, more: &[&str]| {
        let common = [
            "transfer",
            model,
            "-o",
            output,
            "--head",
            "new",
            "--data-kind",
            "digits",
        ];
        let more = [&["--preprocess", "unit", "--limit", "400"], more].concat();
        place.run(&[&common[..], &more].concat())
    };
    let random = ["--weights", "random", "--transfer", "all", "--epochs", "1"];
    // Another network of the same architecture: trained from the first one.
    let trained = transfer(
        "small.onnx",
        "other.onnx",
        &["--transfer", "all", "--epochs", "1"],
    );
    assert_eq!(trained.status, 0, "{}", trained.stderr);
    for (model, output) in [("small.onnx", "a.onnx"), ("other.onnx", "b.onnx")] {
        let ran = transfer(model, output, &random);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    let compare = |a: &str, b: &str| {
        let size = ["--size", "8x8", "--format", "json"];
        let ran = place.run(&[&["verify", a, b][..], &size].concat());
        json(&ran.stdout)["max_abs_diff"].as_f64().unwrap()
    };
    assert_eq!(compare("a.onnx", "b.onnx"), 0.0);
    assert!(compare("a.onnx", "other.onnx") > 0.0);

    let refused = transfer("small.onnx", "c.onnx", &["--weights", "random"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.error().contains("`--transfer all`"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_cannot_end_is_refused_before_any_run() {
    let place = place();
    for (from, to, want) in [
        (
            "params=60%",
            "params=0.01%",
            "arm `given`: target `params=0.01%` cannot be reached",
        ),
        ("small.onnx", "none.onnx", "none.onnx"),
        ("head = \"new\"", "head = \"old\"", "unknown variant"),
        (
            "kind = \"digits\"",
            "",
            "arm `channels`: no images are named",
        ),
        (
            "preprocess = \"unit\"",
            "",
            "arm `channels`, `small.onnx`: no preprocessing",
        ),
        (
            "trainable = \"all\"",
            "",
            "arm `random`, `small.onnx`: `trainable` is scaling",
        ),
    ] {
        place.write("study.toml", STUDY.replace(from, to).as_bytes());
        let ran = place.run(&["study", "study.toml"]);
        assert_eq!(ran.status, 2, "{to}: {}", ran.stdout);
        assert!(ran.error().contains(want), "{}", ran.stderr);
        assert!(!place.path().join("runs").exists());
    }
}

#[test]
fn a_dry_run_says_what_each_arm_would_do() {
    let place = place();
    let ran = place.succeed(&["study", "study.toml", "--dry-run", "--format", "json"]);
    let plans = json(&ran.stdout);
    let [channels, given, random] = &plans.as_array().unwrap()[..] else {
        panic!("{plans}");
    };
    assert_eq!(channels["shares"], Value::Null);
    assert_eq!(given["shares"], "channels");
    assert_eq!(random["shares"], Value::Null);
    assert!(
        random["transfer"]
            .as_str()
            .unwrap()
            .starts_with("all weights are drawn anew")
    );
    assert_eq!(random["runs"], 4);
    assert!(!place.path().join("runs").exists());
}

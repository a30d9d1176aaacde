//! The commands on a small network and the embedded digits, one after another.

#![allow(clippy::unwrap_used)]

mod command;

use command::Place;
use serde_json::Value;

const DIGITS: [&str; 6] = [
    "--data-kind",
    "digits",
    "--preprocess",
    "unit",
    "--limit",
    "200",
];

fn object(place: &Place, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--format", "json"]);
    serde_json::from_str(&place.succeed(&arguments).stdout).unwrap()
}

#[test]
fn the_single_stages_make_a_smaller_network() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    let decomposed = object(
        &place,
        &[
            "decompose",
            &model,
            "-o",
            "factored.onnx",
            "--exclude",
            "^fc$",
        ],
    );
    let factored = |name: &str| {
        let layers = decomposed["layers"].as_array().unwrap();
        layers.iter().find(|layer| layer["name"] == name).unwrap()["why"] == "factored"
    };
    assert!(factored("conv2") && factored("grouped") && !factored("fc") && !factored("depthwise"));
    let equal = object(&place, &["verify", &model, "factored.onnx"]);
    assert_eq!(equal["within_tolerance"], true);
    assert_eq!(equal["n"], 16);

    let mut prune = vec![
        "prune",
        "factored.onnx",
        "-o",
        "pruned.onnx",
        "--target",
        "params=60%",
    ];
    prune.extend(DIGITS);
    let basis_scaling = ["--method", "basis-scaling", "--window-steps", "4"];
    prune.extend(basis_scaling);
    prune.extend(["--save-plan", "plan.json"]);
    let pruned = object(&place, &prune);
    assert_eq!(pruned["goal_met"], true);

    object(
        &place,
        &[
            "prune",
            "factored.onnx",
            "--plan",
            "plan.json",
            "-o",
            "replayed.onnx",
        ],
    );
    let ranks = |file: &str| {
        let report = object(&place, &["inspect", file]);
        let layers = report["layers"].as_array().unwrap().clone();
        layers
            .iter()
            .map(|layer| layer["rank"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ranks("pruned.onnx"), ranks("replayed.onnx"));
    assert_ne!(ranks("pruned.onnx"), ranks("factored.onnx"));

    let folded = object(
        &place,
        &["fold", "pruned.onnx", "-o", "folded.onnx", "--batch-norm"],
    );
    assert_eq!(folded["after"], pruned["folded"]);
    let equal = object(&place, &["verify", "pruned.onnx", "folded.onnx"]);
    assert_eq!(equal["within_tolerance"], true);

    let differs = place.run(&["verify", &model, "folded.onnx"]);
    assert_eq!(differs.status, 1, "{}", differs.stdout);
    assert!(
        differs.stderr.contains("beyond the tolerance"),
        "{}",
        differs.stderr
    );
}

#[test]
fn each_basis_cuts_to_size_and_its_plan_says_where_it_belongs() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    object(&place, &["decompose", &model, "-o", "factored.onnx"]);
    for basis in ["svd", "white", "fisher"] {
        let mut prune = vec!["prune", "factored.onnx", "-o", "pruned.onnx"];
        prune.extend(["--target", "params=60%", "--basis", basis]);
        prune.extend(["--statistics-images", "96", "--save-plan", "plan.json"]);
        prune.extend(DIGITS);
        let pruned = object(&place, &prune);
        assert_eq!(pruned["goal_met"], true, "{basis}");
        let replay = [
            "prune",
            "factored.onnx",
            "--plan",
            "plan.json",
            "-o",
            "again.onnx",
        ];
        let replayed = place.run(&replay);
        if basis == "svd" {
            assert_eq!(replayed.status, 0, "{}", replayed.stderr);
        } else {
            assert_eq!(replayed.status, 2);
            let says = format!("the plan is one of the {basis} basis");
            assert!(replayed.stderr.contains(&says), "{}", replayed.stderr);
        }
    }
    // What is written in other directions than singular vectors is not cut by the number of those.
    let mut prune = vec!["prune", "pruned.onnx", "-o", "more.onnx", "--basis", "svd"];
    prune.extend(["--score", "energy", "--target", "params=85%"]);
    prune.extend(["--statistics-images", "96", "--save-plan", "plan.json"]);
    prune.extend(DIGITS);
    object(&place, &prune);
    let replay = place.run(&[
        "prune",
        "pruned.onnx",
        "--plan",
        "plan.json",
        "-o",
        "no.onnx",
    ]);
    assert_eq!(replay.status, 2, "{}", replay.stderr);
    assert!(
        replay.error().contains("singular vectors"),
        "{}",
        replay.stderr
    );
    // Taylor scores belong to the singular vectors.
    let mut prune = vec![
        "prune",
        "factored.onnx",
        "-o",
        "pruned.onnx",
        "--target",
        "params=60%",
    ];
    prune.extend(["--score", "taylor"]);
    prune.extend(DIGITS);
    let refused = place.run(&prune);
    assert_eq!(refused.status, 2);
    assert!(
        refused.stderr.contains("`basis` is fisher"),
        "{}",
        refused.stderr
    );
}

#[test]
fn transfer_gives_a_network_that_needs_no_preprocessing_named() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    let mut transfer = vec![
        "transfer",
        &model,
        "-o",
        "digits.onnx",
        "--head",
        "new",
        "--epochs",
        "1",
    ];
    transfer.extend(DIGITS);
    let report = object(&place, &transfer);
    assert_eq!(report["transfer"]["fate"], "replaced");
    let found = object(
        &place,
        &[
            "evaluate",
            "digits.onnx",
            "--data-kind",
            "digits",
            "--limit",
            "200",
        ],
    );
    // A ridge head on random features tells digits apart far better than the tenth of chance.
    assert!(found["top1"].as_f64().unwrap() > 0.4, "{found}");
    let n = found["n"].as_u64().unwrap();
    let (correct, top1) = (
        found["correct"].as_u64().unwrap(),
        found["top1"].as_f64().unwrap(),
    );
    assert_eq!(top1, correct as f64 / n as f64);
    let error = (top1 * (1.0 - top1) / n as f64).sqrt();
    assert!((found["standard_error"].as_f64().unwrap() - error).abs() < 1e-12);
}

fn compress() -> Vec<&'static str> {
    let mut arguments = vec![
        "compress",
        "model.onnx",
        "-o",
        "out.onnx",
        "--run",
        "run",
        "--head",
        "new",
    ];
    arguments.extend(DIGITS);
    arguments.extend([
        "--epochs",
        "1",
        "--window-steps",
        "3",
        "--recovery-epochs",
        "0",
    ]);
    arguments.extend([
        "--finetune-epochs",
        "1",
        "--halvings",
        "0",
        "--target",
        "params=60%",
    ]);
    arguments
}

fn with_model() -> Place {
    let place = Place::new();
    std::fs::copy(
        command::fixture("small.onnx"),
        place.path().join("model.onnx"),
    )
    .unwrap();
    place
}

#[test]
fn compress_prints_the_object_and_fills_the_folder_of_the_run() {
    let place = with_model();
    let report = object(&place, &compress());
    for name in [
        "/goal_met",
        "/before/params",
        "/before/macs",
        "/before/bytes",
        "/before/top1",
        "/after/top1",
        "/n_test",
        "/acc_drop_pp",
        "/targets/0/want",
        "/layers/0/full_rank",
        "/verify/max_abs_diff",
        "/verify/top1_agreement",
        "/verify/runtime",
        "/latency/models/1/p50_ms",
        "/seconds/transfer",
        "/seconds/statistics",
        "/seconds/train",
        "/seconds/prune",
        "/seconds/verify",
        "/model",
    ] {
        assert!(
            report.pointer(name).is_some_and(|value| !value.is_null()),
            "{name} in {report}"
        );
    }
    assert_eq!(report["goal_met"], true);
    let share =
        report["after"]["params"].as_f64().unwrap() / report["before"]["params"].as_f64().unwrap();
    assert!(share <= 0.6, "{share}");
    let output = std::fs::read(place.path().join("out.onnx")).unwrap();
    assert_eq!(report["after"]["bytes"], output.len());
    for name in [
        "config.toml",
        "splits.json",
        "history.jsonl",
        "plan.json",
        "report.json",
        "report.md",
        "report.html",
        "model.onnx",
    ] {
        assert!(place.path().join("run").join(name).is_file(), "{name}");
    }
    let leftover: Vec<String> = place
        .files()
        .into_iter()
        .filter(|file| file.contains(".tmp"))
        .collect();
    assert!(leftover.is_empty(), "{leftover:?}");

    let splits = std::fs::read_to_string(place.path().join("run/splits.json")).unwrap();
    let splits: std::collections::BTreeMap<String, Vec<String>> =
        serde_json::from_str(&splits).unwrap();
    assert_eq!(splits["test"].len(), report["n_test"]);
    let all: std::collections::BTreeSet<&String> = splits.values().flatten().collect();
    assert_eq!(
        all.len(),
        splits.values().map(Vec::len).sum::<usize>(),
        "no image is in two splits"
    );

    // The settings that the run wrote can be given again, and lead to the same bytes.
    place.succeed(&[
        "compress",
        "model.onnx",
        "-o",
        "again.onnx",
        "--config",
        "run/config.toml",
        "--quiet",
    ]);
    assert!(
        std::fs::read(place.path().join("again.onnx")).unwrap() == output,
        "the bytes differ"
    );
}

#[test]
fn the_report_of_a_run_is_shown_again() {
    let place = with_model();
    let report = object(&place, &compress());
    assert_eq!(object(&place, &["report", "run"]), report);
    let ran = place.succeed(&["report", "run"]);
    assert!(ran.stdout.contains("conv2"), "{}", ran.stdout);
    std::fs::remove_file(place.path().join("run/report.json")).unwrap();
    let ran = place.run(&["report", "run"]);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.error().contains("`run/report.json`"), "{}", ran.stderr);
}

#[test]
fn a_finished_run_that_is_resumed_writes_the_same_bytes() {
    let place = with_model();
    place.succeed(&compress());
    let output = place.path().join("out.onnx");
    let first = std::fs::read(&output).unwrap();
    std::fs::remove_file(&output).unwrap();
    let mut resumed = compress();
    resumed.push("--resume");
    place.succeed(&resumed);
    assert!(std::fs::read(&output).unwrap() == first, "the bytes differ");
    resumed.extend(["--seed", "1"]);
    let other = place.run(&resumed);
    assert_eq!(other.status, 2, "{}", other.stderr);
    let wanted = "other settings: `seed` is 0 there and 1 here";
    assert!(other.stderr.contains(wanted), "{}", other.stderr);
}

#[test]
fn a_run_that_is_not_finished_is_not_begun_anew_by_accident() {
    let place = with_model();
    let folder = place.path().join("run");
    place.succeed(&compress());
    assert!(!folder.join("unfinished").exists());
    // As it is after a kill.
    std::fs::write(folder.join("unfinished"), "").unwrap();
    let again = place.run(&compress());
    assert_eq!(again.status, 2, "{}", again.stderr);
    assert!(
        again.stderr.contains("go on with `--resume`"),
        "{}",
        again.stderr
    );
    // Nor by another command in the same folder, unless it is asked to.
    let other = [&compress()[..], &["--seed", "1"]].concat();
    let refused = place.run(&other);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    let wanted = "`seed` is 0 there and 1 here";
    assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
    assert!(folder.join("unfinished").exists());
    place.succeed(&[&other[..], &["--anew"]].concat());
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    assert!(config.contains("seed = 1"), "{config}");
    // Checkpoints of nobody knows what are neither used nor removed.
    std::fs::remove_file(folder.join("config.toml")).unwrap();
    for more in [&[][..], &["--resume"]] {
        let lost = place.run(&[&compress()[..], more].concat());
        assert_eq!(lost.status, 2, "{}", lost.stderr);
        assert!(lost.stderr.contains("no `config.toml`"), "{}", lost.stderr);
    }
    assert!(folder.join("checkpoints").exists());
}

#[test]
fn a_decomposed_file_is_compressed_like_the_network_that_it_was_made_of() {
    let place = with_model();
    place.succeed(&["decompose", "model.onnx", "-o", "factored.onnx"]);
    let report = |model: &'static str, more: &[&'static str]| {
        let mut arguments = [&compress()[..], &["--anew"], more].concat();
        arguments[1] = model;
        object(&place, &arguments)
    };
    let exclude = ["--exclude", "^grouped$"];
    let (before, after) = (
        report("model.onnx", &exclude),
        report("factored.onnx", &exclude),
    );
    let names = |report: &Value| {
        let layers = report["layers"].as_array().unwrap().iter();
        let of = |layer: &Value| (layer["name"].clone(), layer["params_before"].clone());
        layers.map(of).collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    assert_eq!(before["before"]["params"], after["before"]["params"]);
    let layers = after["layers"].as_array().unwrap();
    let excluded = layers
        .iter()
        .find(|layer| layer["name"] == "grouped")
        .unwrap();
    assert_eq!(
        excluded["params_before"], excluded["params_after"],
        "{excluded}"
    );
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be_done() {
    let place = with_model();
    let before = place.files();
    let mut arguments = compress();
    arguments.push("--dry-run");
    let plan = object(&place, &arguments);
    assert_eq!(place.files(), before);
    assert_eq!(plan["classes"], 10);
    assert_eq!(plan["targets"][0]["possible"], true);
    assert!(
        plan["transfer"].as_str().unwrap().contains("`fc`"),
        "{plan}"
    );
    assert_eq!(plan["network"]["layers"].as_array().unwrap().len(), 5);
    arguments.extend(["--target", "params=0.0001%"]);
    let impossible = place.run(&arguments);
    assert_eq!(impossible.status, 1, "{}", impossible.stderr);
}

#[test]
fn a_dry_run_says_whether_either_kind_of_cut_is_tried_alone() {
    let place = with_model();
    let says_so = |more: &[&'static str]| {
        let plan = object(&place, &[&compress()[..], &["--dry-run"], more].concat());
        let stages = plan["stages"].as_array().unwrap();
        let text = "then directions alone and channels alone";
        stages
            .iter()
            .any(|stage| stage.as_str().unwrap().contains(text))
    };
    let quality = ["--target", "acc-drop=5pp"];
    assert!(says_so(&[&["--double"], &quality[..]].concat()));
    // A size is reached by whatever loses least on the way there.
    assert!(!says_so(&["--double"]));
    assert!(!says_so(&quality));
}

#[test]
fn quiet_prints_the_result_and_nothing_else() {
    let place = with_model();
    let mut arguments = compress();
    arguments.push("--quiet");
    let ran = place.succeed(&arguments);
    assert_eq!(ran.stderr, "");
    assert!(
        ran.stdout.contains("parameters") && !ran.stdout.contains('\u{1b}'),
        "{}",
        ran.stdout
    );
}

#[test]
fn saved_settings_hold_the_flags() {
    let place = with_model();
    let mut arguments = compress();
    arguments.extend(["--dry-run", "--seed", "7", "--save-config", "saved.toml"]);
    place.succeed(&arguments);
    let saved: toml::Table = std::fs::read_to_string(place.path().join("saved.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(saved["seed"].as_integer(), Some(7));
    assert_eq!(saved["prune"]["window-steps"].as_integer(), Some(3));
    assert_eq!(saved["prune"]["targets"][0].as_str(), Some("params=60%"));
}

#[test]
fn channels_and_directions_are_cut_from_one_budget() {
    for (remove, kinds) in [
        ("channels", &["channels"][..]),
        ("double", &["channels", "directions", "inputs"]),
    ] {
        let place = with_model();
        let mut arguments = compress();
        arguments.extend(["--remove", remove, "--statistics-images", "96"]);
        let report = object(&place, &arguments);
        assert_eq!(report["goal_met"], true, "{remove}");
        assert!(report["after"]["macs"].as_u64() < report["before"]["macs"].as_u64());
        let rounds = report["rounds"].as_array().unwrap();
        for round in &rounds[1..] {
            let kind = round["kind"].as_str().unwrap();
            assert!(kinds.contains(&kind), "{remove}: {kind}");
        }
        // The file that is written is the network that was judged: `compress` compares them in another
        // runtime, and says what the comparison found.
        assert_eq!(report["verify"]["top1_agreement"], 1.0);
        assert!(place.path().join("run/channels.json").exists());
        let first = std::fs::read(place.path().join("out.onnx")).unwrap();
        std::fs::remove_file(place.path().join("out.onnx")).unwrap();
        arguments.push("--resume");
        place.succeed(&arguments);
        let again = std::fs::read(place.path().join("out.onnx")).unwrap();
        assert!(again == first, "{remove}: the bytes differ");
    }
}

#[test]
fn double_pruning_goes_as_far_as_the_better_of_its_kinds() {
    let place = with_model();
    let common = "compress model.onnx -o out.onnx --run run --head new --data-kind digits --preprocess unit \
                  --limit 300 --epochs 3 --window-steps 3 --recovery-epochs 0 --finetune-epochs 1 \
                  --statistics-images 96 --margin 0";
    let common: Vec<&str> = common.split_whitespace().collect();
    // Rounds that take both lead furthest with the first, channels alone with the second, and to the target with the last.
    for targets in [
        &["acc-drop=30pp"][..],
        &["acc-drop=50pp"],
        &["acc-drop=50pp", "macs=12%"],
    ] {
        let targets = targets.iter().flat_map(|target| ["--target", target]);
        let targets: Vec<&str> = targets.collect();
        compare_ways(&place, &[&common[..], &targets].concat());
    }
}

fn compare_ways(place: &Place, arguments: &[&str]) {
    let run = |remove: &str| {
        let ran = place.run(&[arguments, &["--format", "json", "--remove", remove]].concat());
        assert!(ran.status <= 1, "{}", ran.stderr);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let rounds = report["rounds"].as_array().unwrap().clone();
        let last = rounds.into_iter().rfind(|round| round["accepted"] == true);
        (report, last.unwrap())
    };
    // Whether a target on size is missed, and then the parameters.
    let rank = |(report, end): &(Value, Value)| {
        let targets = report["targets"].as_array().unwrap().iter();
        let mut sizes = targets.filter(|target| target["name"] != "acc-drop");
        let missed = sizes.any(|target| target["met"] == false);
        (missed, end["size"]["params"].as_u64().unwrap())
    };
    let alone = ["basis", "channels"].map(run);
    let double = run("double");
    let ranks = alone.each_ref().map(rank);
    assert!(
        rank(&double) <= ranks[0].min(ranks[1]),
        "{:?} {ranks:?}",
        rank(&double)
    );
    let (report, end) = double;
    if let Some(ways) = report["ways"].as_array() {
        let taken: Vec<_> = ways.iter().filter(|way| way["taken"] == true).collect();
        assert_eq!(taken.len(), 1, "{ways:?}");
        assert_eq!(taken[0]["end"], end);
        // Each kind alone, from where it is another way, ends where it does from the start.
        for (kind, (_, end)) in ["basis", "channels"].into_iter().zip(&alone) {
            if let Some(way) = ways.iter().find(|way| way["removes"] == kind) {
                assert_eq!(&way["end"], end, "{kind}");
            }
        }
    }
    let first = std::fs::read(place.path().join("out.onnx")).unwrap();
    let last = place.path().join("run/checkpoints/finetune.json");
    std::fs::remove_file(last).unwrap();
    let again = place.run(&[arguments, &["--remove", "double", "--resume"]].concat());
    assert!(again.status <= 1, "{}", again.stderr);
    assert!(first == std::fs::read(place.path().join("out.onnx")).unwrap());
}

#[test]
fn batch_norm_is_carried_over_a_cut() {
    let place = Place::new();
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.onnx");
    std::fs::copy(demo, place.path().join("model.onnx")).unwrap();
    place.succeed(&compress());
    let means = |stage: &str| {
        let path = place.path().join(format!("run/checkpoints/{stage}.onnx"));
        let graph = secateur::onnx::read(&path).unwrap().graph;
        let is_norm =
            |op: &secateur::graph::Op| matches!(op, secateur::graph::Op::BatchNormalization { .. });
        let norms = graph.nodes.iter().filter(|node| is_norm(&node.op));
        norms
            .map(|node| {
                (
                    node.name.clone(),
                    graph.initializers[&node.inputs[3]].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let (before, after) = (means("round-00"), means("round-01"));
    assert!(!before.is_empty());
    assert_ne!(
        before, after,
        "the statistics are those of the network before the cut"
    );
}

#[test]
fn rounds_for_time_keep_what_is_faster_and_go_on_from_what_was_measured() {
    let place = with_model();
    let mut arguments = compress();
    let target = arguments.len() - 1;
    arguments[target] = "acc-drop=90pp";
    arguments.extend(["--per", "time", "--statistics-images", "96"]);
    let report = object(&place, &arguments);
    let rounds = report["rounds"].as_array().unwrap();
    let nanos = |round: &Value| round["size"]["nanos"].as_u64().unwrap();
    let kept: Vec<u64> = rounds
        .iter()
        .filter(|round| round["accepted"] == true)
        .map(nanos)
        .collect();
    assert!(kept[0] > 0);
    assert!(kept.windows(2).all(|pair| pair[1] < pair[0]), "{kept:?}");

    // A run that goes on believes what its folder says of times: first that one layer is far faster as two
    // factors, whatever the rank, then that none is.
    let mut resumed = arguments.clone();
    resumed.push("--resume");
    let checkpoints = place.path().join("run/checkpoints");
    let cuts_where = |factored: u64| {
        let path = checkpoints.join("times-00.json");
        let mut times: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let layers = times["layers"].as_object_mut().unwrap();
        for (name, layer) in layers {
            layer["dense"] = 1000.into();
            let nanos = if name == "conv2" { factored } else { 2000 };
            layer["factored"] = serde_json::json!([[1, nanos], [100, nanos]]);
        }
        times["whole"] = 100_000.into();
        std::fs::write(&path, times.to_string()).unwrap();
        // As it is after a kill: what is finished is not computed again.
        std::fs::write(place.path().join("run/unfinished"), "").unwrap();
        for entry in std::fs::read_dir(&checkpoints).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_after = name.starts_with("round-") && !name.starts_with("round-00");
            if is_after || name.starts_with("finetune") || name == "times-01.json" {
                std::fs::remove_file(path).unwrap();
            }
        }
        object(&place, &resumed)["rounds"].as_array().unwrap().len()
    };
    assert_eq!(cuts_where(3000), 1, "nothing is faster, nothing is cut");
    assert!(cuts_where(10) > 1, "a layer is faster");
}

#[test]
fn files_are_timed_in_turns() {
    let place = with_model();
    let report = object(
        &place,
        &[
            "bench",
            "model.onnx",
            "model.onnx",
            "--runs",
            "6",
            "--batch-size",
            "2",
        ],
    );
    assert_eq!(report["runs"], 6);
    assert_eq!(report["input"][0], 2);
    let models = report["models"].as_array().unwrap();
    assert_eq!(models[0]["speedup"], 1.0);
    for model in models {
        let (p50, p95) = (&model["p50_ms"], &model["p95_ms"]);
        assert!(p50.as_f64().unwrap() > 0.0 && p95.as_f64() >= p50.as_f64());
    }
}

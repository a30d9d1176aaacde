//! A run that is killed or interrupted goes on with `--resume` and ends with the bytes of an
//! uninterrupted one.

#![allow(clippy::unwrap_used)]

mod command;

use command::{Place, Ran};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const COMMON: [&str; 17] = [
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
    "--target",
    "acc-drop=90pp",
    "--quiet",
];

/// The published method: trainings, and scores gathered in them.
const BASIS: [&str; 10] = [
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
];

/// Statistics, cuts of both kinds, refits.
const DOUBLE: [&str; 7] = [
    "--double",
    "--epochs",
    "2",
    "--finetune-epochs",
    "2",
    "--target",
    "params=30%",
];

/// Both kinds of cuts, and each alone, until accuracy stops them.
const WAYS: [&str; 9] = [
    "--double",
    "--epochs",
    "2",
    "--finetune-epochs",
    "1",
    "--halvings",
    "0",
    "--step",
    "0.5",
];

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&COMMON[..], more].concat()
}

/// An uninterrupted run: what it wrote, and how long it took.
struct Straight {
    network: Vec<u8>,
    output: Vec<u8>,
    history: Vec<u8>,
    seconds: f64,
}

impl Straight {
    fn run(more: &[&str]) -> Self {
        let network = std::fs::read(command::fixture("small.onnx")).unwrap();
        let place = Place::new();
        place.write("model.onnx", &network);
        let start = Instant::now();
        place.succeed(&arguments(more));
        let read = |name: &str| std::fs::read(place.path().join(name)).unwrap();
        Self {
            network,
            output: read("out.onnx"),
            history: read("run/history.jsonl"),
            seconds: start.elapsed().as_secs_f64(),
        }
    }

    fn place(&self) -> Place {
        let place = Place::new();
        place.write("model.onnx", &self.network);
        place
    }

    fn rounds(&self) -> usize {
        String::from_utf8_lossy(&self.history).lines().count()
    }

    /// Ends a run that was cut off, and compares.
    fn resume_and_compare(&self, place: &Place, more: &[&str], when: &str) {
        let mut resumed = arguments(more);
        resumed.push("--resume");
        place.succeed(&resumed);
        for (name, wanted) in [
            ("out.onnx", &self.output),
            ("run/history.jsonl", &self.history),
        ] {
            let found = std::fs::read(place.path().join(name)).unwrap();
            assert!(found == *wanted, "cut off {when}: `{name}` differs");
        }
        let left: Vec<String> = place.files();
        assert!(
            left.iter().all(|file| !file.ends_with(".tmp")),
            "cut off {when}: {left:?}"
        );
    }
}

fn start(place: &Place, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_secateur"))
        .current_dir(place.path())
        .args(arguments(more))
        .arg("--resume")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts the run and waits until `file` is there. `None` where it ended before.
fn start_until(place: &Place, more: &[&str], file: &str) -> Option<Child> {
    let file = place.path().join("run").join(file);
    let mut child = start(place, more);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return None;
        }
        if file.exists() {
            return Some(child);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_in_any_stage_ends_with_the_same_bytes() {
    let straight = Straight::run(&BASIS);
    let rounds = straight.rounds();
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
        let place = straight.place();
        if let Some(child) = start_until(&place, &BASIS, file) {
            kill(child);
            killed += 1;
        }
        straight.resume_and_compare(&place, &BASIS, when);
    }
    // The last moments may come too late for a kill; all others must not.
    assert!(killed + 1 >= moments.len(), "{killed} of {}", moments.len());
}

#[test]
fn a_run_killed_in_a_way_that_is_tried_alone_ends_with_the_same_bytes() {
    let straight = Straight::run(&WAYS);
    for file in [
        "checkpoints/channels-round-01.json",
        "checkpoints/channels-round-02.onnx",
    ] {
        let place = straight.place();
        let child = start_until(&place, &WAYS, file);
        let Some(child) = child else {
            panic!("the run ended before `{file}` was there");
        };
        kill(child);
        straight.resume_and_compare(&place, &WAYS, file);
    }
}

/// Kills at random moments, one and two threads in turns. `SECATEUR_KILLS` says how many kills.
#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bytes() {
    let wanted = std::env::var("SECATEUR_KILLS").map_or(6, |n| n.parse().unwrap());
    for (number, more) in [&BASIS[..], &DOUBLE].into_iter().enumerate() {
        let straight = Straight::run(more);
        let mut kills = 0;
        // A fixed sequence: the golden ratio's multiples fill the run evenly.
        let mut moments = (1..).map(|n| (f64::from(n) * 0.618_034).fract());
        while kills < wanted / 2 {
            let place = straight.place();
            // Every other run is killed twice.
            let mut when = String::new();
            for _ in 0..1 + kills % 2 {
                let threads = ["--threads", ["1", "2"][kills % 2]];
                let seconds = straight.seconds * moments.next().unwrap();
                let mut child = start(&place, &[more, &threads].concat());
                std::thread::sleep(Duration::from_secs_f64(seconds));
                if child.try_wait().unwrap().is_none() {
                    kill(child);
                    kills += 1;
                    when += &format!("after {seconds:.2} s, ");
                }
            }
            straight.resume_and_compare(&place, more, &when);
        }
        #[allow(clippy::print_stderr)]
        {
            eprintln!("kind {number}: {kills} kills, all with the same bytes");
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_ends_after_its_step_and_goes_on_from_there() {
    let straight = Straight::run(&BASIS);
    for file in [
        "config.toml",
        "checkpoints/transfer.safetensors",
        "checkpoints/round-00.json",
    ] {
        let place = straight.place();
        let Some(child) = start_until(&place, &BASIS, file) else {
            panic!("the run ended before `{file}` was there");
        };
        // The shell's own `kill` is there where the program is not.
        let signal = format!("kill -INT {}", child.id());
        let status = Command::new("sh").args(["-c", &signal]).status().unwrap();
        assert!(status.success());
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.status, 130, "{file}: {}", ran.stderr);
        let wanted = "error: stopped: the same command with `--resume` goes on from here";
        assert!(ran.stderr.contains(wanted), "{}", ran.stderr);
        assert!(!place.path().join("out.onnx").exists());
        straight.resume_and_compare(&place, &BASIS, file);
    }
}

#[test]
fn a_folder_in_which_a_run_is_at_work_is_refused() {
    let straight = Straight::run(&BASIS);
    let place = straight.place();
    let Some(child) = start_until(&place, &BASIS, "config.toml") else {
        panic!("the run ended before it was at work");
    };
    let second = place.run(&arguments(&BASIS));
    assert_eq!(second.status, 2);
    let said = &second.stderr;
    assert!(
        said.contains("`run`") && said.contains("another run is at work"),
        "{said}"
    );
    kill(child);
    straight.resume_and_compare(&place, &BASIS, "beside a second run");
}

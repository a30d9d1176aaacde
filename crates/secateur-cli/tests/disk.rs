//! Full and read-only file systems: one error, nothing half-written, the input untouched, and a run that
//! goes on once there is room. Needs a system on which a process may mount a file system of its own;
//! elsewhere the tests print so and pass.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod command;

use command::{Place, Ran};
use std::process::Command;

const RUN: &str = "\"$0\" compress model.onnx -o disk/out.onnx --run disk/run --head new --data-kind digits --preprocess unit \
                   --limit 200 --epochs 1 --window-steps 5 --recovery-epochs 0 --finetune-epochs 1 --quiet \
                   --method basis-scaling --target acc-drop=90pp --target params=50% --resume";

/// Runs a script in `place` with mounts of its own; `$0` is the command. `None` where that is not allowed.
fn with_mounts(place: &Place, script: &str) -> Option<Ran> {
    let try_with = |flags: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script]);
        command.arg(env!("CARGO_BIN_EXE_secateur"));
        command.current_dir(place.path()).output().ok()
    };
    std::fs::create_dir_all(place.path().join("disk")).unwrap();
    for flags in [&["-m"][..], &["-rm"]] {
        let allowed = try_with(flags, "mount -t tmpfs none disk");
        if allowed.is_some_and(|output| output.status.success()) {
            return try_with(flags, script).map(Ran::from);
        }
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("not run: a process may not mount a file system here");
    }
    None
}

fn place() -> (Place, Vec<u8>) {
    let network = std::fs::read(command::fixture("small.onnx")).unwrap();
    let place = Place::new();
    place.write("model.onnx", &network);
    (place, network)
}

#[test]
fn a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room() {
    let (straight, network) = place();
    std::fs::create_dir(straight.path().join("disk")).unwrap();
    let script = RUN.replace("\"$0\"", env!("CARGO_BIN_EXE_secateur"));
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(straight.path());
    assert!(command.output().unwrap().status.success());
    let wanted = std::fs::read(straight.path().join("disk/out.onnx")).unwrap();

    let mut full = 0;
    // Pages of a file system in memory: full at the settings, at a checkpoint, at the output.
    for pages in [2, 4, 8, 16, 24, 32, 48, 64, 96] {
        let (place, _) = place();
        let script = format!(
            "mount -t tmpfs -o size={pages}k,nr_inodes=100 none disk
             {RUN}; echo status $?
             ls -A disk disk/run disk/run/checkpoints 2>&1
             mount -o remount,size=64m disk
             {RUN} || exit 3
             cp disk/out.onnx .",
            pages = 4 * pages,
        );
        let Some(ran) = with_mounts(&place, &script) else {
            return;
        };
        assert_eq!(
            ran.status, 0,
            "{pages} pages: {}\n{}",
            ran.stdout, ran.stderr
        );
        assert!(
            !ran.stdout.contains(".tmp"),
            "{pages} pages: {}",
            ran.stdout
        );
        if ran.stdout.contains("status 2") {
            full += 1;
            let error = ran.error();
            assert!(error.contains("disk/"), "{pages} pages: {error}");
            assert!(
                !ran.stderr.contains("panicked"),
                "{pages} pages: {}",
                ran.stderr
            );
        }
        assert_eq!(
            std::fs::read(place.path().join("model.onnx")).unwrap(),
            network
        );
        let found = std::fs::read(place.path().join("out.onnx")).unwrap();
        assert!(found == wanted, "{pages} pages: other bytes");
    }
    assert!(full >= 4, "the disk was full {full} times only");
}

#[test]
fn a_read_only_folder_is_one_error_before_the_work() {
    let (place, network) = place();
    let script = format!("mount -t tmpfs none disk && mount -o remount,ro disk; {RUN}");
    let Some(ran) = with_mounts(&place, &script) else {
        return;
    };
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let error = ran.error();
    assert!(
        error.contains("disk/") && error.contains("ead-only"),
        "{error}"
    );
    assert_eq!(
        std::fs::read(place.path().join("model.onnx")).unwrap(),
        network
    );
}

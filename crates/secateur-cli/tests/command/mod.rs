//! Runs the real binary.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder to run in, removed at the end.
pub struct Place {
    folder: tempfile::TempDir,
}

/// What a command printed, and its exit status.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Copies a fixture here and returns its name.
    pub fn fixture(&self, name: &str) -> String {
        std::fs::copy(fixture(name), self.path().join(name)).unwrap();
        name.to_owned()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes `n` grey 8x8 images of a class; what they show depends on the class.
    pub fn images(&self, class_folder: &str, n: usize) {
        let shade = class_folder.bytes().map(usize::from).sum::<usize>();
        for image in 0..n {
            let mut bytes = b"P5 8 8 255\n".to_vec();
            bytes.extend((0..64).map(|pixel| ((pixel * shade + image * 7) % 256) as u8));
            self.write(&format!("{class_folder}/{image}.pgm"), &bytes);
        }
    }

    /// Runs `secateur` here.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command
            .current_dir(self.path())
            .args(arguments)
            .env_remove("COLUMNS");
        Ran::from(command.output().unwrap())
    }

    /// As [`Place::run`]; the command must succeed.
    pub fn succeed(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(
            ran.status, 0,
            "{arguments:?}\n{}\n{}",
            ran.stdout, ran.stderr
        );
        ran
    }

    /// Every file here, sorted, by its path from here.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(
                        path.strip_prefix(self.path())
                            .unwrap()
                            .display()
                            .to_string(),
                    );
                }
            }
        }
        files.sort();
        files
    }
}

impl Ran {
    /// The one error that it said.
    #[track_caller]
    pub fn error(&self) -> &str {
        let lines = self.stderr.lines();
        let errors: Vec<&str> = lines.filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        errors[0]
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Compares with a committed file. With `SECATEUR_UPDATE=1` in the environment the file is written
/// instead.
pub fn assert_committed(path: &Path, found: &str) {
    if std::env::var_os("SECATEUR_UPDATE").is_some() {
        std::fs::write(path, found).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == found,
        "`{}` differs from what the command prints now; where that is right, run \
         `SECATEUR_UPDATE=1 cargo test -p secateur-cli`. It prints:\n{found}",
        path.display()
    );
}

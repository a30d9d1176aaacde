//! What a study's file says: `Study.toml -> Study`.

use super::StudyError;
use crate::data::DataKind;
use crate::pipeline::{PruneSettings, Settings, Target, TransferSettings};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A grid of runs: each arm, with each seed, cut to each target.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// The seeds of everything random.
    pub seeds: Vec<u64>,
    /// What cuts have to reach, one target a run.
    pub targets: Vec<Target>,
    /// What is compared, in the order of names.
    pub arms: Vec<Arm>,
}

/// One way to make and cut networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// The name, that of a folder.
    pub name: String,
    /// The network's file.
    pub model: PathBuf,
    /// All choices but seed and targets.
    pub settings: Settings,
}

impl Arm {
    /// What the network before the cuts depends on.
    pub(super) fn start_settings(&self, seed: u64) -> Settings {
        let settings = &self.settings;
        Settings {
            seed,
            engine: settings.engine,
            data: settings.data.clone(),
            transfer: settings.transfer.clone(),
            prune: PruneSettings {
                batch_norm_images: settings.prune.batch_norm_images,
                ..PruneSettings::default()
            },
            ..Settings::default()
        }
    }

    /// Whether the network before the cuts is made as that of `other`.
    pub(super) fn starts_as(&self, other: &Self) -> bool {
        self.model == other.model && self.start_settings(0) == other.start_settings(0)
    }

    /// What the cut of a network that is made already depends on.
    pub(super) fn cut_settings(&self, seed: u64, target: &Target) -> Settings {
        let mut settings = self.settings.clone();
        settings.seed = seed;
        settings.prune.targets = vec![*target];
        settings.transfer = TransferSettings {
            epochs: Some(0),
            ..TransferSettings::default()
        };
        settings
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    model: Option<PathBuf>,
    seeds: Vec<u64>,
    targets: Vec<Target>,
    #[serde(default)]
    settings: toml::Table,
    arms: BTreeMap<String, toml::Table>,
}

impl Study {
    /// Reads a study from a TOML file: `model`, `seeds`, `targets`, `[settings]` as `compress --config` takes them, and a
    /// table `[arms.NAME]` for each arm with what differs there, which may be `model`, too. Paths are those of the
    /// working folder.
    ///
    /// # Errors
    /// [`StudyError`] where the file cannot be read, or says what no study can be.
    pub fn read(path: &Path) -> Result<Self, StudyError> {
        let text = std::fs::read_to_string(path).map_err(|problem| StudyError::Read {
            path: path.to_owned(),
            problem,
        })?;
        Self::parse(&text).map_err(|problem| StudyError::File {
            path: path.to_owned(),
            problem,
        })
    }

    /// The number of runs.
    pub(super) fn runs(&self) -> usize {
        self.arms.len() * self.seeds.len() * self.targets.len()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: StudyFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if file.seeds.is_empty() || file.targets.is_empty() || file.arms.is_empty() {
            return Err(
                "it wants at least one of `seeds`, of `targets` and of `[arms.NAME]`".to_owned(),
            );
        }
        let seeds: BTreeSet<u64> = file.seeds.iter().copied().collect();
        let targets: BTreeSet<String> = file.targets.iter().map(Target::to_string).collect();
        if seeds.len() < file.seeds.len() || targets.len() < file.targets.len() {
            return Err("a seed or a target stands there twice".to_owned());
        }
        let base = file.settings;
        let arms = file.arms.into_iter().map(|(name, own)| {
            arm(&name, file.model.as_ref(), &base, own)
                .map_err(|problem| format!("arm `{name}`: {problem}"))
        });
        Ok(Self {
            seeds: file.seeds,
            targets: file.targets,
            arms: arms.collect::<Result<_, _>>()?,
        })
    }
}

fn arm(
    name: &str,
    model: Option<&PathBuf>,
    base: &toml::Table,
    mut own: toml::Table,
) -> Result<Arm, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // `lock` is a file of the study's folder.
    if name.is_empty() || name == "lock" || !name.chars().all(is_plain) {
        return Err(
            "a name is of letters, digits, `-` and `_`, as it becomes a folder, and not `lock`"
                .to_owned(),
        );
    }
    let model = match own.remove("model") {
        Some(toml::Value::String(path)) => PathBuf::from(path),
        Some(_) => return Err("`model` is no path".to_owned()),
        None => model
            .cloned()
            .ok_or("no `model` is named, here or for all arms")?,
    };
    let mut table = base.clone();
    merge(&mut table, own);
    let has_targets = table
        .get("prune")
        .is_some_and(|prune| prune.get("targets").is_some());
    if table.contains_key("seed") || has_targets {
        return Err("`seeds` and `targets` are those of the study, not of settings".to_owned());
    }
    let settings = Settings::deserialize(table).map_err(|error| error.message().to_owned())?;
    if settings.data.path.is_none() && settings.data.kind != Some(DataKind::Digits) {
        return Err("no images are named: `path` in `[settings.data]`".to_owned());
    }
    Ok(Arm {
        name: name.to_owned(),
        model,
        settings,
    })
}

/// Puts what `own` says in the place of what `table` says, table by table.
fn merge(table: &mut toml::Table, own: toml::Table) {
    for (key, value) in own {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(own)) => merge(inner, own),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::train::Trainable;
    use crate::transfer::Weights;

    const STUDY: &str = r#"
model = "vgg.onnx"
seeds = [0, 7]
targets = ["params=50%", "acc-drop=1.0pp"]

[settings.data]
path = "images"
[settings.transfer]
trainable = "all"
epochs = 3

[arms.random]
transfer = { weights = "random", epochs = 9 }

[arms.given]
[arms.other]
model = "other.onnx"
"#;

    #[test]
    fn an_arm_is_the_settings_of_all_and_what_differs() {
        let study = Study::parse(STUDY).unwrap();
        assert_eq!((study.seeds.len(), study.targets.len()), (2, 2));
        let names: Vec<&str> = study.arms.iter().map(|arm| &arm.name[..]).collect();
        assert_eq!(names, ["given", "other", "random"]);
        let [given, other, random] = &study.arms[..] else {
            unreachable!()
        };
        assert_eq!(given.model, Path::new("vgg.onnx"));
        assert_eq!(other.model, Path::new("other.onnx"));
        assert_eq!(given.settings, other.settings);
        let transfer = &random.settings.transfer;
        assert_eq!(
            (transfer.weights, transfer.epochs),
            (Weights::Random, Some(9))
        );
        assert_eq!(transfer.trainable, Trainable::All);
        assert_eq!(random.settings.data.path, given.settings.data.path);
        assert_eq!(given.settings.transfer.epochs, Some(3));
    }

    #[test]
    fn what_no_study_can_be_is_refused_in_words() {
        let without = |line: &str| STUDY.replace(line, "");
        for (text, want) in [
            (without("model = \"vgg.onnx\""), "no `model` is named"),
            (without("seeds = [0, 7]"), "missing field `seeds`"),
            (STUDY.replace("[0, 7]", "[7, 7]"), "twice"),
            (STUDY.replace("[0, 7]", "[]"), "at least one"),
            (
                STUDY.replace("acc-drop=1.0pp", "acc-drop=1"),
                "`acc-drop=1` is no target",
            ),
            (
                STUDY.replace("weights", "weigths"),
                "arm `random`: unknown field `weigths`",
            ),
            (
                STUDY.replace("arms.given", "arms.\"../up\""),
                "letters, digits",
            ),
            (STUDY.replace("path = ", "#"), "no images are named"),
            (
                STUDY.replace("[settings.data]", "[settings]\nseed = 1\n[settings.data]"),
                "not of settings",
            ),
        ] {
            let problem = Study::parse(&text).unwrap_err();
            assert!(problem.contains(want), "{problem}");
        }
    }
}

//! `secateur demo`: the whole job on what the command carries with it.

use super::compress::finish;
use crate::args::{DemoArgs, Format};
use crate::progress::Terminal;
use crate::{Outcome, failure};
use anyhow::{Context, Result};
use secateur::data::DataKind;
use secateur::files::write_atomic;
use secateur::pipeline::{self, Job, Resume, Settings};
use secateur::train::Trainable;
use secateur::transfer::HeadChoice;

/// The network that is fitted to the digits.
static NETWORK: &[u8] = include_bytes!("../../demo/demo.onnx");

pub fn run(args: &DemoArgs, progress: &Terminal) -> Result<Outcome> {
    let folder = &args.run;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let model = folder.join("pretrained.onnx");
    let output = folder.join("small.onnx");
    write_atomic(&model, NETWORK)?;
    let settings = settings();
    let report = pipeline::compress(&Job {
        model: &model,
        output: &output,
        run: folder,
        resume: Resume::Anew,
        settings: &settings,
        runtime_options: &args.global.runtime_options(),
        engine: &*settings.engine.open(),
        progress,
    })
    .map_err(failure::about(&model))?;
    let next = [
        format!("all settings of this run are in `{}`", folder.join("config.toml").display()),
        "next, on your own network and images:".to_owned(),
        "  secateur inspect model.onnx".to_owned(),
        "  secateur compress model.onnx --data images/ --preprocess imagenet -o small.onnx --dry-run".to_owned(),
    ];
    let more = if args.global.format == Format::Table {
        &next[..]
    } else {
        &[]
    };
    finish(&report, folder, args.global.format, more)
}

/// Settings under which the demo takes less than a minute on two cores.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.data.kind = Some(DataKind::Digits);
    // A few hundred images judge a cut: fewer would not tell one point from chance.
    settings.data.val_fraction = 0.3;
    // The network tells ten classes apart, too, but others.
    settings.transfer.head = HeadChoice::New;
    settings.transfer.trainable = Trainable::All;
    settings.transfer.epochs = Some(5);
    settings.transfer.lr = Some(0.001);
    settings.prune.lr = 0.0003;
    settings.prune.finetune_epochs = 2;
    settings
}

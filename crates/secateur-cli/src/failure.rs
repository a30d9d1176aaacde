//! Errors as the user reads them: one line that says what is wrong and where, and a hint where a way
//! out is known.

use crate::progress::line;
use anyhow::Error;
use secateur::decompose::DecomposeError;
use secateur::files::WriteError;
use secateur::graph::GraphError;
use secateur::pipeline::PipelineError;
use secateur::progress::Stopped;
use secateur::study::StudyError;
use std::path::Path;

/// Prints `error: ...` and `hint: ...` to stderr.
pub fn print(error: &Error) {
    // Some parsers draw over several lines; an error is one.
    let text = whole(error);
    let text: Vec<&str> = text.split_whitespace().collect();
    let (text, stopped) = (text.join(" "), Stopped.to_string());
    // An end that the user asked for is no fault of the file at hand.
    let is_stopped = text.ends_with(&stopped);
    line(&format!(
        "error: {}",
        if is_stopped { &stopped } else { &text }
    ));
    if let Some(hint) = hint(error) {
        line(&format!("hint: {hint}"));
    }
}

/// The error and its causes, but for those that it tells of itself.
fn whole(error: &Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.is_empty() {
            true => cause,
            false if text.contains(&cause) => text,
            false => format!("{text}: {cause}"),
        }
    })
}

/// An error that is about a network, with the name of its file where the message lacks it.
pub fn about(model: &Path) -> impl Fn(PipelineError) -> Error + '_ {
    move |error| {
        let is_about_the_network = match &error {
            PipelineError::Graph(_)
            | PipelineError::Infer(_)
            | PipelineError::Transfer(_)
            | PipelineError::Train(_)
            | PipelineError::Exec(_)
            | PipelineError::Decompose(_)
            | PipelineError::Importance(_)
            | PipelineError::Select(_)
            | PipelineError::Prune(_)
            | PipelineError::Channels(_)
            | PipelineError::Repair(_)
            | PipelineError::Fold(_)
            | PipelineError::Verify(_)
            | PipelineError::NoPreprocess
            | PipelineError::Infeasible { .. }
            | PipelineError::NotFactored
            | PipelineError::NoClassifier
            | PipelineError::NoSize
            | PipelineError::ImageSize { .. }
            | PipelineError::FixedBatch { .. }
            | PipelineError::Classes { .. }
            | PipelineError::Output { .. }
            | PipelineError::Indices { .. }
            | PipelineError::NothingToPrune => true,
            PipelineError::Onnx(_)
            | PipelineError::Data(_)
            | PipelineError::Preprocess(_)
            | PipelineError::Write(_)
            | PipelineError::Run { .. }
            | PipelineError::Exclude(_)
            | PipelineError::Setting { .. }
            | PipelineError::Stopped(_)
            | PipelineError::CutTarget
            | PipelineError::Report(_)
            | PipelineError::Load { .. }
            | PipelineError::NoLabels
            | PipelineError::NoLabelsForTarget
            | PipelineError::NoValidationImages
            | PipelineError::NoTestImages => false,
        };
        let error = Error::from(error);
        if is_about_the_network {
            error.context(format!("`{}`", model.display()))
        } else {
            error
        }
    }
}

fn hint(error: &Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<PipelineError>() {
            pipeline_hint(error)
        } else if let Some(StudyError::Arm { problem, .. } | StudyError::Run { problem, .. }) =
            cause.downcast_ref::<StudyError>()
        {
            pipeline_hint(problem)
        } else if let Some(error) = cause.downcast_ref::<DecomposeError>() {
            decompose_hint(error)
        } else if let Some(error) = cause.downcast_ref::<GraphError>() {
            graph_hint(error)
        } else if let Some(WriteError { path, .. }) = cause.downcast_ref::<WriteError>() {
            Some(write_hint(path))
        } else {
            None
        }
    })
}

fn pipeline_hint(error: &PipelineError) -> Option<String> {
    match error {
        PipelineError::Decompose(error) => decompose_hint(error),
        PipelineError::Graph(error) => graph_hint(error),
        PipelineError::Write(error) => Some(write_hint(&error.path)),
        PipelineError::Infeasible { .. } | PipelineError::Select(_) => {
            Some("ask for less, or exclude fewer layers".to_owned())
        }
        PipelineError::NothingToPrune => {
            Some("`secateur inspect` names the reason for each layer".to_owned())
        }
        PipelineError::NoTestImages => {
            Some("add a `test` folder, or carve one with `--test-fraction`".to_owned())
        }
        _ => None,
    }
}

fn decompose_hint(error: &DecomposeError) -> Option<String> {
    match error {
        DecomposeError::ExcludesNothing(_) => {
            Some("`secateur inspect` lists the layers' names".to_owned())
        }
        DecomposeError::NoSuchHead(_)
        | DecomposeError::NoDecomposition { .. }
        | DecomposeError::NoBasis { .. } => None,
    }
}

fn graph_hint(error: &GraphError) -> Option<String> {
    match error {
        GraphError::NotAnImage(_) => Some(
            "wanted is one f32 input [images, channels, height, width] with 1 or 3 channels"
                .to_owned(),
        ),
        _ => None,
    }
}

fn write_hint(path: &Path) -> String {
    match path
        .parent()
        .filter(|folder| *folder != Path::new("") && !folder.exists())
    {
        Some(folder) => format!("create the folder first: `mkdir -p {}`", folder.display()),
        None => "choose another path, or change its permissions".to_owned(),
    }
}

//! What a study would do, said before the long work.

use super::{Arm, Study, StudyError};
use crate::pipeline::{PipelineError, Target, foresee};
use crate::progress::Progress;
use crate::verify;
use serde::Serialize;

/// What an arm would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmPlan {
    /// Its name.
    pub arm: String,
    /// The network's file.
    pub model: String,
    /// The data, with the sizes of the splits.
    pub data: String,
    /// How the network before the cuts is made.
    pub transfer: String,
    /// The arm whose networks are used, as they are made in the same way.
    pub shares: Option<String>,
    /// Runs: seeds times targets.
    pub runs: usize,
}

/// What the study would do, arm by arm.
///
/// # Errors
/// [`StudyError`] where an arm could not begin, or cannot reach a target on size.
pub fn foresee_study(
    study: &Study,
    options: &verify::Options,
    progress: &dyn Progress,
) -> Result<Vec<ArmPlan>, StudyError> {
    let foreseen = |arm: &Arm| {
        let cannot = |problem| StudyError::Arm {
            arm: arm.name.clone(),
            model: arm.model.clone(),
            problem: Box::new(problem),
        };
        let mut settings = arm.settings.clone();
        settings.seed = study.seeds.first().copied().unwrap_or_default();
        settings.prune.targets = judged_together(&study.targets);
        let plan = foresee(&arm.model, None, None, &settings, options, progress).map_err(cannot)?;
        if plan.classes == 0 {
            return Err(cannot(PipelineError::NoLabels));
        }
        let is_out_of_reach = |target: &&crate::report::Feasibility| target.possible == Some(false);
        if let Some(target) = plan.targets.iter().find(is_out_of_reach) {
            return Err(StudyError::Infeasible {
                arm: arm.name.clone(),
                target: target.target.clone(),
                least: target.least.unwrap_or_default(),
            });
        }
        let first = study.arms.iter().find(|other| other.starts_as(arm));
        let first = first.map(|first| first.name.clone());
        Ok(ArmPlan {
            arm: arm.name.clone(),
            model: arm.model.display().to_string(),
            data: plan.data,
            transfer: plan.transfer,
            shares: first.filter(|first| *first != arm.name),
            runs: study.seeds.len() * study.targets.len(),
        })
    };
    study.arms.iter().map(foreseen).collect()
}

/// Targets on time change what is cut, and so what can be reached: each run has one target, so they have no say in the
/// others'.
fn judged_together(targets: &[Target]) -> Vec<Target> {
    let is_timed = |target: &&Target| matches!(target, Target::Latency(_));
    let others: Vec<Target> = targets.iter().filter(|t| !is_timed(t)).copied().collect();
    match others.is_empty() {
        true => targets.to_vec(),
        false => others,
    }
}

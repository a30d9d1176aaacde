//! The command line as data. Defaults in help texts come from the library's settings, so that no
//! number stands in two places.

mod bench;
mod choice;
mod data;
mod global;
mod prune;
mod settings;
mod transfer;

pub use bench::BenchArgs;
pub use data::{AugmentArgs, DataArgs};
pub use global::{EngineArgs, Format, GlobalArgs, LatencyArgs, RuntimeArgs};
pub use prune::{CutArgs, RoundArgs, SizeArgs, TargetArgs};
pub use settings::{RunArgs, SettingsArgs, defaults};
pub use transfer::TransferArgs;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secateur::data::Split;
use std::fmt::Display;
use std::path::PathBuf;

/// Makes a pre-trained convolutional network small and fast for a new task: ONNX in, a smaller ONNX out.
#[derive(Debug, Parser)]
#[command(
    name = "secateur",
    version,
    max_term_width = 100,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 ran but a goal was missed, 2 error, 130 stopped by Ctrl-C.\n\
                  stdout is the result, stderr is progress and messages.\n\n\
                  Examples:\n  \
                  secateur demo\n  \
                  secateur inspect model.onnx --size 224x224\n  \
                  secateur compress model.onnx --data images/ --preprocess imagenet -o small.onnx \\\n      \
                  --target acc-drop=1.0pp"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(DemoArgs),
    Inspect(InspectArgs),
    Compress(Box<CompressArgs>),
    Transfer(Box<TransferCommand>),
    Decompose(DecomposeArgs),
    Prune(Box<PruneCommand>),
    Fold(FoldArgs),
    Evaluate(EvaluateArgs),
    Verify(VerifyArgs),
    Bench(BenchArgs),
    Report(ReportArgs),
    Study(StudyArgs),
}

impl Command {
    /// What every command has.
    pub fn global(&self) -> &GlobalArgs {
        match self {
            Self::Demo(args) => &args.global,
            Self::Inspect(args) => &args.global,
            Self::Compress(args) => &args.global,
            Self::Transfer(args) => &args.global,
            Self::Decompose(args) => &args.global,
            Self::Prune(args) => &args.global,
            Self::Fold(args) => &args.global,
            Self::Evaluate(args) => &args.global,
            Self::Verify(args) => &args.global,
            Self::Bench(args) => &args.global,
            Self::Report(args) => &args.global,
            Self::Study(args) => &args.global,
        }
    }
}

/// Does the whole job on a small embedded network and data set
///
/// The network gets a new head for the data, the 1,797 handwritten digits of the UCI
/// repository. Nothing is downloaded. The smaller network and the report are written to the run folder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  secateur demo\n  secateur demo --run my-demo --format json")]
pub struct DemoArgs {
    /// Folder of the run: settings, history, plan, checkpoints, reports and the smaller network
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub run: PathBuf,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Shows what a file holds: layers, shapes, parameters, MACs, ranks, and what can be pruned
///
/// For each convolution and dense layer: operator, shapes, parameters, multiply-accumulates of one image,
/// the rank of its decomposition, the break-even rank (the largest at which two factors are smaller than
/// one kernel), and whether it can be pruned or why not. A factored layer shows its current rank.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  secateur inspect model.onnx\n  \
                        secateur inspect model.onnx --size 224x224 --format json")]
pub struct InspectArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// Image height and width in pixels, where the file does not fix them
    #[arg(long, value_name = "HxW", value_parser = choice::size)]
    pub size: Option<[usize; 2]>,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Does the whole job: transfer, decompose, prune in rounds, fine-tune, fold, export, verify, report
///
/// Reads a pre-trained network and labelled images, fits the network to their classes, splits each
/// convolution into a basis and a projection, measures on training images how much each direction matters, removes
/// those that matter least and fits the rest to the uncut network, round by round, until the targets are reached, and
/// writes a smaller file of standard ONNX operators, which is checked in an independent runtime. Accuracy is held on a validation split; the test split is
/// used once, at the end. A target that is missed gives exit status 1 and the best network found.
///
/// A run that was killed, or stopped by Ctrl-C (exit status 130), goes on with the same command and `--resume`.
///
/// Images without labels (and networks that are no classifiers: detectors, segmenters, embeddings) do, too:
/// the network stays what it is, nothing is trained, and all its outputs are held against those of the
/// network before.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    secateur compress model.onnx --data images/ --preprocess imagenet -o small.onnx --dry-run\n  \
    secateur compress model.onnx --data images/ --preprocess imagenet -o small.onnx --target acc-drop=1.0pp\n  \
    secateur compress model.onnx --data mnist/ --preprocess caffe --size 32x32 -o small.onnx \\\n      \
    --target acc-drop=1.0pp --target params=10%\n  \
    secateur compress model.onnx --data images/ --preprocess imagenet -o fast.onnx --runtime ort --per time\n  \
    secateur compress detector.onnx --data photos/ --preprocess unit -o small.onnx --target output-error=10%\n  \
    secateur compress model.onnx --config runs/small/config.toml -o small.onnx --resume")]
pub struct CompressArgs {
    /// The pre-trained network, an ONNX file
    pub model: PathBuf,
    /// The smaller network; `MODEL` is never overwritten
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print the plan (transfer, layers, targets, stages) and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub augment: AugmentArgs,
    #[command(flatten)]
    pub transfer: TransferArgs,
    #[command(flatten)]
    pub targets: TargetArgs,
    #[command(flatten)]
    pub cut: CutArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub latency: LatencyArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Fits a pre-trained network to new classes
///
/// Keeps the head where the number of classes fits, replaces it where it differs, attaches one where there
/// is none. A new head starts from a closed-form ridge solution and is then trained with whatever
/// `--transfer` names. The best check on the validation split is written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    secateur transfer features.onnx --data images/ --preprocess imagenet -o classifier.onnx\n  \
    secateur transfer features.onnx --data images/ --preprocess imagenet -o classifier.onnx --transfer all \\\n      \
    --epochs 20 --augment crop-flip")]
pub struct TransferCommand {
    /// The pre-trained network, an ONNX file
    pub model: PathBuf,
    /// The transferred network
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub augment: AugmentArgs,
    #[command(flatten)]
    pub transfer: TransferArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Splits each convolution into basis, scaling factors and projection, at full rank
///
/// The function is unchanged; the file is larger until `prune` and `fold` follow.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  secateur decompose classifier.onnx -o factored.onnx --exclude '^conv1$'"
)]
pub struct DecomposeArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// The factored network
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub exclude: prune::ExcludeArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Removes the basis directions of a factored network that matter least, in one cut
///
/// Gathers statistics of training images (with `--score taylor`: trains the scaling factors for a window of
/// steps), cuts to the sizes of `--target`, and carries batch norm over. Images must have labels, and the network must be a
/// classifier. Or, with `--plan`, repeats a stored cut without data. The result stays factored: `fold` makes the smaller file.
/// For targets on accuracy, on the outputs' error or on time use `compress`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    secateur prune factored.onnx --data images/ -o pruned.onnx --target params=50% \\\n      \
    --basis svd --score energy --save-plan plan.json\n  \
    secateur prune factored.onnx --plan plan.json -o pruned.onnx")]
pub struct PruneCommand {
    /// A factored network, as `decompose` writes it
    pub model: PathBuf,
    /// The pruned network, still factored
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Repeat the cut of this plan, one that was made with `--basis svd`; needs no data
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "data", "save_plan"])]
    pub plan: Option<PathBuf>,
    /// Write the plan: which directions of which layers stay
    #[arg(long, value_name = "FILE")]
    pub save_plan: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub augment: AugmentArgs,
    #[command(flatten)]
    pub sizes: SizeArgs,
    #[command(flatten)]
    pub cut: CutArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Folds scaling factors and output scales into the layers, and recomposes layers that do not pay
///
/// The function is unchanged.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  secateur fold pruned.onnx -o small.onnx")]
pub struct FoldArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// The folded network
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Fold batch norm into the layers in front of it, too
    #[arg(long)]
    pub batch_norm: bool,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Measures top-1 and top-5 accuracy of a file, with the number of images and the binomial error
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    secateur evaluate small.onnx --data images/\n  \
    secateur evaluate small.onnx --data new-images/ --split all\n  \
    secateur evaluate model.onnx --data cifar10/ --preprocess 'scale=0.00392157;mean=0.485,0.456,0.406;std=0.229,0.224,0.225'\n  \
    secateur evaluate small.onnx --data images/ --runtime ort --format json")]
pub struct EvaluateArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// The images to evaluate on
    #[arg(long, value_enum, default_value_t = SplitName::Test)]
    pub split: SplitName,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Compares the outputs of two files on the same images, in an independent runtime
///
/// The images are the test split of `--data`, or seeded random numbers where no data are given. A difference
/// beyond the tolerance gives exit status 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    secateur verify model.onnx factored.onnx --size 224x224\n  \
    secateur verify model.onnx factored.onnx --data images/ --preprocess imagenet --runtime ort")]
pub struct VerifyArgs {
    /// The file that is right
    pub a: PathBuf,
    /// The file to compare with it
    pub b: PathBuf,
    /// Most images to compare
    #[arg(long, value_name = "N", help = stated("Most images to compare", settings::defaults().verify.images))]
    pub images: Option<usize>,
    /// Random images to compare where no data are given
    #[arg(long, value_name = "N", default_value_t = 16, conflicts_with = "data")]
    pub random_images: usize,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Shows the report of a finished run, or study, again
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  secateur report runs/small\n  secateur report runs/small --format json"
)]
pub struct ReportArgs {
    /// Folder of the run, or of the study
    pub run: PathBuf,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Makes and cuts networks under several settings, with several seeds, and compares them
///
/// The file names the network, the seeds, the targets (one a run), the settings of all arms, as `compress --config` takes
/// them, and each arm with what differs there; paths are those of the folder in which the command runs. The network of
/// each arm and seed is made once, as by `transfer`, and then cut to each target, as by `compress`. Results are means over
/// the seeds, with the least and the most, and a chart of accuracy against parameters. A target that is missed is told in
/// the table; a run that fails gives exit status 1, and the others are done.
///
/// A study that was killed, or stopped by Ctrl-C, goes on with the same command and `--resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "A study of what ImageNet weights are worth to a network that is pruned afterwards:\n  \
    model = \"vgg16.onnx\"\n  \
    seeds = [0, 1, 2]\n  \
    targets = [\"params=50%\", \"params=25%\", \"acc-drop=1.0pp\"]\n  \
    [settings.data]\n  \
    path = \"images\"\n  \
    preprocess = \"caffe\"\n  \
    [settings.transfer]\n  \
    trainable = \"all\"\n  \
    epochs = 5\n  \
    [arms.pretrained]\n  \
    [arms.random]\n  \
    transfer = { weights = \"random\" }\n  \
    [arms.random-longer]\n  \
    transfer = { weights = \"random\", epochs = 15 }\n\n\
    Examples:\n  \
    secateur study study.toml --dry-run\n  \
    secateur study study.toml --threads 4\n  \
    secateur study study.toml --resume"
)]
pub struct StudyArgs {
    /// The study, a TOML file
    pub study: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print what each arm would do and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// A part of a data set, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// Trained on
    Train,
    /// Chosen by
    Val,
    /// Used once, for the final number
    Test,
    /// All images, as of a folder that was never trained on
    All,
}

impl SplitName {
    /// The split; `None` where it is all of them.
    pub fn split(self) -> Option<Split> {
        match self {
            Self::Train => Some(Split::Train),
            Self::Val => Some(Split::Val),
            Self::Test => Some(Split::Test),
            Self::All => None,
        }
    }
}

/// A help text with its default in clap's own form.
fn stated(text: &str, default: impl Display) -> String {
    format!("{text} [default: {default}]")
}

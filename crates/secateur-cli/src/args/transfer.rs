//! From the pre-trained network to the user's classes.

use super::{choice, settings, stated};
use clap::Args;
use secateur::pipeline::Settings;
use secateur::train::Trainable;
use secateur::transfer::{HeadChoice, InsertBatchNorm, Weights};

const TRAINABLES: &[&str] = &["head", "scaling", "all"];
const HEADS: &[&str] = &["auto", "new"];
const WEIGHTS: &[&str] = &["given", "random"];

/// From the pre-trained network to the user's classes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Transfer options")]
pub struct TransferArgs {
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = choice::of::<Weights>(WEIGHTS),
        help = stated(
            "Which weights the network starts from: those of the file, or random ones, beside which one sees what \
             pre-training is worth (with `--transfer all`)",
            choice::name(&settings::defaults().transfer.weights),
        )
    )]
    pub weights: Option<Weights>,
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice::of::<Trainable>(TRAINABLES),
        help = stated(
            "What is trained: the head; also scales, biases and batch norm; or all weights",
            choice::name(&settings::defaults().transfer.trainable),
        )
    )]
    pub transfer: Option<Trainable>,
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = choice::of::<HeadChoice>(HEADS),
        help = stated(
            "The network's head: kept where its number of classes fits, or always new",
            choice::name(&settings::defaults().transfer.head),
        )
    )]
    pub head: Option<HeadChoice>,
    /// Put batch norm after each convolution that has none; the function is unchanged at the start
    #[arg(long)]
    pub insert_batch_norm: bool,
    /// Passes over the training images [default: 0 for a head that fits and weights of the file, else 10]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u64>,
    /// Peak learning rate of Adam [default: 0.0003 for all weights, 0.001 where they are random, else 0.002]
    #[arg(long, value_name = "X", value_parser = choice::positive)]
    pub lr: Option<f32>,
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "Checks on the validation split without a better one before training stops, 0 for never",
            settings::defaults().transfer.patience,
        )
    )]
    pub patience: Option<usize>,
}

impl TransferArgs {
    pub fn apply(&self, settings: &mut Settings) {
        let transfer = &mut settings.transfer;
        transfer.weights = self.weights.unwrap_or(transfer.weights);
        transfer.trainable = self.transfer.unwrap_or(transfer.trainable);
        transfer.head = self.head.unwrap_or(transfer.head);
        if self.insert_batch_norm {
            transfer.insert_batch_norm = InsertBatchNorm::Yes;
        }
        transfer.epochs = self.epochs.or(transfer.epochs);
        transfer.lr = self.lr.or(transfer.lr);
        transfer.patience = self.patience.unwrap_or(transfer.patience);
    }
}

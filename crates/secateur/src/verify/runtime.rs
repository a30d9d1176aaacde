//! What a runtime is, and the parts that both runtimes share: the check of the declared input, and
//! running any number of images through a network that takes a fixed number.

use super::{OrtRuntime, TractRuntime, VerifyError};
use crate::tensor::Floats;
use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// Loads ONNX files. Implementations are each other's oracle.
pub trait Runtime: Send + Sync {
    /// The runtime's name, as reports show it: `tract` or `onnxruntime`.
    fn name(&self) -> &'static str;

    /// Loads the ONNX file in `model_bytes` for images `shape` `[n, c, h, w]`, of which `n` is the
    /// number the caller expects to run at a time. Where the file fixes another, that one is used.
    ///
    /// # Errors
    /// [`VerifyError::Runtime`] where the runtime refuses the file, [`VerifyError::Input`] where the
    /// file does not take one batch of such images.
    fn load(&self, model_bytes: &[u8], shape: [usize; 4]) -> Result<Box<dyn Loaded>, VerifyError>;
}

/// A network that is ready to run.
pub trait Loaded: Send {
    /// How many images the network takes at a time where the file says so, else how many are run at
    /// a time.
    fn batch(&self) -> usize;

    /// The first outputs, `most` of them, for `images` `[n, c, h, w]`, with any `n` above 0. Images may be
    /// run in pieces, the last filled up with zeros, so axis 0 of each of those outputs must be the image;
    /// where all images are one piece, they may have any shape.
    ///
    /// # Errors
    /// [`VerifyError::Input`] and [`VerifyError::Output`] for other shapes, [`VerifyError::Runtime`]
    /// where the runtime fails.
    fn run_some(&mut self, images: &Floats, most: usize) -> Result<Vec<Floats>, VerifyError>;

    /// All outputs.
    ///
    /// # Errors
    /// As [`Loaded::run_some`].
    fn run_all(&mut self, images: &Floats) -> Result<Vec<Floats>, VerifyError> {
        self.run_some(images, usize::MAX)
    }

    /// The first output.
    ///
    /// # Errors
    /// As [`Loaded::run_some`].
    fn run(&mut self, images: &Floats) -> Result<Floats, VerifyError> {
        let none = || VerifyError::Output {
            problem: "there is none".to_owned(),
        };
        self.run_some(images, 1)?
            .into_iter()
            .next()
            .ok_or_else(none)
    }
}

/// The runtimes that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// The embedded one; needs nothing installed.
    #[default]
    Tract,
    /// ONNX Runtime, from a library found at run time.
    Ort,
}

impl FromStr for RuntimeKind {
    type Err = VerifyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tract" => Ok(Self::Tract),
            "ort" | "onnxruntime" => Ok(Self::Ort),
            _ => Err(VerifyError::UnknownRuntime(text.to_owned())),
        }
    }
}

/// How a runtime is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Threads to compute with; 0 takes all of the machine.
    pub threads: usize,
    /// The library of ONNX Runtime; `None` looks at the environment variable `ORT_DYLIB_PATH`.
    pub library: Option<PathBuf>,
}

/// Opens a runtime.
///
/// # Errors
/// [`VerifyError::Library`] where ONNX Runtime is wanted and cannot be loaded.
pub fn open(kind: RuntimeKind, options: &Options) -> Result<Box<dyn Runtime>, VerifyError> {
    Ok(match kind {
        RuntimeKind::Tract => Box::new(TractRuntime::new(options.threads)?),
        RuntimeKind::Ort => Box::new(OrtRuntime::new(
            options.library.as_deref(),
            options.threads,
        )?),
    })
}

/// The shape that a file declares for its input, `None` for a length that is free.
pub(super) type Declared = Vec<Option<usize>>;

/// Checks that the declared input takes images `[n, c, h, w]` but for `n`; returns the number of
/// images that it is fixed to, if it is.
pub(super) fn fixed_batch(
    declared: Option<&Declared>,
    shape: [usize; 4],
) -> Result<Option<usize>, VerifyError> {
    let Some(declared) = declared else {
        return Ok(None);
    };
    let fits = declared.len() == 4
        && declared[1..]
            .iter()
            .zip(&shape[1..])
            .all(|(want, got)| want.is_none_or(|want| want == *got))
        && declared[0] != Some(0);
    if !fits {
        let want: Vec<String> = declared
            .iter()
            .map(|dim| dim.map_or_else(|| "any".to_owned(), |dim| dim.to_string()))
            .collect();
        return Err(VerifyError::Input {
            problem: format!(
                "it wants [{}], but the images are [any, {}, {}, {}]",
                want.join(", "),
                shape[1],
                shape[2],
                shape[3]
            ),
        });
    }
    Ok(declared[0])
}

/// Images that are run at once, and how many of them are not filling.
pub(super) struct Piece {
    /// `[n, c, h, w]`, row by row.
    pub values: Vec<f32>,
    /// How many of the `n` count.
    pub images: usize,
}

/// One output of one piece: shape and values, row by row.
pub(super) type PieceOutput = (Vec<usize>, Vec<f32>);

/// The contiguous values of `images`, after checking that they are `[any, c, h, w]` of `shape`.
pub(super) fn values_of(images: &Floats, shape: [usize; 4]) -> Result<Vec<f32>, VerifyError> {
    let got = images.shape();
    if got.len() != 4 || got[1..] != shape[1..] || got[0] == 0 {
        return Err(VerifyError::Input {
            problem: format!("it was loaded for images {shape:?} and is given {got:?}"),
        });
    }
    Ok(images.iter().copied().collect())
}

/// Cuts `values`, `image_len` to an image, into pieces of `batch` images, the last filled with zeros.
pub(super) fn pieces(values: &[f32], image_len: usize, batch: usize) -> Vec<Piece> {
    values
        .chunks(batch * image_len)
        .map(|chunk| {
            let mut piece = chunk.to_vec();
            piece.resize(batch * image_len, 0.0);
            Piece {
                values: piece,
                images: chunk.len() / image_len,
            }
        })
        .collect()
}

/// Puts the first `most` outputs of `pieces` together, without what belongs to the filling; `outputs`
/// holds those of each piece.
pub(super) fn joined(
    pieces: &[Piece],
    batch: usize,
    outputs: Vec<Vec<PieceOutput>>,
    most: usize,
) -> Result<Vec<Floats>, VerifyError> {
    let n_outputs = outputs.first().map_or(0, Vec::len).min(most);
    let mut by_output: Vec<Vec<PieceOutput>> = (0..n_outputs).map(|_| Vec::new()).collect();
    for piece in outputs {
        for (all, one) in by_output.iter_mut().zip(piece) {
            all.push(one);
        }
    }
    by_output
        .into_iter()
        .map(|outputs| joined_one(pieces, batch, outputs))
        .collect()
}

fn joined_one(
    pieces: &[Piece],
    batch: usize,
    outputs: Vec<PieceOutput>,
) -> Result<Floats, VerifyError> {
    let whole = |(shape, values): PieceOutput| {
        let length = values.len();
        ArrayD::from_shape_vec(IxDyn(&shape), values)
            .map(ArrayD::into_shared)
            .map_err(|_| VerifyError::Output {
                problem: format!("{length} values for the shape {shape:?}"),
            })
    };
    let mut outputs = outputs;
    if let ([piece], [_]) = (pieces, outputs.as_slice())
        && piece.images == batch
    {
        return whole(outputs.remove(0));
    }
    let mut shape: Vec<usize> = Vec::new();
    let mut joined = Vec::new();
    for (piece, (piece_shape, values)) in pieces.iter().zip(outputs) {
        if piece_shape.first() != Some(&batch) {
            return Err(VerifyError::Output {
                problem: format!(
                    "its shape for {batch} images is {piece_shape:?}, want [{batch}, ...]"
                ),
            });
        }
        let image_len: usize = piece_shape[1..].iter().product();
        joined.extend_from_slice(&values[..piece.images * image_len]);
        if shape.is_empty() {
            shape.extend_from_slice(&piece_shape);
            shape[0] = 0;
        }
        if shape[1..] != piece_shape[1..] {
            return Err(VerifyError::Output {
                problem: format!("its shape changes from {shape:?} to {piece_shape:?}"),
            });
        }
        shape[0] += piece.images;
    }
    whole((shape, joined))
}

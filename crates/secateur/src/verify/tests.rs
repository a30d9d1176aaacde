//! Tests against tiny networks whose outputs are known in closed form, in each runtime that is at
//! hand, and against a trained network on real images.

use super::{
    Accuracy, Loaded, Options, Runtime, RuntimeKind, Tolerance, VerifyError, compare,
    compare_outputs, evaluate, open,
};
use crate::data::Batch;
use crate::graph::Op;
use crate::graph::samples::Builder;
use crate::tensor::{ElementType, Floats};
use ndarray::{ArrayD, IxDyn};
use std::convert::Infallible;
use std::path::{Path, PathBuf};

/// The rows and offsets of the networks `linear*.onnx`.
const WEIGHT: [[f32; 4]; 3] = [
    [1.0, 2.0, 3.0, 4.0],
    [0.0, -1.0, 0.0, 1.0],
    [2.0, 0.0, -2.0, 0.0],
];
const BIAS: [f32; 3] = [0.5, 0.0, -0.5];

/// A network made by `tests/fixtures/verify/make.py`.
fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/verify");
    std::fs::read(folder.join(format!("{name}.onnx"))).unwrap()
}

fn floats(shape: &[usize], values: Vec<f32>) -> Floats {
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .unwrap()
        .into_shared()
}

/// `n` different images `[n, 1, 2, 2]`.
fn images(n: usize) -> Floats {
    floats(
        &[n, 1, 2, 2],
        (0..4 * n)
            .map(|i| ((i * 7 + 3) % 11) as f32 - 5.0)
            .collect(),
    )
}

/// What `linear.onnx` computes: its sums of small integers and halves are exact.
fn linear(images: &Floats) -> Floats {
    let values: Vec<f32> = images.iter().copied().collect();
    let rows = values.chunks(4).flat_map(|x| {
        WEIGHT
            .iter()
            .zip(BIAS)
            .map(move |(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b)
    });
    floats(&[images.shape()[0], 3], rows.collect())
}

/// tract, and ONNX Runtime where its library is found.
fn runtimes() -> Vec<Box<dyn Runtime>> {
    let options = Options {
        threads: 2,
        library: None,
    };
    let mut runtimes = vec![open(RuntimeKind::Tract, &options).unwrap()];
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        runtimes.push(open(RuntimeKind::Ort, &options).unwrap());
    } else {
        println!("skipped for ONNX Runtime: ORT_DYLIB_PATH is not set");
    }
    runtimes
}

fn whole(batches: Vec<Batch>) -> impl Iterator<Item = Result<Batch, Infallible>> {
    batches.into_iter().map(Ok)
}

/// Images that are their own scores in `pixels.onnx`.
fn scores(rows: &[[f32; 7]], labels: &[usize]) -> Batch {
    let images = floats(&[rows.len(), 1, 1, 7], rows.concat());
    Batch {
        images,
        labels: labels.to_vec(),
    }
}

fn judged(batches: Vec<Batch>) -> Accuracy {
    let runtime = open(RuntimeKind::Tract, &Options::default()).unwrap();
    let mut model = runtime.load(&fixture("pixels"), [2, 1, 1, 7]).unwrap();
    evaluate(&mut |images| model.run(images), whole(batches)).unwrap()
}

#[test]
fn every_number_of_images_gives_the_closed_form() {
    for runtime in runtimes() {
        for name in ["linear", "linear_of_four"] {
            for expected_at_once in [1, 3, 4, 64] {
                let shape = [expected_at_once, 1, 2, 2];
                let mut model = runtime.load(&fixture(name), shape).unwrap();
                for n in [1, 3, 4, 5, 9] {
                    let context = format!(
                        "{} {name} for {expected_at_once}, {n} images",
                        runtime.name()
                    );
                    let images = images(n);
                    assert_eq!(model.run(&images).unwrap(), linear(&images), "{context}");
                }
            }
        }
    }
}

#[test]
fn a_fixed_number_of_images_is_taken_from_the_file() {
    for runtime in runtimes() {
        let model = runtime
            .load(&fixture("linear_of_four"), [64, 1, 2, 2])
            .unwrap();
        assert_eq!(model.batch(), 4, "{}", runtime.name());
    }
}

#[test]
fn outputs_do_not_depend_on_the_number_of_threads() {
    let run = |threads| {
        let runtime = open(
            RuntimeKind::Tract,
            &Options {
                threads,
                library: None,
            },
        )
        .unwrap();
        runtime
            .load(&fixture("linear"), [13, 1, 2, 2])
            .unwrap()
            .run(&images(13))
            .unwrap()
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn images_in_any_memory_order_are_read_right() {
    let images = images(3);
    let reversed = images
        .clone()
        .reversed_axes()
        .as_standard_layout()
        .into_owned();
    let same = reversed.into_shared().reversed_axes();
    assert!(!same.is_standard_layout());
    let runtime = open(RuntimeKind::Tract, &Options::default()).unwrap();
    let mut model = runtime.load(&fixture("linear"), [3, 1, 2, 2]).unwrap();
    assert_eq!(model.run(&same).unwrap(), linear(&images));
}

#[test]
fn top1_and_top5_count_places_and_the_error_is_binomial() {
    let rising = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let first = scores(&[rising, rising, rising], &[6, 2, 1]);
    let last = scores(&[rising], &[6]);
    let accuracy = judged(vec![first, last]);
    assert_eq!((accuracy.n, accuracy.correct), (4, 2));
    // Label 6 is the highest, label 2 the fifth, label 1 the sixth.
    assert_eq!((accuracy.top1, accuracy.top5), (0.5, Some(0.75)));
    assert_eq!(accuracy.standard_error, (0.5_f64 * 0.5 / 4.0).sqrt());
    assert_eq!(accuracy.non_finite, 0);
}

#[test]
fn of_equal_scores_only_the_first_is_the_highest() {
    let even = [1.0; 7];
    let accuracy = judged(vec![scores(&[even, even], &[0, 1])]);
    assert_eq!(accuracy.correct, 1);
}

#[test]
fn scores_that_are_not_finite_count_as_wrong_and_are_reported() {
    let mut nan = [0.0; 7];
    nan[3] = f32::NAN;
    let mut infinite = [0.0; 7];
    infinite[0] = f32::INFINITY;
    let accuracy = judged(vec![scores(&[nan, infinite], &[0, 0])]);
    assert_eq!((accuracy.correct, accuracy.non_finite), (0, 2));
    assert_eq!(accuracy.top5, Some(0.0));
}

#[test]
fn scores_with_trailing_ones_are_scores() {
    for runtime in runtimes() {
        let mut model = runtime.load(&fixture("means"), [2, 2, 2, 2]).unwrap();
        // The means are (1, 2) and (2, 1).
        let values = [[1.0; 4], [2.0; 4], [2.0; 4], [1.0; 4]].concat();
        let batch = Batch {
            images: floats(&[2, 2, 2, 2], values),
            labels: vec![1, 1],
        };
        let accuracy = evaluate(&mut |images| model.run(images), whole(vec![batch])).unwrap();
        assert_eq!((accuracy.n, accuracy.correct, accuracy.top5), (2, 1, None));
    }
}

#[test]
fn what_cannot_be_judged_is_an_error_that_says_what_was_found() {
    for runtime in runtimes() {
        let name = runtime.name();
        let mut maps = runtime.load(&fixture("maps"), [1, 2, 2, 2]).unwrap();
        let batch = Batch {
            images: floats(&[1, 2, 2, 2], vec![0.0; 8]),
            labels: vec![0],
        };
        let error = evaluate(&mut |images| maps.run(images), whole(vec![batch])).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("[1, 2, 2, 2], want class scores [1, classes]"),
            "{name}: {error}"
        );

        let mut linear = runtime.load(&fixture("linear"), [1, 1, 2, 2]).unwrap();
        let batch = Batch {
            images: images(1),
            labels: vec![3],
        };
        let error = evaluate(&mut |images| linear.run(images), whole(vec![batch])).unwrap_err();
        assert!(
            matches!(
                error,
                VerifyError::Label {
                    label: 3,
                    classes: 3
                }
            ),
            "{name}: {error}"
        );

        let error = evaluate(&mut |images| linear.run(images), whole(Vec::new())).unwrap_err();
        assert!(matches!(error, VerifyError::NoImages), "{name}: {error}");

        let other = floats(&[1, 1, 2, 3], vec![0.0; 6]);
        let error = linear.run(&other).unwrap_err();
        assert!(
            matches!(error, VerifyError::Input { .. }),
            "{name}: {error}"
        );

        let refused = |file: &[u8], shape| runtime.load(file, shape).err().unwrap();
        let error = refused(&fixture("linear"), [1, 3, 2, 2]);
        assert!(
            error
                .to_string()
                .contains("wants [any, 1, 2, 2], but the images are [any, 3, 2, 2]"),
            "{name}: {error}"
        );
        let error = refused(&fixture("two_inputs"), [1, 1, 2, 2]);
        assert!(error.to_string().contains("2 inputs"), "{name}: {error}");
    }
}

#[test]
fn a_failure_to_read_images_ends_the_judging() {
    let mut network = |images: &Floats| Ok(linear(images));
    let batches = [Err(std::io::Error::other("the disk is gone"))];
    let error = evaluate(&mut network, batches).unwrap_err();
    assert!(
        matches!(&error, VerifyError::Data(source) if source.to_string().contains("disk")),
        "{error}"
    );
}

#[test]
fn files_that_are_no_networks_are_errors() {
    let linear = fixture("linear");
    for runtime in runtimes() {
        let cases = [
            ("nothing", Vec::new()),
            ("text", b"this is no network".to_vec()),
            ("the first half", linear[..linear.len() / 2].to_vec()),
        ];
        for (what, bytes) in cases {
            let error = runtime.load(&bytes, [1, 1, 2, 2]).err();
            assert!(error.is_some(), "{} takes {what}", runtime.name());
        }
        // One byte changed anywhere must give an error or a network that runs or fails, not a crash.
        for at in 0..linear.len() {
            let mut bytes = linear.clone();
            bytes[at] ^= 0x15;
            if let Ok(mut model) = runtime.load(&bytes, [1, 1, 2, 2]) {
                let _ = model.run(&images(1));
            }
        }
    }
}

#[test]
fn a_file_equals_the_network_in_memory() {
    for runtime in runtimes() {
        let mut model = runtime.load(&fixture("linear"), [4, 1, 2, 2]).unwrap();
        let batches = vec![
            Batch {
                images: images(4),
                labels: vec![0; 4],
            },
            Batch {
                images: images(3),
                labels: vec![0; 3],
            },
        ];
        let summary = compare(
            &mut |images| Ok(linear(images)),
            &mut |images| model.run(images),
            whole(batches),
            runtime.name(),
        )
        .unwrap();
        assert_eq!(
            (summary.n, summary.max_abs_diff, summary.relative),
            (7, 0.0, 0.0)
        );
        assert_eq!((summary.top1_agreement, summary.non_finite), (1.0, 0));
        assert_eq!(summary.runtime, runtime.name());
        summary.check(Tolerance::default()).unwrap();
    }
}

#[test]
fn one_wrong_weight_is_measured_and_refused() {
    for runtime in runtimes() {
        let mut right = runtime.load(&fixture("linear"), [5, 1, 2, 2]).unwrap();
        let mut wrong = runtime
            .load(&fixture("linear_wrong"), [5, 1, 2, 2])
            .unwrap();
        let batch = Batch {
            images: images(5),
            labels: vec![0; 5],
        };
        // The last weight of the last class is 0.5 too large.
        let last_pixels: Vec<f32> = batch.images.iter().skip(3).step_by(4).copied().collect();
        let expected = last_pixels
            .iter()
            .fold(0_f32, |max, x| max.max((0.5 * x).abs()));
        let summary = compare(
            &mut |images| right.run(images),
            &mut |images| wrong.run(images),
            whole(vec![batch]),
            runtime.name(),
        )
        .unwrap();
        assert_eq!(summary.max_abs_diff, f64::from(expected));
        let error = summary.check(Tolerance::default()).unwrap_err();
        let found = format!("largest difference {expected:.1e}, at most ");
        assert!(error.to_string().contains(&found), "{error}");
    }
}

/// Compares outputs that are given, `[n, k]`, an image a row.
fn compared<const N: usize>(a: &[[f32; N]], b: &[[f32; N]]) -> super::VerifySummary {
    let rows = |rows: &[[f32; N]]| floats(&[rows.len(), N], rows.concat());
    let batch = Batch {
        images: images(a.len()),
        labels: vec![0; a.len()],
    };
    compare(
        &mut |_| Ok(rows(a)),
        &mut |_| Ok(rows(b)),
        whole(vec![batch]),
        "none",
    )
    .unwrap()
}

fn is_within(summary: &super::VerifySummary) -> bool {
    summary.check(Tolerance::default()).is_ok()
}

#[test]
fn each_limit_of_the_tolerance_is_held() {
    let difference = |a: [f32; 3], b: [f32; 3]| compared(&[a], &[b]);
    let close = difference([0.0, -4.0, 1.0], [0.0, -4.0, 1.003]);
    assert!(is_within(&close), "{close:?}");
    assert!(
        (close.max_abs_diff - 0.003).abs() < 1e-7 && close.max_abs_output == 4.0,
        "{close:?}"
    );
    assert_eq!(close.spread, None);
    assert!(!is_within(&difference(
        [0.0, -4.0, 1.0],
        [0.0, -4.0, 1.005]
    )));
    // A tiny difference that changes the class.
    let changed = difference([1.0, 1.0001, 0.0], [1.0001, 1.0, 0.0]);
    assert!(changed.relative < 1e-3 && changed.top1_agreement == 0.0 && !is_within(&changed));
    // The same NaN in both is no agreement.
    let nan = difference([f32::NAN, 0.0, 0.0], [f32::NAN, 0.0, 0.0]);
    assert!(
        nan.non_finite == 1 && nan.max_abs_diff == 0.0 && !is_within(&nan),
        "{nan:?}"
    );
    let zero = difference([0.0; 3], [0.0; 3]);
    assert!(zero.relative == 0.0 && is_within(&zero), "{zero:?}");
}

#[test]
fn rounding_of_outputs_that_are_about_nothing_is_no_difference() {
    // A sigmoid's: off by two units in the last place of 1, which is a hundredth of the largest of them.
    let ulp = f32::EPSILON;
    let a = [[1e-5, 2e-5, 1e-6], [1.5e-5, 1e-5, 2e-6]];
    let b = a.map(|row| row.map(|value| value + 2.0 * ulp));
    let rounded = compared(&a, &b);
    assert!(rounded.relative > 1e-2, "{rounded:?}");
    assert!(is_within(&rounded), "{rounded:?}");
    let wrong = a.map(|row| row.map(|value| value + 20.0 * ulp));
    assert!(!is_within(&compared(&a, &wrong)));
}

#[test]
fn a_difference_counts_beside_what_the_image_changes() {
    // 100 whatever the image is, give or take a hundredth.
    let a = [[100.0, 50.01], [100.01, 50.0]];
    let rounded = compared(&a, &[[100.0, 50.015], [100.015, 50.0]]);
    let spread = rounded.spread.unwrap();
    assert!((spread - 0.01).abs() < 1e-5, "{rounded:?}");
    assert!(is_within(&rounded), "below 1e-4 of 100: {rounded:?}");
    // Three times what the image changes is wrong, little as it is beside the outputs.
    let wrong = compared(&a, &[[100.0, 50.03], [100.03, 50.0]]);
    assert!(wrong.relative < 1e-3, "{wrong:?}");
    let error = wrong.check(Tolerance::default()).unwrap_err().to_string();
    assert!(error.contains("1.0e-2 apart over the images"), "{error}");
    // What differs from place to place is no spread over images.
    let places = [[0.0, 80.0], [0.01, 80.0]];
    assert!(!is_within(&compared(&places, &[[0.0, 80.0], [0.02, 80.0]])));
}

#[test]
fn of_several_outputs_the_one_that_is_off_is_reported() {
    // The first is off by more, and within what it may be; the second hardly depends on the image.
    let outputs = |first: f32, second: f32| {
        vec![
            floats(&[2, 1], vec![0.0, 1000.0 + first]),
            floats(&[2, 1], vec![1000.0, 1000.1 + second]),
        ]
    };
    let batches = || {
        whole(vec![Batch {
            images: images(2),
            labels: vec![0; 2],
        }])
    };
    let right = &mut |_: &Floats| Ok(outputs(0.0, 0.0));
    let wrong = &mut |_: &Floats| Ok(outputs(0.9, 0.5));
    let summary = compare_outputs(2, right, wrong, batches, "none").unwrap();
    assert!(summary.spread.unwrap() < 1.0, "{summary:?}");
    assert!(!is_within(&summary));
}

#[test]
fn outputs_of_different_shapes_cannot_be_compared() {
    let batch = Batch {
        images: images(2),
        labels: vec![0; 2],
    };
    let error = compare(
        &mut |_| Ok(floats(&[2, 3], vec![0.0; 6])),
        &mut |_| Ok(floats(&[2, 4], vec![0.0; 8])),
        whole(vec![batch]),
        "none",
    )
    .unwrap_err();
    assert!(error.to_string().contains("[2, 3] and [2, 4]"), "{error}");
}

#[test]
fn outputs_of_indices_are_compared_as_floats() {
    let mut b = Builder::new(3);
    let op = Op::ArgMax {
        axis: 1,
        keep_dims: false,
        select_last_index: false,
    };
    b.node("y", op, &["x"]);
    let mut graph = b.output("y");
    graph.outputs[0].element_type = ElementType::I64;
    let bytes = crate::onnx::to_bytes(&crate::onnx::Model::new(graph)).unwrap();
    let pixels = floats(&[1, 3, 1, 2], vec![0.0, 3.0, 1.0, 2.0, 1.5, 4.0]);
    for runtime in runtimes() {
        let mut model = runtime.load(&bytes, [1, 3, 1, 2]).unwrap();
        let found = model.run(&pixels).unwrap();
        assert_eq!(
            found,
            floats(&[1, 1, 2], vec![2.0, 2.0]),
            "{}",
            runtime.name()
        );
    }
}

#[test]
fn results_are_written_under_the_names_that_scripts_rely_on() {
    let batch = Batch {
        images: images(1),
        labels: vec![0],
    };
    let same = |images: &Floats| Ok(linear(images));
    let summary = compare(
        &mut same.clone(),
        &mut same.clone(),
        whole(vec![batch]),
        "tract",
    )
    .unwrap();
    let json = serde_json::to_value(&summary).unwrap();
    for key in ["max_abs_diff", "top1_agreement", "runtime", "n"] {
        assert!(!json[key].is_null(), "{key} is not in {json}");
    }
    assert_eq!(json["top1_agreement"], 1.0);
}

#[test]
fn runtimes_are_named_by_the_words_of_the_command_line() {
    assert_eq!("tract".parse::<RuntimeKind>().unwrap(), RuntimeKind::Tract);
    assert_eq!("ort".parse::<RuntimeKind>().unwrap(), RuntimeKind::Ort);
    let error = "tensorrt".parse::<RuntimeKind>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`tensorrt` is no runtime: want `tract` or `ort`"
    );
}

#[test]
fn a_library_that_is_missing_or_none_of_onnx_runtime_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "not a library").unwrap();
    let mut cases = vec![
        folder.path().join("nowhere.so"),
        folder.path().to_path_buf(),
        text,
    ];
    // A library, but another one.
    cases.extend(
        [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/aarch64-linux-gnu/libc.so.6",
        ]
        .map(PathBuf::from),
    );
    for library in cases {
        let options = Options {
            threads: 1,
            library: Some(library.clone()),
        };
        let error = open(RuntimeKind::Ort, &options).err().unwrap();
        let known = matches!(
            error,
            VerifyError::Library { .. } | VerifyError::OtherLibrary { .. }
        );
        assert!(known, "{}: {error}", library.display());
        if matches!(error, VerifyError::Library { .. }) {
            assert!(
                error
                    .to_string()
                    .contains("set ORT_DYLIB_PATH to libonnxruntime.so"),
                "{error}"
            );
        }
    }
}

/// The folder of large test data, or `None` with a printed reason.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("SECATEUR_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    if !folder.join("models").is_dir() {
        println!(
            "skipped: no test data in `{}`; set SECATEUR_DATA",
            folder.display()
        );
        return None;
    }
    Some(folder)
}

/// The first `n` test images of CIFAR-10, as ResNet-20 wants them, in batches of 32. A record is a
/// label and 3072 bytes, plane by plane.
fn cifar10(folder: &Path, n: usize) -> Vec<Batch> {
    let bytes = std::fs::read(folder.join("cifar10/test_batch.bin")).unwrap();
    let records: Vec<&[u8]> = bytes.chunks_exact(3073).take(n).collect();
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let pixel =
        |at: usize, value: u8| (f32::from(value) / 255.0 - mean[at / 1024]) / std[at / 1024];
    let batch = |records: &[&[u8]]| Batch {
        images: floats(
            &[records.len(), 3, 32, 32],
            records
                .iter()
                .flat_map(|record| {
                    record[1..]
                        .iter()
                        .enumerate()
                        .map(|(at, value)| pixel(at, *value))
                })
                .collect(),
        ),
        labels: records
            .iter()
            .map(|record| usize::from(record[0]))
            .collect(),
    };
    records.chunks(32).map(batch).collect()
}

#[test]
fn a_trained_network_is_as_accurate_as_in_onnx_runtime_through_python() {
    let Some(folder) = data() else { return };
    let bytes = std::fs::read(folder.join("models/resnet20-cifar10.onnx")).unwrap();
    let batches = cifar10(&folder, 200);
    let mut models: Vec<Box<dyn Loaded>> = runtimes()
        .iter()
        .map(|runtime| runtime.load(&bytes, [32, 3, 32, 32]).unwrap())
        .collect();
    for model in &mut models {
        let accuracy = evaluate(&mut |images| model.run(images), whole(batches.clone())).unwrap();
        assert_eq!((accuracy.n, accuracy.correct), (200, CORRECT_OF_200));
        assert_eq!(accuracy.top5, Some(TOP5_OF_200));
    }
    if let [tract, ort] = models.as_mut_slice() {
        let summary = compare(
            &mut |images| tract.run(images),
            &mut |images| ort.run(images),
            whole(batches),
            "onnxruntime",
        )
        .unwrap();
        // Sums in other orders over 20 layers of f32: measured 1e-6 of the largest output.
        summary
            .check(Tolerance {
                relative: 1e-5,
                rounding: 1e-5,
                absolute: 0.0,
                top1_agreement: 1.0,
            })
            .unwrap();
    }
}

/// ONNX Runtime 1.31 through Python, on the same images.
const CORRECT_OF_200: usize = 182;
/// As above.
const TOP5_OF_200: f64 = 0.995;

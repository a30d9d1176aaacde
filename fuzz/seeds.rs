//! Writes the inputs that fuzzing starts from: it fills `corpus/` (docs/fuzzing.md).

use image::{DynamicImage, ImageFormat};
use secateur_fuzz::joined;
use secateur_fuzz::run::Place;
use std::error::Error;
use std::io::Cursor;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)
    };
    for (name, model) in operators(&root.join("../crates/secateur/tests/fixtures"))? {
        write("onnx", &name, &model)?;
    }
    for file in ["small.onnx", "not_an_image.onnx", "unsupported.onnx"] {
        let path = root.join("../crates/secateur-cli/tests/fixtures").join(file);
        write("onnx", file, &std::fs::read(path)?)?;
    }

    let idx = |axes: &[u32], bytes: &[u8]| {
        let mut file = vec![0, 0, 8, axes.len() as u8];
        axes.iter().for_each(|len| file.extend(len.to_be_bytes()));
        file.extend(bytes);
        file
    };
    let images = idx(&[6, 2, 3], &(0..36).collect::<Vec<u8>>());
    let labels = idx(&[6], &[0, 1, 2, 0, 1, 2]);
    for flags in [0x00, 0x33, 0xff, 0x01] {
        let data = joined(&[&images, &labels, &images, &labels]);
        write("idx", &format!("both-{flags:02x}"), &[&[flags][..], &data].concat())?;
        let data = joined(&[&images, &labels, &[], &[]]);
        write("idx", &format!("train-{flags:02x}"), &[&[flags][..], &data].concat())?;
    }

    let record = |label: &[u8]| [label, &[7; 3072][..]].concat();
    let ten: Vec<u8> = (0..4).flat_map(|n| record(&[n])).collect();
    let hundred: Vec<u8> = (0..4).flat_map(|n| record(&[0, n])).collect();
    write("cifar", "ten", &[&[0][..], &joined(&[b"cat\ndog\n", &ten, &ten])].concat())?;
    write("cifar", "ten-train", &[&[0][..], &joined(&[&[], &[], &ten])].concat())?;
    write("cifar", "hundred", &[&[1][..], &joined(&[&[], &hundred, &hundred])].concat())?;

    let pixels = DynamicImage::ImageRgb8(image::RgbImage::from_fn(3, 2, |x, y| {
        image::Rgb([(40 * x) as u8, (90 * y) as u8, 7])
    }));
    let formats = [
        ("png", ImageFormat::Png),
        ("jpg", ImageFormat::Jpeg),
        ("gif", ImageFormat::Gif),
        ("bmp", ImageFormat::Bmp),
        ("tif", ImageFormat::Tiff),
        ("webp", ImageFormat::WebP),
        ("ppm", ImageFormat::Pnm),
    ];
    for (end, format) in formats {
        let mut file = Cursor::new(Vec::new());
        pixels.write_to(&mut file, format)?;
        let file = file.into_inner();
        let names = ["a/1", "b/1", "a/2", "b/2"].map(|name| format!("{name}.{end}"));
        let classes: Vec<&[u8]> = names.iter().flat_map(|name| [name.as_bytes(), &file]).collect();
        write("folder", &format!("classes-{end}"), &joined(&[&classes[..], &[b"a/l@", b"b", b"b/m.png@", b"x"]].concat()))?;
        let names = ["train/a/1", "train/b/1", "test/a/1", "val/b/1"].map(|name| format!("{name}.{end}"));
        let splits: Vec<&[u8]> = names.iter().flat_map(|name| [name.as_bytes(), &file]).collect();
        write("folder", &format!("splits-{end}"), &joined(&[&splits[..], &[b"1.png", &file, b"train/c@", b"val/b"]].concat()))?;
    }

    let place = Place::new()?;
    for (number, file) in place.files.iter().enumerate() {
        let bytes = std::fs::read(place.path().join(file))?;
        write("run", &file.replace('/', "-"), &[&[number as u8][..], &bytes].concat())?;
    }
    Ok(())
}

/// The models of the library's fixture, by name.
fn operators(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, Box<dyn Error>> {
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("operators.json"))?)?;
    let bytes = std::fs::read(folder.join("operators.bin"))?;
    let cases = index["cases"].as_array().ok_or("no cases")?;
    let mut models = Vec::new();
    for case in cases {
        let number = |key: &str| case["model"][key].as_u64().ok_or("no number");
        let (offset, length) = (number("offset")? as usize, number("length")? as usize);
        let name = case["name"].as_str().ok_or("no name")?;
        models.push((name.to_owned(), bytes[offset..offset + length].to_vec()));
    }
    Ok(models)
}

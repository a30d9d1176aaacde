//! Stored tensors: from protobuf to host arrays and back.
//!
//! Problems are phrases; the caller names the tensor.
//!
//! A tensor's claimed size is compared with the data at hand before anything is allocated. Data in
//! other files is read only from within the model's own folder.

use super::narrow::Narrow;
use super::proto::TensorProto;
use super::proto::tensor_proto::{DataLocation, DataType};
use crate::files::open_regular;
use crate::tensor::{ElementType, Tensor};
use ndarray::{ArcArray, IxDyn};
use prost::bytes::Bytes;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// The most bytes of weights that a model may claim beyond those in its own file: what a protobuf
/// file could hold at all.
pub(super) const MAX_WEIGHT_BYTES: u64 = 1 << 31;

/// The most bytes that the constants of a model may be filled with. No data stands behind them, so a few bytes
/// could ask for everything.
pub(super) const MAX_FILLED_BYTES: u64 = 1 << 30;

/// How a tensor's data stood in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// In `raw_data`.
    Raw,
    /// In the field of its type, such as `float_data`.
    Typed,
}

/// Where data in other files is looked for, and how much of it may be read.
pub(super) struct Store<'a> {
    folder: Option<&'a Path>,
    left: u64,
    filled_left: u64,
}

impl<'a> Store<'a> {
    /// `folder` holds the model, where it is a file.
    pub fn new(folder: Option<&'a Path>) -> Self {
        Self {
            folder,
            left: MAX_WEIGHT_BYTES,
            filled_left: MAX_FILLED_BYTES,
        }
    }

    /// Counts `bytes` of data in other files.
    fn claim(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            format!(
                "with it, weights outside the model's own data exceed the limit of {MAX_WEIGHT_BYTES} bytes"
            )
        })?;
        Ok(())
    }

    /// Counts `bytes` that one element fills.
    pub fn claim_filled(&mut self, bytes: u64) -> Result<(), String> {
        self.filled_left = self.filled_left.checked_sub(bytes).ok_or_else(|| {
            format!("with it, filled constants exceed the limit of {MAX_FILLED_BYTES} bytes")
        })?;
        Ok(())
    }

    /// Takes the data out of `proto`, which keeps everything else.
    pub fn take(&mut self, proto: &mut TensorProto) -> Result<(Tensor, Encoding), String> {
        let stored = Stored::of(proto.data_type())?;
        let shape = shape(&proto.dims)?;
        let count = count(&shape)?;
        if proto.segment.is_some() {
            return Err(
                "is stored in segments, which is not supported; save the model in one piece".into(),
            );
        }
        if proto.data_location() == DataLocation::External {
            let bytes = count
                .checked_mul(stored.size())
                .ok_or("its shape is too large")?;
            let raw = self.read_external(proto, bytes)?;
            proto.external_data.clear();
            proto.data_location = None;
            return Ok((from_raw(stored, &shape, count, &raw)?, Encoding::Raw));
        }
        let typed = proto.float_data.len()
            + proto.double_data.len()
            + proto.int32_data.len()
            + proto.int64_data.len()
            + proto.uint64_data.len()
            + proto.string_data.len();
        match proto.raw_data.take() {
            Some(raw) if typed == 0 => Ok((from_raw(stored, &shape, count, &raw)?, Encoding::Raw)),
            Some(raw) if !raw.is_empty() => Err("holds its data twice".into()),
            _ => Ok((
                from_typed(stored, &shape, count, proto, typed)?,
                Encoding::Typed,
            )),
        }
    }

    /// Reads `bytes` bytes of data from the file that `proto` names.
    fn read_external(&mut self, proto: &TensorProto, bytes: usize) -> Result<Vec<u8>, String> {
        let entry = |key: &str| {
            let mut entries = proto.external_data.iter();
            entries.find(|e| e.key() == key).map(|e| e.value())
        };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
                format!("the `{key}` of its external data is `{text}`, wanted a number")
            }),
        };
        let location = entry("location").ok_or("its external data has no `location`")?;
        let folder = self.folder.ok_or_else(|| {
            format!(
                "its data is in the file `{location}`; read the model from its file, not from bytes"
            )
        })?;
        let path = confined(folder, location)?;
        let refused = |error: std::io::Error| format!("its data file `{location}`: {error}");
        let mut file = open_regular(&path).map_err(refused)?;
        let meta = file.metadata().map_err(refused)?;
        let offset = number("offset")?.unwrap_or(0);
        let available = meta.len().saturating_sub(offset);
        let length = number("length")?.unwrap_or(available);
        let wanted = u64::try_from(bytes).map_err(|_| "its shape is too large")?;
        if length != wanted {
            return Err(format!(
                "its shape needs {wanted} bytes, its external data has {length}"
            ));
        }
        if length > available {
            return Err(format!(
                "its data is bytes {offset} and the {length} after, but `{location}` has {} bytes",
                meta.len()
            ));
        }
        self.claim(length)?;
        let mut raw = vec![0; bytes];
        file.seek(SeekFrom::Start(offset)).map_err(refused)?;
        file.read_exact(&mut raw).map_err(refused)?;
        Ok(raw)
    }
}

/// The path of `location` inside `folder`, links resolved.
fn confined(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let outside =
        || format!("its data file `{location}` is outside the model's folder, which is refused");
    let relative = Path::new(location);
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !relative.components().all(plain) {
        return Err(outside());
    }
    let refused = |error: std::io::Error| format!("its data file `{location}`: {error}");
    let folder = folder.canonicalize().map_err(refused)?;
    let path = folder.join(relative).canonicalize().map_err(refused)?;
    if path.starts_with(&folder) {
        Ok(path)
    } else {
        Err(outside())
    }
}

/// The element type of an ONNX type code.
pub(super) fn element_type(code: i32) -> Result<ElementType, String> {
    let Ok(known) = DataType::try_from(code) else {
        return Err(format!("element type {code} is unknown"));
    };
    match known {
        DataType::Float => Ok(ElementType::F32),
        DataType::Double => Ok(ElementType::F64),
        DataType::Int32 => Ok(ElementType::I32),
        DataType::Int64 => Ok(ElementType::I64),
        DataType::Bool => Ok(ElementType::Bool),
        DataType::Undefined => Err("has no element type".into()),
        DataType::Float16 | DataType::Bfloat16 => Err(format!(
            "element type {} is not supported; convert the model to 32-bit floats",
            known.as_str_name()
        )),
        DataType::Uint8
        | DataType::Int8
        | DataType::Uint16
        | DataType::Int16
        | DataType::Uint4
        | DataType::Int4
        | DataType::Uint2
        | DataType::Int2
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float4e2m1
        | DataType::Float8e8m0
        | DataType::Float6e2m3
        | DataType::Float6e3m2 => Err(format!(
            "element type {} is not supported; if the model is quantised, give the 32-bit float model it was made from",
            known.as_str_name()
        )),
        DataType::String
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Complex64
        | DataType::Complex128 => Err(format!(
            "element type {} is not supported; supported are FLOAT, DOUBLE, INT32, INT64 and BOOL",
            known.as_str_name()
        )),
    }
}

/// The ONNX type code of an element type.
pub(super) fn type_code(element_type: ElementType) -> i32 {
    let known = match element_type {
        ElementType::F32 => DataType::Float,
        ElementType::F64 => DataType::Double,
        ElementType::I32 => DataType::Int32,
        ElementType::I64 => DataType::Int64,
        ElementType::Bool => DataType::Bool,
    };
    known as i32
}

/// Bytes of one element in `raw_data`.
pub(super) fn size_of(element_type: ElementType) -> usize {
    match element_type {
        ElementType::F32 | ElementType::I32 => 4,
        ElementType::F64 | ElementType::I64 => 8,
        ElementType::Bool => 1,
    }
}

fn shape(dims: &[i64]) -> Result<Vec<usize>, String> {
    let axis =
        |&dim: &i64| usize::try_from(dim).map_err(|_| format!("its shape {dims:?} is not a shape"));
    dims.iter().map(axis).collect()
}

/// The number of elements of `shape`.
pub(super) fn count(shape: &[usize]) -> Result<usize, String> {
    // Empty axes do not excuse absurd others: arrays check the product of the non-empty ones.
    let mut non_empty = shape.iter().copied().filter(|&axis| axis != 0);
    let product = non_empty.try_fold(1_usize, usize::checked_mul);
    match product.filter(|&p| p <= isize::MAX.unsigned_abs() / 8) {
        Some(product) => Ok(if shape.contains(&0) { 0 } else { product }),
        None => Err(format!("its shape {shape:?} is too large")),
    }
}

/// An array of `values`, of which there are as many as `shape` wants.
fn array<T: Clone>(shape: &[usize], values: Vec<T>) -> Result<ArcArray<T, IxDyn>, String> {
    ArcArray::from_shape_vec(IxDyn(shape), values)
        .map_err(|error| format!("its shape {shape:?}: {error}"))
}

/// How elements stand in a file.
#[derive(Clone, Copy)]
enum Stored {
    /// As they are.
    Plain(ElementType),
    /// As 16-bit floats, which are read as [`ElementType::F32`].
    Narrow(Narrow),
}

impl Stored {
    /// That of an ONNX type code.
    fn of(code: i32) -> Result<Self, String> {
        match Narrow::of(code) {
            Some(narrow) => Ok(Self::Narrow(narrow)),
            None => element_type(code).map(Self::Plain),
        }
    }

    /// Bytes of one element in `raw_data`.
    fn size(self) -> usize {
        match self {
            Self::Plain(element_type) => size_of(element_type),
            Self::Narrow(_) => 2,
        }
    }
}

fn from_raw(stored: Stored, shape: &[usize], count: usize, raw: &[u8]) -> Result<Tensor, String> {
    if count.checked_mul(stored.size()) != Some(raw.len()) {
        return Err(format!(
            "its shape {shape:?} needs {count} elements of {} bytes, its data has {} bytes",
            stored.size(),
            raw.len()
        ));
    }
    macro_rules! numbers {
        ($variant:ident, $number:ty) => {{
            let (chunks, _) = raw.as_chunks();
            let values = chunks.iter().map(|&chunk| <$number>::from_le_bytes(chunk));
            Tensor::$variant(array(shape, values.collect())?)
        }};
    }
    Ok(match stored {
        Stored::Narrow(narrow) => Tensor::F32(array(shape, narrow.wide_raw(raw))?),
        Stored::Plain(ElementType::F32) => numbers!(F32, f32),
        Stored::Plain(ElementType::F64) => numbers!(F64, f64),
        Stored::Plain(ElementType::I32) => numbers!(I32, i32),
        Stored::Plain(ElementType::I64) => numbers!(I64, i64),
        Stored::Plain(ElementType::Bool) => {
            Tensor::Bool(array(shape, raw.iter().map(|&byte| byte != 0).collect())?)
        }
    })
}

/// `typed` is the number of elements in all typed fields together.
fn from_typed(
    stored: Stored,
    shape: &[usize],
    count: usize,
    proto: &mut TensorProto,
    typed: usize,
) -> Result<Tensor, String> {
    let found = match stored {
        Stored::Plain(ElementType::F32) => proto.float_data.len(),
        Stored::Plain(ElementType::F64) => proto.double_data.len(),
        Stored::Plain(ElementType::I32 | ElementType::Bool) | Stored::Narrow(_) => {
            proto.int32_data.len()
        }
        Stored::Plain(ElementType::I64) => proto.int64_data.len(),
    };
    if found != typed {
        return Err("holds data in a field of another type".into());
    }
    if found != count {
        return Err(format!(
            "its shape {shape:?} needs {count} elements, its data has {found}"
        ));
    }
    use std::mem::take;
    Ok(match stored {
        Stored::Narrow(narrow) => Tensor::F32(array(
            shape,
            narrow.wide_typed(&take(&mut proto.int32_data))?,
        )?),
        Stored::Plain(ElementType::F32) => Tensor::F32(array(shape, take(&mut proto.float_data))?),
        Stored::Plain(ElementType::F64) => Tensor::F64(array(shape, take(&mut proto.double_data))?),
        Stored::Plain(ElementType::I32) => Tensor::I32(array(shape, take(&mut proto.int32_data))?),
        Stored::Plain(ElementType::I64) => Tensor::I64(array(shape, take(&mut proto.int64_data))?),
        Stored::Plain(ElementType::Bool) => {
            let values = take(&mut proto.int32_data);
            Tensor::Bool(array(shape, values.into_iter().map(|v| v != 0).collect())?)
        }
    })
}

/// Puts `tensor` into `proto`, of which everything but shape, type and data stays.
pub(super) fn put(proto: &mut TensorProto, tensor: &Tensor, encoding: Encoding) {
    // Lengths of arrays in memory fit i64.
    let dim = |&axis: &usize| i64::try_from(axis).unwrap_or(i64::MAX);
    proto.dims = tensor.shape().iter().map(dim).collect();
    proto.data_type = Some(type_code(tensor.element_type()));
    match encoding {
        Encoding::Raw => proto.raw_data = Some(raw(tensor)),
        Encoding::Typed => match tensor {
            Tensor::F32(a) => proto.float_data = a.iter().copied().collect(),
            Tensor::F64(a) => proto.double_data = a.iter().copied().collect(),
            Tensor::I32(a) => proto.int32_data = a.iter().copied().collect(),
            Tensor::I64(a) => proto.int64_data = a.iter().copied().collect(),
            Tensor::Bool(a) => proto.int32_data = a.iter().map(|&v| i32::from(v)).collect(),
        },
    }
}

/// A tensor that was not in the file.
pub(super) fn fresh(name: Option<&str>, tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        name: name.map(str::to_owned),
        ..TensorProto::default()
    };
    put(&mut proto, tensor, Encoding::Raw);
    proto
}

/// Elements in C order, little-endian.
fn raw(tensor: &Tensor) -> Bytes {
    let mut bytes = Vec::with_capacity(tensor.len() * size_of(tensor.element_type()));
    match tensor {
        Tensor::F32(a) => a
            .iter()
            .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        Tensor::F64(a) => a
            .iter()
            .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        Tensor::I32(a) => a
            .iter()
            .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        Tensor::I64(a) => a
            .iter()
            .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        Tensor::Bool(a) => a.iter().for_each(|&v| bytes.push(u8::from(v))),
    }
    bytes.into()
}

/// A tensor of `shape` whose every element is the one element of `value`.
pub(super) fn filled(value: &Tensor, shape: &[usize]) -> Result<Tensor, String> {
    count(shape)?;
    fn fill<T: Clone>(
        value: &ArcArray<T, IxDyn>,
        shape: &[usize],
    ) -> Result<ArcArray<T, IxDyn>, String> {
        let mut elements = value.iter();
        match (elements.next(), elements.next()) {
            (Some(element), None) => Ok(ArcArray::from_elem(IxDyn(shape), element.clone())),
            _ => Err("the value to fill with is not one element".into()),
        }
    }
    Ok(match value {
        Tensor::F32(a) => Tensor::F32(fill(a, shape)?),
        Tensor::F64(a) => Tensor::F64(fill(a, shape)?),
        Tensor::I32(a) => Tensor::I32(fill(a, shape)?),
        Tensor::I64(a) => Tensor::I64(fill(a, shape)?),
        Tensor::Bool(a) => Tensor::Bool(fill(a, shape)?),
    })
}

/// Whether `tensor` is `value`'s one element, bit for bit, all over.
pub(super) fn is_filled(tensor: &Tensor, value: &Tensor) -> bool {
    fn all<T: Copy, B: PartialEq>(
        array: &ArcArray<T, IxDyn>,
        value: &ArcArray<T, IxDyn>,
        bits: fn(T) -> B,
    ) -> bool {
        value
            .first()
            .is_some_and(|&v| array.iter().all(|&e| bits(e) == bits(v)))
    }
    match (tensor, value) {
        (Tensor::F32(a), Tensor::F32(v)) => all(a, v, f32::to_bits),
        (Tensor::F64(a), Tensor::F64(v)) => all(a, v, f64::to_bits),
        (Tensor::I32(a), Tensor::I32(v)) => all(a, v, |e| e),
        (Tensor::I64(a), Tensor::I64(v)) => all(a, v, |e| e),
        (Tensor::Bool(a), Tensor::Bool(v)) => all(a, v, |e| e),
        _ => false,
    }
}

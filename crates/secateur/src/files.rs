//! Files that are whole or absent: written to a temporary name in the same folder, then renamed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes `bytes` to `path` so that a reader, or a crash, sees the old content or the new one.
///
/// # Errors
/// [`WriteError`] where the folder does not exist, is read-only or full.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let write = || -> io::Result<()> {
        let mut file = temporary(path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        if let Ok(former) = std::fs::metadata(path) {
            file.as_file().set_permissions(former.permissions())?;
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

/// Opens a file that holds data: a pipe would be waited for without end.
///
/// # Errors
/// Where it cannot be opened, or is no regular file.
pub fn open_regular(path: &Path) -> io::Result<std::fs::File> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::File::open(path)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ))
    }
}

/// Checks, before long work, that `path` can be written.
///
/// # Errors
/// [`WriteError`] where its folder does not exist or takes no new file, or `path` is a folder.
pub fn check_writable(path: &Path) -> Result<(), WriteError> {
    let check = || -> io::Result<()> {
        if path.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        temporary(path).map(drop)
    };
    check().map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

const TEMPORARY: &str = ".secateur-";

/// A new file beside `path`, which removes itself unless it is renamed or the process is killed.
fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let prefix = match path.file_name() {
        Some(name) => format!("{TEMPORARY}{}-", name.to_string_lossy()),
        None => TEMPORARY.to_owned(),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // As readable as any other new file, not private as temporary ones are.
    #[cfg(unix)]
    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(mode);
    builder.tempfile_in(folder_of(path)).map_err(without_path)
}

/// What went wrong, without the temporary path that `tempfile` adds: it would say nothing to a user.
fn without_path(error: io::Error) -> io::Error {
    io::Error::from(error.kind())
}

/// Removes what writers of `path` that were killed left beside it. What cannot be removed stays.
pub fn remove_leftovers(path: &Path) {
    let Some(name) = path.file_name() else {
        return;
    };
    let prefix = format!("{TEMPORARY}{}-", name.to_string_lossy());
    remove_temporary(folder_of(path), &prefix);
}

/// Removes what writers into `folder` that were killed left there. What cannot be removed stays.
pub fn remove_leftovers_in(folder: &Path) {
    remove_temporary(folder, TEMPORARY);
}

fn remove_temporary(folder: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(".tmp") {
            // A leftover that stays does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The CRC-32 of pieces of bytes in their order: tells one file from another, not from a forgery.
#[must_use]
pub fn checksum<B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for piece in pieces {
        hasher.update(piece.as_ref());
    }
    hasher.finalize()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_killed_writer_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomic(&path, b"one").unwrap();
        let other = folder.path().join("b.bin");
        for file in [&path, &other] {
            std::mem::forget(temporary(file).unwrap());
        }
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(count(), 3);
        remove_leftovers(&path);
        assert_eq!(count(), 2);
        remove_leftovers_in(folder.path());
        assert_eq!(count(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_missing_folder_is_found_before_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/a.bin");
        let error = check_writable(&path).unwrap_err();
        assert!(error.to_string().contains("absent/a.bin"));
        assert!(check_writable(folder.path()).is_err());
    }
}

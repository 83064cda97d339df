//! Fuzz targets of the host runner: `docs/fuzzing.md`. There is nothing here but tests.

#[cfg(test)]
mod guests;
#[cfg(test)]
mod results;
#[cfg(test)]
mod roots;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod words;

/// A directory in memory, if available.
#[cfg(test)]
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

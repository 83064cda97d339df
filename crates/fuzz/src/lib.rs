//! Fuzz targets of the host runner: `docs/fuzzing.md`. There is nothing here but tests.

#[cfg(test)]
mod guests;
#[cfg(test)]
mod results;
#[cfg(test)]
mod roots;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod words;

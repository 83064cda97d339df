//! Archives as plain tar files: compressed ones are unpacked into the cache once.

use super::WorldError;
use lab_base::hex::hex;
use lab_guard::private;
use lab_kernel_store::ImageLayer;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where unpacked archives are in the cache.
pub const DIRECTORY: &str = "roots";
/// Bytes that an archive may have when it is unpacked.
const MOST: u64 = 64 << 30;

/// An archive as a tar file: itself if it is one, otherwise the unpacked one in the cache.
///
/// # Errors
/// The file can't be read or is damaged, or the cache is full.
pub fn plain(path: &Path, cache: &Path) -> Result<File, WorldError> {
    let mut file = File::open(path).map_err(WorldError::io(path))?;
    let mut start = [0; 6];
    let filled = read_start(&mut file, &mut start).map_err(WorldError::io(path))?;
    if !is_packed(&start[..filled]) {
        return Ok(file);
    }
    let found = file.metadata().map_err(WorldError::io(path))?;
    let mut hash = Sha256::new();
    // An archive of a person's is known by its place and its stamp: its content would have to be read every time.
    hash.update(path.as_os_str().as_bytes());
    for number in [found.len() as i64, found.ino() as i64, found.mtime(), found.mtime_nsec(), found.ctime_nsec()] {
        hash.update(number.to_le_bytes());
    }
    let place = cache.join(DIRECTORY).join(hex(&hash.finalize()) + ".tar");
    stored(&place, |to| unpack(&start[..filled], &file, to).map_err(WorldError::io(path)))
}

/// A blob of an image layout, named after its checksum, as a tar file.
///
/// # Errors
/// As [`plain`], and if the blob has another checksum.
pub fn blob(layer: &ImageLayer, cache: &Path) -> Result<File, WorldError> {
    let path = &*layer.path;
    let place = cache.join(DIRECTORY).join(format!("{}.tar", layer.digest.hex()));
    stored(&place, |to| {
        let mut file = File::open(path).map_err(WorldError::io(path))?;
        if !layer.is_whole().map_err(WorldError::Image)? {
            let problem = "it has another checksum than its name".to_owned();
            return Err(WorldError::Damaged { path: path.to_owned(), problem });
        }
        let mut start = [0; 6];
        let filled = read_start(&mut file, &mut start).map_err(WorldError::io(path))?;
        unpack(&start[..filled], &file, to).map_err(WorldError::io(path))
    })
}

/// A file of the cache, made if it is not there.
fn stored(place: &Path, make: impl FnOnce(&mut dyn Write) -> Result<(), WorldError>) -> Result<File, WorldError> {
    if let Ok(found) = File::options().read(true).append(true).open(place) {
        // Its time of use, by which the cache is kept small. Without it the file goes too early.
        let _ = found.set_modified(SystemTime::now());
        return File::open(place).map_err(WorldError::io(place));
    }
    let dir = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(WorldError::io(dir))?;
    let stage = private::temporary(".stage-", dir)?;
    let draft: PathBuf = stage.path().join("tar");
    let mut file = File::create_new(&draft).map_err(WorldError::io(&draft))?;
    make(&mut file)?;
    file.sync_all().map_err(WorldError::io(&draft))?;
    fs::rename(&draft, place).map_err(WorldError::io(place))?;
    File::open(place).map_err(WorldError::io(place))
}

fn read_start(file: &mut File, start: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    file.rewind()?;
    Ok(filled)
}

const GZIP: &[u8] = b"\x1f\x8b";
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

fn is_packed(start: &[u8]) -> bool {
    [GZIP, XZ, ZSTD].iter().any(|magic| start.starts_with(magic))
}

fn unpack(start: &[u8], file: &File, to: &mut dyn Write) -> io::Result<()> {
    let file = BufReader::new(file);
    let mut reader: Box<dyn Read> = if start.starts_with(GZIP) {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else if start.starts_with(XZ) {
        Box::new(liblzma::read::XzDecoder::new_multi_decoder(file))
    } else if start.starts_with(ZSTD) {
        Box::new(zstd::stream::read::Decoder::new(file)?)
    } else {
        Box::new(file)
    };
    let copied = io::copy(&mut reader.by_ref().take(MOST), to)?;
    if copied == MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it unpacks to more than {} GiB", MOST >> 30)));
    }
    Ok(())
}

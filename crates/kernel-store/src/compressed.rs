//! Streams that are compressed by a method which their first bytes tell.

use std::io::{self, BufRead, Read};

/// Memory that a decoder of xz may use, bytes: what `xz -9` needs is 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// The decompressed stream. Its length is not bounded; the reader bounds it.
///
/// # Errors
/// The stream can't be read, or its decoder has no memory.
pub(super) fn decompressed<'a>(mut stream: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    // The signatures of RFC 1952, the .xz file format 1.2.0 and RFC 8878.
    let start = stream.fill_buf()?;
    let (gzip, xz) = (start.starts_with(&[0x1f, 0x8b]), start.starts_with(b"\xfd7zXZ\0"));
    let zstd = start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    Ok(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(stream))
    } else if xz {
        let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
        Box::new(liblzma::bufread::XzDecoder::new_stream(stream, decoder))
    } else if zstd {
        // Its window is at most 128 MiB (ZSTD_WINDOWLOG_LIMIT_DEFAULT).
        Box::new(zstd::stream::read::Decoder::with_buffer(stream)?)
    } else {
        Box::new(stream)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn each_method_is_recognized() {
        let text = b"metadata ".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&text).unwrap();
        let zst = zstd::encode_all(&*text, 1).unwrap();
        for packed in [text.clone(), gz.finish().unwrap(), xz.finish().unwrap(), zst] {
            let mut found = Vec::new();
            decompressed(&*packed).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, text);
            let broken = decompressed(&packed[..packed.len() / 2]).unwrap().read_to_end(&mut Vec::new());
            assert!(broken.is_err() || packed == text);
        }
    }
}

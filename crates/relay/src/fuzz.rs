//! The other side's frames of any bytes: `docs/fuzzing.md`.

use crate::{MOST, Mux, PIECE, RelaySink, frame::Frame};
use std::io;

#[test]
fn relayed() {
    bolero::check!().for_each(|bytes: &[u8]| {
        // What is read is what was written, and nothing is read beyond the end.
        let (mut rest, mut read) = (bytes, Vec::new());
        while let Ok(Some(Frame { channel, kind, body })) = Frame::read(&mut rest, PIECE) {
            read.extend(Frame::encode(channel, kind, &body));
        }
        assert!(bytes.starts_with(&read));
        let mux = Mux::new(io::sink());
        // Connections that deliver to nobody: no socket is opened.
        let _ = mux.follow(bytes, |_, _| Ok(RelaySink::Datagrams(Box::new(|_| Ok(())))));
        assert!(mux.count() <= MOST);
        mux.join();
    });
}

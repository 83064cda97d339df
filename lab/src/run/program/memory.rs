//! The machine's memory for a program's streams, at the host's end.

use lab_protocol::{
    HostMessage,
    shell::Stream,
    work::{INPUT_AREA, STREAM_AREA, STREAM_PIECE, output_area, place},
};
use std::{fs::File, os::unix::fs::FileExt};

/// Input with fewer bytes than this goes through the port, where it costs one message, as it would here.
const SHORT: usize = 4 << 10;
/// Bytes that go through the port before the memory is mapped, which makes the guest's kernel look for devices and say so in its log:
/// most programs read and write less.
const MUCH: usize = 1 << 20;

/// The memory. Who writes keeps the window, so that no piece is overwritten which has yet to be taken.
pub struct StreamMemory {
    file: File,
    state: State,
    /// Where the next piece of input begins, if it fits.
    next: usize,
}

#[derive(PartialEq, Eq)]
enum State {
    /// So many bytes went through the port.
    Unasked(usize),
    /// The guest has been asked to map it.
    Asked,
    Mapped,
}

impl StreamMemory {
    /// The memory in a file, which the guest has not mapped yet.
    pub const fn new(file: File) -> Self {
        Self { file, state: State::Unasked(0), next: 0 }
    }

    /// The guest has mapped it.
    pub fn mapped(&mut self) {
        self.state = State::Mapped;
    }

    /// So many bytes have passed.
    pub fn passed(&mut self, bytes: usize) {
        if let State::Unasked(sum) = &mut self.state {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Asks the guest to map it, once it is worth its cost.
    pub fn ask(&mut self) -> Option<HostMessage> {
        matches!(self.state, State::Unasked(MUCH..)).then(|| {
            self.state = State::Asked;
            HostMessage::MapStreams
        })
    }

    /// The message by which the guest gets a piece of input.
    pub fn input(&mut self, bytes: Vec<u8>) -> HostMessage {
        self.passed(bytes.len());
        self.lay(&bytes).unwrap_or(HostMessage::Input { bytes })
    }

    /// Lays a piece into the memory; `None` where it must go through the port.
    fn lay(&mut self, bytes: &[u8]) -> Option<HostMessage> {
        if self.state != State::Mapped || !(SHORT..=STREAM_PIECE).contains(&bytes.len()) {
            return None;
        }
        let at = place(self.next, bytes.len());
        // The file may be on a disk that is full.
        self.file.write_all_at(bytes, (INPUT_AREA + at) as u64).ok()?;
        self.next = at + bytes.len();
        Some(HostMessage::InputAt { at: u32::try_from(at).ok()?, length: u32::try_from(bytes.len()).ok()? })
    }

    /// A piece of output; `None` where the guest names a place outside the stream's area. The guest may have been asked for the program
    /// before, which ended meanwhile.
    pub fn output(&self, stream: Stream, at: u32, length: u32) -> Option<Vec<u8>> {
        let (at, length) = (at as usize, length as usize);
        let fits = length <= STREAM_PIECE && at <= STREAM_AREA - length;
        fits.then_some(())?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, (output_area(stream) + at) as u64).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::work::{PROGRAM_INPUT_WINDOW, STREAM_MEMORY};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn mapped(file: File) -> StreamMemory {
        StreamMemory { state: State::Mapped, ..StreamMemory::new(file) }
    }

    fn memory() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(STREAM_MEMORY as u64).unwrap();
        file
    }

    #[test]
    fn much_input_goes_through_the_memory_once_it_is_mapped() {
        let mut memory = StreamMemory::new(memory());
        let piece = || vec![1; STREAM_PIECE];
        let through_port = || HostMessage::Input { bytes: piece() };
        for _ in 0..MUCH / STREAM_PIECE {
            assert_eq!(memory.ask(), None);
            assert_eq!(memory.input(piece()), through_port());
        }
        assert_eq!(memory.ask(), Some(HostMessage::MapStreams));
        assert_eq!(memory.input(piece()), through_port());
        assert_eq!(memory.ask(), None, "it is asked once");
        memory.mapped();
        let length = STREAM_PIECE as u32;
        assert_eq!(memory.input(piece()), HostMessage::InputAt { at: 0, length });
        assert_eq!(memory.input(piece()), HostMessage::InputAt { at: length, length });
        let short = vec![2; SHORT - 1];
        assert_eq!(memory.input(short.clone()), HostMessage::Input { bytes: short });
        assert_eq!(memory.input(Vec::new()), HostMessage::Input { bytes: Vec::new() }, "the end of input");
    }

    #[test]
    fn output_is_read_from_its_own_area_alone() {
        let file = memory();
        file.write_all_at(b"out", (STREAM_AREA + 7) as u64).unwrap();
        file.write_all_at(b"err", (2 * STREAM_AREA + 7) as u64).unwrap();
        let memory = StreamMemory::new(file);
        assert_eq!(memory.output(Stream::Output, 7, 3).unwrap(), b"out");
        assert_eq!(memory.output(Stream::Error, 7, 3).unwrap(), b"err");
        let (area, piece) = (STREAM_AREA as u32, STREAM_PIECE as u32);
        assert!(memory.output(Stream::Error, area - piece, piece).is_some());
        for (at, length) in [(area - 2, 3), (area, 1), (u32::MAX, 1), (0, piece + 1), (u32::MAX, u32::MAX)] {
            assert_eq!(memory.output(Stream::Output, at, length), None, "{at} {length}");
        }
    }

    #[test]
    fn a_guest_that_cuts_its_memory_off_is_found_out() {
        let file = memory();
        file.set_len(STREAM_AREA as u64).unwrap();
        assert_eq!(mapped(file).output(Stream::Output, 0, 1), None);
    }

    #[test]
    fn a_disk_that_is_full_sends_input_through_the_port() {
        let mut memory = mapped(File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(memory.input(vec![1; SHORT]), HostMessage::Input { bytes: vec![1; SHORT] });
    }

    proptest! {
        /// A guest that takes the pieces in their order, as slowly as the window lets it, finds each as it was laid.
        #[test]
        fn no_piece_is_overwritten_that_is_under_way(
            lengths in proptest::collection::vec(SHORT..=STREAM_PIECE, 60..200),
        ) {
            let mut memory = mapped(memory());
            let (mut under_way, mut total) = (VecDeque::new(), 0);
            for (number, length) in lengths.into_iter().enumerate() {
                while total >= PROGRAM_INPUT_WINDOW {
                    let (at, length, filling): (u32, usize, u8) = under_way.pop_front().unwrap();
                    let mut found = vec![0; length];
                    memory.file.read_exact_at(&mut found, u64::from(at)).unwrap();
                    prop_assert!(found.iter().all(|byte| *byte == filling));
                    total -= length;
                }
                let filling = (number % 251) as u8;
                let HostMessage::InputAt { at, .. } = memory.input(vec![filling; length]) else { unreachable!() };
                under_way.push_back((at, length, filling));
                total += length;
            }
        }
    }
}

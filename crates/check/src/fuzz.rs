//! Objects of any bytes, and lines of any loader: `docs/fuzzing.md`.

use crate::{
    CheckFacts, CheckOrder, KernelTypes, ObjectCode, OnKernel, captured, changes, findings, frame, ifindex_keys,
    inspect, loaders_differ, unmet,
};
use lab_protocol::KernelVersion;
use std::collections::BTreeMap;

#[test]
fn objects() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(found) = inspect(bytes) {
            assert!(!found.programs.is_empty());
        }
        // Behind a header that is right, so that the rest is reached.
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 247, 0];
        header.extend(bytes);
        drop(inspect(&header));
        let code = ObjectCode::read(&header).unwrap_or_default();
        drop(ifindex_keys(&code));
        // The same bytes as type information, of a kernel and of an object.
        let mut btf = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        btf.extend(bytes);
        let types = KernelTypes::read(&btf, None, KernelVersion::new(6, 1, 0));
        if let Some(types) = types {
            let code = ObjectCode { btf: btf.clone(), ..code };
            drop(types.predict(&code, &CheckOrder::default(), &BTreeMap::new()));
        }
    });
}

#[test]
fn lines() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let facts = CheckFacts::read(&text);
        drop(unmet(&facts, &[]));
        drop(changes(&facts, &facts));
        assert!(loaders_differ("k", "l", &facts, &facts).is_empty(), "a loader does not differ from itself");
        drop(findings(&[OnKernel { kernel: "k".to_owned(), facts }]));
        drop(frame(&text));
    });
}

#[test]
fn captures() {
    bolero::check!().for_each(|bytes: &[u8]| {
        // Behind headers that are right, so that packets are reached.
        let classic =
            [&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0][..], bytes];
        let next = [&[0x0a, 0x0d, 0x0d, 0x0a][..], bytes];
        for capture in [bytes.to_vec(), classic.concat(), next.concat()] {
            let Ok(frames) = captured(&capture, None) else { continue };
            assert!(!frames.is_empty() && frames.len() <= crate::MAX_PACKETS);
            assert!(frames.iter().all(|frame| (14..=1514).contains(&frame.len())));
            assert_eq!(captured(&capture, Some(frames.len())).as_deref(), Ok(&frames[frames.len() - 1..]));
        }
    });
}

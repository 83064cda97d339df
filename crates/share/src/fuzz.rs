//! A guest's requests of any bytes: `docs/fuzzing.md`.

use crate::{FileSource, Look, Server, Tree, WriteBudget, request, wire};
use std::{fs, path::Path, sync::Mutex};

/// Pieces of the input are requests: operation, node and length of the body come first. In between a few valid ones, so that
/// there are nodes to attack.
#[test]
fn requests() {
    // Clearing it for every request would take a third of the time.
    let buffer = Mutex::new(vec![0; wire::MAX_REQUEST]);
    bolero::check!().for_each(|bytes: &[u8]| {
        let host = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = |name: &str| host.path().join(name);
        fs::create_dir_all(path("root/dir")).unwrap();
        fs::create_dir(path("out")).unwrap();
        fs::write(path("root/file"), "content").unwrap();
        fs::write(path("secret"), "secret").unwrap();
        let mut tree = Tree::new();
        tree.host(0, Path::new("root"), &path("root"), None).unwrap();
        tree.host(0, Path::new("out"), &path("out"), Some(WriteBudget { bytes: 1000, files: 20 })).unwrap();
        tree.file(0, Path::new("extra"), Look::root(0o644), FileSource::Bytes(b"x"[..].into())).unwrap();
        let mut server = Server::new(tree);
        let mut ask = |opcode: u32, node: u64, body: &[u8]| {
            let length = (40 + body.len()) as u32;
            let header =
                [&length.to_le_bytes()[..], &opcode.to_le_bytes(), &7u64.to_le_bytes(), &node.to_le_bytes(), &[0; 16]];
            let mut stream = &*[&header.concat()[..], body].concat();
            let mut buffer = buffer.lock().unwrap();
            let request = request::next(&mut stream, &mut buffer).unwrap().unwrap();
            if let Some(answer) = server.answer(request) {
                assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize, answer.len());
                assert!(answer.len() <= wire::MAX_DATA as usize + 16);
            }
        };
        for (node, name) in [(1, "root\0"), (1, "out\0"), (2, "file\0"), (2, "dir\0")] {
            ask(wire::LOOKUP, node, name.as_bytes());
        }
        let mut rest = bytes;
        while let [opcode, node, length, after @ ..] = rest {
            let (body, more) = after.split_at(after.len().min(usize::from(*length)));
            ask(u32::from(*opcode % 56), u64::from(*node % 12), body);
            rest = more;
        }
        assert_eq!(fs::read(path("root/file")).unwrap(), b"content");
        assert_eq!(fs::read(path("secret")).unwrap(), b"secret");
        let mut names: Vec<_> = fs::read_dir(host.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["out", "root", "secret"]);
        assert_eq!(fs::read_dir(path("root")).unwrap().count(), 2);
        assert!(fs::read_dir(path("out")).unwrap().count() <= 20);
    });
}

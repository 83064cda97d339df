//! Hostile mirrors: their key is trusted by the lab, their server may answer anything, and some packages have content
//! that a correct archive would never sign.

use crate::{
    attack::{Attack, By, Wanted},
    mirror::{Answer, Mirror, Package},
    stage::{Seen, Stage},
};
use flate2::{Compression, write::GzEncoder};
use std::{io::Write, sync::Arc, time::Duration};
use tar::{EntryType, Header};

const UNPACKED: &str = "A package is unpacked into its own directory only, within limits";
const SIGNED: &str = "A package index is Debian's, and none that is older than the lock is taken";
/// What the attacked program may take: fetching and unpacking, with a few calls of apt.
const PATIENCE: Duration = Duration::from_secs(90);

fn row(
    name: &'static str,
    what: &'static str,
    promise: &'static str,
    wanted: Wanted,
    act: fn(&Stage<'_>) -> Seen,
) -> Attack {
    Attack { name, by: By::Mirror, what, promise, wanted: Wanted { seconds: PATIENCE.as_secs(), ..wanted }, act }
}

/// The header of an entry. The size may be any.
fn header(name: &str, kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).expect("a short name");
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("memory");
    packer.finish().expect("memory")
}

/// A kernel, then these entries.
fn kernel_and(entries: &[u8]) -> Vec<u8> {
    let mut tar = header("./boot/vmlinuz-6.7.1", EntryType::Regular, 512);
    tar.extend([0x5a; 512]);
    tar.extend(entries);
    packed(&tar)
}

/// What the lab makes of the kernel whose files are this archive.
fn fetched(stage: &Stage<'_>, data: Vec<u8>) -> Seen {
    let mirror = Mirror::start(stage);
    mirror.publish(&[Package { version: "6.7.1", data }], "");
    let locked = mirror.lab(&["kernels", "update"], PATIENCE);
    assert_eq!(locked.exit, Some(0), "{}", locked.printed);
    let mut seen = mirror.lab(&["kernels", "fetch", "--all"], PATIENCE);
    for entry in walkdir::WalkDir::new(stage.scratch.join("cache/kernels")).min_depth(1).into_iter().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(".lock") {
            seen.wrong.push(format!("{} was left", entry.path().display()));
            break;
        }
    }
    seen
}

/// A small kernel, which is no real one.
fn small() -> Vec<u8> {
    kernel_and(&[0; 1024])
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    let refused = |told| Wanted::exit(&[3], told);
    vec![
        row(
            "package-of-a-million-files",
            "a kernel package has a million files",
            UNPACKED,
            refused(&["has more than 100000 entries", "nothing was unpacked"]),
            |stage| {
                let mut data = kernel_and(&[]);
                // A file of gzip may consist of several.
                for thousand in 0..1000 {
                    let name = |number| format!("./lib/modules/6.7.1/{thousand}/{number}");
                    // Directories have names too, and no bytes.
                    let entries = (0..1000).flat_map(|number| header(&name(number), EntryType::Directory, 0));
                    data.extend(packed(&entries.collect::<Vec<_>>()));
                }
                fetched(stage, data)
            },
        ),
        row(
            "package-is-sparse",
            "a kernel package has a sparse file of a terabyte",
            UNPACKED,
            refused(&["is a sparse file", "nothing was unpacked"]),
            |stage| {
                let mut entry = Header::new_gnu();
                entry.set_path("./lib/modules/6.7.1/x.ko").expect("a short name");
                entry.set_entry_type(EntryType::GNUSparse);
                entry.set_size(0);
                entry.as_gnu_mut().expect("a header of GNU").realsize = *b"20000000000\0";
                entry.set_cksum();
                fetched(stage, kernel_and(entry.as_bytes()))
            },
        ),
        row(
            "package-is-a-bomb",
            "a kernel package of a few MiB unpacks to seven GiB",
            UNPACKED,
            refused(&["unpacks to more than 2 GiB", "nothing was unpacked"]),
            |stage| {
                let mut data = kernel_and(&header("./usr/share/doc/bomb", EntryType::Regular, 7 << 30));
                let zeros = packed(&vec![0; 64 << 20]);
                (0..7 * 16).for_each(|_| data.extend(&zeros));
                fetched(stage, data)
            },
        ),
        row(
            "package-has-an-endless-name",
            "a file in a kernel package has a name of a gigabyte",
            UNPACKED,
            refused(&["has a name of more than 16 KiB", "nothing was unpacked"]),
            |stage| {
                let mut data = kernel_and(&header("././@LongLink", EntryType::GNULongName, 1 << 30));
                let letters = packed(&vec![b'x'; 64 << 20]);
                (0..16).for_each(|_| data.extend(&letters));
                fetched(stage, data)
            },
        ),
        row(
            "index-is-replayed",
            "an older index, which is signed, follows the one that was seen",
            SIGNED,
            Wanted::exit(&[0], &["kernels.lock is up to date"]),
            |stage| {
                let mirror = replaying(stage);
                mirror.lab(&["kernels", "update"], PATIENCE)
            },
        ),
        row(
            "index-is-replayed-to-a-new-cache",
            "an older index, which is signed, is given to a machine that saw none",
            SIGNED,
            Wanted::exit(&[0], &["it lags, or replays an old index", "kernels.lock is up to date"]),
            |stage| {
                let mirror = replaying(stage);
                std::fs::remove_dir_all(stage.scratch.join("cache")).expect("the cache of before");
                let mut seen = mirror.lab(&["kernels", "update"], PATIENCE);
                let lock = std::fs::read_to_string(mirror.project().join("kernels.lock")).unwrap_or_default();
                if !lock.contains("6.7.2") {
                    seen.wrong.push(format!("the lock has another kernel: {lock}"));
                }
                seen
            },
        ),
        row(
            "index-is-expired",
            "an index is signed, and its time is over",
            SIGNED,
            refused(&["is expired"]),
            |stage| {
                let mirror = Mirror::start(stage);
                let over = "Valid-Until: Tue, 02 Jan 2024 00:00:00 UTC\n";
                mirror.publish(&[Package { version: "6.7.1", data: small() }], over);
                mirror.lab(&["kernels", "update"], PATIENCE)
            },
        ),
        row(
            "index-is-signed-by-another",
            "an index is signed with another key than Debian's",
            SIGNED,
            refused(&["is not signed"]),
            |stage| {
                let mirror = Mirror::start(stage);
                mirror.change_key();
                mirror.publish(&[Package { version: "6.7.1", data: small() }], "");
                mirror.lab(&["kernels", "update"], PATIENCE)
            },
        ),
        row(
            "mirror-redirects-to-a-file",
            "a mirror redirects to a file of this machine",
            SIGNED,
            refused(&["error: "]),
            |stage| {
                let mirror = Mirror::start(stage);
                let key = format!("file://{}", stage.outside().join("key").display());
                mirror.publish(&[Package { version: "6.7.1", data: small() }], "");
                mirror.answer("Packages", Answer::Elsewhere(key.clone()));
                let seen = mirror.lab(&["kernels", "update"], PATIENCE);
                mirror.answer("InRelease", Answer::Elsewhere(key));
                let mut other = mirror.lab(&["kernels", "update"], PATIENCE);
                other.wrong.extend((seen.exit != Some(3)).then(|| format!("its index: {}", seen.printed)));
                other
            },
        ),
        row(
            "mirror-redirects-to-another-host",
            "a mirror redirects to a host that gives other bytes of the same size",
            SIGNED,
            refused(&["Hash Sum mismatch"]),
            |stage| {
                let (mirror, other) = (Mirror::start(stage), Mirror::start(stage));
                let data = small();
                mirror.publish(&[Package { version: "6.7.1", data: data.clone() }], "");
                let locked = mirror.lab(&["kernels", "update"], PATIENCE);
                assert_eq!(locked.exit, Some(0), "{}", locked.printed);
                let deb = Package { version: "6.7.1", data }.deb();
                other.answer(".deb", Answer::Bytes(Arc::new(vec![0; deb.len()])));
                mirror.answer(".deb", Answer::Elsewhere(other.address("pool/linux-image-6.7.1-cloud-amd64.deb")));
                mirror.lab(&["kernels", "fetch", "--all"], PATIENCE)
            },
        ),
        row(
            "mirror-hangs-up-half-way",
            "a mirror closes the connection in the middle of a package",
            SIGNED,
            refused(&["error: kernel 6.7: apt-get download ", "the connection ended early"]),
            |stage| {
                let mirror = Mirror::start(stage);
                let data = small();
                mirror.publish(&[Package { version: "6.7.1", data: data.clone() }], "");
                let locked = mirror.lab(&["kernels", "update"], PATIENCE);
                assert_eq!(locked.exit, Some(0), "{}", locked.printed);
                let deb = Package { version: "6.7.1", data }.deb();
                mirror.answer(".deb", Answer::Half(Arc::new(deb)));
                let seen = mirror.lab(&["kernels", "fetch", "--all"], PATIENCE);
                let kernels = stage.scratch.join("cache/kernels");
                let left = std::fs::read_dir(kernels).into_iter().flatten().flatten().map(|it| it.file_name());
                let left: Vec<_> = left.filter(|name| !name.to_string_lossy().starts_with(".lock")).collect();
                assert!(left.is_empty(), "{left:?}");
                seen
            },
        ),
        row("mirror-redirects-without-end", "a mirror redirects to itself", SIGNED, refused(&["error: "]), |stage| {
            let mirror = Mirror::start(stage);
            mirror.answer("InRelease", Answer::Elsewhere(mirror.address("dists/sid/InRelease")));
            mirror.lab(&["kernels", "update"], PATIENCE)
        }),
        row("index-without-end", "an index is longer than what was signed", SIGNED, refused(&["error: "]), |stage| {
            let mirror = Mirror::start(stage);
            mirror.publish(&[Package { version: "6.7.1", data: small() }], "");
            mirror.answer("Packages", Answer::Bytes(Arc::new(vec![b'\n'; 256 << 20])));
            mirror.lab(&["kernels", "update"], PATIENCE)
        }),
        row(
            "mirror-has-a-password",
            "a mirror's address has a password, and the mirror is not there",
            "An address's password is not printed",
            refused(&["error: "]).never(&["a-password-9d1f"]),
            |stage| {
                let mirror = Mirror::start(stage);
                let address = mirror.address("").replace("http://", "http://user:a-password-9d1f@");
                mirror.lab_at(&address, &["kernels", "update"], PATIENCE)
            },
        ),
    ]
}

/// A mirror that had 6.7.2, which is in the lock, and now has 6.7.1 with the signature of before.
fn replaying<'a>(stage: &'a Stage<'a>) -> Mirror<'a> {
    let mirror = Mirror::start(stage);
    mirror.publish_at("Mon, 02 Nov 2026 00:00:00 UTC", &[Package { version: "6.7.2", data: small() }], "");
    let locked = mirror.lab(&["kernels", "update"], PATIENCE);
    assert_eq!(locked.exit, Some(0), "{}", locked.printed);
    mirror.publish_at("Sun, 01 Nov 2026 00:00:00 UTC", &[Package { version: "6.7.1", data: small() }], "");
    mirror
}

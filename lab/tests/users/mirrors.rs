//! Mirrors, caches and tools that do not work: one error that says what to do, and nothing that looks installed.

use super::support::{lab, stderr, stdout};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    thread,
};

/// A server that answers every request with these bytes and closes the connection; its thread ends with this test's
/// process.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}/debian", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// Fetches a kernel from a mirror into a cache.
fn fetched(mirror: &str, cache: &Path) -> Output {
    let mut command = lab(&["kernels", "fetch", "--kernel", "6.12"]);
    command.env("NETKIT_LAB_DEBIAN_MIRROR", mirror).env("NETKIT_LAB_DEBIAN_SECURITY_MIRROR", mirror);
    command.env("NETKIT_LAB_CACHE", cache).env("no_proxy", "127.0.0.1").output().unwrap()
}

/// The one line that is an error.
fn error_of(output: &Output) -> String {
    let told = stderr(output);
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{told}");
    assert_eq!(output.status.code(), Some(3), "{told}");
    errors[0].to_owned()
}

#[test]
fn a_mirror_that_fails_is_one_error_with_advice() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 30\r\n\
                        Connection: close\r\n\r\n<html>Please log in</html>\n\n\n\n";
    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n\
                        -----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\n";
    // Nothing listens on a port that was just given back.
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    for (mirror, wanted) in [
        (format!("http://{free}/debian"), "the mirror can't be reached: check the network and the proxy"),
        (server(PAGE), "the answer is no package index, perhaps a page of a proxy or of a login"),
        (server(HALF), "the connection ended early, or the mirror is being updated: try again"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let error = error_of(&fetched(&mirror, cache.path()));
        assert!(error.starts_with("error: kernel 6.12: apt-get update of "), "{error}");
        assert!(error.contains(wanted) && error.contains(&mirror), "{error}");
        assert_no_kernel(cache.path());
    }
}

/// Nothing in the cache passes for a kernel.
fn assert_no_kernel(cache: &Path) {
    let entries = fs::read_dir(cache.join("kernels")).into_iter().flatten().flatten();
    let kernels: Vec<_> =
        entries.map(|it| it.file_name()).filter(|it| !it.to_string_lossy().starts_with('.')).collect();
    assert!(kernels.is_empty(), "{kernels:?}");
}

/// A file system that is mounted for the lab alone: this size, or read-only.
#[test]
fn a_cache_that_is_full_or_read_only_is_one_error_with_advice() {
    for (options, wanted) in [
        ("size=64k", "free some, or set NETKIT_LAB_CACHE to a larger disk"),
        // Enough for the index of the suite and not for the kernel.
        ("size=24m", "MiB needed): free some, or set NETKIT_LAB_CACHE to a larger disk"),
        ("ro", "can't be written to (Read-only file system (os error 30)): change that, or set NETKIT_LAB_CACHE"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let fetch = lab(&["kernels", "fetch", "--kernel", "6.12"]);
        let script = r#"mount -t tmpfs -o "$0" none "$1" && shift && exec "$@""#;
        let mut mounted = Command::new("unshare");
        mounted.args(["--map-root-user", "--mount", "sh", "-c", script, options]).arg(dir.path());
        mounted.arg(fetch.get_program()).args(fetch.get_args()).current_dir(super::support::ROOT);
        let error = error_of(&mounted.env("NETKIT_LAB_CACHE", dir.path()).output().unwrap());
        assert!(error.contains(wanted) && error.contains(dir.path().to_str().unwrap()), "{error}");
    }
}

/// As in the image of a container, which has no lists. Nothing listens at the proxy, so that the error names the mirror.
#[test]
fn a_mirror_is_found_on_a_host_that_has_read_no_lists() {
    let cache = tempfile::tempdir().unwrap();
    let fetch = lab(&["kernels", "fetch", "--kernel", "6.12"]);
    let mut bare = Command::new("unshare");
    let script = r#"mount -t tmpfs none /var/lib/apt/lists && exec "$@""#;
    bare.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(fetch.get_program());
    bare.args(fetch.get_args()).current_dir(super::support::ROOT).env("NETKIT_LAB_CACHE", cache.path());
    bare.env_remove("NETKIT_LAB_DEBIAN_MIRROR").env_remove("NETKIT_LAB_DEBIAN_SECURITY_MIRROR");
    for proxy in ["http_proxy", "https_proxy"] {
        bare.env(proxy, "http://127.0.0.1:9").env_remove("no_proxy");
    }
    let error = error_of(&bare.output().unwrap());
    assert!(error.starts_with("error: kernel 6.12: apt-get update of "), "{error}");
    assert!(error.contains("the mirror can't be reached"), "{error}");
}

#[test]
fn a_program_that_is_not_qemu_is_named_by_doctor_and_by_a_run() {
    let fix = "correct or unset NETKIT_LAB_QEMU";
    let doctor = lab(&["doctor"]).env("NETKIT_LAB_QEMU", "/bin/false").output().unwrap();
    let told = stdout(&doctor);
    assert_eq!(doctor.status.code(), Some(3), "{told}");
    assert!(told.contains("/bin/false") && told.contains(fix), "{told}");
    let out = tempfile::tempdir().unwrap();
    let mut run = lab(&["run", "--no-build", "--kernel", "6.12", "A01*", "--out"]);
    let error = error_of(&run.arg(out.path()).env("NETKIT_LAB_QEMU", "/bin/false").output().unwrap());
    assert!(error.starts_with("error: /bin/false: is not QEMU") && error.contains(fix), "{error}");
    assert!(fs::read_dir(out.path()).unwrap().next().is_none(), "a run that did not begin has no results");
}

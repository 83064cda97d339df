//! `lab pull` with a small server that speaks as KernelCI's queue does: a job runs on its kernel and its tests are submitted, and
//! each wrong answer is one error.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const KERNEL: &str = "6.17";
const TOKEN: &str = "secret-token";

/// What the server answers to a path.
enum Answer {
    Body(Vec<u8>),
    Status(&'static str),
    /// Bytes without an end.
    Endless,
}

/// A request that has a body.
struct Posted {
    path: String,
    authorization: String,
    body: Value,
}

struct Server {
    address: String,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl Server {
    /// Starts a server of the loopback device. `answers` get its address.
    fn start(answers: impl Fn(&str) -> Vec<(&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<BTreeMap<&str, Answer>> = Arc::new(answers(&address).into_iter().collect());
        let posted = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&posted);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answers, posted) = (Arc::clone(&answers), Arc::clone(&kept));
                // The client closes the connection where it has enough.
                thread::spawn(move || _ = serve(connection, &answers, &posted));
            }
        });
        Self { address, posted }
    }

    /// A queue with one job.
    fn with(job: impl Fn(&str) -> Value, kernel: Answer, modules: Vec<u8>) -> Self {
        let (kernel, modules) = (Mutex::new(Some(kernel)), Mutex::new(Some(modules)));
        Self::start(|address| {
            vec![
                ("/latest/events", body(&json!([event(address, "n1", "our-lab"), event(address, "n2", "other-lab")]))),
                ("/n1.json", body(&job(address))),
                ("/bzImage", kernel.lock().unwrap().take().unwrap()),
                ("/modules.tar", Answer::Body(modules.lock().unwrap().take().unwrap())),
                ("/submit", body(&json!({ "id": "1" }))),
            ]
        })
    }
}

fn body(value: &Value) -> Answer {
    Answer::Body(value.to_string().into_bytes())
}

fn serve(connection: TcpStream, answers: &BTreeMap<&str, Answer>, posted: &Mutex<Vec<Posted>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = || -> std::io::Result<String> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let request = line()?;
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = value.to_owned(),
            _ => {}
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    if length > 0 {
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap();
        posted.lock().unwrap().push(Posted { path: path.clone(), authorization, body });
    }
    let mut out = connection;
    match answers.get(&*path) {
        Some(Answer::Body(body)) => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
            out.write_all(body)
        }
        Some(Answer::Endless) => {
            write!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[")?;
            loop {
                out.write_all(&[b' '; 65536])?;
            }
        }
        Some(Answer::Status(status)) => {
            write!(out, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        None => write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

/// An event as KernelCI's API has it: with `recursive`, the whole node.
fn event(address: &str, id: &str, runtime: &str) -> Value {
    json!({
        "timestamp": "2026-11-26T02:00:00.000001",
        "sequence_id": 1,
        "data": { "op": "updated", "id": id, "kind": "job", "state": "available",
            "data": { "runtime": runtime, "platform": "qemu-x86" } },
        "node": {
            "id": id, "kind": "job", "name": "netkit-lab", "state": "available", "parent": "build1", "group": "pull-labs",
            "artifacts": { "job_definition": format!("{address}/{id}.json") },
            "data": { "runtime": runtime, "platform": "qemu-x86" },
        },
    })
}

/// A job definition, as the template of KernelCI's pull labs makes it.
fn job(address: &str, kernel: &[u8], modules: Option<&[u8]>, cases: &[&str]) -> Value {
    let sum = |bytes: &[u8]| lab_base::hex::hex(&Sha256::digest(bytes));
    let mut job = json!({
        "artifacts": { "kernel": format!("{address}/bzImage") },
        "tests": [{ "id": "netkit", "type": "netkit-lab", "depends": [], "timeout_s": 1800, "subset": cases,
            "pre-commands": [], "post-commands": [] }],
        "environment": { "platform": "qemu-x86", "arch": "x86_64", "console": { "method": "serial", "baud": 115200 } },
        "callback": { "url": format!("{address}/node/n1"), "token_name": "kernelci-pipeline-callback" },
        "integrity": { "sha256": { "kernel": sum(kernel) } },
    });
    if let Some(modules) = modules {
        job["artifacts"]["modules"] = json!(format!("{address}/modules.tar"));
        job["integrity"]["sha256"]["modules"] = json!(sum(modules));
    }
    job
}

/// Exit code and messages of `lab pull --once`.
fn pull(queue: &str, home: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args([
        "--project",
        ROOT,
        "pull",
        "--once",
        "--no-build",
        "--runtime",
        "our-lab",
        "--queue",
        queue,
        "--out",
    ]);
    let output = command.arg(home).args(more).env("KCIDB_JWT", TOKEN).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What the queue's job ends with; it must be one line, and nothing of the kernel may stay.
#[track_caller]
fn refused(server: &Server, wanted: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let queue = format!("{}/latest", server.address);
    let (code, said) = pull(&queue, home.path(), &["--submit", &format!("{}/submit", server.address)]);
    let said = said.replace(&server.address, "URL");
    let lines: Vec<&str> = said.lines().filter(|line| !line.ends_with("URL/n1.json")).collect();
    assert_eq!(code, Some(3), "{said}");
    assert!(matches!(lines[..], [line] if line.contains(wanted)), "one line with `{wanted}`: {said}");
    assert!(!home.path().join("n1/kernel").exists() && !home.path().join("answer").exists());
    assert!(server.posted.lock().unwrap().is_empty(), "nothing is submitted");
    home
}

const IMAGE: &[u8] = b"a kernel";

#[test]
fn a_kernel_with_another_hash_is_refused_once() {
    let server =
        Server::with(|address| job(address, IMAGE, None, &["A01*"]), Answer::Body(b"another".to_vec()), vec![]);
    let home = refused(&server, "job n1: URL/bzImage has the SHA-256 ");
    let again = pull(&format!("{}/latest", server.address), home.path(), &[]);
    assert_eq!(again, (Some(0), String::new()), "it is not tried again");
    assert!(home.path().join("since").exists(), "and its event is behind");
}

#[test]
fn a_kernel_that_is_not_there_or_has_no_hash_is_refused() {
    let gone = Server::with(|address| job(address, IMAGE, None, &[]), Answer::Status("404 Not Found"), vec![]);
    let home = refused(&gone, "job n1: can't fetch URL/bzImage: The requested URL returned error: 404");
    assert!(home.path().join("since").exists());
    let away =
        Server::with(|address| job(address, IMAGE, None, &[]), Answer::Status("503 Service Unavailable"), vec![]);
    let home = refused(&away, "job n1: can't fetch URL/bzImage: The requested URL returned error: 503");
    assert!(!home.path().join("since").exists(), "it may be there later: its event is asked for again");
    let (code, said) = pull(&format!("{}/latest", away.address), home.path(), &[]);
    assert!(code == Some(3) && said.contains("error: 503"), "it is tried again: {said}");
    let without = |address: &str| {
        let mut job = job(address, IMAGE, None, &[]);
        job["integrity"] = Value::Null;
        job
    };
    let server = Server::with(without, Answer::Body(IMAGE.to_vec()), vec![]);
    refused(&server, "job n1: the job can't be run here: integrity.sha256 has no hash of its kernel");
    let arm = |address: &str| {
        let mut job = job(address, IMAGE, None, &[]);
        job["environment"]["arch"] = json!("arm64");
        job
    };
    let server = Server::with(arm, Answer::Body(IMAGE.to_vec()), vec![]);
    refused(&server, "job n1: the job can't be run here: it is for arm64, and guests are x86_64");
}

#[test]
fn a_file_that_is_no_kernel_is_refused() {
    let server = Server::with(|address| job(address, IMAGE, None, &["A01*"]), Answer::Body(IMAGE.to_vec()), vec![]);
    let home = tempfile::tempdir().unwrap();
    let (code, said) = pull(&format!("{}/latest", server.address), home.path(), &[]);
    assert_eq!(code, Some(3), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("job n1: ")).collect();
    assert!(matches!(lines[..], [_, line] if line.contains("bzImage")), "{said}");
}

#[test]
fn what_is_no_queue_is_one_error() {
    let page = || Answer::Body(b"<!DOCTYPE html><html><body>Sign in</body></html>".to_vec());
    let html = Server::start(|_| vec![("/latest/events", page())]);
    refused(&html, "is not a list of events: expected value at line 1 column 1; it begins with `<!DOCTYPE html>");
    let definition = Server::start(|address| {
        vec![("/latest/events", body(&json!([event(address, "n1", "our-lab")]))), ("/n1.json", page())]
    });
    refused(&definition, "job n1: URL/n1.json is not a job definition: expected value");
    let endless = Server::start(|_| vec![("/latest/events", Answer::Endless)]);
    refused(&endless, "has more than 16 MiB, the most for a list of events");
    let hostile = Server::start(|address| vec![("/latest/events", body(&json!([event(address, "../n1", "our-lab")])))]);
    refused(&hostile, "event 1 of URL/latest/events");
    let failing = Server::start(|_| vec![("/latest/events", Answer::Status("503 Service Unavailable"))]);
    refused(&failing, "The requested URL returned error: 503");

    let home = tempfile::tempdir().unwrap();
    let (code, said) = pull("file:///etc", home.path(), &[]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("is no http or https address without spaces"), "{said}");
}

/// A kernel of the cache, and its modules as KernelCI packs them.
fn kernel(scratch: &Path) -> (Vec<u8>, Vec<u8>) {
    let fetched =
        Command::new(env!("CARGO_BIN_EXE_lab")).args(["--project", ROOT, "kernels", "fetch", "-k", KERNEL]).output();
    let said = String::from_utf8(fetched.unwrap().stdout).unwrap();
    let image = PathBuf::from(said.trim_end().rsplit(" at ").next().unwrap());
    let kept = fs::read_to_string(image.with_file_name("meta.toml")).unwrap();
    let release = kept.lines().find_map(|line| line.strip_prefix("release = \"")?.strip_suffix('"')).unwrap();
    let archive = scratch.join("modules.tar");
    let named = format!("--transform=s,^\\.,lib/modules/{release},");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(image.with_file_name("modules")).arg(named).arg("-cf").arg(&archive).arg(".");
    let packed = tar.status().unwrap();
    assert!(packed.success());
    (fs::read(image).unwrap(), fs::read(archive).unwrap())
}

#[test]
fn a_job_runs_on_its_kernel_and_its_tests_are_submitted_once() {
    let home = tempfile::tempdir().unwrap();
    let (image, modules) = kernel(home.path());
    let definition = {
        let (image, modules) = (image.clone(), modules.clone());
        move |address: &str| job(address, &image, Some(&modules), &["A01*"])
    };
    let server = Server::with(definition, Answer::Body(image), modules);
    let (queue, submit) = (format!("{}/latest", server.address), format!("{}/submit", server.address));
    let place = home.path().join("jobs");
    // The first submission fails: the run is not repeated for that.
    let (code, said) = pull(&queue, &place, &["--submit", &format!("{}/nowhere", server.address)]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.lines().any(|line| line.starts_with("job n1: ") && line.contains("/nowhere")), "{said}");
    server.posted.lock().unwrap().clear();
    let (code, said) = pull(&queue, &place, &["--submit", &submit]);
    assert_eq!((code, &*said), (Some(0), "job n1: submitted\n"));

    let posted = server.posted.lock().unwrap();
    let [posted] = &posted[..] else { panic!("{} submissions", posted.len()) };
    assert_eq!((&*posted.path, &*posted.authorization), ("/submit", &*format!("Bearer {TOKEN}")));
    let tests = posted.body["tests"].as_array().unwrap();
    assert!(posted.body.get("builds").is_none(), "KernelCI has submitted the build itself");
    assert!(tests.iter().all(|test| test["build_id"] == "maestro:build1" && test["misc"]["job"] == "n1"));
    let of_cells: Vec<_> = tests.iter().filter(|test| test["id"].as_str().unwrap().contains("/A01")).collect();
    assert!(!of_cells.is_empty() && of_cells.iter().any(|test| test["status"] == "PASS"), "{:#}", posted.body);
    assert!(of_cells.iter().all(|test| test["status"] == "PASS" || test["status"] == "SKIP"), "{:#}", posted.body);
    drop(of_cells);
    let kept: Vec<_> = fs::read_dir(&place).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(kept.iter().all(|name| name == "n1" || name == "since"), "the other lab's job is not touched: {kept:?}");
    assert_eq!(pull(&queue, &place, &["--submit", &submit]), (Some(0), String::new()));
}

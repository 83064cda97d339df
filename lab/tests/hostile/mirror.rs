//! A mirror of Debian on the loopback interface, with a key of its own in the place of Debian's.

use crate::stage::{Seen, Stage};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long a client may take for its request.
const REQUEST: Duration = Duration::from_secs(5);

/// An answer to the requests of some files.
#[derive(Clone)]
pub enum Answer {
    /// The file.
    Bytes(Arc<Vec<u8>>),
    /// A redirection.
    Elsewhere(String),
    /// The first half of the file, and then the connection is closed.
    Half(Arc<Vec<u8>>),
}

/// A kernel package.
pub struct Package {
    /// The kernel's version.
    pub version: &'static str,
    /// The archive of its files, compressed by gzip.
    pub data: Vec<u8>,
}

impl Package {
    /// The package (deb(5)): an archive of three members.
    pub fn deb(&self) -> Vec<u8> {
        let mut control = GzEncoder::new(Vec::new(), Compression::fast());
        control.write_all(&[0; 1024]).expect("memory");
        let control = control.finish().expect("memory");
        let mut deb = b"!<arch>\n".to_vec();
        for (name, bytes) in
            [("debian-binary", &b"2.0\n"[..]), ("control.tar.gz", &control), ("data.tar.gz", &self.data)]
        {
            writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len()).expect("memory");
            deb.extend(bytes);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        deb
    }
}

/// The server, and the project that fetches its kernels there.
pub struct Mirror<'a> {
    stage: &'a Stage<'a>,
    port: u16,
    /// Answers by the end of the path; the last one that fits counts.
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
    ends: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl<'a> Mirror<'a> {
    /// Starts a server without files.
    pub fn start(stage: &'a Stage<'a>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (answers, ends) = (Arc::<Mutex<Vec<(String, Answer)>>>::default(), Arc::new(AtomicBool::new(false)));
        let (known, over) = (Arc::clone(&answers), Arc::clone(&ends));
        let server = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever hangs up early has what it wanted.
                let _ = serve(stream, &known);
            }
        });
        let mirror = Self { stage, port, answers, ends, server: Some(server) };
        let project = mirror.project();
        if !project.exists() {
            fs::create_dir(&project).expect("a directory");
            let matrix = "[kernels.\"6.7\"]\nclass = \"6.7+\"\ndefault = true\n\
                          source.deb = { suite = \"sid\", package = \"linux-image-6.7.*-cloud-amd64\" }\n";
            fs::write(project.join("kernels.toml"), matrix).expect("a file");
            mirror.change_key();
            let mut export = mirror.gpg(&["--export"]);
            let keyring = export.stdout(fs::File::create(stage.scratch.join("keyring.gpg")).expect("a file"));
            assert!(keyring.status().expect("gpg starts").success());
            mirror.stop_agent();
        }
        mirror
    }

    /// The project.
    pub fn project(&self) -> PathBuf {
        self.stage.scratch.join("project")
    }

    fn gpg(&self, arguments: &[&str]) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--yes", "--pinentry-mode=loopback", "--passphrase="]).args(arguments);
        gpg.env("GNUPGHOME", self.stage.scratch.join("gnupg")).stdin(Stdio::null());
        gpg
    }

    /// gpg starts an agent, which would outlive this test.
    fn stop_agent(&self) {
        let mut end = Command::new("gpgconf");
        end.args(["--kill", "all"]).env("GNUPGHOME", self.stage.scratch.join("gnupg"));
        assert!(end.status().expect("gpgconf starts").success());
    }

    /// From here on everything is signed with a new key; the lab trusts the first one.
    pub fn change_key(&self) {
        use std::os::unix::fs::DirBuilderExt;
        let home = self.stage.scratch.join("gnupg");
        let _ = fs::remove_dir_all(&home);
        fs::DirBuilder::new().mode(0o700).create(&home).expect("a directory");
        let made = self.gpg(&["--quick-generate-key", "archive@debian.example", "ed25519", "sign", "never"]).output();
        let made = made.expect("gpg starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.stop_agent();
    }

    /// Publishes packages, with further lines in the index's description.
    pub fn publish(&self, packages: &[Package], lines: &str) {
        self.publish_at("Mon, 01 Jan 2024 00:00:00 UTC", packages, lines);
    }

    /// As [`Self::publish`], with a date.
    pub fn publish_at(&self, date: &str, packages: &[Package], lines: &str) {
        let mut index = String::new();
        for package in packages {
            let (deb, version) = (package.deb(), package.version);
            let name = format!("linux-image-{version}-cloud-amd64");
            let (file, sum, size) = (format!("pool/{name}.deb"), sha256(&deb), deb.len());
            index.push_str(&format!(
                "Package: {name}\nVersion: {version}-1\nArchitecture: amd64\nMaintainer: n <n@n.example>\n\
                 Filename: {file}\nSize: {size}\nSHA256: {sum}\nDescription: a kernel\n\n"
            ));
            self.answer(&file, Answer::Bytes(Arc::new(deb)));
        }
        let (sum, size) = (sha256(index.as_bytes()), index.len());
        let release = format!(
            "Origin: Debian\nLabel: Debian\nSuite: unstable\nCodename: sid\nDate: {date}\n{lines}Architectures: amd64\n\
             Components: main\nSHA256:\n {sum} {size} main/binary-amd64/Packages\n"
        );
        let path = self.stage.scratch.join("Release");
        fs::write(&path, release).expect("a file");
        let signed = self.gpg(&["--clearsign", "--output", "-", path.to_str().expect("a path of this test")]).output();
        let signed = signed.expect("gpg starts");
        self.stop_agent();
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        self.answer("dists/sid/InRelease", Answer::Bytes(Arc::new(signed.stdout)));
        self.answer("main/binary-amd64/Packages", Answer::Bytes(Arc::new(index.into_bytes())));
    }

    /// From here on requests of paths with this end are answered so.
    pub fn answer(&self, end: &str, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((end.to_owned(), answer));
    }

    /// The address of a file.
    pub fn address(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/{file}", self.port)
    }

    /// The program in its project, with this mirror.
    pub fn lab(&self, arguments: &[&str], patience: Duration) -> Seen {
        self.lab_at(&self.address(""), arguments, patience)
    }

    /// The same with another address. Only the program and its children see the other keyring, and no settings of the
    /// host's apt.
    pub fn lab_at(&self, address: &str, arguments: &[&str], patience: Duration) -> Seen {
        let mut command = Command::new("unshare");
        let root = nix::unistd::geteuid().is_root();
        command.args(if root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
        let script = r#"mount --bind "$1" "$2" && mount -t tmpfs none /etc/apt && shift 2 && exec "$@""#;
        command.args(["sh", "-c", script, "sh"]).arg(self.stage.scratch.join("keyring.gpg")).arg(KEYRING);
        command.arg(env!("CARGO_BIN_EXE_lab")).arg("--project").arg(self.project()).args(arguments);
        let mut command = self.stage.dressed(command);
        command.env("NETKIT_LAB_DEBIAN_MIRROR", address).env("no_proxy", "127.0.0.1");
        self.stage.finish(command, patience)
    }
}

impl Drop for Mirror<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // The server waits for a request.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    lab_base::hex::hex(&Sha256::digest(bytes))
}

fn serve(mut stream: TcpStream, answers: &Mutex<Vec<(String, Answer)>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST))?;
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    lines.find(|line| line.as_ref().map_or(true, String::is_empty));
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let found = {
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().rev().find(|(end, _)| path.ends_with(&**end)).map(|(_, answer)| answer.clone())
    };
    match found {
        Some(Answer::Bytes(bytes)) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
            stream.write_all(&bytes)
        }
        Some(Answer::Half(bytes)) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
            stream.write_all(&bytes[..bytes.len() / 2])
        }
        Some(Answer::Elsewhere(place)) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        None => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

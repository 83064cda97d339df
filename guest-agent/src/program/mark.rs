//! Marks that a program makes: `/run/lab/mark NAME` in its root asks the agent, which reads the state of the kernel and answers once
//! it has.

use lab_harness::{Netns, witness::Marker};
use lab_protocol::witness::{MARK_SOCKET, MARKER, MARKS};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{Shutdown, shutdown},
};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Bytes of a name.
const LONGEST: usize = 64;
/// Time in which a client says what it wants.
const ASKED_WITHIN: Duration = Duration::from_secs(1);
/// Time in which the agent listens to a program that has just started.
const LISTENS_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at whether the program has ended, milliseconds.
const LOOK: u16 = 50;
/// Between two attempts to reach the agent.
const POLL: Duration = Duration::from_millis(10);

/// Listens while a program runs.
pub struct MarkServer {
    stop: Arc<AtomicBool>,
    /// The listener, to wake the thread.
    bell: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl MarkServer {
    /// Listens at the socket of a root, which is at `at` in the agent's own.
    ///
    /// # Errors
    /// The socket or a thread can't be made.
    pub fn listen(at: &Path, marker: Marker) -> io::Result<Self> {
        if let Some(directory) = at.parent() {
            fs::create_dir_all(directory)?;
        }
        // Of a program before this one.
        let _ = fs::remove_file(at);
        let listener = UnixListener::bind(at)?;
        listener.set_nonblocking(true)?;
        // Whoever the program runs as.
        fs::set_permissions(at, fs::Permissions::from_mode(0o666))?;
        let (stop, bell) = (Arc::new(AtomicBool::new(false)), listener.try_clone()?);
        let thread = {
            let stop = Arc::clone(&stop);
            thread::Builder::new().name("marks".into()).spawn(move || serve(&listener, &marker, &stop))?
        };
        Ok(Self { stop, bell, thread: Some(thread) })
    }
}

impl Drop for MarkServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Nobody can connect any more, and the thread sees that at once. If it fails, the thread looks soon.
        let _ = shutdown(self.bell.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, marker: &Marker, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(LOOK));
        if let Ok((client, _)) = listener.accept() {
            // A client that goes away has its mark, or none.
            let _ = answer(client, marker);
        }
    }
}

fn answer(mut client: UnixStream, marker: &Marker) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(ASKED_WITHIN))?;
    let mut line = String::new();
    BufReader::new((&client).take(LONGEST as u64 + 1)).read_line(&mut line)?;
    let name = line.trim_end_matches('\n');
    let answer = match checked(name) {
        Ok(()) => match marker.mark(name, &Netns::living().unwrap_or_default()) {
            Some(changes) => format!("{changes}\n"),
            None => format!("error: there are {} marks: no more are kept\n", MARKS - 1),
        },
        Err(problem) => format!("error: {problem}\n"),
    };
    client.write_all(answer.as_bytes())
}

fn checked(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a mark needs a name".to_owned()),
        "end" => Err("`end` is the mark at the end of the command: choose another name".to_owned()),
        name if name.len() > LONGEST => Err(format!("the mark's name is longer than {LONGEST} bytes")),
        name if name.chars().any(char::is_control) => Err("the mark's name has control characters".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the program was started under the name of the marker.
pub fn is_meant(name: &str) -> bool {
    Path::new(name).file_name() == Path::new(MARKER).file_name()
}

/// The marker itself: `mark NAME`.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let [name] = &arguments[..] else {
        eprintln!("mark: one name is wanted: {MARKER} NAME");
        return ExitCode::from(2);
    };
    let asked = checked(name).and_then(|()| ask(name));
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("mark {name:?}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn ask(name: &str) -> Result<(), String> {
    let begin = Instant::now();
    let mut agent = loop {
        match UnixStream::connect(MARK_SOCKET) {
            Ok(agent) => break agent,
            Err(_) if begin.elapsed() < LISTENS_WITHIN => thread::sleep(POLL),
            Err(error) => {
                return Err(format!(
                    "no witness watches this command ({MARK_SOCKET}: {error}): --witness off takes it away"
                ));
            }
        }
    };
    let failed = |error: io::Error| format!("the guest's agent: {error}");
    agent.write_all(format!("{name}\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    agent.read_to_string(&mut answer).map_err(failed)?;
    match answer.trim_end().strip_prefix("error: ") {
        Some(problem) => Err(problem.to_owned()),
        None if answer.is_empty() => Err("the guest's agent did not answer".to_owned()),
        None => Ok(()),
    }
}

//! Questions of a program to the agent: a Unix socket in the program's root, which takes a line and answers it.

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
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Bytes of a question.
pub const LONGEST: usize = 64;
/// Time in which a client says what it wants.
const ASKED_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at whether the program has ended, milliseconds.
const LOOK: u16 = 50;

/// Answers while a program runs.
pub struct AskedServer {
    stop: Arc<AtomicBool>,
    /// The listener, to wake the thread.
    bell: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl AskedServer {
    /// Listens at the socket of a root, which is at `at` in the agent's own. An answer that takes its time looks at its second
    /// argument, which says that the program has ended.
    ///
    /// # Errors
    /// The socket or a thread can't be made.
    pub fn listen(at: &Path, answer: impl Fn(&str, &AtomicBool) -> String + Send + 'static) -> io::Result<Self> {
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
            thread::Builder::new().name("asked".into()).spawn(move || serve(&listener, &answer, &stop))?
        };
        Ok(Self { stop, bell, thread: Some(thread) })
    }
}

impl Drop for AskedServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Nobody can connect any more, and the thread sees that at once. If it fails, the thread looks soon.
        let _ = shutdown(self.bell.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, answer: &impl Fn(&str, &AtomicBool) -> String, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(LOOK));
        if let Ok((client, _)) = listener.accept() {
            // A client that goes away has its answer, or none.
            let _ = serve_one(client, answer, stop);
        }
    }
}

fn serve_one(
    mut client: UnixStream,
    answer: &impl Fn(&str, &AtomicBool) -> String,
    stop: &AtomicBool,
) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(ASKED_WITHIN))?;
    let mut line = String::new();
    BufReader::new((&client).take(LONGEST as u64 + 1)).read_line(&mut line)?;
    client.write_all(answer(line.trim_end_matches('\n'), stop).as_bytes())
}

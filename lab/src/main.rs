//! The `lab` command.

use lab::cli::{self, Cli};
use lab_record::exit::Exit;
use std::process::ExitCode;

/// In a merge of a large run one thread frees what another one has allocated, for which glibc's allocator takes a lock. With this
/// allocator the merge takes 0.82 of the time (docs/speed.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lab_guard::private::restrict_umask();
    let exit = match Cli::read() {
        Ok(cli) => cli::ended(cli.execute()),
        Err(error) => {
            // --help and --version are not errors; clap chooses the stream.
            let _ = error.print();
            if error.use_stderr() { Cli::misused(std::env::args_os()) } else { Exit::Passed }
        }
    };
    ExitCode::from(exit.code())
}

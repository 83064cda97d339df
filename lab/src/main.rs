//! The `lab` command.

use lab::cli::{self, Cli};
use lab_record::exit::Exit;
use std::process::ExitCode;

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

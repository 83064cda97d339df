//! Runs a plan without the command line, as `lab run --kernel KERNEL --case PATTERN` does, and prints a line per cell.
//!
//! `cargo run -p lab --example run_plan -- 6.12 'A01-*'`, in a directory with `kernels.toml`.

use lab::{
    error::Error,
    guests::{Guests, Order},
    project::{
        Project,
        filter::{CellFilter, KernelFilter},
        select::select,
    },
};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let (Some(kernel), Some(case)) = (words.next(), words.next()) else {
        eprintln!("usage: run_plan KERNEL PATTERN");
        return ExitCode::from(2);
    };
    match run(&kernel, case) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("run_plan: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(kernel: &str, case: String) -> Result<u8, Error> {
    let project = Project::open(None)?;
    let kernels = project.kernels(&KernelFilter::of(kernel))?;
    let selected = select(&project, &CellFilter { case: vec![case], ..CellFilter::default() })?;
    // Boots the kernel, runs the cells, and writes every report below results/.
    let done = Guests::execute(&project, &kernels, selected, Order::default(), false, |plan| plan)?;
    for (kernel, cell, verdict) in done.record.verdicts() {
        println!("{} {}: {:?}", kernel.facts.id, cell.id, verdict.standing());
    }
    println!("{}; reports in {}", done.record.counts().line(), done.name.display());
    Ok(done.record.exit().code())
}

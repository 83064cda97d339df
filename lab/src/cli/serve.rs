//! `lab serve`: holds guests ready for runs.

use crate::{
    error::Error,
    project::Project,
    serve::{GuestServer, Limits},
};
use clap::Args;
use lab_base::{interrupt::Interrupt, say::say};
use lab_record::exit::Exit;
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Guests that are held of each kernel.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    guests: u8,
    /// Guests that are held in all. Each takes 100 to 300 MiB.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=64))]
    most: u8,
    /// Minutes without a run on a kernel after which its guests are ended.
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
}

pub(super) fn serve(named: Option<PathBuf>, args: &ServeArgs) -> Result<Exit, Error> {
    if args.most < args.guests {
        let why = format!("--most {} is less than --guests {}: give at least as many", args.most, args.guests);
        return Err(Error::Usage(why));
    }
    let project = Project::open(named)?;
    let interrupt = Interrupt::install().map_err(Error::file("watch", "signals"))?;
    let limits = Limits {
        guests: args.guests.into(),
        most: args.most.into(),
        idle: Duration::from_secs(u64::from(args.idle) * 60),
    };
    let cache = project.cache.root().to_owned();
    // It would keep the cache from being pruned for as long as it waits. What its guests use is open or mapped.
    drop(project);
    let server = GuestServer::new(&cache, limits, interrupt, &say)?;
    say("guests are made ready after each `lab run` and `lab exec`; Ctrl-C ends it");
    server.serve();
    // A signal is how it is meant to end.
    Ok(Exit::Passed)
}

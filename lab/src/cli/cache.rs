//! `lab cache` and `lab cache prune`.

use super::args::OutputArgs;
use crate::{
    cache::{self, CacheEntry, CacheKind, CachePolicy, bytes},
    error::Error,
    project,
};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use lab_base::file::FileError;
use lab_kernel_store::Cache;
use lab_record::exit::Exit;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// `lab cache`.
#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Show every entry, not only the sums.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: Option<CacheCommand>,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Remove entries until the cache is within the limits of lab.toml, least recently used first. Runs also do this
    /// when they end.
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
struct PruneArgs {
    /// Maximum size in GiB, instead of the value in lab.toml; 0 removes everything except what `lab setup` installed.
    #[arg(long, value_name = "N")]
    max_gib: Option<u32>,
    /// Days without use after which an entry is removed, instead of the value in lab.toml.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..36_501))]
    days: Option<u32>,
    /// Remove all entries of this kind and nothing else; `lab cache` shows the kinds.
    #[arg(long, value_name = "KIND", conflicts_with_all = ["max_gib", "days"], value_parser = kind)]
    kind: Option<CacheKind>,
    /// Only show which entries would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

fn kind(text: &str) -> Result<CacheKind, String> {
    let names = CacheKind::ALL.map(CacheKind::name).join(", ");
    let found = CacheKind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("`{text}` is not a kind of cache entry (expected: {names})"))
}

pub(super) fn cache(named: Option<PathBuf>, args: &CacheArgs) -> Result<Exit, Error> {
    let root = project::root(named)?;
    let policy = CachePolicy::load(&root)?;
    let cache = Cache::open()?;
    match &args.command {
        Some(CacheCommand::Prune(prune)) => pruned(&cache, policy, prune),
        None => list(&cache, policy, args),
    }
}

fn list(cache: &Cache, policy: CachePolicy, args: &CacheArgs) -> Result<Exit, Error> {
    let entries = cache::entries(cache.root());
    args.output
        .show("cache", &to_json(cache.root(), policy, &entries), || text(cache.root(), policy, &entries, args.all))?;
    Ok(Exit::Passed)
}

fn text(root: &Path, policy: CachePolicy, entries: &[CacheEntry], all: bool) -> String {
    let total: u64 = entries.iter().filter(|entry| entry.kind.removable()).map(|entry| entry.size).sum();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kind", "entries", "size", "last used", "what"]);
    for kind in CacheKind::ALL {
        let of: Vec<&CacheEntry> = entries.iter().filter(|entry| entry.kind == kind).collect();
        let size = of.iter().map(|entry| entry.size).sum();
        let used = of.iter().map(|entry| entry.used).max().map_or_else(|| "-".to_owned(), age);
        table.add_row([kind.name(), &of.len().to_string(), &bytes(size), &used, kind.words()]);
        for entry in of.into_iter().filter(|_| all) {
            table.add_row([&*format!("  {}", entry.name), "", &bytes(entry.size), &age(entry.used), ""]);
        }
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}: {} ({policy})\n{table}\n", root.display(), bytes(total))
}

fn to_json(root: &Path, policy: CachePolicy, entries: &[CacheEntry]) -> serde_json::Value {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let entry = |entry: &CacheEntry| {
        json!({
            "kind": entry.kind.name(),
            "name": entry.name,
            "bytes": entry.size,
            "used": seconds(entry.used),
            "removable": entry.kind.removable(),
        })
    };
    json!({
        "cache": root,
        "max_bytes": policy.size,
        "max_days": policy.days,
        "entries": entries.iter().map(entry).collect::<Vec<_>>(),
    })
}

fn pruned(cache: &Cache, policy: CachePolicy, args: &PruneArgs) -> Result<Exit, Error> {
    let size = args.max_gib.map_or(policy.size, |gib| u64::from(gib) << 30);
    let policy = CachePolicy { size, days: args.days.unwrap_or(policy.days) };
    let pruned = cache::prune(cache, policy, args.kind, args.dry_run)?;
    if pruned.busy {
        let path = cache.root().to_owned();
        let cause = std::io::Error::other("another lab process is using the cache: wait until it has finished");
        return Err(FileError { action: "prune", path, cause }.into());
    }
    let gone = || pruned.verdicts.iter().filter_map(|verdict| Some((&verdict.entry, verdict.goes?.to_string())));
    let (count, size) = pruned.gone();
    let stay = pruned.verdicts.len() - count;
    let entry = |(entry, why): (&CacheEntry, String)| json!({ "kind": entry.kind.name(), "name": entry.name, "bytes": entry.size, "why": why });
    let told = json!({ "dry_run": args.dry_run, "gone": gone().map(entry).collect::<Vec<_>>(), "stay": stay });
    args.output.show("cache", &told, || {
        let word = if args.dry_run { "would go" } else { "removed" };
        let lines = gone().map(|(entry, why)| format!("{word} {}: {}, {why}\n", entry.name, bytes(entry.size)));
        lines.collect::<String>() + &format!("{stay} entries stay, {count} {word}, {} ({policy})\n", bytes(size))
    })?;
    Ok(Exit::Passed)
}

/// The time since an entry's last use, as text.
fn age(used: SystemTime) -> String {
    let age = SystemTime::now().duration_since(used).unwrap_or_default();
    let units = [
        (Duration::from_secs(86_400), "day"),
        (Duration::from_secs(3600), "hour"),
        (Duration::from_secs(60), "minute"),
    ];
    let told = units.into_iter().find_map(|(unit, word)| match age.as_secs() / unit.as_secs() {
        0 => None,
        1 => Some(format!("1 {word} ago")),
        count => Some(format!("{count} {word}s ago")),
    });
    told.unwrap_or_else(|| "just now".to_owned())
}

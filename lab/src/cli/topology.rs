//! `lab topology`.

use super::args::OutputArgs;
use crate::{
    error::Error,
    project::{Project, agent_listing},
};
use clap::Subcommand;
use lab_base::{
    say::{say, show},
    selection::NoMatch,
};
use lab_protocol::{
    LinkKind,
    drawing::{Drawing, TopologyInfo},
};
use lab_record::exit::Exit;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum TopologyCommand {
    /// List every topology with the kinds of link that its workloads can have.
    List(OutputArgs),
    /// Draw a topology.
    Show {
        /// Its name.
        name: String,
        /// Kind of the workloads' link: veth, nk-l2 or nk-l3.
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Also write the drawing as SVG.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

pub(super) fn topology(named: Option<PathBuf>, command: TopologyCommand) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    let agent = project.builder().agent()?;
    let library = agent_listing::topologies(&agent, &project.facts_kept())?;
    match command {
        TopologyCommand::List(output) => output.show("topologies", &library, || list(&library))?,
        TopologyCommand::Show { name, kind, svg } => {
            let drawing = find(&library, &name, kind.as_deref())?;
            if let Some(path) = &svg {
                std::fs::write(path, &drawing.svg).map_err(Error::file("write", path))?;
                say(&format!("drawn to {}", path.display()));
            }
            show(format_args!("{}\n", drawing.text))?;
        }
    }
    Ok(Exit::Passed)
}

fn list(library: &[TopologyInfo]) -> String {
    let width = library.iter().map(|topology| topology.name.len()).max().unwrap_or(0);
    let line = |topology: &TopologyInfo| {
        let kinds: Vec<&str> = kinds(topology).map(LinkKind::name).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        format!("{:width$}  {}{kinds}\n", topology.name, topology.title)
    };
    library.iter().map(line).collect()
}

fn kinds(topology: &TopologyInfo) -> impl Iterator<Item = LinkKind> {
    topology.drawings.iter().filter_map(|drawing| drawing.kind)
}

/// The drawing of a topology with the given kind, or its first drawing.
pub(super) fn find<'a>(library: &'a [TopologyInfo], name: &str, kind: Option<&str>) -> Result<&'a Drawing, Error> {
    let Some(topology) = library.iter().find(|topology| topology.name == name) else {
        let names: Vec<&str> = library.iter().map(|topology| &*topology.name).collect();
        return Err(NoMatch::of_few("topology", name, &names).into());
    };
    let fits = |drawing: &&Drawing| kind.is_none_or(|kind| drawing.kind.is_some_and(|own| own.name() == kind));
    topology.drawings.iter().find(fits).ok_or_else(|| {
        let known: Vec<&str> = kinds(topology).map(LinkKind::name).collect();
        let kind = kind.unwrap_or_default();
        match known.is_empty() {
            true => Error::Usage(format!("`{name}` has no links of different kinds: remove --kind {kind}")),
            false => NoMatch::of_few("kind of link", kind, &known).into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library() -> Vec<TopologyInfo> {
        let drawing = |kind| Drawing { kind, text: format!("{kind:?}"), svg: String::new() };
        let varying = LinkKind::ALL.map(|kind| drawing(Some(kind))).to_vec();
        vec![
            TopologyInfo { name: "solo".into(), title: "One node.".into(), drawings: vec![drawing(None)] },
            TopologyInfo { name: "pair".into(), title: "Two.".into(), drawings: varying },
        ]
    }

    #[test]
    fn the_list_names_kinds_if_there_are_several() {
        assert_eq!(list(&library()), "solo  One node.\npair  Two. (veth, nk-l2, nk-l3)\n");
    }

    #[test]
    fn errors_about_name_or_kind_list_the_valid_ones() {
        let library = library();
        assert_eq!(find(&library, "pair", Some("nk-l3")).unwrap().kind, Some(LinkKind::NetkitL3));
        assert_eq!(find(&library, "pair", None).unwrap().kind, Some(LinkKind::Veth));
        let error = find(&library, "pairs", None).unwrap_err().to_string();
        assert!(error.contains("pairs") && error.contains("pair"), "{error}");
        let error = find(&library, "pair", Some("ipvlan")).unwrap_err().to_string();
        assert!(error.contains("ipvlan") && error.contains("nk-l2"), "{error}");
    }
}

//! What an agent says about itself when it runs on the host.

use super::artifacts::ArtifactError;
use lab_base::{facts::Facts, text};
use lab_protocol::{Listing, PROTOCOL_VERSION, drawing::TopologyInfo};
use std::path::Path;

/// Asks the agent for its cells; it also runs on the host.
///
/// # Errors
/// The agent does not start, its output is not a listing, or it uses another protocol version.
pub fn listing(agent: &Path, facts: &Facts) -> Result<Listing, ArtifactError> {
    let wrong = |problem: String| ArtifactError::Listing { agent: agent.to_owned(), problem };
    let text = said(agent, "--list", facts)?;
    let listing: Listing =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not a listing: {}", text::reason(&error))))?;
    if listing.protocol != PROTOCOL_VERSION {
        return Err(wrong(format!(
            "uses protocol {}, but this lab uses {PROTOCOL_VERSION}; rebuild the agent (run without --no-build)",
            listing.protocol
        )));
    }
    Ok(listing)
}

/// Asks the agent for its library of topologies.
///
/// # Errors
/// The agent does not start, or its output is invalid.
pub fn topologies(agent: &Path, facts: &Facts) -> Result<Vec<TopologyInfo>, ArtifactError> {
    let wrong = |problem: String| ArtifactError::Listing { agent: agent.to_owned(), problem };
    let text = said(agent, "--topologies", facts)?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("not a list of topologies: {}", text::reason(&error))))
}

/// What the agent prints: what it printed last, if its file has not changed. It is a static program that reads nothing.
fn said(agent: &Path, about: &str, facts: &Facts) -> Result<String, ArtifactError> {
    let wrong = |error: std::io::Error| ArtifactError::Listing { agent: agent.to_owned(), problem: error.to_string() };
    facts.of_files(&format!("agent {about}"), &[agent], || duct::cmd!(agent, about).stdin_null().read().map_err(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_listing_of_another_protocol_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        let write = |answer: &str| {
            fs::write(&agent, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
            fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
            listing(&agent, &Facts::below(dir.path()))
        };
        assert!(write("hello").unwrap_err().to_string().contains("not a listing"));
        let error = write(r#"{"protocol":99,"agent":"0","cells":[]}"#).unwrap_err().to_string();
        assert!(error.contains(&format!("uses protocol 99, but this lab uses {PROTOCOL_VERSION}")), "{error}");
    }
}

//! What an agent says about itself when it runs on the host.

use super::artifacts::ArtifactError;
use lab_protocol::{Listing, PROTOCOL_VERSION, drawing::TopologyInfo};
use std::path::Path;

/// Asks the agent for its cells; it also runs on the host.
///
/// # Errors
/// The agent does not start, its output is not a listing, or it uses another protocol version.
pub fn listing(agent: &Path) -> Result<Listing, ArtifactError> {
    let wrong = |problem: String| ArtifactError::Listing { agent: agent.to_owned(), problem };
    let text = duct::cmd!(agent, "--list").stdin_null().read().map_err(|error| wrong(error.to_string()))?;
    let listing: Listing = serde_json::from_str(&text).map_err(|error| wrong(format!("not a listing: {error}")))?;
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
pub fn topologies(agent: &Path) -> Result<Vec<TopologyInfo>, ArtifactError> {
    let wrong = |problem: String| ArtifactError::Listing { agent: agent.to_owned(), problem };
    let text = duct::cmd!(agent, "--topologies").stdin_null().read().map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("not a list of topologies: {error}")))
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
            listing(&agent)
        };
        assert!(write("hello").unwrap_err().to_string().contains("not a listing"));
        let error = write(r#"{"protocol":99,"agent":"0","cells":[]}"#).unwrap_err().to_string();
        assert!(error.contains(&format!("uses protocol 99, but this lab uses {PROTOCOL_VERSION}")), "{error}");
    }
}

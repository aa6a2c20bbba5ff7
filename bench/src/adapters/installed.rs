//! Installed peers: each is a directory made by `bench/peers/install`, or its reason for a failure.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Settings;

/// An installed peer.
pub struct Installed {
    /// Its directory.
    pub directory: PathBuf,
    /// Its version.
    pub version: String,
}

/// Finds a peer.
pub fn installed(settings: &Settings, name: &str) -> Result<Installed> {
    let directory = settings.peers.join(name);
    if let Ok(version) = fs::read_to_string(directory.join("version")) {
        return Ok(Installed { directory, version: version.trim().trim_start_matches('v').to_owned() });
    }
    match fs::read_to_string(settings.peers.join(format!("{name}.missing"))) {
        Ok(why) => bail!("it could not be installed: {}", why.trim()),
        Err(_) => bail!("it is not installed (bench/peers/install)"),
    }
}

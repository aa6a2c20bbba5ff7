//! Preflight checks: the version of Redis, and the Redis settings that decide which data it may lose.

use deadpool_redis::redis::{Value, cmd};

use super::client::{Client, hello_field};
use super::reply::{read_list, text};
use crate::config::Durability;
use crate::store::error::{Error, Result};

/// A Redis setting or version that does not suit Slotwheel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigIssue {
    /// Whether a server refuses to start.
    pub is_fatal: bool,
    /// The setting, the reason and the remedy.
    pub message: String,
}

fn fatal(message: String) -> ConfigIssue {
    ConfigIssue { is_fatal: true, message }
}

fn advice(message: &str) -> ConfigIssue {
    ConfigIssue { is_fatal: false, message: message.to_owned() }
}

/// Returns all issues of Redis for this durability. On a Cluster every master is checked.
pub async fn check_config(client: &Client, durability: Durability) -> Result<Vec<ConfigIssue>> {
    let mut issues = Vec::new();
    for version in versions(client).await? {
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major < 7 {
            issues.push(fatal(format!("Redis has version {version}; it must be 7.0 or later, or Valkey")));
        }
    }
    let policies = match config_values(client, "maxmemory-policy").await {
        Ok(policies) => policies,
        Err(Error::Unexpected(_) | Error::Denied(_)) => {
            issues.push(advice(
                "CONFIG GET is not allowed, so the settings of Redis cannot be checked: make sure that \
                 maxmemory-policy is noeviction and that its persistence suits the configured durability",
            ));
            return Ok(issues);
        }
        Err(other) => return Err(other),
    };
    for policy in policies.iter().filter(|policy| *policy != "noeviction") {
        issues.push(fatal(format!(
            "maxmemory-policy is {policy}: when its memory is full, Redis would evict tasks. Set it to noeviction"
        )));
    }
    if config_values(client, "maxmemory").await?.iter().any(|limit| limit == "0") {
        issues.push(advice(
            "maxmemory is 0: Redis may take all memory of the machine, and Slotwheel cannot delete ended tasks in time. \
             Set it to about half of the memory",
        ));
    }
    issues.extend(check_durability(client, durability).await?);
    if config_values(client, "save").await?.iter().any(|times| !times.is_empty()) {
        issues.push(advice(
            "save is on: Redis also writes snapshots, and rejects all writes after a failed one. Set save \"\"",
        ));
    }
    let is_compact = |limit: &String| limit.parse::<u64>().is_ok_and(|limit| limit >= 4096);
    if !config_values(client, "hash-max-listpack-value").await?.iter().all(is_compact) {
        issues.push(advice(
            "hash-max-listpack-value is below 4096: tasks with larger values take about three times the memory. \
             Set it to 4096",
        ));
    }
    issues.dedup();
    Ok(issues)
}

/// Returns the version of Redis; of a Cluster, that of its first master.
pub async fn version(client: &Client) -> Result<String> {
    Ok(versions(client).await?.into_iter().next().unwrap_or_else(|| "unknown".to_owned()))
}

/// Returns the version of each master.
async fn versions(client: &Client) -> Result<Vec<String>> {
    let hellos = match client.send_to_masters(&cmd("HELLO")).await {
        // A connection opened while Redis had a password has no user, and the client of a Cluster keeps it. Once the
        // password is removed, every command but HELLO works on it. This form gives it the default user.
        Err(Error::Unauthenticated(_)) if !client.has_password() => {
            client.send_to_masters(cmd("HELLO").arg(2).arg("AUTH").arg("default").arg("")).await
        }
        hellos => hellos,
    };
    hellos?.into_iter().map(|hello| hello_field(hello, "version")).collect()
}

/// Returns the settings that contradict the durability level.
async fn check_durability(client: &Client, durability: Durability) -> Result<Vec<ConfigIssue>> {
    let mut issues = Vec::new();
    let mut require = async |name: &'static str, level: &str, allowed: &[&str]| -> Result<()> {
        for value in config_values(client, name).await?.iter().filter(|value| !allowed.contains(&value.as_str())) {
            issues.push(fatal(format!(
                "{name} is {value}, and the durability {level} needs {}. Set it, or choose another durability",
                allowed.join(" or ")
            )));
        }
        Ok(())
    };
    match durability {
        Durability::Fsync => {
            require("appendonly", "fsync", &["yes"]).await?;
            require("appendfsync", "fsync", &["always"]).await?;
            require("no-appendfsync-on-rewrite", "fsync", &["no"]).await?;
        }
        Durability::Everysec => {
            require("appendonly", "everysec", &["yes"]).await?;
            require("appendfsync", "everysec", &["everysec", "always"]).await?;
        }
        Durability::Replicated(_) if client.is_cluster() => {
            issues.push(fatal("the durability replicated does not work on a Cluster yet".into()));
        }
        Durability::Replicated(required) => {
            let minimums = config_values(client, "min-replicas-to-write").await?;
            let suffices = |minimum: &String| minimum.parse::<u8>().is_ok_and(|minimum| minimum >= required);
            let lags = config_values(client, "min-replicas-max-lag").await?;
            if lags.iter().any(|lag| lag == "0") {
                issues.push(fatal(
                    "min-replicas-max-lag is 0, which switches min-replicas-to-write off, and the durability \
                     replicated needs it. Set it to 10"
                        .into(),
                ));
            }
            if !minimums.iter().all(suffices) {
                issues.push(fatal(format!(
                    "min-replicas-to-write is {}, and the durability replicated needs {required}: a master that is cut \
                     off from its replicas would accept writes that are lost later",
                    minimums.join(", ")
                )));
            }
        }
        Durability::AsConfigured => {
            if config_values(client, "appendonly").await?.iter().any(|setting| setting != "yes") {
                issues.push(advice(
                    "appendonly is off: tasks accepted since the last snapshot are lost when Redis stops. Set \
                     appendonly yes",
                ));
            }
        }
    }
    Ok(issues)
}

/// Returns the setting's value on each master.
async fn config_values(client: &Client, name: &str) -> Result<Vec<String>> {
    let replies = client.send_to_masters(cmd("CONFIG").arg("GET").arg(name)).await?;
    let value = |reply| match reply {
        Value::Map(pairs) => pairs.into_iter().next().map(|(_name, value)| text(value)),
        list => read_list(list).ok()?.nth(1).map(text),
    };
    replies.into_iter().filter_map(value).collect()
}

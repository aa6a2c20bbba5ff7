//! Whether a Redis is fit to keep tasks: its version and the settings that decide what it may lose.

use deadpool_redis::redis::{Value, cmd};

use super::client::Client;
use super::reply::{read_list, text};
use crate::config::Durability;
use crate::store::error::{Error, Result};

/// What is wrong with a Redis, in words that an operator can act on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigIssue {
    /// Whether a server refuses to start on it.
    pub fatal: bool,
    /// What, why, and what to do.
    pub text: String,
}

fn fatal(text: String) -> ConfigIssue {
    ConfigIssue { fatal: true, text }
}

fn advice(text: &str) -> ConfigIssue {
    ConfigIssue { fatal: false, text: text.to_owned() }
}

/// All that is wrong with it for this durability; of a Cluster, with any of its masters.
pub async fn check(client: &Client, durability: Durability) -> Result<Vec<ConfigIssue>> {
    let mut issues = Vec::new();
    for info in client.send_to_masters(cmd("INFO").arg("server")).await? {
        let info = text(info)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown").trim();
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major < 7 {
            issues.push(fatal(format!("Redis is of version {version}; 7.0 or later, or Valkey, is needed")));
        }
    }
    let policies = match settings(client, "maxmemory-policy").await {
        Ok(policies) => policies,
        Err(Error::Unexpected(_)) => {
            issues.push(advice(
                "its settings cannot be read (CONFIG GET is not allowed): see to it that maxmemory-policy is noeviction \
                 and that it is set up for the durability that is wanted",
            ));
            return Ok(issues);
        }
        Err(other) => return Err(other),
    };
    for policy in policies.iter().filter(|policy| *policy != "noeviction") {
        issues.push(fatal(format!(
            "maxmemory-policy is {policy}: when its memory is full, Redis would throw tasks away. Set it to noeviction"
        )));
    }
    issues.extend(check_durability(client, durability).await?);
    if settings(client, "save").await?.iter().any(|times| !times.is_empty()) {
        issues.push(advice(
            "save is on: Redis also writes snapshots, and when one fails it refuses all writes. Set save \"\"",
        ));
    }
    let compact = |limit: &String| limit.parse::<u64>().is_ok_and(|limit| limit >= 4096);
    if !settings(client, "hash-max-listpack-value").await?.iter().all(compact) {
        issues.push(advice(
            "hash-max-listpack-value is below 4096: tasks with larger values take about three times the memory. \
             Set it to 4096",
        ));
    }
    issues.dedup();
    Ok(issues)
}

/// What keeps the Redis from the durability that is asked for.
async fn check_durability(client: &Client, durability: Durability) -> Result<Vec<ConfigIssue>> {
    let mut findings = Vec::new();
    let mut need = async |name: &'static str, level: &str, allowed: &[&str]| -> Result<()> {
        for found in settings(client, name).await?.iter().filter(|found| !allowed.contains(&found.as_str())) {
            findings.push(fatal(format!(
                "{name} is {found}, and the durability {level} needs {}. Set it, or choose another durability",
                allowed.join(" or ")
            )));
        }
        Ok(())
    };
    match durability {
        Durability::Fsync => {
            need("appendonly", "fsync", &["yes"]).await?;
            need("appendfsync", "fsync", &["always"]).await?;
            need("no-appendfsync-on-rewrite", "fsync", &["no"]).await?;
        }
        Durability::Everysec => {
            need("appendonly", "everysec", &["yes"]).await?;
            need("appendfsync", "everysec", &["everysec", "always"]).await?;
        }
        Durability::Replicated(_) if client.is_cluster() => {
            findings.push(fatal("the durability replicated does not work on a Cluster yet".into()));
        }
        Durability::Replicated(wanted) => {
            let least = settings(client, "min-replicas-to-write").await?;
            let enough = |least: &String| least.parse::<u8>().is_ok_and(|least| least >= wanted);
            let lag = settings(client, "min-replicas-max-lag").await?;
            if lag.iter().any(|lag| lag == "0") {
                findings.push(fatal(
                    "min-replicas-max-lag is 0, which switches min-replicas-to-write off, and the durability replicated \
                     needs it. Set it to 10"
                        .into(),
                ));
            }
            if !least.iter().all(enough) {
                findings.push(fatal(format!(
                    "min-replicas-to-write is {}, and the durability replicated needs {wanted}: a master that is cut \
                     off from its replicas would go on accepting what is then lost",
                    least.join(", ")
                )));
            }
        }
        Durability::AsConfigured => {
            if settings(client, "appendonly").await?.iter().any(|setting| setting != "yes") {
                findings.push(advice(
                    "appendonly is off: what was accepted since the last snapshot is lost when Redis stops. Set \
                     appendonly yes",
                ));
            }
        }
    }
    Ok(findings)
}

/// What each master answers to CONFIG GET.
async fn settings(client: &Client, name: &str) -> Result<Vec<String>> {
    let answers = client.send_to_masters(cmd("CONFIG").arg("GET").arg(name)).await?;
    let value = |answer| match answer {
        Value::Map(pairs) => pairs.into_iter().next().map(|(_name, value)| text(value)),
        list => read_list(list).ok()?.nth(1).map(text),
    };
    answers.into_iter().filter_map(value).collect()
}

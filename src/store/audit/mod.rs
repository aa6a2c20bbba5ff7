//! Checks the invariants of a live keyspace: every task in exactly the indexes that its state names, no index entry
//! without its task, every counter equal to what it counts, the wheel equal to the slots that are not empty.
//!
//! It reads while others write, so what it finds on a live store may be a transition that it saw half of: a finding
//! counts once a second audit repeats it. Memory: about 400 bytes for each task of the shard at hand.

mod indexes;
mod scan;

use std::collections::BTreeSet;

use super::error::Result;
use super::shard::Store;
use super::views::queues::Counts;

/// Something that is not as it must be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// In which shard.
    pub shard: usize,
    /// What.
    pub text: String,
}

/// What an audit saw.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// What is wrong; empty when all is well.
    pub findings: BTreeSet<Finding>,
    /// How many tasks there are.
    pub tasks: u64,
    /// How many queues.
    pub queues: u64,
    /// The counts of all shards together.
    pub totals: Counts,
}

/// Audits every shard, one after another.
pub async fn audit(store: &Store) -> Result<Report> {
    let mut report = Report::default();
    let mut queues = BTreeSet::new();
    for shard in store.shards() {
        let content = scan::scan(shard).await?;
        let findings = indexes::check(&content);
        report.findings.extend(findings.into_iter().map(|text| Finding { shard: shard.index, text }));
        report.tasks += content.tasks.len() as u64;
        report.totals.join(content.total);
        queues.extend(content.queues.keys().cloned());
    }
    report.queues = queues.len() as u64;
    Ok(report)
}

//! Checks the invariants of a live keyspace, and mends what breaks them: every task in exactly the indexes that its state
//! names, no index entry without its task, every counter equal to what it counts, the wheel equal to the slots that are
//! not empty, each dedupe key held by the task that lives.
//!
//! It reads while others write, so what it reads may be a transition seen half of. Whatever does not fit is therefore only
//! suspected, and counts once a script, which looks at exactly its keys in one piece, finds it wrong (`views/confirm`).
//! Mending (`ops/mend`) looks again in the script that writes. The task's hash is the truth: indexes, counters and keys
//! follow it. No task is ever deleted; one that cannot be read is reported and left where it is.
//!
//! Memory: about 400 bytes for each task of the shard at hand. Each call looks at 100 entries at most.

mod indexes;
mod scan;

use std::collections::BTreeSet;

use super::error::{Error, Result};
use super::invariant::{Invariant, Violation};
use super::ops;
use super::shard::{Caller, Shard, Store};
use super::views::queues::Counts;
use super::views::verify_invariants::verify_invariants;
use scan::ShardSnapshot;

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
pub struct AuditReport {
    /// What is wrong; empty when all is well.
    pub findings: BTreeSet<Finding>,
    /// What could not be looked at while others write.
    pub remarks: BTreeSet<Finding>,
    /// How many tasks there are.
    pub tasks: u64,
    /// How many queues.
    pub queues: u64,
    /// The counts of all shards together.
    pub totals: Counts,
}

/// What a repair did, as it goes on.
#[derive(Clone, Debug)]
pub enum RepairEvent {
    /// This is wrong.
    Found(Finding),
    /// This was done about it.
    Repaired(Finding),
}

/// Mending one thing can bring another to light; more looks than these do not help.
const MAX_PASSES: usize = 5;

/// A shard, as one look saw it.
struct AuditPass {
    snapshot: ShardSnapshot,
    violations: Vec<(Invariant, Vec<Violation>)>,
    remarks: Vec<String>,
}

/// Audits every shard, one after another.
pub async fn audit(store: &Store) -> Result<AuditReport> {
    let mut report = AuditReport::default();
    let mut queues = BTreeSet::new();
    for shard in store.shards() {
        let pass = run_pass(shard).await?;
        queues.extend(pass.snapshot.queues.keys().cloned());
        report.add_pass(shard, pass);
    }
    report.queues = queues.len() as u64;
    Ok(report)
}

/// Mends every shard, one after another, beside servers at work; `say` hears of each step. What is left wrong.
pub async fn repair(store: &Store, mut on_event: impl FnMut(RepairEvent)) -> Result<AuditReport> {
    let mut report = AuditReport::default();
    let mut queues = BTreeSet::new();
    let mut caller = Caller::new();
    for shard in store.shards() {
        let mut passes = 1;
        let final_pass = loop {
            let pass = run_pass(shard).await?;
            if pass.violations.is_empty() || passes == MAX_PASSES {
                break pass;
            }
            passes += 1;
            repair_all(shard, &mut caller, pass.violations, &mut on_event).await?;
        };
        queues.extend(final_pass.snapshot.queues.keys().cloned());
        report.add_pass(shard, final_pass);
    }
    report.queues = queues.len() as u64;
    Ok(report)
}

impl AuditReport {
    fn add_pass(&mut self, shard: &Shard, pass: AuditPass) {
        let AuditPass { snapshot: content, violations: wrong, remarks } = pass;
        let finding = |text| Finding { shard: shard.index, text };
        self.findings.extend(content.unreadable.into_iter().map(finding));
        self.findings.extend(wrong.iter().flat_map(|(subject, found)| messages(subject, found)).map(finding));
        self.remarks.extend(remarks.into_iter().map(finding));
        self.tasks += (content.tasks.len() + content.unreadable_tasks.len()) as u64;
        self.totals.join(content.total);
    }
}

/// What is wrong with a subject, a sentence each.
fn messages(subject: &Invariant, violations: &[Violation]) -> Vec<String> {
    violations.iter().map(|found| format!("{subject}: {}", found.problem)).collect()
}

/// Reads the shard, and has whatever does not fit confirmed.
async fn run_pass(shard: &Shard) -> Result<AuditPass> {
    let snapshot = scan::scan(shard).await?;
    let suspects: Vec<Invariant> = indexes::find_suspects(&snapshot).into_iter().collect();
    let mut pass = AuditPass { snapshot, violations: Vec::new(), remarks: Vec::new() };
    for group in batches(&suspects) {
        match verify_invariants(shard, group).await {
            Ok(results) => {
                for (subject, found) in group.iter().zip(results) {
                    let (wrong, remarks): (Vec<_>, Vec<_>) =
                        found.into_iter().partition(|found| !found.problem.is_empty());
                    pass.remarks.extend(remarks.into_iter().map(|found| format!("{subject}: {}", found.repair)));
                    if !wrong.is_empty() {
                        pass.violations.push((subject.clone(), wrong));
                    }
                }
            }
            // A key of another type than ours: it is reported by itself.
            Err(Error::Unexpected(why)) => {
                pass.snapshot.unreadable.push(format!("{} things cannot be looked at: {why}", group.len()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(pass)
}

/// Cuts a sorted list into calls.
fn batches(subjects: &[Invariant]) -> impl Iterator<Item = &[Invariant]> {
    subjects
        .chunk_by(|a, b| a.is_same_kind(b))
        .flat_map(|alike| alike.chunks(alike.first().map_or(1, Invariant::max_per_call)))
}

/// Mends in order, and then looks at what follows from it: queues and counts.
async fn repair_all(
    shard: &Shard,
    caller: &mut Caller,
    wrong: Vec<(Invariant, Vec<Violation>)>,
    on_event: &mut impl FnMut(RepairEvent),
) -> Result<()> {
    let finding = |text| Finding { shard: shard.index, text };
    let mut subjects = BTreeSet::new();
    for (subject, found) in wrong {
        messages(&subject, &found).into_iter().for_each(|text| on_event(RepairEvent::Found(finding(text))));
        if let Invariant::WheelEntry { queue, .. } = &subject {
            subjects.insert(Invariant::QueueIndexes(queue.as_str().into()));
        }
        subjects.insert(subject);
    }
    let subjects: Vec<Invariant> = subjects.into_iter().collect();
    for group in batches(&subjects) {
        for (subject, found) in group.iter().zip(ops::repair::repair(shard, caller, group).await?) {
            for Violation { problem: what, repair: remedy } in
                found.into_iter().filter(|found| !found.problem.is_empty())
            {
                on_event(RepairEvent::Repaired(finding(format!("{subject}: {what}; {remedy}"))));
            }
        }
    }
    Ok(())
}

//! Checks the invariants of a live data set, and repairs violations: every task is in exactly the indexes of its
//! state, every index entry has its task, every count is exact, the wheel lists the slots with ready tasks, and each
//! dedupe key is held by the right task.
//!
//! The audit reads while servers write, so it may see half of a transition. A mismatch is therefore only a suspect
//! until `views/verify_invariants`, which checks its keys atomically, confirms it. `ops/repair` checks again in the
//! script that writes. The task's hash is authoritative: indexes, counts and keys follow it. A repair never deletes a
//! task. It sets unreadable tasks and keys of a wrong type aside, under `quarantine:`, and counts such tasks as deleted.
//!
//! Memory: about 400 bytes for each task of one shard. Each call checks at most 100 entries.

mod callers;
mod indexes;
mod scan;
mod task;

use std::collections::BTreeSet;

use super::error::{Error, Result};
use super::invariant::{Invariant, Violation};
use super::ops;
use super::shard::{Caller, Shard, Store};
use super::views::queue_records::Counts;
use super::views::verify_invariants::verify_invariants;
pub use callers::{check_callers, set_callers_aside};
use scan::ShardSnapshot;

/// A finding of an audit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// The index of the shard.
    pub shard: usize,
    /// The finding, as text.
    pub text: String,
}

/// The result of an audit.
#[derive(Clone, Default, Debug)]
pub struct AuditReport {
    /// Violations and unreadable data. Empty if there are none.
    pub findings: BTreeSet<Finding>,
    /// Invariants that could not be checked while servers write.
    pub remarks: BTreeSet<Finding>,
    /// The number of tasks.
    pub tasks: u64,
    /// The number of queues.
    pub queues: u64,
    /// The counts of all shards together.
    pub totals: Counts,
}

/// A step of a repair.
#[derive(Clone, Debug)]
pub enum RepairEvent {
    /// A violation was found.
    Found(Finding),
    /// A violation was repaired.
    Repaired(Finding),
}

/// The maximum number of passes. A repair can uncover another violation; further passes do not help.
const MAX_PASSES: usize = 5;

/// The result of one pass over a shard.
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

/// Repairs every shard, one after another, while servers run. Calls `on_event` for each step. Returns the findings that
/// remain.
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
        let AuditPass { snapshot, violations, remarks } = pass;
        let finding = |text| Finding { shard: shard.index, text };
        self.findings.extend(snapshot.unreadable.into_iter().map(finding));
        self.findings.extend(violations.iter().flat_map(|(invariant, found)| messages(invariant, found)).map(finding));
        self.remarks.extend(remarks.into_iter().map(finding));
        self.tasks += (snapshot.tasks.len() + snapshot.unreadable_tasks.len()) as u64;
        self.totals.merge(snapshot.record.unwrap_or_default().counts);
    }
}

/// Returns one message for each violation.
fn messages(invariant: &Invariant, violations: &[Violation]) -> Vec<String> {
    violations.iter().map(|violation| format!("{invariant}: {}", violation.problem)).collect()
}

/// Reads the shard, and verifies the suspects.
async fn run_pass(shard: &Shard) -> Result<AuditPass> {
    let snapshot = scan::scan(shard).await?;
    let suspects: Vec<Invariant> = indexes::find_suspects(&snapshot).into_iter().collect();
    let mut pass = AuditPass { snapshot, violations: Vec::new(), remarks: Vec::new() };
    let set_aside = pass.snapshot.set_aside;
    if set_aside > 0 {
        pass.remarks
            .push(format!("{set_aside} unreadable keys are set aside under quarantine:, until they are deleted"));
    }
    let verified = call_each(&suspects, async |batch| verify_invariants(shard, batch).await).await?;
    for (invariant, outcome) in verified {
        let found = match outcome {
            Ok(found) => found,
            // A key of a wrong type: it is reported separately.
            Err(error) => {
                pass.snapshot.unreadable.push(format!("{invariant} cannot be checked: {error}"));
                continue;
            }
        };
        let (violations, remarks): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|violation| !violation.problem.is_empty());
        pass.remarks.extend(remarks.into_iter().map(|remark| format!("{invariant}: {}", remark.repair)));
        if !violations.is_empty() {
            pass.violations.push((invariant.clone(), violations));
        } else if let Invariant::TaskRecord { violation, .. } = invariant {
            pass.snapshot.unreadable.push(format!("{violation}; the task is left as it is"));
        }
    }
    Ok(pass)
}

/// Calls `call` for all invariants, many at once. Returns the outcome of each. If a call meets unreadable data, it is repeated
/// for each half, so that only the invariants of that data fail.
async fn call_each<'a>(
    invariants: &'a [Invariant],
    mut call: impl AsyncFnMut(&[Invariant]) -> Result<Vec<Vec<Violation>>>,
) -> Result<Vec<(&'a Invariant, Result<Vec<Violation>>)>> {
    let mut outcomes = Vec::with_capacity(invariants.len());
    let mut rest: Vec<&'a [Invariant]> = batches(invariants).collect();
    rest.reverse();
    while let Some(batch) = rest.pop() {
        match (call(batch).await, batch) {
            (Ok(found), _) => outcomes.extend(batch.iter().zip(found.into_iter().map(Ok))),
            (Err(error @ Error::Unexpected(_)), [invariant]) => outcomes.push((invariant, Err(error))),
            (Err(Error::Unexpected(_)), _) => {
                let (first, second) = batch.split_at(batch.len() / 2);
                rest.extend([second, first]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(outcomes)
}

/// Divides a sorted list into calls.
fn batches(invariants: &[Invariant]) -> impl Iterator<Item = &[Invariant]> {
    invariants
        .chunk_by(|a, b| a.is_same_kind(b))
        .flat_map(|kind| kind.chunks(kind.first().map_or(1, Invariant::max_per_call)))
}

/// Repairs the violations in order. A repaired wheel entry adds the indexes of its queue.
async fn repair_all(
    shard: &Shard,
    caller: &mut Caller,
    violations: Vec<(Invariant, Vec<Violation>)>,
    on_event: &mut impl FnMut(RepairEvent),
) -> Result<()> {
    let finding = |text| Finding { shard: shard.index, text };
    let mut invariants = BTreeSet::new();
    for (invariant, found) in violations {
        messages(&invariant, &found).into_iter().for_each(|text| on_event(RepairEvent::Found(finding(text))));
        if let Invariant::WheelEntry { queue, .. } = &invariant {
            invariants.insert(Invariant::QueueIndexes(queue.as_str().into()));
        }
        invariants.insert(invariant);
    }
    let invariants: Vec<Invariant> = invariants.into_iter().collect();
    let repaired = call_each(&invariants, async |batch| ops::repair::repair(shard, caller, batch).await).await?;
    for (invariant, repaired) in repaired {
        // The next pass reports what could not be repaired.
        for Violation { problem, repair } in repaired.unwrap_or_default() {
            if !problem.is_empty() {
                on_event(RepairEvent::Repaired(finding(format!("{invariant}: {problem}; {repair}"))));
            }
        }
    }
    Ok(())
}

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
mod subject;

use std::collections::BTreeSet;

pub use subject::Subject;

use super::error::{Error, Result};
use super::ops::mend::{Found, mend};
use super::shard::{Caller, Shard, Store};
use super::views::confirm::confirm;
use super::views::queues::Counts;
use scan::Content;

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
pub enum Step {
    /// This is wrong.
    Found(Finding),
    /// This was done about it.
    Mended(Finding),
}

/// Mending one thing can bring another to light; more looks than these do not help.
const LOOKS: usize = 5;

/// A shard, as one look saw it.
struct Look {
    content: Content,
    wrong: Vec<(Subject, Vec<Found>)>,
    remarks: Vec<String>,
}

/// Audits every shard, one after another.
pub async fn audit(store: &Store) -> Result<Report> {
    let mut report = Report::default();
    let mut queues = BTreeSet::new();
    for shard in store.shards() {
        let seen = look(shard).await?;
        queues.extend(seen.content.queues.keys().cloned());
        report.take(shard, seen);
    }
    report.queues = queues.len() as u64;
    Ok(report)
}

/// Mends every shard, one after another, beside servers at work; `say` hears of each step. What is left wrong.
pub async fn repair(store: &Store, mut say: impl FnMut(Step)) -> Result<Report> {
    let mut report = Report::default();
    let mut queues = BTreeSet::new();
    let mut caller = Caller::new();
    for shard in store.shards() {
        let mut looks = 1;
        let last = loop {
            let seen = look(shard).await?;
            if seen.wrong.is_empty() || looks == LOOKS {
                break seen;
            }
            looks += 1;
            mend_all(shard, &mut caller, seen.wrong, &mut say).await?;
        };
        queues.extend(last.content.queues.keys().cloned());
        report.take(shard, last);
    }
    report.queues = queues.len() as u64;
    Ok(report)
}

impl Report {
    fn take(&mut self, shard: &Shard, look: Look) {
        let Look { content, wrong, remarks } = look;
        let finding = |text| Finding { shard: shard.index, text };
        self.findings.extend(content.unreadable.into_iter().map(finding));
        self.findings.extend(wrong.iter().flat_map(|(subject, found)| said(subject, found)).map(finding));
        self.remarks.extend(remarks.into_iter().map(finding));
        self.tasks += (content.tasks.len() + content.broken.len()) as u64;
        self.totals.join(content.total);
    }
}

/// What is wrong with a subject, a sentence each.
fn said(subject: &Subject, found: &[Found]) -> Vec<String> {
    found.iter().map(|found| format!("{subject}: {}", found.what)).collect()
}

/// Reads the shard, and has whatever does not fit confirmed.
async fn look(shard: &Shard) -> Result<Look> {
    let content = scan::scan(shard).await?;
    let suspects: Vec<Subject> = indexes::check(&content).into_iter().collect();
    let mut look = Look { content, wrong: Vec::new(), remarks: Vec::new() };
    for group in groups(&suspects) {
        match confirm(shard, group).await {
            Ok(answers) => {
                for (subject, found) in group.iter().zip(answers) {
                    let (wrong, remarks): (Vec<_>, Vec<_>) =
                        found.into_iter().partition(|found| !found.what.is_empty());
                    look.remarks.extend(remarks.into_iter().map(|found| format!("{subject}: {}", found.remedy)));
                    if !wrong.is_empty() {
                        look.wrong.push((subject.clone(), wrong));
                    }
                }
            }
            // A key of another type than ours: it is reported by itself.
            Err(Error::Unexpected(why)) => {
                look.content.unreadable.push(format!("{} things cannot be looked at: {why}", group.len()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(look)
}

/// Cuts a sorted list into calls.
fn groups(subjects: &[Subject]) -> impl Iterator<Item = &[Subject]> {
    subjects.chunk_by(|a, b| a.is_like(b)).flat_map(|alike| alike.chunks(alike.first().map_or(1, Subject::per_call)))
}

/// Mends in order, and then looks at what follows from it: queues and counts.
async fn mend_all(
    shard: &Shard,
    caller: &mut Caller,
    wrong: Vec<(Subject, Vec<Found>)>,
    say: &mut impl FnMut(Step),
) -> Result<()> {
    let finding = |text| Finding { shard: shard.index, text };
    let mut subjects = BTreeSet::new();
    for (subject, found) in wrong {
        said(&subject, &found).into_iter().for_each(|text| say(Step::Found(finding(text))));
        if let Subject::Place { queue, .. } = &subject {
            subjects.insert(Subject::Queue(queue.as_str().into()));
        }
        subjects.insert(subject);
    }
    let subjects: Vec<Subject> = subjects.into_iter().collect();
    for group in groups(&subjects) {
        for (subject, found) in group.iter().zip(mend(shard, caller, group).await?) {
            for Found { what, remedy } in found.into_iter().filter(|found| !found.what.is_empty()) {
                say(Step::Mended(finding(format!("{subject}: {what}; {remedy}"))));
            }
        }
    }
    Ok(())
}

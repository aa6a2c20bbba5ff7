//! Ends leases that ran out.

use crate::domain::queue::QueueName;
use crate::domain::task::ErrorReport;
use crate::domain::time::Millis;
use crate::store::ops::reap::{Overdue, reap};
use crate::store::views::overdue::overdue;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(shard: &Shard, caller: &mut Caller, queue: &QueueName, now: Millis) -> Result<()> {
    loop {
        let leases = overdue(shard, queue, now).await?;
        let count = leases.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let leases: Vec<Overdue> = leases
            .into_iter()
            .filter_map(|(id, holding)| {
                let wait_ms = holding.wait_ms(rand::random());
                let report = ErrorReport {
                    worker: holding.worker,
                    kind: "lease_expired".into(),
                    message: "the lease ran out before the worker reported".into(),
                    details: None,
                };
                Some(Overdue { id, lease: holding.lease?, report, wait_ms })
            })
            .collect();
        // Fewer than were seen: another replica was faster, or leases were prolonged. Those are looked at next time.
        if reap(shard, caller, &leases).await? < count {
            return Ok(());
        }
    }
}

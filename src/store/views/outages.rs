//! Outages of a shard, by which leases are prolonged.

use deadpool_redis::redis::cmd;

use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{read_list, text};
use crate::store::shard::Shard;

/// The outages of a shard in the order of their beginning. The script fragment `outages` has the same rule.
#[derive(Clone, Debug)]
pub struct Outages(Vec<(i64, i64)>);

/// Reads the outages of the shard.
pub async fn outages(shard: &Shard) -> Result<Outages> {
    let members = read_list(shard.send(cmd("ZRANGE").arg(shard.keys.outages()).arg(&[0, -1])).await?)?;
    let times = members.filter_map(|member| {
        let member = text(member).ok()?;
        let (from, until) = member.split_once(' ')?;
        Some((from.parse().ok()?, until.parse().ok()?))
    });
    Ok(Outages(times.collect()))
}

impl Outages {
    /// Returns the end of a lease that was set at `set_at` and lasts until `lease_until`, prolonged by the outages in
    /// which it was alive.
    pub fn prolong(&self, lease_until: TimestampMs, set_at: TimestampMs) -> TimestampMs {
        let (mut lease_until, mut counted_until) = (lease_until.0, set_at.0);
        for (from, until) in &self.0 {
            let from = counted_until.max(*from);
            if lease_until <= from {
                break;
            }
            if *until > from {
                lease_until += until - from;
                counted_until = *until;
            }
        }
        TimestampMs(lease_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_prolonged_by_outages_that_it_was_alive_in() {
        let outages = Outages(vec![(100, 200), (150, 250), (400, 450)]);
        let end = |set_at, until| outages.prolong(TimestampMs(until), TimestampMs(set_at)).0;
        assert_eq!(end(0, 90), 90, "ended before the first");
        assert_eq!(end(0, 110), 260, "two that overlap count once");
        assert_eq!(end(0, 300), 500, "alive in all, the last because of the first");
        assert_eq!(end(180, 230), 300, "set during an outage");
        assert_eq!(end(260, 390), 390, "set after the first two, ended before the last");
        assert_eq!(end(500, 600), 600, "set after all");
    }
}

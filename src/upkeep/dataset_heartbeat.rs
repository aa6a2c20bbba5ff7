//! Proves each second that the shard takes writes and still has the data that it had.

use std::time::Duration;

use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::store::dataset::identity::Dataset;
use crate::store::dataset::loss_detector::LossDetector;
use crate::store::{Caller, Shard};

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(shard: Shard, founded: Dataset, stop: CancellationToken) {
    let mut caller = Caller::new();
    let mut watch = LossDetector::new(&founded);
    loop {
        if let Err(error) = watch.check(&shard, &mut caller).await {
            tracing::debug!(%error, shard = shard.index, "no pulse");
        }
        let pause = INTERVAL.mul_f64(rand::rng().random_range(0.8..1.0));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

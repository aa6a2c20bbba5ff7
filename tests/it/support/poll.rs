//! Waits for a condition that sends no signal, such as the result of upkeep.

use std::time::Duration;

/// Between two checks. Short against any wait in a test, long against one check.
pub const INTERVAL: Duration = Duration::from_millis(2);

/// Checks once per interval until there is a result. `None` if there is none within `timeout`.
pub async fn poll<T, F: Future<Output = Option<T>>>(timeout: Duration, check: impl Fn() -> F) -> Option<T> {
    let polling = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(found) = check().await {
                return found;
            }
        }
    };
    tokio::time::timeout(timeout, polling).await.ok()
}

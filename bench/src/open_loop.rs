//! Open loop: a fixed rate of arrivals by a schedule that does not wait. A duration counts from the due time, so a stall
//! counts for every request that it delays. All arrivals due within the window are sent and count, even if a stall goes
//! beyond its end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use nix::sys::prctl::set_timerslack;
use tokio::sync::{Notify, mpsc};

use crate::load::{Plan, Run};
use crate::spent::{Observed, Spent};

/// Generates `rate` arrivals per second from the beginning of the warm-up to the end of the window. The first free
/// sender sends each, with its due time.
pub async fn open<T, F>(
    run: &Run<'_>,
    plan: &Plan,
    rate: f64,
    observed: &Observed,
    senders: Vec<T>,
    send: F,
) -> Result<(f64, Spent)>
where
    F: AsyncFn(&mut T, Instant) -> Result<()>,
{
    let (due, wake, all_arrived) = (RefCell::new(VecDeque::new()), Notify::new(), Cell::new(false));
    let pace = async {
        let mut arrivals = schedule(rate);
        loop {
            let next = arrivals.recv().await.context("a schedule")?;
            // Not `run.over()`: arrivals of the window may still be in the channel.
            if run.ended_before(next) {
                break;
            }
            due.borrow_mut().push_back(next);
            wake.notify_one();
        }
        all_arrived.set(true);
        wake.notify_waiters();
        anyhow::Ok(())
    };
    let senders = try_join_all(senders.into_iter().map(async |mut sender| {
        loop {
            let notified = wake.notified();
            let next = due.borrow_mut().pop_front();
            match next {
                Some(due) => send(&mut sender, due).await?,
                None if all_arrived.get() => return anyhow::Ok(()),
                None => notified.await,
            }
        }
    }));
    let (window, ..) = tokio::try_join!(run.window(plan, observed), pace, senders)?;
    Ok(window)
}

/// Sends each arrival at its due time, until the receiver is dropped. It sleeps in its own thread, because the
/// runtime's timers have a resolution of a millisecond, longer than the measured durations.
fn schedule(rate: f64) -> mpsc::UnboundedReceiver<Instant> {
    let (tell, told) = mpsc::unbounded_channel();
    // Before the thread runs, so that a late start delays no due time.
    let begun = Instant::now();
    std::thread::spawn(move || {
        // Otherwise the kernel may delay wake-ups by 50 us to batch them.
        set_timerslack(1).expect("a timer slack");
        for number in 0.. {
            let due = begun + Duration::from_secs_f64(f64::from(number) / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tell.send(due).is_err() {
                return;
            }
        }
    });
    told
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;
    use crate::ledger::Ledger;
    use crate::load::{Measured, Verb};

    const RATE: f64 = 2000.0;
    const PLAN: Plan = Plan {
        connections: 1,
        warm_up: Duration::from_millis(100),
        window: Duration::from_millis(500),
        steady_window: Duration::ZERO,
        payload: 100,
    };
    const STALL: Duration = Duration::from_millis(250);

    /// Answers all arrivals at once, except the first that is due after a time: it is answered when `stall` ends.
    async fn measure(senders: usize, after: Duration, stall: impl AsyncFn(&Cell<u32>) -> Result<()>) -> Measured {
        let ledger = Ledger::default();
        let run = Run::new(&ledger, &PLAN);
        let (begun, stalled, answered) = (Instant::now(), Cell::new(false), Cell::new(0));
        let send = async |_: &mut (), due: Instant| {
            if due.duration_since(begun) > after && !stalled.replace(true) {
                stall(&answered).await?;
            }
            answered.set(answered.get() + 1);
            run.arrived(Verb::PickUp, due);
            Ok(())
        };
        let window = open(&run, &PLAN, RATE, &Observed::default(), vec![(); senders], send).await.unwrap();
        let measured = run.measured(window);
        let due = measured.seconds * RATE;
        assert!((measured.tasks as f64 - due).abs() <= 1.0, "{} of {due} due arrivals counted", measured.tasks);
        measured
    }

    #[tokio::test]
    async fn stall_delays_every_request_behind_it() {
        let stall = async |answered: &Cell<u32>| {
            let before = answered.get();
            tokio::time::sleep(STALL).await;
            ensure!(answered.get() == before, "another request was answered");
            Ok(())
        };
        let times = measure(1, Duration::from_millis(200), stall).await.latencies[&Verb::PickUp].clone();
        // 500 were due during the stall: 0.5 ms, 1 ms, … 250 ms late. On a busy machine, others are late too.
        let late = times.len() - times.count_between(0, 20_000_000);
        assert!(late >= 400, "{late} of them came late");
        assert!(times.max() >= STALL.as_nanos() as u64);
    }

    #[tokio::test]
    async fn late_request_delays_no_other_if_a_sender_is_free() {
        // The stall ends when other requests have been answered, and otherwise with an error.
        let stall = async |answered: &Cell<u32>| {
            let (before, deadline) = (answered.get(), Instant::now() + Duration::from_secs(20));
            while answered.get() < before + 10 {
                ensure!(Instant::now() < deadline, "no other request was answered");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        measure(2, Duration::from_millis(200), stall).await;
    }

    #[tokio::test]
    async fn arrivals_during_a_stall_at_the_end_of_the_window_count() {
        // Blocks the thread of the load beyond the end of the window. Then more arrivals wait in the channel than tokio
        // lets a task receive at once.
        let stall = async |_: &Cell<u32>| {
            std::thread::sleep(STALL);
            Ok(())
        };
        measure(1, Duration::from_millis(500), stall).await;
    }
}

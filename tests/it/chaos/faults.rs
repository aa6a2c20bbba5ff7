//! The faults, their times and durations; all follow from the seed.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{self, Cmd, RedisResult, cmd};
use futures_util::future::select_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use slotwheel::domain::id::TaskId;
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clock::until_judged;
use super::processes::{Crew, Server};
use super::proxy::{Cut, Proxy};
use super::recorder::Recorder;
use super::{pause, poison};
use crate::support::redis::{OwnClock, OwnRedis};

/// The proxy of a server: between clients and server, or between server and Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Front,
    Back,
}

/// Times are ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    KillServer {
        server: usize,
        down: u64,
    },
    StopServer {
        server: usize,
        down: u64,
    },
    FreezeServer {
        server: usize,
        time: u64,
    },
    KillRedis {
        down: u64,
    },
    FreezeRedis {
        time: u64,
    },
    Cut {
        server: usize,
        side: Side,
        how: Cut,
    },
    Delay {
        server: usize,
        side: Side,
        by: u64,
        time: u64,
    },
    FreezeLink {
        server: usize,
        side: Side,
        time: u64,
    },
    LoseReplies {
        server: usize,
        side: Side,
        count: u32,
    },
    CutSignals {
        time: u64,
    },
    DenyChannels {
        time: u64,
    },
    FlushScripts {
        time: u64,
    },
    FreezeCrew {
        crew: usize,
        time: u64,
    },
    KillCrew {
        crew: usize,
    },
    StepClock {
        seconds: i64,
        time: u64,
    },
    /// For the life of the server's process, if there is no time.
    LeaveLogUnread {
        server: usize,
        time: Option<u64>,
    },
    PoisonQueue {
        key: &'static str,
    },
}

/// Steps of Redis' clock. Each, and each change from one to another, is larger than a step that servers follow.
const STEPS: [i64; 4] = [3, -3, 3600, -3600];

/// The faults of a run of this length, each with its start in ms from the beginning of the run.
///
/// The first fault poisons a queue. Each run has a step of the clock and an unread log.
///
/// The generator is `StdRng` of the rand version in Cargo.lock: with it, a seed determines the schedule.
pub fn schedule(seed: u64, length: Duration, servers: usize, crews: usize) -> Vec<(u64, Fault)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let end = u64::try_from(length.as_millis()).expect("a short run");
    let mut faults = vec![(500, Fault::PoisonQueue { key: poison::KEYS[rng.random_range(0..poison::KEYS.len())] })];
    faults.push((rng.random_range(600..end), step(&mut rng)));
    faults.push((rng.random_range(600..end), unread(&mut rng, servers)));
    let mut at = 600;
    while at < end {
        let server = rng.random_range(0..servers);
        let crew = rng.random_range(0..crews);
        let side = if rng.random_bool(0.5) { Side::Front } else { Side::Back };
        let how = [Cut::Fin, Cut::Rst, Cut::Half][rng.random_range(0..3)];
        let down = rng.random_range(0..800);
        // Mostly a second, seldom longer than the server's timeout.
        let long = [1000, 1000, 1500, 2000, 5000][rng.random_range(0..5)];
        let some = rng.random_range(200..2500);
        faults.push((
            at,
            match rng.random_range(0..108) {
                0..28 => Fault::KillServer { server, down },
                28..33 => Fault::StopServer { server, down },
                33..38 => Fault::FreezeServer { server, time: long },
                38..43 => Fault::KillRedis { down },
                43..45 => Fault::FreezeRedis { time: long },
                45..54 => Fault::Cut { server, side, how },
                54..62 => Fault::Delay { server, side, by: rng.random_range(5..300), time: some },
                62..67 => Fault::FreezeLink { server, side, time: some },
                67..80 => Fault::LoseReplies { server, side, count: rng.random_range(1..5) },
                80..82 => Fault::CutSignals { time: some },
                82..84 => Fault::DenyChannels { time: some },
                84..88 => Fault::FlushScripts { time: some },
                88..94 => Fault::FreezeCrew { crew, time: long },
                94..100 => Fault::KillCrew { crew },
                100..105 => step(&mut rng),
                _ => unread(&mut rng, servers),
            },
        ));
        at += rng.random_range(200..1300);
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn step(rng: &mut StdRng) -> Fault {
    Fault::StepClock { seconds: STEPS[rng.random_range(0..STEPS.len())], time: rng.random_range(500..4000) }
}

fn unread(rng: &mut StdRng, servers: usize) -> Fault {
    let time = rng.random_bool(0.5).then(|| rng.random_range(500..3000));
    Fault::LeaveLogUnread { server: rng.random_range(0..servers), time }
}

/// The targets of faults.
pub struct World {
    pub redis: Mutex<OwnRedis>,
    pub url: String,
    pub clock: Mutex<OwnClock>,
    /// A task of the poisoned queue.
    pub poisoned: TaskId,
    pub servers: Vec<Server>,
    pub crews: Vec<Crew>,
    pub recorder: Arc<Recorder>,
    /// Held by a fault that delays a connection to Redis, and by a step of the clock until a server has judged it.
    pub links: RwLock<()>,
    /// The log of faults.
    pub log: PathBuf,
}

impl World {
    /// Runs the schedule. Faults overlap, but two faults of one process run in sequence. Returns when the last fault
    /// has ended and all processes run.
    pub async fn suffer(self: &Arc<Self>, faults: Vec<(u64, Fault)>) {
        let began = Instant::now();
        let mut log = File::create(&self.log).expect("a log");
        let mut under_way = JoinSet::new();
        for (at, fault) in faults {
            pause((began + Duration::from_millis(at)).saturating_duration_since(Instant::now())).await;
            writeln!(log, "{} {fault:?}", jiff::Timestamp::now()).expect("a line of the log");
            let world = self.clone();
            under_way.spawn(async move { world.befall(fault).await });
        }
        while let Some(done) = under_way.join_next().await {
            done.expect("no panic");
        }
        for server in &self.servers {
            server.front.heal();
            server.back.heal();
        }
    }

    fn proxy(&self, server: usize, side: Side) -> &Proxy {
        match side {
            Side::Front => &self.servers[server].front,
            Side::Back => &self.servers[server].back,
        }
    }

    async fn befall(&self, fault: Fault) {
        let ms = Duration::from_millis;
        let (what, by) = match fault {
            Fault::KillServer { server, down } => {
                self.servers[server].restart(true, ms(down)).await;
                ("server kills", 1)
            }
            Fault::StopServer { server, down } => {
                self.servers[server].restart(false, ms(down)).await;
                ("server stops", 1)
            }
            Fault::FreezeServer { server, time } => {
                self.servers[server].freeze(ms(time)).await;
                ("server freezes", 1)
            }
            Fault::KillRedis { down } => {
                let mut redis = self.redis.lock().await;
                redis.kill();
                pause(ms(down)).await;
                redis.restart().await;
                ("Redis kills", 1)
            }
            Fault::FreezeRedis { time } => {
                let redis = self.redis.lock().await;
                redis.freeze();
                pause(ms(time)).await;
                redis.thaw();
                ("Redis freezes", 1)
            }
            Fault::Cut { server, side, how } => ("connections cut", self.proxy(server, side).cut(how)),
            Fault::Delay { server, side, by, time } => {
                let _links = self.links.read().await;
                self.proxy(server, side).delay(by);
                pause(ms(time)).await;
                self.proxy(server, side).delay(0);
                ("delays", 1)
            }
            Fault::FreezeLink { server, side, time } => {
                let _links = self.links.read().await;
                self.proxy(server, side).freeze(true);
                pause(ms(time)).await;
                self.proxy(server, side).freeze(false);
                ("links frozen", 1)
            }
            // The proxies count the cut connections.
            Fault::LoseReplies { server, side, count } => {
                self.proxy(server, side).lose_replies(count);
                ("rounds of lost replies", 1)
            }
            Fault::CutSignals { time } => {
                let mut cut = 0;
                for _ in 0..=time / 100 {
                    cut += self.servers.iter().map(|server| server.back.cut_signals()).sum::<usize>();
                    pause(ms(100)).await;
                }
                ("signal connections cut", cut)
            }
            Fault::DenyChannels { time } => {
                self.set_channels("resetchannels").await;
                pause(ms(time)).await;
                self.set_channels("&sw:*").await;
                ("channels denied", 1)
            }
            Fault::FlushScripts { time } => ("script flushes", self.flush(ms(time)).await),
            Fault::FreezeCrew { crew, time } => {
                self.crews[crew].freeze(ms(time)).await;
                ("worker freezes", 1)
            }
            Fault::KillCrew { crew } => {
                self.crews[crew].kill().await;
                ("worker kills", 1)
            }
            Fault::StepClock { seconds, time } => {
                let clock = self.clock.lock().await;
                self.step(&clock, seconds).await;
                pause(ms(time)).await;
                self.step(&clock, 0).await;
                ("steps of the clock", 2)
            }
            Fault::LeaveLogUnread { server, time } => {
                let task = self.poisoned.to_string();
                let errors = self.servers[server].leave_log_unread(&task, time.map(ms)).await;
                ("errors in unread logs", errors)
            }
            Fault::PoisonQueue { key } => {
                for command in poison::commands(key, &self.poisoned) {
                    while self.ask(&command).await.is_err() {
                        pause(ms(20)).await;
                    }
                }
                ("keys poisoned", 2)
            }
        };
        self.recorder.count(what, by as u64);
    }

    /// Sets the clock. Until the step is judged, one server that ran before it is not disturbed: if none is left, a step
    /// forward counts as an outage.
    async fn step(&self, clock: &OwnClock, seconds: i64) {
        let _links = self.links.write().await;
        let servers = self.servers.iter().map(|server| Box::pin(server.hold()));
        let (_witness, ..) = select_all(servers).await;
        clock.set(seconds);
        until_judged(&self.url).await;
    }

    /// Changes the channels of the servers' user.
    async fn set_channels(&self, rule: &str) {
        // Redis may be down at this moment. After its restart, the user has its channels.
        let _ = self.ask(cmd("ACL").arg("SETUSER").arg("wheel").arg(rule)).await;
    }

    /// Sends a command to Redis, which may be down.
    async fn ask(&self, command: &Cmd) -> RedisResult<()> {
        let client = redis::Client::open(self.url.as_str())?;
        command.exec_async(&mut client.get_multiplexed_async_connection().await?).await
    }

    /// Flushes scripts in a loop without a pause; returns the number of flushes.
    async fn flush(&self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut flushed = 0;
        while Instant::now() < end {
            let client = redis::Client::open(self.url.as_str()).expect("a URL");
            let flush = async {
                let mut connection = client.get_multiplexed_async_connection().await?;
                while Instant::now() < end {
                    cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await?;
                    flushed += 1;
                    pause(Duration::from_millis(2)).await;
                }
                RedisResult::Ok(())
            };
            // Redis may be down at this moment.
            let _ = flush.await;
            pause(Duration::from_millis(20)).await;
        }
        flushed
    }
}

#[test]
fn seed_determines_the_schedule() {
    let length = Duration::from_secs(60);
    assert_eq!(schedule(7, length, 3, 3), schedule(7, length, 3, 3));
    assert_ne!(schedule(7, length, 3, 3), schedule(8, length, 3, 3));
    // Ten minutes contain enough of the most important faults, for any seed.
    for seed in 0..20 {
        let faults = schedule(seed, length * 10, 3, 3);
        let count = |which: fn(&Fault) -> bool| faults.iter().filter(|(_, fault)| which(fault)).count();
        assert!(count(|fault| matches!(fault, Fault::KillServer { .. })) >= 120, "seed {seed}");
        assert!(count(|fault| matches!(fault, Fault::KillRedis { .. })) >= 20, "seed {seed}");
        assert!(count(|fault| matches!(fault, Fault::StepClock { .. })) >= 15, "seed {seed}");
        assert!(count(|fault| matches!(fault, Fault::LeaveLogUnread { .. })) >= 10, "seed {seed}");
        assert!(matches!(faults[0], (_, Fault::PoisonQueue { .. })), "seed {seed}");
    }
}

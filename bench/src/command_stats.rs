//! Calls of Redis, from `INFO commandstats`: scripts, and the commands that scripts and servers call. The commands of
//! connections and of administration do not count, so that reading these counts does not change them.

use anyhow::{Context as _, Result};

use crate::processes::Redis;

/// Commands that call a script.
const SCRIPTS: [&str; 6] = ["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"];

/// Commands of connections and of administration.
const UNCOUNTED: [&str; 8] = ["info", "ping", "hello", "auth", "select", "client", "command", "config"];

/// Calls of Redis in some time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Calls {
    /// Calls of scripts.
    pub scripts: u64,
    /// Calls of other commands: within scripts, and by the server itself.
    pub commands: u64,
}

impl Calls {
    /// Returns the calls since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self { scripts: self.scripts - earlier.scripts, commands: self.commands - earlier.commands }
    }

    /// Parses the section of INFO.
    fn parse(info: &str) -> Result<Self> {
        let mut calls = Self::default();
        for (name, figures) in info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':')) {
            let count = figures.split(',').find_map(|figure| figure.strip_prefix("calls="));
            let count: u64 = count.with_context(|| format!("no calls of {name}"))?.parse()?;
            // A subcommand is counted as `command|subcommand`.
            match name.split('|').next().unwrap_or_default() {
                name if UNCOUNTED.contains(&name) => {}
                name if SCRIPTS.contains(&name) => calls.scripts += count,
                _ => calls.commands += count,
            }
        }
        Ok(calls)
    }
}

/// A connection that reads the counts.
pub struct CallReader(redis::Connection);

impl CallReader {
    /// Connects.
    pub fn of(redis: &Redis) -> Result<Self> {
        Ok(Self(redis.connection()?))
    }

    /// Returns the calls since the Redis was started.
    pub fn read(&mut self) -> Result<Calls> {
        Calls::parse(&redis::cmd("INFO").arg("commandstats").query::<String>(&mut self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::Settings;

    #[tokio::test]
    async fn commands_within_scripts_are_counted_and_readings_are_not() {
        let settings = Settings::for_tests();
        let redis = Redis::start(&settings, "command-stats", &[]).await.unwrap();
        let mut calls = CallReader::of(&redis).unwrap();
        let before = calls.read().unwrap();
        let script = "redis.call('set', 'a', 1) return redis.call('get', 'a')";
        let mut connection = redis.connection().unwrap();
        redis::cmd("EVAL").arg(script).arg(0).query::<u64>(&mut connection).unwrap();
        redis::cmd("GET").arg("a").query::<u64>(&mut connection).unwrap();
        calls.read().unwrap();
        assert_eq!(calls.read().unwrap().since(before), Calls { scripts: 1, commands: 3 });
    }

    #[test]
    fn calls_are_those_of_scripts_and_of_all_commands_of_the_work() {
        let info = "# Commandstats\r\n\
                    cmdstat_evalsha:calls=7,usec=9100,usec_per_call=1300.00,rejected_calls=0,failed_calls=1\r\n\
                    cmdstat_eval:calls=1,usec=100,usec_per_call=100.00,rejected_calls=0,failed_calls=0\r\n\
                    cmdstat_hset:calls=30,usec=60,usec_per_call=2.00,rejected_calls=0,failed_calls=0\r\n\
                    cmdstat_script|load:calls=2,usec=60,usec_per_call=30.00,rejected_calls=0,failed_calls=0\r\n\
                    cmdstat_client|setinfo:calls=4,usec=6,usec_per_call=1.50,rejected_calls=0,failed_calls=0\r\n\
                    cmdstat_info:calls=90,usec=9000,usec_per_call=100.00,rejected_calls=0,failed_calls=0\r\n";
        let calls = Calls::parse(info).unwrap();
        assert_eq!(calls, Calls { scripts: 8, commands: 32 });
        assert_eq!(calls.since(Calls { scripts: 5, commands: 2 }), Calls { scripts: 3, commands: 30 });
        assert!(Calls::parse("cmdstat_get:usec=3\r\n").is_err());
    }
}

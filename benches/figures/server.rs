//! The release binary as a process of its own, measured from outside.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::support::Http;
use crate::support::redis::{OwnRedis, free_port};

/// A server that is measured from outside.
pub struct Server {
    pub child: Child,
    pub http: Http,
}

impl Server {
    pub async fn start(redis: &OwnRedis, more: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Command::new(env!("CARGO_BIN_EXE_slotwheel"))
            .args(["--listen", &address.to_string(), "--redis-url", &redis.url, "--log", "warn"])
            .args(more)
            .stdin(Stdio::null())
            .spawn()
            .expect("a server");
        let mut http = Http::new(address);
        http.check = |_, _, _| {};
        while !http.is_ready().await {}
        Server { child, http }
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }

    /// Processor time used so far, in seconds.
    pub fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let behind_the_name = stat.rsplit_once(") ").unwrap().1;
        let fields: Vec<&str> = behind_the_name.split(' ').collect();
        // utime and stime, in ticks of a hundredth of a second.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    pub async fn waiting(&self) -> usize {
        let metrics = self.http.get("/metrics").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix("slotwheel_waiting_polls "));
        line.and_then(|number| number.parse().ok()).unwrap()
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

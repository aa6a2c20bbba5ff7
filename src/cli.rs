//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::{Config, LogFormat, Written};
use crate::store::client::Target;
use crate::store::found::{existing, found};
use crate::store::{Client, Store, audit, check, pulse};

/// An HTTP task dispatcher over Redis
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; what happens when no command is given
    Serve(Settings),
    /// Check a Redis and the data set on it, and say what is wrong
    Doctor(Examination),
    /// Exit with 0 if the server answers /readyz with 200
    Healthcheck(Settings),
}

#[derive(Debug, Args)]
struct Examination {
    /// Take the data set as it is for the servers' own, although data was lost
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Settings {
    /// A file of settings, in the form of config.default.toml
    #[arg(long, env = "SLOTWHEEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    written: Written,
}

impl Settings {
    fn meant(self) -> anyhow::Result<Config> {
        let file = match self.config {
            None => Written::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("the settings file {}", path.display()))?;
                Written::from_toml(&path, &text)?
            }
        };
        Ok(self.written.or(file).meant()?)
    }
}

/// Does what the arguments say; what to exit with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Both that the TLS stack could use are known to it; it wants to be told which.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) => begin(settings, serve),
        Command::Doctor(Examination { accept_loss: false, settings }) => begin(settings, doctor),
        Command::Doctor(Examination { accept_loss: true, settings }) => begin(settings, accept_loss),
        Command::Healthcheck(settings) => begin(settings, healthcheck),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("slotwheel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin<F: Future<Output = anyhow::Result<ExitCode>>>(
    settings: Settings,
    command: fn(Config) -> F,
) -> anyhow::Result<ExitCode> {
    let config = settings.meant()?;
    let filter = EnvFilter::try_new(&config.log).context("the setting log")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command(config))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    if !config.listen.ip().is_loopback() {
        tracing::warn!(
            address = %config.listen,
            "whoever reaches this address can do everything: there is no authentication yet (--insecure)"
        );
    }
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = asked_to_stop().await {
            tracing::error!(%error, "signals cannot be heard");
            return;
        }
        tracing::info!("stopping");
        on_signal.cancel();
    });
    app::run(config, listener, stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn doctor(config: Config) -> anyhow::Result<ExitCode> {
    let (target, managed) = app::attach(&config).await?;
    let outcome = examine(&config, target).await;
    if let Some(managed) = managed {
        managed.stop().await;
    }
    let wrong = outcome?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has the servers take the data set as it is; one that is gone is founded anew.
async fn accept_loss(config: Config) -> anyhow::Result<ExitCode> {
    let (target, managed) = app::attach(&config).await?;
    let outcome = accept(&config, target).await;
    if let Some(managed) = managed {
        managed.stop().await;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn accept(config: &Config, target: Target) -> anyhow::Result<()> {
    let client = Client::connect(target).await.context("no answer of Redis")?;
    let founded = found(&client, &config.prefix, config.shards).await?;
    let store = Store::new(Arc::new(client), founded.shards, &config.prefix);
    pulse::accept(&store, &founded).await?;
    println!("data set {} with {} shards is accepted as it is", founded.id, founded.shards.count());
    println!("servers that had another number of shards do not take it: start them again");
    Ok(())
}

/// Prints what is wrong; how much.
async fn examine(config: &Config, target: Target) -> anyhow::Result<usize> {
    let client = Client::connect(target).await.context("no answer of Redis")?;
    let mut wrong = 0;
    for finding in check::check(&client, config.durability).await? {
        println!("{} {}", if finding.fatal { "WRONG " } else { "ADVICE" }, finding.text);
        wrong += usize::from(finding.fatal);
    }
    let Some(founded) = existing(&client, &config.prefix).await? else {
        println!("there is no data set with the prefix {} yet: the first server makes it", config.prefix);
        return Ok(wrong);
    };
    if let Some(asked) = config.shards.filter(|asked| *asked != founded.shards) {
        println!(
            "WRONG  {} shards are asked for and the data set has {}: start with --shards {} or without",
            asked.count(),
            founded.shards.count(),
            founded.shards.count()
        );
        wrong += 1;
    }
    let store = Store::new(Arc::new(client), founded.shards, &config.prefix);
    for (shard, loss) in pulse::strangers(&store, &founded).await? {
        println!("WRONG  shard {shard}: {}", loss.explain());
        wrong += 1;
    }
    let first = audit::audit(&store).await?;
    // Others may be writing: only what a second look confirms is wrong.
    let second = match first.findings.is_empty() {
        true => first.clone(),
        false => audit::audit(&store).await?,
    };
    for finding in first.findings.intersection(&second.findings) {
        println!("WRONG  shard {}: {}", finding.shard, finding.text);
        wrong += 1;
    }
    println!(
        "data set {}: {} tasks of {} queues in {} shards; {} submitted so far, {} ready, {} leased",
        founded.id,
        second.tasks,
        second.queues,
        store.layout().count(),
        second.totals.submitted,
        second.totals.ready,
        second.totals.leased,
    );
    println!("{}", if wrong == 0 { "all is well".to_owned() } else { format!("{wrong} findings") });
    Ok(wrong)
}

async fn healthcheck(config: Config) -> anyhow::Result<ExitCode> {
    let mut address = config.listen;
    if address.ip().is_unspecified() {
        let loopback = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), ask(address)).await.context("no answer in 5 s")?;
    let status = answer.with_context(|| format!("no answer from {address}"))?;
    println!("{address} answers {status}");
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(address: std::net::SocketAddr) -> anyhow::Result<hyper::StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/readyz")
        .header(hyper::header::HOST, address.to_string())
        .body(http_body_util::Empty::<bytes::Bytes>::new())?;
    Ok(sender.send_request(request).await?.status())
}

//! The command line.

/// Prints a line of a command's result. If stdout is closed, as in `doctor | head -1`, the line is lost and the command
/// continues. `println!` would panic, and a panic ends the process in the middle of a repair.
macro_rules! print_line {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

mod doctor;
mod log;
mod otel;
mod signals;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::{Config, DEFAULTS, RawConfig};
use crate::logging;
use signals::Signals;

/// The time limit for writing the rest of the log before the process ends.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// HTTP task dispatcher over Redis
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server (default)
    Serve(ConfigArgs),
    /// Check a Redis and its data set, and report defects
    #[command(args_conflicts_with_subcommands = true)]
    Doctor {
        #[command(subcommand)]
        command: Option<Box<DoctorCommand>>,
        #[command(flatten)]
        settings: ConfigArgs,
        #[command(flatten)]
        options: doctor::RepairOptions,
    },
    /// Exit with 0 if the server answers /readyz with 200
    Healthcheck(ConfigArgs),
}

#[derive(Debug, Subcommand)]
enum DoctorCommand {
    /// Print what is stored of a task, with the meaning of each value
    Show {
        /// Id of the task
        task: String,
        #[command(flatten)]
        settings: ConfigArgs,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Settings file, in the form of config.default.toml
    #[arg(long, env = "SLOTWHEEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    raw: RawConfig,
}

impl ConfigArgs {
    fn read_raw(self) -> anyhow::Result<RawConfig> {
        let file = match self.config {
            None => RawConfig::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("the settings file {}", path.display()))?;
                RawConfig::from_toml(&path, &text)?
            }
        };
        Ok(self.raw.merged_over(file))
    }

    fn resolve(self) -> anyhow::Result<Config> {
        Ok(self.read_raw()?.resolve()?)
    }
}

/// Runs the command of the arguments. Returns the exit code.
pub fn main() -> ExitCode {
    abort_on_panic();
    let matches = with_defaults(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Two cryptography providers are compiled in, so rustls requires an explicit choice.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) => run_command(settings.read_raw().and_then(otel::resolve), serve),
        Command::Doctor { command: None, settings, options } => {
            run_command(settings.resolve(), |config| doctor::run(config, options))
        }
        Command::Doctor { command: Some(command), .. } => {
            let DoctorCommand::Show { task, settings } = *command;
            run_command(settings.resolve(), |config| doctor::show(config, task))
        }
        Command::Healthcheck(settings) => run_command(settings.resolve(), healthcheck),
    };
    // Before the error: it comes last.
    logging::flush(LOG_FLUSH_TIMEOUT);
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // As in `print_line`: `eprintln!` panics if stderr is closed.
            let _ = writeln!(std::io::stderr(), "slotwheel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Adds the default of each setting to the help. The defaults are those of config.default.toml.
fn with_defaults(command: clap::Command) -> clap::Command {
    let defaults: toml::Table = DEFAULTS.parse().unwrap_or_default();
    let limits = defaults.get("limits").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let describe = move |argument: Arg| {
        let id = argument.get_id().as_str();
        let Some(default) = defaults.get(id).or_else(|| limits.get(id)) else { return argument };
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let shown = if default.is_empty() { "empty" } else { &default };
        argument.help(format!("{help} [default: {shown}]"))
    };
    fn describe_all(command: clap::Command, describe: &impl Fn(Arg) -> Arg) -> clap::Command {
        command.mut_subcommands(|command| describe_all(command, describe)).mut_args(describe)
    }
    describe_all(command, &describe)
}

/// Makes a panic in any thread or task end the process, with a last line in the log. A server without one of its loops would
/// leave work undone while /readyz returns 200.
pub fn abort_on_panic() {
    let print_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The standard hook writes to stderr, which may block. The log does not.
        if !logging::is_buffered() {
            print_panic(panic);
        }
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let reason = payload.downcast_ref::<&str>().copied();
        let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(%backtrace, "panic");
        }
        tracing::error!(thread = thread.name(), location, reason, "panic: the process aborts");
        logging::flush(LOG_FLUSH_TIMEOUT);
        std::process::abort();
    }));
}

fn run_command<F: Future<Output = anyhow::Result<ExitCode>>>(
    config: anyhow::Result<Config>,
    command: impl FnOnce(Config) -> F,
) -> anyhow::Result<ExitCode> {
    let config = config?;
    let filter = EnvFilter::try_new(&config.log).context("the setting log")?;
    log::init(filter, config.log_format).context("the thread of the log")?;
    let threads = config.threads.map_or_else(default_threads, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?.block_on(command(config))
}

/// Returns the number of processors minus one, at least 1: a local Redis uses the other. docs/performance.md has the
/// measurements.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    // The soft limit of a shell is often 1024. Each connection uses a file descriptor.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "raising the limit of open files failed");
    }
    if !config.listen.ip().is_loopback() {
        tracing::warn!(
            address = %config.listen,
            "no authentication: any client that reaches this address has full access (--insecure)"
        );
    }
    let mut signals = Signals::listen().context("installing signal handlers failed")?;
    let stop = CancellationToken::new();
    let stop_on_signal = stop.clone();
    tokio::spawn(async move {
        signals.shutdown().await;
        tracing::info!("stopping");
        stop_on_signal.cancel();
    });
    app::run(config, listener, stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn healthcheck(config: Config) -> anyhow::Result<ExitCode> {
    let address = app::reachable(config.listen);
    let reply = tokio::time::timeout(Duration::from_secs(5), request_readiness(address));
    let status = reply.await.context("no response in 5 s")?.with_context(|| format!("no response from {address}"))?;
    print_line!("{address} answers {status}");
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn request_readiness(address: std::net::SocketAddr) -> anyhow::Result<hyper::StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/readyz")
        .header(hyper::header::HOST, address.to_string())
        .body(http_body_util::Empty::<bytes::Bytes>::new())?;
    Ok(sender.send_request(request).await?.status())
}

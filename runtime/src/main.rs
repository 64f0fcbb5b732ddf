//! The program: `orchestrator [--config FILE] http` runs the daemon; what else may be typed is answered by [`command_line`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use orchestrator::command_line::{self, Arguments, Judged, Refused, Wish};
use orchestrator::config::{Loaded, Remark, Settings};
use orchestrator::daemon::{Prepared, Reload, Running};
use orchestrator::env::{DedicatedRuntime, Env, TokioEnv};
use orchestrator::hooks::{Hooks, Processes};
use orchestrator::kv::{AfterPublication, Publisher};
use orchestrator::mysql::Mysql;
use orchestrator::{backend, forced, raft, wiring};
use orchestrator_core::node::Input;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

mod verbs;

use verbs::Verb;

/// Wishes to read the configuration again that may wait.
const RELOADS_AHEAD: usize = 4;

fn main() -> ExitCode {
    let arguments = match command_line::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(refused) => return refuse(&refused),
    };
    let done = match &arguments.wish {
        Wish::Serve => run(arguments),
        Wish::Print(text) => {
            print!("{text}");
            Ok(())
        }
        Wish::Command { name, forced, said } => match load(&arguments) {
            Ok(loaded) => match command_line::answer_command(name, *forced, &loaded.settings) {
                Ok(Judged::Print(text)) => {
                    print!("{text}");
                    Ok(())
                }
                Ok(Judged::Run(command)) => {
                    found(loaded).and_then(|loaded| run_command(&command, said, &loaded.settings))
                }
                Err(refused) => return refuse(&refused),
            },
            Err(error) => Err(error),
        },
        Wish::Form { with } => run_verb(Verb::Form(with.clone()), &arguments),
        Wish::InitCertificates { folder, hosts } => verbs::init_certificates(folder, hosts),
        Wish::Export { file } => run_verb(Verb::Export(file.clone()), &arguments),
        Wish::Recover { from, is_meant } => {
            let (from, is_meant) = (from.clone(), *is_meant);
            run_verb(Verb::Recover { from, is_meant }, &arguments)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            wiring::notify_status(&format!("{error:#}"));
            // A daemon's log goes to the same place, if it is not turned off.
            if tracing::dispatcher::has_been_set() && tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{error:#}");
            } else {
                eprintln!("orchestrator: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Carries a command out on this machine's backend.
fn run_command(command: &str, said: &forced::Said, settings: &Settings) -> anyhow::Result<()> {
    let runtime = DedicatedRuntime::start("command", 1)?;
    let seen = runtime.run(forced::run::<TokioEnv>(command, said, settings));
    runtime.stop();
    let seen = seen.map_err(anyhow::Error::msg)?;
    eprintln!("orchestrator: {}", seen.remark);
    print!("{}", seen.text);
    Ok(())
}

fn refuse(refused: &Refused) -> ExitCode {
    eprintln!("orchestrator: {}", refused.text.trim_end());
    ExitCode::from(refused.code)
}

fn load(arguments: &Arguments) -> anyhow::Result<Loaded> {
    let env = |name: &str| std::env::var(name).ok();
    Ok(Settings::load(arguments.config.as_deref(), &env)?)
}

/// Whatever runs needs a file: by the defaults alone a daemon has no backend.
fn found(loaded: Loaded) -> anyhow::Result<Loaded> {
    let directory = std::env::current_dir().unwrap_or_default();
    match loaded.nothing_found(&directory) {
        Some(text) => bail!("{text}"),
        None => Ok(loaded),
    }
}

fn run_verb(verb: Verb, arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(arguments).and_then(found)?;
    verbs::run(verb, &loaded.settings)
}

fn tell(remarks: &[Remark]) {
    for Remark { is_warning, text } in remarks {
        if *is_warning {
            tracing::warn!("{text}");
        } else {
            tracing::info!("{text}");
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments).and_then(found)?;
    let process = &loaded.settings.process;
    let log_format = arguments.log_format.unwrap_or(process.log_format);
    let level = if process.debug { "debug" } else { "info" };
    wiring::start_log(arguments.level.unwrap_or(level), log_format);
    if !arguments.ignored.is_empty() {
        tracing::warn!(
            "these flags mean nothing to the daemon: {}",
            arguments.ignored.join(", ")
        );
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for file in &loaded.files {
        tracing::info!("configuration read from {}", file.display());
    }
    let settings = loaded.settings;
    tell(&settings.remarks());

    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let main_runtime = DedicatedRuntime::start("orchestrator", threads)?;
    let raft_runtime = DedicatedRuntime::start("raft", 2)?;
    // From the first moment on: unheard, the signal ends a process.
    let hang_up = main_runtime.run(async { signal(SignalKind::hangup()) })?;
    let host_name = wiring::host_name();
    let token = wiring::process_token::<TokioEnv>()?;
    let hooks = Arc::new(Processes::new(settings.hooks.clone()));
    let (publisher, publication) = Publisher::new(&settings.kv);
    let run_hooks: Arc<dyn Hooks> = Arc::new(AfterPublication::<TokioEnv>::new(
        hooks.clone(),
        publication.clone(),
    ));
    let mut daemon_settings = wiring::daemon_settings(&settings, &host_name, &token, run_hooks)?;
    daemon_settings.publication = Some(publication);
    let (reloads, asked_to_reload) = mpsc::channel(RELOADS_AHEAD);
    daemon_settings.reloads = Some(reloads);
    let mut raft_settings = wiring::raft_settings(&settings)?;
    let known = raft_runtime.run(raft::look::<TokioEnv>(&mut raft_settings))?;
    let backend_settings = backend::Settings {
        daemon: wiring::daemon_name(&raft_settings),
        identity: Some(known.node),
        cluster: known.cluster,
        host_name: host_name.clone(),
        token: token.clone(),
        command: String::from("http"),
        ..backend::Settings::new(&settings.backend)
    };
    let place = backend_settings.place.clone();
    let fleet = Mysql::<TokioEnv>::new(wiring::probe_settings(&settings)?);

    let seed = TokioEnv::random_seed().context("randomness of the operating system")?;
    let attachable = main_runtime.run(async {
        let opened = backend::open::<TokioEnv>(backend_settings).await?;
        raft_settings.backend = opened.for_start();
        let prepared = Prepared::<TokioEnv, _>::new(daemon_settings, fleet, seed, Some(opened));
        let (driver, attachable) = prepared.split();
        orchestrator::env::spawn::<TokioEnv>(driver);
        anyhow::Ok(attachable)
    })?;
    let data_dir = raft_settings.data_dir.clone();
    note_panics(data_dir.clone());
    let started = raft_runtime.run(raft::start::<TokioEnv>(
        raft_settings,
        attachable.ends.replica.clone(),
    ));
    let (raft, report) = match started {
        Ok(started) => started,
        Err(raft::StartError::Held(reason)) => {
            return main_runtime.run(hold(attachable, reason, hang_up));
        }
        Err(raft::StartError::Refused(reason)) => {
            bail!(
                "{}, RaftDataDir: {}: {reason}",
                backend::Named(&place),
                data_dir.display()
            );
        }
        Err(error) => {
            // Of a node that failed while the log was replayed, raft knows only that it is gone.
            let failed = attachable.ends.fatal.borrow().clone();
            let Some(fatal) = failed else {
                return Err(error.into());
            };
            if let Some(at) = fatal.entry
                && let Err(error) = raft::note_broken::<TokioEnv>(&data_dir, at, at, &fatal.reason)
            {
                tracing::warn!("that entry {at} failed is not noted: {error}");
            }
            bail!("{}", fatal.reason);
        }
    };
    tracing::info!(
        "raft node {} (boot {}) listens on {}, advertised as {}",
        report.node,
        report.boot,
        report.listening,
        report.advertise
    );
    let outcome = main_runtime.run(serve(
        arguments,
        settings,
        hooks,
        publisher,
        attachable,
        (raft, report),
        (hang_up, asked_to_reload),
    ));
    main_runtime.stop();
    raft_runtime.stop();
    outcome
}

/// Reads the configuration again, and obeys what needs no restart. What changed and waits for one, or what is wrong with it.
fn read_again(
    arguments: &Arguments,
    in_force: &mut Settings,
    hooks: &Processes,
    running: &Running<TokioEnv>,
) -> Result<String, String> {
    let loaded = match load(arguments).and_then(found) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("configuration not reloaded, the old one stays in force: {error:#}");
            return Err(format!("{error:#}"));
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let waits = Settings::reloadable_diff(in_force, &loaded.settings).join(", ");
    if !waits.is_empty() {
        tracing::warn!("changed, and obeyed only after a restart: {waits}");
    }
    let obeyed = Settings::reloaded_diff(in_force, &loaded.settings).join(", ");
    let told = in_force.remarks();
    *in_force = in_force.reloaded(&loaded.settings);
    let mut remarks = in_force.remarks();
    remarks.retain(|remark| !told.contains(remark));
    tell(&remarks);
    running.handle.reload(in_force.policy());
    hooks.reload(in_force.hooks.clone());
    running.handle.input(Input::LocalHooks(hooks.counts()));
    let obeyed = if obeyed.is_empty() {
        "nothing changed"
    } else {
        &obeyed
    };
    tracing::info!(
        "configuration read again; obeyed from here on, if this daemon leads or will: {obeyed}"
    );
    Ok(waits)
}

/// A panic while an entry of the log is applied is noted with the entry, so that it is not tried without end. In a release
/// build the process ends right after this.
fn note_panics(data_dir: PathBuf) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        if let Some((first, last)) = orchestrator::driver::applying()
            && let Err(error) =
                raft::note_broken::<TokioEnv>(&data_dir, first, last, &panic.to_string())
        {
            eprintln!("orchestrator: that entries {first} to {last} failed is not noted: {error}");
        }
    }));
}

/// Runs a daemon that acts on nothing, until it is told to end.
async fn hold(
    attachable: orchestrator::daemon::Attachable<TokioEnv>,
    reason: String,
    mut hang_up: Signal,
) -> anyhow::Result<()> {
    tracing::error!("{reason}");
    wiring::notify_status(&format!("only HTTP is served: {reason}"));
    let held = attachable.hold(reason).await.map_err(anyhow::Error::msg)?;
    tracing::error!("only HTTP is served, at {}", held.http_address);
    wiring::notify_ready();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => tracing::warn!("configuration not reloaded: this daemon acts on nothing"),
        }
    }
}

async fn serve(
    arguments: Arguments,
    settings: Settings,
    hooks: Arc<Processes>,
    publisher: Publisher,
    attachable: orchestrator::daemon::Attachable<TokioEnv>,
    (raft, report): (raft::RaftHandle<TokioEnv>, raft::StartReport),
    (mut hang_up, mut asked_to_reload): (Signal, mpsc::Receiver<Reload>),
) -> anyhow::Result<()> {
    let running = attachable
        .attach(raft, report)
        .await
        .map_err(anyhow::Error::msg)?;
    tracing::info!("HTTP is served at {}", running.http_address);
    let publishing = publisher.run::<TokioEnv>(running.handle.clone(), running.backend.clone());
    orchestrator::env::spawn::<TokioEnv>(publishing);
    wiring::notify_ready();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut in_force = settings;
    loop {
        tokio::select! {
            biased;
            reason = running.failed() => bail!("{reason}"),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => drop(read_again(&arguments, &mut in_force, &hooks, &running)),
            Some(reply) = asked_to_reload.recv() => {
                // Whoever asked may have given up.
                let _ = reply.send(read_again(&arguments, &mut in_force, &hooks, &running));
            }
        }
    }
    tracing::info!("stopping");
    let stopping = running.stop();
    if orchestrator::env::timeout::<TokioEnv, _>(Duration::from_secs(5), stopping)
        .await
        .is_none()
    {
        tracing::warn!("raft did not end within 5 s; ending without it");
    }
    Ok(())
}

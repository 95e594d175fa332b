//! `userfault map`: a file as externalized memory, every byte of it read through faults and compared.
//!
//! ```text
//! readers (reader.rs) ── touch ──> region ── fault ──> monitors ── pread ──> file
//!        └── pread, compare, discard behind ──────────────────────────────────┘
//! ```
//!
//! Whoever finds that the file cannot be read any more prints that and ends the process, before a page that
//! will never come can become a signal.

mod chart;
mod order;
mod plan;
mod reader;
mod report;

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use userfault::prelude::*;
use userfault::{Builder, Choice, FileSource, MonitorStats, Protocol, RegisterModes, SourceError, Uffd};

use crate::args::{self, Map};
use crate::fail::{Unusable, end};
use plan::Plan;
use reader::{Job, Seen};
use report::Report;

/// Work that is shorter shows no progress.
const LONG: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn run(map: &Map) -> Result<ExitCode> {
    let name = map.file.display().to_string();
    check_words(map)?;
    let source = FileSource::open(&map.file)
        .map_err(|error| anyhow::anyhow!("{name} cannot be mapped: {error}{}", hint(error.kind())))?;
    let uffd = open(map)?;
    let plan = Plan::new(map, &source, uffd.capabilities().page_size)?;
    let started = Instant::now();
    let (seen, stats) =
        if plan.pages == 0 { (Seen::nothing()?, MonitorStats::default()) } else { read(&name, &source, &uffd, &plan)? };
    let seconds = started.elapsed().as_secs_f64();
    source.check_length().map_err(|error| anyhow::anyhow!(describe(&name, &error)))?;
    let report = Report { map, plan: &plan, uffd: &uffd, stats, seen: &seen, seconds };
    report.print()?;
    Ok(if seen.mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to do about a file that cannot be opened.
fn hint(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::NotFound {
        "; check its path"
    } else if kind == io::ErrorKind::PermissionDenied {
        "; allow this user to read it and to enter its folders"
    } else {
        ""
    }
}

/// Refuses what cannot be combined on any machine.
fn check_words(map: &Map) -> Result<(), Unusable> {
    if map.protocol == args::Protocol::Original && map.provider == args::Provider::Linux {
        return Err(Unusable(
            "--protocol original cannot be combined with --provider linux: no released kernel speaks it; \
             use --provider process"
                .to_owned(),
        ));
    }
    if map.protocol == args::Protocol::Original && map.answer == args::Answer::Inline {
        return Err(Unusable(
            "--answer inline cannot be combined with --protocol original, which knows no fills: leave one of them out"
                .to_owned(),
        ));
    }
    if let (Some(seed), args::Order::Sequential) = (map.seed, map.order) {
        return Err(Unusable(format!(
            "--seed {seed} chooses a random order, but the order is sequential; add --order random or leave out --seed"
        )));
    }
    Ok(())
}

fn open(map: &Map) -> Result<Uffd> {
    let choice = match map.provider {
        args::Provider::Auto => Choice::Auto,
        args::Provider::Linux => Choice::Linux,
        args::Provider::Process => Choice::Process,
    };
    let protocol = match map.protocol {
        args::Protocol::Modern => Protocol::Modern,
        args::Protocol::Original => Protocol::Original { fills: false },
    };
    let builder = Builder::new().provider(choice).protocol(protocol);
    Ok(if map.answer == args::Answer::Inline { builder.answer_inline() } else { builder }.open()?)
}

/// Reads and compares everything.
fn read(name: &str, source: &FileSource, uffd: &Uffd, plan: &Plan) -> Result<(Seen, MonitorStats)> {
    let region = uffd
        .map(plan.pages, RegisterModes::MISSING)
        .with_context(|| format!("{} pages of addresses cannot be had", plan.pages))?;
    let told = name.to_owned();
    let builder =
        uffd.monitor(&region).with_window(plan.window).on_error(move |error| end(&format!("{told}: {error}")));
    let monitor = match plan.answer {
        args::Answer::Monitor => builder.serve_with_threads(plan.monitors, source.clone()),
        args::Answer::Inline => builder.serve_inline_with_threads(plan.monitors, source.clone()),
    }?;
    let job = Job::new(name, source, &region, plan)?;
    let histograms: Vec<Histogram<u64>> = (0..plan.threads).map(|_| reader::histogram()).collect::<Result<_>>()?;
    let (ended, end_of_reader) = mpsc::channel();
    std::thread::scope(|scope| {
        for histogram in histograms {
            let (job, ended) = (&job, ended.clone());
            let reader = move || {
                // The receiver waits for all of them.
                let _sent = ended.send(job.read(histogram));
            };
            std::thread::Builder::new()
                .spawn_scoped(scope, reader)
                .unwrap_or_else(|error| end(&format!("a thread cannot be started: {error}; give fewer --threads")));
        }
        drop(ended);
        let mut seen = Seen::nothing()?;
        let bar = progress(plan);
        let started = Instant::now();
        loop {
            match end_of_reader.recv_timeout(TICK) {
                Ok(part) => seen.add(&part?),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if started.elapsed() > LONG => bar.set_position(job.pages_done()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        bar.finish_and_clear();
        Ok::<_, anyhow::Error>(seen)
    })
    .and_then(|seen| Ok((seen, monitor.join()?)))
}

fn describe(name: &str, error: &SourceError) -> String {
    let is_read = matches!(error, SourceError::Read { .. });
    let advice = if is_read { "; see `dmesg` for the disk, and try with a copy of the file" } else { "" };
    format!("{name}: {error}{advice}")
}

/// A bar on standard error if that is a terminal; it shows itself when it is first moved.
fn progress(plan: &Plan) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(plan.pages as u64), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} pages, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

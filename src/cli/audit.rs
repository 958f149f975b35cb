//! `bkbench audit`: what must hold of a model before its numbers mean anything.

use std::path::PathBuf;

use toml::Table;

use super::session::Session;
use crate::bench::Progress;
use crate::bench::run::Part;
use crate::config::Config;
use crate::data::{self, Dataset};
use crate::eval::audit;
use crate::hardware::{self, DeviceChoice, Hardware};
use crate::models::BatchShape;
use crate::models::registry::{Architecture, matched_shapes};
use crate::results::{AuditCheck, AuditReport, Finding, Verdict};
use crate::verify::audit::Audit;
use crate::verify::flops;
use crate::{Error, Result};

/// Which model, with which settings. Flags override --config, which overrides --preset.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub struct Args {
    /// The model to audit
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Settings to start from: smoke, laptop, t4, guide [default: smoke; guide beneath --config, as in `run`]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// TOML file with settings, see configs/
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// auto, cpu, cuda, or wgpu[:vulkan|metal|dx12|gl][:index or name]; see `bkbench devices`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Count floating-point operations instead, and check every operation's count
    #[arg(long)]
    flops: bool,
    /// With --flops, every operation by itself
    #[arg(long, requires = "flops")]
    verbose: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print the hashes of a short training and stop: what an audit asks of a second process
    #[arg(long, hide = true)]
    hash_training: bool,
}

/// Audits one model and prints a line for each check.
///
/// # Errors
/// Bad input; a broken device; [`Error::CheckFailed`] when a check fails.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let config = args.resolve()?;
    let model = Architecture::parse(&args.model)?;
    let choice: DeviceChoice = config.device.name.parse()?;
    let hardware = hardware::open(&choice, config.device.require_adapter.as_deref())?;
    hardware.require(config.train.precision)?;
    let dataset = data::load(&config.data, &mut |line| {
        if !quiet {
            eprintln!("{line}");
        }
    })?;
    if args.flops {
        return args.flops(model, &config, &hardware, &dataset);
    }
    let program = program()?;
    let audit = Audit {
        config: &config,
        hardware: &hardware,
        dataset: &dataset,
        program: &program,
    };
    if args.hash_training {
        let vocab_size = dataset.tokenizer.vocab_size();
        for shape in matched_shapes(&[model], &config.model, vocab_size)? {
            println!("{}", serde_json::to_string(&audit.hash_training(&shape)?)?);
        }
        return Ok(());
    }
    let reports = audit.models(&[model], &mut |_| {})?;
    if args.json {
        let document = serde_json::json!({
            "passed": reports.iter().all(|report| report.failures().next().is_none()),
            "device": hardware.fingerprint,
            "reports": reports,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        println!("on {}", hardware.fingerprint.adapter);
        for check in reports.iter().flat_map(|report| &report.checks) {
            println!("{check}");
        }
    }
    match reports.iter().flat_map(AuditReport::failures).count() {
        0 => Ok(()),
        n => Err(Error::CheckFailed(format!("{n} check(s) failed for {}", args.model)).into()),
    }
}

impl Args {
    /// Counts what the model costs on one sequence of the audit's length.
    fn flops(
        &self,
        model: Architecture,
        config: &Config,
        hardware: &Hardware,
        dataset: &Dataset,
    ) -> anyhow::Result<()> {
        let vocab_size = dataset.tokenizer.vocab_size();
        let shape = matched_shapes(&[model], &config.model, vocab_size)?.remove(0);
        let tokens = BatchShape {
            batch: 1,
            seq_len: audit::n_tokens(&config.longcontext.seq_lengths),
        };
        let report = flops::report(&shape, config, &dataset.train, hardware, tokens)?;
        let failures = report.failures();
        if self.json {
            let document = serde_json::json!({
                "passed": failures.is_empty(),
                "device": hardware.fingerprint,
                "report": report,
            });
            println!("{}", serde_json::to_string_pretty(&document)?);
        } else {
            println!("on {}", hardware.fingerprint.adapter);
            if self.verbose {
                print!("{report:#}");
            } else {
                print!("{report}");
            }
        }
        match failures.first() {
            None => Ok(()),
            Some(first) => Err(Error::CheckFailed(format!(
                "{} count(s) do not agree for {}; {first}",
                failures.len(),
                self.model
            ))
            .into()),
        }
    }

    fn resolve(&self) -> Result<Config> {
        let mut flags = Table::new();
        if let Some(device) = &self.device {
            let device = Table::from_iter([("name".to_owned(), device.as_str().into())]);
            flags.insert("device".into(), device.into());
        }
        let default = if self.config.is_some() {
            "guide"
        } else {
            "smoke"
        };
        let preset = self.preset.as_deref().unwrap_or(default);
        Config::resolve(Some(preset), self.config.as_deref(), flags)
    }
}

/// Audits all models of a run before any is trained. A model that is not causal is trained all the same, and its
/// numbers stand by themselves.
///
/// # Errors
/// As [`Audit::models`]; [`Error::CheckFailed`] when anything but causality fails.
pub(super) fn before_run(
    session: &Session,
    progress: &mut dyn Progress,
) -> Result<Vec<AuditReport>> {
    let Session {
        config,
        hardware,
        parts,
        ..
    } = session;
    // A model that was given is audited where it is measured.
    let Some(Part {
        config: of_part,
        dataset,
        given: None,
        ..
    }) = parts.first()
    else {
        return Ok(Vec::new());
    };
    // The other process loads the same text.
    let config = &Config {
        data: of_part.data.clone(),
        ..config.clone()
    };
    let models: Vec<Architecture> = config
        .models
        .names()
        .map(Architecture::parse)
        .collect::<Result<_>>()?;
    let program = program()?;
    let audit = Audit {
        config,
        hardware,
        dataset,
        program: &program,
    };
    let reports = audit.models(&models, &mut |report| {
        let passed = |check: &&AuditCheck| check.verdict == Verdict::Pass;
        let n_passed = report.checks.iter().filter(passed).count();
        progress.message(&format!(
            "audit of {}: {n_passed} of {} checks pass",
            report.model,
            report.checks.len()
        ));
        for check in report.checks.iter().filter(|check| !passed(check)) {
            progress.message(&format!("  {check}"));
        }
    })?;
    let stops = |finding: &&Finding| !finding.is_about_causality();
    for report in &reports {
        if let Some(finding) = report.failures().find(stops) {
            return Err(Error::CheckFailed(format!(
                "{} failed its audit: {finding}; nothing was trained; look closer with `bkbench audit --model {}` \
                 and the settings of this run, and check the device with `bkbench verify`",
                report.model, report.model
            )));
        }
    }
    Ok(reports)
}

/// This program, of which an audit starts a second process.
fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(Error::io("find", "this program"))
}

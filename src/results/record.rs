//! The document `result.json`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{
    AuditReport, Cell, DatasetSummary, Datasets, EfficiencyGuide, EfficiencyPoint, EfficiencyRatio,
    GuideResults, Machine, ModelLimits, MultidatasetGuide, NO_CONTEXT, QuantizationGuide,
    RecallResult, RecallVerdict, Seal, Summary, Tuning, Warning, WidthSummary, efficiency, limits,
    multidataset, quantization, summary,
};
use crate::config::{Benchmark, Config, SeedConfig, canonical_sha256, registered_name};
use crate::{Error, Result};

/// Version of the file's form; raised by any change that an older reader would misread.
pub const SCHEMA_VERSION: u32 = 4;

/// Version of the procedure; raised whenever the same configuration would give other numbers.
pub const PROTOCOL_VERSION: u32 = 3;

/// Name of the record in a run's folder.
pub(super) const FILE_NAME: &str = "result.json";

/// Everything a run found and how it came to find it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// [`PROTOCOL_VERSION`] of the writer.
    pub protocol_version: u32,
    /// Who wrote it, when, called how.
    pub provenance: Provenance,
    /// Fingerprint of the machine and of the adapter that ran.
    pub hardware: serde_json::Value,
    /// What else is known of the machine; absent in records of programs that did not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Files outside the run's folder, and checkpoints.
    #[serde(default, skip_serializing_if = "Files::is_default")]
    pub files: Files,
    /// The resolved configuration.
    pub config: Config,
    /// [`Config::sha256`] of it.
    pub config_sha256: String,
    /// Manifest of the text: names, splits, counts, hashes. The multidataset benchmark has its own in `datasets`.
    pub data: serde_json::Value,
    /// The datasets of the multidataset benchmark; absent from runs without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasets: Option<Datasets>,
    /// What was checked of the models before they were trained, and of each again after its first training.
    #[serde(default)]
    pub audits: Vec<AuditReport>,
    /// One entry a model, setting and seed, in the order in which they ran.
    pub cells: Vec<Cell>,
    /// Means over seeds; derived from the cells.
    pub summaries: Vec<Summary>,
    /// The lengths each model reaches; derived from the cells of the long-context benchmark.
    pub limits: Vec<ModelLimits>,
    /// The models in fewer bits, means over seeds; derived from the cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantization: Vec<WidthSummary>,
    /// The models under budgets of FLOPs, means over seeds; derived from the cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub efficiency: Vec<EfficiencyPoint>,
    /// FLOPs of the second model over those of the first at equal loss; derived from the cells, absent where their fronts
    /// do not overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency_ratio: Option<EfficiencyRatio>,
    /// The models on each dataset, means over seeds; derived from the cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multidataset: Vec<DatasetSummary>,
    /// The recall probe, one entry a model and seed; empty where it did not run.
    pub recall: Vec<RecallResult>,
    /// Whether the probe's numbers mean anything; derived from its entries.
    pub recall_verdict: Option<RecallVerdict>,
    /// How learning rates were chosen; absent where one was given for all models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// What to know before quoting a number.
    pub warnings: Vec<Warning>,
    /// How its file was found; intact for one that was not read from a file.
    #[serde(skip)]
    pub seal: Seal,
}

/// Origin of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of this crate.
    pub bkbench_version: String,
    /// Start of the run, RFC 3339, UTC.
    pub started_utc: String,
    /// Operating system and processor architecture the binary was built for.
    pub platform: String,
    /// The command line.
    pub argv: Vec<String>,
    /// When and how the run was taken up again after it had stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumptions: Vec<Resumption>,
    /// The runs that it was merged from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<Shard>,
}

/// A run that became part of a merged one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its folder or record, as the command line named it.
    pub run: String,
    /// [`RunRecord::content_sha256`] of its record.
    pub record_sha256: String,
    /// Its seeds.
    pub seeds: SeedConfig,
    /// Where it came from.
    pub provenance: Provenance,
}

/// A `bkbench resume` that trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumption {
    /// Its start, RFC 3339, UTC.
    pub started_utc: String,
    /// Its command line.
    pub argv: Vec<String>,
}

/// What a run was told to write beside its record; a resumed run does the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Absolute folder in which the run makes one for its checkpoints; its own folder where absent.
    pub checkpoint_dir: Option<PathBuf>,
    /// Whether the last checkpoint of a finished cell is kept.
    pub keep_checkpoints: bool,
    /// Absolute name of the guide's JSON.
    pub output: Option<PathBuf>,
}

impl Files {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The folder of the checkpoints of the run in `run`, one folder a cell.
    pub fn checkpoints(&self, run: &Path) -> PathBuf {
        match (&self.checkpoint_dir, run.file_name()) {
            (Some(dir), Some(name)) => dir.join(name),
            _ => run.join("checkpoints"),
        }
    }
}

impl Provenance {
    /// That of this process, started now.
    pub fn of_this_process() -> Self {
        Self {
            bkbench_version: env!("CARGO_PKG_VERSION").into(),
            started_utc: now(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            argv: argv(),
            resumptions: Vec::new(),
            shards: Vec::new(),
        }
    }

    /// Notes that this process takes the run up again.
    pub fn resume(&mut self) {
        self.resumptions.push(Resumption {
            started_utc: now(),
            argv: argv(),
        });
    }
}

/// This moment, RFC 3339, UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

fn argv() -> Vec<String> {
    std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

impl RunRecord {
    /// A record without cells.
    ///
    /// # Errors
    /// If the configuration cannot be hashed.
    pub fn new(
        config: Config,
        hardware: serde_json::Value,
        data: serde_json::Value,
    ) -> Result<Self> {
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            protocol_version: PROTOCOL_VERSION,
            provenance: Provenance::of_this_process(),
            hardware,
            machine: None,
            files: Files::default(),
            config_sha256: config.sha256()?,
            config,
            data,
            datasets: None,
            audits: Vec::new(),
            cells: Vec::new(),
            summaries: Vec::new(),
            limits: Vec::new(),
            quantization: Vec::new(),
            efficiency: Vec::new(),
            efficiency_ratio: None,
            multidataset: Vec::new(),
            recall: Vec::new(),
            recall_verdict: None,
            tuning: None,
            warnings: Vec::new(),
            seal: Seal::Intact,
        })
    }

    /// Appends a finished cell and brings what is derived from the cells up to date.
    pub fn push(&mut self, cell: Cell) {
        self.cells.push(cell);
        self.derive();
    }

    /// Recomputes everything that follows from the cells; in a record of both ways to set learning rates, from those of
    /// the first way.
    pub fn derive(&mut self) {
        if let Some(tuning) = &mut self.tuning {
            tuning.derive();
        }
        if let [first, _, ..] = self.config.fairness[..] {
            let way = self.in_way(first);
            self.summaries = way.summaries;
            self.limits = way.limits;
            self.quantization = way.quantization;
            self.efficiency = way.efficiency;
            self.efficiency_ratio = way.efficiency_ratio;
            self.multidataset = way.multidataset;
            return;
        }
        self.summaries = summary::summarise(&self.cells);
        summary::adjust(self);
        self.limits = limits::limits(&self.cells, self.config.seeds.count);
        self.quantization = quantization::summarise(&self.cells);
        self.efficiency = efficiency::points(self);
        self.efficiency_ratio = efficiency::ratio(self).ok();
        self.multidataset = multidataset::summarise(&self.cells);
    }

    /// The same of one benchmark alone: its settings, its cells, and what follows from them.
    #[must_use]
    pub fn only(&self, benchmark: Benchmark) -> Self {
        let mut record = self.with(self.config.only(benchmark));
        record.cells.retain(|cell| cell.benchmark == benchmark);
        if let Some(tuning) = &mut record.tuning {
            tuning.trials.retain(|trial| trial.benchmark == benchmark);
            tuning.chosen.retain(|chosen| chosen.benchmark == benchmark);
        }
        record.summaries.retain(|it| it.benchmark == benchmark);
        if benchmark != Benchmark::Longcontext {
            record.limits.clear();
            record.recall.clear();
            record.recall_verdict = None;
        }
        if benchmark != Benchmark::Quantization {
            record.quantization.clear();
        }
        if benchmark != Benchmark::Efficiency {
            record.efficiency.clear();
            record.efficiency_ratio = None;
        }
        if benchmark != Benchmark::Multidataset {
            record.multidataset.clear();
            record.datasets = None;
        }
        record
    }

    /// Cells of the whole run in one way of setting learning rates.
    pub fn n_cells(&self) -> u64 {
        let datasets = self.datasets.as_ref();
        let n_datasets = datasets.map_or(0, |datasets| datasets.present.len());
        self.config.n_cells(n_datasets)
    }

    /// The same with a part of its configuration, whose hash agrees where that of the whole does.
    pub(super) fn with(&self, config: Config) -> Self {
        let mut record = self.clone();
        let is_whole = self
            .config
            .sha256()
            .is_ok_and(|it| it == self.config_sha256);
        if let (true, Ok(hash)) = (is_whole, config.sha256()) {
            record.config_sha256 = hash;
        }
        record.config = config;
        record
    }

    /// Every benchmark of the run alone, in the order in which they ran.
    pub fn parts(&self) -> Vec<Self> {
        let benchmarks = self.config.benchmarks.iter();
        benchmarks.map(|&benchmark| self.only(benchmark)).collect()
    }

    /// Whether all that follows from the cells is what they give.
    pub fn is_derived(&self) -> bool {
        let mut again = self.clone();
        again.derive();
        again == *self
    }

    /// Whether no audit of `model` saw a logit that depends on a later token. The numbers of a model that
    /// has seen its targets are compared with no other's.
    pub fn is_causal(&self, model: &str) -> bool {
        let name = registered_name(model);
        let audits = self.audits.iter().filter(|audit| audit.model == name);
        audits.into_iter().all(AuditReport::is_causal)
    }

    /// Whether the control that sees no context is among the models.
    pub fn has_control(&self) -> bool {
        self.config.models.names().any(|name| name == NO_CONTEXT)
    }

    /// The cell of that identity.
    pub fn cell(&self, id: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.id == id)
    }

    /// The manifest of the text that a cell is about.
    pub fn manifest_of(&self, cell: &Cell) -> &serde_json::Value {
        let dataset = cell.on_dataset.as_ref().map(|on| on.dataset.as_str());
        self.manifest(dataset)
    }

    /// The manifest of a dataset of the multidataset benchmark, or else of the run's own text.
    pub fn manifest(&self, dataset: Option<&str>) -> &serde_json::Value {
        let present = self.datasets.iter().flat_map(|it| &it.present);
        let mut named = present.filter(|it| it["name"].as_str() == dataset);
        let named = dataset.and_then(|_| named.next());
        named.unwrap_or(&self.data)
    }

    /// The cell that did the training of that name: the first that has it.
    pub fn trained_by(&self, training: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.training == training)
    }

    /// Appends an entry of the recall probe and brings the verdict up to date.
    pub fn push_recall(&mut self, result: RecallResult) {
        self.recall.push(result);
        self.recall_verdict = RecallVerdict::of(&self.recall);
    }

    /// sha256 of everything in it, which its file names beside it.
    ///
    /// # Errors
    /// As [`canonical_sha256`].
    pub fn content_sha256(&self) -> Result<String> {
        canonical_sha256(self)
    }

    /// Reads a record from its file or from the folder of its run. Whether somebody edited it is in its
    /// [seal](RunRecord::seal).
    ///
    /// # Errors
    /// [`Error::BadInput`] if the file cannot be read, is not JSON, or is no record of this schema version.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_json(read_json(path)?, path)
    }

    /// Refuses a record, read from `path`, that is not as it was written: nothing may be built on it.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong.
    pub fn require_seal(&self, path: &Path) -> Result<()> {
        match self.seal.problem() {
            None => Ok(()),
            Some(problem) => Err(Error::bad_input(
                path.display().to_string(),
                problem,
                RESTORE,
            )),
        }
    }

    /// Refuses a record, read from `path`, of another protocol.
    ///
    /// # Errors
    /// [`Error::BadInput`] with both versions.
    pub fn require_protocol(&self, path: &Path) -> Result<()> {
        match self.other_protocol() {
            None => Ok(()),
            Some(problem) => Err(Error::bad_input(
                path.display().to_string(),
                problem,
                "use the version of bkbench that wrote it, or run it again",
            )),
        }
    }

    /// What is to be said of a record of another protocol than this program's.
    pub fn other_protocol(&self) -> Option<String> {
        (self.protocol_version != PROTOCOL_VERSION).then(|| {
            format!(
                "recorded by protocol {}, and this program's is {PROTOCOL_VERSION}: their numbers are not comparable",
                self.protocol_version
            )
        })
    }

    fn from_json(mut json: serde_json::Value, path: &Path) -> Result<Self> {
        let bad = |problem: String, advice: &str| {
            Error::bad_input(path.display().to_string(), problem, advice)
        };
        let version = json.get("schema_version").map(serde_json::Value::as_u64);
        match version {
            None => Err(bad(
                "not the record of a run: it has no schema_version".into(),
                WHAT_TO_GIVE,
            )),
            Some(Some(version)) if version == u64::from(SCHEMA_VERSION) => {
                let seal = Seal::take_from(&mut json)?;
                let mut record: Self = serde_json::from_value(json)
                    .map_err(|error| bad(format!("a damaged record: {error}"), RESTORE))?;
                summary::adjust_if_absent(&mut record);
                record
                    .config
                    .validate()
                    .map_err(|error| bad(format!("a damaged record: {error}"), RESTORE))?;
                // Folders bear these names.
                let ids = record.cells.iter().flat_map(|it| [&it.id, &it.training]);
                if let Some(id) = ids.into_iter().find(|id| !is_id(id)) {
                    let problem = format!("a damaged record: '{id}' is no name of a cell");
                    return Err(bad(problem, RESTORE));
                }
                Ok(Self { seal, ..record })
            }
            Some(Some(version)) => Err(bad(
                format!("schema version {version}, and this program reads {SCHEMA_VERSION}"),
                if version > u64::from(SCHEMA_VERSION) {
                    "it was written by a newer bkbench: read it with that version"
                } else {
                    "it was written by an older bkbench: read it with that version"
                },
            )),
            Some(None) => Err(bad(
                "a damaged record: its schema_version is no number".into(),
                RESTORE,
            )),
        }
    }
}

/// The folder of a run that is named by it or by its record.
pub fn folder(run: &Path) -> &Path {
    if run.is_dir() {
        return run;
    }
    match run.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a text may be the name of a cell or of its training.
fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

const RESTORE: &str = "take an untouched copy, or run it again";
const WHAT_TO_GIVE: &str = "give the folder of a run or its result.json";

/// A file with results in one of the shapes this program writes.
#[derive(Debug, Clone, PartialEq)]
pub enum ResultsFile {
    /// `result.json`.
    Record(Box<RunRecord>),
    /// The file of `--output` of the long-context benchmark.
    Guide(GuideResults),
    /// The file of `--output` of the quantization benchmark.
    Quantization(QuantizationGuide),
    /// The file of `--output` of the efficiency benchmark.
    Efficiency(EfficiencyGuide),
    /// The file of `--output` of the multidataset benchmark.
    Multidataset(MultidatasetGuide),
}

impl ResultsFile {
    /// Reads any of these shapes, or the record in the folder of a run. Of a record of both ways to set learning rates
    /// it is the first, [`RunRecord::headline`].
    ///
    /// # Errors
    /// [`Error::BadInput`] if the file cannot be read or has none of them.
    pub fn load(path: &Path) -> Result<Self> {
        let json = read_json(path)?;
        if GuideResults::looks_like(&json) {
            GuideResults::from_json(json, path).map(Self::Guide)
        } else if QuantizationGuide::looks_like(&json) {
            QuantizationGuide::from_json(json, path).map(Self::Quantization)
        } else if EfficiencyGuide::looks_like(&json) {
            EfficiencyGuide::from_json(json, path).map(Self::Efficiency)
        } else if MultidatasetGuide::looks_like(&json) {
            MultidatasetGuide::from_json(json, path).map(Self::Multidataset)
        } else {
            let record = RunRecord::from_json(json, path)?;
            Ok(Self::Record(Box::new(record.headline())))
        }
    }
}

/// The JSON in a file, or in the record's file of a folder.
fn read_json(path: &Path) -> Result<serde_json::Value> {
    let file = if path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path.to_owned()
    };
    let bad = |problem| Error::bad_input(file.display().to_string(), problem, WHAT_TO_GIVE);
    let text = std::fs::read(&file).map_err(|error| bad(format!("cannot be read: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| {
        if error.is_eof() {
            let problem = format!("cut off: {error}");
            return Error::bad_input(file.display().to_string(), problem, RESTORE);
        }
        bad(format!("not JSON: {error}"))
    })
}

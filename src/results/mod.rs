//! The versioned record of a run: provenance, cells, atomic files, guide-shaped export.
//!
//! Raw values stand before summaries: everything in [`RunRecord::summaries`] and
//! [`RunRecord::limits`] can be recomputed from
//! [`RunRecord::cells`]. A number that is not finite never becomes a silent `null`: [`Finite`] is the only
//! float a record holds, absent values are options, and the cell's [`Outcome`] says why.

mod across;
mod audit;
mod cell;
mod checklist;
mod claims;
mod comparison;
mod compatibility;
mod difference;
mod efficiency;
mod finite;
mod flops;
mod guide;
mod guide_efficiency;
mod guide_multidataset;
mod guide_quantization;
mod guide_table;
mod kernel_error;
mod kernels;
mod limits;
mod longcontext;
mod machine;
mod memory;
mod merge;
mod multidataset;
mod numerics;
mod observation;
mod problems;
mod quantization;
mod rates;
mod recall;
mod record;
mod replay;
mod seal;
mod summary;
mod tuning;
mod warning;
mod ways;
mod writer;

pub use across::{
    AcrossAdapters, AdapterRuns, Agreement, LargestDifference, LossAt, Place, Shift, SpeedAt,
    WarningOn, across_adapters,
};
pub use audit::{
    AuditCheck, AuditReport, AuditedWeights, Finding, Leak, LeakSearch, UNEQUAL_RATIO, Verdict,
};
pub use cell::{
    Cell, CellKey, DivergenceCause, FailureKind, GivenWeights, Outcome, Parameters, TrainingKey,
};
pub use checklist::{CHECKLIST, ChecklistItem, ChecklistStatus, checklist};
pub use claims::{
    Claim, ClaimVerdict, Hypothesis, Judgement, Metric, OutcomeCounts, RatioTest, SettingJudgement,
    judge, lacking,
};
pub use comparison::{
    Comparison, ComparisonVerdict, GuideStatistics, MARGIN_RATIO, MeanPerplexity, Ratio, Survival,
    comparisons, why_not_compared,
};
pub use compatibility::{incomparable, not_poolable, texts};
pub use difference::Difference;
pub use efficiency::{AtBudget, EfficiencyPoint, EfficiencyRatio, why_no_efficiency_ratio};
pub use finite::Finite;
pub use flops::{
    COSTS, CostTable, Flops, FlopsAgreement, FlopsBreakdown, FlopsCategory, FlopsPass,
    FlopsPerToken, FlopsReport, FlopsRow,
};
pub use guide::{GuideEntry, GuideFile, GuideResults};
pub use guide_efficiency::{EfficiencyEntry, EfficiencyGuide};
pub use guide_multidataset::{DatasetEntry, MultidatasetGuide};
pub use guide_quantization::{QuantizationGuide, QuantizedEntry};
pub use kernel_error::{KernelError, kernel_drift};
pub use kernels::{KernelSpeed, KernelsReport};
pub use limits::{Censoring, Limit, ModelLimits, SEEDS_FOR_A_CLAIM, STEPS_FOR_A_CLAIM};
pub use longcontext::{
    Curves, Evaluation, Fault, LongContextMetrics, NonFinite, PositionBucket, UsefulContext,
};
pub use machine::Machine;
pub use memory::{Memory, MemoryLedger};
pub use merge::merge;
pub use multidataset::{AbsentDataset, DatasetSummary, Datasets, OnDataset};
pub use numerics::{Denormals, ExpAccuracy, KernelAccuracy, MultiplyAdd, Numerics};
pub use problems::problems;
pub use quantization::{AtWidth, ModelSize, QuantizationMetrics, Sensitivity, WidthSummary};
pub use rates::{CopyMethod, CopyRate, MatmulRate, Rates, Timestamps, Timing, TimingMethod};
pub use recall::{
    RecallBucket, RecallKey, RecallProtocol, RecallResult, RecallSequences, RecallVerdict,
    ShuffledControl,
};
pub use record::{
    Files, PROTOCOL_VERSION, Provenance, ResultsFile, Resumption, RunRecord, SCHEMA_VERSION, Shard,
    folder,
};
pub use replay::{Replay, ReplayCheck, ReplayVerdict};
pub use seal::Seal;
pub use summary::{NO_CONTEXT, Summary};
pub use tuning::{ChosenRate, GRID, TUNING_SEED, Tuning, trial_steps};
pub use warning::Warning;
pub use writer::{RunWriter, StepLine, sync_folder, write_whole};

//! A whole model before it is trained: is it causal, does it start from guessing, are its gradients right, does
//! it train to equal bits again, on equal data, at an equal size, with kernels that work on this device.

use std::fs;
use std::path::Path;
use std::process::Command;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::oracle;
use crate::config::{Config, ModelConfig, TrainConfig};
use crate::data::{Batches, Dataset};
use crate::eval::audit;
use crate::hardware::{self, DeviceChoice, Hardware, read};
use crate::math::random::{Coordinate, Purpose, words};
use crate::models::registry::{Architecture, ModelShape, matched_shapes};
use crate::models::weights::{self, Weight};
use crate::models::{BatchShape, LanguageModel};
use crate::results::{AuditCheck, AuditReport, AuditedWeights, Finding, Finite};
use crate::train::{Interrupt, Objective, Sequences, Training, moments_sha256, segments, train};
use crate::{Error, Result};

/// Optimiser steps that two processes must take alike.
const DETERMINISM_STEPS: u64 = 20;

/// What an audit needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    /// Settings: sizes, hyper-parameters, sequence lengths, seeds.
    pub config: &'a Config,
    /// Where the models run.
    pub hardware: &'a Hardware,
    /// What they are trained on.
    pub dataset: &'a Dataset,
    /// The bkbench program, of which a second process is started.
    pub program: &'a Path,
}

/// What a short training leaves, in hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingHashes {
    /// sha256 of the training tokens.
    pub ids_sha256: String,
    /// sha256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// sha256 of the batches in the order in which they were trained on.
    pub data_order_sha256: String,
    /// sha256 of the last weights.
    pub weights_sha256: String,
    /// sha256 of the optimiser's moments.
    pub moments_sha256: String,
}

impl Audit<'_> {
    /// Audits the initial weights, drawn from the first seed, of `models`, as they are compared with each other
    /// and with the configured ones, on sequences of [`audit::n_tokens`]. `on_report` hears of each as soon as it
    /// is done.
    ///
    /// # Errors
    /// Models that cannot be matched, a text that is too short, or a device that fails; what a check finds is
    /// in its report.
    pub fn models(
        &self,
        models: &[Architecture],
        on_report: &mut dyn FnMut(&AuditReport),
    ) -> Result<Vec<AuditReport>> {
        let vocab_size = self.dataset.tokenizer.vocab_size();
        let mut compared = models.to_vec();
        for name in self.config.models.names() {
            let model = Architecture::parse(name)?;
            if !compared.contains(&model) {
                compared.push(model);
            }
        }
        let shapes = matched_shapes(&compared, &self.config.model, vocab_size)?;
        let matching = matching(&shapes);
        let kernels = kernels(self.hardware);
        let mut first: Option<TrainingHashes> = None;
        let mut reports = Vec::with_capacity(models.len());
        for shape in &shapes[..models.len()] {
            let hashes = self.hash_training(shape)?;
            let first = first.get_or_insert_with(|| hashes.clone());
            let mut findings = self.of_weights(shape)?;
            let problem = GradientProblem::new(shape.architecture, &self.hardware.device)?;
            let loss = |index: usize, values: &[f64]| problem.loss(index, values);
            findings.push(audit::gradient(
                &problem.weights,
                &problem.gradients,
                shape.architecture.has_exact_gradient(),
                &loss,
            )?);
            findings.extend(self.reproduced(shape, &hashes, first)?);
            findings.extend([matching.clone(), kernels.clone()]);
            let report = AuditReport {
                model: shape.architecture.name().to_owned(),
                weights: AuditedWeights::Initial,
                seed: self.config.seeds.first,
                checks: findings.into_iter().map(AuditCheck::from).collect(),
            };
            on_report(&report);
            reports.push(report);
        }
        Ok(reports)
    }

    /// Takes twenty optimiser steps on sequences of the audit's length, one a step, or as many as come before it
    /// diverges, and hashes what is left.
    ///
    /// # Errors
    /// A text that is too short, or a device that fails.
    pub fn hash_training(&self, shape: &ModelShape) -> Result<TrainingHashes> {
        let seq_len = self.seq_len();
        let seed = self.config.seeds.first;
        // However long it takes: two processes must stop at one step.
        let config = TrainConfig {
            max_cell_seconds: None,
            ..self.config.train.clone()
        };
        let training = Training {
            shape,
            model: &self.config.model,
            config: &config,
            batches: &Batches::new(self.dataset.train.clone(), seq_len, 1, seed)?,
            batch_shape: BatchShape { batch: 1, seq_len },
            n_steps: DETERMINISM_STEPS,
            seed,
            stream: 0,
            device: &self.hardware.device,
            checkpoints: None,
            interrupt: &Interrupt::default(),
            memory_limit: None,
        };
        let trained = train(&training, &mut ())?;
        Ok(TrainingHashes {
            ids_sha256: self.dataset.manifest.train.ids_sha256.clone(),
            tokenizer_sha256: self.dataset.manifest.tokenizer_sha256.clone(),
            data_order_sha256: trained.data_order_sha256,
            weights_sha256: weights::sha256(&trained.model)?,
            moments_sha256: moments_sha256(&trained.model, &trained.optimiser)?,
        })
    }

    fn seq_len(&self) -> usize {
        audit::n_tokens(&self.config.seq_lengths())
    }

    /// Causality and initial loss.
    fn of_weights(&self, shape: &ModelShape) -> Result<Vec<Finding>> {
        let (seq_len, seed) = (self.seq_len(), self.config.seeds.first);
        let model = LanguageModel::new(shape, seed, &self.hardware.device);
        let mut findings = audit::leaks(&model, shape.vocab_size, seq_len, seed)?;
        let batch = Batches::new(self.dataset.train.clone(), seq_len, 1, seed)?.batch(0);
        let loss_chunk = self.config.train.loss_chunk_tokens;
        let nll = nll(&model, &batch.inputs, &batch.targets, 1, loss_chunk)?;
        findings.push(audit::initial_loss(&nll, shape.vocab_size));
        Ok(findings)
    }

    /// Compares the training of this process with that of another, and its data with those of the `first` model.
    fn reproduced(
        &self,
        shape: &ModelShape,
        here: &TrainingHashes,
        first: &TrainingHashes,
    ) -> Result<[Finding; 2]> {
        let there = self.hashes_of_another_process(shape)?;
        let state = |hashes: &TrainingHashes| {
            let TrainingHashes {
                weights_sha256,
                moments_sha256,
                ..
            } = hashes;
            format!("weights {weights_sha256}, moments {moments_sha256}")
        };
        let data = |hashes: &TrainingHashes| {
            let TrainingHashes {
                ids_sha256,
                tokenizer_sha256,
                data_order_sha256,
                ..
            } = hashes;
            format!(
                "tokens {ids_sha256}, tokenizer {tokenizer_sha256}, batches {data_order_sha256}"
            )
        };
        let differ = |part: &dyn Fn(&TrainingHashes) -> String, a, b, whose: &str| {
            let (a, b) = (part(a), part(b));
            (a != b).then(|| format!("{a} here and {b} {whose}"))
        };
        let (difference, mut other_data) = match &there {
            Ok(there) => (
                differ(&state, here, there, "in another process"),
                differ(&data, here, there, "in another process"),
            ),
            Err(reason) => (Some(format!("not compared: {reason}")), None),
        };
        other_data = other_data.or_else(|| differ(&data, here, first, "for the first model"));
        Ok([
            Finding::Determinism {
                n_steps: DETERMINISM_STEPS,
                weights_sha256: here.weights_sha256.clone(),
                moments_sha256: here.moments_sha256.clone(),
                difference,
            },
            Finding::EqualData {
                ids_sha256: here.ids_sha256.clone(),
                tokenizer_sha256: here.tokenizer_sha256.clone(),
                data_order_sha256: here.data_order_sha256.clone(),
                difference: other_data,
            },
        ])
    }

    /// The hashes of the same training in another process, or why there are none.
    fn hashes_of_another_process(
        &self,
        shape: &ModelShape,
    ) -> Result<std::result::Result<TrainingHashes, String>> {
        let folder = tempfile::tempdir().map_err(Error::io("create a folder in", "TMPDIR"))?;
        let file = folder.path().join("config.toml");
        let text = toml::Table::try_from(self.config)
            .map_err(|error| Error::CheckFailed(format!("the settings have no TOML: {error}")))?;
        fs::write(&file, text.to_string()).map_err(Error::io("write", &file))?;
        let output = Command::new(self.program)
            .args(["audit", "--hash-training", "--quiet", "--model"])
            .arg(shape.architecture.name())
            .arg("--config")
            .arg(&file)
            .output();
        Ok(match output {
            Err(error) => Err(format!("{} did not start: {error}", self.program.display())),
            Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout)
                .map_err(|error| format!("a second process printed no hashes: {error}")),
            Ok(output) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let last = stderr.lines().last().unwrap_or("it said nothing");
                Err(format!("a second process failed: {last}"))
            }
        })
    }
}

/// Cross-entropies of `targets` in nats per token, for `batch` sequences.
fn nll(
    model: &LanguageModel,
    inputs: &[u32],
    targets: &[u32],
    batch: usize,
    loss_chunk_tokens: usize,
) -> Result<Vec<f64>> {
    let shape = BatchShape {
        batch,
        seq_len: inputs.len() / batch,
    };
    let hidden = model.infer(inputs, shape, model.initial_states(batch))?;
    let nll = model.nll(hidden.x, targets, loss_chunk_tokens)?;
    read::doubles(nll, "reading an audit's loss")
}

/// A tiny model with its gradient at one batch, for comparison with differences of its loss.
#[derive(Debug)]
pub struct GradientProblem {
    /// Where the gradient was taken.
    pub weights: Vec<Weight>,
    /// One a weight, as the device under test computes them.
    pub gradients: Vec<Vec<f64>>,
    /// Of the same values on the CPU, in `f64`.
    model: LanguageModel,
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

impl GradientProblem {
    const VOCAB: usize = 61;
    const BATCH: usize = 2;
    /// Several chunks of the kernels, and no multiple of one.
    const SEQ_LEN: usize = 150;
    const LOSS_CHUNK_TOKENS: usize = 128;

    /// For a model of this architecture on `device`, which is without autodiff.
    ///
    /// # Errors
    /// A device that fails.
    pub fn new(architecture: Architecture, device: &Device) -> Result<Self> {
        // Cross-entropy alone: the loss that is differenced has no terms of routers.
        let config = ModelConfig {
            d_model: 16,
            n_layers: 2,
            load_balance_weight: 0.0,
            act_penalty: 0.0,
            ..ModelConfig::default()
        };
        let train = TrainConfig {
            loss_chunk_tokens: Self::LOSS_CHUNK_TOKENS,
            ..TrainConfig::default()
        };
        let token = |i| words(1, Coordinate::new(Purpose::Test).at(i))[0] % Self::VOCAB as u32;
        let n_tokens = Self::BATCH * Self::SEQ_LEN;
        let text: Vec<u32> = (0..=n_tokens as u64).map(token).collect();
        let (inputs, targets) = (text[..n_tokens].to_vec(), text[1..].to_vec());
        let sequences = Sequences {
            inputs: &inputs,
            targets: &targets,
            shape: BatchShape {
                batch: Self::BATCH,
                seq_len: Self::SEQ_LEN,
            },
        };
        let shape = matched_shapes(&[architecture], &config, Self::VOCAB)?.remove(0);
        let model = LanguageModel::new(&shape, 1, &device.clone().autodiff());
        let cpu = hardware::open(&DeviceChoice::Cpu, None)?.device;
        let objective = Objective::new(&config, &train, 0, 0);
        let whole = segments(Self::SEQ_LEN, Self::SEQ_LEN);
        let gradient = objective.gradient(&model, &sequences, &whole, None)?;
        Ok(Self {
            weights: weights::named(&model)?,
            gradients: in_order(&model, &gradient.gradients)?,
            // The initial weights are equal bits on every device.
            model: LanguageModel::new(&shape, 1, &cpu).map(&mut InDoubles::default()),
            inputs,
            targets,
        })
    }

    /// Mean cross-entropy with the weight at `index` replaced, nats per token, computed in `f64` on the CPU.
    ///
    /// # Errors
    /// A mistake in the program.
    pub fn loss(&self, index: usize, values: &[f64]) -> Result<f64> {
        let mut replace = InDoubles {
            n_seen: 0,
            replaced: Some((index, values)),
        };
        let model = self.model.clone().map(&mut replace);
        let chunk = Self::LOSS_CHUNK_TOKENS;
        let nll = nll(&model, &self.inputs, &self.targets, Self::BATCH, chunk)?;
        Ok(nll.iter().sum::<f64>() / nll.len() as f64)
    }
}

/// Turns parameters into `f64`, one of them into other values.
#[derive(Default)]
struct InDoubles<'a> {
    n_seen: usize,
    replaced: Option<(usize, &'a [f64])>,
}

impl ModuleMapper for InDoubles<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.n_seen;
        self.n_seen += 1;
        param.map(|tensor| match self.replaced {
            Some((replaced, values)) if replaced == index => {
                let data = TensorData::new(values.to_vec(), tensor.shape());
                Tensor::from_data(data, (&tensor.device(), DType::F64))
            }
            _ => tensor.cast(DType::F64),
        })
    }
}

/// Gradients on the host, in the order of [`weights::named`]; zeros where none arrived.
fn in_order<M: Module>(module: &M, gradients: &GradientsParams) -> Result<Vec<Vec<f64>>> {
    struct Reader<'a> {
        gradients: &'a GradientsParams,
        read: Result<Vec<Vec<f64>>>,
    }
    impl ModuleVisitor for Reader<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = match self.gradients.get::<D>(param.id) {
                Some(gradient) => read::doubles(gradient, "reading a gradient"),
                None => Ok(vec![0.0; param.shape().num_elements()]),
            };
            match (&mut self.read, values) {
                (Ok(read), Ok(values)) => read.push(values),
                (Ok(_), Err(error)) => self.read = Err(error),
                (Err(_), _) => {}
            }
        }
    }
    let mut reader = Reader {
        gradients,
        read: Ok(Vec::new()),
    };
    module.visit(&mut reader);
    reader.read
}

fn matching(shapes: &[ModelShape]) -> Finding {
    let ratio = |size: fn(&ModelShape) -> usize| {
        let sizes = shapes.iter().map(|shape| size(shape) as f64);
        let (min, max) = sizes.fold((f64::INFINITY, 0.0_f64), |(min, max), size| {
            (min.min(size), max.max(size))
        });
        Finite::new(max / min).unwrap_or_default()
    };
    Finding::Matching {
        models: shapes
            .iter()
            .map(|shape| shape.architecture.name().to_owned())
            .collect(),
        non_embedding_ratio: ratio(|shape| shape.parameters().non_embedding),
        total_ratio: ratio(|shape| shape.parameters().total),
        active_ratio: ratio(|shape| shape.parameters().active),
        flops_ratio: Some(ratio(ModelShape::matched_flops_per_token)),
    }
}

/// The oracle's checks at one odd length in `f32`.
fn kernels(hardware: &Hardware) -> Finding {
    let cases = oracle::check_briefly(&hardware.device);
    Finding::Kernels {
        n_tensors: cases.iter().map(|case| case.checks.len()).sum(),
        failures: cases.iter().flat_map(super::CaseReport::failures).collect(),
    }
}

//! `AdamW` whose moments can be read back on any device.
//!
//! burn reads the state of an optimiser onto its default device, which is a graphics adapter even where a
//! run is on the CPU backend and the machine has none. Here it stays on the host until a step knows the device.

use burn::optim::{
    AdamWState, AdaptiveMomentumState, LearningRate, Optimizer, RecordState, StateSink,
    StateSource, join_path,
};
use burn::tensor::{Device, Tensor, TensorData};

use crate::ops::adamw;

/// `AdamW` with [`Moments`] for a state.
#[derive(Clone)]
pub(super) struct AdamW {
    /// Decay of either moment.
    pub(super) betas: [f32; 2],
    /// Added to the root of the second.
    pub(super) epsilon: f32,
    /// 0 for none.
    pub(super) weight_decay: f32,
}

/// Moments of one parameter.
#[derive(Clone)]
pub(super) enum Moments<const D: usize> {
    /// In use.
    OnDevice(Box<AdamWState<D>>),
    /// Read from a checkpoint and not used yet.
    OnHost {
        /// Updates so far.
        time: usize,
        /// Of the gradient and of its square.
        moments: Box<[TensorData; 2]>,
    },
}

impl<const D: usize> Moments<D> {
    fn on(self, device: &Device) -> AdamWState<D> {
        match self {
            Self::OnDevice(state) => *state,
            Self::OnHost { time, moments } => {
                let [moment_1, moment_2] = *moments;
                AdamWState::new(AdaptiveMomentumState {
                    time,
                    moment_1: Tensor::from_data(moment_1, device),
                    moment_2: Tensor::from_data(moment_2, device),
                    max_moment_2: None,
                })
            }
        }
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = Moments<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (time, moments) = match state.map(|moments| moments.on(&gradient.device()).momentum) {
            Some(old) => (old.time + 1, Some([old.moment_1, old.moment_2])),
            None => (1, None),
        };
        let steps = i32::try_from(time).unwrap_or(i32::MAX);
        let step = adamw::Step {
            betas: self.betas,
            corrections: self.betas.map(|beta| 1.0 - beta.powi(steps)),
            epsilon: self.epsilon,
            rate: rate as f32,
            decay: (self.weight_decay != 0.0)
                .then_some((1.0 - rate * f64::from(self.weight_decay)) as f32),
        };
        let (tensor, [moment_1, moment_2]) = adamw::step(tensor, gradient, moments, step);
        let state = AdamWState::new(AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            max_moment_2: None,
        });
        (tensor, Some(Moments::OnDevice(Box::new(state))))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Moments::OnDevice(Box::new(burn::optim::AdamW::to_device(
            state.on(device),
            device,
        )))
    }
}

/// Where burn's state keeps its parts.
const MOMENTUM: &str = "momentum";

impl<const D: usize> RecordState for Moments<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match self {
            Self::OnDevice(state) => state.state_flatten(prefix, out),
            Self::OnHost { time, moments } => {
                let [first, second] = moments.as_ref();
                let prefix = join_path(prefix, MOMENTUM);
                out.push_scalar(&prefix, "time", (*time).into());
                out.push_tensor(&prefix, "moment_1", first.clone());
                out.push_tensor(&prefix, "moment_2", second.clone());
            }
        }
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, _device: &Device) -> Option<Self> {
        let prefix = join_path(prefix, MOMENTUM);
        // Out of the file's bytes, which would stay in memory until the last of them is used.
        let mut take = |leaf| {
            let data = source.take_tensor(&prefix, leaf)?;
            let bytes = data.as_bytes().to_vec();
            let (shape, dtype) = (data.shape().clone(), data.dtype());
            Some(TensorData::from_bytes_vec(bytes, shape, dtype))
        };
        let moments = Box::new([take("moment_1")?, take("moment_2")?]);
        Some(Self::OnHost {
            time: source.take_scalar(&prefix, "time")?.try_into().ok()?,
            moments,
        })
    }
}

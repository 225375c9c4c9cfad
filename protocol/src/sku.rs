//! GPU models. NVML, Kubernetes labels and people name one model in many ways; Tidewater uses one name for each.
//!
//! A MIG slice is a model of its own, such as `H100-MIG-1g.10gb`: asked for in whole numbers, and never taken for the GPU of which it is a
//! slice. Its profile is NVIDIA's name for it, a further attribute behind a dot: `1g.10gb.me`.

mod slices;

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A GPU model under its one name, such as `H100`, `A100-80GB` or, of a MIG slice, `H100-MIG-1g.10gb`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Sku(SmolStr);

impl Encode for Sku {
    fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.as_str().encode(e)
    }
}

impl<C> Decode<C> for Sku {
    fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
        String::decode(d).map(|text| Self(text.into()))
    }
}
bincode::impl_borrow_decode!(Sku);

/// The models that Tidewater knows, each with the names that NVML (`nvmlDeviceGetName`) and GPU feature discovery
/// (`nvidia.com/gpu.product`) give it. Case, spaces, `-` and `_` do not count when names are compared.
const MODELS: &[(&str, &[&str])] = &[
    ("B200", &["NVIDIA B200"]),
    ("GB200", &["NVIDIA GB200"]),
    ("H200", &["NVIDIA H200", "H200-141GB", "NVIDIA H200 NVL"]),
    ("H100", &["NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM5 80GB", "H100-80GB", "H100-SXM"]),
    ("H100-PCIE", &["NVIDIA H100 PCIe"]),
    ("H100-NVL", &["NVIDIA H100 NVL"]),
    ("GH200", &["NVIDIA GH200 480GB", "NVIDIA GH200 120GB"]),
    ("H20", &["NVIDIA H20"]),
    ("H800", &["NVIDIA H800"]),
    ("A100-80GB", &["NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "A100-SXM4-80GB"]),
    ("A100-40GB", &["NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB", "A100"]),
    ("A800", &["NVIDIA A800-SXM4-80GB"]),
    ("A30", &["NVIDIA A30"]),
    ("A10", &["NVIDIA A10"]),
    ("A10G", &["NVIDIA A10G"]),
    ("A16", &["NVIDIA A16"]),
    ("A2", &["NVIDIA A2"]),
    ("A40", &["NVIDIA A40"]),
    ("L4", &["NVIDIA L4"]),
    ("L40", &["NVIDIA L40"]),
    ("L40S", &["NVIDIA L40S"]),
    ("V100", &["Tesla V100-SXM2-16GB", "Tesla V100-PCIE-16GB", "V100M16", "V100-16GB"]),
    ("V100-32GB", &["Tesla V100-SXM2-32GB", "Tesla V100-PCIE-32GB", "V100M32"]),
    ("T4", &["Tesla T4", "NVIDIA T4"]),
    ("P100", &["Tesla P100-PCIE-16GB", "Tesla P100-SXM2-16GB"]),
    ("P4", &["Tesla P4"]),
    ("K80", &["Tesla K80"]),
    ("RTX-4090", &["NVIDIA GeForce RTX 4090"]),
    ("RTX-3090", &["NVIDIA GeForce RTX 3090"]),
    ("RTX-6000-ADA", &["NVIDIA RTX 6000 Ada Generation"]),
];

/// Why a text is no GPU model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown GPU model {text:?}{}", .nearest.as_ref().map(|n| format!(": did you mean {n}?")).unwrap_or_else(|| format!(" (known: {})", known().join(", "))))]
pub struct UnknownSku {
    /// The text that was given.
    pub text: String,
    /// The nearest known model, where one is near.
    pub nearest: Option<&'static str>,
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).flat_map(char::to_lowercase).collect()
}

fn known() -> Vec<&'static str> {
    MODELS.iter().map(|(name, _)| *name).collect()
}

impl Sku {
    /// The known model of this name or alias; an error with the nearest one otherwise. For what people write.
    pub fn parse(text: &str) -> Result<Self, UnknownSku> {
        if let Some((gpu, profile)) = slices::split(text) {
            return Ok(Self::parse(gpu)?.slice(&profile));
        }
        let wanted = plain(text);
        for (name, aliases) in MODELS {
            if plain(name) == wanted || aliases.iter().any(|a| plain(a) == wanted) {
                return Ok(Self((*name).into()));
            }
        }
        let nearest = MODELS
            .iter()
            .flat_map(|(name, aliases)| std::iter::once(name).chain(aliases.iter()).map(move |a| (*name, plain(a))))
            .map(|(name, alias)| (strsim::damerau_levenshtein(&wanted, &alias), name))
            .min()
            .filter(|(distance, _)| *distance <= 1 + wanted.len() / 4)
            .map(|(_, name)| name);
        Err(UnknownSku { text: text.chars().take(80).collect(), nearest })
    }

    /// The model for a name that a driver or label gives. A model that is not known keeps its own name, so that new
    /// hardware is counted and shown under what its driver calls it.
    pub fn from_driver(text: &str) -> Self {
        if let Some((gpu, profile)) = slices::split(text) {
            return Self::from_driver(gpu).slice(&profile);
        }
        Self::parse(text).unwrap_or_else(|_| {
            let kept: String = text.trim().chars().take(63).map(|c| if c.is_whitespace() { '-' } else { c }).collect();
            Self(kept.into())
        })
    }

    /// The model's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The MIG slice of this profile, as [`mig_profile`] names it, of a GPU of this model.
    pub fn slice(&self, profile: &str) -> Self {
        Self(format!("{}{}{profile}", self.0, slices::MARK).into())
    }

    /// Whether it is a MIG slice of a GPU.
    pub fn is_slice(&self) -> bool {
        self.0.contains(slices::MARK)
    }

    /// Of a MIG slice its GPU's model and its profile, such as `1g.10gb`; none of a whole GPU.
    pub fn slice_profile(&self) -> Option<(Sku, &str)> {
        let (gpu, profile) = self.0.split_once(slices::MARK)?;
        Some((Self(gpu.into()), profile))
    }

    /// How GPU feature discovery may label a node's devices of this model (`nvidia.com/gpu.product`, and `nvidia.com/mig-1g.10gb.product` of
    /// slices beside other devices): every name that is known for it, blanks as dashes, and its own.
    pub fn product_labels(&self) -> Vec<String> {
        if let Some((gpu, profile)) = self.slice_profile() {
            return gpu.product_labels().into_iter().map(|gpu| format!("{gpu}{}{profile}", slices::MARK)).collect();
        }
        self.product_names().iter().map(|name| name.replace(' ', "-")).collect()
    }

    /// What a driver may call a device of this model: every name that is known for it, and its own. Of a MIG slice the names of its GPU.
    pub fn product_names(&self) -> Vec<String> {
        let gpu = self.0.split_once(slices::MARK).map_or(self.as_str(), |(gpu, _)| gpu);
        let known = MODELS.iter().find(|(name, _)| *name == gpu).map_or(&[] as &[&str], |(_, aliases)| aliases);
        known.iter().copied().chain([gpu]).map(str::to_owned).collect()
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Sku {
    type Err = UnknownSku;
    fn from_str(text: &str) -> Result<Self, UnknownSku> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Sku {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::from_driver(&String::deserialize(d)?))
    }
}

/// Reads models as people write them: an unknown one is an error that names the nearest.
pub fn strict<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Sku>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    texts.iter().map(|t| Sku::parse(t).map_err(serde::de::Error::custom)).collect()
}

/// The profile of a MIG slice as a name of a resource has it (`nvidia.com/mig-1g.10gb`), as models have it; none where it is none.
pub fn mig_profile(text: &str) -> Option<String> {
    slices::profile(text)
}

//! The room around `nvml-wrapper`: opens the driver, makes its calls under the watch, and sorts their errors by what they
//! mean for us. No other module reads an NVML error.

use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::node::watch::CallWatch;

/// Why NVML could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no library, or it is no NVML.
    #[error(
        "cannot load {}: {cause}; install the NVIDIA driver, mount its library into the container, or name it with --nvml-lib",
        library.display()
    )]
    Load {
        /// What was tried.
        library: PathBuf,
        /// What the loader said.
        cause: String,
    },
    /// The library is there, but the driver does not answer.
    #[error("{}: nvmlInit_v2: {cause}; is the NVIDIA kernel driver loaded?", library.display())]
    Refused {
        /// What was tried.
        library: PathBuf,
        /// What NVML said.
        cause: String,
    },
}

/// Opens NVML: `library`, else the loader's `libnvidia-ml.so.1`.
pub fn open(library: Option<&Path>) -> Result<Nvml, OpenError> {
    let mut builder = Nvml::builder();
    if let Some(path) = library {
        builder.lib_path(path.as_os_str());
    }
    builder.init().map_err(|e| {
        let library = library.unwrap_or(Path::new("libnvidia-ml.so.1")).to_path_buf();
        let cause = e.to_string();
        match e {
            NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_) => OpenError::Load { library, cause },
            _ => OpenError::Refused { library, cause },
        }
    })
}

/// What a failed call says about more than the reading that it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The GPU no longer answers.
    Lost(String),
    /// The GPU answers nothing until it was reset.
    ResetRequired(String),
    /// The driver is gone: every handle is void.
    Driver(String),
}

/// GPU_NOT_FOUND, newer than the wrapper's list of errors.
const GPU_NOT_FOUND: u32 = 28;

fn fault(call: &str, error: &NvmlError) -> Option<Fault> {
    let cause = || format!("{call}: {error}");
    match error {
        NvmlError::GpuLost | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Some(Fault::Lost(cause())),
        NvmlError::ResetRequired => Some(Fault::ResetRequired(cause())),
        NvmlError::Uninitialized
        | NvmlError::DriverNotLoaded
        | NvmlError::LibRmVersionMismatch
        | NvmlError::LibraryNotFound => Some(Fault::Driver(cause())),
        _ => None,
    }
}

/// Makes a call under the watch. `Ok(None)`: this reading is unknown (not supported, no permission, a passing error), and
/// nothing follows for the others.
pub fn ask<T>(
    watch: &CallWatch,
    name: &'static str,
    call: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<Option<T>, Fault> {
    match watch.during(name, call) {
        Ok(value) => Ok(Some(value)),
        Err(error) => match fault(name, &error) {
            Some(fault) => Err(fault),
            None => {
                tracing::trace!(call = name, %error, "unknown");
                Ok(None)
            }
        },
    }
}

/// How often a list that grew between the question for its length and the question for itself is asked for again.
const LIST_TRIES: usize = 4;

/// Asks for a list: NOT_FOUND is the empty one, NOT_SUPPORTED an unknown one.
pub fn ask_list<T>(
    watch: &CallWatch,
    name: &'static str,
    call: impl Fn() -> Result<Vec<T>, NvmlError>,
) -> Result<Option<Vec<T>>, Fault> {
    ask(watch, name, || {
        let mut answer = call();
        for _ in 1..LIST_TRIES {
            if !matches!(answer, Err(NvmlError::InsufficientSize(_))) {
                break;
            }
            answer = call();
        }
        match answer {
            Err(NvmlError::NotFound) => Ok(Vec::new()),
            other => other,
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_error_of_one_reading_is_unknown_and_a_lost_gpu_is_not() {
        let watch = CallWatch::default();
        let one = |e| ask::<u32>(&watch, "nvmlX", || Err(e));
        assert_eq!(one(NvmlError::NotSupported), Ok(None));
        assert_eq!(one(NvmlError::NoPermission), Ok(None));
        assert_eq!(one(NvmlError::Unknown), Ok(None));
        assert!(matches!(one(NvmlError::GpuLost), Err(Fault::Lost(_))));
        assert!(matches!(one(NvmlError::UnexpectedVariant(28)), Err(Fault::Lost(_))));
        assert!(matches!(one(NvmlError::ResetRequired), Err(Fault::ResetRequired(_))));
        assert!(matches!(one(NvmlError::Uninitialized), Err(Fault::Driver(_))));
    }

    #[test]
    fn a_list_that_grows_is_asked_for_again_but_not_for_ever() {
        let watch = CallWatch::default();
        let asked = Cell::new(0);
        let growing = |until: u32| {
            asked.set(0);
            ask_list(&watch, "nvmlX", || {
                asked.set(asked.get() + 1);
                if asked.get() < until { Err(NvmlError::InsufficientSize(None)) } else { Ok(vec![1]) }
            })
        };
        assert_eq!(growing(3), Ok(Some(vec![1])));
        assert_eq!(growing(1000), Ok(None));
        assert_eq!(asked.get(), LIST_TRIES as u32);
        assert_eq!(ask_list::<u32>(&watch, "nvmlX", || Err(NvmlError::NotFound)), Ok(Some(vec![])));
    }

    #[test]
    fn a_library_that_is_not_there_says_what_to_do() {
        let error = open(Some(Path::new("/nowhere/libnvidia-ml.so.1"))).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Load { .. }));
        assert!(error.to_string().contains("--nvml-lib"), "{error}");
    }
}

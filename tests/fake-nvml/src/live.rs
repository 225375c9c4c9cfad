//! The state as of now: reads the file again when it changed, and gives each call its delay and its error.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nvml_wrapper_sys::bindings::*;

use crate::state::{Device, State};

/// How often the file's time and size are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Live {
    path: PathBuf,
    looked: Instant,
    stamp: Option<(SystemTime, u64)>,
    state: Arc<State>,
    initialised: u32,
    undercounted: BTreeMap<usize, u32>,
}

static LIVE: Mutex<Option<Live>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Live>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device and the state that it is part of.
pub struct OneDevice {
    pub state: Arc<State>,
    pub index: usize,
}

impl OneDevice {
    pub fn get(&self) -> &Device {
        &self.state.devices[self.index]
    }
}

/// The folder of this copy of the library.
fn own_folder() -> PathBuf {
    // SAFETY: the address is this function's own; dladdr fills `info` or returns 0, and the name that it gives lives as long
    // as the library is loaded.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(own_folder as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return PathBuf::new();
        }
        CStr::from_ptr(info.dli_fname).to_bytes().to_vec()
    };
    Path::new(OsStr::from_bytes(&name)).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn read(path: &Path) -> Option<(State, (SystemTime, u64))> {
    let meta = std::fs::metadata(path).ok()?;
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(state) => Some((state, (meta.modified().ok()?, meta.len()))),
        Err(e) => {
            eprintln!("fake-nvml: {}: {e}", path.display());
            None
        }
    }
}

/// Starts, or counts one more start. Without a state file there is one idle H100; a file that can't be read is error 999.
pub fn initialise() -> nvmlReturn_t {
    let named = std::env::var_os("FAKE_NVML_STATE").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| own_folder().join("state.json"));
    let mut live = lock();
    if live.is_none() {
        let (state, stamp) = match read(&path) {
            Some((state, stamp)) => (state, Some(stamp)),
            None if named.is_none() && !path.exists() => (State::default(), None),
            None => return nvmlReturn_enum_NVML_ERROR_UNKNOWN,
        };
        *live = Some(Live {
            path,
            looked: Instant::now(),
            stamp,
            state: Arc::new(state),
            initialised: 0,
            undercounted: BTreeMap::new(),
        });
    }
    let entry = live.as_mut().expect("set above");
    entry.refresh(Duration::ZERO);
    if let Some(code) = entry.state.init_error {
        if entry.initialised == 0 {
            *live = None;
        }
        return code;
    }
    entry.initialised += 1;
    nvmlReturn_enum_NVML_SUCCESS
}

pub fn shut_down() -> nvmlReturn_t {
    let mut live = lock();
    let Some(entry) = live.as_mut() else { return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED };
    entry.initialised -= 1;
    if entry.initialised == 0 {
        *live = None;
    }
    nvmlReturn_enum_NVML_SUCCESS
}

impl Live {
    fn refresh(&mut self, every: Duration) {
        if self.looked.elapsed() < every {
            return;
        }
        self.looked = Instant::now();
        let stamp = std::fs::metadata(&self.path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp.is_some()
            && stamp != self.stamp
            && let Some((state, stamp)) = read(&self.path)
        {
            self.state = Arc::new(state);
            self.stamp = Some(stamp);
            self.undercounted.clear();
        }
    }
}

/// The state as of now.
pub fn now() -> Result<Arc<State>, nvmlReturn_t> {
    let mut live = lock();
    let entry = live.as_mut().ok_or(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
    entry.refresh(LOOK_EVERY);
    Ok(entry.state.clone())
}

/// A call that is not about one device.
pub fn system(function: &str) -> Result<Arc<State>, nvmlReturn_t> {
    wait(|state| state.delays_ms.get(function).copied())?;
    let state = now()?;
    match state.errors.get(function) {
        Some(code) => Err(*code),
        None => Ok(state),
    }
}

/// A call on one device.
pub fn device(function: &str, handle: nvmlDevice_t) -> Result<OneDevice, nvmlReturn_t> {
    let index = (handle as usize).wrapping_sub(1);
    wait(|state| {
        let own = state.devices.get(index).and_then(|d| d.delays_ms.get(function));
        own.or_else(|| state.delays_ms.get(function)).copied()
    })?;
    let state = now()?;
    let device = state.devices.get(index).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
    if device.lost {
        return Err(nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    }
    match device.errors.get(function).or_else(|| state.errors.get(function)) {
        Some(code) => Err(*code),
        None => Ok(OneDevice { state, index }),
    }
}

fn wait(delay_ms: impl Fn(&State) -> Option<u64>) -> Result<(), nvmlReturn_t> {
    let start = Instant::now();
    while let Some(ms) = delay_ms(&*now()?) {
        if start.elapsed() >= Duration::from_millis(ms) {
            break;
        }
        std::thread::sleep(Duration::from_millis(ms.min(10)));
    }
    Ok(())
}

/// Whether this question for a list's length is to be answered too low.
pub fn undercounts(device: &OneDevice) -> bool {
    let mut live = lock();
    let Some(entry) = live.as_mut() else { return false };
    let done = entry.undercounted.entry(device.index).or_default();
    let more = *done < device.get().process_undercounts;
    *done += u32::from(more);
    more
}

/// The C answer to `body`.
pub fn answer(body: impl FnOnce() -> Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    match body() {
        Ok(()) => nvmlReturn_enum_NVML_SUCCESS,
        Err(code) => code,
    }
}

/// Writes a text with its NUL into a caller's buffer.
pub fn write_text(text: &str, buffer: *mut std::ffi::c_char, length: u32) -> Result<(), nvmlReturn_t> {
    if buffer.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    if text.len() + 1 > length as usize {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller says that `buffer` has `length` bytes, and text and NUL fit.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        *buffer.add(text.len()) = 0;
    }
    Ok(())
}

/// Writes through a caller's pointer.
pub fn write_value<T>(to: *mut T, value: T) -> Result<(), nvmlReturn_t> {
    if to.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller says that it points to a T.
    unsafe { to.write(value) };
    Ok(())
}

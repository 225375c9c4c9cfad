//! What a process takes of its machine.

use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of a process so far, all its threads, in steps of 10 ms.
pub fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may have anything in it, and ends with the last parenthesis.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| after.split_whitespace().nth(n).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// Memory of a process, in KiB: `VmRSS` is what is resident, `VmHWM` the most that was.
pub fn memory_kib(process: u32, what: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value =
        |line: &str| Some(line.strip_prefix(what)?.strip_prefix(':')?.trim().trim_end_matches(" kB").to_owned());
    let value = status.lines().find_map(value).with_context(|| format!("process {process} has no {what}"))?;
    Ok(value.parse()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn its_own_memory_is_some_and_never_above_its_most() {
        let own = std::process::id();
        let (now, most) = (memory_kib(own, "VmRSS").unwrap(), memory_kib(own, "VmHWM").unwrap());
        assert!(now > 0 && now <= most, "{now} of {most}");
        assert!(memory_kib(own, "VmR").is_err(), "a field's name is whole");
    }
}

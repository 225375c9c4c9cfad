//! Times as people say them: `5s`, `3m`, `2h`, `4d`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A span of time, in its largest unit that counts at least two, as kubectl does.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A span in ms; tenths of a second where they matter.
pub fn span_ms(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{}s", ms / 1000, ms % 1000 / 100) } else { span(Duration::from_millis(ms)) }
}

/// How long ago an RFC 3339 time was; none where it is no time. A clock that is behind the server's says 0s.
pub fn since(time: Option<&str>) -> Option<String> {
    let time = humantime::parse_rfc3339(time?).ok()?;
    Some(span(SystemTime::now().duration_since(time).unwrap_or_default()))
}

/// The time between two RFC 3339 times.
pub fn between(from: &str, to: &str) -> Option<String> {
    let (from, to) = (humantime::parse_rfc3339(from).ok()?, humantime::parse_rfc3339(to).ok()?);
    Some(span_ms(u64::try_from(to.duration_since(from).ok()?.as_millis()).ok()?))
}

/// How long it is until a moment; `now` once it has passed.
pub fn until(moment: protocol::ids::UnixMs) -> String {
    match (UNIX_EPOCH + Duration::from_millis(moment.0)).duration_since(SystemTime::now()) {
        Ok(left) if left.as_millis() > 0 => format!("in {}", span(left + Duration::from_millis(999))),
        _ => "now".to_owned(),
    }
}

/// How long ago a moment was.
pub fn ago(moment: protocol::ids::UnixMs) -> String {
    span(SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(moment.0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_unit_that_fits() {
        let told = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([told(0), told(119), told(120), told(7_199)], ["0s", "119s", "2m", "119m"]);
        assert_eq!([told(7_200), told(172_799), told(172_800)], ["2h", "47h", "2d"]);
        assert_eq!([span_ms(0), span_ms(1_250), span_ms(10_000)], ["0.0s", "1.2s", "10s"]);
    }

    #[test]
    fn ages_survive_bad_times_and_clocks() {
        assert_eq!(since(Some("2999-01-01T00:00:00Z")).as_deref(), Some("0s"));
        assert_eq!(since(Some("yesterday")), None);
        assert_eq!(since(None), None);
        assert_eq!(between("2026-01-01T00:00:00Z", "2026-01-01T00:00:01.5Z").as_deref(), Some("1.5s"));
    }
}

//! The YAML parser's errors in the words of a person who writes manifests: which field, and what to write there.

use protocol::sku::Sku;
use serde_saphyr::Error;

use super::Problem;
use super::locate::{Place, Tree};
use super::source::Document;

/// What fields hold that people forget.
const EXPECTED: &[(&str, &str)] = &[
    ("cpu", "cores, such as 4, 0.5 or 500m"),
    ("memory", "a number and its unit, such as 512Mi or 16Gi"),
    ("size", "a number and its unit, such as 800Gi or 2Ti"),
    ("entrypoint", "the command that the job runs"),
    ("command", "the program and its arguments, as a list"),
    ("groups", "a list with at least one group"),
    ("main", "the application's file"),
    ("driver", "its cpu and memory"),
    ("head", "its cpu and memory"),
    ("executors", "count, cpu and memory"),
    ("metadata", "at least a name"),
    ("name", "a-z, 0-9 and '-'"),
    ("spec", "one of ray, spark, batch and manifest, and what it needs"),
];

/// A parser's error as a problem. `tree`: the document's fields, where it could be parsed at all.
pub fn yaml(error: &Error, tree: Option<&Tree>, document: &Document<'_>) -> Problem {
    let error = error.without_snippet();
    let place = error.location().map(|l| (l.line(), l.column())).filter(|(line, _)| *line > 0);
    let mut at = place;
    let (field, what) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let place = tree.and_then(|tree| parent_of(tree, field, place));
            let path = place.as_ref().map_or_else(|| field.clone(), |(path, _)| path.clone());
            at = place.map(|(_, place)| place).or(at);
            (path, unknown(field, expected))
        }
        Error::SerdeMissingField { field, .. } => {
            let around = tree.zip(place).map(|(tree, place)| tree.mapping_at(place)).unwrap_or_default();
            let path = if around.is_empty() { (*field).to_owned() } else { format!("{around}.{field}") };
            let expected = EXPECTED.iter().find(|(name, _)| name == field).map(|(_, what)| format!(": write {what}"));
            (path, format!("it is missing{}", expected.unwrap_or_default()))
        }
        Error::DuplicateMappingKey { key, .. } => {
            (key.clone().unwrap_or_default(), "it is written twice: keep one of them".to_owned())
        }
        _ if tree.is_none() => (String::new(), syntax(error, place, document)),
        _ => match unknown_sku(error, tree) {
            Some((path, place, what)) => {
                at = Some(place);
                (path, what)
            }
            None => {
                let path = tree.zip(place).map(|(tree, place)| tree.field_at(place)).unwrap_or_default();
                let what = nothing(error, &path).unwrap_or_else(|| value(error));
                (path, what)
            }
        },
    };
    Problem { at: at.map(|(line, column)| (line + document.first_line, column)), field, what }
}

/// An unknown field's path and place: of the fields of that name the one nearest to where the parser stood.
fn parent_of(tree: &Tree, field: &str, place: Option<Place>) -> Option<(String, Place)> {
    let path = tree.field_at(place?);
    let own = path.rsplit('.').next() == Some(field) || path.ends_with(&format!("[{field:?}]"));
    own.then(|| tree.find(&path).map(|at| (path, at))).flatten()
}

fn unknown(field: &str, expected: &[&str]) -> String {
    if let Some((known, _)) = field.split_once(':').filter(|(known, _)| expected.contains(known)) {
        return format!("unknown field: write a blank after the colon of {known}");
    }
    let nearest = expected
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&field.to_lowercase(), &known.to_lowercase()), *known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .map(|(_, known)| format!(": did you mean {known}?"));
    format!("unknown field{} (known here: {})", nearest.unwrap_or_default(), expected.join(", "))
}

/// The models are checked once the whole list was read, so the parser knows the list's end and no more: look the
/// culprit up.
fn unknown_sku(error: &Error, tree: Option<&Tree>) -> Option<(String, Place, String)> {
    let Error::Message { msg, .. } = error else { return None };
    if !msg.starts_with("unknown GPU model") {
        return None;
    }
    tree?.texts_of("gpu").into_iter().find_map(|(path, place, text)| {
        let unknown = Sku::parse(&text).err()?;
        (unknown.to_string() == *msg).then(|| (path, place, unknown.to_string()))
    })
}

/// A field without a value.
fn nothing(error: &Error, path: &str) -> Option<String> {
    let Error::SerdeInvalidType { unexpected, .. } = error else { return None };
    let field = path.rsplit('.').next()?;
    let (_, expected) = EXPECTED.iter().find(|(name, _)| *name == field)?;
    (unexpected == "unit value").then(|| format!("it has no value: write {expected}"))
}

fn value(error: &Error) -> String {
    match error {
        Error::Message { msg, .. } => msg.clone(),
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            format!("expected {}, not {unexpected}", plain(expected))
        }
        Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("expected {}, not {unexpected}", plain(expected))
        }
        Error::InvalidScalar { ty, .. } => format!("expected {}", plain(ty)),
        Error::Unexpected { expected, .. } => format!("expected {}", plain(expected)),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{variant:?} is none of {}", expected.join(", "))
        }
        Error::NullIntoString { .. } => "expected text, but there is nothing".to_owned(),
        Error::Budget { .. } => "it unfolds into more than a manifest may hold".to_owned(),
        other => first_line(&other.to_string()),
    }
}

/// Rust's and YAML's words for shapes, in a manifest writer's.
fn plain(expected: &str) -> String {
    match expected {
        "a sequence" | "sequence start" | "sequence" => "a list".into(),
        "mapping start" | "a map" | "mapping" => "a mapping (fields, each with a value)".into(),
        "string scalar" | "a string" | "string" | "scalar" => "text".into(),
        "i32" | "i64" => "a whole number".into(),
        "u32" | "u64" | "u16" => "a whole number, 0 or more".into(),
        "bool" => "true or false".into(),
        other if other.starts_with("struct ") => "a mapping (fields, each with a value)".into(),
        other => other.into(),
    }
}

fn syntax(error: &Error, place: Option<Place>, document: &Document<'_>) -> String {
    let line = place.and_then(|(line, _)| document.text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?));
    let indent = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    if line.is_some_and(indent) {
        return "it is indented with a tab: YAML needs spaces".into();
    }
    match error {
        Error::ExternalMessage { msg, .. } => format!("this is not YAML: {}", first_line(msg)),
        other => format!("this is not YAML: {}", value(other)),
    }
}

/// The first line, without the place that the parser wrote after it: it is told in front, and from the file's start.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

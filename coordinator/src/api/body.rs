//! Reads a body that a person or a program sent: JSON or YAML by its content type. What is wrong is told with line, column
//! and field. And writes the body of an answer that is made at every submission.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::errors::ApiError;

/// The largest body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// Room for the usual answer to a submission, in bytes.
const USUAL_ANSWER: usize = 1536;

/// An object as the JSON of an answer, written into room that is large enough at once: axum's `Json` begins with 128 bytes and
/// copies what it has at each doubling.
pub struct Shown<'a, T>(pub &'a T);

impl<T: Serialize> IntoResponse for Shown<'_, T> {
    fn into_response(self) -> Response {
        let mut text = Vec::with_capacity(USUAL_ANSWER);
        match serde_json::to_writer(&mut text, self.0) {
            Ok(()) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], text).into_response()
            }
            Err(e) => ApiError::Unavailable(format!("the answer could not be written: {e}")).into_response(),
        }
    }
}

/// What a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml` and its older names.
    Yaml,
}

/// The body's format by its content type; JSON where none is given.
pub fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Json) };
    let text = value.to_str().unwrap_or("(not text)");
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Format::Yaml),
        _ => Err(ApiError::UnsupportedMediaType(format!(
            "content type {text:?} is not read here: send application/json or application/yaml"
        ))),
    }
}

/// Parses a body.
pub fn parse<T: DeserializeOwned>(format: Format, body: &[u8]) -> Result<T, ApiError> {
    match format {
        Format::Json => json(body),
        Format::Yaml => yaml(body),
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Keeping track of the path costs as much as the rest of the parsing: only a body that has a fault is read that way.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| ApiError::Malformed(format!("JSON: {}{}", at(e.path()), e.inner())))?;
    reader.end().map_err(|e| ApiError::Malformed(format!("JSON: {e}")))?;
    Ok(value)
}

fn yaml<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|e| ApiError::Malformed(format!("YAML: not UTF-8 from byte {}", e.valid_up_to())))?;
    let mut field = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |reader| {
        serde_path_to_error::deserialize(reader).map_err(|e| {
            field = at(e.path());
            e.into_inner()
        })
    });
    parsed.map_err(|e| ApiError::Malformed(format!("YAML: {field}{}", e.without_snippet())))
}

/// The field as a prefix; nothing for the root.
fn at(path: &serde_path_to_error::Path) -> String {
    let text = path.to_string();
    if text == "." { String::new() } else { format!("{text}: ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::api::WorkloadObject;

    use super::*;

    const HEAD: &str = "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata: {name: a}\nspec:\n  batch:\n    command: [x]\n    groups:\n";

    fn fault(format: Format, text: &str) -> String {
        parse::<WorkloadObject>(format, text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn yaml_errors_name_line_and_field() {
        let text = fault(Format::Yaml, &format!("{HEAD}    - {{count: lots, cpu: 1, memory: 1Gi}}\n"));
        assert!(text.contains("spec.batch.groups[0].count"), "{text}");
        assert!(text.contains("line 8"), "{text}");
    }

    #[test]
    fn an_unknown_yaml_field_is_named_with_what_was_expected() {
        let text = fault(Format::Yaml, &format!("{HEAD}    - {{cpuu: 1, cpu: 1, memory: 1Gi}}\n"));
        assert!(text.contains("unknown field `cpuu`") && text.contains("memory") && text.contains("line 8"), "{text}");
    }

    #[test]
    fn an_unknown_model_suggests_the_nearest() {
        let text = fault(Format::Yaml, &format!("{HEAD}    - {{cpu: 1, memory: 1Gi, gpus: 1, gpu: [H10O]}}\n"));
        assert!(text.contains("did you mean H100?") && text.contains("spec.batch.groups[0].gpu"), "{text}");
    }

    #[test]
    fn json_errors_name_line_and_field() {
        let text = fault(
            Format::Json,
            "{\"apiVersion\":\"tidewater.dev/v1\",\"kind\":\"Workload\",\n\"metadata\":{\"name\":\"A_\"},\"spec\":{}}",
        );
        assert!(text.contains("metadata.name") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn json_with_something_after_it_is_refused() {
        assert!(parse::<u32>(Format::Json, b"1 2").is_err());
        assert_eq!(parse::<u32>(Format::Json, b" 1 "), Ok(1));
    }

    #[test]
    fn two_yaml_documents_are_refused() {
        assert!(parse::<u32>(Format::Yaml, b"1\n---\n2\n").is_err());
    }

    #[test]
    fn a_form_is_told_what_to_send_instead() {
        let mut headers = HeaderMap::new();
        assert_eq!(format(&headers), Ok(Format::Json));
        headers.insert(header::CONTENT_TYPE, "application/yaml; charset=utf-8".parse().unwrap());
        assert_eq!(format(&headers), Ok(Format::Yaml));
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        assert!(format(&headers).unwrap_err().to_string().contains("application/yaml"));
    }
}

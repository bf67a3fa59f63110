//! YAML, as people and `kubectl` write it.

use serde_json::Value;

/// A text is no YAML, or a value cannot be written as such.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(String);

/// A value as YAML.
///
/// # Errors
/// If it cannot be written, which a JSON value always can.
pub fn write(value: &Value) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| YamlError(error.to_string()))
}

/// A text of YAML, or of JSON.
///
/// # Errors
/// Where and why it is none.
pub fn read(text: &str) -> Result<Value, YamlError> {
    serde_saphyr::from_str(text).map_err(|error| YamlError(error.to_string()))
}

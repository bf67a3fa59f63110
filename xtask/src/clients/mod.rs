//! x
use anyhow::Result;
pub(crate) fn fetch() -> Result<()> {
    Ok(())
}

//! Keeps every exchange in a file where that is asked for, so that a whole test run can be held
//! against the providers' own documents afterwards.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::{Exchange, Style};

/// The folder to keep exchanges in; none are kept where it is not set.
pub const VARIABLE: &str = "VMKIT_SANDBOX_RECORD";

/// One line of a kept file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Whose simulator answered.
    pub style: Style,
    /// What was asked and answered.
    #[serde(flatten)]
    pub exchange: Exchange,
}

/// A file of our own in the folder that [`VARIABLE`] names.
#[derive(Clone)]
pub(super) struct Keeper(Option<Arc<Mutex<File>>>);

impl Keeper {
    /// None is kept where nobody asks for it; a folder that cannot be written is said aloud, since
    /// whoever asked counts on it.
    #[expect(clippy::disallowed_methods, reason = "the one variable of the simulators")]
    pub(super) fn from_environment() -> Self {
        let folder = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty());
        Self(folder.and_then(|folder| {
            let name = format!("{}-{:016x}.jsonl", std::process::id(), rand::random::<u64>());
            let path = Path::new(&folder).join(name);
            match OpenOptions::new().create_new(true).append(true).open(&path) {
                Ok(file) => Some(Arc::new(Mutex::new(file))),
                Err(error) => {
                    tracing::error!(%error, "exchanges cannot be kept in {}", path.display());
                    None
                }
            }
        }))
    }

    /// Writes one line; the file is only read when its process has ended.
    pub(super) fn keep(&self, style: Style, exchange: &Exchange) {
        let Some(file) = &self.0 else { return };
        let kept = Kept { style, exchange: exchange.clone() };
        let written =
            serde_json::to_vec(&kept).map_err(std::io::Error::other).and_then(|mut line| {
                line.push(b'\n');
                crate::lock(file).write_all(&line)
            });
        if let Err(error) = written {
            tracing::error!(%error, "an exchange could not be kept");
        }
    }
}

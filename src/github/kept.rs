//! Answers and files that were read before, so that a second scan asks little: an answer is asked
//! for with its ETag, and a file of the same content in git is not asked for at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes that are kept.
const BYTES_MAX: usize = 8 << 20;

/// Something that was read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// By which GitHub knows it; none for a file, whose name says its content.
    pub(super) etag: Option<String>,
    /// The whole of it.
    pub(super) body: Vec<u8>,
}

/// All that is kept, for one token. The oldest goes first.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    known: HashMap<String, Known>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Kept {
    pub(super) fn get(&self, name: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.get(name).cloned()
    }

    pub(super) fn put(&self, name: String, known: Known) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.body.len() > BYTES_MAX {
            return;
        }
        shelf.bytes += known.body.len();
        match shelf.known.insert(name.clone(), known) {
            Some(old) => shelf.bytes -= old.body.len(),
            None => shelf.order.push_back(name),
        }
        while shelf.bytes > BYTES_MAX {
            let Some(oldest) = shelf.order.pop_front() else { return };
            if let Some(gone) = shelf.known.remove(&oldest) {
                shelf.bytes -= gone.body.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let kept = Kept::default();
        let known = |bytes: usize| Known { etag: None, body: vec![0; bytes] };
        kept.put("huge".to_owned(), known(BYTES_MAX + 1));
        kept.put("first".to_owned(), known(BYTES_MAX / 2));
        kept.put("second".to_owned(), known(BYTES_MAX / 2));
        kept.put("second".to_owned(), known(BYTES_MAX / 2));
        assert!(kept.get("huge").is_none() && kept.get("first").is_some());
        kept.put("third".to_owned(), known(1));
        assert!(kept.get("first").is_none());
        assert!(kept.get("second").is_some() && kept.get("third").is_some());
    }
}

//! Several containers at once: the ids that match a regular expression (`kill --regex`, `delete --regex`).

use crate::error::Error;
use crate::id::ContainerId;
use crate::state::Store;

use super::parse_id;

/// Carries something out for one container, or with `regex` for each whose id matches.
///
/// # Errors
/// Of the expression, of the state root, or of `action`; or if the id is none.
pub fn one_or_each(
    store: &Store,
    id: &str,
    regex: bool,
    or_none: bool,
    mut action: impl FnMut(&ContainerId) -> Result<(), Error>,
) -> Result<(), Error> {
    if regex { each(store, id, or_none, action) } else { parse_id(id).and_then(|id| action(&id)) }
}

/// Carries something out for each container whose id matches. All of them are tried; the first error is the one that is reported.
///
/// # Errors
/// Of the expression, of the state root, or the first one of `action`; none for none that matches only if `or_none`.
fn each(
    store: &Store,
    expression: &str,
    or_none: bool,
    mut action: impl FnMut(&ContainerId) -> Result<(), Error>,
) -> Result<(), Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::new("usage", format!("--regex {expression:?}: {why}"));
    let pattern = regex_lite::Regex::new(expression).map_err(|error| wrong(&error))?;
    let matching: Vec<ContainerId> = store.ids()?.into_iter().filter(|id| pattern.is_match(id.as_str())).collect();
    if matching.is_empty() && !or_none {
        return Err(wrong(&"no container matches"));
    }
    let mut outcome: Result<(), Error> = Ok(());
    for id in matching {
        if let Err(error) = action(&id).map_err(|error| error.during(&id)) {
            outcome = Err(match outcome {
                Ok(()) => error,
                Err(first) => first.also(error),
            });
        }
    }
    outcome
}

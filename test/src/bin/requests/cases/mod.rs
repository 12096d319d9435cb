//! The corpus: what every kind is asked, and what only some are. No IO.
//!
//! Version 0 is not asked for: a kube-apiserver then answers from a cache that may or may not know of the last write.

mod apply;
mod deletion;
mod discovery;
mod errors;
mod lists;
mod namespaces;
mod pods;
mod verbs;
mod watches;

use crate::case::Case;
use crate::kinds::KINDS;

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    // Namespaces first: the controller that ends them has those of all other cases to end later.
    let mut cases = namespaces::all();
    for kind in KINDS {
        cases.extend(verbs::of(kind));
        cases.extend(apply::of(kind));
        cases.extend(deletion::of(kind));
        cases.extend(lists::of(kind));
        cases.extend(watches::of(kind));
        cases.extend(errors::of(kind));
    }
    cases.extend(pods::all());
    cases.extend(discovery::all());
    cases
}

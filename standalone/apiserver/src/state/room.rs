//! How much may still be written where the room for objects is limited. Pure.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    object,
    status::{Failure, Result},
};

/// How much may still be written, for a server whose objects take room somewhere. Deletions always may: they make room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Everything may.
    #[default]
    Enough,
    /// New objects are refused for this reason; what is there may change, so that what has begun can end.
    Scarce(Arc<str>),
    /// Changes are refused, too, but for those of objects in deletion.
    None(Arc<str>),
}

impl Room {
    /// Refuses a new object where there is no room for it.
    pub(super) fn check_new(&self) -> Result<()> {
        match self {
            Self::Enough => Ok(()),
            Self::Scarce(why) | Self::None(why) => Err(Failure::insufficient_storage(&**why)),
        }
    }

    /// Refuses a change of an object where there is no room for it.
    pub(super) fn check_change(&self, object: &Value) -> Result<()> {
        match self {
            Self::None(why) if !object::is_deleting(object) => Err(Failure::insufficient_storage(&**why)),
            _ => Ok(()),
        }
    }
}

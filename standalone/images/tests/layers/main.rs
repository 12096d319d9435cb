//! Images of many shapes, unpacked as `umoci` unpacks them; and archives that must not be unpacked at all.

mod archive;
mod hostile;
mod images;
mod tree;

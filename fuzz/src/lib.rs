//! What the fuzz targets share. The targets themselves are programs, one file each.

pub mod input;
pub mod net;
pub mod seeds;

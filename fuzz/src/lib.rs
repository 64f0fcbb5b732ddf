//! Place for fuzz targets; there are none so far.

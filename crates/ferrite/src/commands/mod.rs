//! The commands. Each file holds the functions of a family and, beside them, their rows.

use crate::command::Row;

/// All rows, family by family.
pub(crate) const FAMILIES: &[&[Row]] = &[];

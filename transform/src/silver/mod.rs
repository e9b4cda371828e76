//! Silver: checked, typed rows (spec S1 to S5).
//!
//! [`input`] turns bronze rows into silver rows; [`checks`] judges them; [`fold`] keeps one row a key.

pub mod checks;
pub mod fold;
pub mod input;

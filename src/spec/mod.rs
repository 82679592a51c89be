//! config.json as written.

mod field;
pub mod load;
mod locate;
mod object;
mod types;

pub use field::Field;
pub use types::*;

/// The version of the specification that this runtime implements.
pub const VERSION: &str = "1.3.0";

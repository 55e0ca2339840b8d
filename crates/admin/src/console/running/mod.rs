//! What the console asks of the running gateway, in parts that each have a file.
//! Must not know who answers.

pub mod chores;
pub mod clients;
pub mod figures;
pub mod knowledge;
pub mod limits;
pub mod settings;
pub mod stories;

pub use chores::Chores;
pub use clients::Clients;
pub use figures::Figures;
pub use knowledge::Knowledge;
pub use limits::Limits;
pub use settings::LiveSettings;
pub use stories::Stories;

/// The gateway that the console belongs to.
pub trait Running: Chores + Clients + Figures + Knowledge + Limits + LiveSettings + Stories {}

impl<T: Chores + Clients + Figures + Knowledge + Limits + LiveSettings + Stories> Running for T {}

//! Stands in for settings of crates that are being written; goes away with their first version.
//! Must not be used from outside.

pub mod portcullis_store {
    use std::time::Duration;

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LogSettings {
        pub retention: Duration,
        pub max_bytes: u64,
        pub queue: usize,
        pub flush_interval: Duration,
    }

    impl Default for LogSettings {
        fn default() -> Self {
            Self {
                retention: Duration::from_secs(30 * 86_400),
                max_bytes: 10 << 30,
                queue: 65_536,
                flush_interval: Duration::from_millis(250),
            }
        }
    }
}

//! What can be set while control runs: one table of names, bounds and meanings. CONFIG GET, CONFIG
//! SET and the documentation follow from it. Kept in the store, so a restart changes nothing.

use serde::{Deserialize, Serialize};

/// Settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Settings {
    /// Slots of a move that stream at once.
    pub migration_parallel_slots: u64,
    /// Slots that one move carries at most.
    pub migration_batch_slots: u64,
    /// Moves that one group sends at once.
    pub migration_moves_per_source: u64,
    /// Moves that one group receives at once.
    pub migration_moves_per_target: u64,
    /// Bytes per second that a source sends at most; 0: no limit.
    pub migration_rate_bytes: u64,
    /// Pause of a slot above which fewer slots stream at once.
    pub migration_latency_budget_us: u64,
    /// Time without progress after which a move is given up.
    pub migration_stall_ms: u64,
    /// How proxies ask for keys during a move by the original's commands: 0 or 1.
    pub forward_method: u64,
    /// Words in one message of the original's moves.
    pub migration_async_maxbulks: u64,
    /// Bytes in one message of the original's moves.
    pub migration_async_maxbytes: u64,
    /// Keys that one call of the original's moves carries.
    pub migration_async_numkeys: u64,
    /// Silence after which one call of the original's moves fails.
    pub migration_timeout_ms: u64,
    /// Time after which a member that does not answer fails what waits for it.
    pub peer_timeout_ms: u64,
    /// How long a proxy may serve slots of servers that cannot refuse, without hearing from control.
    pub lease_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            migration_parallel_slots: 16,
            migration_batch_slots: 256,
            migration_moves_per_source: 2,
            migration_moves_per_target: 2,
            migration_rate_bytes: 0,
            migration_latency_budget_us: 20_000,
            migration_stall_ms: 30_000,
            forward_method: 1,
            migration_async_maxbulks: 200,
            migration_async_maxbytes: 32 << 20,
            migration_async_numkeys: 500,
            migration_timeout_ms: 5_000,
            peer_timeout_ms: 10_000,
            lease_ms: 15_000,
        }
    }
}

/// One setting.
pub struct SettingSpec {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// The lowest value.
    pub min: u64,
    /// The highest value.
    pub max: u64,
    field: fn(&mut Settings) -> &mut u64,
}

/// All settings, by name.
pub const SETTINGS: &[SettingSpec] = &[
    SettingSpec {
        name: "forward-method",
        summary: "How proxies fetch keys of a slot that moves by the original's commands: \
                  0 sync, 1 semi-async.",
        min: 0,
        max: 1,
        field: |settings| &mut settings.forward_method,
    },
    SettingSpec {
        name: "lease-ms",
        summary: "While slots move by the original's commands: how long a proxy may serve them \
                  without hearing from control.",
        min: 500,
        max: 600_000,
        field: |settings| &mut settings.lease_ms,
    },
    SettingSpec {
        name: "migration-async-maxbulks",
        summary: "Words in one message of a move by the original's commands.",
        min: 1,
        max: 512 * 1024,
        field: |settings| &mut settings.migration_async_maxbulks,
    },
    SettingSpec {
        name: "migration-async-maxbytes",
        summary: "Bytes in one message of a move by the original's commands.",
        min: 1024,
        max: 1 << 30,
        field: |settings| &mut settings.migration_async_maxbytes,
    },
    SettingSpec {
        name: "migration-async-numkeys",
        summary: "Keys that one call of a move by the original's commands carries.",
        min: 1,
        max: 1_000_000,
        field: |settings| &mut settings.migration_async_numkeys,
    },
    SettingSpec {
        name: "migration-batch-slots",
        summary: "Slots that one move carries at most.",
        min: 1,
        max: 1024,
        field: |settings| &mut settings.migration_batch_slots,
    },
    SettingSpec {
        name: "migration-latency-budget-us",
        summary: "Pause of a slot above which fewer slots stream at once.",
        min: 100,
        max: 10_000_000,
        field: |settings| &mut settings.migration_latency_budget_us,
    },
    SettingSpec {
        name: "migration-moves-per-source",
        summary: "Moves that one group sends at once.",
        min: 1,
        max: 64,
        field: |settings| &mut settings.migration_moves_per_source,
    },
    SettingSpec {
        name: "migration-moves-per-target",
        summary: "Moves that one group receives at once.",
        min: 1,
        max: 64,
        field: |settings| &mut settings.migration_moves_per_target,
    },
    SettingSpec {
        name: "migration-parallel-slots",
        summary: "Slots of a move that stream at once.",
        min: 1,
        max: 1024,
        field: |settings| &mut settings.migration_parallel_slots,
    },
    SettingSpec {
        name: "migration-rate-bytes",
        summary: "Bytes per second that a source sends at most; 0: no limit.",
        min: 0,
        max: 1 << 40,
        field: |settings| &mut settings.migration_rate_bytes,
    },
    SettingSpec {
        name: "migration-stall-ms",
        summary: "Time without progress after which a move is given up and its slots stay.",
        min: 100,
        max: 86_400_000,
        field: |settings| &mut settings.migration_stall_ms,
    },
    SettingSpec {
        name: "migration-timeout-ms",
        summary: "Silence after which one call of a move by the original's commands fails.",
        min: 10,
        max: 600_000,
        field: |settings| &mut settings.migration_timeout_ms,
    },
    SettingSpec {
        name: "peer-timeout-ms",
        summary: "Time after which a member that does not answer fails what waits for it.",
        min: 100,
        max: 3_600_000,
        field: |settings| &mut settings.peer_timeout_ms,
    },
];

impl SettingSpec {
    /// The setting with a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|spec| spec.name.eq_ignore_ascii_case(name))
    }

    /// Its value.
    pub fn get(&self, settings: &Settings) -> u64 {
        *(self.field)(&mut settings.clone())
    }

    /// Sets it.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u64>() {
            Ok(value) if is_plain && (self.min..=self.max).contains(&value) => {
                *(self.field)(settings) = value;
                Ok(())
            }
            _ => Err(format!("{} must be a number from {} to {}", self.name, self.min, self.max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_each_has_a_default_within_its_bounds_and_its_own_field() {
        let defaults = Settings::default();
        for (at, spec) in SETTINGS.iter().enumerate() {
            assert!((spec.min..=spec.max).contains(&spec.get(&defaults)), "{}", spec.name);
            assert!(at == 0 || SETTINGS[at - 1].name < spec.name, "{} is out of order", spec.name);
            let mut settings = Settings::default();
            let other = if spec.get(&defaults) == spec.max { spec.min } else { spec.max };
            spec.set(&mut settings, &other.to_string()).unwrap();
            let changed: Vec<&str> = SETTINGS
                .iter()
                .filter(|s| s.get(&settings) != s.get(&defaults))
                .map(|s| s.name)
                .collect();
            assert_eq!(changed, [spec.name]);
        }
    }

    #[test]
    fn setting_beyond_its_bounds_is_refused() {
        let spec = SettingSpec::named("LEASE-MS").unwrap();
        let mut settings = Settings::default();
        for text in ["", "x", "-1", "+600", "499", "600001", "99999999999999999999"] {
            assert!(spec.set(&mut settings, text).is_err(), "{text}");
        }
        assert_eq!(settings, Settings::default());
    }
}

//! The bans of fail2ban's own database (`/var/lib/fail2ban/fail2ban.sqlite3`), for somebody who comes from
//! there. Reads only; must not create or change that file.

use std::path::Path;

use portcullis_model::UnixMs;

use crate::error::{StoreError, sqlite_error};
use crate::folder;

/// Bans that are read at most.
pub const MAX_BANS: usize = 1_000_000;

/// One ban as fail2ban keeps it. Texts come from its filters: a stranger may have chosen them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail2banBan {
    pub jail: String,
    pub ip: String,
    pub since: UnixMs,
    pub end: BanEnd,
}

/// How long a ban lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanEnd {
    At(UnixMs),
    Never,
    /// Databases of fail2ban before 0.11 do not say.
    Unknown,
}

/// All bans, oldest first, also those that are over.
///
/// # Errors
/// There is no such file, it is no database of fail2ban, or it has more than [`MAX_BANS`] bans.
pub fn fail2ban_bans(path: &Path) -> Result<Vec<Fail2banBan>, StoreError> {
    let doing = "reading fail2ban's bans";
    if !folder::has(path)? {
        return Err(StoreError::NoFile(path.to_path_buf()));
    }
    let connection = folder::open_reader(path)?;
    let read = || -> rusqlite::Result<Vec<Fail2banBan>> {
        let columns = "SELECT count(*) FROM pragma_table_info('bans') WHERE name = 'bantime'";
        let has_end = connection.query_row(columns, [], |row| row.get::<_, i64>(0))? > 0;
        let bantime = if has_end { "bantime" } else { "NULL" };
        let sql = format!(
            "SELECT CAST(jail AS TEXT), CAST(ip AS TEXT), CAST(timeofban AS INTEGER), CAST({bantime} AS INTEGER) \
             FROM bans WHERE ip IS NOT NULL AND jail IS NOT NULL ORDER BY timeofban LIMIT ?1"
        );
        let mut statement = connection.prepare(&sql)?;
        let bans = statement.query_map([MAX_BANS as i64 + 1], |row| {
            let seconds = |n: i64| UnixMs(n.saturating_mul(1_000));
            let since: i64 = row.get::<_, Option<i64>>(2)?.unwrap_or(0);
            let end = match row.get::<_, Option<i64>>(3)? {
                None => BanEnd::Unknown,
                Some(forever) if forever < 0 => BanEnd::Never,
                Some(lasts) => BanEnd::At(seconds(since.saturating_add(lasts))),
            };
            Ok(Fail2banBan { jail: row.get(0)?, ip: row.get(1)?, since: seconds(since), end })
        })?;
        bans.collect()
    };
    let bans = read().map_err(sqlite_error(path, doing))?;
    if bans.len() > MAX_BANS {
        return Err(StoreError::TooManyBans { path: path.to_path_buf(), max: MAX_BANS });
    }
    Ok(bans)
}

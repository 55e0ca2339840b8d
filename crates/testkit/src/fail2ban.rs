//! A database as fail2ban keeps it. Made from its schema, so that no fail2ban is needed; holds bans only.

use std::path::Path;

use rusqlite::{Connection, params};

/// One ban: jail, address, when it began and how long it lasts, in seconds; a negative length is for ever.
pub type Fail2banRow<'a> = (&'a str, &'a str, i64, i64);

/// Writes the database; `has_bantime` as of fail2ban 0.11.
pub fn write_fail2ban_database(path: &Path, has_bantime: bool, bans: &[Fail2banRow<'_>]) {
    let connection = Connection::open(path).unwrap();
    let bantime =
        if has_bantime { "bantime INTEGER NOT NULL, bancount INTEGER NOT NULL DEFAULT 1," } else { "" };
    let schema = format!(
        "CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, {bantime} data JSON)"
    );
    connection.execute_batch(&schema).unwrap();
    for (jail, ip, since, lasts) in bans {
        let sql = "INSERT INTO bans (jail, ip, timeofban, data) VALUES (?1, ?2, ?3, '{}')";
        let with = "INSERT INTO bans (jail, ip, timeofban, bantime, data) VALUES (?1, ?2, ?3, ?4, '{}')";
        match has_bantime {
            true => connection.execute(with, params![jail, ip, since, lasts]),
            false => connection.execute(sql, params![jail, ip, since]),
        }
        .unwrap();
    }
}

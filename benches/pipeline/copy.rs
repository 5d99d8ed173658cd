//! Binary COPY into tables without keys: the fastest way to write to PostgreSQL, as a baseline for the write path.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::database::Database;
use crate::wire::RawConnection;
use crate::{Outcome, report};

const TABLES: [&str; 2] = ["blocks", "effect_estimates"];

/// Copies the final blocks and estimates of a database into tables without keys. Returns the number of rows and the time.
pub fn measure(database: &mut Database) -> Outcome<(usize, Duration)> {
    let mut connection = RawConnection::connect(&database.options)?;
    let (mut rows, mut elapsed) = (0, Duration::ZERO);
    for table in TABLES {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(report::unique(table));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        let mut writer = BufWriter::new(&file);
        connection.copy_out(&format!("copy {table} to stdout (format binary)"), &mut writer)?;
        writer.flush()?;
        drop(writer);
        file.rewind()?;
        connection.execute(&format!("create table bare_{table} (like {table})"))?;
        connection.execute("checkpoint")?;
        let started = Instant::now();
        connection.copy_in(&format!("copy bare_{table} from stdin (format binary)"), &mut BufReader::new(file))?;
        elapsed += started.elapsed();
        rows += database.value::<i64>(&format!("select count(*) from bare_{table}"))? as usize;
    }
    Ok((rows, elapsed))
}

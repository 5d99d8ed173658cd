//! The statistics of populations as they stand in the tables, beside the code that reads them.

use std::collections::BTreeMap;

use super::database::Database;

/// What is stored of the populations that have any effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStatistics {
    /// Population, experiments and effects.
    pub counts: Vec<String>,
    /// By population and part: the moments of the cells, as bytes; of parts that have any.
    pub moments: BTreeMap<String, Vec<u8>>,
}

impl StoredStatistics {
    pub async fn of(database: &impl Database) -> StoredStatistics {
        let counts = "select population_id || ' ' || cast(experiments as text) || ' ' || cast(effects as text)
                          || cast(block_sizes as text)
                      from populations where effects <> 0 order by population_id";
        let keys = "select population_id || ' ' || part from population_cells order by population_id, part";
        let moments = "select moments from population_cells order by population_id, part";
        let keys = database.texts(keys).await.into_iter().flatten();
        let moments = keys.zip(database.bytes(moments).await.into_iter().flatten());
        StoredStatistics {
            counts: database.texts(counts).await.into_iter().flatten().collect(),
            moments: moments.filter(|(_, moments)| !moments.is_empty()).collect(),
        }
    }
}

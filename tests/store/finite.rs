//! What is not finite becomes no row, and a population that cannot be fitted concerns no other.

use shrinkd::estimate::BlockEstimates;
use shrinkd::refit::{MOST_WITHOUT_CELLS, Publication, RefitState};
use shrinkd::row::{EndedPass, EstimateRow, FitRow, PublishedFit};
use shrinkd::store::{Refit, Store, StoreError};
use shrinkd_model::Correlation;

use super::loops::{loops, priors, settle, take};
use super::publish::{blocks_after, pass_diagnostics, write_page};
use super::refit::{begin, begin_refit, diagnostics, filled, fit_row, largest, node, refit, refitted};
use super::{Worker, population, promises};
use crate::common::database::{Database, refuse_fits};
use shrinkd::worker::refit::Occasion;

promises! {
    a_figure_that_is_not_finite_is_refused_by_name_and_no_row_changes,
    the_database_itself_refuses_what_is_not_finite_in_every_column,
    an_estimate_that_is_not_finite_leaves_raw_figures_of_its_block_alone,
    a_population_that_cannot_be_fitted_keeps_its_estimates_stops_no_other_and_recovers,
    a_population_that_was_never_fitted_has_raw_estimates_while_it_fails,
    cells_that_cannot_be_read_fail_one_population_alone,
    a_worker_that_starts_fits_failed_populations_again,
    a_prior_far_from_the_data_is_a_message_and_a_count,
}

const NOT_FINITE: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// Everything that is published.
async fn published(database: &impl Database) -> (Vec<Option<String>>, Vec<Vec<Option<f64>>>) {
    let texts = "select population_id || ' ' || experiment_id || ' ' || variant || ' ' || status || ' ' || fit_id
                 from effect_estimates order by 1";
    let figures = "select posterior_mean, posterior_sd, ci95_low, ci95_high from effect_estimates
                   order by population_id, experiment_id, variant";
    (database.texts(texts).await, database.numbers(figures).await)
}

async fn statuses(database: &impl Database) -> Vec<String> {
    let statuses = "select distinct population_id || ' ' || status from current_population_fits order by 1";
    database.texts(statuses).await.into_iter().flatten().collect()
}

/// A transaction that was dropped holds its locks until its connection is back in the pool.
async fn begun_refit(store: &Store) -> (Refit, RefitState) {
    for _ in 0..1_000 {
        if let Some(refit) = begin_refit(store, "m").await {
            return refit;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the population is not free");
}

async fn a_figure_that_is_not_finite_is_refused_by_name_and_no_row_changes<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let before = published(database).await;
    for bad in NOT_FINITE {
        let sound = fit_row(Correlation::Modelled, 1.0, 0.5);
        let mut of_mu = sound.clone();
        of_mu.mu.q975 = Some(bad);
        let of_nodes = FitRow { nodes: vec![node(1.0, bad)], ..sound };
        for (row, column) in [(of_mu, "mu_q975"), (of_nodes, "nodes")] {
            let (mut refit, state) = begun_refit(&store).await;
            let refused = refit.write(vec![refitted("m", &state, &[row], Publication::NotDue)]).await.unwrap_err();
            assert!(matches!(refused, StoreError::NotFinite { column: found, .. } if found == column), "{refused}");
            assert!(refused.is_of_a_row() && !refused.is_transient());
            refit.rollback().await.unwrap();
        }
        let pass = begin(&store, "a").await.unwrap();
        let blocks = blocks_after(&store, &pass.population, "", 100).await;
        let sound = blocks.iter().flat_map(|it| BlockEstimates::new(&it.block, it.commit_id, &pass.fit).rows);
        let mut rows: Vec<EstimateRow> = sound.collect();
        rows[3].shrunk.as_mut().expect("an estimate").ci95.0 = bad;
        let refused = store.write_estimates(&[(&pass, "exp-1")], rows).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotFinite { column: "ci95_low", .. }), "{refused}");
        assert!(refused.to_string().contains("m/all/absolute exp-1 v1"), "{refused}");
        let mut cells = diagnostics();
        cells.information = bad;
        let diagnostics = Some((cells, pass_diagnostics()));
        let ended = EndedPass { pass: pass.clone(), is_diagnosis: true, diagnostics };
        let refused = store.end_passes(&[ended]).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotFinite { column: "information", .. }), "{refused}");
    }
    assert_eq!(published(database).await, before);
}

async fn the_database_itself_refuses_what_is_not_finite_in_every_column<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let is_sqlite = database.url().starts_with("sqlite");
    let columns = match is_sqlite {
        true => {
            "select m.name || ' ' || p.name from sqlite_master m join pragma_table_info(m.name) p
                 where m.type = 'table' and p.type = 'REAL'"
        }
        false => {
            "select table_name || ' ' || column_name from information_schema.columns
                  join information_schema.tables using (table_schema, table_name)
                  where table_type = 'BASE TABLE' and data_type in ('double precision', 'real')
                    and table_schema not in ('pg_catalog', 'information_schema')"
        }
    };
    let columns: Vec<String> = database.texts(columns).await.into_iter().flatten().collect();
    assert!(columns.len() > 80, "the columns are found: {columns:?}");
    for column in &columns {
        let (table, column) = column.split_once(' ').expect("two names");
        // SQLite has no NaN: it makes it null. A row that its constraint refuses is left out.
        let statement = match is_sqlite {
            true => ["9e999", "-9e999"]
                .map(|bad| {
                    format!(
                        "update or ignore {table} set {column} = {bad} where abs({column}) < 9e999 or {column} is null"
                    )
                })
                .join(";"),
            false => {
                let try_it = |bad: &str| {
                    format!(
                        "begin update {table} set {column} = '{bad}'; raise exception '{table}.{column} takes {bad}';
                         exception when check_violation then null; end;"
                    )
                };
                let all = ["NaN", "Infinity", "-Infinity"].map(try_it).join("\n");
                format!("do $$ begin {all} end $$")
            }
        };
        database.execute(statement.leak()).await;
        let taken = match is_sqlite {
            true => format!("select cast(count(*) as text) from {table} where abs({column}) >= 9e999"),
            false => format!("select cast(count(*) as text) from {table} where not abs({column}) < 'Infinity'"),
        };
        assert_eq!(database.count(taken.leak()).await, 0, "{table}.{column}");
    }
}

async fn an_estimate_that_is_not_finite_leaves_raw_figures_of_its_block_alone<D: Database>(database: &D) {
    let store = database.store().await;
    filled(&store, 2).await;
    refit(&store, "m", 1.0, 0.5, true).await;
    let pass = begin(&store, "a").await.unwrap();
    let blocks = blocks_after(&store, &pass.population, "", 100).await;
    // As a fit that cannot come from the table.
    let bad = PublishedFit { nodes: vec![node(f64::NAN, 0.5)], ..pass.fit.clone() };
    let [of_bad, of_sound] = [&bad, &pass.fit].map(|fit| BlockEstimates::new(&blocks[0].block, 1, fit).rows);
    assert!(of_sound.iter().all(|row| row.status.as_str() == "fitted" && row.shrunk.is_some()));
    for (bad, sound) in of_bad.iter().zip(&of_sound) {
        assert_eq!((bad.status.as_str(), bad.shrunk), ("failed", None));
        assert_eq!((bad.raw_estimate, bad.raw_se), (sound.raw_estimate, sound.raw_se));
    }
    let mut rows = of_bad;
    rows.iter_mut().for_each(|row| row.commit_id = blocks[0].commit_id);
    rows.extend(BlockEstimates::new(&blocks[1].block, blocks[1].commit_id, &pass.fit).rows);
    assert_eq!(write_page(&store, &pass, rows, "exp-1").await, Some(4));
    let found = database.texts("select experiment_id || ' ' || status from effect_estimates order by 1").await;
    let found: Vec<String> = found.into_iter().flatten().collect();
    assert_eq!(found, ["exp-0 failed", "exp-0 failed", "exp-1 fitted", "exp-1 fitted"]);
}

async fn take_fits<D: Database>(database: &D) {
    let statements = match database.url().starts_with("sqlite") {
        true => "drop trigger planted",
        false => "alter table current_population_fits drop constraint planted",
    };
    database.execute(statements).await;
}

async fn a_population_that_cannot_be_fitted_keeps_its_estimates_stops_no_other_and_recovers<D: Database>(database: &D) {
    let store = database.store().await;
    let loops = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    for i in 0..4 {
        take(&mut worker, i, 0.0).await;
    }
    settle(&loops).await;
    assert_eq!(statuses(database).await, ["a/all/absolute fitted", "b/all/absolute fitted"]);
    let (rows, figures) = published(database).await;
    let of_a = |(rows, figures): (Vec<Option<String>>, Vec<Vec<Option<f64>>>)| {
        let own = rows.into_iter().zip(figures);
        own.filter(|(row, _)| row.as_ref().is_some_and(|row| row.starts_with("a/"))).collect::<Vec<_>>()
    };
    let before = of_a((rows, figures));

    refuse_fits(database).await;
    for i in 4..6 {
        take(&mut worker, i, 5.0).await;
    }
    settle(&loops).await;
    assert_eq!(statuses(database).await, ["a/all/absolute failed", "b/all/absolute fitted"]);
    let message = "select distinct message from current_population_fits where status = 'failed'";
    let message = database.texts(message).await.remove(0).expect("a message");
    assert!(message.starts_with("`refit: fits` failed"), "{message}");
    let effects = "select cast(effects as double precision), cast(experiments as double precision)
                   from current_population_fits where status = 'failed' order by correlation";
    let [all, one_each] = [8.0, 4.0].map(|effects| vec![Some(effects), Some(4.0)]);
    assert_eq!(database.numbers(effects).await, [all.clone(), all.clone(), all, one_each], "those of the refit before");
    let (both, totals) = largest(&store, 10).await;
    assert_eq!((totals.populations, totals.failed, totals.prior_far), (2, 1, 0));
    assert_eq!(both.iter().filter(|current| current.mu.is_none()).count(), 1);

    let after = of_a(published(database).await);
    assert_eq!(after[..before.len()], before[..], "the estimates stay");
    assert_eq!(after.len(), before.len() + 4);
    let fit_of = |row: &(Option<String>, _)| row.0.as_ref().and_then(|row| row.rsplit(' ').next().map(str::to_owned));
    for new in &after[before.len()..] {
        assert_eq!(fit_of(new), fit_of(&before[0]), "new effects have the last fit that there is");
        assert!(new.0.as_ref().is_some_and(|row| row.contains(" fitted ")) && new.1.iter().all(Option::is_some));
    }
    let others = "select cast(count(distinct fit_id) as text) from population_fits where population_id like 'b/%'";
    assert_eq!(database.count(others).await, 2, "the other population is published with its news");
    settle(&loops).await;
    assert_eq!(of_a(published(database).await), after, "nothing is tried over and over");

    take_fits(database).await;
    take(&mut worker, 6, 5.0).await;
    // It is tried again after a while.
    let later =
        "select cast(count(*) as text) from populations where refit_due_at > created_at and population_id like 'a/%'";
    assert_eq!(database.count(later).await, 1);
    database.execute("update populations set refit_due_at = created_at where refit_due_at is not null").await;
    settle(&loops).await;
    assert_eq!(statuses(database).await, ["a/all/absolute fitted", "b/all/absolute fitted"]);
    let both =
        "select posterior_mean from effect_estimates where population_id like 'a/%' order by experiment_id, variant";
    let of_b =
        "select posterior_mean from effect_estimates where population_id like 'b/%' order by experiment_id, variant";
    assert_eq!(database.numbers(both).await, database.numbers(of_b).await, "the same data, the same estimates");
    assert_eq!(largest(&store, 10).await.1.failed, 0);
}

async fn a_population_that_was_never_fitted_has_raw_estimates_while_it_fails<D: Database>(database: &D) {
    let store = database.store().await;
    let loops = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    refuse_fits(database).await;
    take(&mut worker, 0, 0.0).await;
    settle(&loops).await;
    take(&mut worker, 1, 0.0).await;
    settle(&loops).await;
    assert_eq!(statuses(database).await, ["a/all/absolute failed", "b/all/absolute fitted"]);
    let raw = "select cast(count(*) as text) from effect_estimates
               where population_id like 'a/%' and fit_id = 0 and posterior_mean is null";
    assert_eq!(database.count(raw).await, 4);
    take_fits(database).await;
    loops.0.request_refits_for_changed_settings().await.unwrap();
    settle(&loops).await;
    let fitted = "select cast(count(*) as text) from effect_estimates where posterior_mean is not null";
    assert_eq!(database.count(fitted).await, 8);
}

async fn cells_that_cannot_be_read_fail_one_population_alone<D: Database>(database: &D) {
    let store = database.store().await;
    let loops = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    take(&mut worker, 0, 0.0).await;
    for i in 1..=MOST_WITHOUT_CELLS {
        take(&mut worker, i, 0.0).await;
    }
    settle(&loops).await;
    database
        .execute("update population_cells set moments = substr(moments, 1, 100) where population_id like 'a/%'")
        .await;
    take(&mut worker, MOST_WITHOUT_CELLS + 1, 0.0).await;
    loops.0.refit_all(Occasion::News).await.expect("the other population is fitted");
    assert_eq!(statuses(database).await, ["a/all/absolute failed", "b/all/absolute fitted"]);
    let message = "select distinct message from current_population_fits where status = 'failed'";
    let message = database.texts(message).await.remove(0).expect("a message");
    assert!(message.contains("moments in the database is damaged"), "{message}");
}

async fn a_worker_that_starts_fits_failed_populations_again<D: Database>(database: &D) {
    let store = database.store().await;
    let loops = loops(&store, priors("flat", "half-normal:1"));
    let mut worker = Worker::claim(&store, &[0]).await;
    take(&mut worker, 0, 0.0).await;
    refuse_fits(database).await;
    settle(&loops).await;
    take_fits(database).await;
    settle(&loops).await;
    assert_eq!(statuses(database).await, ["a/all/absolute failed", "b/all/absolute fitted"]);
    loops.0.request_refits_for_changed_settings().await.unwrap();
    assert_eq!(store.populations_with_news().await.unwrap(), [population("a")]);
    settle(&loops).await;
    assert_eq!(statuses(database).await, ["a/all/absolute fitted", "b/all/absolute fitted"]);
}

async fn a_prior_far_from_the_data_is_a_message_and_a_count<D: Database>(database: &D) {
    let store = database.store().await;
    let far = loops(&store, priors("normal:0,1", "half-normal:1e-9"));
    let mut worker = Worker::claim(&store, &[0]).await;
    take(&mut worker, 0, 0.0).await;
    settle(&far).await;
    let messages = "select distinct population_id || ' ' || status || ' ' || message from current_population_fits
                    order by 1";
    let said = database.texts(messages).await;
    assert_eq!(said.len(), 2, "{said:?}");
    let said = said.into_iter().flatten().next().expect("a message");
    assert!(said.starts_with("a/all/absolute fitted the prior of tau has scale 1e-9, but "), "{said}");
    assert_eq!(largest(&store, 10).await.1.prior_far, 2);

    let near = loops(&store, priors("normal:0,1", "half-normal:1"));
    near.0.request_refits_for_changed_settings().await.unwrap();
    settle(&near).await;
    assert_eq!(largest(&store, 10).await.1.prior_far, 0);
    assert!(database.texts(messages).await.into_iter().all(|message| message.is_none()));
}

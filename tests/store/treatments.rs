//! A treatment that is refused alone: what is stored of it, of its result, and of a replay.

use shrinkd::row::replay::RejectedSelection;

use super::replay::{keyed, partly_refused, refused, replay};
use super::{Worker, message, promises};
use crate::common::database::Database;

promises! {
    each_treatment_that_is_refused_has_a_row_and_the_others_are_estimated,
    a_replay_of_a_refused_treatment_whose_result_was_replaced_is_stale,
    a_replay_says_of_each_row_what_came_of_its_own_treatment,
    a_message_that_was_refused_whole_stays_refused_while_a_treatment_of_it_is,
}

/// A log ratio of four arms, of which two have no events.
fn result(metric: &str) -> String {
    format!(
        r#"{{"metric":"{metric}","scale":"log_ratio","control":{{"variant":"c","n":1000,"successes":100}},
            "treatments":[{{"variant":"none","n":1000,"successes":0}},{{"variant":"t","n":1000,"successes":90}},
                          {{"variant":"zero","n":900,"successes":0}}]}}"#
    )
    .replace('\n', " ")
}

fn two_results(experiment_id: &str) -> String {
    message(experiment_id, 1, &format!("{},{}", result("m"), result("other")))
}

async fn rows(database: &impl Database) -> Vec<String> {
    let rows =
        "select coalesce(cast(result_index as text), '-') || ' ' || coalesce(variant, '-') || ' ' || reason || ' '
                       || case when payload is null then '' else 'with message' end
                from rejected_events order by rejected_event_id";
    database.texts(rows).await.into_iter().flatten().collect()
}

async fn estimated(database: &impl Database) -> Vec<String> {
    let rows = "select population_id || ' ' || variant from effect_estimates order by 1";
    database.texts(rows).await.into_iter().flatten().collect()
}

async fn each_treatment_that_is_refused_has_a_row_and_the_others_are_estimated<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    let counts = worker.ingest(vec![keyed(0, 0, "exp-1", &two_results("exp-1"))]).await;
    assert_eq!((counts.accepted, counts.refused), (2, 0));
    let expected = [
        "0 none non_positive_mean with message",
        "0 zero non_positive_mean ",
        "1 none non_positive_mean ",
        "1 zero non_positive_mean ",
    ];
    assert_eq!(rows(database).await, expected);
    assert_eq!(estimated(database).await, ["m/all/log_ratio t", "other/all/log_ratio t"]);
    // The same message once more, from where a producer has sent it again.
    let counts = worker.ingest(vec![keyed(0, 1, "exp-1", &two_results("exp-1"))]).await;
    assert_eq!(counts.duplicates, 2);
    assert_eq!(rows(database).await, expected, "a duplicate brings no further rows");
}

async fn a_replay_says_of_each_row_what_came_of_its_own_treatment<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![keyed(0, 0, "exp-1", &message("exp-1", 1, &result("m")))]).await;
    let stays = "non_positive_mean -> refused: non_positive_mean";
    for _ in 0..2 {
        assert_eq!(replay(&store, &RejectedSelection::All).await, [stays, stays]);
    }
    assert_eq!(rows(database).await, ["0 none non_positive_mean with message", "0 zero non_positive_mean "]);
    assert_eq!(estimated(database).await, ["m/all/log_ratio t"]);
    // A build that would refuse none of them finds the result as it was sent.
    let good = message("exp-2", 1, &result("m").replace(r#""successes":0"#, r#""successes":80"#));
    let mut record = keyed(0, 1, "exp-2", &message("exp-2", 1, &result("m")));
    record.payload = Some(good.clone().into_bytes());
    worker.ingest(vec![record]).await;
    worker.ingest(vec![keyed(0, 2, "exp-3", &good.replace("exp-2", "exp-3"))]).await;
    let said = replay(&store, &RejectedSelection::All).await;
    assert_eq!(said[..2], [stays, stays]);
    assert_eq!(said.len(), 4);
}

async fn a_replay_of_a_refused_treatment_whose_result_was_replaced_is_stale<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![keyed(0, 0, "exp-1", &message("exp-1", 1, &result("m")))]).await;
    let corrected = result("m").replace(r#""successes":0"#, r#""successes":80"#);
    let counts = worker.ingest(vec![keyed(0, 1, "exp-1", &message("exp-1", 2, &corrected))]).await;
    assert_eq!((counts.accepted, counts.refused), (1, 0));
    assert_eq!(replay(&store, &RejectedSelection::All).await, ["non_positive_mean -> stale"; 2]);
    let population = "m/all/log_ratio";
    assert_eq!(estimated(database).await, ["none", "t", "zero"].map(|variant| format!("{population} {variant}")));
}

async fn a_message_that_was_refused_whole_stays_refused_while_a_treatment_of_it_is<D: Database>(database: &D) {
    let store = database.store().await;
    let mut worker = Worker::claim(&store, &[0]).await;
    worker.ingest(vec![refused(0, 0, "exp-1", &two_results("exp-1"))]).await;
    worker.ingest(vec![partly_refused(0, 1, "exp-2", &two_results("exp-2"), 1)]).await;
    let said = replay(&store, &RejectedSelection::All).await;
    let stays = "non_positive_mean -> refused: non_positive_mean";
    let rows = [
        "unsupported_version -> refused: non_positive_mean",
        "too_many_variants -> refused: non_positive_mean",
        stays,
        stays,
    ];
    assert_eq!(said.len(), 4);
    for row in rows {
        assert_eq!(
            said.iter().filter(|said| *said == row).count(),
            rows.iter().filter(|other| **other == row).count(),
            "{said:?}"
        );
    }
    assert_eq!(estimated(database).await.len(), 4, "what can be estimated is");
}

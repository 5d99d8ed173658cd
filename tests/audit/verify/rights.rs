//! What an audit may do in PostgreSQL, as deploy/postgres/roles.sql grants it.

use super::{Folder, Settings, events};
use crate::common::database::{Database, PostgresDatabase};

const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");

#[tokio::test]
async fn the_rights_of_the_auditor_are_enough_and_allow_no_change() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let folder = Folder::new("rights");
    let settings = Settings::file(&events(&folder, 60), database.url());
    settings.run();
    let grants = ROLES.split(';').filter(|statement| statement.contains(" to shrinkd_auditor"));
    let grants: Vec<&str> = grants.filter_map(|statement| Some(&statement[statement.find("grant ")?..])).collect();
    assert_eq!(grants.len(), 1, "the statement is found");
    assert!(grants[0].starts_with("grant select on "), "{}", grants[0]);
    // A role of this test's own: those of the file belong to the whole server.
    let role = format!("shrinkd_test_auditor_{}", std::process::id());
    let grant = grants[0].replace("shrinkd_auditor", &role);
    let made = format!("create role {role} login password 'secret'; grant usage on schema public to {role}; {grant};");
    database.execute(made.leak()).await;
    let (scheme, rest) = database.url().split_once("://").map(|(x, y)| (x.to_owned(), y.to_owned())).expect("a URL");
    let server = rest.rsplit_once('@').map_or(rest.as_str(), |(_, server)| server);
    let url = format!("{scheme}://{role}:secret@{server}");
    let audit = settings.with("SHRINKD__STORE__URL", &url).verify();
    database.execute(format!("drop owned by {role}; drop role {role};").leak()).await;
    audit.is_clean();
    database.remove().await;
}

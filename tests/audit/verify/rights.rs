//! What an audit may do in PostgreSQL, as deploy/postgres/roles.sql grants it.

use super::{Folder, Settings, events};
use crate::common::database::{Database, PostgresDatabase};
use crate::common::role::Role;

#[tokio::test]
async fn the_rights_of_the_auditor_are_enough_and_allow_no_change() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let folder = Folder::new("rights");
    let settings = Settings::file(&events(&folder, 40), database.url());
    settings.run();
    let role = Role::create(&database).await;
    role.grant_as("shrinkd_auditor").await;
    let audit = settings.with("SHRINKD__STORE__URL", &role.url("right")).verify();
    let writes = "select count(*)::text from information_schema.role_table_grants where privilege_type <> 'SELECT' and grantee = ";
    assert_eq!(database.count(format!("{writes}'{}'", role.name).leak()).await, 0);
    role.remove().await;
    audit.is_clean();
    database.remove().await;
}

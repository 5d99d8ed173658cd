//! Roles of PostgreSQL that log in with a password.

use std::sync::atomic::{AtomicU32, Ordering};

use super::database::{Database, PostgresDatabase};

const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");

/// A role of one test's own: those of roles.sql belong to the whole server.
pub struct Role<'a> {
    pub name: String,
    database: &'a PostgresDatabase,
}

impl<'a> Role<'a> {
    /// A role whose password is `right`, and which may do nothing.
    pub async fn create(database: &'a PostgresDatabase) -> Role<'a> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shrinkd_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // The server of `scripts/services` asks members of this role for their password.
        let with_password = "do $$ begin create role shrinkd_with_password; \
                             exception when duplicate_object or unique_violation then null; end $$;";
        let role = format!("create role {name} login password 'right' in role shrinkd_with_password;");
        database.execute(with_password).await;
        database.execute(role.leak()).await;
        Role { name, database }
    }

    /// A role with the rights that roles.sql grants a worker.
    pub async fn worker(database: &'a PostgresDatabase) -> Role<'a> {
        let role = Role::create(database).await;
        role.grant_as("shrinkd_worker").await;
        role
    }

    /// Runs the grants of roles.sql to another role for this one.
    pub async fn grant_as(&self, other: &str) {
        let statements = ROLES.split(';').filter_map(|statement| Some(&statement[statement.find("grant ")?..]));
        let grants =
            statements.filter_map(|grant| grant.rsplit_once(" to ").filter(|(_, roles)| roles.contains(other)));
        let grants: String = grants.map(|(rights, _)| format!("{rights} to {};", self.name)).collect();
        // What psql replaces by itself.
        let database = self.database.url().rsplit_once('/').expect("a database").1.to_owned();
        self.database.execute(grants.replace(":\"DBNAME\"", &database).leak()).await;
    }

    /// The URL of the database for this role.
    pub fn url(&self, password: &str) -> String {
        let url = self.database.url();
        let (_, rest) = url.split_once("://").expect("a URL");
        let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
        format!("postgres://{}:{password}@{server}", self.name)
    }

    pub async fn remove(self) {
        let statements = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{0}'; \
             drop owned by {0}; drop role {0};",
            self.name
        );
        self.database.execute(statements.leak()).await;
    }
}

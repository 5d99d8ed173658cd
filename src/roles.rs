//! The rights that `deploy/postgres/roles.sql` grants: what a worker needs is what the file says, and nowhere else.

const ROLES: &str = include_str!("../deploy/postgres/roles.sql");

/// One right to one object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Right {
    pub right: &'static str,
    pub kind: Kind,
    pub object: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Table,
    Sequence,
    Schema,
    /// The one that is connected to.
    Database,
}

/// What roles.sql grants a role: `grant RIGHTS on OBJECTS to ROLES;`, one statement a line.
pub fn rights_of(role: &str) -> impl Iterator<Item = Right> {
    let grants = ROLES.lines().filter_map(|line| line.strip_prefix("grant ")?.strip_suffix(';')?.split_once(" on "));
    grants.flat_map(move |(rights, rest)| {
        let (objects, roles) = rest.split_once(" to ").unwrap_or((rest, ""));
        let (kind, objects) = match objects.split_once(' ') {
            Some(("sequence", sequences)) => (Kind::Sequence, sequences),
            Some(("schema", schemas)) => (Kind::Schema, schemas),
            Some(("database", _)) => (Kind::Database, "the database"),
            _ => (Kind::Table, objects),
        };
        let is_granted = roles.split(", ").any(|granted| granted == role);
        let rights = rights.split(", ").filter(move |_| is_granted);
        rights.flat_map(move |right| objects.split(", ").map(move |object| Right { right, kind, object }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_a_worker_are_those_of_the_file() {
        let rights: Vec<Right> = rights_of("shrinkd_worker").collect();
        for right in [
            Right { right: "usage", kind: Kind::Schema, object: "public" },
            Right { right: "select", kind: Kind::Table, object: "_sqlx_migrations" },
            Right { right: "delete", kind: Kind::Table, object: "effect_estimates" },
            Right { right: "usage", kind: Kind::Sequence, object: "fit_ids" },
            Right { right: "temporary", kind: Kind::Database, object: "the database" },
        ] {
            assert!(rights.contains(&right), "{right:?} of {rights:?}");
        }
        let grants = ROLES.lines().filter(|line| line.starts_with("grant ") && line.contains("shrinkd_worker"));
        let listed: usize = grants
            .map(|line| {
                let (rights, rest) = line.split_once(" on ").expect("an object");
                let (objects, _) = rest.split_once(" to ").expect("a role");
                rights.split(',').count() * objects.split(',').count()
            })
            .sum();
        assert_eq!(rights.len(), listed);
    }
}

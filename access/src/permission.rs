//! Roles and what they permit. The matrix is this file's [`Role::permits`] and nothing else.

use std::fmt;

/// One thing that a caller may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Publish events and lineage.
    Publish,
    /// Publish in the name of other users.
    PublishForOthers,
    /// Read own runs, summaries, vitals and profits, and those of sources granted to the role.
    ReadOwnData,
    /// Read everybody's runs, summaries and vitals.
    ReadAllData,
    /// Read and change the own account, sessions and settings.
    ManageOwnAccount,
    /// Create and revoke own API keys.
    ManageOwnKeys,
    /// See other people's accounts.
    ReadUsers,
    /// Disable and enable accounts.
    DeactivateUsers,
    /// Create, change and delete accounts.
    ManageUsers,
    /// Give roles.
    SetRoles,
    /// Read the audit log.
    ReadAudit,
    /// Run read-only SQL.
    Query,
    /// Replay, retry, quarantine, apply pipelines.
    OperatePipelines,
    /// Review recommendations and uploads of others.
    Review,
}

impl Permission {
    /// Every permission, in the order of the printed matrix.
    pub const ALL: [Self; 14] = [
        Self::Publish,
        Self::PublishForOthers,
        Self::ReadOwnData,
        Self::ReadAllData,
        Self::ManageOwnAccount,
        Self::ManageOwnKeys,
        Self::ReadUsers,
        Self::DeactivateUsers,
        Self::ManageUsers,
        Self::SetRoles,
        Self::ReadAudit,
        Self::Query,
        Self::OperatePipelines,
        Self::Review,
    ];

    /// The name in messages and in the printed matrix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::PublishForOthers => "publish_for_others",
            Self::ReadOwnData => "read_own_data",
            Self::ReadAllData => "read_all_data",
            Self::ManageOwnAccount => "manage_own_account",
            Self::ManageOwnKeys => "manage_own_keys",
            Self::ReadUsers => "read_users",
            Self::DeactivateUsers => "deactivate_users",
            Self::ManageUsers => "manage_users",
            Self::SetRoles => "set_roles",
            Self::ReadAudit => "read_audit",
            Self::Query => "query",
            Self::OperatePipelines => "operate_pipelines",
            Self::Review => "review",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A built-in role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishes and sees own data.
    User,
    /// Sees all data and accounts; may disable accounts.
    Moderator,
    /// Sees all data; runs the pipelines and reviews.
    Operator,
    /// May do everything.
    Admin,
}

impl Role {
    /// Every built-in role.
    pub const ALL: [Self; 4] = [Self::User, Self::Moderator, Self::Operator, Self::Admin];

    /// Whether the role includes a permission.
    pub fn permits(self, permission: Permission) -> bool {
        use Permission as P;
        match permission {
            P::Publish | P::ReadOwnData | P::ManageOwnAccount | P::ManageOwnKeys => true,
            P::ReadAllData => self != Self::User,
            P::ReadUsers | P::DeactivateUsers => matches!(self, Self::Moderator | Self::Admin),
            P::PublishForOthers | P::Query | P::OperatePipelines | P::Review => {
                matches!(self, Self::Operator | Self::Admin)
            }
            P::ManageUsers | P::SetRoles | P::ReadAudit => self == Self::Admin,
        }
    }

    /// How much a role can do, for comparing two of them. Nobody gives a role above the own one.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::User => 0,
            Self::Moderator | Self::Operator => 1,
            Self::Admin => 2,
        }
    }

    /// The name in the database, in tokens and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Moderator => "moderator",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| format!("unknown role `{name}`: expected one of `user`, `moderator`, `operator`, `admin`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_may_do_what_a_user_may_and_admin_may_do_all() {
        for permission in Permission::ALL {
            assert!(Role::Admin.permits(permission), "{permission}");
            if Role::User.permits(permission) {
                assert!(Role::ALL.into_iter().all(|role| role.permits(permission)), "{permission}");
            }
        }
    }

    #[test]
    fn only_admin_gives_roles_and_only_user_is_confined_to_own_data() {
        let who = |permission| Role::ALL.into_iter().filter(|r| r.permits(permission)).collect::<Vec<_>>();
        assert_eq!(who(Permission::SetRoles), [Role::Admin]);
        assert_eq!(who(Permission::ReadAllData), [Role::Moderator, Role::Operator, Role::Admin]);
        assert_eq!(who(Permission::DeactivateUsers), [Role::Moderator, Role::Admin]);
    }

    #[test]
    fn the_printed_matrix_is_the_code() {
        let page = include_str!("../../docs/ACCOUNTS.md");
        let table = page.lines().skip_while(|line| *line != "## Roles").skip_while(|line| !line.starts_with('|'));
        let table: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
        let cells = |line: &str| -> Vec<String> {
            let inner = line.trim_matches('|').split('|');
            inner.map(|cell| cell.trim().to_owned()).collect()
        };
        let [head, _, rows @ ..] = table.as_slice() else { panic!("no table under `## Roles`") };
        assert_eq!(cells(head)[2..], Role::ALL.map(|role| role.name().to_owned()));
        let printed: Vec<Vec<String>> = rows.iter().map(|row| cells(row)).collect();
        let names: Vec<&str> = printed.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, Permission::ALL.map(|permission| format!("`{permission}`")), "each permission, in order");
        for (permission, row) in Permission::ALL.into_iter().zip(&printed) {
            let answers = Role::ALL.map(|role| if role.permits(permission) { "yes" } else { "" });
            assert_eq!(row[2..], answers, "{permission}");
        }
    }

    #[test]
    fn role_names_read_back_as_the_same_role() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("Admin".parse::<Role>().is_err());
    }
}

//! `karat user` and `karat key`: accounts from the shell, also while the server runs.

use std::{io::IsTerminal, process::ExitCode};

use karat_access::{Access, Actor, NewApiKey, NewUser, Origin, Role, Scopes};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::{
    cli::{Format, InstanceArgs, KeyCommand, UserCommand},
    failure::{Failure, Result},
    instance::Instance,
};

pub async fn user(command: UserCommand) -> Result<ExitCode> {
    match command {
        UserCommand::Create { username, role, email, password_stdin, instance } => {
            let access = open(&instance).await?;
            let password = read_password(password_stdin)?;
            let new = NewUser { username, email, password, role: parse_role(&role)? };
            let user = access.create_user(new, Actor::Shell, &Origin::default()).await?;
            super::print(&user.id.to_string());
        }
        UserCommand::List { instance, format } => list(&open(&instance).await?, format).await?,
        UserCommand::ResetPassword { username, password_stdin, instance } => {
            let access = open(&instance).await?;
            let user = find(&access, &username).await?;
            let password = read_password(password_stdin)?;
            access.reset_password(user, password, Actor::Shell, &Origin::default()).await?;
            super::print(&format!("{username}: the password is changed, and every session is ended"));
        }
        UserCommand::SetRole { username, role, instance } => {
            let access = open(&instance).await?;
            let user = find(&access, &username).await?;
            access.set_role(user, parse_role(&role)?, Actor::Shell, &Origin::default()).await?;
            super::print(&format!("{username}: {role}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn key(command: KeyCommand) -> Result<ExitCode> {
    match command {
        KeyCommand::Create { owner, name, scopes, events_per_second, instance } => {
            let access = open(&instance).await?;
            let owner = find(&access, &owner).await?;
            let scopes = Scopes::parse(&scopes).map_err(|problems| Failure::usage(problems.join("\n")))?;
            let new = NewApiKey { owner, name, scopes, expires_in: None, events_per_second };
            let issued = access.create_api_key(new, Actor::Shell, &Origin::default()).await?;
            tracing::info!(id = %issued.key.id, "created; the key is shown this once");
            super::print(issued.secret.expose_secret());
        }
        KeyCommand::RotateSigning { instance } => {
            let access = open(&instance).await?;
            let rotation = access.rotate_signing_keys(Actor::Shell, &Origin::default()).await?;
            super::print(&format!("{}: added", rotation.added));
            rotation.removed.iter().for_each(|kid| super::print(&format!("{kid}: removed")));
        }
        KeyCommand::Revoke { id, instance } => {
            let access = open(&instance).await?;
            let id = id.parse().map_err(|_| Failure::usage(format!("`{id}` is no key id: expected a UUID")))?;
            access.revoke_api_key(id, None, Actor::Shell, &Origin::default()).await?;
            super::print(&format!("{id}: revoked"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(access: &Access, format: Format) -> Result<()> {
    let (mut users, mut after) = (Vec::new(), None);
    loop {
        let page = access.list_users(after, 500).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        users.extend(page);
    }
    if format == Format::Json {
        let rows: Vec<_> = users
            .iter()
            .map(
                |user| json!({"id": user.id, "username": user.username, "email": user.email, "role": user.role.name()}),
            )
            .collect();
        return super::print_json(&rows);
    }
    let cells = users.iter().map(|user| {
        vec![
            user.id.to_string(),
            user.username.clone(),
            user.role.name().to_owned(),
            user.email.clone().unwrap_or_default(),
        ]
    });
    super::print_table(&["ID", "USERNAME", "ROLE", "EMAIL"], &cells.collect::<Vec<_>>());
    Ok(())
}

pub(super) async fn open(arguments: &InstanceArgs) -> Result<Access> {
    let instance = Instance::new(arguments)?;
    instance.create_folder()?;
    Ok(Access::open(instance.access()?).await?)
}

async fn find(access: &Access, username: &str) -> Result<uuid::Uuid> {
    let user = access.find_user_by_name(username).await?;
    user.map(|user| user.id).ok_or_else(|| Failure::usage(format!("no account is named `{username}`")))
}

fn parse_role(role: &str) -> Result<Role> {
    role.parse().map_err(|_| {
        let known: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
        Failure::usage(format!("unknown role `{role}`: expected one of {}", known.join(", ")))
    })
}

fn read_password(from_stdin: bool) -> Result<SecretString> {
    if !from_stdin {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage("no terminal to ask for the password: use --password-stdin"));
        }
        return Ok(rpassword::prompt_password("Password: ")?.into());
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned().into())
}

//! `slipway token`, `slipway node`: who belongs to a farm.

use crate::args::farm::{CreateToken, Node, Token};
use crate::clock;
use crate::farm::Farm;
use crate::print::{say, tell};
use crate::table::Table;
use ops::identity::Role;
use proto::error::Failure;
use proto::wire::admin::{NodeOrder, NodeRow, Reply, Request, TokenRow};

/// `slipway token …`.
pub async fn token(farm: &Farm, command: Token) -> Result<(), Failure> {
    match command {
        Token::Create(args) => create_token(farm, &args).await,
        Token::Ls => tokens(farm).await,
        Token::Revoke { id } => revoke(farm, id).await,
    }
}

async fn tokens(farm: &Farm) -> Result<(), Failure> {
    let mut rows: Vec<TokenRow> = Vec::new();
    farm.ask(&Request::Tokens, |reply, _| {
        if let Reply::Token(row) = reply {
            rows.push(row);
        }
    })
    .await?;
    let now = clock::now_ms();
    let headings = ["TOKEN", "ROLE", "PROJECT", "SCOPE", "ADMIN", "USES LEFT", "EXPIRES", "STATE"];
    let mut table = Table::new(&headings);
    for row in &rows {
        let uses = row.uses_left.map_or("any".to_owned(), |n| n.to_string());
        let admin = if row.admin { "yes" } else { "" };
        let expires = match row.expires.0 > now {
            true => clock::ahead(row.expires.0, now),
            false => clock::ago(row.expires.0, now),
        };
        let (project, scope) = (&row.project, &row.scope);
        table.row(&[&row.id, &row.role, project, scope, admin, &uses, &expires, &row.state]);
    }
    table.print();
    Ok(())
}

async fn revoke(farm: &Farm, id: String) -> Result<(), Failure> {
    farm.ask(&Request::RevokeToken(id), |reply, _| {
        if let Reply::Text(id) = reply {
            say!("{id}");
        }
    })
    .await
}

async fn create_token(farm: &Farm, args: &CreateToken) -> Result<(), Failure> {
    let request = Request::CreateToken {
        role: args.role.to_string(),
        ttl_ms: args.ttl.as_millis() as u64,
        uses: args.uses,
        project: args.project.clone(),
        scope: args.scope.clone(),
        admin: args.admin && args.role == Role::Client,
    };
    farm.ask(&request, |reply, _| {
        if let Reply::Text(token) = reply {
            say!("{token}");
        }
    })
    .await
}

/// `slipway node ls` and the others.
pub async fn node(farm: &Farm, command: Node) -> Result<(), Failure> {
    let (name, order) = match command {
        Node::Ls => return list(farm).await,
        Node::Cordon { name } => (name, NodeOrder::Cordon),
        Node::Uncordon { name } => (name, NodeOrder::Uncordon),
        Node::Drain { name } => (name, NodeOrder::Drain),
        Node::Rm { name } => (name, NodeOrder::Remove),
    };
    // What is left to do, while it is waited for.
    farm.ask(&Request::Node { name, order }, |reply, _| {
        if let Reply::Text(left) = reply {
            tell!("{left}");
        }
    })
    .await
}

async fn list(farm: &Farm) -> Result<(), Failure> {
    let mut rows: Vec<NodeRow> = Vec::new();
    farm.ask(&Request::Nodes, |reply, _| {
        if let Reply::Node(row) = reply {
            rows.push(row);
        }
    })
    .await?;
    rows.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name)));
    let mut table = Table::new(&["NAME", "ROLE", "STATE", "ADDRESS", "DETAIL"]);
    for row in &rows {
        table.row(&[&row.name, &row.role, &row.state, &row.address, &row.detail]);
    }
    table.print();
    Ok(())
}

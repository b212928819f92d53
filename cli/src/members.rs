//! `slipway token`, `slipway node`: who belongs to a farm.

use crate::args::farm::{CreateToken, Node};
use crate::farm::Farm;
use crate::print::say;
use crate::table::Table;
use ops::identity::Role;
use proto::error::Failure;
use proto::wire::admin::{NodeOrder, NodeRow, Reply, Request};

/// `slipway token create`.
pub async fn create_token(farm: &Farm, args: &CreateToken) -> Result<(), Failure> {
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
    farm.ask(&Request::Node { name, order }, |_, _| {}).await
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

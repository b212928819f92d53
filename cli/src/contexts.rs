//! `slipway context`: the farms that a person has joined.

use crate::args::farm::Context;
use crate::error::user;
use crate::print::say;
use crate::table::Table;
use ops::config::Config;
use ops::context::{FarmName, Farms, LOCAL};
use proto::error::Failure;

fn failed(error: impl std::fmt::Display) -> Failure {
    user(error.to_string())
}

/// Does what is asked with the farms that were joined.
pub fn run(command: Context, config: &Config) -> Result<u8, Failure> {
    let farms = Farms::of(&config.home);
    match command {
        Context::Ls => list(&farms)?,
        Context::Use { name } if name == LOCAL => farms.set_current(None).map_err(failed)?,
        Context::Use { name } => {
            let name = FarmName::parse(&name).map_err(failed)?;
            farms.set_current(Some(&name)).map_err(failed)?;
        }
        Context::Show => {
            let current = farms.current().map_err(failed)?;
            say!("{}", current.map_or(LOCAL.to_owned(), |name| name.to_string()));
        }
        Context::Rm { name } => {
            let name = FarmName::parse(&name).map_err(failed)?;
            farms.remove(&name).map_err(failed)?;
        }
    }
    Ok(0)
}

fn list(farms: &Farms) -> Result<(), Failure> {
    let current = farms.current().map_err(failed)?;
    let mut table = Table::new(&["NAME", "COORDINATOR", "MEMBER AS", "PROJECT", "SCOPE"]);
    let mark = |name: &str, is: bool| if is { format!("{name} *") } else { name.to_owned() };
    table.row(&[&mark(LOCAL, current.is_none()), "this machine", "", "", ""]);
    for (name, farm) in farms.list().map_err(failed)? {
        let marked = mark(name.as_str(), current.as_ref() == Some(&name));
        let read = farm.map_err(failed).and_then(|farm| {
            let identity = farm.identity().map_err(failed)?;
            Ok((farm, identity))
        });
        match read {
            Err(e) => table.row(&[&marked, &e.message, "", "", ""]),
            Ok((farm, identity)) => {
                let subject = identity.subject();
                let grant = subject.grant();
                table.row(&[
                    &marked,
                    &farm.about.coordinator.to_string(),
                    subject.name().as_str(),
                    grant.map_or("", |grant| grant.project.as_str()),
                    grant.map_or("", |grant| grant.scope.as_str()),
                ]);
            }
        }
    }
    table.print();
    Ok(())
}

//! Logins for registries, as `docker login` keeps them.

use crate::error::user;
use proto::error::Failure;
use proto::wire::build::Login;
use worker::image::registry::DockerConfig;

/// The login for a registry, if there is one.
pub fn find(host: &str) -> Result<Option<Login>, Failure> {
    let Some(config) = DockerConfig::standard(|name| std::env::var_os(name)) else {
        return Ok(None);
    };
    config.login_blocking(host).map_err(user)
}

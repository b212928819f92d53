//! Whom a certificate speaks of.
//!
//! | in the certificate | says |
//! |---|---|
//! | one URI name | `slipway://CLUSTER/NAME?role=ROLE` |
//! | one DNS name for each role | `ROLE.slipway.internal` |
//!
//! In the URI there is `role` once for each role; a client's goes on with `project`, `scope`,
//! `priority` (the highest that it may ask for) and `admin` (`yes` or `no`).
//!
//! Who dials asks for the DNS name of the role it wants ([`Role::server_name`]): so the ordinary
//! check of a server's name proves the role, and no code of ours takes part in it. Names of the
//! machine are in no certificate; where a member is reached is not who it is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::names::{ClusterId, NodeName, Project};
use proto::id::Scope;
use rkyv::{Archive, Deserialize, Serialize};
use rustls::pki_types::ServerName;
use std::collections::BTreeSet;
use std::fmt;

/// How the URIs of a cluster begin.
pub const SCHEME: &str = "slipway://";

/// Bytes of the URI. With the longest names, each character percent-encoded, it has fewer.
const URI_BYTES_MAX: usize = 1024;

/// What a member of a cluster may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub enum Role {
    /// Places work, keeps the facts.
    Coordinator,
    /// Runs steps.
    Worker,
    /// Keeps blobs.
    Cache,
    /// Asks for builds.
    Client,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::Coordinator, Role::Worker, Role::Cache, Role::Client];

    /// As certificates, tokens and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Cache => "cache",
            Role::Client => "client",
        }
    }

    /// Reads what [`Role::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// The DNS name that a certificate of this role has.
    pub const fn dns_name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator.slipway.internal",
            Role::Worker => "worker.slipway.internal",
            Role::Cache => "cache.slipway.internal",
            Role::Client => "client.slipway.internal",
        }
    }

    /// The name to dial by, whatever the address: the handshake fails with anyone who has not this
    /// role.
    pub fn server_name(self) -> ServerName<'static> {
        ServerName::try_from(self.dns_name()).expect("a DNS name")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a client may ask for at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Grant {
    /// For what it builds.
    pub project: Project,
    /// Whose records and cache mounts it writes.
    pub scope: Scope,
    /// The highest priority that its builds may have.
    pub priority_max: u8,
    /// Whether it may look after the cluster: members, tokens, others' builds.
    pub admin: bool,
}

/// Roles that one member cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolesError {
    /// None at all.
    #[error("A node has at least one role: `coordinator`, `worker` or `cache`")]
    None,
    /// A machine of the farm that asks for builds.
    #[error("A node cannot be a client as well: a client has a certificate of its own")]
    Client,
}

/// A member of a cluster: a node with its roles, or a client with its grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    cluster: ClusterId,
    name: NodeName,
    roles: BTreeSet<Role>,
    grant: Option<Grant>,
}

impl Subject {
    /// A machine of the farm.
    pub fn node(
        cluster: ClusterId,
        name: NodeName,
        roles: impl IntoIterator<Item = Role>,
    ) -> Result<Self, RolesError> {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        if roles.contains(&Role::Client) {
            return Err(RolesError::Client);
        }
        if roles.is_empty() {
            return Err(RolesError::None);
        }
        Ok(Self { cluster, name, roles, grant: None })
    }

    /// A person or a program that builds on the farm.
    pub fn client(cluster: ClusterId, name: NodeName, grant: Grant) -> Self {
        Self { cluster, name, roles: BTreeSet::from([Role::Client]), grant: Some(grant) }
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The member's name, one of a kind in the cluster.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Its roles: at least one, and [`Role::Client`] only alone.
    pub fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }

    /// Whether it has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// What it may ask for: some for a client, none for a node.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// The URI name of its certificate.
    pub fn uri(&self) -> String {
        let uri = format!("{SCHEME}{}/{}?", self.cluster, self.name);
        let start = uri.len();
        let mut query = form_urlencoded::Serializer::for_suffix(uri, start);
        query.extend_pairs(self.roles.iter().map(|role| ("role", role.as_str())));
        if let Some(grant) = &self.grant {
            query.append_pair("project", grant.project.as_str());
            query.append_pair("scope", grant.scope.as_str());
            query.append_pair("priority", &grant.priority_max.to_string());
            query.append_pair("admin", if grant.admin { "yes" } else { "no" });
        }
        query.finish()
    }

    /// The DNS names of its certificate.
    pub fn dns_names(&self) -> impl Iterator<Item = &'static str> {
        self.roles.iter().map(|role| role.dns_name())
    }

    /// Reads the names of a certificate: exactly those that [`Subject::uri`] and
    /// [`Subject::dns_names`] give, in any order.
    pub fn from_names(uris: &[&str], dns_names: &[&str]) -> Result<Self, SubjectError> {
        let [uri] = uris else {
            return Err(SubjectError::Uris(uris.len()));
        };
        let subject = Self::from_uri(uri)?;
        let mut shown = dns_names.to_vec();
        shown.sort_unstable();
        let mut due: Vec<&str> = subject.dns_names().collect();
        due.sort_unstable();
        if shown != due {
            let (shown, due) = (shown.join(", "), due.join(", "));
            return Err(SubjectError::DnsNames { shown, due });
        }
        Ok(subject)
    }

    /// Reads what [`Subject::uri`] writes, and nothing else.
    pub fn from_uri(uri: &str) -> Result<Self, SubjectError> {
        let wrong = |detail: String| SubjectError::Uri {
            uri: uri.chars().filter(|c| !c.is_control()).take(200).collect(),
            detail,
        };
        if uri.len() > URI_BYTES_MAX {
            return Err(wrong(format!("it has more than {URI_BYTES_MAX} bytes")));
        }
        let rest = uri.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin so".into()))?;
        let (path, query) = rest.split_once('?').ok_or_else(|| wrong("it has no role".into()))?;
        let (cluster, name) = path.split_once('/').ok_or_else(|| wrong("it has no name".into()))?;
        let cluster = ClusterId::parse(cluster).map_err(|e| wrong(e.to_string()))?;
        let name = NodeName::parse(name).map_err(|e| wrong(e.to_string()))?;
        let fields = Fields::read(query).map_err(wrong)?;
        let subject = match fields.grant().map_err(wrong)? {
            Some(grant) => Self::client(cluster, name, grant),
            None => Self::node(cluster, name, fields.roles).map_err(|e| wrong(e.to_string()))?,
        };
        // One subject, one URI: nothing in another order, twice, or encoded without need.
        if subject.uri() != uri {
            return Err(wrong(format!("written so it would be `{}`", subject.uri())));
        }
        Ok(subject)
    }
}

/// What a URI's query says.
#[derive(Default)]
struct Fields {
    roles: BTreeSet<Role>,
    project: Option<Project>,
    scope: Option<Scope>,
    priority: Option<u8>,
    admin: Option<bool>,
}

impl Fields {
    fn read(query: &str) -> Result<Self, String> {
        let mut fields = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = || format!("`{key}` cannot be `{value}`");
            match &*key {
                "role" => {
                    fields.roles.insert(Role::parse(&value).ok_or_else(wrong)?);
                }
                "project" => {
                    fields.project = Some(Project::parse(&value).map_err(|e| e.to_string())?);
                }
                "scope" => fields.scope = Some(Scope::parse(&value).map_err(|e| e.to_string())?),
                "priority" => fields.priority = Some(value.parse().map_err(|_| wrong())?),
                "admin" => {
                    let admin = match &*value {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(wrong()),
                    };
                    fields.admin = Some(admin);
                }
                _ => return Err(format!("`{key}` is not known")),
            }
        }
        Ok(fields)
    }

    /// The grant: whole for one who is a client and nothing else, none for a node.
    fn grant(&self) -> Result<Option<Grant>, String> {
        let is_client = self.roles.iter().eq([&Role::Client]);
        let parts = (self.project.clone(), self.scope.clone(), self.priority, self.admin);
        match parts {
            (Some(project), Some(scope), Some(priority_max), Some(admin)) if is_client => {
                Ok(Some(Grant { project, scope, priority_max, admin }))
            }
            _ if is_client => {
                Err("a client has `project`, `scope`, `priority` and `admin`".to_owned())
            }
            (None, None, None, None) => Ok(None),
            _ => Err("only a client has `project`, `scope`, `priority` and `admin`".to_owned()),
        }
    }
}

/// Why a certificate is not one of a cluster's member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// There is no certificate.
    #[error("The other side showed no certificate; join the cluster first (`slipway join`)")]
    Missing,
    /// It is not one, or not one of a kind that is issued here.
    #[error("The certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has no URI name, or several.
    #[error("The certificate is not a cluster member's: it has {0} URI names instead of one")]
    Uris(usize),
    /// It has a name of a kind that no member has.
    #[error("The certificate is not a cluster member's: it has a name that is neither URI nor DNS")]
    OtherName,
    /// The URI says something else.
    #[error(
        "The certificate's URI `{uri}` is not a member's (`slipway://CLUSTER/NAME?role=ROLE`): \
         {detail}"
    )]
    Uri {
        /// The URI, cut to 200 characters.
        uri: String,
        /// What is wrong.
        detail: String,
    },
    /// The DNS names are not those of the roles.
    #[error("The certificate's DNS names are `{shown}`; for its roles they would be `{due}`")]
    DnsNames {
        /// Those that it has.
        shown: String,
        /// Those that it should have.
        due: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster() -> ClusterId {
        ClusterId::parse("acme").unwrap()
    }

    fn name() -> NodeName {
        NodeName::parse("box-1").unwrap()
    }

    fn subject() -> impl Strategy<Value = Subject> {
        let names = ("[a-z0-9][a-z0-9-]{0,63}", "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}");
        let names =
            names.prop_map(|(c, n)| (ClusterId::parse(&c).unwrap(), NodeName::parse(&n).unwrap()));
        let roles = proptest::sample::subsequence(&Role::ALL[..3], 1..=3);
        let node = (names.clone(), roles)
            .prop_map(|((cluster, name), roles)| Subject::node(cluster, name, roles).unwrap());
        let scope = "trusted|(branch|dev)/[a-zA-Z0-9._/-]{1,128}";
        let client = (names, "[a-z0-9][a-z0-9_-]{0,63}", scope, any::<u8>(), any::<bool>());
        let client = client.prop_map(|((cluster, name), project, scope, priority_max, admin)| {
            let project = Project::parse(&project).unwrap();
            let scope = Scope::parse(&scope).unwrap();
            Subject::client(cluster, name, Grant { project, scope, priority_max, admin })
        });
        prop_oneof![node, client]
    }

    proptest! {
        #[test]
        fn subjects_are_read_as_they_are_written(subject in subject()) {
            let uri = subject.uri();
            prop_assert!(uri.len() <= URI_BYTES_MAX);
            let dns: Vec<&str> = subject.dns_names().collect();
            prop_assert_eq!(Subject::from_names(&[&uri], &dns), Ok(subject));
        }

        #[test]
        fn a_uri_that_is_read_is_the_one_that_is_written(
            uri in "slipway://[a-c]{1,3}[?/]{1,2}[a-c]{1,3}[?]role=(worker|cache)[&a-z=%0-9+]{0,3}"
        ) {
            if let Ok(subject) = Subject::from_uri(&uri) {
                prop_assert_eq!(subject.uri(), uri);
            }
        }
    }

    #[test]
    fn the_form_stays() {
        let node = Subject::node(cluster(), name(), [Role::Worker, Role::Cache]).unwrap();
        assert_eq!(node.uri(), "slipway://acme/box-1?role=worker&role=cache");
        let grant = Grant {
            project: Project::parse("shop").unwrap(),
            scope: Scope::parse("branch/a").unwrap(),
            priority_max: 3,
            admin: false,
        };
        let client = Subject::client(cluster(), name(), grant);
        assert_eq!(
            client.uri(),
            "slipway://acme/box-1?role=client&project=shop&scope=branch%2Fa&priority=3&admin=no"
        );
        assert_eq!(client.dns_names().collect::<Vec<_>>(), ["client.slipway.internal"]);
    }

    #[test]
    fn what_is_not_of_this_form_is_refused() {
        let client = "slipway://acme/b?role=client&project=p&scope=trusted&priority=1&admin=no";
        assert!(Subject::from_uri(client).is_ok());
        let bad = [
            ("https://acme/b?role=worker", "begin"),
            ("slipway://acme/b", "no role"),
            ("slipway://acme?role=worker", "no name"),
            ("slipway://Acme/b?role=worker", "a cluster's name"),
            ("slipway://acme/b/c?role=worker", "a node's name"),
            ("slipway://acme/..?role=worker", "a node's name"),
            ("slipway://acme/b?", "at least one role"),
            ("slipway://acme/b?role=king", "`role` cannot be `king`"),
            ("slipway://acme/b?role=worker&role=worker", "would be"),
            ("slipway://acme/b?role=cache&role=worker", "would be"),
            ("slipway://acme/b?role=work%65r", "would be"),
            ("slipway://acme/b?role=worker&", "would be"),
            ("slipway://acme/b?role=worker#x", "cannot be"),
            ("slipway://acme/b?role=worker&x=1", "`x` is not known"),
            ("slipway://acme/b?role=worker&admin=yes", "only a client"),
            ("slipway://acme/b?role=client", "a client has"),
            ("slipway://acme/b?role=client&role=worker", "client as well"),
            (&client.replace("&scope=trusted", ""), "a client has"),
            (&client.replace("priority=1", "priority=256"), "`priority` cannot"),
            (&client.replace("priority=1", "priority=01"), "would be"),
            (&client.replace("admin=no", "admin=1"), "`admin` cannot"),
            (&client.replace("project=p", "project=P"), "a project"),
            (&client.replace("trusted", "main"), "a scope"),
        ];
        for (uri, why) in bad {
            let error = Subject::from_uri(uri).unwrap_err().to_string();
            assert!(error.contains(why), "{uri}: {error}");
        }
        let long = format!("slipway://acme/b?role={}", "x".repeat(URI_BYTES_MAX));
        assert!(Subject::from_uri(&long).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn dns_names_are_those_of_the_roles() {
        let uri = "slipway://acme/b?role=worker&role=cache";
        let (worker, cache) = (Role::Worker.dns_name(), Role::Cache.dns_name());
        assert!(Subject::from_names(&[uri], &[cache, worker]).is_ok());
        for dns in [&[worker][..], &[], &[worker, worker], &[worker, cache, "x"]] {
            let error = Subject::from_names(&[uri], dns).unwrap_err();
            assert!(matches!(error, SubjectError::DnsNames { .. }), "{dns:?}");
        }
        assert_eq!(Subject::from_names(&[], &[]), Err(SubjectError::Uris(0)));
        assert_eq!(Subject::from_names(&[uri, uri], &[]), Err(SubjectError::Uris(2)));
    }

    #[test]
    fn a_node_has_a_role_and_is_no_client() {
        assert_eq!(Subject::node(cluster(), name(), []), Err(RolesError::None));
        let both = [Role::Client, Role::Worker];
        assert_eq!(Subject::node(cluster(), name(), both), Err(RolesError::Client));
    }
}

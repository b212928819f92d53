//! `/etc/resolv.conf` and `/etc/hosts` of a container, as BuildKit writes them. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The host's name inside, when nothing else is asked for. BuildKit's.
pub(crate) const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Servers that are asked when the host's own cannot be reached from inside, as in Docker.
const PUBLIC_SERVERS: [&str; 4] =
    ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// What a `resolv.conf` says (resolv.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resolver {
    /// Whom to ask, in order.
    pub servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
    others: Vec<String>,
}

impl Resolver {
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                None => {}
                Some(word) if word.starts_with(['#', ';']) => {}
                Some("nameserver") => {
                    let address = |text: &String| address(text).is_some();
                    found.servers.extend(words.next().filter(address));
                }
                Some("search" | "domain") => found.search = words.collect(),
                Some("options") => found.options = words.collect(),
                Some(_) => found.others.push(line.to_owned()),
            }
        }
        found
    }

    /// Whether the only server is the stub of systemd-resolved, whose real servers are in
    /// `/run/systemd/resolve/resolv.conf`.
    pub(crate) fn is_stub(&self) -> bool {
        self.servers == ["127.0.0.53"]
    }

    /// For a container with another loopback than the host's: without the servers that are hidden
    /// from it. When none is left, `forwarder` (which asks the host's on its behalf) or public ones.
    pub(crate) fn for_own_network(
        mut self,
        forwarder: Option<IpAddr>,
        hidden: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let reachable = |text: &String| address(text).is_some_and(|a| !hidden(a));
        self.servers.retain(reachable);
        if self.servers.is_empty() {
            self.servers = match forwarder {
                Some(forwarder) => vec![forwarder.to_string()],
                None => PUBLIC_SERVERS.map(str::to_owned).into(),
            };
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        let mut out: String =
            self.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                out.push_str(&format!("{word} {}\n", list.join(" ")));
            }
        }
        self.others.iter().for_each(|line| out.push_str(&format!("{line}\n")));
        out
    }
}

/// The address of a server, which may name an interface (`fe80::1%eth0`).
fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

/// The addresses that a step was told to reach: by `--add-host`, and by the settings of proxies.
pub(crate) fn named_addresses<'a>(
    extra_hosts: &[(String, String)],
    env: impl Iterator<Item = &'a (String, String)>,
) -> BTreeSet<IpAddr> {
    let proxies = env.filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name.ends_with("_proxy") && name != "no_proxy"
    });
    let hosts = extra_hosts.iter().filter_map(|(_, address)| address.parse().ok());
    hosts.chain(proxies.filter_map(|(_, url)| host_of(url)?.parse().ok())).collect()
}

/// The host of a URL (RFC 3986, section 3.2), which may lack its scheme.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(six) => six.split(']').next(),
        None => host.split(':').next(),
    }
}

/// The text of `/etc/hosts`.
pub(crate) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut out =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    extra.iter().for_each(|(name, address)| out.push_str(&format!("{address}\t{name}\n")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\n\
        domain old.example\n\
        search a.example b.example\n\
        nameserver 127.0.0.1\n\
        nameserver 10.0.0.1\n\
        nameserver fe80::1%eth0\n\
        nameserver ::1\n\
        nameserver nonsense\n\
        options ndots:2 edns0\n\
        sortlist 130.155.160.0\n";

    #[test]
    fn servers_on_the_hosts_loopback_are_left_out() {
        assert_eq!(
            Resolver::parse(HOST).for_own_network(None, |a| a.is_loopback()).text(),
            "nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a.example b.example\n\
             options ndots:2 edns0\nsortlist 130.155.160.0\n"
        );
    }

    #[test]
    fn without_a_server_left_others_are_asked() {
        let stub = Resolver::parse("nameserver 127.0.0.53\n");
        assert!(stub.is_stub() && !Resolver::parse(HOST).is_stub());
        let forwarded =
            Resolver::for_own_network(stub.clone(), Some("10.0.2.3".parse().unwrap()), |a| {
                a.is_loopback()
            });
        assert_eq!(forwarded.text(), "nameserver 10.0.2.3\n");
        assert!(stub.for_own_network(None, |_| true).text().starts_with("nameserver 8.8.8.8\n"));
    }

    #[test]
    fn what_a_step_was_told_to_reach() {
        let list = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let hosts = list(&[("a", "10.0.0.1"), ("b", "fd00::1"), ("c", "nonsense")]);
        let env = list(&[
            ("http_proxy", "http://user:word@10.0.0.2:3128/x"),
            ("HTTPS_PROXY", "10.0.0.3"),
            ("all_proxy", "socks5://[fd00::2]:1080"),
            ("ftp_proxy", "http://proxy.example:1"),
            ("no_proxy", "10.0.0.4"),
            ("other", "10.0.0.5"),
        ]);
        let found = named_addresses(&hosts, env.iter());
        let want = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"];
        assert_eq!(found, want.iter().map(|text| text.parse().unwrap()).collect());
    }

    #[test]
    fn hosts_as_buildkit_writes_them() {
        let extra = [("conf-one".to_owned(), "10.9.8.7".to_owned())];
        assert_eq!(
            hosts(DEFAULT_HOSTNAME, &extra),
            "127.0.0.1\tlocalhost buildkitsandbox\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n10.9.8.7\tconf-one\n"
        );
    }
}

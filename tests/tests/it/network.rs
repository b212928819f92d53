//! What RUN and `slipway run` see of the network.

use tests::http::Server;
use tests::site::Site;

/// Tries the host's loopback by every address that could lead there.
const TRY: &str = r#"
for host in 127.0.0.1 localhost $(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p') $OTHERS; do
    if nc -w 2 $host $PORT </dev/null; then echo "reached by $host"; exit 1; fi
done
echo none was reached
"#;

#[test]
fn by_default_the_hosts_loopback_cannot_be_reached() {
    let server = Server::counting();
    let port = server.address().rsplit(':').next().expect("a port").to_owned();
    let site = Site::of(
        "
FROM conf/busybox:1
ARG PORT OTHERS
COPY try /try
RUN sh /try
RUN cat /etc/resolv.conf && grep -q nameserver /etc/resolv.conf && grep -q localhost /etc/hosts
RUN test $(ls /sys/class/net | wc -l) = 2 && ip route | grep -q default
",
    );
    site.write("try", TRY);
    let arg = format!("PORT={port}");
    // Well-known doors of user-mode networks to the host (slirp4netns(1), pasta(1)).
    let others = "OTHERS=10.0.2.2 169.254.1.1 169.254.2.2 192.168.127.1 host.docker.internal";
    site.build(&["--build-arg", &arg, "--build-arg", others]).ok().says("none was reached");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn none_has_only_a_loopback_of_its_own() {
    let site = Site::of(
        "
FROM conf/busybox:1
RUN --network=none test \"$(ls /sys/class/net)\" = lo && ip route && ! ip route | grep -q .
",
    );
    site.build(&[]).ok();
    site.dockerfile("FROM conf/busybox:1\nRUN test \"$(ls /sys/class/net)\" = lo\n");
    site.build(&["--network=none"]).ok();
}

#[test]
fn the_hosts_network_takes_a_permission() {
    let server = Server::counting();
    let text =
        format!("FROM conf/busybox:1\nRUN --network=host wget -q -O- {}\n", server.url("there"));
    let site = Site::of(&text);
    site.build(&[]).fails(1).says("network.host").says("Dockerfile:2");
    assert_eq!(server.count("/there"), 0);
    site.build(&["--allow", "network.host"]).ok();
    assert_eq!(server.count("/there"), 1);
}

#[test]
fn a_container_has_the_network_that_is_asked_for() {
    let server = Server::counting();
    let site = Site::of("FROM conf/busybox:1\nRUN true\n");
    site.build(&["-t", "app"]).ok();
    let url = server.url("there");
    let wget = |network: &str| {
        let flags = ["run", "--rm", "--network", network, "app", "wget", "-q", "-O-", &url];
        site.slipway.run(&flags)
    };
    assert_ne!(wget("none").code, 0);
    assert_ne!(wget("default").code, 0);
    assert_eq!(server.count("/there"), 0);
    assert_eq!(wget("host").ok().text(), "ok");
}

#[test]
fn add_host_names_an_address() {
    let site = Site::of("FROM conf/busybox:1\nRUN grep -q '10.9.8.7.*db' /etc/hosts\n");
    site.build(&["--add-host", "db:10.9.8.7"]).ok();
}

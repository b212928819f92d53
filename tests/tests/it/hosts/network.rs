//! What lies between hosts.

use super::{assert_silent, connection, sh};
use crate::cache::until;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use tests::command::Outcome;
use tests::hosts::{Host, Link, Site};
use tests::http::Response;

/// Pings once, and waits for the answer for a second, or for as long as it may take.
fn ping(from: &Host, to: &Host, patient: bool) -> Outcome {
    from.command("ping", ["-c", "1", "-W", if patient { "60" } else { "1" }, to.name()]).run()
}

#[track_caller]
fn assert_reaches(from: &Host, to: &Host) {
    ping(from, to, true).ok().says(&to.ip().to_string());
}

/// There is no answer: not that the other one cannot be reached either.
#[track_caller]
fn assert_cut(from: &Host, to: &Host) {
    ping(from, to, false).fails(1).says("100% packet loss").never_says("unreachable");
}

#[test]
fn hosts_reach_each_other_by_name() {
    let site = Site::new();
    let hosts = ["coordinator", "worker-1", "worker-2"].map(|name| site.host(name));
    std::thread::scope(|scope| {
        for from in &hosts {
            let hosts = &hosts;
            scope.spawn(move || hosts.iter().for_each(|to| assert_reaches(from, to)));
        }
    });
    // And nobody else: not the machine that they are on, nor another site with the same addresses.
    let other = Site::new();
    let stranger = other.host("worker-1");
    assert_eq!(stranger.ip(), hosts[0].ip());
    stranger.command("ping", ["-c", "1", "-W", "1", "10.77.0.2"]).run().fails(1);
    stranger.command("ping", ["-c", "1", "-W", "1", "198.51.100.1"]).run().fails(1);
}

#[test]
fn a_cut_is_silent_and_heals() {
    let site = Site::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| site.host(name));
    let (mut near, mut far) = connection(&two, &one);
    one.cut();
    assert_cut(&one, &two);
    assert_cut(&two, &one);
    assert_reaches(&two, &three);
    // Connections stay open, and what was sent in the meantime arrives in the end.
    near.write_all(b"x").expect("the kernel takes it");
    assert_silent(&near);
    assert_silent(&far);
    one.heal();
    let mut byte = [0];
    far.read_exact(&mut byte).expect("it arrives");
    assert_eq!(&byte, b"x");
    assert_reaches(&one, &two);
    assert_reaches(&two, &one);
}

#[test]
fn a_pair_is_cut_and_others_are_not() {
    let site = Site::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| site.host(name));
    site.cut(&one, &two);
    assert_cut(&one, &two);
    assert_cut(&two, &one);
    for (from, to) in [(&one, &three), (&three, &one), (&two, &three), (&three, &two)] {
        assert_reaches(from, to);
    }
    one.cut();
    one.heal();
    assert_cut(&one, &two);
    site.heal(&two, &one);
    assert_reaches(&one, &two);
}

#[test]
fn a_cable_stays_as_it_is_when_a_host_boots() {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    one.cut();
    one.link(Link { delay_ms: 1, ..Link::default() });
    one.kill();
    one.boot();
    assert_cut(&one, &two);
    one.heal();
    assert_reaches(&two, &one);
    one.link(Link::default());
    assert_reaches(&two, &one);
}

#[test]
fn a_link_loses_what_it_is_told_to() {
    let site = Site::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| site.host(name));
    let (mut near, mut far) = connection(&two, &one);
    one.link(Link { loss_percent: 100.0, ..Link::default() });
    assert_cut(&one, &two);
    assert_cut(&two, &one);
    assert_reaches(&two, &three);
    // A bad line is not a broken one.
    one.link(Link { loss_percent: 10.0, ..Link::default() });
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let mut received = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| near.write_all(&sent).expect("it is sent in the end"));
        far.read_exact(&mut received).expect("it arrives in the end");
    });
    assert_eq!(received, sent);
    one.link(Link::default());
    let said = two.command("ping", ["-c", "20", "-i", "0.02", "-W", "60", "one"]).run().ok();
    said.says(" 0% packet loss");
}

#[test]
fn what_comes_by_a_slow_link_comes_later() {
    let site = Site::new();
    let [slow, fast, to] = ["slow", "fast", "to"].map(|name| site.host(name));
    let socket = |host: &Host| host.within(|| UdpSocket::bind("0.0.0.0:7470")).expect("free");
    let sockets = [&slow, &fast, &to].map(socket);
    slow.link(Link { delay_ms: 2000, jitter_ms: 10, rate_mbit: Some(10), ..Link::default() });
    for (from, text) in [(0, "slow"), (1, "fast")] {
        sockets[from].send_to(text.as_bytes(), (to.ip(), 7470)).expect("the kernel takes it");
    }
    let receive = || {
        let mut buffer = [0; 16];
        let (length, from) = sockets[2].recv_from(&mut buffer).expect("it arrives");
        (String::from_utf8_lossy(&buffer[..length]).into_owned(), from.ip())
    };
    assert_eq!(receive(), ("fast".to_owned(), fast.ip().into()));
    assert_eq!(receive(), ("slow".to_owned(), slow.ip().into()));
}

/// 2 MB from one host to another.
fn transfer(from: &Host, to: &Host) {
    let server = from.serve(0, |_| Response::new(200, vec![7; 2_000_000]));
    let script = format!("busybox wget -q -O- {} | wc -c", server.url("large"));
    assert_eq!(sh(to, &script).ok().text(), "2000000");
}

#[test]
fn wires_count_what_they_carry_and_nothing_else() {
    let site = Site::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| site.host(name));
    let counts = |host: &Host| [host.bytes_sent(), host.bytes_received()];
    assert_eq!([&one, &two, &three].map(counts), [[0; 2]; 3]);
    transfer(&one, &two);
    // Now nothing comes from it any more, also of what ends the connection.
    one.kill();
    let [sent, received] = counts(&one);
    assert!((2_000_000..2_500_000).contains(&sent), "{sent}");
    assert!((1..500_000).contains(&received), "{received}");
    // All of it but what was under way when the power went, and what was sent twice.
    until("the other one received it", || counts(&two)[1] >= 2_000_000);
    assert!(counts(&two)[1] <= sent);
    assert!(counts(&two)[0] >= received);
    assert_eq!(counts(&three), [0; 2], "others see nothing of it");
    one.boot();
    assert!(counts(&one)[0] >= sent, "they count over all boots");
    one.cut();
    let (before, before_at_two) = (counts(&one), counts(&two));
    assert_cut(&two, &one);
    assert_eq!(counts(&one)[1], before[1], "what is cut does not arrive");
    assert!(counts(&two)[0] > before_at_two[0], "but it was sent");
}

#[test]
fn a_relayed_link_carries_large_packets_of_the_kernels() {
    let site = Site::new();
    let (one, two) = (site.host("one"), site.host("two"));
    one.link(Link { jitter_ms: 1, ..Link::default() });
    transfer(&one, &two);
    transfer(&two, &one);
    assert!(one.bytes_sent() > 2_000_000 && one.bytes_received() > 2_000_000);
}

#[test]
fn a_web_server_in_a_host_counts_what_others_and_their_containers_ask() {
    let site = Site::new();
    let (web, worker) = (site.host("web"), site.host("worker-1"));
    let server = web.serve(8080, |_| Response::new(200, "ok\n"));
    assert_eq!(server.address(), format!("{}:8080", web.ip()));
    let ask = |path: &str| format!("busybox wget -q -O- http://web:8080/{path}");
    assert_eq!(sh(&worker, &ask("step-1")).ok().text(), "ok");
    assert_eq!(sh(&worker, &ask("step-2")).ok().text(), "ok");
    // As containers reach it: by a process in their host that makes connections of its own.
    let pasta =
        "pasta --foreground --config-net --no-map-gw --runas 0 -t none -u none -T none -U none";
    let inside = format!("{pasta} -- busybox wget -q -O- {}", server.url("step-2"));
    sh(&worker, &inside).ok().says("ok");
    assert_eq!((server.count("/step-1"), server.count("/step-2")), (1, 2));
    worker.cut();
    assert!(sh(&worker, "busybox wget -q -T 1 -O- http://web:8080/lost").code != 0);
    assert_eq!(server.count("/lost"), 0);
    drop(server);
    web.within(|| TcpListener::bind("0.0.0.0:8080")).expect("the port is free again");
}

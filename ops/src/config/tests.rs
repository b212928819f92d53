//! Settings from all that they are read from.

use super::keys::{KEYS, REGISTRY_KEYS};
use super::settings::Source;
use super::*;
use std::collections::BTreeSet;
use std::path::Path;

const PATH: &str = "/etc/c.toml";

fn read_all(
    text: &str,
    variables: &[(&str, &str)],
    flags: &[Flag],
) -> Result<Settings, ConfigError> {
    let variable =
        |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let source = Source { path: Path::new(PATH), text, variable: &variable, flags };
    Settings::read(Config::new("/home".into(), "host-1"), &source)
}

fn read(text: &str) -> Result<Config, ConfigError> {
    read_all(text, &[], &[]).map(|settings| settings.config)
}

fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

/// The row of a key.
fn row(settings: &Settings, key: &str) -> Row {
    settings.rows().into_iter().find(|row| row.key == key).expect(key)
}

/// The example at the head of the module.
fn example() -> String {
    let lines = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//!"));
    let lines = lines.skip_while(|line| *line != " ```toml").skip(1);
    let lines: Vec<&str> = lines.take_while(|line| *line != " ```").collect();
    lines.join("\n")
}

/// A value that is not the default, for each key, as a variable has it.
fn other(key: &str) -> &'static str {
    match key {
        "farm.slots" | "worker.slots" | "coordinator.replicas" => "7",
        "farm.idle" | "coordinator.grace" | "coordinator.lost_after" | "worker.drain" => "77s",
        "coordinator.weights" => "seven=7",
        "farm.default" | "node.name" | "node.advertise" => "seven",
        "farm.fallback" => "local",
        "node.coordinator" => "seven:77",
        "coordinator.listen" | "worker.listen" | "cache.listen" | "http.listen" => "7.7.7.7:77",
        "worker.memory" | "cache.budget" | "run.cache_mount_max" => "7GB",
        "worker.serve_peers" => "false",
        "log.format" => "json",
        "log.level" => "debug",
        "run.network" => "host",
        "run.runtime" => "/bin/seven",
        other => panic!("{other} has no value here"),
    }
}

/// The value as a file has it.
fn in_toml(value: &str) -> String {
    match value.parse::<toml::Value>() {
        Ok(toml::Value::Integer(_) | toml::Value::Boolean(_)) => value.to_owned(),
        _ => format!("{value:?}"),
    }
}

#[test]
fn settings_are_read_and_overridden() {
    let text = r#"
        [farm]
        slots = 3
        [cache]
        budget = "40GB"
        [run]
        network = "host"
        [registry."docker.io"]
        mirrors = ["http://127.0.0.1:5000"]
        [http]
        listen = "off"
    "#;
    let variables = [("SLIPWAY_SLOTS", "5"), ("SLIPWAY_IDLE", "90s")];
    let config = read_all(text, &variables, &[]).unwrap().config;
    assert_eq!(config.slots, Some(5));
    assert_eq!(config.idle, Duration::from_secs(90));
    assert_eq!(config.cache_budget, Some(40 << 30));
    assert_eq!(config.network, Network::Host);
    assert_eq!(config.registries["docker.io"].mirrors, ["http://127.0.0.1:5000"]);
    assert_eq!(config.http_listen, None);
    assert_eq!(read("").unwrap().idle, Duration::from_secs(15 * 60));
    assert_eq!(read("[run]\nruntime = \"embedded\"").unwrap().runtime, None);
}

#[test]
fn the_example_has_every_key() {
    let settings = read_all(&example(), &[], &[]).unwrap();
    for row in settings.rows().iter().skip(1) {
        assert!(matches!(row.origin, Origin::File { .. }), "{} is not there", row.key);
    }
    assert_eq!(settings.rows().len(), 1 + KEYS.len() + REGISTRY_KEYS.len());
}

#[test]
fn defaults_are_shown_as_such() {
    let settings = read_all("", &[], &[]).unwrap();
    let rows = settings.rows();
    assert!(rows.iter().all(|row| row.origin == Origin::Default));
    assert_eq!(row(&settings, "SLIPWAY_HOME").value, "/home");
    assert_eq!(row(&settings, "farm.slots").value, "(the processors)");
    assert_eq!(row(&settings, "node.name").value, "host-1");
    assert_eq!(row(&settings, "coordinator.listen").value, "0.0.0.0:7470");
    assert_eq!(row(&settings, "coordinator.grace").value, "1m");
    // A value in parentheses says what is taken.
    assert!(rows.iter().all(|row| row.value != "()"));
}

/// Reading, overriding and showing know the same keys: a value goes in by each way, and is shown
/// with where it came from, for every key of the table.
#[test]
fn every_key_is_read_overridden_and_shown() {
    for key in KEYS {
        let value = other(key.name);
        let (section, part) = key.name.split_once('.').unwrap();
        let text = format!("[{section}]\n\n{part} = {}", in_toml(value));
        let by_file = read_all(&text, &[], &[]).unwrap();
        let expected = Row {
            key: key.name.to_owned(),
            value: row(&by_file, key.name).value,
            origin: Origin::File { path: PATH.into(), line: 3 },
        };
        assert_eq!(row(&by_file, key.name), expected);
        assert_eq!(expected.value, value, "{}", key.name);
        assert_ne!(by_file.config, read("").unwrap(), "{} changes nothing", key.name);

        let flag = Flag { key: key.name, flag: "--x", value: value.to_owned() };
        let by_flag = read_all("", &[], std::slice::from_ref(&flag)).unwrap();
        assert_eq!(by_flag.config, by_file.config, "{}", key.name);
        assert_eq!(row(&by_flag, key.name).origin, Origin::Flag("--x".to_owned()));

        let Some(name) = key.variable else { continue };
        let by_variable = read_all("", &[(name, value)], &[]).unwrap();
        assert_eq!(by_variable.config, by_file.config, "{}", key.name);
        let origin = row(&by_variable, key.name).origin;
        assert_eq!(origin, Origin::Variable(name.to_owned()));
        // A flag beats a variable, a variable beats the file.
        let wins =
            |flags: &[Flag]| row(&read_all(&text, &[(name, value)], flags).unwrap(), key.name);
        assert_eq!(wins(&[]).origin, origin);
        assert_eq!(wins(&[flag]).origin, Origin::Flag("--x".to_owned()));
    }
}

#[test]
fn keys_and_variables_are_one_of_a_kind() {
    let names: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), KEYS.len());
    let variables: Vec<&str> = KEYS.iter().filter_map(|key| key.variable).collect();
    assert_eq!(variables.iter().collect::<BTreeSet<_>>().len(), variables.len());
    assert!(variables.iter().all(|name| name.starts_with("SLIPWAY_") && *name != "SLIPWAY_FARM"));
}

#[test]
fn what_is_not_known_is_refused_with_what_is_near() {
    let cases = [
        (
            "[farm]\n\nslot = 3",
            "`farm.slot` (/etc/c.toml:3) is not known; did you mean `farm.slots`?",
        ),
        ("[frm]\nslots = 3", "did you mean `farm.slots`?"),
        ("[node]\nslots = 3", "did you mean `"),
        ("[coordinator]\nlost-after = \"3s\"", "did you mean `coordinator.lost_after`?"),
        ("[registry.x]\nmirror = []", "did you mean `registry.x.mirrors`?"),
        ("[nonsense]", "`nonsense` (/etc/c.toml:1) is not known"),
        ("[farm.slots]\nx = 1", "`farm.slots.x`"),
        ("slots = 1", "did you mean `"),
        ("[registry.x.y]\nhttp = true", "`registry.x.y.http`"),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(!error("[nonsense]\nx = 1").contains("mean"));
    let flag = Flag { key: "farm.slot", flag: "--slots", value: "3".to_owned() };
    let error = read_all("", &[], &[flag]).unwrap_err().to_string();
    assert!(error.contains("(--slots)") && error.contains("`farm.slots`"), "{error}");
}

#[test]
fn wrong_values_are_refused_with_their_place() {
    let cases = [
        ("[run]\nnetwork = \"wifi\"", "(/etc/c.toml:2) cannot be `wifi`: expected `nat` or `host`"),
        ("[farm]\nslots = 0", "`farm.slots`"),
        ("[farm]\nslots = \"3\"", "`farm.slots`"),
        ("[farm]\nslots = -3", "cannot be `-3`"),
        ("[farm]\nslots = 4097", "1 to 4096"),
        ("[farm]\nslots = 99999999999999999999", "cannot be `99999999999999999999`"),
        ("[farm]\nidle = 90", "a time such as"),
        ("[farm]\ndefault = \"a b\"", "the name of a farm"),
        ("[node]\nname = \"a b\"", "`node.name`"),
        ("[node]\nadvertise = \"a:1\"", "a host name"),
        ("[node]\ncoordinator = \"http://farm\"", "HOST:PORT"),
        ("[coordinator]\nlisten = \"farm:7470\"", "an IP address and a port"),
        ("[coordinator]\ngrace = \"25h\"", "at most 24h"),
        ("[coordinator]\nlost_after = \"10ms\"", "from 1s to 1h"),
        ("[coordinator]\nreplicas = 17", "1 to 8"),
        ("[coordinator]\nweights = [\"web\"]", "PROJECT=WEIGHT"),
        ("[coordinator]\nweights = [\"web=0\"]", "from 1 to 1000"),
        ("[worker]\nmemory = \"0\"", "a size"),
        ("[worker]\nserve_peers = \"true\"", "`true` or `false`"),
        ("[cache]\nbudget = 1.5", "cannot be `1.5`"),
        ("[http]\nlisten = \"on\"", "or `off`"),
        ("[log]\nformat = \"xml\"", "`text` or `json`"),
        ("[log]\nlevel = \"worker=loud\"", "a filter"),
        ("[run]\nruntime = \"\"", "`embedded`"),
        ("[registry.x]\nmirrors = \"http://a\"", "a list"),
        ("[registry.x]\nca = [1]", "a list"),
        ("farm = 3", "a section"),
        ("[[farm]]\nslots = 3", "a section"),
        ("registry.x = 3", "a section"),
        ("x", "/etc/c.toml"),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = read_all("", &[("SLIPWAY_SLOTS", "many")], &[]).unwrap_err().to_string();
    assert!(error.contains("`farm.slots` ($SLIPWAY_SLOTS) cannot be `many`"), "{error}");
}

#[test]
fn sections_may_be_empty() {
    assert_eq!(read("[farm]\n[registry]\n[registry.x]\n[run]").unwrap(), read("").unwrap());
}

#[test]
fn registries_have_rows() {
    let text = "[registry.\"docker.io\"]\nmirrors = [\"http://a\", \"http://b\"]\n";
    let settings = read_all(text, &[], &[]).unwrap();
    let mirrors = row(&settings, "registry.docker.io.mirrors");
    assert_eq!(mirrors.value, "http://a, http://b");
    assert_eq!(mirrors.origin, Origin::File { path: PATH.into(), line: 2 });
    assert_eq!(row(&settings, "registry.docker.io.http").value, "false");
    assert_eq!(row(&settings, "registry.docker.io.ca").value, "(none)");
}

#[test]
fn a_host_may_have_a_name_that_no_node_has() {
    let config = Config::new("/home".into(), "my host");
    assert_eq!(config.node.name, None);
    let error = config.node_name().unwrap_err().to_string();
    assert!(error.contains("set `node.name`"), "{error}");
    assert_eq!(read("").unwrap().node_name().unwrap().as_str(), "host-1");
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("mine.toml");
    let error = Settings::load(Some(&path), &[]).unwrap_err().to_string();
    assert!(error.contains("mine.toml"), "{error}");
    std::fs::write(&path, "[coordinator]\nreplicas = 3").unwrap();
    let settings = Settings::load(Some(&path), &[]).unwrap();
    assert_eq!(settings.config.coordinator.replicas, 3);
    assert_eq!(settings.config.file, Some(path.clone()));
    let origin = row(&settings, "coordinator.replicas").origin;
    assert_eq!(origin, Origin::File { path, line: 2 });
}

//! Farms on a real disk.

use super::*;
use crate::identity::{
    Applicant, Authority, CERTIFICATE_LIFE, ClusterId, Grant, NodeName, Project, Subject,
};
use proto::id::{Millis, Scope};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn identity(name: &str) -> Identity {
    let (cluster, now) = (ClusterId::parse("acme").unwrap(), Millis(1_900_000_000_000));
    let authority = Authority::create(&cluster, now).unwrap();
    let project = Project::parse("shop").unwrap();
    let grant = Grant { project, scope: Scope::trusted(), priority_max: 1, admin: false };
    let subject = Subject::client(cluster, NodeName::parse(name).unwrap(), grant);
    let applicant = Applicant::new().unwrap();
    let csr = applicant.csr().unwrap();
    let certificate = authority.sign(&csr, &subject, CERTIFICATE_LIFE, now).unwrap();
    applicant.accept(certificate, authority.certificate().clone()).unwrap()
}

fn name(text: &str) -> FarmName {
    FarmName::parse(text).unwrap()
}

fn about(coordinator: &str, description: &str) -> About {
    let coordinator = Address::coordinator(coordinator).unwrap();
    About { coordinator, description: description.to_owned() }
}

fn house() -> (TempDir, Farms) {
    let home = tempfile::tempdir().unwrap();
    let farms = Farms::of(home.path());
    (home, farms)
}

/// Two farms, `ci` in use.
fn with_two() -> (TempDir, Farms) {
    let (home, farms) = house();
    farms.create(&name("ci"), &about("farm:7470", "the team's"), &identity("ann")).unwrap();
    farms.create(&name("lab"), &about("[::1]:99", ""), &identity("bob")).unwrap();
    farms.set_current(Some(&name("ci"))).unwrap();
    (home, farms)
}

fn files_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn farms_are_made_listed_used_and_removed() {
    let (home, farms) = house();
    assert_eq!(farms.names().unwrap(), BTreeSet::new());
    assert_eq!(farms.current().unwrap(), None);
    farms.set_current(None).unwrap();
    drop(home);

    let (home, farms) = with_two();
    let ci = farms.show(&name("ci")).unwrap();
    assert_eq!(ci.about, about("farm", "the team's"));
    assert_eq!(ci.identity().unwrap().subject().name().as_str(), "ann");
    let listed = farms.list().unwrap();
    let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ci", "lab"]);
    assert_eq!(listed[1].1.as_ref().unwrap().about.coordinator.to_string(), "[::1]:99");
    assert_eq!(farms.current().unwrap(), Some(name("ci")));

    farms.remove(&name("lab")).unwrap();
    assert_eq!(farms.current().unwrap(), Some(name("ci")));
    farms.remove(&name("ci")).unwrap();
    assert_eq!(farms.current().unwrap(), None);
    assert_eq!(files_in(&home.path().join("farms")), [""; 0]);
}

#[test]
fn what_is_kept_is_private() {
    let (home, farms) = with_two();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let dir = farms.show(&name("ci")).unwrap().dir;
    assert_eq!(dir, home.path().join("farms/ci"));
    assert_eq!((mode(&home.path().join("farms")), mode(&dir)), (0o700, 0o700));
    assert_eq!(files_in(&dir), ["farm.toml", "identity.pem"]);
    for file in files_in(&dir) {
        assert_eq!(mode(&dir.join(file)), 0o600);
    }
}

#[test]
fn a_farm_is_not_replaced() {
    let (home, farms) = with_two();
    let error = farms.create(&name("ci"), &about("other", ""), &identity("eve")).unwrap_err();
    assert!(matches!(error, FarmError::Exists { .. }), "{error}");
    let ci = farms.show(&name("ci")).unwrap();
    assert_eq!(ci.about.coordinator.to_string(), "farm:7470");
    assert_eq!(ci.identity().unwrap().subject().name().as_str(), "ann");
    // Nothing half-made is left.
    assert_eq!(files_in(&home.path().join("farms")), ["ci", "current", "lab"]);
}

#[test]
fn a_renewed_identity_takes_the_place_of_the_old_one() {
    let (_home, farms) = with_two();
    let ci = farms.show(&name("ci")).unwrap();
    identity("ann-2").save(&ci.dir).unwrap();
    assert_eq!(ci.identity().unwrap().subject().name().as_str(), "ann-2");
    assert_eq!(farms.show(&name("ci")).unwrap(), ci);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let (_home, farms) = with_two();
    let nope = name("nope");
    for error in [
        farms.show(&nope).unwrap_err(),
        farms.set_current(Some(&nope)).unwrap_err(),
        farms.remove(&nope).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "There is no farm `nope`; there are: ci, lab");
    }
    let (_home, none) = house();
    let error = none.show(&nope).unwrap_err().to_string();
    assert!(error.contains("slipway join"), "{error}");
}

#[test]
fn descriptions_are_one_line() {
    let (_home, farms) = house();
    let me = identity("ann");
    for bad in ["a\nb", "\u{1b}[2J", &"x".repeat(DESCRIPTION_MAX + 1)] {
        let error = farms.create(&name("ci"), &about("farm", bad), &me).unwrap_err();
        assert!(matches!(error, FarmError::Description));
    }
    let odd = "ä \"quoted\" \\ = # ]";
    farms.create(&name("ci"), &about("farm", odd), &me).unwrap();
    assert_eq!(farms.show(&name("ci")).unwrap().about.description, odd);
}

#[test]
fn a_damaged_farm_is_named_and_does_not_hide_the_others() {
    let (_home, farms) = with_two();
    let file = farms.show(&name("ci")).unwrap().dir.join("farm.toml");
    for damage in [
        "",
        "coordinator = 3",
        "coordinator = \"a b\"",
        "coordinator = \"a\"\ncolour = \"red\"",
        "coordinator = \"a\"\ndescription = \"\\u001b\"",
        "\0",
    ] {
        fs::write(&file, damage).unwrap();
        let error = farms.show(&name("ci")).unwrap_err();
        assert!(matches!(error, FarmError::Damaged { .. }), "{damage}: {error}");
        assert!(error.to_string().contains("ci/farm.toml"), "{error}");
        let listed = farms.list().unwrap();
        assert!(listed[0].1.is_err() && listed[1].1.is_ok());
    }
    fs::remove_file(&file).unwrap();
    let error = farms.show(&name("ci")).unwrap_err().to_string();
    assert!(error.contains("ci/farm.toml"), "{error}");
    let identity = file.with_file_name("identity.pem");
    fs::write(&identity, "x").unwrap();
    // Nor does it hinder its removal.
    farms.remove(&name("ci")).unwrap();
    assert_eq!(farms.names().unwrap(), BTreeSet::from([name("lab")]));
}

#[test]
fn a_damaged_choice_is_named_and_can_be_made_anew() {
    let (home, farms) = with_two();
    fs::write(home.path().join("farms/current"), "../x\n").unwrap();
    let error = farms.current().unwrap_err().to_string();
    assert!(error.contains("farms/current"), "{error}");
    farms.set_current(Some(&name("lab"))).unwrap();
    assert_eq!(farms.current().unwrap(), Some(name("lab")));
}

#[test]
fn what_a_broken_off_change_left_is_no_farm_and_goes() {
    let (home, farms) = with_two();
    let dir = home.path().join("farms");
    for left in [".new-x", ".gone-y"] {
        fs::create_dir(dir.join(left)).unwrap();
        fs::write(dir.join(left).join("identity.pem"), "x").unwrap();
    }
    fs::write(dir.join("notes.txt"), "x").unwrap();
    assert_eq!(farms.names().unwrap(), BTreeSet::from([name("ci"), name("lab")]));
    farms.remove(&name("lab")).unwrap();
    // One that is being made is somebody's.
    assert_eq!(files_in(&dir), [".new-x", "ci", "current", "notes.txt"]);
}

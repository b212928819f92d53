//! Wrong usage: exit code 2, with a word on what would be right.

use tests::site::Site;

#[test]
fn wrong_flags_end_with_2() {
    let site = Site::of("FROM scratch\n");
    let context = site.context.path().to_str().expect("UTF-8");
    for (args, says) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--network=moon"], "moon"),
        (&["--allow=everything"], "everything"),
        (&["--progress=fancy"], "fancy"),
        (&["-o", "type=bogus"], "bogus"),
        (&["-o", "type=oci,colour=red,dest=/tmp/none"], "colour"),
        (&["-o", "type=local"], "dest"),
        (&["--push"], "-t"),
        (&["-t", "Not A Name"], "Not A Name"),
        (&["--platform", "moon/apollo/11/12"], "moon"),
        (&["--secret", "src=/etc/passwd,what=1"], "secret"),
        (&["--ulimit", "nofile"], "nofile"),
        (&["--add-host", "db"], "db"),
        (&["--memory", "lots"], "lots"),
        (&["--build-arg", "=1"], "build-arg"),
    ] {
        site.slipway.run(&[&["build"], args, &[context]].concat()).fails(2).says(says);
    }
    site.slipway.run(&["build"]).fails(2).says("PATH");
    site.slipway.run(&["biuld", "."]).fails(2).says("build");
    site.slipway.run(&["run"]).fails(2).says("image");
    site.slipway.run(&["run", "--network=moon", "x"]).fails(2).says("moon");
    site.slipway.run(&["cache", "prune", "--keep", "much"]).fails(2).says("much");
    assert!(site.slipway.processes().is_empty(), "no farm was started for that");
    site.slipway.run(&["--help"]).ok().says("Examples:");
    site.slipway.run(&["build", "--help"]).ok().says("Examples:");
    site.slipway.run(&["--version"]).ok().says("slipway");
    site.slipway.settings("[farm]\nslots = \"many\"\n");
    site.build(&[]).fails(1).says("config.toml").says("slots");
    site.slipway.settings("");
}

#[test]
fn settings_are_shown_with_where_they_come_from() {
    let site = Site::of("FROM scratch\n");
    site.slipway.settings("[farm]\nslots = 3\n");
    let shown = site.slipway.run(&["config", "show"]).ok();
    shown.says("farm.slots").says("config.toml:2").says("(a fifth of the disk)");
    site.slipway.run(&["config", "show", "--format", "json"]).ok().says("\"line\": 2");
    site.slipway.run(&["--config", "/none.toml", "config", "show"]).fails(1).says("/none.toml");
    site.slipway.settings("[farm]\nslot = 3\n");
    site.slipway.run(&["config", "show"]).fails(1).says("did you mean `farm.slots`");
    site.slipway.settings("");
    assert!(site.slipway.processes().is_empty(), "no farm was started for that");
}

#[test]
fn who_is_not_read_ends_as_it_would_have() {
    let site = Site::of("FROM scratch\nCOPPY a /\n");
    let context = site.context.path().to_str().expect("UTF-8");
    let run = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = site.slipway.command(args);
        command.stdout(std::process::Stdio::null()).stderr(writer);
        command.status().expect("it starts").code()
    };
    assert_eq!(run(&["lint", context]), Some(1));
    assert_eq!(run(&["build", context]), Some(1));
    assert_eq!(run(&["build", "/no/such/directory"]), Some(1));
    site.write("a", "a\n");
    site.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    assert_eq!(run(&["build", "-o", "type=cacheonly", context]), Some(0));
}

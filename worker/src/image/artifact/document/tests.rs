use super::*;
use proptest::prelude::*;

fn id(n: u8) -> [u8; 32] {
    [n; 32]
}

fn layer(n: u8) -> CachedLayer {
    let part = |media_type: &str, salt: u8| PackedRef {
        media_type: media_type.to_owned(),
        digest: OciDigest::from_bytes([n ^ salt; 32]),
        size: u64::from(n) + 100,
    };
    CachedLayer {
        tree: RootId(TreeId::from_bytes(id(n))),
        diff_id: OciDigest::from_bytes(id(n)),
        files: part("application/vnd.oci.image.layer.v1.tar+gzip", 1),
        nodes: part(NODES_TYPE, 2),
    }
}

/// Records of so many layers each, which share some.
fn content(counts: &[u8]) -> CacheContent {
    let record = |(n, count): (u8, &u8)| CachedRecord {
        definition: DefKey::from_bytes(id(n)),
        content: ContentKey::from_bytes(id(n ^ 0xff)),
        version: u64::from(n) << 50,
        inputs: (0..n % 3).map(|i| (DefKey::from_bytes(id(i)), u64::from(i))).collect(),
        layers: (0..*count).map(|l| layer(l).tree).collect(),
        created: Millis(u64::MAX - u64::from(n)),
        cost: Cost { wall_ms: 1, cpu_ms: u64::from(n), memory_peak_bytes: u64::MAX },
    };
    let records = (0..).zip(counts).map(record).collect();
    let most = counts.iter().copied().max().unwrap_or(0);
    CacheContent { records, layers: (0..most).map(layer).collect() }
}

fn read(written: &Written) -> Result<CacheContent, BadArtifact> {
    Named::read(&written.manifest.bytes)?.content(&written.config.bytes)
}

/// The same cache with another config, under a manifest that names it.
fn with_config(written: &Written, change: impl FnOnce(&mut serde_json::Value)) -> Written {
    let mut config: serde_json::Value = serde_json::from_slice(&written.config.bytes).unwrap();
    change(&mut config);
    let config = Document::new(serde_json::to_vec(&config).unwrap(), CONFIG_TYPE);
    let mut manifest: serde_json::Value = serde_json::from_slice(&written.manifest.bytes).unwrap();
    manifest["config"]["digest"] = config.digest.to_string().into();
    manifest["config"]["size"] = config.bytes.len().into();
    let manifest = Document::new(serde_json::to_vec(&manifest).unwrap(), MANIFEST_TYPE);
    Written { manifest, config }
}

proptest! {
    #[test]
    fn what_is_written_is_read(counts in proptest::collection::vec(0..9u8, 0..20)) {
        let content = content(&counts);
        let written = write(&content).unwrap();
        prop_assert_eq!(read(&written).unwrap(), content.clone());
        prop_assert_eq!(write(&content).unwrap(), written);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(
        counts in proptest::collection::vec(0..5u8, 1..5),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let written = write(&content(&counts)).unwrap();
        let mut manifest = written.manifest.bytes.to_vec();
        let place = at.index(manifest.len());
        manifest[place] = byte;
        if let Ok(named) = Named::read(&manifest) {
            let _ = named.content(&written.config.bytes);
        }
        let mut config = written.config.bytes.to_vec();
        let place = at.index(config.len());
        config[place] = byte;
        let changed = config != written.config.bytes;
        let read = Named::read(&written.manifest.bytes).unwrap().content(&config);
        prop_assert_eq!(read.is_err(), changed, "its digest is another one");
        let config = Document::new(config, CONFIG_TYPE);
        let mut named: Named = Named::read(&written.manifest.bytes).unwrap();
        (named.config.digest, named.config.size) = (config.digest, config.bytes.len() as u64);
        let _ = named.content(&config.bytes);
    }
}

#[test]
fn the_form_is_the_documented_one() {
    let written = write(&content(&[1])).unwrap();
    let manifest = String::from_utf8(written.manifest.bytes.to_vec()).unwrap();
    let hex = |n: u8| format!("{n:02x}").repeat(32);
    assert_eq!(
        manifest,
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.slipway.cache.v1","config":{{"mediaType":"application/vnd.slipway.cache.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:{}","size":100}},{{"mediaType":"application/vnd.slipway.cache.tree.v1+zstd","digest":"sha256:{}","size":100}}]}}"#,
            written.config.digest,
            written.config.bytes.len(),
            hex(1),
            hex(2),
        )
    );
    let config = String::from_utf8(written.config.bytes.to_vec()).unwrap();
    assert_eq!(
        config,
        format!(
            r#"{{"version":1,"records":[{{"definition":"{}","content":"{}","version":0,"inputs":[],"layers":[0],"created":18446744073709551615,"wallMs":1,"cpuMs":0,"memoryPeakBytes":18446744073709551615}}],"layers":[{{"tree":"{}","diffId":"sha256:{}"}}]}}"#,
            hex(0),
            hex(0xff),
            hex(0),
            hex(0),
        )
    );
}

#[test]
fn what_is_no_cache_says_what_it_is() {
    let buildkits = r#"{"schemaVersion":2,"manifests":[
        {"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:0","size":1},
        {"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"sha256:0","size":1}]}"#;
    assert_eq!(Named::read(buildkits.as_bytes()), Err(BadArtifact::BuildKits));
    let as_manifest = r#"{"config":
        {"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"sha256:0","size":1}}"#;
    assert_eq!(Named::read(as_manifest.as_bytes()), Err(BadArtifact::BuildKits));
    let image = r#"{"config":
        {"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0","size":1}}"#;
    assert_eq!(Named::read(image.as_bytes()), Err(BadArtifact::NoCache));
    assert!(matches!(Named::read(b"{"), Err(BadArtifact::Damaged(_))));
    assert!(matches!(Named::read(b"[]"), Err(BadArtifact::Damaged(_))));

    let written = write(&content(&[1, 2])).unwrap();
    let newer = with_config(&written, |config| {
        config["version"] = 2.into();
        config["records"] = "elsewhere".into();
    });
    assert_eq!(read(&newer), Err(BadArtifact::Version(2)));
}

#[test]
fn numbers_and_lists_are_bounded() {
    let written = write(&content(&[1, 2])).unwrap();
    let damaged = |change: fn(&mut serde_json::Value)| {
        let read = read(&with_config(&written, change));
        assert!(matches!(read, Err(BadArtifact::Damaged(_))), "{read:?}");
    };
    damaged(|config| config["records"][0]["layers"] = vec![2].into());
    damaged(|config| config["records"][0]["layers"] = vec![0; 20_001].into());
    damaged(|config| config["records"][0]["wallMs"] = u64::MAX.into());
    damaged(|config| config["records"][0]["definition"] = "x".into());
    damaged(|config| config["layers"][1] = config["layers"][0].clone());
    damaged(|config| config["layers"] = Vec::<u8>::new().into());
    let mut manifest: serde_json::Value = serde_json::from_slice(&written.manifest.bytes).unwrap();
    manifest["config"]["size"] = (limit::CACHE_CONFIG_BYTES_MAX + 1).into();
    let large = Named::read(&serde_json::to_vec(&manifest).unwrap());
    assert!(matches!(large, Err(BadArtifact::TooLarge { what: "config", .. })));
}

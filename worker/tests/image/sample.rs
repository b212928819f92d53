//! Images to play with.

use crate::server::{Reply, Request};
use crate::setup::amd64;
use cache::store::Store;
use proto::id::{OciDigest, RootId};
use proto::step::PackedRef;
use proto::tree::{AnyNode, DirRef, Node};
use proto::wire::build::MediaTypes;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use tar::{EntryType, Header};
use worker::image::manifest::{
    Annotations, Assembled, HistoryRow, PackedPart, assemble, config, layer_media,
};
use worker::image::pack::{Packer, gzip};
use worker::image::unpack::{Reading, unpack};

/// A tar of all kinds of files, as another program would write it.
pub fn tar_of_all_kinds() -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    let header = |kind, mode, mtime| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(2000);
        header.set_mtime(mtime);
        header.set_size(0);
        header
    };
    let mut file = |path: &str, mode, content: &[u8]| {
        let mut header = header(EntryType::Regular, mode, 1_600_000_000);
        header.set_size(content.len() as u64);
        out.append_data(&mut header, path, content).unwrap();
    };
    file("etc/motd", 0o644, b"hello\n");
    file("usr/bin/tool", 0o4755, b"#!/bin/sh\necho tool\n");
    file(&format!("usr/share/{}/name", "long-".repeat(30)), 0o600, b"deep\n");
    file("usr/share/zoë", 0o644, "ü\n".as_bytes());
    let noise: Vec<u8> =
        (0..900_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    file("usr/lib/large", 0o644, &noise);
    let mut link = |kind, mode, path: &str, to: &str| {
        out.append_link(&mut header(kind, mode, 1_600_000_000), path, to).unwrap();
    };
    link(EntryType::Link, 0o4755, "usr/bin/same", "usr/bin/tool");
    link(EntryType::Symlink, 0o644, "usr/bin/soft", "tool");
    // CAP_NET_RAW, permitted and effective (`struct vfs_cap_data`, version 2).
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attributes = [
        ("SCHILY.xattr.user.note", &b"two\nlines"[..]),
        ("SCHILY.xattr.security.capability", &capability),
    ];
    out.append_pax_extensions(attributes).unwrap();
    out.append_data(&mut header(EntryType::Regular, 0o755, 9), "usr/bin/ping", io::empty())
        .unwrap();
    let mut other = |kind, path: &str, mode, device: Option<(u32, u32)>| {
        let mut header = header(kind, mode, 1_500_000_000);
        if let Some((major, minor)) = device {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        out.append_data(&mut header, path, io::empty()).unwrap();
    };
    other(EntryType::Directory, "tmp/", 0o1777, None);
    other(EntryType::Fifo, "run/pipe", 0o620, None);
    other(EntryType::Char, "dev/null", 0o666, Some((1, 3)));
    out.into_inner().unwrap()
}

/// Puts a layer into the store.
pub fn layer(store: &dyn Store, tar: &[u8]) -> RootId {
    let reading = Reading::Layer { diff_id: None, lower: None };
    unpack(store, "The sample", tar, reading).unwrap().root
}

/// An image of these layers, with `Cmd`.
pub fn image(store: &Arc<dyn Store>, layers: &[RootId], media: MediaTypes) -> Assembled {
    let packer = Packer::new(store.clone(), 2);
    let how = gzip(6).unwrap();
    let parts = layers.iter().map(|diff| {
        let made = packer.layer(diff, how).unwrap();
        let media_type = layer_media(media, how).to_owned();
        let part = PackedRef { media_type, digest: made.packed.digest, size: made.packed.size };
        PackedPart { part, blob: made.packed.blob, diff_id: made.diff_id }
    });
    let parts: Vec<PackedPart> = parts.collect();
    let base = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/sh"]}}"#;
    let rows: Vec<_> = parts.iter().map(|_| HistoryRow::default()).collect();
    let ids: Vec<OciDigest> = parts.iter().map(|p| p.diff_id).collect();
    let config = config(media, base, Some("2023-11-14T22:13:20Z"), &rows, &ids).unwrap();
    assemble(media, amd64(), config, parts, &Annotations::new()).unwrap()
}

/// What a registry that has only this image, as `app:1`, keeps under which path.
pub fn served(store: &dyn Store, image: &Assembled) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let manifest = (image.manifest.media_type.clone(), image.manifest.bytes.to_vec());
    files.insert(format!("/v2/app/manifests/{}", image.manifest.digest), manifest.clone());
    files.insert("/v2/app/manifests/1".to_owned(), manifest);
    let octets = || "application/octet-stream".to_owned();
    let config = (octets(), image.config.bytes.to_vec());
    files.insert(format!("/v2/app/blobs/{}", image.config.digest), config);
    for layer in &image.layers {
        let mut bytes = Vec::new();
        store.open(&layer.blob, 0).unwrap().read_to_end(&mut bytes).unwrap();
        files.insert(format!("/v2/app/blobs/{}", layer.part.digest), (octets(), bytes));
    }
    files
}

/// Answers as a registry should.
pub fn answer(files: &BTreeMap<String, (String, Vec<u8>)>, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap();
    let Some((media_type, bytes)) = files.get(path) else {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return Reply::new(404).body(body);
    };
    let digest = worker::image::sha::sha256(bytes).to_string();
    let reply = Reply::new(200).header("Content-Type", media_type);
    let reply = reply.header("Docker-Content-Digest", digest);
    match request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')) {
        None => reply.body(bytes.clone()),
        Some(from) => {
            let from: usize = from.parse().unwrap();
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply { status: 206, ..reply }.header("Content-Range", range).body(&bytes[from..])
        }
    }
}

/// All paths of a diff tree, each with what it is.
pub fn list(store: &dyn Store, root: &RootId) -> Vec<String> {
    fn walk(store: &dyn Store, dir: &DirRef, path: &str, out: &mut Vec<String>) {
        let AnyNode::Dir(node) = &*store.node(&dir.tree).unwrap() else { panic!() };
        for entry in node.entries() {
            let path = format!("{path}/{}", entry.name);
            match &entry.node {
                Node::Dir(dir, _) => {
                    out.push(format!("{path}/"));
                    walk(store, dir, &path, out);
                }
                Node::File { size, .. } => out.push(format!("{path} {size}")),
                Node::Symlink(to) => out.push(format!("{path} -> {}", to.escape_ascii())),
                node => out.push(format!("{path} {node:?}")),
            }
        }
    }
    let AnyNode::Root(root) = &*store.node(&root.0).unwrap() else { panic!() };
    let mut out = Vec::new();
    walk(store, &root.dir, "", &mut out);
    out
}

/// A file's bytes.
pub fn content(store: &dyn Store, root: &RootId, path: &str) -> Option<Vec<u8>> {
    let AnyNode::Root(root) = &*store.node(&root.0).unwrap() else { panic!() };
    let mut tree = root.dir.tree;
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        let node = store.node(&tree).unwrap();
        let AnyNode::Dir(dir) = &*node else { panic!() };
        match &dir.get(name.as_bytes())?.node {
            Node::Dir(below, _) => tree = below.tree,
            Node::File { blob, .. } if names.peek().is_none() => {
                let mut bytes = Vec::new();
                store.open(blob, 0).unwrap().read_to_end(&mut bytes).unwrap();
                return Some(bytes);
            }
            _ => return None,
        }
    }
    None
}

//! What adopted processes had open already: it was opened before anybody decided about it.
//!
//! Descriptors are decided at each use from now on. What is mapped is not: no hook of the kernel
//! sees a store to a page. People are told of both.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::api::Residual;

/// Entries that are listed of each kind. There may be more.
const LISTED: usize = 1_000;

/// Looks at these processes; one that ends meanwhile has nothing open.
pub(super) fn of(pids: &[u32]) -> Residual {
    let mut found = Residual::default();
    for pid in pids {
        let process = Path::new("/proc").join(pid.to_string());
        mappings(&process, *pid, &mut found);
        descriptors(&process, *pid, &mut found);
    }
    found
}

fn add(list: &mut Vec<String>, more: &mut bool, text: String) {
    if list.len() < LISTED {
        list.push(text);
    } else {
        *more = true;
    }
}

/// Mappings that are shared and can be written to.
fn mappings(process: &Path, pid: u32, found: &mut Residual) {
    let text = fs::read(process.join("maps")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut paths: Vec<&str> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(6, ' ').filter(|field| !field.is_empty());
            let access = fields.nth(1)?.as_bytes();
            let path = fields.nth(3)?.trim();
            let is_shared = access.get(1) == Some(&b'w') && access.get(3) == Some(&b's');
            (is_shared && path.starts_with('/')).then_some(path)
        })
        .collect();
    paths.dedup();
    for path in paths {
        add(
            &mut found.mappings,
            &mut found.more,
            format!("{pid}: {path}"),
        );
    }
}

fn descriptors(process: &Path, pid: u32, found: &mut Residual) {
    let mut peers = None;
    for entry in fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let bytes = target.as_os_str().as_bytes();
        if let Some(inode) = bytes.strip_prefix(b"socket:[") {
            let inode = String::from_utf8_lossy(inode)
                .trim_end_matches(']')
                .to_owned();
            let peers = peers.get_or_insert_with(|| connected(process));
            if let Some(peer) = peers.get(&inode) {
                add(
                    &mut found.sockets,
                    &mut found.more,
                    format!("{pid}: {peer}"),
                );
            }
        } else if bytes.starts_with(b"/") && is_writable(process, &entry.file_name()) {
            let path = target.display();
            add(&mut found.files, &mut found.more, format!("{pid}: {path}"));
        }
    }
}

/// Whether a descriptor of a file can be written to.
fn is_writable(process: &Path, descriptor: &std::ffi::OsStr) -> bool {
    let text = fs::read_to_string(process.join("fdinfo").join(descriptor)).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & nix::libc::O_ACCMODE != nix::libc::O_RDONLY)
}

/// Connected sockets of a process's network namespace: who is at the other end, by inode.
fn connected(process: &Path) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for (file, protocol) in [
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
    ] {
        let text = fs::read_to_string(process.join("net").join(file)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let peer = fields.get(2).and_then(|text| address(text));
            if let (Some(peer), Some(inode)) = (peer, fields.get(9)) {
                all.insert((*inode).to_owned(), format!("{peer}/{protocol}"));
            }
        }
    }
    all
}

/// An address as these files write it: words in the order of the host's bytes; none if there is
/// no port, so no peer.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16)
        .ok()
        .filter(|port| *port != 0)?;
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok();
    if address.len() == 8 {
        return Some((Ipv4Addr::from(word(0)?.to_ne_bytes()), port).into());
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at)?.to_ne_bytes());
    }
    Some((Ipv6Addr::from(bytes), port).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_this_process_has_open_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = of(&[std::process::id()]);
        let path = file.path().display().to_string();
        assert!(
            found.files.iter().any(|line| line.ends_with(&path)),
            "{found:?}"
        );
        let peer = format!(": {}/tcp", stream.peer_addr().unwrap());
        assert!(
            found.sockets.iter().any(|line| line.ends_with(&peer)),
            "{found:?}"
        );
    }

    #[test]
    fn addresses_of_both_families() {
        let of = |text: &str| address(text).map(|address| address.to_string());
        assert_eq!(of("0100007F:1F90").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(
            of("00000000000000000000000001000000:0050").as_deref(),
            Some("[::1]:80")
        );
        assert_eq!(of("00000000:0000"), None);
        assert_eq!(of("x"), None);
    }
}
